//! Local ports that are forwarded to a sandbox.

use std::time::Duration;

use sandbox_host::Sandbox;
use sandbox_host::types::Tunnel;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::base::{Answer, Context};
use crate::fault::Fault;
use crate::objects::ForwardObject;
use crate::reply::Reply;

methods! {
    "forward.open" => open,
}

/// How long the tunnels of a sandbox are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Most connections of one port at a time.
const CONNECTIONS: usize = 1024;

in_sandbox! {
    Open { port: u16, #[serde(default = "any")] listen: String }
}

fn any() -> String {
    "127.0.0.1:0".to_owned()
}

async fn open(context: Context, arguments: Open) -> Answer {
    let place = arguments.place(&context)?;
    let Open { port, listen, .. } = arguments;
    let tunnels = place.run(place.sandbox.tunnels(PATIENCE)).await?;
    let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.port == port).cloned() else {
        let open: Vec<_> = tunnels.iter().map(|tunnel| tunnel.port.to_string()).collect();
        let why = format!("the sandbox was created without the port {port}; its ports: [{}]", open.join(", "));
        return Err(Fault::invalid(why));
    };
    let fail = |error| Fault::io(&format!("listen at {listen}"), error);
    let listener = TcpListener::bind(&listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let task = tokio::spawn(serve(listener, place.sandbox, tunnel)).abort_handle();
    let number = context.objects.add(&place.provider, ForwardObject { task })?;
    Reply::json(json!({ "forward": number, "address": address.to_string() }))
}

/// Accepts connections until the task is aborted. Its connections end with it.
async fn serve(listener: TcpListener, sandbox: Sandbox, tunnel: Tunnel) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(pass(stream, sandbox.clone(), tunnel.clone()));
            }
            // The system is short of descriptors, or the caller has hung up.
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn pass(mut stream: TcpStream, sandbox: Sandbox, tunnel: Tunnel) {
    let _ = stream.set_nodelay(true);
    match sandbox.connect(&tunnel).await {
        Ok(mut far) => {
            // Both sides may close the connection abruptly.
            if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut far).await {
                tracing::debug!(%error, "a forwarded connection ended");
            }
        }
        Err(error) => tracing::warn!(%error, "a connection could not be forwarded"),
    }
}

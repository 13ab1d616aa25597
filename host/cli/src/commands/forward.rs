//! `sandbox-host forward`: forwards local ports to ports of a sandbox.

use std::net::Ipv4Addr;

use anyhow::Result;
use sandbox_host::Sandbox;
use sandbox_host::types::{PortKind, Tunnel};
use tokio::net::{TcpListener, TcpStream};

use crate::args::Forward;
use crate::commands::tunnels::TUNNEL_WAIT;
use crate::output::results::Forwarded;
use crate::output::text::end_text;
use crate::output::{self, Failure, Voice};
use crate::session::Session;

/// Runs `sandbox-host forward`. Returns only with an error, for example when the sandbox has ended.
pub async fn forward(session: &Session, args: Forward) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let tunnels = {
        let _step = session.voice.step("waiting for the ports");
        sandbox.tunnels(TUNNEL_WAIT).await?
    };
    let mut doors = tokio::task::JoinSet::new();
    for (local, remote) in args.ports {
        let Some(tunnel) = tunnels.iter().find(|tunnel| tunnel.port == remote).cloned() else {
            let open: Vec<_> = tunnels.iter().map(|tunnel| tunnel.port.to_string()).collect();
            let why = format!("{} was created without this port; its ports: [{}]", sandbox.id(), open.join(", "));
            return Err(Failure::new(format!("forward to port {remote}"), why)
                .hint(format!("create the sandbox with --port {remote}"))
                .into());
        };
        if session.with_emulator() && tunnel.kind != PortKind::Tcp {
            let why = "it is reachable only over TLS, and the emulator's certificate is self-signed";
            return Err(Failure::new(format!("forward to port {remote}"), why)
                .hint(format!("create the sandbox with --port {remote}/tcp"))
                .into());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local)).await.map_err(|error| {
            Failure::io(format!("listen on port {local}"), &error)
                .hint(format!("choose another local port, or 0 for a free one: 0:{remote}"))
        })?;
        let address = listener.local_addr()?;
        if session.voice.json {
            output::print_json(&Forwarded { listen: address.to_string(), port: remote })?;
        } else {
            output::print(format_args!("{address} -> port {remote} of {}", sandbox.id()))?;
        }
        doors.spawn(serve(session.voice, listener, sandbox.clone(), tunnel));
    }
    // Forwards until the sandbox ends or the user interrupts.
    let reason = sandbox.wait().await?;
    Err(Failure::new(format!("keep forwarding to {}", sandbox.id()), format!("it has ended: {}", end_text(&reason)))
        .hint("create a new sandbox")
        .into())
}

async fn serve(voice: Voice, listener: TcpListener, sandbox: Sandbox, tunnel: Tunnel) {
    while let Ok((stream, _)) = listener.accept().await {
        let (sandbox, tunnel) = (sandbox.clone(), tunnel.clone());
        tokio::spawn(async move {
            if let Err(error) = pass(stream, &sandbox, &tunnel).await {
                voice.fail(&error);
            }
        });
    }
}

async fn pass(mut stream: TcpStream, sandbox: &Sandbox, tunnel: &Tunnel) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut far = sandbox.connect(tunnel).await?;
    // Both sides may close the connection abruptly, so this is not an error.
    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut far).await {
        tracing::debug!(%error, "connection ended");
    }
    Ok(())
}

//! Group `tunnels`: ports that are reached from outside.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{PortKind, Tunnel};
use sandbox_host::{Kind, Sandbox};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::check::{Outcome, ensure, failed, refused, same};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "tunnels.tls" ["ports.tls"] "tunnels: returns host and port of each port of the kind `tls`" => tls;
    "tunnels.h2" ["ports.h2"] "tunnels: returns host and port of each port of the kind `h2`" => h2;
    "tunnels.tcp" ["ports.tcp"] "tunnels: returns host and port of each port of the kind `tcp`" => tcp;
    "tunnels.several" ["ports.tls", "ports.tcp"] "tunnels: each port of a sandbox has one" => several;
    "tunnels.none" ["ports.tls"] "tunnels: a sandbox without ports has none" => none;
    "tunnels.tcp-carries-data" ["ports.tcp", "create.command", "program:python3"] "port-kind: plain TCP to a program in the sandbox" => carries_data;
    "tunnels.bad-port" ["ports.tls"] "port: the number 0 is `invalid-argument`" => bad_port;
    "tunnels.unknown-sandbox" ["ports.tls"] "tunnels: fails with `not-found` if the provider does not know the sandbox" => unknown;
    "tunnels.connect-token" ["connect-token"] "connect-token: the URL, and headers or query parameters that admit a client" => token;
}

/// How long the assignment of ports may take.
const ASSIGNED: Duration = Duration::from_secs(60);

/// Returns the only tunnel of a sandbox.
async fn tunnel(sandbox: &Sandbox, kind: PortKind, port: u16) -> Outcome<Tunnel> {
    let mut tunnels = sandbox.tunnels(ASSIGNED).await?;
    ensure!(tunnels.len() == 1, "a sandbox with one port has the tunnels {tunnels:?}");
    let tunnel = tunnels.remove(0);
    // A service may show both kinds of TLS ports in the same way.
    let same_kind = tunnel.kind == kind || (kind == PortKind::H2 && tunnel.kind == PortKind::Tls);
    ensure!(tunnel.port == port && same_kind, "the tunnel of port {port} is {tunnel:?}");
    ensure!(!tunnel.public_host.is_empty() && tunnel.public_port != 0, "the tunnel has no address: {tunnel:?}");
    Ok(tunnel)
}

async fn of_kind(case: &Case, kind: PortKind) -> Outcome {
    let sandbox = case.create(case.spec().port_of(kind, 8000)).await?;
    tunnel(&sandbox, kind, 8000).await?;
    Ok(())
}

async fn tls(case: Arc<Case>) -> Outcome {
    of_kind(&case, PortKind::Tls).await
}

async fn h2(case: Arc<Case>) -> Outcome {
    of_kind(&case, PortKind::H2).await
}

async fn tcp(case: Arc<Case>) -> Outcome {
    of_kind(&case, PortKind::Tcp).await
}

async fn several(case: Arc<Case>) -> Outcome {
    let sandbox = case.create(case.spec().port(8001).port(8002).port_of(PortKind::Tcp, 8003)).await?;
    let tunnels = sandbox.tunnels(ASSIGNED).await?;
    let mut ports: Vec<_> = tunnels.iter().map(|tunnel| tunnel.port).collect();
    ports.sort_unstable();
    ensure!(ports == [8001, 8002, 8003], "a sandbox with three ports has the tunnels {tunnels:?}");
    let tcp = tunnels.iter().find(|tunnel| tunnel.port == 8003).map(|tunnel| tunnel.kind);
    ensure!(tcp == Some(PortKind::Tcp), "the tunnel of the port of the kind `tcp` has the kind {tcp:?}");
    Ok(())
}

async fn none(case: Arc<Case>) -> Outcome {
    let tunnels = case.shared().await?.tunnels(Duration::from_secs(1)).await?;
    ensure!(tunnels.is_empty(), "a sandbox without ports has the tunnels {tunnels:?}");
    Ok(())
}

async fn carries_data(case: Arc<Case>) -> Outcome {
    // Sends back the first line of each connection.
    let server = "import socketserver\nclass Echo(socketserver.StreamRequestHandler):\n    def handle(self):\n        \
                  self.wfile.write(self.rfile.readline())\n\
                  socketserver.TCPServer(('0.0.0.0', 8000), Echo).serve_forever()";
    let spec = case.spec().port_of(PortKind::Tcp, 8000).command(["python3", "-c", server]);
    let sandbox = case.create(spec).await?;
    let tunnel = tunnel(&sandbox, PortKind::Tcp, 8000).await?;
    let begun = std::time::Instant::now();
    // The program needs a moment until it listens.
    while begun.elapsed() < ASSIGNED {
        let mut answer = Vec::new();
        if let Ok(mut connection) = sandbox.connect(&tunnel).await {
            let talk = async {
                connection.write_all(b"hello\n").await?;
                connection.read_to_end(&mut answer).await
            };
            if tokio::time::timeout(Duration::from_secs(10), talk).await.is_ok_and(|read| read.is_ok())
                && !answer.is_empty()
            {
                return same("the answer through the tunnel", &answer, b"hello\n");
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    failed(format!("the program did not answer through the tunnel within {ASSIGNED:?}"))
}

async fn bad_port(case: Arc<Case>) -> Outcome {
    refused("`create` with the port 0", case.try_create(case.spec().port(0)).await.map(drop), &Kind::InvalidArgument)?;
    Ok(())
}

async fn unknown(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`tunnels` of an unknown sandbox", unknown.tunnels(Duration::ZERO).await, &Kind::NotFound)?;
    Ok(())
}

async fn token(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let token = sandbox.connect_token(8000, "conformance").await?;
    ensure!(token.url.starts_with("http"), "the URL is {:?}", token.url);
    let admits = !token.headers.is_empty() || token.url.contains('?');
    ensure!(admits, "neither headers nor the URL contain a secret");
    Ok(())
}

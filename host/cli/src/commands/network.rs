//! `forward` and `gateway`: local ports.

use std::net::Ipv4Addr;

use anyhow::Result;
use sandbox_host::types::{PortKind, Tunnel};
use sandbox_host::{Gateway as Open, Sandbox};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::args::{Forward, Gateway};
use crate::commands::run::end_text;
use crate::output::{self, Failure};
use crate::session::Session;

/// How long ports may take to be assigned.
const TUNNEL_WAIT: std::time::Duration = std::time::Duration::from_secs(50);

/// `sandbox forward`
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
            let why = format!("{} did not open it when it was created; open: [{}]", sandbox.id(), open.join(", "));
            return Err(Failure::new(format!("forward to port {remote}"), why)
                .hint(format!("create the sandbox with --port {remote}"))
                .into());
        };
        if session.with_emulator() && tunnel.kind != PortKind::Tcp {
            let why = "it is open for TLS, and the emulator's certificate is one of its own making";
            return Err(Failure::new(format!("forward to port {remote}"), why)
                .hint(format!("create the sandbox with --port {remote}/tcp"))
                .into());
        }
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, local)).await.map_err(|error| {
            Failure::io(format!("listen on port {local}"), &error)
                .hint(format!("give another, or 0 for any: 0:{remote}"))
        })?;
        let address = listener.local_addr()?;
        if session.voice.json {
            output::print_json(json!({ "listen": address.to_string(), "port": remote }))?;
        } else {
            output::print(format_args!("{address} -> port {remote} of {}", sandbox.id()))?;
        }
        doors.spawn(serve(session.voice, listener, sandbox.clone(), tunnel));
    }
    // Until interrupted, or until there is nothing to forward to.
    let reason = sandbox.wait().await?;
    Err(Failure::new(format!("go on forwarding to {}", sandbox.id()), format!("it has ended: {}", end_text(&reason)))
        .hint("create a new sandbox")
        .into())
}

async fn serve(voice: crate::output::Voice, listener: TcpListener, sandbox: Sandbox, tunnel: Tunnel) {
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
    // Either side may hang up without ado; that is how connections end.
    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut far).await {
        tracing::debug!(%error, "connection ended");
    }
    Ok(())
}

/// `sandbox gateway`
pub async fn gateway(session: &Session, args: Gateway) -> Result<i32> {
    let provider = session.provider().await?;
    let gateway = Open::open(&provider, args.listen).await?;
    // The names under which a stock host passes on what the gateway wants: those of the manifest. One set of credentials is
    // enough, since the token stands for any.
    let manifest = provider.plugin().manifest();
    let address = manifest.origin.first().and_then(|origin| origin.url.env.clone()).unwrap_or_else(|| "URL".into());
    let mut lines = vec![(address, gateway.url())];
    lines.extend(manifest.gateway.env.clone());
    let credentials = manifest.first_set().map(|credential| credential.env.clone());
    if let Some(path) = &args.token_file {
        write_token(path, gateway.token().expose())?;
        let names: Vec<_> = credentials.collect();
        if !names.is_empty() {
            session.voice.say(format_args!("set {} to what {} holds", names.join(" and "), path.display()));
        }
    } else {
        lines.extend(credentials.map(|name| (name, gateway.token().expose().to_owned())));
    }
    if session.voice.json {
        let object: serde_json::Map<_, _> = lines.into_iter().map(|(name, value)| (name, json!(value))).collect();
        output::print_json(serde_json::Value::from(object))?;
    } else {
        for (name, value) in lines {
            output::print(format_args!("{name}={value}"))?;
        }
    }
    if args.exit_with_stdin {
        let mut stdin = tokio::io::stdin();
        let mut piece = [0; 1024];
        while let Ok(1..) = stdin.read(&mut piece).await {}
    } else {
        std::future::pending::<()>().await;
    }
    drop(gateway);
    Ok(0)
}

/// Only this user may read it.
fn write_token(path: &std::path::Path, token: &str) -> Result<()> {
    use std::io::Write;

    let what = format!("write the token to {}", path.display());
    let failed = |error: std::io::Error| Failure::new(&what, error.to_string());
    // A file that is there may be readable by others; it is replaced, not written to. A device or a pipe is not: somebody
    // else reads or needs it.
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink())
        || std::fs::metadata(path).is_ok_and(|found| !found.is_file())
    {
        return Err(Failure::new(&what, "it is no regular file")
            .hint("name a file, or leave --token-file away")
            .into());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(".".as_ref());
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    writeln!(file, "{token}").map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

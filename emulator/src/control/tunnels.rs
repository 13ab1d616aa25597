//! Tunnels: how a server inside a sandbox is reached from outside.
//!
//! Each open port of a sandbox gets listeners on the emulator's own address: one that speaks TLS (with a certificate made at
//! start, which nobody can verify), and for an unencrypted port a plain one. What connects there is connected to the port
//! on the sandbox's own loopback, from a thread that enters the sandbox's network for that one call.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use modal_proto::client::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::Status;

use super::Caller;
use super::sandbox::{Sandbox, Unit};
use super::sandboxes::ports;
use crate::state::State;

/// The listeners of one sandbox; gone when dropped.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// By container port.
    open: BTreeMap<u32, TunnelData>,
    /// Accepting and forwarding; aborted with this.
    tasks: JoinSet<()>,
}

/// Tunnels that are known already: all of them once the sandbox runs, none before.
pub fn known_at_once(sandbox: &Sandbox) -> Vec<TunnelData> {
    sandbox.tunnels.lock().open.values().cloned().collect()
}

/// All tunnels of a sandbox, once it runs.
pub async fn get(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetTunnelsRequest,
) -> Result<SandboxGetTunnelsResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    sandbox.unit().await?;
    Ok(SandboxGetTunnelsResponse { tunnels: known_at_once(&sandbox), ..Default::default() })
}

/// A token with which a server inside a sandbox is reached over HTTP.
pub async fn connect_token(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxCreateConnectTokenRequest,
) -> Result<SandboxCreateConnectTokenResponse, Status> {
    state.sandbox(&request.sandbox_id)?;
    Err(Status::unimplemented("The emulator has no connect tokens"))
}

/// Opens the tunnels that a sandbox asks for.
pub async fn open(state: &Arc<State>, sandbox: &Sandbox, unit: &Arc<Unit>) -> anyhow::Result<()> {
    let wanted = ports(&sandbox.definition);
    if wanted.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        tracing::warn!(sandbox = sandbox.id, "without root nobody gets through a tunnel");
    }
    let allowed = sandbox.definition.inbound_cidr_allowlist.clone();
    let tls = acceptor(false)?;
    let h2 = acceptor(true)?;
    let mut made = Tunnels::default();
    for port in wanted {
        let inside = Inside { root: unit.container.root(), port: port.port as u16, allowed: allowed.clone() };
        let of_tls = if port.tunnel_type() == TunnelType::H2 { h2.clone() } else { tls.clone() };
        let address = listen(&mut made.tasks, state.address.ip(), Some(of_tls), inside.clone()).await?;
        let mut data = TunnelData {
            host: address.ip().to_string(),
            port: u32::from(address.port()),
            container_port: port.port,
            ..Default::default()
        };
        if port.unencrypted {
            let address = listen(&mut made.tasks, state.address.ip(), None, inside).await?;
            data.unencrypted_host = Some(address.ip().to_string());
            data.unencrypted_port = Some(u32::from(address.port()));
        }
        tracing::info!(sandbox = sandbox.id, container_port = port.port, "tunnel at {}:{}", data.host, data.port);
        made.open.insert(port.port, data);
    }
    *sandbox.tunnels.lock() = made;
    Ok(())
}

/// A port of a sandbox.
#[derive(Debug, Clone)]
struct Inside {
    /// The root directory of the sandbox, which names its processes.
    root: PathBuf,
    port: u16,
    allowed: Vec<String>,
}

async fn listen(
    tasks: &mut JoinSet<()>,
    address: IpAddr,
    tls: Option<TlsAcceptor>,
    inside: Inside,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0)).await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let mut forwarding = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) if may_enter(peer.ip(), &inside.allowed) => {
                        forwarding.spawn(forward(stream, tls.clone(), inside.clone()));
                    }
                    Ok((_, peer)) => tracing::info!(%peer, "not in inbound_cidr_allowlist"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                Some(_) = forwarding.join_next() => {}
            }
        }
    });
    Ok(address)
}

async fn forward(mut outside: TcpStream, tls: Option<TlsAcceptor>, inside: Inside) {
    let done = async {
        let _ = outside.set_nodelay(true);
        match tls {
            Some(tls) => {
                let mut outside = tls.accept(outside).await?;
                let mut inside = dial(&inside.root, inside.port).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            }
            None => {
                let mut inside = dial(&inside.root, inside.port).await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            }
        }
    };
    if let Err(error) = done.await {
        tracing::debug!(%error, "tunnel connection ended");
    }
}

/// Connects to a port on a sandbox's own loopback.
async fn dial(root: &std::path::Path, port: u16) -> io::Result<TcpStream> {
    let network = root.with_file_name("ns").join("net");
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread that has entered another network cannot be used for anything else.
    std::thread::Builder::new().name("dial".into()).spawn(move || {
        let _ = sender.send(dial_blocking(&network, port));
    })?;
    let stream = receiver.await.map_err(|_| io::Error::other("the dialling thread is gone"))??;
    stream.set_nonblocking(true)?;
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn dial_blocking(network: &std::path::Path, port: u16) -> io::Result<std::net::TcpStream> {
    let network = File::open(network)?;
    nix::sched::setns(&network, nix::sched::CloneFlags::CLONE_NEWNET)?;
    let limit = Duration::from_secs(5);
    std::net::TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)
        .or_else(|_| std::net::TcpStream::connect_timeout(&SocketAddr::from((Ipv6Addr::LOCALHOST, port)), limit))
}

/// TLS with a certificate of its own, made when first needed.
fn acceptor(h2: bool) -> anyhow::Result<TlsAcceptor> {
    static CERTIFICATE: std::sync::OnceLock<(Vec<u8>, Vec<u8>)> = std::sync::OnceLock::new();
    if CERTIFICATE.get().is_none() {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
        let _ = CERTIFICATE.set((made.cert.der().to_vec(), made.signing_key.serialize_der()));
    }
    let (certificate, key) = CERTIFICATE.get().cloned().unwrap_or_default();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.into()], rustls::pki_types::PrivatePkcs8KeyDer::from(key).into())?;
    config.alpn_protocols = if h2 { vec![b"h2".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Whether an address is in one of the ranges; everybody may enter when there are none.
fn may_enter(address: IpAddr, ranges: &[String]) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| contains(range, address))
}

fn contains(range: &str, address: IpAddr) -> bool {
    let Some((network, bits)) = range.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (network.parse(), address) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - bits.min(128)).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        for (range, inside) in
            [("127.0.0.0/8", true), ("0.0.0.0/0", true), ("127.0.0.1/32", true), ("10.0.0.0/8", false), ("::/0", false)]
        {
            assert_eq!(contains(range, local), inside, "{range}");
        }
        assert!(may_enter(local, &[]));
    }
}

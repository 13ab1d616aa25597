//! Tunnels: make servers inside a sandbox reachable from outside.
//!
//! Each open port of a sandbox gets listeners on the emulator's own address: one for TLS (with a self-signed certificate, which
//! clients cannot verify), and for an unencrypted port also one for plain TCP. Connections are forwarded to the port on the
//! sandbox's loopback interface.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use container_isolation::Container;
use ipnet::IpNet;
use modal_proto::client::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::model::definition::ports;
use crate::model::peers::Peers;
use crate::model::sandbox::Sandbox;
use crate::model::state::State;
use crate::model::tunnels::Tunnels;
use crate::model::unit::Unit;

/// Returns the tunnels of a sandbox: all of them while it runs, none before and after.
pub fn known_at_once(sandbox: &Sandbox) -> Vec<TunnelData> {
    sandbox.tunnels.lock().open.values().cloned().collect()
}

/// Opens the tunnels that a sandbox's definition requests.
///
/// # Errors
///
/// Fails if a listener or the certificate cannot be created.
pub async fn open(state: &Arc<State>, sandbox: &Sandbox, unit: &Arc<Unit>) -> anyhow::Result<()> {
    let wanted = ports(&sandbox.definition);
    if wanted.is_empty() {
        return Ok(());
    }
    let allowed = crate::model::outbound_policy::cidrs(&sandbox.definition.inbound_cidr_allowlist)?;
    let tls = acceptor(false)?;
    let h2 = acceptor(true)?;
    let mut made = Tunnels::default();
    for port in wanted {
        let inside = Inside {
            container: unit.container.clone(),
            port: port.port as u16,
            allowed: allowed.clone(),
            peers: state.peers.clone(),
        };
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

/// A port of a sandbox, and who may connect to it.
#[derive(Debug, Clone)]
struct Inside {
    container: Arc<Container>,
    port: u16,
    allowed: Vec<IpNet>,
    peers: Peers,
}

impl Inside {
    async fn dial(&self) -> io::Result<TcpStream> {
        let stream = crate::runtime::readiness::connect(&self.container, self.port).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
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
                    Ok((stream, peer)) if crate::model::outbound_policy::may_enter(peer.ip(), &inside.allowed) => {
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
    if let Err(why) = inside.peers.admit(&outside).await {
        tracing::info!(why, "connection to the tunnel refused");
        return;
    }
    let done = async {
        let _ = outside.set_nodelay(true);
        match tls {
            Some(tls) => {
                let mut outside = tls.accept(outside).await?;
                let mut inside = inside.dial().await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            }
            None => {
                let mut inside = inside.dial().await?;
                tokio::io::copy_bidirectional(&mut outside, &mut inside).await
            }
        }
    };
    if let Err(error) = done.await {
        tracing::debug!(%error, "tunnel connection ended");
    }
}

/// Returns a TLS acceptor. All acceptors share one self-signed certificate, which the first call creates.
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

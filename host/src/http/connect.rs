//! From an origin to a byte stream: resolve, check the address, connect to exactly that address, TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use wasmtime_wasi_http::Error as HttpError;

use super::proxy::{self, Proxies};
use crate::policy::{AddressClass, Origin, Reach};

/// From the first packet to the end of the handshake. What the official clients allow per attempt.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one address may take before the next of the same name is tried.
const PER_ADDRESS: Duration = Duration::from_secs(4);

/// Why there is no connection: for the component, and in words for the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

/// The part of wasi:http's error codes that connecting gives; unlike those, it can be cloned for every waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Refused,
    Terminated,
    Timeout,
    Dns,
    Tls,
    Certificate,
    AddressProhibited,
    Unroutable,
    Limit,
    Protocol,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Failure { code, text: text.into() }
    }

    pub(crate) fn error(&self) -> HttpError {
        match self.code {
            Code::Refused => HttpError::ConnectionRefused,
            Code::Terminated => HttpError::ConnectionTerminated,
            Code::Timeout => HttpError::ConnectionTimeout,
            Code::Dns => HttpError::DnsError { rcode: Some(self.text.clone()), info_code: None },
            Code::Tls => HttpError::TlsProtocolError,
            Code::Certificate => HttpError::TlsCertificateError,
            Code::AddressProhibited => HttpError::DestinationIpProhibited,
            Code::Unroutable => HttpError::DestinationIpUnroutable,
            Code::Limit => HttpError::ConnectionLimitReached,
            Code::Protocol => HttpError::HttpProtocolError,
        }
    }
}

impl Clone for Failure {
    fn clone(&self) -> Self {
        Failure { code: self.code, text: self.text.clone() }
    }
}

/// What TLS connections trust besides the built-in roots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Trust {
    /// A PEM file with further certificate authorities.
    pub(crate) extra: Option<PathBuf>,
}

/// Any byte stream.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, and whether the peer chose HTTP/2 during the TLS handshake (none without TLS or without a choice).
pub(crate) struct Connected {
    pub(crate) io: Box<dyn Io>,
    pub(crate) h2: Option<bool>,
}

/// Makes connections; one per provider.
#[derive(Debug)]
pub(crate) struct Connector {
    trust: Trust,
    proxies: Proxies,
    configs: [OnceLock<Result<Arc<ClientConfig>, String>>; 3],
}

/// What is offered during the TLS handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// HTTP/2 alone.
    Grpc,
    /// HTTP/2 and HTTP/1.1.
    Http,
    /// Nothing: what is spoken inside is not ours.
    Bytes,
}

impl Connector {
    pub(crate) fn new(trust: Trust, proxies: Proxies) -> Connector {
        Connector { trust, proxies, configs: Default::default() }
    }

    /// Connects within [`CONNECT_TIMEOUT`] to an address within `reach`. `offer`: what TLS offers.
    pub(crate) async fn connect(&self, origin: &Origin, reach: Reach, offer: Offer) -> Result<Connected, Failure> {
        match tokio::time::timeout(CONNECT_TIMEOUT, self.attempt(origin, reach, offer)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(Code::Timeout, format!("{origin} did not answer within {CONNECT_TIMEOUT:?}"))),
        }
    }

    async fn attempt(&self, origin: &Origin, reach: Reach, offer: Offer) -> Result<Connected, Failure> {
        let Some(proxy) = self.proxies.of(origin) else {
            return self.secure(origin, direct(origin, reach).await?, offer).await;
        };
        let address = if proxy::resolves_here(&proxy) {
            Some(*permitted(origin, &resolve(origin).await?, reach)?.first().ok_or_else(|| no_address(origin))?)
        } else {
            if let Some(address) = origin.address() {
                permitted(origin, &[SocketAddr::new(address, origin.port)], reach)?;
            }
            None
        };
        // The proxy is the user's own choice, wherever it is.
        let place = proxy::origin(&proxy)?;
        let stream = self.secure(&place, direct(&place, Reach::Any).await?, Offer::Bytes).await?.io;
        let stream = proxy::through(&proxy, stream, origin, address).await?;
        self.secure(origin, stream, offer).await
    }

    async fn secure(&self, origin: &Origin, stream: Box<dyn Io>, offer: Offer) -> Result<Connected, Failure> {
        if !origin.secure {
            return Ok(Connected { io: stream, h2: None });
        }
        let config = self.config(offer).await.map_err(|why| Failure::new(Code::Tls, why))?;
        let name = match origin.address() {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(origin.host.clone())
                .map_err(|_| Failure::new(Code::Dns, format!("{:?} is no host name", origin.host)))?,
        };
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
            let certificate = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|error| matches!(error, rustls::Error::InvalidCertificate(_)));
            let code = if certificate { Code::Certificate } else { Code::Tls };
            Failure::new(code, format!("TLS with {origin}: {error}"))
        })?;
        let h2 = stream.get_ref().1.alpn_protocol().map(|protocol| protocol == b"h2");
        Ok(Connected { io: Box::new(stream), h2 })
    }

    /// Reading the roots of the system takes tens of milliseconds, so it is done for the first TLS connection only,
    /// and not on the executor's threads.
    async fn config(&self, offer: Offer) -> Result<Arc<ClientConfig>, String> {
        let slot = &self.configs[offer as usize];
        if let Some(config) = slot.get() {
            return config.clone();
        }
        let trust = self.trust.clone();
        let config = tokio::task::spawn_blocking(move || client_config(&trust, offer))
            .await
            .unwrap_or_else(|error| Err(error.to_string()));
        slot.get_or_init(|| config).clone()
    }
}

fn client_config(trust: &Trust, offer: Offer) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // The system's roots; `SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured by the crate.
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a root certificate of the system was not read");
    }
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = &trust.extra {
        add_file(&mut roots, path)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match offer {
        Offer::Grpc => vec![b"h2".to_vec()],
        Offer::Http => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Offer::Bytes => vec![],
    };
    Ok(Arc::new(config))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let what = |error: &dyn std::fmt::Display| format!("the certificates in {}: {error}", path.display());
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(|items| items.collect::<Result<_, _>>())
        .map_err(|error| what(&error))?;
    if certificates.is_empty() {
        return Err(what(&"there are none"));
    }
    for certificate in certificates {
        roots.add(certificate).map_err(|error| what(&error))?;
    }
    Ok(())
}

fn no_address(origin: &Origin) -> Failure {
    Failure::new(Code::Dns, format!("{} has no address", origin.host))
}

/// Those of the addresses that the policy allows; an error when there is none.
fn permitted(origin: &Origin, addresses: &[SocketAddr], reach: Reach) -> Result<Vec<SocketAddr>, Failure> {
    let allowed = |address: &&SocketAddr| reach.allows(AddressClass::of(address.ip()));
    let found: Vec<_> = addresses.iter().filter(allowed).copied().collect();
    match (found.is_empty(), addresses.first()) {
        (false, _) => Ok(found),
        (true, None) => Err(no_address(origin)),
        (true, Some(address)) => Err(Failure::new(
            Code::AddressProhibited,
            format!(
                "{origin} leads to {}, {}, which the policy does not allow for it",
                address.ip(),
                AddressClass::of(address.ip())
            ),
        )),
    }
}

/// Resolves, checks, and connects to what was checked.
async fn direct(origin: &Origin, reach: Reach) -> Result<Box<dyn Io>, Failure> {
    let mut failure = None;
    for address in permitted(origin, &resolve(origin).await?, reach)? {
        match tcp(origin, address).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| no_address(origin)))
}

async fn resolve(origin: &Origin) -> Result<Vec<SocketAddr>, Failure> {
    if let Some(address) = origin.address() {
        return Ok(vec![SocketAddr::new(address, origin.port)]);
    }
    // By definition this machine (RFC 6761); asking a resolver costs a thread and trusts a file.
    if origin.host == "localhost" {
        return Ok([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1u16])]
            .map(|address| SocketAddr::new(address, origin.port))
            .into());
    }
    match tokio::net::lookup_host((origin.host.as_str(), origin.port)).await {
        // A name with hundreds of addresses would take hundreds of time-outs.
        Ok(addresses) => Ok(addresses.take(8).collect()),
        Err(error) => Err(Failure::new(Code::Dns, format!("the name {} is not known: {error}", origin.host))),
    }
}

async fn tcp(origin: &Origin, address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = match tokio::time::timeout(PER_ADDRESS, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let (code, text) = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    (Code::Refused, format!("nobody listens at {origin}: connection refused"))
                }
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
                    (Code::Unroutable, format!("there is no way to {origin}: {error}"))
                }
                _ => (Code::Terminated, format!("connecting to {origin}: {error}")),
            };
            return Err(Failure::new(code, text));
        }
        Err(_) => {
            return Err(Failure::new(Code::Timeout, format!("{origin} ({address}) did not answer in {PER_ADDRESS:?}")));
        }
    };
    // Without it a unary call waits for the peer's delayed acknowledgement: 43 ms instead of 0.2.
    stream.set_nodelay(true).map_err(|error| Failure::new(Code::Terminated, error.to_string()))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Proxy;
    use crate::secret::Secret;

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_opens_no_back_door() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connector = Connector::new(Trust::default(), Proxies::default());
        for host in ["localhost", "127.0.0.1", "::ffff:127.0.0.1"] {
            let origin = Origin { secure: true, host: host.into(), port };
            let failure = connector.connect(&origin, Reach::Public, Offer::Grpc).await.err().unwrap();
            assert_eq!(failure.code, Code::AddressProhibited, "{host}: {}", failure.text);
        }
        let origin = Origin { secure: false, host: "localhost".into(), port };
        assert!(connector.connect(&origin, Reach::Near, Offer::Grpc).await.is_ok());
        let origin = Origin { secure: false, host: "169.254.169.254".into(), port: 80 };
        let failure = connector.connect(&origin, Reach::Near, Offer::Grpc).await.err().unwrap();
        assert_eq!(failure.code, Code::AddressProhibited, "{}", failure.text);
    }

    #[tokio::test]
    async fn nor_does_a_proxy() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let proxies = Proxies::new(&Proxy::To(Secret::new(url)), |_| None).unwrap();
        let connector = Connector::new(Trust::default(), proxies);
        for host in ["169.254.169.254", "10.0.0.1", "localhost"] {
            let origin = Origin { secure: true, host: host.into(), port: 443 };
            let failure = connector.connect(&origin, Reach::Public, Offer::Grpc).await.err().unwrap();
            assert_eq!(failure.code, Code::AddressProhibited, "{host}: {}", failure.text);
        }
    }

    #[tokio::test]
    async fn unusable_certificate_files_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let trust = Trust { extra: Some(file.path().to_owned()) };
        let error = client_config(&trust, Offer::Grpc).unwrap_err();
        assert!(error.contains("there are none"), "{error}");
        let trust = Trust { extra: Some("/does/not/exist.pem".into()) };
        assert!(client_config(&trust, Offer::Grpc).unwrap_err().contains("/does/not/exist.pem"));
    }
}

//! What a manifest can ask for beyond an address and a header: other forms of credentials, client certificates, origins
//! named by JSON answers, host names under a suffix, and Unix sockets. Each test gives the puppet another manifest.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use futures_util::future::BoxFuture;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use sandbox_host::{Kind, Plugin, Provider, ProviderBuilder};
use tokio_rustls::TlsAcceptor;

use crate::common::{Body, Server, extra, full, order, puppet};

/// Returns a builder for the puppet with another manifest, which needs no more than its origins and credentials.
async fn builder(manifest: &str) -> ProviderBuilder {
    let path = tokio::task::spawn_blocking(puppet).await.unwrap();
    let puppet = std::fs::read(path).unwrap();
    let text = format!("manifest = 1\nname = 'puppet'\ninterface = 'harness:sandbox@0.1.0'\n{manifest}");
    let leb = |mut size: usize| {
        let mut out = Vec::new();
        while size >= 0x80 {
            out.push(size as u8 | 0x80);
            size >>= 7;
        }
        out.push(size as u8);
        out
    };
    let name = b"harness:manifest";
    let content = [&leb(name.len()), &name[..], text.as_bytes()].concat();
    // The first manifest in a component counts.
    let (head, rest) = puppet.split_at(8);
    let component = [head, &[0], &leb(content.len()), &content, rest].concat();
    Provider::builder(&Plugin::from_bytes(component).await.unwrap()).inherit_env(false)
}

/// The requests that a server has received, and whether the client has shown a certificate.
type Log = Arc<Mutex<Vec<(Parts, bool)>>>;

type Answer = BoxFuture<'static, Result<Response<Body>, Infallible>>;

/// Answers each request with its path. Returns the service for one connection.
fn echo(
    log: &Log,
    certificate: bool,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answer> + use<> {
    let log = log.clone();
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let (parts, _) = request.into_parts();
        let response = Response::new(full(parts.uri.path().to_owned()));
        log.lock().unwrap().push((parts, certificate));
        Box::pin(async move { Ok(response) }) as Answer
    })
}

/// A certificate authority for tests.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { certificate, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate for a host name, and returns it with its key.
    fn issue(&self, name: &str) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().clone(), key.serialize_der())
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        Arc::new(roots)
    }

    /// Starts an HTTPS server for a host name, which requires or accepts client certificates. Returns its port.
    async fn serve(&self, name: &str, required: bool, log: &Log) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider.clone());
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let (certificate, key) = self.issue(name);
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate], PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key)))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let log = log.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), log.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let certificate = stream.get_ref().1.peer_certificates().is_some();
                    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), echo(&log, certificate)).await;
                });
            }
        });
        port
    }
}

fn write_pem(path: &Path, label: &str, der: &[u8]) {
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    std::fs::write(path, text).unwrap();
}

const FORMS: &str = "
    [[credential]]
    name = 'token'
    env = 'TOKEN'
    [[credential]]
    name = 'password'
    env = 'PASSWORD'
    [[env]]
    name = 'PLAIN'
    [[origin]]
    name = 'main'
    url = { env = 'URL' }
    headers = [
      { name = 'authorization', value = 'Bearer {token}' },
      { name = 'x-basic', basic = { user = 'me', password = '{password}' } },
    ]
    query = [{ name = 'key', value = 'k-{token}' }]
    [[origin]]
    name = 'other'
    url = { env = 'OTHER' }";

#[tokio::test]
async fn credentials_are_sent_in_other_forms_and_never_seen() {
    let (token, password) = ("token/0123456789", "password-0123456789");
    let encoded = STANDARD.encode(format!("me:{password}"));
    let server = Server::start(None, |seen| {
        let header = |name: &str| seen.headers[name].to_str().unwrap().to_owned();
        let body = format!("{}|{}|{}", header("authorization"), header("x-basic"), seen.uri.query().unwrap());
        let mut response = Response::new(full(body));
        response.headers_mut().insert("x-echo", seen.headers["x-basic"].clone());
        Box::pin(async move { response })
    })
    .await;
    let other = Server::echo().await;
    let builder = builder(FORMS).await.env("URL", &server.url).env("OTHER", &other.url);
    // A variable that holds a credential in another form is not shown.
    let builder = builder.credential("token", token.to_owned()).credential("password", password.to_owned());
    let provider = builder.env("PLAIN", format!("see {encoded}")).build().await.unwrap();
    assert_eq!(extra(&order(&provider, "env").await.unwrap(), "PLAIN"), None);
    let info = order(&provider, &format!("grpc {}/a?x=1&key=forged", server.url)).await.unwrap();
    let seen = server.seen().remove(0);
    assert_eq!(seen.headers["authorization"], format!("Bearer {token}"));
    assert_eq!(seen.headers["x-basic"], format!("Basic {encoded}"));
    assert_eq!(seen.uri.query(), Some("x=1&key=k-token%2F0123456789"));
    let body = extra(&info, "body").unwrap();
    assert_eq!(extra(&info, "header:x-echo"), Some("[redacted]"));
    for secret in [token, password, encoded.trim_end_matches('='), "token%2F0123456789"] {
        assert!(!format!("{info:?}").contains(secret), "{secret}: {info:?}");
    }
    assert!(
        body.starts_with("Bearer ****") && body.contains("|Basic ****") && body.contains("|x=1&key=****"),
        "{body}"
    );
    // Nothing of it goes to another origin.
    order(&provider, &format!("grpc {}/a?x=1", other.url)).await.unwrap();
    let seen = other.seen().remove(0);
    assert_eq!((seen.uri.query(), seen.headers.get("authorization")), (Some("x=1"), None));
    let grants = provider.grants();
    assert_eq!(grants[0].credentials, ["authorization", "x-basic", "?key"]);
    assert!(grants[1].credentials.is_empty());
}

const CERTIFICATES: &str = "
    [[origin]]
    name = 'main'
    url = { env = 'URL' }
    [origin.tls]
    certificate = { env = 'CERTS', file = 'cert.pem' }
    key = { env = 'CERTS', file = 'key.pem' }
    authorities = { env = 'CERTS', file = 'ca.pem' }
    [[origin]]
    name = 'other'
    url = { env = 'OTHER' }";

#[tokio::test]
async fn a_client_certificate_is_shown_to_its_origin_only() {
    let (authority, log, other_log) = (Authority::new(), Log::default(), Log::default());
    let port = authority.serve("localhost", true, &log).await;
    let other = authority.serve("localhost", false, &other_log).await;
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (certificate, key) = authority.issue("client");
    write_pem(&at("cert.pem"), "CERTIFICATE", &certificate);
    write_pem(&at("key.pem"), "PRIVATE KEY", &key);
    write_pem(&at("ca.pem"), "CERTIFICATE", &authority.certificate);
    let (url, other) = (format!("https://localhost:{port}"), format!("https://localhost:{other}"));
    let builder = async || builder(CERTIFICATES).await.env("URL", &url).env("OTHER", &other);
    let path = directory.path().to_str().unwrap();

    let provider = builder().await.env("CERTS", path).ca_file(at("ca.pem")).build().await.unwrap();
    let info = order(&provider, &format!("grpc {url}/with")).await.unwrap();
    assert_eq!(extra(&info, "body"), Some("/with"));
    order(&provider, &format!("grpc {other}/without")).await.unwrap();
    let shown = |log: &Log| log.lock().unwrap().iter().map(|(_, shown)| *shown).collect::<Vec<_>>();
    assert_eq!((shown(&log), shown(&other_log)), (vec![true], vec![false]));
    let credentials: Vec<_> = provider.grants().into_iter().map(|grant| grant.credentials).collect();
    assert_eq!(credentials, [vec!["client certificate".to_owned()], vec![]]);

    // The authorities count for the one origin only.
    let provider = builder().await.env("CERTS", path).build().await.unwrap();
    order(&provider, &format!("grpc {url}/again")).await.unwrap();
    let error = order(&provider, &format!("grpc {other}/unknown")).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");

    // Without the variable there is no certificate, and the service refuses.
    let provider = builder().await.ca_file(at("ca.pem")).build().await.unwrap();
    assert!(order(&provider, &format!("grpc {url}/refused")).await.is_err());
    assert!(provider.grants()[0].credentials.is_empty());
    assert_eq!(shown(&log).len(), 2);

    // Files that cannot be used are named and not quoted.
    std::fs::write(at("key.pem"), "hush").unwrap();
    let error = builder().await.env("CERTS", path).build().await.unwrap_err();
    assert_eq!(error.kind(), &Kind::Config);
    let error = error.to_string();
    assert!(error.contains("key.pem") && error.contains("no private key") && !error.contains("hush"), "{error}");
    std::fs::remove_file(at("key.pem")).unwrap();
    let error = builder().await.env("CERTS", path).build().await.unwrap_err().to_string();
    assert!(error.contains("key.pem"), "{error}");
    // The files of an origin that is not granted are not read.
    assert!(builder().await.env("CERTS", path).grant_only(["other"]).build().await.is_ok());
}

const LOGIN: &str = "
    [[credential]]
    name = 'password'
    env = 'PASSWORD'
    optional = true
    [[env]]
    name = 'REGISTRY'
    default = 'registry.example'
    [[origin]]
    name = 'engine'
    url = { env = 'URL' }
    headers = [
      { name = 'x-login', json64 = { user = 'me', password = '{password}', at = '{REGISTRY}' }, on_request = 'registry' },
      { name = 'x-logins', json64 = { '{REGISTRY}' = { password = '{password}' } }, on_request = 'registry' },
    ]
    [[origin]]
    name = 'other'
    url = { env = 'OTHER' }";

/// The login for a registry, which a container engine takes as JSON in Base64: the plugin names it and never sees it.
#[tokio::test]
async fn a_login_is_added_to_the_requests_that_name_it() {
    let password = "pass\"word-0123456789";
    let server = Server::start(None, |seen| {
        let login = seen.headers.get("x-login").map(|login| login.to_str().unwrap().to_owned()).unwrap_or_default();
        let json = String::from_utf8(URL_SAFE.decode(&login).unwrap()).unwrap();
        let mut response = Response::new(full(format!("{login}|{json}")));
        response
            .headers_mut()
            .extend(seen.headers.get("x-logins").map(|value| (HeaderName::from_static("x-echo"), value.clone())));
        Box::pin(async move { response })
    })
    .await;
    let other = Server::echo().await;
    let builder = async || builder(LOGIN).await.env("URL", &server.url).env("OTHER", &other.url);
    let provider = builder().await.env("PASSWORD", password).build().await.unwrap();
    // After the first request, the host knows that this server speaks HTTP/2.
    order(&provider, &format!("grpc {}/without", server.url)).await.unwrap();
    order(&provider, &format!("grpc {}/without", other.url)).await.unwrap();
    let named = async |provider: &Provider, name: &str, url: &str| {
        order(provider, &format!("get-with harness-credential {name} {url}/with")).await
    };
    let info = named(&provider, "registry", &server.url).await.unwrap();
    let seen = server.seen();
    assert!(seen[0].headers.get("x-login").is_none() && seen[0].headers.get("x-logins").is_none());
    let sent = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&URL_SAFE.decode(&seen[1].headers[name]).unwrap()).unwrap()
    };
    let login = serde_json::json!({ "user": "me", "password": password, "at": "registry.example" });
    assert_eq!(
        (sent("x-login"), sent("x-logins")),
        (login, serde_json::json!({ "registry.example": { "password": password } }))
    );
    assert!(seen.iter().all(|seen| seen.headers.get("harness-credential").is_none()));
    // The server sends everything back: the value, and its JSON text.
    let body = extra(&info, "body").unwrap();
    assert!(body.starts_with("****") && body.contains("registry.example") && !body.contains("0123456789"), "{body}");
    assert_eq!(extra(&info, "header:x-echo"), Some("[redacted]"));
    assert_eq!(provider.grants()[0].credentials, ["x-login", "x-logins"]);

    // Neither an unknown name nor another origin gets it.
    for (name, url) in [("store", &server.url), ("registry", &other.url)] {
        let error = named(&provider, name, url).await.unwrap_err();
        assert!(error.is_forbidden() && error.to_string().contains(&format!("the credential {name:?}")), "{error}");
    }
    // Without the variable the provider can be used, and only the request that needs the login fails.
    let provider = builder().await.build().await.unwrap();
    order(&provider, &format!("grpc {}/without", server.url)).await.unwrap();
    let error = named(&provider, "registry", &server.url).await.unwrap_err();
    assert!(error.is_forbidden() && error.to_string().contains("PASSWORD not set"), "{error}");
    assert!(provider.grants()[0].credentials.is_empty());
    assert_eq!((server.seen().len(), other.seen().len()), (3, 1), "nothing is sent without the login");
}

const ENGINE: &str = "
    [[origin]]
    name = 'engine'
    url = { env = 'ENGINE', tcp = { http = 2375, https = 2376 } }
    authority = 'engine.localhost'
    [origin.tls]
    on = { env = 'VERIFY' }
    certificate = { env = 'CERTS', file = 'cert.pem', default = '~/.engine/cert.pem' }
    key = { env = 'CERTS', file = 'key.pem', default = '~/.engine/key.pem' }
    authorities = { env = 'CERTS', file = 'ca.pem', default = '~/.engine/ca.pem' }";

/// The variables of a container engine: an address with `tcp://`, one that turns TLS on, and a directory of certificates.
#[tokio::test]
async fn an_engine_is_reached_by_tcp_with_and_without_tls() {
    let (authority, log) = (Authority::new(), Log::default());
    let port = authority.serve("localhost", true, &log).await;
    let home = tempfile::tempdir().unwrap();
    let certs = home.path().join(".engine");
    std::fs::create_dir(&certs).unwrap();
    let (certificate, key) = authority.issue("client");
    write_pem(&certs.join("cert.pem"), "CERTIFICATE", &certificate);
    write_pem(&certs.join("key.pem"), "PRIVATE KEY", &key);
    write_pem(&certs.join("ca.pem"), "CERTIFICATE", &authority.certificate);
    let address = format!("tcp://localhost:{port}");
    let (certs, home) = (certs.to_str().unwrap(), home.path().to_str().unwrap());

    // With the variable, and with the default directory in the home directory.
    for (name, value) in [("CERTS", certs), ("HOME", home)] {
        let builder = builder(ENGINE).await.env("ENGINE", &address).env("VERIFY", "1").env(name, value);
        let provider = builder.build().await.unwrap();
        let seen = order(&provider, "env").await.unwrap();
        assert_eq!(extra(&seen, "ENGINE"), Some(format!("https://localhost:{port}").as_str()), "{name}");
        let info = order(&provider, &format!("grpc https://localhost:{port}/{name}")).await.unwrap();
        assert_eq!(extra(&info, "body"), Some(format!("/{name}").as_str()));
        assert_eq!(provider.grants()[0].credentials, ["client certificate"]);
    }
    assert!(log.lock().unwrap().iter().all(|(_, shown)| *shown));

    // The certificates alone do not turn TLS on, and are not even read.
    let plain = Server::echo().await;
    let address = format!("tcp://{}", plain.authority());
    for verify in [None, Some("")] {
        let builder = builder(ENGINE).await.env("ENGINE", &address).env("CERTS", "/nonexistent");
        let builder = verify.into_iter().fold(builder, |builder, value| builder.env("VERIFY", value));
        let provider = builder.build().await.unwrap();
        assert_eq!(extra(&order(&provider, "env").await.unwrap(), "ENGINE"), Some(plain.url.as_str()));
        order(&provider, &format!("grpc {}/plain", plain.url)).await.unwrap();
    }
    assert_eq!(plain.seen().len(), 2);
    let builder = async |address: &str| builder(ENGINE).await.env("ENGINE", address).env("VERIFY", "1");
    let error = builder(&address).await.env("CERTS", "/nonexistent").build().await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/cert.pem"), "{error}");
    let error = builder(&plain.url).await.build().await.unwrap_err();
    assert!(error.kind() == &Kind::Config && error.to_string().contains("VERIFY turns TLS on"), "{error}");

    // A directory with the authorities alone is for servers that require no client certificate.
    let open = authority.serve("localhost", false, &Log::default()).await;
    let directory = tempfile::tempdir().unwrap();
    write_pem(&directory.path().join("ca.pem"), "CERTIFICATE", &authority.certificate);
    let builder = builder(&format!("tcp://localhost:{open}")).await.env("CERTS", directory.path().to_str().unwrap());
    let provider = builder.build().await.unwrap();
    order(&provider, &format!("grpc https://localhost:{open}/open")).await.unwrap();
    assert!(provider.grants()[0].credentials.is_empty());
}

/// An engine that cannot be reached: the error says what to do.
#[tokio::test]
async fn an_engine_that_is_not_there_is_reported_with_advice() {
    for (address, why, hint) in [
        ("ssh://me@host", "SSH", "ssh -N -L"),
        ("npipe:////./pipe/engine", "named pipe", "set ENGINE to unix:///path"),
        ("fd://", "for a server", "set ENGINE to unix:///path"),
    ] {
        let error = builder(ENGINE).await.env("ENGINE", address).build().await.unwrap_err();
        let (_, reason, advice) = error.parts();
        assert_eq!(error.kind(), &Kind::Config);
        assert!(reason.contains(why) && advice.is_some_and(|advice| advice.contains(hint)), "{address}: {error:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.sock");
    let provider = builder(ENGINE).await.env("ENGINE", format!("unix://{}", path.display())).build().await.unwrap();
    let error = async || order(&provider, "get http://engine.localhost/info").await.unwrap_err().to_string();
    let missing = error().await;
    assert!(missing.contains(&format!("{} does not exist; start the service", path.display())), "{missing}");
    assert!(missing.contains("or set ENGINE"), "{missing}");
    // A socket file stays when its service ends.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let closed = error().await;
    assert!(closed.contains("no service listens at the Unix socket"), "{closed}");
}

const JSON: &str = "
    [[credential]]
    name = 'token'
    env = 'TOKEN'
    [[origin]]
    name = 'main'
    url = { env = 'URL' }
    headers = [{ name = 'authorization', value = 'Bearer {token}' }]
    learn = [{ path = '/v1/sandboxes/*', pointer = '/data/*/url', name = 'worker' }]";

#[tokio::test]
async fn origins_are_learned_from_json() {
    let worker = Server::echo().await;
    let url = worker.url.clone();
    let server = Server::start(None, move |seen| {
        let document = serde_json::json!({ "data": [{ "url": format!("{url}/work") }] });
        let mut response = Response::new(full(document.to_string()));
        let kind = if seen.uri.path().ends_with("text") { "text/plain" } else { "application/json; charset=utf-8" };
        response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        *response.status_mut() = if seen.uri.path().ends_with("failed") { 500 } else { 200 }.try_into().unwrap();
        Box::pin(async move { response })
    })
    .await;
    let builder = builder(JSON).await.env("URL", &server.url).credential("token", "token-0123456789".to_owned());
    let provider = builder.build().await.unwrap();
    let try_worker = format!("grpc {}/work", worker.url);
    for path in ["/v1/sandboxes", "/v1/sandboxes/a/b", "/v1/sandboxes/text", "/v1/sandboxes/failed"] {
        order(&provider, &format!("grpc {}{path}", server.url)).await.unwrap();
        assert!(order(&provider, &try_worker).await.unwrap_err().is_forbidden(), "{path}");
    }
    order(&provider, &format!("grpc {}/v1/sandboxes/sb-1?x=y", server.url)).await.unwrap();
    order(&provider, &try_worker).await.unwrap();
    assert!(worker.seen()[0].headers.get("authorization").is_none(), "credentials are for the main origin only");
    let learned: Vec<_> = provider.grants().into_iter().filter_map(|grant| grant.learned_from).collect();
    assert_eq!(learned, ["/v1/sandboxes/*"]);
}

const SUFFIX: &str = "
    [[credential]]
    name = 'token'
    env = 'TOKEN'
    [[origin]]
    name = 'sandboxes'
    url = { env = 'URL', default = 'https://*.sandboxes.example.com' }
    headers = [{ name = 'x-token', credential = 'token' }]";

#[tokio::test]
async fn host_names_under_a_granted_suffix_are_reached() {
    let (authority, log) = (Authority::new(), Log::default());
    let port = authority.serve("*.sandboxes.localhost", false, &log).await;
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    write_pem(&ca, "CERTIFICATE", &authority.certificate);
    let builder = builder(SUFFIX).await.credential("token", "token-0123456789".to_owned()).ca_file(&ca);
    let provider = builder.env("URL", format!("https://*.sandboxes.localhost:{port}")).build().await.unwrap();
    for name in ["sb-1", "49983-sb_2"] {
        let info = order(&provider, &format!("grpc https://{name}.sandboxes.localhost:{port}/{name}")).await.unwrap();
        assert_eq!(extra(&info, "body"), Some(format!("/{name}").as_str()));
    }
    let seen: Vec<_> = log.lock().unwrap().iter().map(|(parts, _)| parts.headers["x-token"].clone()).collect();
    assert_eq!(seen, ["token-0123456789"; 2]);
    for url in [
        format!("https://sandboxes.localhost:{port}"),
        format!("https://a.b.sandboxes.localhost:{port}"),
        format!("http://sb-1.sandboxes.localhost:{port}"),
        "https://sb-1.sandboxes.localhost".to_owned(),
        format!("https://*.sandboxes.localhost:{port}"),
    ] {
        let error = order(&provider, &format!("grpc {url}/x")).await.unwrap_err();
        assert!(error.is_forbidden() || error.to_string().contains("UriInvalid"), "{url}: {error}");
    }
    assert_eq!(log.lock().unwrap().len(), 2);
    assert_eq!(provider.grants()[0].origin.to_string(), format!("https://*.sandboxes.localhost:{port}"));
    // The origin of the manifest leads to public addresses only.
    let provider = self::builder(SUFFIX).await.anonymous(true).build().await.unwrap();
    assert!(!provider.grants()[0].private_addresses);
}

const SOCKET: &str = "
    [[credential]]
    name = 'token'
    env = 'TOKEN'
    [[origin]]
    name = 'engine'
    url = { env = 'ENGINE', default = 'unix:///nonexistent/default.sock' }
    headers = [{ name = 'x-token', credential = 'token' }]";

#[tokio::test]
async fn a_unix_socket_is_reached_by_its_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Engine.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let log = Log::default();
    let server_log = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = echo(&server_log, false);
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let builder = async || builder(SOCKET).await.credential("token", "token-0123456789".to_owned());
    let url = format!("unix://{}", path.display());
    let provider = builder().await.env("ENGINE", &url).build().await.unwrap();
    // The plugin is told the address and not the path.
    let seen = order(&provider, "env").await.unwrap();
    assert_eq!(extra(&seen, "ENGINE"), Some("http://engine.sock.localhost"));
    let info = order(&provider, "get http://engine.sock.localhost/v1/info").await.unwrap();
    assert_eq!(extra(&info, "body"), Some("/v1/info"));
    {
        let log = log.lock().unwrap();
        assert_eq!(log[0].0.headers["host"], "engine.sock.localhost");
        assert_eq!(log[0].0.headers["x-token"], "token-0123456789");
    }
    for other in [
        "http://engine.sock.localhost:81/x",
        "https://engine.sock.localhost/x",
        "http://other.sock.localhost/x",
        "http://localhost/x",
        &format!("{url}/x"),
        &format!("http://{}/x", path.display().to_string().replace('/', "%2F")),
    ] {
        let error = order(&provider, &format!("get {other}")).await.unwrap_err();
        assert!(error.is_forbidden() || error.to_string().contains("UriInvalid"), "{other}: {error}");
    }
    let grant = provider.grants().remove(0);
    assert_eq!((grant.socket.as_deref(), grant.credentials), (Some(path.as_path()), vec!["x-token".to_owned()]));
    assert_eq!(grant.origin.to_string(), "http://engine.sock.localhost");

    // It is granted like any other origin, and its absence is reported.
    let provider = builder().await.env("ENGINE", &url).grant_only([""; 0]).build().await.unwrap();
    assert!(order(&provider, "get http://engine.sock.localhost/x").await.unwrap_err().is_forbidden());
    let provider = builder().await.build().await.unwrap();
    let error = order(&provider, "get http://default.sock.localhost/x").await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/default.sock"), "{error}");
    let error = builder().await.env("ENGINE", "unix://relative").build().await.unwrap_err().to_string();
    assert!(error.contains("ENGINE") && error.contains("unix:///path"), "{error}");
    assert_eq!(log.lock().unwrap().len(), 1);
}

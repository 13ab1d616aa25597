//! Downloads content that is identified by its SHA-256 digest, over HTTPS and from OCI registries.
//!
//! Servers are not trusted. Sizes and times are limited; plain HTTP is used only for this machine; redirects are followed
//! only to HTTPS, or to this machine if the first request was plain HTTP; and a registry's token is not sent to another
//! origin. The digest decides whether the content is the right one, not its source.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use sandbox_host::{Dialer, Secret};
use serde::Deserialize;
use tokio::time::timeout;

use crate::output::Failure;

/// Maximum size of a component, in bytes. The bundled component has 1 MB; components in languages with their own runtime
/// have 10 to 40 MB.
pub const LARGEST: u64 = 64 << 20;

/// Maximum size of a manifest, in bytes; the limit of registries.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// Maximum size of a response of a token service, in bytes.
const LARGEST_TOKEN: u64 = 1 << 20;

/// Timeout between a request and its response, and between two pieces of a response.
const IDLE: Duration = Duration::from_secs(60);

/// Timeout for a whole download, including redirects, tokens and manifests. The largest component takes two minutes at
/// 0.5 MB/s. Without this limit, a server that sends a byte now and then could keep a download going for years.
pub const WHOLE: Duration = Duration::from_secs(15 * 60);

/// Maximum number of redirects of one request. Registries use one.
const REDIRECTS: usize = 5;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The media types of layers that contain a component: the one that the OCI working group for Wasm has chosen, and an
/// older one.
const LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];

/// A SHA-256 digest, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest(String);

impl Digest {
    /// Parses `sha256:HEX`, or the hexadecimal digits alone. Returns `None` if the text is not a SHA-256 digest.
    pub fn parse(text: &str) -> Option<Digest> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let good = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Digest(hex.to_ascii_lowercase()))
    }

    /// Computes the digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(sandbox_host::digest(bytes))
    }

    /// Returns the hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }

    /// Fails unless this is the digest of `bytes`.
    pub fn verify(&self, what: &str, bytes: &[u8]) -> Result<(), Failure> {
        let found = Digest::of(bytes);
        if found == *self {
            return Ok(());
        }
        Err(Failure::new(what, format!("its SHA-256 is {}, not {}", found.0, self.0))
            .hint("do not use the file; it was changed, or the digest belongs to another version"))
    }
}

/// A reference `HOST/REPOSITORY:TAG@DIGEST` to a manifest in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Host and port of the registry.
    pub authority: String,
    /// Name of the repository; may contain slashes.
    pub repository: String,
    /// Tag; ignored if there is a digest.
    pub tag: String,
    /// Digest of the manifest.
    pub digest: Option<Digest>,
}

impl Reference {
    /// Parses the part after `oci://`. The default tag is `latest`. Returns `None` if the text is not a valid reference.
    pub fn parse(text: &str) -> Option<Reference> {
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => (text, Some(digest.strip_prefix("sha256:").and_then(Digest::parse)?)),
            None => (text, None),
        };
        let (authority, path) = text.split_once('/')?;
        let (repository, tag) = path.split_once(':').unwrap_or((path, "latest"));
        let part = |part: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            part.bytes().all(inner) && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        };
        let good_tag = tag.len() <= 128
            && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && tag.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !repository.split('/').all(part) || !good_tag || authority.is_empty() {
            return None;
        }
        Some(Reference { authority: authority.into(), repository: repository.into(), tag: tag.into(), digest })
    }
}

/// Returns whether a host name or address is `localhost` or a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_plain(uri: &Uri) -> bool {
    uri.scheme_str() == Some("http")
}

fn origin(uri: &Uri) -> (Option<&str>, Option<&str>, u16) {
    (uri.scheme_str(), uri.host(), port(uri))
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_plain(uri) { 80 } else { 443 })
}

/// Checks that a request may go to a URL: HTTPS, or HTTP on this machine if `local` is true.
fn permitted(uri: &Uri, local: bool) -> Result<(), String> {
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return Err(format!("{uri} has no host")) };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("URLs with a user name are not supported".into());
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if local && is_loopback(host) => Ok(()),
        _ => Err(format!("{uri} is not https")),
    }
}

/// An HTTP client for downloads. The host library makes its connections.
pub struct Fetcher {
    dialer: Dialer,
}

impl Fetcher {
    /// Creates a client that trusts the certificate authorities of the machine, the built-in ones, and those in the file
    /// `extra`. It uses the proxies of the environment.
    ///
    /// # Errors
    ///
    /// Fails if the file, or a variable that names a proxy, is unusable.
    pub async fn new(extra: Option<&Path>) -> Result<Fetcher, Failure> {
        let dialer = Dialer::new(extra.map(Path::to_owned)).await.map_err(|error| {
            let (what, why, _) = error.parts();
            Failure::new(what, why)
        })?;
        Ok(Fetcher { dialer })
    }

    /// Downloads the component at a URL. Calls `progress` after each piece with the number of bytes so far, and the size
    /// if known.
    pub async fn file(&self, what: &str, uri: &Uri, progress: impl FnMut(u64, Option<u64>)) -> Result<Bytes, Failure> {
        let answer = self.get(what, uri, "application/wasm, application/octet-stream, */*", None).await?;
        read(what, found(what, uri, answer)?, LARGEST, progress).await
    }

    /// Downloads a component from a registry. Returns it with the digest of its manifest.
    pub async fn component(
        &self,
        what: &str,
        reference: &Reference,
        progress: impl FnMut(u64, Option<u64>),
    ) -> Result<(Bytes, Digest), Failure> {
        let failed = |why: String| Failure::new(what, why);
        let host = Uri::try_from(format!("https://{}", reference.authority)).ok();
        let host =
            host.as_ref().and_then(Uri::host).ok_or_else(|| failed("the name of the registry is invalid".into()))?;
        let scheme = if is_loopback(host) { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.authority, reference.repository);
        let uri = |path: String| Uri::try_from(format!("{base}/{path}")).map_err(|error| failed(error.to_string()));
        let version = match &reference.digest {
            Some(digest) => format!("sha256:{}", digest.hex()),
            None => reference.tag.clone(),
        };

        let address = uri(format!("manifests/{version}"))?;
        let mut token = None;
        let mut answer = self.get(what, &address, MANIFEST, None).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            token = Some(self.token(what, &address, &reference.repository, answer).await?);
            answer = self.get(what, &address, MANIFEST, token.as_ref()).await?;
        }
        let answer = found(what, &address, answer)?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (said, kind) = (header("docker-content-digest"), header(CONTENT_TYPE.as_str()));
        let manifest = read(what, answer, LARGEST_MANIFEST, |_, _| {}).await?;
        let digest = Digest::of(&manifest);
        if let Some(wanted) = &reference.digest {
            wanted.verify(&format!("{what}: use its manifest"), &manifest)?;
        } else if let Some(wanted) = said.as_deref().and_then(Digest::parse) {
            wanted.verify(&format!("{what}: use its manifest"), &manifest)?;
        }
        let layer = Manifest::layer(&manifest, kind.as_deref()).map_err(failed)?;

        let address = uri(format!("blobs/sha256:{}", layer.1.hex()))?;
        let answer = self.get(what, &address, "*/*", token.as_ref()).await?;
        let bytes = read(what, found(what, &address, answer)?, layer.0, progress).await?;
        if bytes.len() as u64 != layer.0 {
            return Err(failed(format!("{} bytes arrived of {}", bytes.len(), layer.0)));
        }
        layer.1.verify(what, &bytes)?;
        Ok((bytes, digest))
    }

    /// Gets a token for reading from the service that the registry names in its challenge. Public images need no account.
    async fn token(
        &self,
        what: &str,
        registry: &Uri,
        repository: &str,
        answer: Response<Incoming>,
    ) -> Result<Secret, Failure> {
        let private = || {
            Failure::new(what, "the registry requires a login")
                .hint("only public components can be pulled; download it with another program, and use --plugin FILE")
        };
        let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = challenge.and_then(Challenge::parse).ok_or_else(private)?;
        let failed = |why: String| Failure::new(format!("{what}: get a token"), why);
        let mut address = url::Url::parse(&challenge.realm).map_err(|error| failed(error.to_string()))?;
        if let Some(service) = &challenge.service {
            address.query_pairs_mut().append_pair("service", service);
        }
        // The required scope, regardless of the one that the registry proposes.
        address.query_pairs_mut().append_pair("scope", &format!("repository:{repository}:pull"));
        address.set_fragment(None);
        let address = Uri::try_from(address.as_str()).map_err(|error| failed(error.to_string()))?;
        permitted(&address, is_plain(registry)).map_err(failed)?;
        let answer = self.get(what, &address, "application/json", None).await?;
        if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(private());
        }
        let body = read(what, found(what, &address, answer)?, LARGEST_TOKEN, |_, _| {}).await?;
        let token: Token = serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))?;
        token
            .token
            .or(token.access_token)
            .map(Secret::from)
            .ok_or_else(|| failed("the response contains no token".into()))
    }

    /// Makes a GET request and follows its redirects.
    async fn get(
        &self,
        what: &str,
        start: &Uri,
        accept: &str,
        mut token: Option<&Secret>,
    ) -> Result<Response<Incoming>, Failure> {
        let local = is_plain(start);
        permitted(start, true).map_err(|why| {
            Failure::new(what, why).hint("use a URL that begins with https:// and the name of the host")
        })?;
        let mut uri = start.clone();
        for _ in 0..=REDIRECTS {
            let failed = |why: String| Failure::new(what, why);
            let answer = self.once(&uri, accept, token).await.map_err(|why| {
                failed(format!("{}: {why}", uri.authority().map_or("", |authority| authority.as_str())))
                    .hint("check the network, and try again")
            })?;
            let status = answer.status();
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let next = resolve(&uri, location)
                .ok_or_else(|| failed(format!("{uri} redirects to {location:?}, which is not a URL")))?;
            permitted(&next, local)
                .map_err(|why| failed(format!("{uri} redirects to a URL that is not permitted: {why}")))?;
            if origin(&next) != origin(&uri) {
                token = None;
            }
            uri = next;
        }
        Err(Failure::new(what, format!("{start} redirects more than {REDIRECTS} times")))
    }

    async fn once(&self, uri: &Uri, accept: &str, token: Option<&Secret>) -> Result<Response<Incoming>, String> {
        let authority = uri.authority().ok_or("no host")?.as_str();
        let stream = self.dialer.connect(uri).await.map_err(|error| error.parts().1.to_owned())?;
        let made = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = made.map_err(|error| error.to_string())?;
        // The task ends after the response, or when the response is dropped.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path)
            .header(HOST, authority)
            .header(USER_AGENT, concat!("sandbox/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, accept);
        if let Some(token) = token {
            let mut value = http::HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| "the token contains characters that a header cannot carry".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        match timeout(IDLE, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(|error| told(&error)),
            Err(_) => Err(format!("no response within {IDLE:?}")),
        }
    }
}

/// Returns the text of an error with that of its source, which contains the reason in hyper's errors.
fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Returns the response if its status is 200, and otherwise an error for its status.
fn found(what: &str, uri: &Uri, answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
    let failed = |why: &str| Failure::new(what, format!("{uri}: {why} ({})", answer.status()));
    match answer.status().as_u16() {
        200 => Ok(answer),
        401 | 403 => Err(failed("the server refuses access")),
        404 | 410 => Err(failed("the server does not have it").hint("check the name and the version")),
        429 | 500.. => Err(failed("the server is not available").hint("try again later")),
        _ => Err(failed("unexpected status")),
    }
}

/// Reads the whole body of a response. Fails if it is larger than `limit` bytes.
async fn read(
    what: &str,
    answer: Response<Incoming>,
    limit: u64,
    mut progress: impl FnMut(u64, Option<u64>),
) -> Result<Bytes, Failure> {
    let too_large = || Failure::new(what, format!("it is larger than {limit} bytes"));
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    loop {
        let frame = match timeout(IDLE, body.frame()).await {
            Ok(None) => return Ok(bytes.into()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                let why = format!("the connection failed after {} bytes: {}", bytes.len(), told(&error));
                return Err(Failure::new(what, why).hint("try again"));
            }
            Err(_) => return Err(Failure::new(what, format!("no data arrived for {IDLE:?}")).hint("try again")),
        };
        if let Ok(piece) = frame.into_data() {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&piece);
            progress(bytes.len() as u64, length);
        }
    }
}

/// Resolves the `Location` of a redirect: an absolute or relative URL.
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    if location.is_empty() {
        return None;
    }
    let mut next = url::Url::parse(&from.to_string()).ok()?.join(location).ok()?;
    next.set_fragment(None);
    Uri::try_from(next.as_str()).ok()
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// A `Bearer` challenge: where a client can get a token.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    /// Parses `Bearer realm="…",service="…",scope="…"`. Returns `None` for other schemes or without a realm.
    fn parse(header: &str) -> Option<Challenge> {
        let (scheme, mut rest) = header.trim().split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service) = (None, None);
        while let Some((name, after)) = rest.trim_start_matches([' ', ',']).split_once('=') {
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(Challenge { realm: realm?, service })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    media_type: Option<String>,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

impl Manifest {
    /// Returns the size and the digest of the single layer that contains a component. `said` is the media type of the
    /// response.
    fn layer(bytes: &[u8], said: Option<&str>) -> Result<(u64, Digest), String> {
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| format!("its manifest is invalid: {error}"))?;
        let kind = manifest.media_type.as_deref().or(said).unwrap_or_default();
        if kind != MANIFEST {
            return Err(format!("its manifest has the type {kind:?}, not {MANIFEST:?}"));
        }
        let mut fitting = manifest.layers.iter().filter(|layer| LAYERS.contains(&layer.media_type.as_str()));
        let (Some(layer), None) = (fitting.next(), fitting.next()) else {
            let kinds: Vec<_> = manifest.layers.iter().map(|layer| &layer.media_type).take(8).collect();
            let number = manifest.layers.len();
            return Err(format!(
                "it must have one layer of the type {:?}; it has {number} layers: {kinds:?}",
                LAYERS[0]
            ));
        };
        let digest = Digest::parse(&layer.digest).filter(|_| layer.digest.starts_with("sha256:"));
        let digest = digest.ok_or_else(|| format!("the digest {:?} is not supported", layer.digest))?;
        if layer.size > LARGEST {
            return Err(format!("it is larger than {LARGEST} bytes"));
        }
        Ok((layer.size, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let hex = "ab".repeat(32);
        let parsed = Reference::parse(&format!("ghcr.io/a/b-c:1.0@sha256:{hex}")).unwrap();
        assert_eq!(
            (parsed.authority.as_str(), parsed.repository.as_str(), parsed.tag.as_str()),
            ("ghcr.io", "a/b-c", "1.0")
        );
        assert_eq!(parsed.digest.unwrap().hex(), hex);
        assert_eq!(Reference::parse("localhost:5000/x").unwrap().tag, "latest");
        for bad in
            ["x", "/x", "h/", "h/A", "h/a//b", "h/../x", "h/a:", "h/a:b c", "h/a@sha256:12", "h/a@md5:00", "h/a?b"]
        {
            assert_eq!(Reference::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn challenges() {
        let parsed =
            Challenge::parse(r#"Bearer realm="https://auth.x/t",service="a,b",scope="r:x:pull,push""#).unwrap();
        assert_eq!(parsed, Challenge { realm: "https://auth.x/t".into(), service: Some("a,b".into()) });
        assert_eq!(Challenge::parse("bearer realm=https://x").unwrap().realm, "https://x");
        for bad in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", ""] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn places() {
        let allowed = |text: &str, local| permitted(&text.parse().unwrap(), local).is_ok();
        assert!(allowed("https://example.org/x", false) && allowed("http://127.0.0.1:5000/x", true));
        assert!(allowed("http://[::1]:5000/x", true) && allowed("http://localhost/x", true));
        assert!(!allowed("http://127.0.0.1:5000/x", false) && !allowed("http://example.org/x", true));
        assert!(!allowed("https://user@example.org/x", true) && !allowed("ftp://example.org/x", true));
        let from: Uri = "https://a.org/b/c?d".parse().unwrap();
        assert_eq!(resolve(&from, "/x?y").unwrap(), "https://a.org/x?y");
        assert_eq!(resolve(&from, "https://z.org/q").unwrap(), "https://z.org/q");
        assert_eq!(resolve(&from, "//z.org/q").unwrap(), "https://z.org/q");
        assert_eq!(resolve(&from, "x#y").unwrap(), "https://a.org/b/x");
        assert_eq!((resolve(&from, ""), resolve(&from, "https://")), (None, None));
    }
}

//! A door for hosts that speak only HTTP/1.1: gRPC-Web in, gRPC over HTTP/2 out.
//!
//! A stock WebAssembly host in another language can run the same component; what it lacks is HTTP/2. It points the
//! component at the gateway, which forwards under this provider's policy and adds the credentials, so that the other
//! host needs none. Answers that hand out further origins are changed on the way: the URL in them is replaced by one
//! of this gateway, below which that origin lies: a door. The component notices nothing of it.
//!
//! So that other users of the machine can neither spend the credentials nor pass, the service itself is behind a token,
//! shown as bearer token or as the value of any of the credential headers, and a door is a path that cannot be guessed.
//! Behind doors no credentials are added, wherever they lead: what passes there carries the origin's own short-lived tokens.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

use crate::access::policy::Origin;
use crate::access::secret::Secret;
use crate::digest::hex;
use crate::error::{Error, Kind, Result};
use crate::net::hook::{Credentials, Net, media_type};
use crate::net::learn::rewrite;
use crate::net::link::{Link, Note};
use crate::plugin::manifest::LearnWish;

/// Connections at once. HTTP/1.1 takes one per request.
const MAX_CONNECTIONS: usize = 1024;

/// Those among them that have not shown a token or a door yet. One more closes the oldest: who fills them does not keep
/// out who has a token.
const MAX_STRANGERS: usize = 256;

/// Doors that are open, as many as origins that a policy learns. One more closes the one that has not been used for longest.
const MAX_DOORS: usize = 4096;

/// What the path of every door begins with.
const DOOR: &str = "/door/";

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest first message in which URLs are replaced; the same bound as for learning from it.
const MAX_MESSAGE: usize = 1 << 20;

/// How much of a refused request's body is read, in bytes: what a call of the interface has, but for uploads.
const UNREAD_BYTES: usize = 256 << 10;

/// How long that is waited for: who is still sending is on this machine or close to it, and who sends nothing has the refusal
/// without it.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(2);

/// A flag in a gRPC-Web frame: what follows are the trailers.
const TRAILERS: u8 = 0x80;

/// A gateway that listens. Dropping it closes all doors.
pub struct Gateway {
    address: SocketAddr,
    token: Secret,
    inner: Arc<Inner>,
}

struct Inner {
    net: Arc<Net>,
    token: Secret,
    origin: Origin,
    learn: Arc<[LearnWish]>,
    credential_headers: Vec<HeaderName>,
    address: SocketAddr,
    doors: Mutex<Doors>,
    task: Mutex<Option<AbortHandle>>,
}

/// By the secret in their paths.
#[derive(Default)]
struct Doors {
    open: HashMap<String, Door>,
    clock: u64,
}

struct Door {
    origin: Origin,
    /// When it was used last.
    used: u64,
}

impl Doors {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The secret of the door to an origin; opened at the first need.
    fn to(&mut self, origin: &Origin) -> String {
        let now = self.tick();
        if let Some((secret, door)) = self.open.iter_mut().find(|(_, door)| door.origin == *origin) {
            door.used = now;
            return secret.clone();
        }
        if self.open.len() >= MAX_DOORS
            && let Some(oldest) = self.open.iter().min_by_key(|(_, door)| door.used).map(|(secret, _)| secret.clone())
        {
            self.open.remove(&oldest);
        }
        let secret = fresh_secret();
        self.open.insert(secret.clone(), Door { origin: origin.clone(), used: now });
        secret
    }

    /// Where a path leads, and what of it goes on. None for one that is no door's, or not any more.
    fn behind<'a>(&mut self, path: &'a str) -> Option<(Origin, &'a str)> {
        let path = path.strip_prefix(DOOR)?;
        let (secret, rest) = path.split_at(path.find(['/', '?']).unwrap_or(path.len()));
        let now = self.tick();
        let door = self.open.get_mut(secret)?;
        door.used = now;
        Some((door.origin.clone(), rest))
    }
}

/// 256 random bits of the system's generator.
fn fresh_secret() -> String {
    let mut bytes = [0; 32];
    // It fails only on systems without a generator, and there nothing here is to go on.
    SystemRandom::new().fill(&mut bytes).expect("the system has random numbers");
    hex(&bytes)
}

impl Gateway {
    /// Opens a gateway to the first origin that the policy grants. The address must be of this machine.
    pub(crate) async fn over(net: Arc<Net>, listen: SocketAddr) -> Result<Gateway> {
        const WHAT: &str = "open the gateway";
        if !listen.ip().is_loopback() {
            return Err(Error::invalid(WHAT, format!("{listen} can be reached from other machines"))
                .with_hint("listen on 127.0.0.1"));
        }
        let Some(fixed) = net.policy.fixed().first().cloned() else {
            return Err(Error::new(Kind::Forbidden, WHAT, "the plugin was granted no origin"));
        };
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            Error::io(format!("listen on {listen}"), error).with_hint("give another port, or 0 for any free one")
        })?;
        let address = listener.local_addr().map_err(|error| Error::io(WHAT, error))?;
        let token = Secret::new(fresh_secret());
        let inner = Arc::new(Inner {
            net,
            token: token.clone(),
            origin: fixed.origin,
            learn: fixed.learn,
            credential_headers: fixed.headers.into_iter().map(|(name, _)| name).collect(),
            address,
            doors: Mutex::default(),
            task: Mutex::default(),
        });
        inner.serve(listener);
        Ok(Gateway { address, token, inner })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the component is to be told as the service's address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What clients have to show.
    pub fn token(&self) -> &Secret {
        &self.token
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(task) = self.inner.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

type Reply = http_body_util::combinators::UnsyncBoxBody<Bytes, HttpError>;

/// A connection that is served, and whether anything was let in by it.
struct Served {
    admitted: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Inner {
    /// Accepts connections until the gateway is dropped.
    fn serve(self: &Arc<Self>, listener: TcpListener) {
        // Weak: the task must not keep alive what keeps it.
        let inner = Arc::downgrade(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut strangers: VecDeque<Served> = VecDeque::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of descriptors, most likely; it passes.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                strangers.retain(|served| !served.admitted.load(Ordering::Acquire) && !served.task.is_finished());
                if strangers.len() >= MAX_STRANGERS
                    && let Some(oldest) = strangers.pop_front()
                {
                    oldest.task.abort();
                }
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let Some(gateway) = inner.upgrade() else { return };
                let admitted = Arc::new(AtomicBool::new(false));
                let task = connections.spawn(gateway.connection(stream, admitted.clone(), permit));
                strangers.push_back(Served { admitted, task });
            }
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, admitted: Arc<AtomicBool>, permit: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let service = hyper::service::service_fn(move |request| {
            let (gateway, admitted) = (self.clone(), admitted.clone());
            async move { Ok::<_, Infallible>(gateway.answer(request, &admitted).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "gateway connection");
        }
        drop(permit);
    }

    fn is_admitted(&self, headers: &HeaderMap) -> bool {
        let token = self.token.expose().as_bytes();
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let others = self.credential_headers.iter().filter_map(|name| headers.get(name)).map(HeaderValue::as_bytes);
        bearer.into_iter().chain(others).any(|shown| same(shown, token))
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>, admitted: &AtomicBool) -> Response<Reply> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let door = self.doors.lock().unwrap_or_else(PoisonError::into_inner).behind(path);
        let (credentials, target) = match door {
            Some((origin, rest)) => (Credentials::Withheld, format!("{origin}{rest}")),
            // Also for a door that is closed: a component that is told so asks for a new one, as for a token that has expired.
            None if path.starts_with(DOOR) || !self.is_admitted(request.headers()) => {
                let why = "the gateway's token is missing or wrong: send it as bearer token";
                return refuse_unread(request, StatusCode::UNAUTHORIZED, 16, why).await;
            }
            None => (Credentials::Added, format!("{}{path}", self.origin)),
        };
        admitted.store(true, Ordering::Release);
        let kind = media_type(request.headers());
        // The form of the messages, such as `+json`; that of protobuf goes without saying.
        let web = match kind.strip_prefix("application/grpc") {
            None => None,
            Some(rest) => match rest.strip_prefix("-web") {
                Some("+proto") => Some(String::new()),
                Some(form) if form.is_empty() || form.starts_with('+') => Some(form.to_owned()),
                _ => {
                    let why = format!("{kind} is not spoken here, where gRPC is application/grpc-web");
                    return refuse_unread(request, StatusCode::UNSUPPORTED_MEDIA_TYPE, 12, &why).await;
                }
            },
        };
        let Ok(uri) = target.parse() else {
            return refuse_unread(request, StatusCode::BAD_REQUEST, 3, "the path is unusable").await;
        };
        *request.uri_mut() = uri;
        let path = request.uri().path().to_owned();
        let headers = request.headers_mut();
        // The gateway's token is nobody else's business, nor are credentials that go elsewhere.
        match credentials {
            Credentials::Added => drop(headers.remove(header::AUTHORIZATION)),
            Credentials::Withheld => self.credential_headers.iter().for_each(|name| drop(headers.remove(name))),
        }
        for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::CONTENT_LENGTH] {
            if web.is_some() || name != header::CONTENT_LENGTH {
                headers.remove(name);
            }
        }
        headers.remove("keep-alive");
        headers.remove("x-grpc-web");
        if let Some(form) = &web {
            let kind = HeaderValue::try_from(format!("application/grpc{form}"));
            headers.insert(header::CONTENT_TYPE, kind.expect("what a header's value began with"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let broken = Arc::new(AtomicBool::new(false));
        let breaks = broken.clone();
        let request: Request<WasiBody> = request.map(|body| {
            let told = move |error| {
                breaks.store(true, Ordering::Release);
                HttpError::Hyper(error)
            };
            body.map_err(told).boxed_unsync()
        });
        let link = Arc::new(Link::default());
        let response = match self.net.send_with(credentials, link.clone(), request, RequestOptions::default()).await {
            Ok(response) => response,
            Err(_) if broken.load(Ordering::Acquire) => {
                return refuse(StatusCode::BAD_REQUEST, 3, "the request broke off, or its body is malformed");
            }
            Err(error) => {
                let note = link.take_note();
                let (status, code) = match (&note, &error) {
                    (Some(Note::Limit(_)), _) => (StatusCode::PAYLOAD_TOO_LARGE, 8),
                    (_, HttpError::HttpRequestDenied | HttpError::DestinationIpProhibited) => {
                        (StatusCode::FORBIDDEN, 7)
                    }
                    (_, HttpError::HttpRequestUriInvalid) => (StatusCode::BAD_REQUEST, 3),
                    (_, HttpError::HttpRequestHeaderSectionSize(_)) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, 8),
                    _ => (StatusCode::BAD_GATEWAY, 14),
                };
                let why = note.map_or_else(|| error.to_string(), Note::into_text);
                return refuse(status, code, &why);
            }
        };
        let rules: Vec<_> = match credentials {
            Credentials::Added => self.learn.iter().filter(|rule| rule.path == path).cloned().collect(),
            Credentials::Withheld => vec![],
        };
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::CONNECTION);
        let body = if rules.is_empty() {
            body
        } else {
            parts.headers.remove(header::CONTENT_LENGTH);
            DoorBody { inner: body, gateway: self.clone(), rules, held: BytesMut::new(), state: DoorState::First }
                .boxed_unsync()
        };
        let kind = media_type(&parts.headers);
        // What is no gRPC, such as the page of something in between, stays what it is.
        let Some(form) = kind.strip_prefix("application/grpc").filter(|_| web.is_some()) else {
            return Response::from_parts(parts, body);
        };
        let form = if form.is_empty() { "+proto" } else { form };
        if let Ok(kind) = HeaderValue::try_from(format!("application/grpc-web{form}")) {
            parts.headers.insert(header::CONTENT_TYPE, kind);
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.version = http::Version::HTTP_11;
        Response::from_parts(parts, WebBody { inner: body, done: false }.boxed_unsync())
    }

    /// The same URL behind a door.
    fn through_door(&self, url: &str) -> Option<String> {
        let uri: http::Uri = url.parse().ok()?;
        let secret = self.doors.lock().unwrap_or_else(PoisonError::into_inner).to(&Origin::of(&uri)?);
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        // A bare origin stays one.
        let path = if path == "/" && !url.ends_with('/') { "" } else { path };
        Some(format!("http://{}{DOOR}{secret}{path}", self.address))
    }
}

/// Comparison whose time does not tell where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Refuses a request whose body nobody has read. A little of it is read all the same: a connection that is closed with
/// something unread is reset, and the reset can overtake the refusal.
async fn refuse_unread(request: Request<Incoming>, status: StatusCode, grpc: u8, why: &str) -> Response<Reply> {
    let mut body = Limited::new(request.into_body(), UNREAD_BYTES);
    // Piece by piece: strangers are to cost no memory.
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(UNREAD_TIMEOUT, read).await;
    refuse(status, grpc, why)
}

fn refuse(status: StatusCode, grpc: u8, why: &str) -> Response<Reply> {
    let mut response =
        Response::new(Full::new(Bytes::from(format!("{why}\n"))).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let text: String = why.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    response.headers_mut().insert("grpc-status", HeaderValue::from(u16::from(grpc)));
    if let Ok(text) = HeaderValue::from_str(&text.replace('%', "%25")) {
        response.headers_mut().insert("grpc-message", text);
    }
    response
}

/// A body whose trailers come as its last frame.
struct WebBody {
    inner: Reply,
    done: bool,
}

impl Body for WebBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.done = true;
                    Poll::Ready(Some(Ok(Frame::data(trailer_frame(&trailers)))))
                }
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        }
    }
}

fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut text = BytesMut::new();
    for (name, value) in trailers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(text.len() + 5);
    frame.put_u8(TRAILERS);
    frame.put_u32(text.len() as u32);
    frame.extend_from_slice(&text);
    frame.freeze()
}

/// A body in whose first message URLs are replaced.
struct DoorBody {
    inner: Reply,
    gateway: Arc<Inner>,
    rules: Vec<LearnWish>,
    held: BytesMut,
    state: DoorState,
}

#[derive(PartialEq)]
enum DoorState {
    /// Collecting the first message.
    First,
    /// Passing on.
    Rest,
}

impl DoorBody {
    /// The first message with doors in it, once it is complete; what cannot be one is given on as it is.
    fn first(&mut self) -> Option<Bytes> {
        let [flags, length @ ..] = *self.held.first_chunk::<5>()?;
        let length = u32::from_be_bytes(length) as usize;
        if flags != 0 || length > MAX_MESSAGE {
            return Some(self.held.split().freeze());
        }
        if self.held.len() < 5 + length {
            return None;
        }
        let mut message = self.held.split_to(5 + length).split_off(5).to_vec();
        for rule in &self.rules {
            let gateway = &self.gateway;
            message = rewrite(&message, &rule.field, &mut |url| gateway.through_door(url)).unwrap_or(message);
        }
        let mut out = BytesMut::with_capacity(message.len() + 5 + self.held.len());
        out.put_u8(0);
        out.put_u32(message.len() as u32);
        out.extend_from_slice(&message);
        out.extend_from_slice(&self.held.split());
        Some(out.freeze())
    }
}

impl Body for DoorBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            if self.state == DoorState::Rest {
                return Pin::new(&mut self.inner).poll_frame(cx);
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.held.extend_from_slice(&data);
                        if let Some(first) = self.first() {
                            self.state = DoorState::Rest;
                            return Poll::Ready(Some(Ok(Frame::data(first))));
                        }
                    }
                    // Trailers before a whole message: there is none.
                    Err(frame) => {
                        self.state = DoorState::Rest;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_256_random_bits() {
        let secrets: Vec<Vec<u8>> = (0..64).map(|_| fresh_secret().into_bytes()).collect();
        assert!(secrets.iter().all(|secret| secret.len() == 64));
        // Each digit takes several values, each of its bits both: by chance one in 2^55 runs fails.
        for at in 0..64 {
            let digits = secrets.iter().map(|secret| (secret[at] as char).to_digit(16).unwrap());
            let (all, any) = digits.fold((0xf, 0), |(all, any), digit| (all & digit, any | digit));
            assert_eq!((all, any), (0, 0xf), "digit {at}");
        }
    }

    #[test]
    fn trailers_become_a_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(&trailer_frame(&trailers)[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}

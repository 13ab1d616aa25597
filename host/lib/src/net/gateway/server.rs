//! The gateway: an HTTP/1.1 server that receives gRPC-Web and forwards it as gRPC over HTTP/2.
//!
//! A WebAssembly host in another language can run the same component, but it may lack HTTP/2. It configures the gateway
//! as the address of the service. The gateway forwards requests under the policy of this provider and adds the
//! credentials, so that the other host needs none. If a response names further origins, their URLs are replaced by URLs
//! of the gateway, called doors, which lead to these origins. The component does not notice the replacement.
//!
//! Other users of the machine must not use the credentials or the doors. Requests to the service therefore need a
//! token, as a bearer token or as the value of one of the credential headers, and the path of a door cannot be guessed.
//! Requests through doors get no credentials, whatever their origin: they contain short-lived tokens of that origin.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody};

use super::doors::{DOOR, Doors, fresh_secret};
use super::pages::{self, Pages};
use super::reply::{Reply, refuse, refuse_unread};
use super::rewrite::DoorBody;
use super::web::WebBody;
use crate::access::policy::Origin;
use crate::access::secret::Secret;
use crate::error::{Error, Kind, Result};
use crate::net::hook::{Credentials, Net, is_document, media_type};
use crate::net::link::{Link, Note};
use crate::plugin::origin::LearnWish;

/// Most connections at a time. HTTP/1.1 needs one for each concurrent request.
const MAX_CONNECTIONS: usize = 1024;

/// Most connections that have not shown a token or a door yet. Beyond it, the oldest of them is closed, so that clients
/// without a token cannot lock out clients with one.
const MAX_STRANGERS: usize = 256;

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A listening gateway. Created by [`Gateway::open`]. Dropping it closes the listener, the connections and all doors.
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
    pages: Pages,
    doors: Mutex<Doors>,
    task: Mutex<Option<AbortHandle>>,
}

impl Gateway {
    /// Opens a gateway to the first origin that the policy grants. Implements [`Gateway::open`].
    pub(crate) async fn over(net: Arc<Net>, listen: SocketAddr, pages: &[String]) -> Result<Gateway> {
        const WHAT: &str = "open the gateway";
        if !listen.ip().is_loopback() {
            return Err(Error::invalid(WHAT, format!("{listen} can be reached from other machines"))
                .with_hint("listen on 127.0.0.1"));
        }
        let pages = Pages::new(pages)?;
        let Some(fixed) = net.policy.fixed().first().cloned() else {
            return Err(Error::new(Kind::Forbidden, WHAT, "no origin is granted to the plugin"));
        };
        if fixed.origin.host.starts_with('*') {
            let why = format!("the first origin of the plugin, {}, is no single service", fixed.origin);
            return Err(Error::new(Kind::Forbidden, WHAT, why));
        }
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            Error::io(format!("listen on {listen}"), error).with_hint("choose another port, or 0 for a free one")
        })?;
        let address = listener.local_addr().map_err(|error| Error::io(WHAT, error))?;
        let token = Secret::new(fresh_secret());
        let inner = Arc::new(Inner {
            net,
            token: token.clone(),
            origin: fixed.origin,
            learn: fixed.learn,
            credential_headers: fixed.additions.header_names().cloned().collect(),
            address,
            pages,
            doors: Mutex::default(),
            task: Mutex::default(),
        });
        inner.serve(listener);
        Ok(Gateway { address, token, inner })
    }

    /// Returns the address on which the gateway listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL that the component has to use as the address of the service.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the token that clients have to send.
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

/// A connection that is served, and whether it has shown a token or a door.
struct Served {
    admitted: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Inner {
    /// Accepts connections until the gateway is dropped.
    fn serve(self: &Arc<Self>, listener: TcpListener) {
        // A weak reference, because the task must not keep the gateway alive that owns it.
        let inner = Arc::downgrade(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let mut strangers: VecDeque<Served> = VecDeque::new();
            loop {
                while connections.try_join_next().is_some() {}
                let Ok((stream, _)) = listener.accept().await else {
                    // The process is probably out of file descriptors, which is temporary.
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

    /// Returns whether the headers contain the token. The time of the comparison does not depend on where they differ.
    fn is_admitted(&self, headers: &HeaderMap) -> bool {
        let token = self.token.expose().as_bytes();
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        let others = self.credential_headers.iter().filter_map(|name| headers.get(name)).map(HeaderValue::as_bytes);
        bearer.into_iter().chain(others).any(|shown| shown.ct_eq(token).into())
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, admitted: &AtomicBool) -> Response<Reply> {
        let page = self.pages.origin(request.headers());
        if let Some(answer) = page.as_ref().and_then(|page| pages::preflight(&request, page)) {
            return answer;
        }
        let mut response = self.forward(request, admitted).await;
        pages::mark(&mut response, page.as_ref());
        response
    }

    async fn forward(self: Arc<Self>, mut request: Request<Incoming>, admitted: &AtomicBool) -> Response<Reply> {
        let Some((credentials, target)) = self.target(&request) else {
            let why = "the gateway's token is missing or wrong: send it as a bearer token";
            return refuse_unread(request, StatusCode::UNAUTHORIZED, 16, why).await;
        };
        admitted.store(true, Ordering::Release);
        let kind = media_type(request.headers());
        let Ok(web) = web_form(&kind) else {
            let why = format!(
                "{kind} is not supported: the gateway accepts gRPC only as application/grpc-web. Give the plugin all \
                 variables that `sandbox-host gateway` printed"
            );
            return refuse_unread(request, StatusCode::UNSUPPORTED_MEDIA_TYPE, 12, &why).await;
        };
        let Ok(uri) = target.parse() else {
            return refuse_unread(request, StatusCode::BAD_REQUEST, 3, "the path is invalid").await;
        };
        *request.uri_mut() = uri;
        let path = request.uri().path().to_owned();
        self.prepare(request.headers_mut(), credentials, web.as_deref());
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
        match self.net.send_with(credentials, link.clone(), request, RequestOptions::default()).await {
            Ok(response) => self.reply(response, credentials, &path, web.is_some()),
            Err(_) if broken.load(Ordering::Acquire) => {
                refuse(StatusCode::BAD_REQUEST, 3, "the request is incomplete, or its body is malformed")
            }
            Err(error) => failed(&error, link.take_note()),
        }
    }

    /// Returns the URL of a request at its origin, and whether to add credentials. Returns `None` for an unauthorized
    /// request and for a closed door: a component reacts to both like to an expired token, and requests a new URL.
    fn target(&self, request: &Request<Incoming>) -> Option<(Credentials, String)> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let door = self.doors.lock().unwrap_or_else(PoisonError::into_inner).behind(path);
        match door {
            Some((origin, rest)) => Some((Credentials::Withheld, format!("{origin}{rest}"))),
            None if path.starts_with(DOOR) || !self.is_admitted(request.headers()) => None,
            None => Some((Credentials::Added, format!("{}{path}", self.origin))),
        }
    }

    /// Converts the headers of a request for the service.
    fn prepare(&self, headers: &mut HeaderMap, credentials: Credentials, web: Option<&str>) {
        // The gateway's token is not forwarded, and credentials are not sent through doors.
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
        // The service is not asked by a page.
        headers.remove(header::ORIGIN);
        if let Some(form) = web {
            let kind = HeaderValue::try_from(format!("application/grpc{form}"));
            headers.insert(header::CONTENT_TYPE, kind.expect("what a header's value began with"));
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
    }

    /// Converts a response of the service for the client.
    fn reply(
        self: &Arc<Self>,
        response: Response<WasiBody>,
        credentials: Credentials,
        path: &str,
        web: bool,
    ) -> Response<Reply> {
        let json = is_document(&response);
        let wanted = |rule: &&LearnWish| rule.covers(path) && rule.pointer.is_some() == json;
        let rules: Vec<_> = match credentials {
            Credentials::Added => self.learn.iter().filter(wanted).cloned().collect(),
            Credentials::Withheld => vec![],
        };
        let (mut parts, body) = response.into_parts();
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::CONNECTION);
        let body = if rules.is_empty() {
            body
        } else {
            parts.headers.remove(header::CONTENT_LENGTH);
            let gateway = self.clone();
            DoorBody::new(body, rules, Box::new(move |url| gateway.through_door(url))).boxed_unsync()
        };
        let kind = media_type(&parts.headers);
        // A response that is not gRPC, such as an error page of a proxy, is not converted.
        let Some(form) = kind.strip_prefix("application/grpc").filter(|_| web) else {
            return Response::from_parts(parts, body);
        };
        let form = if form.is_empty() { "+proto" } else { form };
        if let Ok(kind) = HeaderValue::try_from(format!("application/grpc-web{form}")) {
            parts.headers.insert(header::CONTENT_TYPE, kind);
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        parts.version = http::Version::HTTP_11;
        Response::from_parts(parts, WebBody::new(body).boxed_unsync())
    }

    /// Returns the URL of the gateway that leads to this URL.
    fn through_door(&self, url: &str) -> Option<String> {
        let uri: http::Uri = url.parse().ok()?;
        let secret = self.doors.lock().unwrap_or_else(PoisonError::into_inner).to(&Origin::of(&uri)?);
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        // A URL without a path gets no path.
        let path = if path == "/" && !url.ends_with('/') { "" } else { path };
        Some(format!("http://{}{DOOR}{secret}{path}", self.address))
    }
}

/// Returns the message format of a gRPC-Web request, such as `+json`, or an empty string for protobuf. Returns `None`
/// for requests that are not gRPC. Fails for gRPC that is not gRPC-Web.
fn web_form(kind: &str) -> Result<Option<String>, ()> {
    let Some(rest) = kind.strip_prefix("application/grpc") else { return Ok(None) };
    match rest.strip_prefix("-web") {
        Some("+proto") => Ok(Some(String::new())),
        Some(form) if form.is_empty() || form.starts_with('+') => Ok(Some(form.to_owned())),
        _ => Err(()),
    }
}

/// Creates the refusal for a request that could not be forwarded.
fn failed(error: &HttpError, note: Option<Note>) -> Response<Reply> {
    let (status, code) = match (&note, error) {
        (Some(Note::Limit(_)), _) => (StatusCode::PAYLOAD_TOO_LARGE, 8),
        (_, HttpError::HttpRequestDenied | HttpError::DestinationIpProhibited) => (StatusCode::FORBIDDEN, 7),
        (_, HttpError::HttpRequestUriInvalid) => (StatusCode::BAD_REQUEST, 3),
        (_, HttpError::HttpRequestHeaderSectionSize(_)) => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, 8),
        _ => (StatusCode::BAD_GATEWAY, 14),
    };
    let why = note.map_or_else(|| error.to_string(), Note::into_text);
    refuse(status, code, &why)
}

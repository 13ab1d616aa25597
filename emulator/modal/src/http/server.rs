//! The main port: serves the control plane, the router, and blobs over plain HTTP.
//!
//! The official clients speak HTTP/2 with prior knowledge to a loopback address; blob uploads use HTTP/1.1. Credentials are
//! checked here, before a message is decoded.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use modal_proto::MAX_MESSAGE_BYTES;
use modal_proto::client::modal_client_server::ModalClientServer;
use modal_proto::prost::Message as _;
use modal_proto::prost_types::FileDescriptorSet;
use modal_proto::task_command_router::task_command_router_server::TaskCommandRouterServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::http::cut_body::Cut;
use crate::http::plain::plain;
use crate::http::{admin, auth};
use crate::model::faults::{Ordered, Verdict};
use crate::model::state::State;
use crate::service::addresses::is_local;
use crate::service::caller::Caller;
use crate::service::control::Control;
use crate::service::router::Router;
use crate::service::{status, uploads, volume_files};

const CONTROL_PREFIX: &str = "/modal.client.ModalClient/";
const ROUTER_PREFIX: &str = "/modal.task_command_router.TaskCommandRouter/";
const BLOB_PREFIX: &str = "/blobs/";
const BLOCK_PREFIX: &str = "/blocks/";

/// Flow-control window of one stream in bytes. 4 MiB already saturates loopback; with 64 MiB, which the clients use, a thousand
/// streams could each buffer that much.
const STREAM_WINDOW: u32 = 4 << 20;

/// Longest message of a status, in bytes of its encoded form.
const LONGEST_MESSAGE: usize = 4096;

/// How long a rejected connection stays open to receive the reason.
const REFUSAL_TIME: Duration = Duration::from_secs(10);

/// Accepts connections and serves them until the emulator ends.
pub(crate) async fn accept(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    let server = Server {
        control: ModalClientServer::new(Control::new(state.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
        router: TaskCommandRouterServer::new(Router(state.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES),
        state,
    };
    loop {
        let accepted = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (server, mut stopped) = (server.clone(), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        served = serve(server, stream) => if let Err(error) = served {
                            tracing::debug!(%peer, %error, "connection ended");
                        },
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            }
            Err(error) => {
                // Probably out of file descriptors: waits until some are closed instead of retrying in a busy loop.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(server: Server, stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let refused = server.state.peers.admit(&stream).await.err();
    let Some(why) = refused else { return serve_admitted(server, stream, Line::default()).await };
    tracing::debug!(why, "connection refused");
    // Every request of this connection gets the reason as its response, until the time is over.
    let told = serve_admitted(server, stream, Line { refused: Some(why), ..Line::default() });
    tokio::time::timeout(REFUSAL_TIME, told).await.unwrap_or(Ok(()))
}

async fn serve_admitted(
    server: Server,
    stream: TcpStream,
    line: Line,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let max_streams = server.state.options.max_streams;
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(4 * STREAM_WINDOW)
        .max_frame_size(256 * 1024)
        .max_send_buf_size(STREAM_WINDOW as usize);
    let line = Arc::new(line);
    let of_calls = line.clone();
    let service = hyper::service::service_fn(move |request| server.clone().call(request, of_calls.clone()));
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    loop {
        tokio::select! {
            served = connection.as_mut() => return served,
            () = line.close.notified() => return Ok(()),
            () = line.goaway.notified() => connection.as_mut().graceful_shutdown(),
        }
    }
}

/// State of a connection that its calls share.
#[derive(Debug, Default)]
struct Line {
    close: Notify,
    goaway: Notify,
    /// Why all requests of this connection are rejected; `None` if they are not.
    refused: Option<String>,
}

#[derive(Debug, Clone)]
struct Server {
    state: Arc<State>,
    control: ModalClientServer<Control>,
    router: TaskCommandRouterServer<Router>,
}

impl Server {
    async fn call(mut self, request: Request<Incoming>, line: Arc<Line>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let started = Instant::now();
        let method = path.strip_prefix(CONTROL_PREFIX).or_else(|| path.strip_prefix(ROUTER_PREFIX));
        let response = match method {
            _ if line.refused.is_some() => forbidden(line.refused.as_deref().unwrap_or_default(), method.is_some()),
            _ if from_a_page(&request) => forbidden(FROM_A_PAGE, method.is_some()),
            _ if !self.state.options.allow_remote && !by_local_name(&request) => {
                forbidden(BY_ANOTHER_NAME, method.is_some())
            }
            Some(method) if is_served(&path) => self.rpc(method, request.map(Body::new), &line).await?,
            None if path.starts_with(BLOB_PREFIX) => blob(&self.state, &path[BLOB_PREFIX.len()..], request).await,
            None if path.starts_with(BLOCK_PREFIX) => block(&self.state, &path[BLOCK_PREFIX.len()..], &request).await,
            None if path.starts_with(admin::PREFIX) => {
                if let Err(status) = auth::pair(&self.state, request.headers()) {
                    return Ok(plain(StatusCode::UNAUTHORIZED, format!("{}\n", status.message())));
                }
                admin::serve(&self.state, &path[admin::PREFIX.len()..], request).await
            }
            _ => other(&path, method.is_some() || is_grpc(request.headers())),
        };
        if tracing::enabled!(tracing::Level::DEBUG) {
            let method = path.rsplit('/').next().unwrap_or_default();
            let status = Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |status| status.code());
            tracing::debug!(method, ?status, micros = started.elapsed().as_micros() as u64, "call");
        }
        Ok(response)
    }

    /// Serves a call of one of the two services, and applies the fault that is ordered for it.
    async fn rpc(
        &mut self,
        method: &str,
        mut request: Request<Body>,
        line: &Line,
    ) -> Result<Response<Body>, Infallible> {
        let released = self.state.chaos.released();
        let verdict = self.state.chaos.verdict(method);
        match &verdict {
            Some(Verdict::Refuse(answer)) => return Ok(refuse(status::ordered(answer))),
            Some(Verdict::Delay(delay)) => self.state.chaos.hold_back(*delay, released).await,
            Some(Verdict::Close) => {
                line.close.notify_one();
                // The call is dropped with the connection.
                std::future::pending::<()>().await;
            }
            Some(Verdict::Goaway) => line.goaway.notify_one(),
            Some(Verdict::CutRequest(after)) => request = request.map(|body| Body::new(Cut::new(body, *after))),
            _ => {}
        }
        let is_control = request.uri().path().starts_with(CONTROL_PREFIX);
        let mut ordered = Ordered::default();
        match &verdict {
            Some(Verdict::TokenLife(life)) => ordered.token_life = Some(*life),
            Some(Verdict::Disk(bytes)) => ordered.disk = Some(*bytes),
            Some(Verdict::IgnoreTimeLimit) => ordered.ignore_time_limit = true,
            Some(Verdict::ExpireToken) => {
                let token = if is_control { auth::control_token } else { auth::router_token }(request.headers());
                self.state.signer.expire(token);
            }
            _ => {}
        }
        let response = if is_control {
            match auth::control(&self.state, method, request.headers()) {
                Ok(caller) => {
                    let asked = asked(&request).and_then(|host| http::uri::Authority::try_from(host).ok());
                    let asked = asked.map(|authority| authority.to_string());
                    request.extensions_mut().insert(Caller { ordered, asked, ..caller });
                    self.control.call(request).await?
                }
                Err(status) => refuse(status),
            }
        } else {
            match auth::router(&self.state, request.headers()) {
                Ok(claims) => {
                    request.extensions_mut().insert(claims);
                    request.extensions_mut().insert(ordered);
                    self.router.call(request).await?
                }
                Err(status) => refuse(status),
            }
        };
        let response = shorten(response);
        Ok(match verdict {
            Some(Verdict::Lose(answer)) => refuse(status::ordered(&answer)),
            Some(Verdict::Cut(after)) => response.map(|body| Body::new(Cut::new(body, after))),
            _ => response,
        })
    }
}

/// Shortens the message of a status. A message that quotes a request is sent in a header, and clients close connections on
/// which headers are longer than 8 or 16 KiB.
fn shorten(mut response: Response<Body>) -> Response<Body> {
    if let Some(message) = response.headers_mut().get_mut("grpc-message")
        && message.len() > LONGEST_MESSAGE
    {
        let mut end = LONGEST_MESSAGE;
        // Does not cut a `%xx` sequence in two.
        while message.as_bytes()[end - 2..end].contains(&b'%') {
            end -= 1;
        }
        if let Ok(short) = http::HeaderValue::from_bytes(&message.as_bytes()[..end]) {
            *message = short;
        }
    }
    response
}

fn refuse(status: Status) -> Response<Body> {
    status.into_http()
}

/// Returns whether this is the path of a method in the protocol's descriptors. The emulator implements all of these methods.
fn is_served(path: &str) -> bool {
    static METHODS: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let all = FileDescriptorSet::decode(modal_proto::DESCRIPTORS).unwrap_or_default();
        let services = all.file.iter().flat_map(|file| file.service.iter().map(|service| (file.package(), service)));
        let paths = services.flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        });
        paths.collect()
    });
    METHODS.contains(path)
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.starts_with("application/grpc")
}

fn other(path: &str, grpc: bool) -> Response<Body> {
    if grpc {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or(("", path));
        return refuse(Status::unimplemented(format!(
            "The emulator does not serve {method} (of {service}): docs/emulator.md lists its methods"
        )));
    }
    plain(
        StatusCode::NOT_FOUND,
        "This is an emulator of Modal's sandbox API. Point MODAL_SERVER_URL of a client here.\n",
    )
}

const FROM_A_PAGE: &str = "the emulator does not serve web pages, because callers can run commands on this machine";

const BY_ANOTHER_NAME: &str = "the emulator answers only to the names of this machine: ask for it by 127.0.0.1 or \
                               localhost, or start it with --allow-remote";

/// Returns whether a web page of another machine sent the request. Browsers name the origin of a page.
fn from_a_page<B>(request: &Request<B>) -> bool {
    let local = |origin: &http::HeaderValue| {
        origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(|(_, host)| is_local(host))
    };
    !request.headers().get_all(http::header::ORIGIN).iter().all(local)
}

/// Returns whether the request names this machine as its host. The owner of another name can let it resolve to this machine for
/// browsers that show the owner's pages (DNS rebinding), and requests of such pages need not carry an origin.
fn by_local_name<B>(request: &Request<B>) -> bool {
    // A request without a host name does not come from a browser: HTTP/1.0.
    asked(request).is_none_or(|host| std::str::from_utf8(host).is_ok_and(is_local))
}

/// Returns the host and port that the request names.
fn asked<B>(request: &Request<B>) -> Option<&[u8]> {
    let named = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    named.or_else(|| request.headers().get(http::header::HOST).map(http::HeaderValue::as_bytes))
}

/// Returns a response that says why the request is rejected.
fn forbidden(why: &str, grpc: bool) -> Response<Body> {
    if grpc { refuse(Status::permission_denied(why)) } else { plain(StatusCode::FORBIDDEN, format!("{why}\n")) }
}

async fn blob(state: &State, id: &str, request: Request<Incoming>) -> Response<Body> {
    match *request.method() {
        http::Method::PUT => match uploads::put_blob(state, id, request.into_body().into_data_stream()).await {
            Ok(md5) => {
                // A client that uploads a block of a volume returns this tag in its next request.
                let mut response = plain(StatusCode::OK, id.to_owned());
                if let Ok(tag) = format!("\"{md5}\"").parse() {
                    response.headers_mut().insert(http::header::ETAG, tag);
                }
                response
            }
            Err(status) if status.code() == tonic::Code::NotFound => {
                plain(StatusCode::NOT_FOUND, status.message().to_owned())
            }
            Err(status) => plain(StatusCode::BAD_REQUEST, status.message().to_owned()),
        },
        http::Method::GET => {
            let Some(path) = uploads::get_blob(state, id) else { return plain(StatusCode::NOT_FOUND, "no such blob") };
            match tokio::fs::read(path).await {
                Ok(content) => plain(StatusCode::OK, content),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "PUT or GET"),
    }
}

async fn block(state: &Arc<State>, name: &str, request: &Request<Incoming>) -> Response<Body> {
    if request.method() != http::Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "GET");
    }
    match volume_files::block(state, name).await {
        Ok(content) => plain(StatusCode::OK, content),
        Err(status) if status.code() == tonic::Code::NotFound => {
            plain(StatusCode::NOT_FOUND, status.message().to_owned())
        }
        Err(status) => plain(StatusCode::INTERNAL_SERVER_ERROR, status.message().to_owned()),
    }
}

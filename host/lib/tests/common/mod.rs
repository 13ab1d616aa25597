//! Shared code of the tests: the puppet component, which is built once, and an HTTP/2 server on loopback that records
//! requests.

#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sandbox_host::{Plugin, Provider, ProviderBuilder, types::SandboxInfo};

/// The credential of the tests.
pub const TOKEN: &str = "token-0123456789";

/// Returns the path of the puppet, built for wasm32-wasip2 at the first call.
pub fn puppet() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        // The profile of the other components, whose crates are compiled already.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--package", "puppet"]);
        cargo.args(["--profile", "component", "--target", "wasm32-wasip2", "--manifest-path"]);
        cargo.arg(root.join("Cargo.toml"));
        // The flags of the outer build do not apply to WebAssembly.
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(variable);
        }
        assert!(cargo.status().expect("cargo runs").success(), "the puppet does not build");
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        target.join("wasm32-wasip2/component/puppet.wasm")
    })
}

pub async fn plugin() -> Plugin {
    let path = tokio::task::spawn_blocking(puppet).await.unwrap();
    Plugin::load(path).await.unwrap()
}

/// Returns a builder for a provider with the puppet, whose origin `main` is `url`.
pub async fn builder(url: &str) -> ProviderBuilder {
    Provider::builder(&plugin().await).inherit_env(false).env("PUPPET_URL", url).credential("token", TOKEN.to_owned())
}

pub async fn provider(url: &str) -> Provider {
    builder(url).await.build().await.unwrap()
}

/// Sends an order to the puppet.
pub async fn order(provider: &Provider, words: &str) -> sandbox_host::Result<SandboxInfo> {
    provider.find(words).await.map(|found| found.info)
}

pub fn extra<'a>(info: &'a SandboxInfo, name: &str) -> Option<&'a str> {
    info.extra.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

pub type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

pub fn full(data: impl Into<Bytes>) -> Body {
    Full::new(data.into()).boxed_unsync()
}

/// Returns a body with data and trailers.
pub fn with_trailers(data: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    let frames = [Ok(Frame::data(data.into())), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// A request that a server has received.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: http::Method,
    pub uri: http::Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

type Handler = dyn Fn(Seen) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// An HTTP/2 server without TLS.
pub struct Server {
    pub url: String,
    pub connections: Arc<AtomicUsize>,
    /// Number of requests whose bodies ended early.
    pub cut: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    arrived: Arc<tokio::sync::Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts a server that answers every request with its path.
    pub async fn echo() -> Server {
        Server::start(None, |seen| Box::pin(async move { Response::new(full(seen.uri.path().to_owned())) })).await
    }

    pub async fn start<F>(streams: Option<u32>, handler: F) -> Server
    where
        F: Fn(Seen) -> BoxFuture<'static, Response<Body>> + Send + Sync + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, arrived) = (Arc::new(Mutex::new(Vec::new())), Arc::new(tokio::sync::Notify::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let cut = Arc::new(AtomicUsize::new(0));
        let (log, bell, count, cuts) = (seen.clone(), arrived.clone(), connections.clone(), cut.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let (log, bell, handler, cuts) = (log.clone(), bell.clone(), handler.clone(), cuts.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (log, bell, handler, cuts) = (log.clone(), bell.clone(), handler.clone(), cuts.clone());
                        async move {
                            let (parts, body) = request.into_parts();
                            let Ok(body) = body.collect().await else {
                                cuts.fetch_add(1, Ordering::SeqCst);
                                bell.notify_waiters();
                                return Err(std::io::Error::other("the request was cut off"));
                            };
                            let seen = Seen {
                                method: parts.method,
                                uri: parts.uri,
                                headers: parts.headers,
                                body: body.to_bytes(),
                            };
                            log.lock().unwrap().push(seen.clone());
                            bell.notify_waiters();
                            Ok(handler(seen).await)
                        }
                    });
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.max_concurrent_streams(streams);
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Server { url, connections, cut, seen, arrived, task }
    }

    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until the body of a request has ended early.
    pub async fn wait_for_cut(&self) {
        loop {
            let arrived = self.arrived.notified();
            if self.cut.load(Ordering::SeqCst) > 0 {
                return;
            }
            arrived.await;
        }
    }

    /// Waits until a request with a matching path has arrived.
    pub async fn wait_for(&self, path: impl Fn(&str) -> bool) -> Seen {
        loop {
            let arrived = self.arrived.notified();
            if let Some(seen) = self.seen().into_iter().find(|seen| path(seen.uri.path())) {
                return seen;
            }
            arrived.await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

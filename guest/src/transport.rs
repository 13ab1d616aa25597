//! What the provider runs on: HTTP requests, a clock, random numbers, the environment. The WASI implementation is in
//! `wasi`; tests bring a native one. Above this line nothing knows where it runs.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::body::Body;

/// A future that need not cross threads: a component has one.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// Why a request got no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// What happened.
    pub kind: TransportFault,
    /// In words.
    pub message: String,
}

/// Kinds of transport failure that the provider treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportFault {
    /// The host does not allow the connection. Trying again is useless.
    Forbidden,
    /// The request did not leave: name not found, nobody listening, TLS refused. It had no effect.
    NotSent,
    /// The connection broke. The request may have had its effect.
    Broken,
}

impl std::fmt::Display for TransportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TransportError {}

/// HTTP, time, chance and environment.
pub trait Transport: 'static {
    /// Sends a request and resolves when the response's head is there. Request and response bodies run at the same time.
    fn send(&self, request: Request<Body>) -> LocalFuture<Result<Response<Body>, TransportError>>;

    /// Resolves after this long.
    fn sleep(&self, duration: Duration) -> LocalFuture<()>;

    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Sixteen unpredictable bytes.
    fn random(&self) -> [u8; 16];

    /// An environment variable; empty ones count as absent.
    fn env(&self, name: &str) -> Option<String>;
}

/// The tower service that generated clients call.
#[derive(Clone)]
pub struct Channel(pub Rc<dyn Transport>);

impl tower_service::Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = LocalFuture<Result<Response<Body>, TransportError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.send(request)
    }
}

/// Runs `future` for at most `limit`; none if it did not finish.
pub async fn within<T>(transport: &Rc<dyn Transport>, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let future = std::pin::pin!(future);
    match futures_util::future::select(future, transport.sleep(limit)).await {
        futures_util::future::Either::Left((value, _)) => Some(value),
        futures_util::future::Either::Right(_) => None,
    }
}

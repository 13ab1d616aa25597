//! What a provider runs on: HTTP requests, a clock, random numbers, the environment. The WASI implementation is in
//! `wasi02`, the one for tests in `scripted`. Above this line nothing knows where it runs.
//!
//! The types of HTTP are this module's own. What the usual crates know of it beyond that - all headers there are, every
//! status in words - was a tenth of the component.

use std::{fmt, future::Future, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::url::Url;

/// A future that need not cross threads: a component has one.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

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
    /// The request did not leave: name not found, connection refused, TLS refused. It had no effect.
    NotSent,
    /// The connection broke. The request may have had its effect.
    Broken,
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TransportError {}

/// A request's method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// A request on its way.
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// Where.
    pub url: Url,
    /// Names in lower case, and values that [`is_header_text`] accepts.
    pub headers: Vec<(&'static str, String)>,
    /// What goes with it.
    pub body: Body,
}

/// Whether a header can have this value.
#[must_use]
pub fn is_header_text(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// Headers as they were received, or the trailers behind a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// The first value of that name, which is given in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &value[..])
    }
}

/// What gives the first value of the header whose name, in lower case, it is called with.
type ReadHeader = dyn Fn(&str) -> Option<Vec<u8>>;

/// The headers of an answer. Each is read when it is asked for: most answers say all that counts at their end.
pub struct Head(Box<ReadHeader>);

impl Head {
    /// With what reads one of them.
    #[must_use]
    pub fn new(read: impl Fn(&str) -> Option<Vec<u8>> + 'static) -> Head {
        Head(Box::new(read))
    }

    /// The first value of that name, which is given in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        (self.0)(name)
    }
}

impl From<Headers> for Head {
    fn from(headers: Headers) -> Head {
        Head::new(move |name| headers.get(name).map(<[u8]>::to_vec))
    }
}

/// An answer whose body is still coming.
pub struct Response {
    /// The status of HTTP.
    pub status: u16,
    /// What was said before the body.
    pub head: Head,
    /// What comes.
    pub body: Body,
}

impl Response {
    /// Whether the status says that it went well.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes, as they come.
    Data(Bytes),
    /// What stands behind the bytes.
    Trailers(Headers),
}

/// A body in pieces; an error, in words, is the last of them. A body of a request that fails is cut off.
pub type Body = Pin<Box<dyn Stream<Item = Result<Frame, String>>>>;

/// The body of a request that has none.
#[must_use]
pub fn empty() -> Body {
    Box::pin(stream::empty())
}

/// The body that is these bytes.
#[must_use]
pub fn whole(bytes: Bytes) -> Body {
    Box::pin(stream::iter([Ok(Frame::Data(bytes))]))
}

/// A request that waits for the head of its answer.
pub type Sending = LocalFuture<'static, Result<Response, TransportError>>;

/// HTTP, time, chance and environment.
pub trait Transport: 'static {
    /// Sends a request and resolves when the response's head is there. Request and response bodies run at the same time.
    fn send(&self, request: Request) -> Sending;

    /// Resolves after this long.
    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()>;

    /// Time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Sixteen unpredictable bytes.
    fn random(&self) -> [u8; 16];

    /// An environment variable; empty ones count as absent.
    fn env(&self, name: &str) -> Option<String>;

    /// A line of progress, which a host may show to its user.
    fn tell(&self, line: &str);
}

/// Runs `future` for at most `limit`; none if it did not finish.
pub async fn within<T>(transport: &Rc<dyn Transport>, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let future = std::pin::pin!(future);
    match futures_util::future::select(future, transport.sleep(limit)).await {
        futures_util::future::Either::Left((value, _)) => Some(value),
        futures_util::future::Either::Right(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_any_case() {
        let headers = Headers(vec![("ETag".to_string(), b"a".to_vec()), ("etag".to_string(), b"b".to_vec())]);
        assert_eq!(headers.get("etag"), Some(&b"a"[..]));
        assert_eq!(headers.get("eta"), None);
    }
}

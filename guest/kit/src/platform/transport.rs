//! The trait [`Transport`]: HTTP requests, clock, random numbers and environment variables. The module `wasi02`
//! implements it over WASI, the module `scripted` for tests. All other code of a provider uses only this trait.
//!
//! The HTTP types are defined here, because the usual crates made up a tenth of the component with their lists of all
//! known headers and status texts.

use std::{fmt, future::Future, pin::Pin, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::url::Url;

/// A future that is not `Send`: a component has one thread.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// The failure of a request that got no response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportError {
    /// The kind of the failure.
    pub kind: TransportFault,
    /// A description of the failure.
    pub message: String,
}

/// The kinds of transport failure that a provider handles differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportFault {
    /// The host does not allow the connection. A retry would fail in the same way.
    Forbidden,
    /// The request was not sent, for example because the name was not found, or the connection or TLS was refused. It
    /// had no effect.
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

/// The method of a request.
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

/// An HTTP request.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: Url,
    /// Header names in lower case with values that [`is_header_text`] accepts.
    pub headers: Vec<(&'static str, String)>,
    /// The body; [`empty`] for none.
    pub body: Body,
}

/// Returns whether a header can have this value: printable ASCII characters, spaces and tabs.
#[must_use]
pub fn is_header_text(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// Received headers, or the trailers after a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl Headers {
    /// Returns the first value of a header, or `None` if it is missing. `name` is in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| &value[..])
    }
}

/// A function that returns the first value of the header with this name, which is in lower case.
type ReadHeader = dyn Fn(&str) -> Option<Vec<u8>>;

/// The headers of a response. Each header is read from the host only on request, because most responses have their
/// important fields in the trailers.
pub struct Head(Box<ReadHeader>);

impl Head {
    /// Makes headers from a function that returns the first value of a header.
    #[must_use]
    pub fn new(read: impl Fn(&str) -> Option<Vec<u8>> + 'static) -> Head {
        Head(Box::new(read))
    }

    /// Returns the first value of a header, or `None` if it is missing. `name` is in lower case.
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

/// A response whose body is still being received.
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub head: Head,
    /// The body.
    pub body: Body,
}

impl Response {
    /// Returns whether the status is between 200 and 299.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes, in pieces of any size.
    Data(Bytes),
    /// The trailers after the bytes.
    Trailers(Headers),
}

/// A body as a stream of frames. An error, which is a description for people, is its last item. If the body of a
/// request fails, the request is cut off.
pub type Body = Pin<Box<dyn Stream<Item = Result<Frame, String>>>>;

/// Returns an empty body.
#[must_use]
pub fn empty() -> Body {
    Box::pin(stream::empty())
}

/// Returns a body with these bytes.
#[must_use]
pub fn whole(bytes: Bytes) -> Body {
    Box::pin(stream::iter([Ok(Frame::Data(bytes))]))
}

/// A request that has been sent; resolves with the head of its response.
pub type Sending = LocalFuture<'static, Result<Response, TransportError>>;

/// The services of the platform: HTTP, time, random numbers and environment variables.
pub trait Transport: 'static {
    /// Sends a request and resolves when the head of its response has been received. The bodies of request and response
    /// are transferred at the same time.
    fn send(&self, request: Request) -> Sending;

    /// Resolves after `duration`.
    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()>;

    /// Returns the time since the Unix epoch.
    fn now(&self) -> Duration;

    /// Returns sixteen unpredictable bytes.
    fn random(&self) -> [u8; 16];

    /// Returns an environment variable, or `None` if it is missing or empty.
    fn env(&self, name: &str) -> Option<String>;

    /// Writes a line of progress, which a host may show to its user.
    fn tell(&self, line: &str);
}

/// Runs `future` for at most `limit`. Returns `None` if it has not finished by then.
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

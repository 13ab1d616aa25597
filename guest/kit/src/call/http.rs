//! Plain HTTP: one request, its answer read to the end, and what a refusal means.

use std::{fmt, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::failure::Failure;
use crate::{
    api::{
        error::{Error, clip},
        wit::{ErrorKind, Happened, RetryAdvice},
    },
    platform::{Body, Frame, Head, Request, Transport, TransportError, TransportFault},
};

/// An answer whose body has been read.
pub struct Answer {
    /// The status of HTTP, 200 to 299.
    pub status: u16,
    /// What was said before the body.
    pub head: Head,
    /// The body.
    pub body: Bytes,
}

/// Sends a request and reads the answer, of which at most `limit` bytes are taken.
///
/// # Errors
///
/// If there was no answer, one with another status than 200 to 299, or one that is longer or breaks off.
pub async fn exchange(transport: &Rc<dyn Transport>, request: Request, limit: usize) -> Result<Answer, Refusal> {
    let response = transport.send(request).await?;
    let (status, good) = (response.status, response.is_success());
    let retry_after = response.head.get("retry-after").and_then(|text| seconds(&text));
    let body = read(response.body, limit).await;
    if !good {
        let text = String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_string();
        return Err(Refusal { status: Some(status), retry_after, message: text, fault: None, earlier: false });
    }
    let body = body.ok_or_else(|| Refusal::broken("the answer is cut off or too long"))?;
    Ok(Answer { status, head: response.head, body })
}

/// A body in one piece; none if it breaks off or is longer than `limit` bytes.
pub async fn read(mut body: Body, limit: usize) -> Option<Bytes> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.next().await {
        match frame {
            Ok(Frame::Data(data)) if bytes.len() + data.len() <= limit => bytes.extend_from_slice(&data),
            Ok(Frame::Trailers(_)) => {}
            _ => return None,
        }
    }
    Some(bytes.into())
}

/// A `retry-after` that is a number of seconds; dates are not read.
fn seconds(text: &[u8]) -> Option<Duration> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Why a request came to nothing.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: Option<u16>,
    fault: Option<TransportFault>,
    message: String,
    retry_after: Option<Duration>,
    earlier: bool,
}

impl Refusal {
    fn broken(message: &str) -> Refusal {
        let (status, fault) = (None, Some(TransportFault::Broken));
        Refusal { status, fault, message: message.to_string(), retry_after: None, earlier: false }
    }

    /// The status of the answer; none if there was none.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// How long the service asks to wait. For [`super::retry::Throttle`].
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) if self.message.is_empty() => write!(f, "HTTP status {status}"),
            Some(status) => write!(f, "HTTP status {status}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Refusal {
        let TransportError { kind, message } = error;
        Refusal { status: None, fault: Some(kind), message, retry_after: None, earlier: false }
    }
}

impl Failure for Refusal {
    fn timed_out(limit: Duration) -> Refusal {
        Refusal::broken(&format!("no answer within {} ms", limit.as_millis()))
    }

    fn is_retryable(&self) -> bool {
        match self.status {
            Some(status) => status == 408 || status == 429 || status >= 500 && status != 501,
            None => self.fault != Some(TransportFault::Forbidden),
        }
    }

    fn is_refused(&self) -> bool {
        self.fault == Some(TransportFault::NotSent)
    }

    fn is_unauthenticated(&self) -> bool {
        self.status == Some(401)
    }

    fn is_throttled(&self) -> bool {
        matches!(self.status, Some(429 | 503))
    }

    fn may_have_happened(&self) -> bool {
        let now = match self.status {
            Some(status) => status >= 500 && status != 501,
            None => self.fault == Some(TransportFault::Broken),
        };
        now || self.earlier
    }

    fn had_earlier(&self) -> bool {
        self.earlier
    }

    fn mark_earlier(&mut self) {
        self.earlier = true;
    }

    fn message(&self) -> &str {
        &self.message
    }
}

impl Error {
    /// What the service answered when asked to do `what` ("create the sandbox").
    #[must_use]
    pub fn from_refusal(refusal: &Refusal, what: &str) -> Error {
        use {ErrorKind as Kind, RetryAdvice as Retry};
        let (kind, retry) = match (refusal.status, refusal.fault) {
            (_, Some(TransportFault::Forbidden)) => (Kind::Forbidden, Retry::Never),
            (None, _) | (Some(502..=504), _) => (Kind::Unavailable, Retry::Maybe),
            (Some(400 | 405 | 406 | 411 | 413..=417 | 422), _) => (Kind::InvalidArgument, Retry::Never),
            (Some(401 | 407), _) => (Kind::Unauthenticated, Retry::Never),
            (Some(402 | 429), _) => (Kind::ResourceExhausted, Retry::Maybe),
            (Some(403 | 451), _) => (Kind::PermissionDenied, Retry::Never),
            (Some(404 | 410), _) => (Kind::NotFound, Retry::Never),
            (Some(408), _) => (Kind::TimedOut, Retry::Maybe),
            (Some(409 | 412), _) => (Kind::Conflict, Retry::Never),
            (Some(501), _) => (Kind::Unsupported, Retry::Never),
            (Some(_), _) => (Kind::Internal, Retry::Maybe),
        };
        let retry = match refusal.retry_after {
            Some(wait) => Retry::After(crate::api::time::millis(wait)),
            None => retry,
        };
        let text = clip(&refusal.to_string());
        let message = format!("Could not {what}: {text}{}", if text.ends_with('.') { "" } else { "." });
        let code = refusal.status.map(|status| format!("http:{status}"));
        let said = refusal.status.map(|_| clip(&refusal.message));
        Error::new(kind, message)
            .with_happened(if refusal.may_have_happened() { Happened::Unknown } else { Happened::No })
            .with_retry(retry)
            .with_provider(code, said)
    }
}

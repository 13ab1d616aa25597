//! Plain HTTP: sends one request, reads its whole response, and describes failures.

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

/// A response with its complete body.
pub struct Answer {
    /// The HTTP status, 200 to 299.
    pub status: u16,
    /// The headers.
    pub head: Head,
    /// The body.
    pub body: Bytes,
}

/// Sends a request and reads its response with a body of at most `limit` bytes.
///
/// # Errors
///
/// A [`Refusal`] if there is no response, if its status is not 200 to 299, or if its body is longer than `limit` or cut
/// off.
pub async fn exchange(transport: &Rc<dyn Transport>, request: Request, limit: usize) -> Result<Answer, Refusal> {
    let response = transport.send(request).await?;
    let (status, good) = (response.status, response.is_success());
    let retry_after = response.head.get("retry-after").and_then(|text| seconds(&text));
    let body = read(response.body, limit).await;
    if !good {
        let text = String::from_utf8_lossy(&body.unwrap_or_default()).trim().to_string();
        return Err(Refusal { retry_after, ..Refusal::of_status(status, &text) });
    }
    let body = body.ok_or_else(|| Refusal::broken("the response is incomplete or too long"))?;
    Ok(Answer { status, head: response.head, body })
}

/// Reads a whole body. Returns `None` if it is cut off or longer than `limit` bytes.
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

/// Parses a `retry-after` header that is a number of seconds. Returns `None` for a date.
fn seconds(text: &[u8]) -> Option<Duration> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The failure of a request.
#[derive(Debug, Clone)]
pub struct Refusal {
    status: Option<u16>,
    fault: Option<TransportFault>,
    message: String,
    retry_after: Option<Duration>,
    earlier: bool,
    last: bool,
}

impl Refusal {
    fn broken(message: &str) -> Refusal {
        let (status, fault) = (None, Some(TransportFault::Broken));
        Refusal { status, fault, message: message.to_string(), retry_after: None, earlier: false, last: false }
    }

    /// Makes the refusal of a response with this status and this text in its body.
    #[must_use]
    pub fn of_status(status: u16, message: &str) -> Refusal {
        let message = message.to_string();
        Refusal { status: Some(status), fault: None, message, retry_after: None, earlier: false, last: false }
    }

    /// Makes this failure final: it is not retried, whatever its status is.
    #[must_use]
    pub fn without_retry(mut self) -> Refusal {
        self.last = true;
        self
    }

    /// Returns the HTTP status of the response, or `None` if there was no complete response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Returns the wait of the `retry-after` header, or `None` if there is none. Meant for [`super::retry::Throttle`].
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
        Refusal { status: None, fault: Some(kind), message, retry_after: None, earlier: false, last: false }
    }
}

impl Failure for Refusal {
    fn timed_out(limit: Duration) -> Refusal {
        Refusal::broken(&format!("no response within {} ms", limit.as_millis()))
    }

    fn is_retryable(&self) -> bool {
        match self.status {
            _ if self.last => false,
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
    /// Converts a refusal to an error of the interface. `what` completes the sentence "Could not …", for example
    /// "create the sandbox".
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::retry::{self, Policy, Throttle},
        platform::{
            Headers, Method, Url, empty,
            scripted::{Answer, Script, run},
        },
    };

    const POLICY: Policy = Policy {
        retries: 2,
        base: Duration::from_millis(100),
        cap: Duration::from_secs(1),
        refused: 1,
        attempt: Some(Duration::from_secs(5)),
        throttle_any: false,
        patience: None,
    };

    fn get(script: &Script) -> Result<super::Answer, Refusal> {
        let transport: Rc<dyn Transport> = Rc::new(script.clone());
        let url = Url::parse("http://a/v1").unwrap().below("/things", &[("all", "1")]);
        let throttle = Throttle { wait: Refusal::retry_after, longest: Some(Duration::from_secs(60)) };
        run(retry::run(&transport, &POLICY, throttle, |_| {
            let request = Request { method: Method::Get, url: url.clone(), headers: Vec::new(), body: empty() };
            let transport = transport.clone();
            async move { exchange(&transport, request, 8).await }
        }))
    }

    #[test]
    fn an_answer_is_read_whole() {
        let script = Script::new();
        script.will("things", Answer::Http(200, "tag", "text"));
        let answer = get(&script).map_err(|refusal| refusal.to_string()).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"text"[..]));
        assert_eq!(answer.head.get("etag").as_deref(), Some(&b"tag"[..]));
        let [seen] = &script.calls("things")[..] else { panic!("one request") };
        assert!(seen.body.is_empty());

        // A body that is too long may mean that the request had its effect, so it is retried.
        for _ in 0..3 {
            script.will("things", Answer::Http(200, "", "nine long"));
        }
        let refusal = get(&script).err().unwrap();
        assert!(refusal.may_have_happened() && refusal.status().is_none(), "{refusal}");
        assert_eq!(script.calls("things").len(), 4);
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let script = Script::new();
        script.will("things", Answer::Http(502, "", ""));
        script.will("things", Answer::Http(429, "", "later"));
        script.will("things", Answer::Http(200, "", ""));
        assert!(get(&script).is_ok());
        let times: Vec<_> = script.calls("things").iter().map(|seen| seen.at.as_millis()).collect();
        assert_eq!(times, [0, 100, 300]);

        let script = Script::new();
        for _ in 0..2 {
            script.will("things", Answer::Refused);
        }
        let refusal = get(&script).err().unwrap();
        assert!(refusal.is_refused() && !refusal.may_have_happened(), "{refusal}");
    }

    #[test]
    fn a_refusal_is_final_and_becomes_an_error() {
        let cases = [
            (400, ErrorKind::InvalidArgument),
            (401, ErrorKind::Unauthenticated),
            (403, ErrorKind::PermissionDenied),
            (404, ErrorKind::NotFound),
            (409, ErrorKind::Conflict),
            (501, ErrorKind::Unsupported),
        ];
        for (status, kind) in cases {
            let script = Script::new();
            script.will("things", Answer::Http(status, "", "no, it"));
            let refusal = get(&script).err().unwrap();
            let error = Error::from_refusal(&refusal, "look at things");
            assert_eq!(format!("{:?}", error.kind), format!("{kind:?}"), "{status}");
            assert_eq!(error.message, format!("Could not look at things: HTTP status {status}: no, it."));
            assert!(matches!(error.happened, Happened::No), "{status}");
            assert_eq!(error.provider_code, Some(format!("http:{status}")));
            assert_eq!(script.calls("things").len(), 1, "{status}");
        }
        let head = Headers(vec![("retry-after".to_string(), b" 7 ".to_vec())]);
        assert_eq!(head.get("retry-after").and_then(seconds), Some(Duration::from_secs(7)));
        assert_eq!(seconds(b"Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }
}

//! The error of a call, as a JSON object.

use std::fmt;

use sandbox_host::{Error, Happened, Retry};
use serde::Serialize;

/// The kind of calls on objects or bridges that were closed.
pub const CLOSED: &str = "closed";

/// The kind of calls that were cancelled by their caller. A binding reports it; a bridge itself drops such a call.
pub const CANCELLED: &str = "cancelled";

/// The kind of calls with unusable arguments.
pub const INVALID: &str = "invalid-argument";

/// The error of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Fault(Box<Fields>);

/// The fields of the JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Fields {
    kind: String,
    message: String,
    reason: String,
    happened: &'static str,
    retryable: bool,
    retry_after_ms: Option<u64>,
    subject: Option<String>,
}

impl Fault {
    /// Creates an error of the bridge itself. `message` is a sentence without capital and full stop. The effect of the call
    /// did not happen, and repeating the call does not help.
    pub fn new(kind: &str, message: impl Into<String>) -> Fault {
        let message = message.into();
        Fault(Box::new(Fields {
            kind: kind.to_owned(),
            reason: message.clone(),
            message,
            happened: "no",
            retryable: false,
            retry_after_ms: None,
            subject: None,
        }))
    }

    /// Changes an error to one of a call whose effect may have happened.
    fn unclear(mut self) -> Fault {
        self.0.happened = "unknown";
        self
    }

    /// Creates the error of a call that its caller cancelled. The effect of the call may have happened.
    #[must_use]
    pub fn cancelled() -> Fault {
        Fault::new(CANCELLED, "the call was cancelled").unclear()
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Fault {
        Fault::new(INVALID, message)
    }

    /// Creates the error of a call on a closed object. `what` names it.
    pub(crate) fn closed(what: impl fmt::Display) -> Fault {
        Fault::new(CLOSED, format!("{what} is closed"))
    }

    /// Creates the error of a call that was under way when its object was closed.
    pub(crate) fn interrupted(what: impl fmt::Display) -> Fault {
        Fault::new(CLOSED, format!("{what} was closed during the call")).unclear()
    }

    pub(crate) fn io(what: &str, error: std::io::Error) -> Fault {
        match error.downcast::<Error>() {
            Ok(error) => error.into(),
            Err(error) => {
                let reason = sandbox_host::local_reason(&error);
                let kind = sandbox_host::Kind::Io(error.kind()).code();
                let mut fault = Fault::new(&kind, format!("cannot {what}: {reason}"));
                fault.0.reason = reason;
                fault
            }
        }
    }

    /// Returns the error as the text of a JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings, numbers and booleans can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the kind, such as `not-found`: see [`sandbox_host::Kind::code`] and the constants of this crate.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.0.kind
    }

    /// Returns the whole text: what failed, why, and what to do about it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns why the call failed.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Returns whether the effect of the call happened: `no`, `unknown` or `yes`.
    #[must_use]
    pub fn happened(&self) -> &'static str {
        self.0.happened
    }

    /// Returns whether the same call can succeed later.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }

    /// Returns the time after which the call can succeed, in milliseconds, if the service named it.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        self.0.retry_after_ms
    }

    /// Returns the setting or the object that the error is about, if it is known.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let retry_after_ms = match error.retry() {
            Retry::After(time) => Some(time.as_millis().try_into().unwrap_or(u64::MAX)),
            Retry::Never | Retry::Maybe => None,
        };
        Fault(Box::new(Fields {
            kind: error.kind().code().into_owned(),
            message: error.to_string(),
            reason: error.parts().1.to_owned(),
            happened: match error.happened() {
                Happened::No => "no",
                Happened::Unknown => "unknown",
                Happened::Yes => "yes",
            },
            retryable: error.is_retryable(),
            retry_after_ms,
            subject: error.subject().map(str::to_owned),
        }))
    }
}

//! The error type of all functions of the interface. The modules of `call` convert a failed request into such an error.

use super::wit::{Error as Record, ErrorKind, FileFault, Happened, RetryAdvice};

/// The `error` record of the interface in a box. Every future here contains results; moving the whole record through
/// them made up a tenth of the component's size.
#[derive(Debug, Clone)]
pub struct Error(Box<Record>);

/// Result of a function of the interface.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest message of a service that an error contains, in bytes. Longer messages are cut, because people read errors.
const MAX_PROVIDER_TEXT: usize = 8 * 1024;

impl Error {
    /// Makes an error for a call that failed before anything was sent: `happened` is `no`, and `retry` is `never`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Record {
            kind,
            message: message.into(),
            happened: Happened::No,
            retry: RetryAdvice::Never,
            provider_code: None,
            provider_message: None,
            subject: None,
            extra: Vec::new(),
        }))
    }

    /// Returns the record, which is the error type of the exports.
    // Not inlined: each exported function calls it, and moving the record takes more code than a call.
    #[must_use]
    #[inline(never)]
    pub fn into_record(self) -> Record {
        *self.0
    }

    /// Makes an `invalid-argument` error.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// Makes an `unsupported` error. `subject` is the missing capability.
    pub fn unsupported(subject: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message).about(subject)
    }

    /// Makes a `not-found` error. `what` names the kind of object, such as `sandbox`; the id is the subject.
    pub fn not_found(what: &str, id: &str) -> Error {
        Error::new(ErrorKind::NotFound, format!("There is no {what} `{}`.", shown(id))).about(id)
    }

    /// Makes a `sandbox-ended` error for a call about a sandbox that had ended before.
    pub fn ended(sandbox: &str) -> Error {
        Error::new(ErrorKind::SandboxEnded, "The sandbox has ended.").about(sandbox)
    }

    /// Makes an `internal` error for an unusable answer of the service. Its `happened` is `unknown`.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message).with_happened(Happened::Unknown)
    }

    /// Makes a `file` error about `path` for a file operation that failed inside the sandbox.
    pub fn file(fault: FileFault, path: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::File(fault), message).about(path)
    }

    /// Sets the subject: the argument, the id or the capability that the error is about.
    #[must_use]
    pub fn about(mut self, subject: &str) -> Error {
        self.subject = Some(subject.to_string());
        self
    }

    /// Sets whether the call had its effect.
    #[must_use]
    pub fn with_happened(mut self, happened: Happened) -> Error {
        self.happened = happened;
        self
    }

    /// Sets whether and when the caller should retry.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryAdvice) -> Error {
        self.retry = retry;
        self
    }

    /// Replaces the message.
    #[must_use]
    pub fn with_message(mut self, message: String) -> Error {
        self.message = message;
        self
    }

    /// Sets the error code of the service, and its message if there is one.
    #[must_use]
    pub fn with_provider(mut self, code: Option<String>, message: Option<String>) -> Error {
        self.provider_code = code;
        self.provider_message = message;
        self
    }

    /// Returns whether the kind is `not-found`.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, ErrorKind::NotFound)
    }
}

impl std::ops::Deref for Error {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.0
    }
}

impl std::ops::DerefMut for Error {
    fn deref_mut(&mut self) -> &mut Record {
        &mut self.0
    }
}

/// Escapes quotes, backslashes and control characters of a caller's text, so that it can be part of a message.
pub fn shown(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted[1..quoted.len() - 1].to_string()
}

/// Cuts a text to at most 8 KiB at a character boundary, and marks the cut with `…`.
pub fn clip(text: &str) -> String {
    if text.len() <= MAX_PROVIDER_TEXT {
        return text.to_string();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_PROVIDER_TEXT - 4)])
}

//! The interface's `error` record: how it is made. How the failure of a call becomes one is told where calls are made.

use super::wit::{Error as Record, ErrorKind, FileFault, Happened, RetryAdvice};

/// The interface's record behind a pointer: every future here holds results, and moving the record itself through all of them
/// made up a tenth of the component.
#[derive(Debug, Clone)]
pub struct Error(Box<Record>);

/// Result of a function of the interface.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Longest text of the service that is passed on, in bytes: an error is for reading.
const MAX_PROVIDER_TEXT: usize = 8 * 1024;

impl Error {
    /// An error that happened before anything was sent.
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

    /// The record itself, as an export gives it.
    #[must_use]
    pub fn into_record(self) -> Record {
        *self.0
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidArgument, message)
    }

    /// This provider cannot do that.
    pub fn unsupported(subject: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, message).about(subject)
    }

    /// The service answered nonsense.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Internal, message).with_happened(Happened::Unknown)
    }

    /// A file operation failed inside the sandbox.
    pub fn file(fault: FileFault, path: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::File(fault), message).about(path)
    }

    /// Names what the error is about.
    #[must_use]
    pub fn about(mut self, subject: &str) -> Error {
        self.subject = Some(subject.to_string());
        self
    }

    /// Says whether it happened.
    #[must_use]
    pub fn with_happened(mut self, happened: Happened) -> Error {
        self.happened = happened;
        self
    }

    /// Says whether to try again.
    #[must_use]
    pub fn with_retry(mut self, retry: RetryAdvice) -> Error {
        self.retry = retry;
        self
    }

    /// Says it in other words.
    #[must_use]
    pub fn with_message(mut self, message: String) -> Error {
        self.message = message;
        self
    }

    /// Adds the provider's own code, and its own words where there are some.
    #[must_use]
    pub fn with_provider(mut self, code: Option<String>, message: Option<String>) -> Error {
        self.provider_code = code;
        self.provider_message = message;
        self
    }

    /// Whether what the call named does not exist.
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

/// A caller's text as it can stand in a message: what is no plain character is escaped.
pub fn shown(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted[1..quoted.len() - 1].to_string()
}

/// Cuts text to what an error may carry, at a character border.
pub fn clip(text: &str) -> String {
    if text.len() <= MAX_PROVIDER_TEXT {
        return text.to_string();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_PROVIDER_TEXT - 4)])
}

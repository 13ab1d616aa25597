//! The interface's `error` record: how it is made, and how a gRPC status becomes one (fact sheet, section 1.6).

use crate::{
    bindings::{ErrorKind, FileFault, Happened, RetryAdvice},
    grpc::{Code, Status},
    transport::TransportFault,
};

use crate::bindings::Error as Record;

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

    /// What the service answered when asked to do `what` ("create the sandbox").
    pub fn from_status(status: &Status, what: &str) -> Error {
        let (kind, happened, retry, help) = meaning(status.code());
        let text = clip(status.message());
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        let message = format!("Could not {what}{said}{}{help}", if said.ends_with('.') { "" } else { "." });
        let (kind, happened, retry) = match status.fault() {
            Some(TransportFault::Forbidden) => (ErrorKind::Forbidden, Happened::No, RetryAdvice::Never),
            Some(TransportFault::NotSent) => (ErrorKind::Unavailable, Happened::No, RetryAdvice::Maybe),
            Some(TransportFault::Broken) => (ErrorKind::Unavailable, Happened::Unknown, RetryAdvice::Maybe),
            None => (kind, happened, retry),
        };
        let happened = match happened {
            Happened::No if status.had_earlier() => Happened::Unknown,
            other => other,
        };
        let service = status.fault().is_none();
        Error::new(kind, message)
            .with_happened(happened)
            .with_retry(retry)
            .with_provider(service.then(|| code_name(status.code())), service.then_some(text))
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

/// Kind, whether it happened, what to do, and a hint for the reader.
fn meaning(code: Code) -> (ErrorKind, Happened, RetryAdvice, &'static str) {
    use {ErrorKind as Kind, Happened as Did, RetryAdvice as Retry};
    match code {
        Code::InvalidArgument | Code::OutOfRange => (Kind::InvalidArgument, Did::No, Retry::Never, ""),
        Code::NotFound => (Kind::NotFound, Did::No, Retry::Never, ""),
        Code::AlreadyExists => (Kind::AlreadyExists, Did::No, Retry::Never, ""),
        Code::PermissionDenied => (Kind::PermissionDenied, Did::No, Retry::Never, ""),
        Code::ResourceExhausted => (Kind::ResourceExhausted, Did::No, Retry::Maybe, ""),
        Code::FailedPrecondition | Code::Aborted => (Kind::Conflict, Did::No, Retry::Never, ""),
        Code::Unimplemented => (Kind::Unsupported, Did::No, Retry::Never, ""),
        Code::Unauthenticated => {
            (Kind::Unauthenticated, Did::No, Retry::Never, " Check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET.")
        }
        Code::DeadlineExceeded => (Kind::TimedOut, Did::Unknown, Retry::Maybe, ""),
        Code::Unavailable => (Kind::Unavailable, Did::Unknown, Retry::Maybe, ""),
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            (Kind::Internal, Did::Unknown, Retry::Maybe, "")
        }
    }
}

fn code_name(code: Code) -> String {
    let name = match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    };
    format!("grpc:{} {name}", code as i32)
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

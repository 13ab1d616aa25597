//! Converts a gRPC status to the error of the interface.

use super::status::{Code, Status};
use crate::{
    api::{
        error::{Error, clip},
        wit::{ErrorKind, Happened, RetryAdvice},
    },
    call::failure::Failure as _,
    platform::TransportFault,
};

impl Error {
    /// Converts a status to an error. `what` completes the sentence "Could not …", for example "create the sandbox".
    /// `sign_in` is appended if the code is `Unauthenticated`, for example "Check TOKEN.".
    pub fn from_status(status: &Status, what: &str, sign_in: &str) -> Error {
        let (kind, retry) = meaning(status.code());
        let help = if status.code() == Code::Unauthenticated { format!(" {sign_in}") } else { String::new() };
        let text = clip(status.message());
        let said = if text.is_empty() { String::new() } else { format!(": {text}") };
        let message = format!("Could not {what}{said}{}{help}", if said.ends_with('.') { "" } else { "." });
        let (kind, retry) = match status.fault() {
            Some(TransportFault::Forbidden) => (ErrorKind::Forbidden, RetryAdvice::Never),
            Some(TransportFault::NotSent | TransportFault::Broken) => (ErrorKind::Unavailable, RetryAdvice::Maybe),
            None => (kind, retry),
        };
        let happened = if status.may_have_happened() { Happened::Unknown } else { Happened::No };
        let service = status.fault().is_none();
        Error::new(kind, message)
            .with_happened(happened)
            .with_retry(retry)
            .with_provider(service.then(|| code_name(status.code())), service.then_some(text))
    }
}

/// Returns the kind of the error and the retry advice for a code.
fn meaning(code: Code) -> (ErrorKind, RetryAdvice) {
    use {ErrorKind as Kind, RetryAdvice as Retry};
    match code {
        Code::InvalidArgument | Code::OutOfRange => (Kind::InvalidArgument, Retry::Never),
        Code::NotFound => (Kind::NotFound, Retry::Never),
        Code::AlreadyExists => (Kind::AlreadyExists, Retry::Never),
        Code::PermissionDenied => (Kind::PermissionDenied, Retry::Never),
        Code::ResourceExhausted => (Kind::ResourceExhausted, Retry::Maybe),
        Code::FailedPrecondition | Code::Aborted => (Kind::Conflict, Retry::Never),
        Code::Unimplemented => (Kind::Unsupported, Retry::Never),
        Code::Unauthenticated => (Kind::Unauthenticated, Retry::Never),
        Code::DeadlineExceeded => (Kind::TimedOut, Retry::Maybe),
        Code::Unavailable => (Kind::Unavailable, Retry::Maybe),
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => (Kind::Internal, Retry::Maybe),
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

//! Errors for Python: one exception whose arguments are data, which the Python side turns into Inspect's exceptions.

use pyo3::{PyErr, create_exception, exceptions::PyException};
use sandbox_host::{Error, FileFault, Happened, Kind};

create_exception!(
    inspect_modal_sandbox._native,
    NativeError,
    PyException,
    "A call that did not give its result: `args` are kind, message, whether it happened (no, unknown, yes), whether the \
     same call may succeed later, and the provider's own text or an empty string."
);

/// The exception for an error of the host.
pub(crate) fn raise(error: Error) -> PyErr {
    let happened = match error.happened() {
        Happened::No => "no",
        Happened::Unknown => "unknown",
        Happened::Yes => "yes",
    };
    let (_, why, _) = error.parts();
    let why = why.to_owned();
    NativeError::new_err((kind(error.kind()), error.to_string(), happened, error.is_retryable(), why))
}

/// The exception for a specification that cannot be read.
pub(crate) fn invalid(error: serde_json::Error) -> PyErr {
    NativeError::new_err(("invalid-argument", format!("cannot read the specification: {error}"), "no", false, ""))
}

fn kind(kind: &Kind) -> String {
    let name = match kind {
        Kind::InvalidArgument => "invalid-argument",
        Kind::Unsupported => "unsupported",
        Kind::Unauthenticated => "unauthenticated",
        Kind::PermissionDenied => "permission-denied",
        Kind::NotFound => "not-found",
        Kind::AlreadyExists => "already-exists",
        Kind::Conflict => "conflict",
        Kind::ResourceExhausted => "resource-exhausted",
        Kind::BuildFailed => "build-failed",
        Kind::SandboxEnded => "sandbox-ended",
        Kind::File(fault) => match fault {
            FileFault::NotFound => "file:not-found",
            FileFault::IsADirectory => "file:is-a-directory",
            FileFault::NotADirectory => "file:not-a-directory",
            FileFault::AlreadyExists => "file:already-exists",
            FileFault::NotEmpty => "file:not-empty",
            FileFault::PermissionDenied => "file:permission-denied",
            FileFault::TooLarge => "file:too-large",
            FileFault::NoSpace => "file:no-space",
            _ => "file:other",
        },
        Kind::TimedOut => "timed-out",
        Kind::Unavailable => "unavailable",
        Kind::Forbidden => "forbidden",
        Kind::Internal => "internal",
        Kind::Other(name) => return format!("other:{name}"),
        Kind::Plugin(_) => "plugin",
        Kind::Trap(_) => "trap",
        Kind::Config => "config",
        Kind::Io(_) => "io",
        _ => "unknown",
    };
    name.to_owned()
}

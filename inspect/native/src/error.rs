//! Errors for Python: one exception whose arguments are data, which the Python side turns into Inspect's exceptions.

use pyo3::{PyErr, create_exception, exceptions::PyException};
use sandbox_host::{Error, Happened, Kind};

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
    kind.code().into_owned()
}

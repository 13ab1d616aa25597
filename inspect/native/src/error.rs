//! Errors for Python: a failed call raises `NativeError`, whose fields describe the error.
//!
//! The class itself is in `python/inspect_modal_sandbox/nativeerror.py`. A `pyclass` cannot extend an exception under the
//! stable ABI before Python 3.12, and this module is built for 3.10.

use pyo3::{PyErr, import_exception};
use sandbox_host::{Error, Happened};

import_exception!(inspect_modal_sandbox.nativeerror, NativeError);

/// Converts an error of the host library.
pub(crate) fn raise(error: Error) -> PyErr {
    let happened = match error.happened() {
        Happened::No => "no",
        Happened::Unknown => "unknown",
        Happened::Yes => "yes",
    };
    let (_, reason, _) = error.parts();
    NativeError::new_err((
        error.kind().code().into_owned(),
        error.to_string(),
        happened,
        error.is_retryable(),
        reason.to_owned(),
        error.subject().map(str::to_owned),
    ))
}

/// Returns the exception for a specification that is not valid JSON or has an unknown field.
pub(crate) fn invalid(error: serde_json::Error) -> PyErr {
    refused("invalid-argument", format!("cannot read the specification: {error}"), None)
}

/// Returns the exception for a call that this module itself refuses. Such a call has no effect, and repeating it fails
/// again.
pub(crate) fn refused(kind: &'static str, reason: String, subject: Option<String>) -> PyErr {
    NativeError::new_err((kind, reason.clone(), "no", false, reason, subject))
}

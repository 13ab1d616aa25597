//! How a failed call becomes the interface's error.

use sandbox_provider_kit::{Error, call::grpc::Status};

/// The hint for a caller that the service does not know.
const SIGN_IN: &str = "Check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET.";

/// What the service answered when asked to do `what` ("create the sandbox").
pub(crate) fn status_error(status: &Status, what: &str) -> Error {
    Error::from_status(status, what, SIGN_IN)
}

/// The error for an answer that is not the message it should be.
#[cold]
pub(crate) fn unreadable(what: &str) -> Error {
    Error::internal(format!("Could not {what}: the service's answer cannot be read."))
}

//! Converts failed calls to errors of the interface.

use sandbox_provider_kit::{Error, call::grpc::Status};

/// The hint in an error about unknown credentials.
const SIGN_IN: &str = "Check MODAL_TOKEN_ID and MODAL_TOKEN_SECRET.";

/// Converts a status to an error. `what` completes the sentence "Could not …", for example "create the sandbox".
pub(crate) fn status_error(status: &Status, what: &str) -> Error {
    Error::from_status(status, what, SIGN_IN)
}

/// Makes the error for an answer that cannot be decoded.
#[cold]
pub(crate) fn unreadable(what: &str) -> Error {
    Error::internal(format!("Could not {what}: the response of the service is malformed."))
}

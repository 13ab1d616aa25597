//! The error of this crate.

use std::io;

/// Why an engine could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine cannot run engines: the text says what is missing. A test may leave itself out.
    #[error("container engines cannot run here: {0}")]
    Missing(String),
    /// The engine did not start. The text ends with the last lines of its log.
    #[error("the engine did not start: {0}")]
    Start(String),
    /// The engine refused a request that should succeed.
    #[error("the engine answered {what} with {status}: {text}")]
    Refused {
        /// Method and path of the request.
        what: String,
        /// The status of the answer.
        status: u16,
        /// The body of the answer.
        text: String,
    },
    /// A certificate could not be created.
    #[error("could not create a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A file or a connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

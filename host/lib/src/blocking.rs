//! Runs blocking work, such as file access and compilation, outside of the async executor.

use crate::error::{Error, Kind, Result};

/// Runs blocking work on a thread of tokio's blocking pool, so that it does not block the executor.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Kind::Internal, "run a background thread", error.to_string())),
    }
}

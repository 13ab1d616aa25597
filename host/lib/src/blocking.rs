//! Work that blocks its thread: files, and the compiler.

use crate::error::{Error, Kind, Result};

/// Runs work that blocks on a thread of its own, so that it does not hold up the executor.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Kind::Internal, "finish the work of a thread", error.to_string())),
    }
}

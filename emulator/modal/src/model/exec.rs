//! A command that a client has started in a sandbox. `runtime::commands` starts it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::error::Error;
use crate::model::process::Running;

/// A command. It exists from the request on, and its start may still be in progress.
#[derive(Debug)]
pub struct Exec {
    pub(crate) started: watch::Sender<Option<Result<Arc<Running>, Error>>>,
}

impl Exec {
    /// Returns the running command; `None` if it has not been started yet or its start failed.
    pub fn started(&self) -> Option<Arc<Running>> {
        self.started.borrow().as_ref().and_then(|started| started.as_ref().ok().cloned())
    }

    /// Waits until the command has been started, and returns it.
    ///
    /// # Errors
    ///
    /// Returns the error of the start. Fails with `Kind::Internal` if the start was cancelled.
    pub async fn running(&self) -> Result<Arc<Running>, Error> {
        let mut started = self.started.subscribe();
        match started.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(running))) => Ok(running.clone()),
            Ok(Some(Err(status))) => Err(status.clone()),
            _ => Err(Error::internal("the result of the start was lost")),
        }
    }
}

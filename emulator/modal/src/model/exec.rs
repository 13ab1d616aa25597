//! A command that a client has started in a sandbox.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::error::Error;
use crate::model::process::Running;

/// A command, from the request to start it on.
#[derive(Debug)]
pub struct Exec {
    pub(crate) started: watch::Sender<Option<Result<Arc<Running>, Error>>>,
}

impl Exec {
    /// The started command, if it has been started.
    pub fn started(&self) -> Option<Arc<Running>> {
        self.started.borrow().as_ref().and_then(|started| started.as_ref().ok().cloned())
    }

    /// The started command; waits for its start.
    pub async fn running(&self) -> Result<Arc<Running>, Error> {
        let mut started = self.started.subscribe();
        match started.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(running))) => Ok(running.clone()),
            Ok(Some(Err(status))) => Err(status.clone()),
            _ => Err(Error::internal("the start was lost")),
        }
    }
}

//! Signals to commands that were given up: which are still to be sent, and which could not be.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

/// The signals that dropped handles of one provider left to be sent.
#[derive(Debug, Default)]
pub(crate) struct Signals(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// The commands that are still to be signalled.
    waiting: Vec<String>,
    /// Why a signal could not be sent; the first since [`Signals::sent`] last told.
    failed: Option<Error>,
}

/// A signal that is to be sent, until dropped.
pub(crate) struct Waiting {
    signals: watch::Sender<State>,
    target: String,
}

impl Signals {
    /// Adds a signal. `target` names the command.
    pub(crate) fn add(&self, target: String) -> Waiting {
        self.0.send_modify(|state| state.waiting.push(target.clone()));
        Waiting { signals: self.0.clone(), target }
    }

    /// Waits until no signal is left to be sent. Returns false if `grace` has passed before.
    pub(crate) async fn wait(&self, grace: Duration) -> bool {
        let mut state = self.0.subscribe();
        // The sender lives as long as this does.
        tokio::time::timeout(grace, state.wait_for(|state| state.waiting.is_empty())).await.is_ok()
    }

    /// Waits like [`Signals::wait`], and fails with what could not be sent.
    pub(crate) async fn sent(&self, grace: Duration) -> Result<()> {
        let sent = self.wait(grace).await;
        let (mut failed, mut waiting) = (None, Vec::new());
        self.0.send_if_modified(|state| {
            failed = state.failed.take();
            waiting.clone_from(&state.waiting);
            false
        });
        match failed {
            Some(error) => Err(error),
            // Between the two looks the last one may have been sent.
            None if sent || waiting.is_empty() => Ok(()),
            None => Err(Error::new(Kind::TimedOut, format!("signal {}", some_of(&waiting)), "no answer")),
        }
    }
}

impl Waiting {
    /// The command.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Notes why it could not be sent.
    pub(crate) fn failed(&self, error: Error) {
        self.signals.send_modify(|state| {
            state.failed.get_or_insert(error);
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.signals.send_modify(|state| {
            // Of two that say the same it makes no difference which.
            if let Some(at) = state.waiting.iter().position(|target| *target == self.target) {
                state.waiting.swap_remove(at);
            }
        });
    }
}

/// The first few, and how many more there are: thousands may have been given up at once.
fn some_of(names: &[String]) -> String {
    let (first, more) = names.split_at(names.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    first.join(", ") + &more
}

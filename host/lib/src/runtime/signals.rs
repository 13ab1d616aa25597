//! Signals to commands that were given up: those that are still to be sent, and the first failure.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Kind, Result};

/// The signals of one provider that dropped handles have left to be sent.
#[derive(Debug, Default)]
pub(crate) struct Signals(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// The commands that are still to be signalled.
    waiting: Vec<String>,
    /// The first error since the last [`Signals::sent`].
    failed: Option<Error>,
}

/// A signal that is being sent. Dropping it marks the signal as done.
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

    /// Waits until no signal is left to be sent. Returns false if `grace` has passed first.
    pub(crate) async fn wait(&self, grace: Duration) -> bool {
        let mut state = self.0.subscribe();
        // `wait_for` cannot fail: `self` holds the sender.
        tokio::time::timeout(grace, state.wait_for(|state| state.waiting.is_empty())).await.is_ok()
    }

    /// Waits like [`Signals::wait`]. Fails with the first error since the last call, or else with `TimedOut` if signals
    /// are left.
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
            // The last signal may have been sent after `wait` returned.
            None if sent || waiting.is_empty() => Ok(()),
            None => {
                Err(Error::new(Kind::TimedOut, format!("signal {}", some_of(&waiting)), "the provider did not respond"))
            }
        }
    }
}

impl Waiting {
    /// Returns the name of the command.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Records why the signal could not be sent. Only the first error is kept.
    pub(crate) fn failed(&self, error: Error) {
        self.signals.send_modify(|state| {
            state.failed.get_or_insert(error);
        });
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.signals.send_modify(|state| {
            // Equal entries are interchangeable.
            if let Some(at) = state.waiting.iter().position(|target| *target == self.target) {
                state.waiting.swap_remove(at);
            }
        });
    }
}

/// Lists the first three names and the number of the others, because thousands of commands may have been given up at
/// once.
fn some_of(names: &[String]) -> String {
    let (first, more) = names.split_at(names.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    first.join(", ") + &more
}

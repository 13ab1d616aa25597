//! The gate that admits the calls of a provider. Its states are open, closing (running calls may end), cancelled, and
//! closed. Signals to commands that were given up pass until it is closed, because nothing else ends these commands.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long a shutdown waits for the tasks that await cancelled calls to drop them.
const DROPPED: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum State {
    Open,
    Closing,
    Cancelled,
    Closed,
}

/// The gate of one provider.
#[derive(Debug)]
pub(crate) struct Gate {
    state: watch::Sender<State>,
    running: AtomicUsize,
    /// Number of handles that will leave a signal to be sent when they are dropped. They are not calls, but a shutdown
    /// waits for them.
    staying: AtomicUsize,
    left: Notify,
}

impl Default for Gate {
    fn default() -> Self {
        Gate {
            state: watch::Sender::new(State::Open),
            running: AtomicUsize::new(0),
            staying: AtomicUsize::new(0),
            left: Notify::new(),
        }
    }
}

/// A running call. Dropping it reports its end to the gate.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Gate);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.left.notify_waiters();
        }
    }
}

impl Gate {
    /// Admits a call. Returns `None` if the gate is not open.
    pub(crate) fn enter(&self) -> Option<Running<'_>> {
        // The call is counted before the state is read, so that either the shutdown sees this call, or this call sees
        // the shutdown.
        self.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(self);
        (*self.state.borrow() == State::Open).then_some(running)
    }

    /// Returns whether a signal may still be sent.
    pub(crate) fn lets_signals_pass(&self) -> bool {
        *self.state.borrow() != State::Closed
    }

    /// Waits until calls are to be cancelled. With `signal`, waits until the gate is closed.
    pub(crate) async fn cancelled(&self, signal: bool) {
        let end = if signal { State::Closed } else { State::Cancelled };
        // `wait_for` cannot fail: `self` holds the sender.
        let _ = self.state.subscribe().wait_for(|state| *state >= end).await;
    }

    /// Makes a shutdown wait until [`leave`](Self::leave) is called.
    pub(crate) fn stay(&self) {
        self.staying.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends the effect of one [`stay`](Self::stay).
    pub(crate) fn leave(&self) {
        if self.staying.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.left.notify_waiters();
        }
    }

    /// Refuses all further calls except signals, waits for the running calls, and cancels those that are running after
    /// `grace`. Returns the number of cancelled calls.
    pub(crate) async fn close(&self, grace: Duration) -> usize {
        self.advance(State::Closing);
        let ended = tokio::time::timeout(grace, self.empty()).await.is_ok();
        let cut = if ended { 0 } else { self.running.load(Ordering::Acquire) };
        self.advance(State::Cancelled);
        // A cancelled call is dropped when its caller polls it next. A call that is not polled any more cannot be
        // waited for.
        let _ = tokio::time::timeout(DROPPED, self.empty()).await;
        cut
    }

    /// Closes the gate for signals too.
    pub(crate) fn shut(&self) {
        self.advance(State::Closed);
    }

    fn advance(&self, to: State) {
        self.state.send_if_modified(|state| {
            let further = *state < to;
            if further {
                *state = to;
            }
            further
        });
    }

    async fn empty(&self) {
        loop {
            let left = self.left.notified();
            if self.running.load(Ordering::Acquire) == 0 && self.staying.load(Ordering::Acquire) == 0 {
                return;
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_end_by_themselves_or_are_cancelled() {
        let gate = Gate::default();
        let inside = gate.enter().unwrap();
        let (cut, ()) = tokio::join!(gate.close(Duration::from_millis(10)), async {
            gate.cancelled(false).await;
            assert!(gate.enter().is_none());
            drop(inside);
        });
        assert_eq!(cut, 1);
        assert_eq!(gate.close(Duration::ZERO).await, 0);
    }

    #[tokio::test]
    async fn signals_pass_until_it_is_shut() {
        let gate = Gate::default();
        gate.stay();
        let close = gate.close(Duration::ZERO);
        let (cut, ()) = tokio::join!(close, async {
            gate.cancelled(false).await;
            assert!(gate.enter().is_none() && gate.lets_signals_pass());
            gate.leave();
        });
        assert_eq!(cut, 0, "what stays is no call");
        gate.shut();
        gate.cancelled(true).await;
        assert!(!gate.lets_signals_pass());
        // A closed gate stays closed.
        gate.close(Duration::ZERO).await;
        assert!(!gate.lets_signals_pass());
    }

    #[tokio::test]
    async fn those_that_end_in_time_are_let_go() {
        let gate = Gate::default();
        let inside = gate.enter().unwrap();
        let (cut, ()) = tokio::join!(gate.close(Duration::from_secs(60)), async {
            // The gate is closing at this point, because `join!` polls its futures in order.
            assert!(gate.enter().is_none());
            drop(inside);
        });
        assert_eq!(cut, 0);
    }
}

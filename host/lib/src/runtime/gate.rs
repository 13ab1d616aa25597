//! Whether calls may run: open, closing (those under way may end), cancelled, or closed. Until it is closed, signals to
//! commands that were given up still pass: nothing else ends those.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How long calls that were cancelled may take to be dropped by the tasks that await them.
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
    /// What has to be waited for, and is no call: a handle that leaves a signal to be sent when it is dropped.
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

/// A call under way.
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
    /// Lets a call in, unless the gate is closing.
    pub(crate) fn enter(&self) -> Option<Running<'_>> {
        // Counted before looking: either the closing of the gate sees this call, or this call sees the closed gate.
        self.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(self);
        (*self.state.borrow() == State::Open).then_some(running)
    }

    /// Whether a signal may still be sent.
    pub(crate) fn lets_signals_pass(&self) -> bool {
        *self.state.borrow() != State::Closed
    }

    /// Ends when calls are to be cancelled; signals when nothing passes any more.
    pub(crate) async fn cancelled(&self, signal: bool) {
        let end = if signal { State::Closed } else { State::Cancelled };
        // The sender lives as long as this does.
        let _ = self.state.subscribe().wait_for(|state| *state >= end).await;
    }

    /// Something is there that has to be waited for.
    pub(crate) fn stay(&self) {
        self.staying.fetch_add(1, Ordering::AcqRel);
    }

    /// It is gone.
    pub(crate) fn leave(&self) {
        if self.staying.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.left.notify_waiters();
        }
    }

    /// Lets nothing in any more but signals, waits for the calls inside, and cancels those that take longer than `grace`.
    /// Returns how many there were to be cancelled.
    pub(crate) async fn close(&self, grace: Duration) -> usize {
        self.advance(State::Closing);
        let ended = tokio::time::timeout(grace, self.empty()).await.is_ok();
        let cut = if ended { 0 } else { self.running.load(Ordering::Acquire) };
        self.advance(State::Cancelled);
        // A call is dropped when its caller polls it next. One that is not polled any more cannot be waited for.
        let _ = tokio::time::timeout(DROPPED, self.empty()).await;
        cut
    }

    /// Lets nothing pass any more.
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
        // Once shut it stays so.
        gate.close(Duration::ZERO).await;
        assert!(!gate.lets_signals_pass());
    }

    #[tokio::test]
    async fn those_that_end_in_time_are_let_go() {
        let gate = Gate::default();
        let inside = gate.enter().unwrap();
        let (cut, ()) = tokio::join!(gate.close(Duration::from_secs(60)), async {
            // The gate is closing by now: both are polled in turn.
            assert!(gate.enter().is_none());
            drop(inside);
        });
        assert_eq!(cut, 0);
    }
}

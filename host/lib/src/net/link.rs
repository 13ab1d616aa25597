//! What one instance and its requests share: whether it lives, how patient it is, and why requests failed.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::clip;

/// How long the requests of a call may take until their answer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A look-up or a small change: the service answers soon, or something is wrong.
    Prompt,
    /// It can take a while, which is said.
    Told,
    /// It waits for something to happen.
    #[default]
    Held,
}

/// What one instance and its requests share.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The instance is gone: its bodies have not ended, they were cut off.
    pub(crate) dead: AtomicBool,
    in_flight: AtomicUsize,
    /// Requests that were retries.
    pub(crate) repeated: AtomicU64,
    notes: Mutex<Vec<String>>,
    blame: Mutex<Option<String>>,
    /// Of the call that runs now, and how long a prompt answer may take.
    patience: Mutex<(Patience, Duration)>,
}

impl Link {
    /// Counts a request until the slot is dropped. Returns `None` if `most` are under way.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<Slot> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(self.clone());
        (before < most).then_some(slot)
    }

    /// What holds for the requests of the call that runs, and how long a prompt answer may take.
    pub(super) fn patience(&self) -> (Patience, Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what holds for the requests of the call that begins.
    pub(crate) fn expect(&self, patience: Patience, prompt: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = (patience, prompt);
    }

    /// Remembers why something failed, in words that the component's error code cannot carry.
    pub(super) fn note(&self, why: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // The last few tell the story; a component in a loop must not fill memory with them.
        if notes.len() >= 4 {
            notes.remove(0);
        }
        notes.push(clip(why, 1 << 10));
    }

    /// Remembers a cause on this side: what is noted after it is its consequence.
    pub(super) fn blame(&self, why: String) {
        self.blame.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Takes the cause, or else the last note, and forgets the others.
    pub(crate) fn take_note(&self) -> Option<Note> {
        let last = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner)).pop();
        let cause = self.blame.lock().unwrap_or_else(PoisonError::into_inner).take();
        cause.map(Note::Limit).or(last.map(Note::Network))
    }
}

/// What the host knows of a failure.
pub(crate) enum Note {
    /// A limit of this host was the cause; whatever the component saw is its consequence.
    Limit(String),
    /// What happened on the way.
    Network(String),
}

impl Note {
    pub(crate) fn into_text(self) -> String {
        let (Note::Limit(text) | Note::Network(text)) = self;
        text
    }
}

/// Counts a request for as long as it is under way.
pub(super) struct Slot(Arc<Link>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

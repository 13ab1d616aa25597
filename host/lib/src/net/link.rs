//! The state that an instance shares with its requests: whether it lives, its time limits, and the causes of failures.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::clip;

/// How long the requests of a call may take until their responses begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Look-ups and small changes, which the service answers soon. A late response is an error.
    Prompt,
    /// Calls that can take a while. The user is informed.
    Told,
    /// Calls that wait for an event.
    #[default]
    Held,
}

/// The state that an instance shares with its requests.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Whether the instance was dropped. If so, its bodies have not ended regularly.
    pub(crate) dead: AtomicBool,
    in_flight: AtomicUsize,
    /// Number of retried requests.
    pub(crate) repeated: AtomicU64,
    notes: Mutex<Vec<String>>,
    blame: Mutex<Option<String>>,
    /// The first attempt to use files or sockets in the current call.
    refused: Mutex<Option<String>>,
    /// The patience of the current call, and the time limit for prompt responses.
    patience: Mutex<(Patience, Duration)>,
}

impl Link {
    /// Counts a request until the slot is dropped. Returns `None` if `most` requests are in progress.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<Slot> {
        let before = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let slot = Slot(self.clone());
        (before < most).then_some(slot)
    }

    /// Returns the patience of the current call, and the time limit for prompt responses.
    pub(super) fn patience(&self) -> (Patience, Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the patience of the call that begins, and the time limit for prompt responses.
    pub(crate) fn expect(&self, patience: Patience, prompt: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = (patience, prompt);
    }

    /// Records the cause of a failure as text, because the error code for the component cannot contain it.
    pub(super) fn note(&self, why: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the last few are kept, so that a component that fails in a loop uses no memory.
        if notes.len() >= 4 {
            notes.remove(0);
        }
        notes.push(clip(why, 1 << 10));
    }

    /// Records a limit of this host as the cause of a failure. Later notes are its consequences. Only the first cause
    /// is kept.
    pub(super) fn blame(&self, why: String) {
        self.blame.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Records an attempt to use files or sockets, which were refused. Only the first one of a call is kept.
    pub(crate) fn refused(&self, what: &str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get_or_insert_with(|| clip(what.to_owned(), 256));
    }

    /// Takes the recorded attempt as a note for the error of the call.
    pub(crate) fn take_refused(&self) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused.map(|what| format!("the plugin tried {what}, and plugins have no files and no sockets"))
    }

    /// Takes the recorded limit, or else the last note, and discards the others.
    pub(crate) fn take_note(&self) -> Option<Note> {
        let last = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner)).pop();
        let cause = self.blame.lock().unwrap_or_else(PoisonError::into_inner).take();
        cause.map(Note::Limit).or(last.map(Note::Network))
    }
}

/// What the host knows about a failure.
pub(crate) enum Note {
    /// A limit of this host was exceeded, which caused the failure that the component saw.
    Limit(String),
    /// A failure of the network or of the peer.
    Network(String),
}

impl Note {
    pub(crate) fn into_text(self) -> String {
        let (Note::Limit(text) | Note::Network(text)) = self;
        text
    }
}

/// Counts a request while it is in progress.
pub(super) struct Slot(Arc<Link>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

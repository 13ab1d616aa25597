//! What a call is, whichever function of the interface it is of.

use std::pin::Pin;
use std::time::Duration;

use wasmtime::Store;

use crate::interface::Bound;
use crate::net::link::Patience;
use crate::runtime::store::State;
use crate::types;

/// What a call is, for limits and messages.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Continues "cannot …".
    pub(crate) what: String,
    /// How long it may take.
    pub(crate) time: CallTime,
    /// Whether it changes something at the provider, so that an interrupted one may have happened.
    pub(crate) effect: bool,
    /// The exec that it is about, for the log.
    pub(crate) exec: Option<String>,
    /// How long its requests may take until they are answered.
    pub(crate) patience: Patience,
    /// It signals a command that was given up, which is done even while the provider is shut down.
    pub(crate) signal: bool,
}

/// How long a call may take, waiting included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallTime {
    /// [`Limits::call_time`](crate::Limits::call_time).
    Usual,
    /// This long.
    AtMost(Duration),
    /// As long as what it waits for.
    Unlimited,
}

impl Call {
    /// A call that changes nothing.
    pub(crate) fn reading(what: impl Into<String>) -> Call {
        Call {
            what: what.into(),
            time: CallTime::Usual,
            effect: false,
            exec: None,
            patience: Patience::Held,
            signal: false,
        }
    }

    /// A call that changes something.
    pub(crate) fn acting(what: impl Into<String>) -> Call {
        Call {
            what: what.into(),
            time: CallTime::Usual,
            effect: true,
            exec: None,
            patience: Patience::Held,
            signal: false,
        }
    }

    /// The call is about this exec.
    pub(crate) fn about(self, exec: &str) -> Call {
        Call { exec: Some(exec.to_owned()), ..self }
    }

    /// The service answers it at once, or something is wrong.
    pub(crate) fn prompt(self) -> Call {
        Call { patience: Patience::Prompt, ..self }
    }

    /// The service may take a while for it, which the user is told of.
    pub(crate) fn told(self) -> Call {
        Call { patience: Patience::Told, ..self }
    }

    /// The call waits for something that takes its time: so long at most, or as long as it takes.
    pub(crate) fn within(self, time: Option<Duration>) -> Call {
        Call { time: time.map_or(CallTime::Unlimited, CallTime::AtMost), ..self }
    }

    /// The call signals a command that was given up.
    pub(crate) fn signalling(self) -> Call {
        Call { signal: true, ..self }
    }
}

type Answer<'a, R> = Pin<Box<dyn Future<Output = wasmtime::Result<Result<R, types::Error>>> + Send + 'a>>;

/// The part of a call that knows which function it is.
pub(crate) trait Body<R>: for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, R> + Send {}
impl<R, F> Body<R> for F where F: for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, R> + Send {}

//! The properties of a call to a plugin that do not depend on the called function.

use std::any::Any;
use std::pin::Pin;
use std::time::Duration;

use wasmtime::Store;

use crate::interface::Bound;
use crate::net::link::Patience;
use crate::runtime::store::State;
use crate::types;

/// The properties of a call: its time limits, and its description for messages.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The operation. Error messages put it after "cannot".
    pub(crate) what: String,
    /// The time limit of the call.
    pub(crate) time: CallTime,
    /// Whether the call changes something at the provider. If so, an interrupted call may have taken effect.
    pub(crate) effect: bool,
    /// The exec that the call is about, for the log.
    pub(crate) exec: Option<String>,
    /// How long the requests of the call may take until their answers begin.
    pub(crate) patience: Patience,
    /// Whether the call signals a command that was given up. Such calls run even during a shutdown.
    pub(crate) signal: bool,
}

/// The time limit of a call, waiting included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallTime {
    /// [`Limits::call_time`](crate::Limits::call_time).
    Usual,
    /// This duration.
    AtMost(Duration),
    /// No limit, because the event that the call waits for has none.
    Unlimited,
}

impl Call {
    /// Creates a call that changes nothing at the provider.
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

    /// Creates a call that changes something at the provider.
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

    /// Sets the exec that the call is about.
    pub(crate) fn about(self, exec: &str) -> Call {
        Call { exec: Some(exec.to_owned()), ..self }
    }

    /// Marks a call that the service answers at once, so that a late answer is an error.
    pub(crate) fn prompt(self) -> Call {
        Call { patience: Patience::Prompt, ..self }
    }

    /// Marks a call that the service may answer late, about which the user is informed.
    pub(crate) fn told(self) -> Call {
        Call { patience: Patience::Told, ..self }
    }

    /// Sets the time limit of a call that waits for an event. `None` means no limit.
    pub(crate) fn within(self, time: Option<Duration>) -> Call {
        Call { time: time.map_or(CallTime::Unlimited, CallTime::AtMost), ..self }
    }

    /// Marks a call that signals a command that was given up.
    pub(crate) fn signalling(self) -> Call {
        Call { signal: true, ..self }
    }
}

/// The future of one function of the interface.
pub(crate) type Answer<'a, R> = Pin<Box<dyn Future<Output = wasmtime::Result<Result<R, types::Error>>> + Send + 'a>>;

/// The part of a call that calls one function of the interface.
pub(crate) trait Body<R>:
    for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, R> + Send + 'static
{
}
impl<R, F> Body<R> for F where F: for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, R> + Send + 'static {}

/// A reply of any function of the interface.
pub(crate) type Reply = Box<dyn Any + Send>;

/// A [`Body`] whose reply has any type.
pub(crate) type AnyBody = Box<dyn for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, Reply> + Send>;

/// Converts a body, so that the code that runs it exists once and not for each type of reply.
pub(crate) fn erased<R: Send + 'static>(body: impl Body<R>) -> AnyBody {
    Box::new(move |bound, store| {
        Box::pin(async move { Ok(body(bound, store).await?.map(|reply| Box::new(reply) as Reply)) })
    })
}

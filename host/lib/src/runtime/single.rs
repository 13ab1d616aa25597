//! The single instance of a plugin that keeps its state in memory (`instances = "one"` in its manifest).
//!
//! The calls run one after another, in the order in which they were made. The instance is made by the first call and lives
//! as long as the provider, unless a call crashes or exceeds its time limit: then its state is lost, and the next call
//! makes a new one. A call is not interrupted when its caller drops it, because that would end the instance too. It runs
//! to its end in the background, and its result is dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Mutex, OwnedMutexGuard};
use tracing::Instrument as _;

use crate::error::{Error, Happened, Kind, Result};
use crate::runtime::call::{Body, Call};
use crate::runtime::instance::{Instance, Outcome};
use crate::runtime::metrics;
use crate::runtime::runner::Runner;

/// The place of the instance. It is empty before the first call and after a crash. The lock is fair.
#[derive(Clone, Default)]
pub(crate) struct Single(Arc<Mutex<Option<Instance>>>);

impl Single {
    /// Runs one call, after all calls that were made before.
    pub(crate) async fn call<R>(&self, runner: &Arc<Runner>, call: Call, body: impl Body<R>) -> Result<R>
    where
        R: Send + 'static,
    {
        let mut place = self.0.clone().lock_owned().await;
        let (runner, tasks) = (runner.clone(), runner.tasks.clone());
        let (signal, what) = (call.signal, call.what.clone());
        let work = async move {
            tokio::select! {
                biased;
                // After the end of the provider the state is of no use, and the call may be one that never ends.
                () = runner.gate.cancelled(signal) => {
                    *place = None;
                    let happened = if call.effect { Happened::Unknown } else { Happened::No };
                    Err(Error::new(Kind::Conflict, call.what, "the provider was shut down").with_happened(happened))
                }
                result = answer(&runner, &mut place, &call, body) => result,
            }
        };
        match tasks.spawn(work.in_current_span()).await {
            Ok(result) => result,
            // The runtime was shut down.
            Err(error) => Err(Error::new(Kind::Conflict, what, error.to_string())),
        }
    }

    /// Drops the instance, unless a call is running. That one ends with the provider.
    pub(crate) fn clear(&self) {
        if let Ok(mut place) = self.0.try_lock() {
            *place = None;
        }
    }

    /// Returns 1 if there is an idle instance, and 0 otherwise.
    pub(crate) fn len(&self) -> usize {
        self.0.try_lock().map_or(0, |place| usize::from(place.is_some()))
    }
}

async fn answer<R>(
    runner: &Runner,
    place: &mut OwnedMutexGuard<Option<Instance>>,
    call: &Call,
    body: impl Body<R>,
) -> Result<R> {
    // During the call the place is empty, so that an interrupted call leaves none behind.
    let mut instance = match place.take() {
        Some(instance) => instance,
        None => runner.instance(&None).await?,
    };
    let outcome = instance.call(call, &runner.limits, body).await;
    metrics::note_repeated(instance.take_repeated());
    runner.metrics.compute_micros.fetch_add(instance.computed().as_micros() as u64, Ordering::Relaxed);
    match outcome {
        Outcome::Answered(result) => {
            **place = Some(instance);
            result
        }
        Outcome::Broken(error) => {
            Err(error.with_hint("the plugin kept its state in the instance that ended: it is lost"))
        }
    }
}

//! An instance of a component. Runs the calls to it with their limits, and converts traps to errors.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::ResourceTable;
use wasmtime::{Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::error::{Error, Happened, Kind, Result, Retry, TrapCause, clip};
use crate::interface::Bound;
use crate::net::hook::{Hooks, Net};
use crate::net::link::{Link, Note};
use crate::plugin::engine::{self, Ticking};
use crate::runtime::call::{Body, Call, CallTime};
use crate::runtime::limits::Limits;
use crate::runtime::link::Linked;
use crate::runtime::meter::{Meter, Metered};
use crate::runtime::printed::{Printed, last_words};
use crate::runtime::store::{Limiter, State};

/// Most data that a component can pass to the host in one call, in bytes. The largest list of the interface has 64 MiB.
const HOSTCALL_BYTES: usize = 80 << 20;

/// A live instance. Serves one call at a time. Dropping it during a call cancels the call and its open requests.
pub(crate) struct Instance {
    // Dropped before the store, so that the request bodies that this interrupts know that they are incomplete.
    link: Dying,
    bound: Bound,
    store: Store<State>,
    meter: Arc<Meter>,
    printed: Printed,
    /// Number of calls served.
    pub(crate) age: u64,
    /// Whether the instance has imported the cache of another one.
    pub(crate) informed: bool,
    permit: OwnedSemaphorePermit,
}

struct Dying(Arc<Link>);

impl Drop for Dying {
    fn drop(&mut self) {
        self.0.dead.store(true, Ordering::Release);
    }
}

/// How a call ended. After `Broken` the instance is unusable.
pub(crate) enum Outcome<R> {
    Answered(Result<R>),
    Broken(Error),
}

impl Instance {
    pub(crate) async fn new(
        plugin: &Linked,
        net: &Arc<Net>,
        env: &[(String, String)],
        limits: &Limits,
        permit: OwnedSemaphorePermit,
    ) -> Result<Instance> {
        let shared = engine::shared()?;
        let link = Arc::new(Link::default());
        let printed = Printed::default();
        let meter = Arc::new(Meter::default());
        let wasi = WasiCtx::builder().envs(env).stdout(printed.clone()).stderr(printed.clone()).build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.resources);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(limits.header_bytes);
        let state = State {
            table,
            wasi,
            http,
            hooks: Hooks { net: net.clone(), link: link.clone() },
            limiter: Limiter { memory: limits.memory, used: 0, table: limits.table_elements, refused: false },
            meter: meter.clone(),
        };
        let mut store = Store::new(&shared.engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_epoch_deadline(1);
        let budget = limits.compute_time;
        store.epoch_deadline_callback(move |store| {
            if store.data().meter.used() > budget {
                return Err(wasmtime::Error::from(OverBudget));
            }
            Ok(UpdateDeadline::Yield(1))
        });
        let dying = Dying(link);
        let made = {
            let _ticking = shared.ticking();
            let making = plugin.pre.instantiate(&mut store);
            tokio::time::timeout(limits.call_time, Metered { meter: &meter, inner: std::pin::pin!(making) }).await
        };
        let what = || format!("start the plugin {}", plugin.loaded.label);
        let bound = match made {
            Ok(Ok(bound)) => bound,
            Ok(Err(error)) => return Err(trap(what(), error, &store, &printed, limits, false)),
            Err(_) => return Err(over_time(what(), limits.call_time, &printed, false)),
        };
        Ok(Instance { link: dying, bound, store, meter, printed, age: 0, informed: false, permit })
    }

    /// Drops the instance and returns its permit, for a new instance.
    pub(crate) fn into_permit(self) -> OwnedSemaphorePermit {
        self.permit
    }

    /// Runs one call to its end. Dropping the future during the call makes the instance unusable.
    pub(crate) async fn call<R>(&mut self, call: &Call, limits: &Limits, body: impl Body<R>) -> Outcome<R> {
        self.age += 1;
        self.meter.reset();
        self.link.0.take_note();
        self.link.0.take_refused();
        self.link.0.expect(call.patience, limits.answer_time);
        self.store.set_epoch_deadline(1);
        let ended = {
            let _ticking: Option<Ticking> = engine::shared().ok().map(|shared| shared.ticking());
            let answer = Metered { meter: &self.meter, inner: body(&self.bound, &mut self.store) };
            let limit = match call.time {
                CallTime::Usual => Some(limits.call_time),
                CallTime::AtMost(limit) => Some(limit),
                CallTime::Unlimited => None,
            };
            match limit {
                Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| limit),
                None => Ok(answer.await),
            }
        };
        match ended {
            Ok(Ok(Ok(result))) => Outcome::Answered(Ok(result)),
            Ok(Ok(Err(error))) => {
                let error = Error::from_provider(call.what.clone(), error);
                let network =
                    matches!(error.kind(), Kind::Unavailable | Kind::Forbidden | Kind::TimedOut | Kind::Internal);
                let note = self.link.0.take_note().filter(|_| network);
                let error = match note {
                    Some(Note::Limit(cause)) => error.with_limit("body_bytes", cause),
                    Some(Note::Network(note)) => error.with_note(&note),
                    None => error,
                };
                Outcome::Answered(Err(match self.link.0.take_refused() {
                    Some(note) => error.with_note(&note),
                    None => error,
                }))
            }
            Ok(Err(error)) => {
                Outcome::Broken(trap(call.what.clone(), error, &self.store, &self.printed, limits, call.effect))
            }
            Err(limit) => Outcome::Broken(over_time(call.what.clone(), limit, &self.printed, call.effect)),
        }
    }

    /// Returns the number of retried requests since the last call of this function.
    pub(crate) fn take_repeated(&self) -> u64 {
        self.link.0.repeated.swap(0, Ordering::Relaxed)
    }

    /// Returns the computing time of the last call.
    pub(crate) fn computed(&self) -> Duration {
        self.meter.used()
    }
}

fn over_time(what: String, limit: Duration, printed: &Printed, effect: bool) -> Error {
    Error::new(Kind::Trap(TrapCause::CallTime), what, format!("the plugin did not finish the call within {limit:?}"))
        .with_happened(if effect { Happened::Unknown } else { Happened::No })
        .with_retry(Retry::Maybe)
        .with_trace(String::new(), printed.text())
}

fn trap(
    what: String,
    error: wasmtime::Error,
    store: &Store<State>,
    printed: &Printed,
    limits: &Limits,
    effect: bool,
) -> Error {
    let (cause, why) = if error.is::<OverBudget>() {
        let why = format!("the plugin used more than {:?} of CPU time and was stopped", limits.compute_time);
        (TrapCause::ComputeTime, why)
    } else if store.data().limiter.refused {
        let why = format!(
            "the plugin exceeded its limit of {} MiB of memory ({} table elements) and was stopped",
            limits.memory >> 20,
            limits.table_elements
        );
        (TrapCause::Memory, why)
    } else if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        (TrapCause::Fault, format!("the plugin exited with code {}", exit.0))
    } else {
        let reason = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => clip(error.root_cause().to_string(), 4 << 10),
        };
        (TrapCause::Fault, format!("the plugin crashed: {reason}"))
    };
    let why = match store.data().hooks.link.take_refused() {
        Some(note) if cause == TrapCause::Fault => format!("{why} ({note})"),
        _ => why,
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
    let printed = printed.text();
    // A panic prints its place and its message before it traps, which is more informative than "unreachable".
    let words = last_words(&printed);
    let why = match cause {
        TrapCause::Fault if !words.is_empty() => format!("{why} (it last printed: {})", clip(words, 800)),
        _ => why,
    };
    tracing::warn!(%what, %why, backtrace, printed, "plugin stopped");
    Error::new(Kind::Trap(cause), what, why)
        .with_happened(if effect { Happened::Unknown } else { Happened::No })
        .with_trace(backtrace, printed)
}

#[derive(Debug, thiserror::Error)]
#[error("CPU time limit exceeded")]
struct OverBudget;

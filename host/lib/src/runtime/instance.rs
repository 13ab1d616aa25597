//! One instance of a component: its state, what it is linked to, its limits, and how a call into it runs and ends.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{ResourceLimiter, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::error::{Error, Happened, Kind, Result, Retry, TrapCause, clip};
use crate::interface::Bound;
use crate::net::hook::{Hooks, Link, Net, Note, Patience};
use crate::plugin::engine::{Ticking, runtime};
use crate::plugin::load::Plugin;
use crate::types;

/// What a plugin may use. The defaults suit a provider that moves large files in pieces.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Linear memory of one instance, in bytes; at most 1 GiB. Default 256 MiB: three pieces of 64 MiB, the largest
    /// that the interface allows, and what else there is.
    pub memory: usize,
    /// Elements of one instance's tables. Default 20,000; a component of 1 MiB has some thousands.
    pub table_elements: usize,
    /// How long one call may take, waiting included. Default 15 minutes: the longest wait of the interface is ten.
    /// A `run` may take so much longer than its command's time limit, and has no end where there is none; a snapshot of
    /// memory may take an hour.
    pub call_time: Duration,
    /// How long a service may take until it begins to answer a request of a call that is usually answered at once: look-ups,
    /// lists, tags, terminations. Default one minute; other calls may wait for as long as they last.
    pub answer_time: Duration,
    /// How long one call may compute. Default 30 seconds: a gigabyte passes through in one.
    pub compute_time: Duration,
    /// Handles (requests, bodies, streams, pollables) that one instance may hold. Default 4,096.
    pub resources: usize,
    /// Bytes of headers that the host keeps for the component in one object. Default 128 KiB.
    pub header_bytes: usize,
    /// Bytes of one body, in either direction; bodies stream, so this is no memory. Default 8 GiB: more than the
    /// largest file that can be moved.
    pub body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 256 << 20,
            table_elements: 20_000,
            call_time: Duration::from_secs(15 * 60),
            answer_time: Duration::from_secs(60),
            compute_time: Duration::from_secs(30),
            resources: 4096,
            header_bytes: 128 << 10,
            body_bytes: 8 << 30,
        }
    }
}

/// How much of what a component prints is kept for the error when it is stopped.
const KEPT_OUTPUT: usize = 64 << 10;

/// Data that a component can hand to the host at once. The interface's largest list is 64 MiB.
const HOSTCALL_BYTES: usize = 80 << 20;

/// What the store holds.
pub(crate) struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    limiter: Limiter,
    meter: Arc<Meter>,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// The packages and interfaces that a plugin is linked to: no files, no sockets.
const LINKED: [&str; 19] = [
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:random/random",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/stderr",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:cli/terminal-stderr",
    "wasi:http/types",
];

/// Whether an import of this name is given. An interface of our own that only has types counts too.
pub(crate) fn is_linked(import: &str) -> bool {
    let name = import.split('@').next().unwrap_or(import);
    LINKED.contains(&name) || name == "wasi:http/outgoing-handler" || name == "harness:sandbox/types"
}

/// Links what [`is_linked`] names.
pub(crate) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::cli::{WasiCli, WasiCliView};
    use wasmtime_wasi::p2::bindings::{cli, random};
    use wasmtime_wasi::random::WasiRandom;

    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    random::insecure::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.wasi.random())?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    Ok(())
}

/// A live instance. Serves one call at a time; dropping it in mid-call cancels the call and all it had open.
pub(crate) struct Instance {
    // Dropped first, so that bodies that are cut off know it.
    link: Dying,
    bound: Bound,
    store: Store<State>,
    meter: Arc<Meter>,
    printed: Printed,
    /// Calls served.
    pub(crate) age: u64,
    /// Whether it took over another one's cache.
    pub(crate) informed: bool,
    permit: OwnedSemaphorePermit,
}

struct Dying(Arc<Link>);

impl Drop for Dying {
    fn drop(&mut self) {
        self.0.dead.store(true, Ordering::Release);
    }
}

/// What a call is, for limits and messages.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Continues "cannot …".
    pub(crate) what: String,
    /// None: bounded by what it waits for.
    pub(crate) time: Option<Duration>,
    /// Whether it changes something at the provider, so that an interrupted one may have happened.
    pub(crate) effect: bool,
    /// The exec that it is about, for whoever follows what goes on.
    pub(crate) exec: Option<String>,
    /// How long its requests may take until they are answered.
    pub(crate) patience: Patience,
    /// It signals a command that was given up, which is done even while the provider is shut down.
    pub(crate) signal: bool,
}

type Answer<'a, R> = Pin<Box<dyn Future<Output = wasmtime::Result<Result<R, types::Error>>> + Send + 'a>>;

/// The part of a call that knows which function it is.
pub(crate) trait Body<R>: for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, R> + Send {}
impl<R, F> Body<R> for F where F: for<'a> FnOnce(&'a Bound, &'a mut Store<State>) -> Answer<'a, R> + Send {}

/// How a call ended. After `Broken` the instance cannot be used again.
pub(crate) enum Outcome<R> {
    Answered(Result<R>),
    Broken(Error),
}

impl Instance {
    pub(crate) async fn new(
        plugin: &Plugin,
        net: &Arc<Net>,
        env: &[(String, String)],
        limits: &Limits,
        permit: OwnedSemaphorePermit,
    ) -> Result<Instance> {
        let runtime = runtime()?;
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
            limiter: Limiter { memory: limits.memory, table: limits.table_elements, refused: false },
            meter: meter.clone(),
        };
        let mut store = Store::new(&runtime.engine, state);
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
            let _ticking = runtime.ticking();
            let making = plugin.inner.pre.instantiate(&mut store);
            tokio::time::timeout(limits.call_time, Metered { meter: &meter, inner: std::pin::pin!(making) }).await
        };
        let what = || format!("start the plugin {}", plugin.label());
        let bound = match made {
            Ok(Ok(bound)) => bound,
            Ok(Err(error)) => return Err(trap(what(), error, &store, &printed, limits, false)),
            Err(_) => return Err(over_time(what(), limits.call_time, &printed, false)),
        };
        Ok(Instance { link: dying, bound, store, meter, printed, age: 0, informed: false, permit })
    }

    /// Its place, for another one.
    pub(crate) fn into_permit(self) -> OwnedSemaphorePermit {
        self.permit
    }

    /// Runs one call to its end. Dropping the future in mid-call leaves the instance unusable: drop it too.
    pub(crate) async fn call<R>(&mut self, call: &Call, limits: &Limits, body: impl Body<R>) -> Outcome<R> {
        self.age += 1;
        self.meter.reset();
        self.link.0.take_note();
        self.link.0.expect(call.patience, limits.answer_time);
        self.store.set_epoch_deadline(1);
        let ended = {
            let _ticking: Option<Ticking> = runtime().ok().map(|runtime| runtime.ticking());
            let answer = Metered { meter: &self.meter, inner: body(&self.bound, &mut self.store) };
            match call.time {
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
                Outcome::Answered(Err(match note {
                    Some(Note::Limit(cause)) => error.with_limit(cause),
                    Some(Note::Network(note)) => error.with_note(&note),
                    None => error,
                }))
            }
            Ok(Err(error)) => {
                Outcome::Broken(trap(call.what.clone(), error, &self.store, &self.printed, limits, call.effect))
            }
            Err(limit) => Outcome::Broken(over_time(call.what.clone(), limit, &self.printed, call.effect)),
        }
    }

    /// Takes the number of retries among the requests since it was last asked.
    pub(crate) fn take_repeated(&self) -> u64 {
        self.link.0.repeated.swap(0, Ordering::Relaxed)
    }

    /// Time that the last call computed.
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
        let why = format!("the plugin computed for more than {:?} and was stopped", limits.compute_time);
        (TrapCause::ComputeTime, why)
    } else if store.data().limiter.refused {
        let why = format!(
            "the plugin was refused memory beyond its limit of {} MiB ({} table elements) and stopped",
            limits.memory >> 20,
            limits.table_elements
        );
        (TrapCause::Memory, why)
    } else if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        (TrapCause::Fault, format!("the plugin ended itself with exit code {}", exit.0))
    } else {
        let reason = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => clip(error.root_cause().to_string(), 4 << 10),
        };
        (TrapCause::Fault, format!("the plugin crashed: {reason}"))
    };
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(ToString::to_string).unwrap_or_default();
    let printed = printed.text();
    // A panic prints where it is and its message before it traps; that says more than "unreachable".
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

/// The last panic among what was printed, in one line, or the last line.
fn last_words(printed: &str) -> String {
    let lines: Vec<_> = printed
        .lines()
        .map(str::trim)
        // What Rust says below every panic.
        .filter(|line| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE="))
        .collect();
    let panic = lines.iter().rposition(|line| line.starts_with("thread '") && line.contains(" panicked at "));
    lines[panic.unwrap_or(lines.len().saturating_sub(1))..].join(" ")
}

#[derive(Debug, thiserror::Error)]
#[error("computing time used up")]
struct OverBudget;

/// Holds an instance to its memory, and remembers that it had to.
struct Limiter {
    memory: usize,
    table: usize,
    refused: bool,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.memory;
        self.refused |= !allowed;
        Ok(allowed)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let allowed = desired <= self.table;
        self.refused |= !allowed;
        Ok(allowed)
    }
}

/// How long a call has computed: the time in which its future was being polled.
#[derive(Debug)]
struct Meter {
    began: Instant,
    used: AtomicU64,
    /// Nanoseconds since `began` at the start of the poll under way; 0 for none.
    polling: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Meter { began: Instant::now(), used: AtomicU64::new(0), polling: AtomicU64::new(0) }
    }
}

impl Meter {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn used(&self) -> Duration {
        let current = match self.polling.load(Ordering::Relaxed) {
            0 => 0,
            since => self.now().saturating_sub(since),
        };
        Duration::from_nanos(self.used.load(Ordering::Relaxed) + current)
    }

    fn reset(&self) {
        self.used.store(0, Ordering::Relaxed);
    }
}

struct Metered<'a, F> {
    meter: &'a Meter,
    inner: F,
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let start = self.meter.now().max(1);
        self.meter.polling.store(start, Ordering::Relaxed);
        let polled = Pin::new(&mut self.inner).poll(cx);
        self.meter.polling.store(0, Ordering::Relaxed);
        self.meter.used.fetch_add(self.meter.now().saturating_sub(start), Ordering::Relaxed);
        polled
    }
}

/// The end of what a component prints, on either stream.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn push(&self, data: &[u8]) {
        tracing::debug!(target: "sandbox_host::plugin", "{}", String::from_utf8_lossy(data).trim_end());
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let data = &data[data.len().saturating_sub(KEPT_OUTPUT)..];
        let excess = (kept.len() + data.len()).saturating_sub(KEPT_OUTPUT);
        kept.drain(..excess);
        kept.extend_from_slice(data);
    }
}

impl AsyncWrite for Printed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.push(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

//! Hosts and calls, by numbers. A number is never used twice, so a wrong or an old one is an error and no crash.

use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use sandbox_bridge::{Bridge, CLOSED, Fault, INVALID, Reply, runtime};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// A function of the caller that gets a completed call.
pub(crate) type Callback = Box<dyn FnOnce(u64) + Send>;

/// How the caller learns that a call is completed, besides waiting for it.
pub(crate) enum Told {
    Nothing,
    Queue,
    Callback(Callback),
}

/// The process that opened the first host, or 0.
static OWNER: AtomicU32 = AtomicU32::new(0);

static TABLE: LazyLock<Mutex<Table>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Table {
    last: u64,
    entries: HashMap<u64, Entry>,
}

enum Entry {
    Host(Arc<Host>),
    Call(Arc<Call>),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(make: impl FnOnce(u64) -> Entry) -> u64 {
    let mut table = lock(&TABLE);
    table.last += 1;
    let number = table.last;
    table.entries.insert(number, make(number));
    number
}

/// Fails in a process that was forked from the one that uses the library: it has none of the threads, and the locks of the
/// library may be held by them. Every function comes here first.
pub(crate) fn check_process() -> Result<(), Fault> {
    let owner = OWNER.load(Ordering::Relaxed);
    if owner == 0 || owner == std::process::id() {
        return Ok(());
    }
    let why = "the library does not survive `fork`: open a host in the child process after `exec`";
    Err(Fault::new(CLOSED, why))
}

/// The objects of one bridge, the queue of its completed calls, and the thread of its callbacks.
pub(crate) struct Host {
    bridge: Bridge,
    state: Mutex<HostState>,
    /// Notified when a call is added to the queue, when a call ends, and when the host is closed.
    changed: Condvar,
}

struct HostState {
    closed: bool,
    /// Calls that are under way.
    under_way: usize,
    queue: VecDeque<Arc<Call>>,
    /// Contains a byte while the queue is not empty.
    pipe: Option<(PipeReader, PipeWriter)>,
    callbacks: Option<(Sender<Arc<Call>>, JoinHandle<()>)>,
}

impl HostState {
    /// Makes the pipe readable while the queue is not empty. `before` is whether it was empty before the change.
    fn signal(&mut self, before: bool) {
        let now = self.queue.is_empty();
        if let Some((reader, writer)) = &mut self.pipe {
            // The pipe has at most one byte, so neither of these can block.
            let _ = match (before, now) {
                (true, false) => writer.write_all(&[1]),
                (false, true) => reader.read_exact(&mut [0]),
                _ => Ok(()),
            };
        }
    }
}

/// One call.
pub(crate) struct Call {
    number: u64,
    /// An address of the caller.
    pub(crate) context: usize,
    host: Arc<Host>,
    outcome: OnceLock<Outcome>,
    cancel: CancellationToken,
    state: Mutex<CallState>,
    /// Notified when the outcome is known, and when the callback has returned.
    changed: Condvar,
    /// The values that the caller has looked up, each with a NUL after it, by their pointers.
    values: Mutex<HashMap<String, Box<[u8]>>>,
}

struct CallState {
    told: Told,
    /// The thread that runs the callback now.
    running: Option<ThreadId>,
    freed: bool,
}

/// The result of a call. On success, `json` is the result, otherwise the error.
pub(crate) struct Outcome {
    pub(crate) good: bool,
    pub(crate) json: CString,
    pub(crate) parts: Vec<Vec<u8>>,
}

impl From<Result<Reply, Fault>> for Outcome {
    fn from(result: Result<Reply, Fault>) -> Outcome {
        let (good, json, parts) = match result {
            Ok(Reply { json, parts }) => (true, json, parts),
            Err(fault) => (false, fault.json(), vec![]),
        };
        // JSON text contains no NUL, which it writes as an escape sequence.
        Outcome { good, json: CString::new(json).unwrap_or_default(), parts }
    }
}

/// Opens a host.
pub(crate) fn open() -> Result<u64, Fault> {
    let failed = |error: std::io::Error| Fault::new("internal", format!("the library could not be started: {error}"));
    runtime().map_err(failed)?;
    let _ = OWNER.compare_exchange(0, std::process::id(), Ordering::Relaxed, Ordering::Relaxed);
    let state = HostState {
        closed: false,
        under_way: 0,
        queue: VecDeque::new(),
        pipe: Some(std::io::pipe().map_err(failed)?),
        callbacks: None,
    };
    let host = Host { bridge: Bridge::new(), state: Mutex::new(state), changed: Condvar::new() };
    Ok(add(|_| Entry::Host(Arc::new(host))))
}

/// Returns an open host.
pub(crate) fn host(number: u64) -> Result<Arc<Host>, Fault> {
    let table = lock(&TABLE);
    match table.entries.get(&number) {
        Some(Entry::Host(host)) => Ok(host.clone()),
        Some(Entry::Call(_)) => Err(Fault::new(INVALID, format!("{number} is a call and no host"))),
        None if (1..=table.last).contains(&number) => Err(Fault::new(CLOSED, format!("the host {number} is closed"))),
        None => Err(Fault::new(INVALID, format!("there is no host {number}"))),
    }
}

/// Returns a call that was not freed.
pub(crate) fn call(number: u64) -> Result<Arc<Call>, Fault> {
    let table = lock(&TABLE);
    match table.entries.get(&number) {
        Some(Entry::Call(call)) => Ok(call.clone()),
        Some(Entry::Host(_)) => Err(Fault::new(INVALID, format!("{number} is a host and no call"))),
        None if (1..=table.last).contains(&number) => Err(Fault::new(CLOSED, format!("the call {number} was freed"))),
        None => Err(Fault::new(INVALID, format!("there is no call {number}"))),
    }
}

/// Closes a host: ends its calls, runs their callbacks, and closes its objects.
pub(crate) fn close(number: u64) -> Result<(), Fault> {
    let host = host(number)?;
    lock(&TABLE).entries.remove(&number);
    lock(&host.state).closed = true;
    host.changed.notify_all();
    // Ends the calls. A program often ends after this, so the commands of the calls have to be killed before.
    match runtime() {
        Ok(runtime) => runtime.block_on(host.bridge.shut_down()),
        Err(_) => host.bridge.close_all(),
    }
    let mut state = lock(&host.state);
    while state.under_way > 0 {
        state = host.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.pipe = None;
    let (callbacks, queue) = (state.callbacks.take(), std::mem::take(&mut state.queue));
    drop(state);
    // The calls in the queue refer to the host.
    drop(queue);
    if let Some((sender, thread)) = callbacks {
        drop(sender);
        // A callback that closes its host cannot wait for itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
    Ok(())
}

/// Starts a call and returns it with its number. A fault in `request` becomes the result of the call.
pub(crate) fn start(
    host: u64,
    request: Result<(String, String, Bytes), Fault>,
    told: Told,
    context: usize,
) -> Result<(u64, Arc<Call>), Fault> {
    let host = self::host(host)?;
    host.begin(&told)?;
    let mut made = None;
    let number = add(|number| {
        let call = Arc::new(Call {
            number,
            context,
            host: host.clone(),
            outcome: OnceLock::new(),
            cancel: CancellationToken::new(),
            state: Mutex::new(CallState { told, running: None, freed: false }),
            changed: Condvar::new(),
            values: Mutex::default(),
        });
        made = Some(call.clone());
        Entry::Call(call)
    });
    let Some(call) = made else { return Err(Fault::new("internal", "the call was not created")) };
    let (bridge, running) = (host.bridge.clone(), call.clone());
    let work = async move {
        let (method, arguments, data) = request?;
        let work = AssertUnwindSafe(bridge.call(&method, &arguments, data)).catch_unwind();
        tokio::select! {
            biased;
            () = running.cancel.cancelled() => Err(Fault::cancelled()),
            done = work => done.unwrap_or_else(|_| Err(Fault::new("internal", "the library has an error: a call panicked"))),
        }
    };
    let finished = call.clone();
    match runtime() {
        Ok(runtime) => {
            runtime.spawn(async move { finished.finish(work.await.into()) });
        }
        Err(error) => finished.finish(Err(Fault::new(CLOSED, error.to_string())).into()),
    }
    Ok((number, call))
}

/// Cancels a call if it is under way, and forgets it. Its callback does not begin afterwards.
pub(crate) fn free(number: u64) -> Result<(), Fault> {
    let call = call(number)?;
    lock(&TABLE).entries.remove(&number);
    call.cancel.cancel();
    let mut state = lock(&call.state);
    state.freed = true;
    let told = std::mem::replace(&mut state.told, Told::Nothing);
    while state.running.is_some_and(|thread| thread != thread::current().id()) {
        state = call.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    drop(state);
    if let Told::Queue = told {
        let mut state = lock(&call.host.state);
        let before = state.queue.is_empty();
        state.queue.retain(|queued| queued.number != number);
        state.signal(before);
    }
    Ok(())
}

impl Host {
    /// Counts a new call, and starts the thread of the callbacks if the call needs it.
    fn begin(&self, told: &Told) -> Result<(), Fault> {
        let mut state = lock(&self.state);
        if state.closed {
            return Err(Fault::new(CLOSED, "the host is closed"));
        }
        if matches!(told, Told::Callback(_)) && state.callbacks.is_none() {
            let (sender, receiver) = channel();
            let thread = thread::Builder::new().name("sandbox-callback".to_owned()).spawn(move || run(&receiver));
            let thread = thread.map_err(|error| Fault::new("internal", format!("no thread for callbacks: {error}")))?;
            state.callbacks = Some((sender, thread));
        }
        state.under_way += 1;
        Ok(())
    }

    /// Returns the descriptor that is readable while the queue is not empty.
    pub(crate) fn descriptor(&self) -> Result<std::os::fd::RawFd, Fault> {
        use std::os::fd::AsRawFd as _;
        let state = lock(&self.state);
        state
            .pipe
            .as_ref()
            .map(|(reader, _)| reader.as_raw_fd())
            .ok_or_else(|| Fault::new(CLOSED, "the host is closed"))
    }

    /// Takes the next completed call out of the queue. Waits for one until `limit`, without a limit for `None`.
    pub(crate) fn next(&self, limit: Option<Duration>) -> Result<Option<u64>, Fault> {
        let mut state = lock(&self.state);
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            if state.closed {
                return Err(Fault::new(CLOSED, "the host is closed"));
            }
            if let Some(call) = state.queue.pop_front() {
                state.signal(false);
                return Ok(Some(call.number));
            }
            state = match wait(&self.changed, state, end) {
                Some(state) => state,
                None => return Ok(None),
            };
        }
    }
}

/// Waits for a change until `end`, without a limit for `None`. Returns `None` after that time.
fn wait<'a, T>(changed: &Condvar, state: MutexGuard<'a, T>, end: Option<Instant>) -> Option<MutexGuard<'a, T>> {
    let Some(end) = end else { return Some(changed.wait(state).unwrap_or_else(PoisonError::into_inner)) };
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return None;
    }
    Some(changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0)
}

impl Call {
    /// Returns the result, or `None` while the call is under way.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Passes a value of the result to `take`: the bytes of a string, otherwise JSON text, with a NUL after it. `pointer` is a
    /// JSON pointer (RFC 6901). The bytes stay where they are until the call is freed.
    pub(crate) fn value<T>(&self, pointer: &str, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let mut values = lock(&self.values);
        if !values.contains_key(pointer) {
            let all: Value = serde_json::from_slice(self.outcome.get()?.json.as_bytes()).ok()?;
            let mut bytes = match all.pointer(pointer)? {
                Value::String(text) => text.clone().into_bytes(),
                other => other.to_string().into_bytes(),
            };
            bytes.push(0);
            values.insert(pointer.to_owned(), bytes.into_boxed_slice());
        }
        values.get(pointer).map(|bytes| take(bytes))
    }

    /// Asks the call to end. It then completes with an error of the kind `cancelled`, unless it was completed already.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Waits for the result until `limit`, without a limit for `None`. Returns whether it is known.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        let mut state = lock(&self.state);
        let end = limit.and_then(|limit| Instant::now().checked_add(limit));
        while self.outcome.get().is_none() {
            state = match wait(&self.changed, state, end) {
                Some(state) => state,
                None => return false,
            };
        }
        true
    }

    /// Stores the result and tells the caller.
    fn finish(self: Arc<Self>, outcome: Outcome) {
        let state = lock(&self.state);
        let _ = self.outcome.set(outcome);
        self.changed.notify_all();
        let (queued, called) = (matches!(state.told, Told::Queue), matches!(state.told, Told::Callback(_)));
        drop(state);
        let host = self.host.clone();
        let mut state = lock(&host.state);
        if queued && !lock(&self.state).freed {
            let before = state.queue.is_empty();
            state.queue.push_back(self);
            state.signal(before);
        } else if called && let Some((sender, _)) = &state.callbacks {
            let _ = sender.send(self);
        }
        state.under_way -= 1;
        host.changed.notify_all();
    }

    /// Runs the callback, unless the call was freed.
    fn call_back(&self) {
        let mut state = lock(&self.state);
        let Told::Callback(callback) = std::mem::replace(&mut state.told, Told::Nothing) else { return };
        state.running = Some(thread::current().id());
        drop(state);
        let _ = std::panic::catch_unwind(AssertUnwindSafe(|| callback(self.number)));
        lock(&self.state).running = None;
        self.changed.notify_all();
    }
}

/// The thread of the callbacks of a host.
fn run(completed: &Receiver<Arc<Call>>) {
    while let Ok(call) = completed.recv() {
        call.call_back();
    }
}

//! Calls of the bridge on the threads of the runtime, and what is undone if a reply cannot be delivered.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple};
use sandbox_bridge::{Bridge, CLOSED, Fault, Reply, runtime};
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::apart;

/// The end of a call.
pub(crate) type Outcome = Result<Reply, Fault>;

/// How long the exit of the interpreter waits until commands are killed and sandboxes that were given up are terminated.
const EXIT_TIME: Duration = Duration::from_secs(15);

static BRIDGE: OnceLock<Bridge> = OnceLock::new();

/// Number of calls whose effect is being undone, or will be when they end.
static GIVEN_UP: AtomicUsize = AtomicUsize::new(0);

fn bridge() -> &'static Bridge {
    BRIDGE.get_or_init(Bridge::new)
}

/// Whether calls have been made, and in this process: not in the parent of a forked one.
pub(crate) fn are_possible() -> bool {
    BRIDGE.get().is_some_and(|bridge| bridge.check().is_ok())
}

/// What has to be undone if nothing receives the reply of a call.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    Nothing,
    /// Close the new object.
    Close,
    /// Terminate the new sandbox. These are the arguments of the call.
    Terminate(String),
}

impl Undo {
    fn of(method: &str, arguments: &str) -> Undo {
        match method {
            "sandbox.create" | "sandbox.restore" => Undo::Terminate(arguments.to_owned()),
            "provider.open" | "process.start" | "process.attach" | "image.build" | "forward.open" | "watch.open"
            | "transfer.start" => Undo::Close,
            _ => Undo::Nothing,
        }
    }

    /// Returns the call that undoes the effect.
    fn call(&self, reply: &Reply) -> Option<(&'static str, String)> {
        let reply = || serde_json::from_str::<Value>(&reply.json).ok();
        match self {
            Undo::Nothing => None,
            Undo::Close => Some(("close", json!({ "object": number(&reply()?)? }).to_string())),
            Undo::Terminate(arguments) => {
                let (reply, arguments) = (reply()?, serde_json::from_str::<Value>(arguments).ok()?);
                let id = reply.pointer("/info/id").or_else(|| reply.get("sandbox"))?.as_str()?;
                let arguments = json!({ "provider": arguments.get("provider")?, "sandbox": id });
                Some(("sandbox.terminate", arguments.to_string()))
            }
        }
    }

    async fn run(&self, reply: &Reply) {
        if let Some((method, arguments)) = self.call(reply) {
            // The reply has no receiver, so an error has none either. The lease ends a sandbox that stays.
            let _ = bridge().call(method, &arguments, Bytes::new()).await;
        }
    }

    /// Undoes the effect in the background.
    pub(crate) fn start(self, outcome: Outcome) {
        if let (Ok(reply), Ok(runtime)) = (outcome, runtime())
            && !matches!(self, Undo::Nothing)
        {
            GIVEN_UP.fetch_add(1, Ordering::SeqCst);
            runtime.spawn(async move {
                self.run(&reply).await;
                GIVEN_UP.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

/// States of a call.
const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const ENDED: u8 = 2;

/// Returns the object that a reply names.
fn number(value: &Value) -> Option<u64> {
    let names = ["process", "build", "forward", "watch", "transfer", "provider"];
    names.iter().find_map(|name| value.get(name)?.as_u64())
}

/// A call under way.
pub(crate) struct Task {
    handle: AbortHandle,
    state: Arc<AtomicU8>,
    /// Whether a cancelled call has to run to its end, because only then it is known what to undo.
    must_end: bool,
}

impl Task {
    /// Cancels the call.
    pub(crate) fn cancel(&self) {
        if !self.must_end {
            self.handle.abort();
            return;
        }
        // Counted before, so that the end of the call cannot count it off first.
        GIVEN_UP.fetch_add(1, Ordering::SeqCst);
        if self.state.compare_exchange(RUNNING, CANCELLED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            GIVEN_UP.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Hands the end of a call over, also if its task is aborted or panics.
struct Delivery<F: FnOnce(Outcome, Undo)> {
    deliver: Option<F>,
    undo: Undo,
    state: Arc<AtomicU8>,
}

impl<F: FnOnce(Outcome, Undo)> Delivery<F> {
    fn done(mut self, outcome: Outcome) {
        if let Some(deliver) = self.deliver.take() {
            deliver(outcome, self.undo.clone());
        }
    }
}

impl<F: FnOnce(Outcome, Undo)> Drop for Delivery<F> {
    fn drop(&mut self) {
        if self.state.swap(ENDED, Ordering::SeqCst) == CANCELLED {
            GIVEN_UP.fetch_sub(1, Ordering::SeqCst);
        }
        if let Some(deliver) = self.deliver.take() {
            let panicked = std::thread::panicking();
            let fault = if panicked { Fault::new("internal", "the call panicked") } else { Fault::cancelled() };
            deliver(Err(fault), Undo::Nothing);
        }
    }
}

/// Starts a call. `deliver` gets its end exactly once, on a thread of the runtime.
///
/// # Errors
///
/// A `ClosedError` in a forked process, and an error if the threads or the other interpreter cannot be set up.
pub(crate) fn spawn<F>(py: Python<'_>, method: &str, arguments: &str, data: &[u8], deliver: F) -> PyResult<Task>
where
    F: FnOnce(Outcome, Undo) + Send + 'static,
{
    bridge().check().map_err(|fault| raise(py, &fault))?;
    let runtime = runtime().map_err(|error| match error.kind() {
        std::io::ErrorKind::Unsupported => raise(py, &Fault::new(CLOSED, error.to_string())),
        _ => PyRuntimeError::new_err(format!("cannot start the threads that calls run on: {error}")),
    })?;
    if method == "provider.open" {
        apart::set_up(py)?;
    }
    let undo = Undo::of(method, arguments);
    let must_end = matches!(undo, Undo::Terminate(_));
    let state = Arc::new(AtomicU8::new(RUNNING));
    let delivery = Delivery { deliver: Some(deliver), undo, state: state.clone() };
    let (method, arguments, data) = (method.to_owned(), arguments.to_owned(), Bytes::copy_from_slice(data));
    let task = runtime.spawn(async move {
        let outcome = bridge().call(&method, &arguments, data).await;
        if let Ok(reply) = &outcome
            && delivery.state.load(Ordering::SeqCst) == CANCELLED
        {
            delivery.undo.run(reply).await;
        }
        delivery.done(outcome);
    });
    Ok(Task { handle: task.abort_handle(), state, must_end })
}

/// Closes all objects and ends all calls. Waits until the sandboxes that were given up are terminated and the commands of the
/// others are killed, at most for [`EXIT_TIME`].
pub(crate) fn end() {
    let (Ok(runtime), Some(bridge)) = (runtime(), BRIDGE.get()) else { return };
    let ending = async {
        while GIVEN_UP.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bridge.shut_down().await;
    };
    let _ = runtime.block_on(async { tokio::time::timeout(EXIT_TIME, ending).await });
    bridge.close_all();
}

/// Closes an object in the background. Never fails, also in a forked process.
#[pyfunction]
pub(crate) fn forget(object: u64) {
    if are_possible()
        && let Ok(runtime) = runtime()
    {
        let arguments = json!({ "object": object }).to_string();
        runtime.spawn(async move { bridge().call("close", &arguments, Bytes::new()).await.map(drop) });
    }
}

/// Returns the exception for an error. The class depends on the kind.
pub(crate) fn raise(py: Python<'_>, fault: &Fault) -> PyErr {
    static FROM_FAULT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = FROM_FAULT
        .import(py, "sandbox_host.errors", "from_fault")
        .and_then(|from_fault| from_fault.call1((fault.json(),)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Returns the value of a call for Python: the JSON text and a tuple of byte strings.
pub(crate) fn value<'py>(py: Python<'py>, outcome: &Outcome) -> PyResult<Bound<'py, PyTuple>> {
    let reply = outcome.as_ref().map_err(|fault| raise(py, fault))?;
    let parts = PyTuple::new(py, reply.parts.iter().map(|part| PyBytes::new(py, part)))?;
    (reply.json.as_str(), parts).into_pyobject(py)
}

//! Calls as asyncio futures.
//!
//! One thread hands all replies to the event loops, many at a time. So the threads of the runtime never wait for the
//! interpreter, and a loop that gets many replies is woken once.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::calls::{Outcome, Task, Undo, spawn, value};
use crate::gate;

/// Most replies that one callback of an event loop handles, so that the loop can do other work in between.
const BATCH: usize = 64;

/// The end of a call, for the future that waits for it.
struct Completion {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    outcome: Outcome,
    undo: Undo,
}

/// Starts a call and returns a future of the running event loop for it. Cancelling the future cancels the call.
#[pyfunction]
#[pyo3(signature = (method, arguments, data = None))]
pub(crate) fn call<'py>(
    py: Python<'py>,
    method: &str,
    arguments: &str,
    data: Option<&[u8]>,
) -> PyResult<Bound<'py, PyAny>> {
    static RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let _inside = gate::Inside::of_python()?;
    let event_loop = RUNNING_LOOP.import(py, "asyncio", "get_running_loop")?.call0()?;
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let sender = sender()?.clone();
    let (waiting, at) = (future.clone().unbind(), event_loop.unbind());
    let task = spawn(py, method, arguments, data.unwrap_or_default(), move |outcome, undo| {
        // Fails never: the thread ends with the process.
        let _ = sender.send(Completion { event_loop: at, future: waiting, outcome, undo });
    })?;
    future.call_method1(intern!(py, "add_done_callback"), (Cancel { task },))?;
    Ok(future)
}

/// Returns the entrance of the thread that hands replies over, and starts the thread at the first call.
fn sender() -> PyResult<&'static Sender<Completion>> {
    static SENDER: OnceLock<Sender<Completion>> = OnceLock::new();
    if let Some(sender) = SENDER.get() {
        return Ok(sender);
    }
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("sandbox-asyncio".to_owned())
        .spawn(move || hand_over(&receiver))
        .map_err(|error| PyRuntimeError::new_err(format!("cannot start a thread: {error}")))?;
    // If two threads of Python are here at the same time, the thread of one of them ends at once.
    Ok(SENDER.get_or_init(|| sender))
}

fn hand_over(receiver: &Receiver<Completion>) {
    while let Ok(first) = receiver.recv() {
        let mut ready = vec![first];
        ready.extend(receiver.try_iter().take(BATCH - 1));
        let mut left = Some(ready);
        gate::enter(|py| {
            if let Some(ready) = left.take() {
                wake(py, ready);
            }
        });
        // The interpreter is shutting down. Its objects must not be touched any more.
        for completion in left.into_iter().flatten() {
            std::mem::forget((completion.event_loop, completion.future));
        }
    }
}

/// Hands replies to their event loops, with one callback for each loop.
fn wake(py: Python<'_>, ready: Vec<Completion>) {
    let mut batches: Vec<Vec<Completion>> = Vec::new();
    for completion in ready {
        match batches.iter_mut().find(|batch| batch[0].event_loop.is(&completion.event_loop)) {
            Some(batch) => batch.push(completion),
            None => batches.push(vec![completion]),
        }
    }
    for batch in batches {
        let event_loop = batch[0].event_loop.clone_ref(py).into_bound(py);
        let Ok(settle) = Py::new(py, Settle { batch: Mutex::new(batch) }) else { continue };
        // Fails if the loop is closed. Then there is no task that waits for the replies.
        if event_loop.call_method1(intern!(py, "call_soon_threadsafe"), (&settle,)).is_err() {
            for completion in settle.get().take() {
                completion.undo.start(completion.outcome);
            }
        }
    }
}

/// A callback of an event loop: sets the results of futures.
#[pyclass(frozen, module = "sandbox_host._native")]
struct Settle {
    batch: Mutex<Vec<Completion>>,
}

impl Settle {
    fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *self.batch.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Settle {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        // At the exit of the interpreter, the futures are not settled any more.
        let Some(_inside) = gate::Inside::new() else { return Ok(()) };
        for completion in self.take() {
            let future = completion.future.bind(py);
            if future.call_method0(intern!(py, "done"))?.is_truthy()? {
                completion.undo.start(completion.outcome);
                continue;
            }
            match value(py, &completion.outcome) {
                Ok(value) => future.call_method1(intern!(py, "set_result"), (value,))?,
                Err(error) => future.call_method1(intern!(py, "set_exception"), (error.into_value(py),))?,
            };
        }
        Ok(())
    }
}

/// The callback of a future: cancels the call if the future was cancelled.
#[pyclass(frozen, module = "sandbox_host._native")]
struct Cancel {
    task: Task,
}

#[pymethods]
impl Cancel {
    fn __call__(&self, py: Python<'_>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(_inside) = gate::Inside::new() else { return Ok(()) };
        if future.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            self.task.cancel();
        }
        Ok(())
    }
}

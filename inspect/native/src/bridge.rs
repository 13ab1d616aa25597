//! Turns Rust futures into asyncio futures, without a thread for each call.
//!
//! `call_soon_threadsafe` hands a result to the event loop. Cancelling the asyncio future cancels the Rust future.
//!
//! A thread that enters Python while the interpreter shuts down would crash the process. So threads are counted while
//! they are in Python. Before the interpreter shuts down, [`close`] refuses further threads and waits for those that are
//! counted.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{IntoPyObjectExt, wrap_pyfunction};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

/// Number of threads of the runtime that are in Python or about to enter it.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Whether the interpreter is shutting down.
static CLOSED: AtomicBool = AtomicBool::new(false);

fn runtime() -> PyResult<&'static Runtime> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("modal-sandbox")
        .build()
        .map_err(|error| PyRuntimeError::new_err(format!("cannot start the threads that calls run on: {error}")))?;
    Ok(RUNTIME.get_or_init(|| made))
}

/// Starts the work and returns a future of the running event loop for it. Cancelling the future drops the work.
pub(crate) fn awaitable<'py, T, F>(py: Python<'py>, work: F) -> PyResult<Bound<'py, PyAny>>
where
    T: for<'a> IntoPyObject<'a> + Send + 'static,
    F: Future<Output = PyResult<T>> + Send + 'static,
{
    let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
    let future = event_loop.call_method0("create_future")?;
    let (event_loop, waiting) = (event_loop.unbind(), future.clone().unbind());
    let task = runtime()?.spawn(async move {
        let result = work.await;
        enter(move |py| {
            let settled = match result.and_then(|value| value.into_py_any(py)) {
                Ok(value) => (waiting, true, value),
                Err(error) => (waiting, false, error.into_value(py).into_any()),
            };
            // Fails if the loop is closed. Then there is no task that waits for the result.
            let settle = wrap_pyfunction!(settle, py)?;
            event_loop
                .bind(py)
                .call_method1("call_soon_threadsafe", (settle, settled.0, settled.1, settled.2))
                .map(drop)
        });
    });
    future.call_method1("add_done_callback", (Cancel { task: task.abort_handle() },))?;
    Ok(future)
}

/// Calls a function with the interpreter attached, unless the interpreter is shutting down.
fn enter(work: impl for<'py> FnOnce(Python<'py>) -> PyResult<()>) {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    if !CLOSED.load(Ordering::SeqCst) {
        Python::attach(|py| {
            let _ = work(py);
        });
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

/// Refuses further threads and waits until none is in Python. Registered with `atexit`.
#[pyfunction]
pub(crate) fn close(py: Python<'_>) {
    CLOSED.store(true, Ordering::SeqCst);
    py.detach(|| {
        while INSIDE.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Sets the result of a future, in the thread of its event loop. Does nothing if the future was cancelled.
#[pyfunction]
fn settle(future: &Bound<'_, PyAny>, good: bool, value: Bound<'_, PyAny>) -> PyResult<()> {
    if !future.call_method0("done")?.is_truthy()? {
        future.call_method1(if good { "set_result" } else { "set_exception" }, (value,))?;
    }
    Ok(())
}

/// The callback of a future: drops the work if the future was cancelled.
#[pyclass(frozen)]
struct Cancel {
    task: AbortHandle,
}

#[pymethods]
impl Cancel {
    fn __call__(&self, future: &Bound<'_, PyAny>) -> PyResult<()> {
        if future.call_method0("cancelled")?.is_truthy()? {
            self.task.abort();
        }
        Ok(())
    }
}

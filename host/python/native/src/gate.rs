//! The exit of the interpreter.
//!
//! While the interpreter shuts down, a thread that wants to enter it is ended by it, or waits forever. Ending a thread in Rust
//! code crashes the process. So threads are counted while they are in this library and hold the interpreter, or are about to.
//! Before the interpreter shuts down, [`close`] refuses further threads and waits for those that are counted. A thread that
//! waits for a reply is not counted, and stays where it is: see [`detached`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::calls;

/// Number of threads that are in this library with the interpreter attached, or about to attach it.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Whether the interpreter is shutting down.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// A counted thread.
pub(crate) struct Inside;

impl Inside {
    /// Counts this thread, unless the interpreter is shutting down.
    pub(crate) fn new() -> Option<Inside> {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let inside = Inside;
        (!CLOSED.load(Ordering::SeqCst)).then_some(inside)
    }

    /// Counts a thread that came from Python.
    ///
    /// # Errors
    ///
    /// A `RuntimeError` if the interpreter is shutting down. It is made without running Python code.
    pub(crate) fn of_python() -> PyResult<Inside> {
        Inside::new().ok_or_else(|| PyRuntimeError::new_err("the interpreter is shutting down"))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits without the interpreter. The thread must be counted as `inside`. If the interpreter shuts down in the meantime, this
/// function does not return: only daemon threads are left then, and they end with the process.
pub(crate) fn detached<T: Send>(py: Python<'_>, inside: &mut Option<Inside>, wait: impl FnOnce() -> T + Send) -> T {
    py.detach(|| {
        drop(inside.take());
        let value = wait();
        *inside = Inside::new();
        while inside.is_none() {
            std::thread::sleep(Duration::from_secs(3600));
        }
        value
    })
}

/// Calls a function with the interpreter attached. Returns false, without a call, if the interpreter is shutting down.
pub(crate) fn enter(work: impl for<'py> FnOnce(Python<'py>)) -> bool {
    let inside = Inside::new();
    if inside.is_some() {
        Python::attach(work);
    }
    inside.is_some()
}

/// Refuses further threads, waits until none is in Python, and ends all calls. Registered with `atexit`.
#[pyfunction]
pub(crate) fn close(py: Python<'_>) {
    CLOSED.store(true, Ordering::SeqCst);
    // The threads exist only in the process that has started them. In a forked process there is nothing to wait for.
    if !calls::are_possible() {
        return;
    }
    py.detach(|| {
        while INSIDE.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        calls::end();
    });
}

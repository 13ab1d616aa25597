//! The exit of the interpreter.
//!
//! A thread that enters Python while the interpreter shuts down would crash the process. So threads are counted while they are
//! in Python. Before the interpreter shuts down, [`close`] refuses further threads and waits for those that are counted.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

use crate::calls;

/// Number of threads of this library that are in Python or about to enter it.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// Whether the interpreter is shutting down.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Calls a function with the interpreter attached. Returns false, without a call, if the interpreter is shutting down.
pub(crate) fn enter(work: impl for<'py> FnOnce(Python<'py>)) -> bool {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    let open = !CLOSED.load(Ordering::SeqCst);
    if open {
        Python::attach(work);
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    open
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

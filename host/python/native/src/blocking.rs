//! Calls for programs without an event loop.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::calls::{Outcome, Task, Undo, spawn, value};
use crate::gate::{self, Inside};

/// How long a waiting thread does not look for signals. The end of a call wakes it at once.
const LOOK: Duration = Duration::from_millis(50);

/// The end of a call, and the threads that wait for it.
#[derive(Default)]
struct Slot {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ended: bool,
    outcome: Option<(Outcome, Undo)>,
    waiting: Vec<Arc<Bell>>,
}

/// Wakes one thread.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for the bell, at most for `time`. Returns whether it has rung.
    fn wait(&self, time: Duration) -> bool {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(rung, time, |rung| !*rung);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, outcome: Outcome, undo: Undo) {
        let waiting = {
            let mut state = self.state();
            state.ended = true;
            state.outcome = Some((outcome, undo));
            std::mem::take(&mut state.waiting)
        };
        waiting.iter().for_each(|bell| bell.ring());
    }
}

/// A call that was started with `start`.
#[pyclass(frozen, module = "sandbox_host._native")]
pub(crate) struct Call {
    slot: Arc<Slot>,
    task: Task,
}

#[pymethods]
impl Call {
    /// Whether the call has ended.
    fn done(&self) -> bool {
        self.slot.state().ended
    }

    /// Waits for the end. Returns false if `timeout` seconds have passed. Signals are handled while it waits.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let mut inside = Some(Inside::of_python()?);
        Ok(wait(py, &mut inside, &[&self.slot], timeout)?.is_some())
    }

    /// Returns the reply, once, or raises the error of the call. Waits for the end.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let mut inside = Some(Inside::of_python()?);
        self.take(py, &mut inside)
    }

    /// Cancels the call. Has no effect after its end.
    fn cancel(&self) {
        self.task.cancel();
    }
}

impl Call {
    fn new(py: Python<'_>, method: &str, arguments: &str, data: Option<&[u8]>) -> PyResult<Call> {
        let slot = Arc::new(Slot::default());
        let filled = slot.clone();
        let fill = move |outcome, undo| filled.fill(outcome, undo);
        let task = spawn(py, method, arguments, data.unwrap_or_default(), fill)?;
        Ok(Call { slot, task })
    }

    fn take<'py>(&self, py: Python<'py>, inside: &mut Option<Inside>) -> PyResult<Bound<'py, PyTuple>> {
        wait(py, inside, &[&self.slot], None)?;
        let taken = self.slot.state().outcome.take();
        let (outcome, _) = taken.ok_or_else(|| PyRuntimeError::new_err("the result of the call was taken before"))?;
        value(py, &outcome)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.task.cancel();
        if let Some((outcome, undo)) = self.slot.state().outcome.take() {
            undo.start(outcome);
        }
    }
}

/// Starts a call for a program without an event loop.
#[pyfunction]
#[pyo3(signature = (method, arguments, data = None))]
pub(crate) fn start(py: Python<'_>, method: &str, arguments: &str, data: Option<&[u8]>) -> PyResult<Call> {
    let _inside = Inside::of_python()?;
    Call::new(py, method, arguments, data)
}

/// Does a call and waits for its reply. An exception of a signal handler cancels the call.
#[pyfunction]
#[pyo3(signature = (method, arguments, data = None))]
pub(crate) fn call_sync<'py>(
    py: Python<'py>,
    method: &str,
    arguments: &str,
    data: Option<&[u8]>,
) -> PyResult<Bound<'py, PyTuple>> {
    let mut inside = Some(Inside::of_python()?);
    // An error drops the call, which cancels it.
    Call::new(py, method, arguments, data)?.take(py, &mut inside)
}

/// Waits until one of the calls has ended. Returns its index, or none if `timeout` seconds have passed.
#[pyfunction]
#[pyo3(signature = (calls, timeout = None))]
pub(crate) fn wait_any(py: Python<'_>, calls: Vec<Py<Call>>, timeout: Option<f64>) -> PyResult<Option<usize>> {
    if calls.is_empty() {
        return Err(PyValueError::new_err("there is no call to wait for"));
    }
    let mut inside = Some(Inside::of_python()?);
    let slots: Vec<_> = calls.iter().map(|call| &*call.get().slot).collect();
    wait(py, &mut inside, &slots, timeout)
}

fn wait(py: Python<'_>, inside: &mut Option<Inside>, slots: &[&Slot], timeout: Option<f64>) -> PyResult<Option<usize>> {
    let time = timeout.map(Duration::try_from_secs_f64).transpose();
    let time = time.map_err(|error| PyValueError::new_err(format!("unusable timeout: {error}")))?;
    let end = time.and_then(|time| Instant::now().checked_add(time));
    let bell = Arc::new(Bell::default());
    for (index, slot) in slots.iter().enumerate() {
        let mut state = slot.state();
        if state.ended {
            return Ok(Some(index));
        }
        state.waiting.push(bell.clone());
    }
    let ended = wait_for(py, inside, slots, &bell, end);
    for slot in slots {
        slot.state().waiting.retain(|waiting| !Arc::ptr_eq(waiting, &bell));
    }
    ended
}

fn wait_for(
    py: Python<'_>,
    inside: &mut Option<Inside>,
    slots: &[&Slot],
    bell: &Bell,
    end: Option<Instant>,
) -> PyResult<Option<usize>> {
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let rung = gate::detached(py, inside, || bell.wait(left.map_or(LOOK, |left| left.min(LOOK))));
        if rung {
            return Ok(slots.iter().position(|slot| slot.state().ended));
        }
        py.check_signals()?;
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(None);
        }
    }
}

//! The Python module `inspect_modal_sandbox._native`: an asynchronous binding of `sandbox-host`.
//!
//! Every call returns an awaitable of the running asyncio loop ([`bridge`]). A few threads of one tokio runtime do the work of
//! all calls. Cancelling the awaitable cancels the call. Python passes sandboxes and images as JSON ([`spec`]), and makes all
//! decisions, so that this module stays small. A call that fails raises `NativeError` ([`error`]).

mod apart;
mod bridge;
mod error;
mod provider;
mod spec;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::apart::compile_component;
    #[pymodule_export]
    use crate::provider::{Build, Provider, RunResult};
    use pyo3::prelude::*;
    use pyo3::wrap_pyfunction;

    /// Registers the hook for the exit of the interpreter. The runtime starts with the first call.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let close = wrap_pyfunction!(crate::bridge::close, module)?;
        module.py().import("atexit")?.call_method1("register", (close,))?;
        Ok(())
    }
}

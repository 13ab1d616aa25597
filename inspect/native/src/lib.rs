//! The Python module `inspect_modal_sandbox._native`: a thin asynchronous face of `sandbox-host`.
//!
//! Every call gives an awaitable of the running asyncio loop ([`bridge`]). The work is done by a few threads of one tokio
//! runtime, whatever the number of calls; cancelling the awaitable drops the future, and with it cancels the call. What a
//! sandbox or an image is to be comes as JSON ([`spec`]), so that this module stays small and everything that is a decision
//! is made in Python.

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

    /// Nothing starts before the first call; the end is prepared for.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let close = wrap_pyfunction!(crate::bridge::close, module)?;
        module.py().import("atexit")?.call_method1("register", (close,))?;
        Ok(())
    }
}

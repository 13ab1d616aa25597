//! The Python module `sandbox_host._native`: calls of `sandbox-bridge` for asyncio and for programs without it.
//!
//! A call is a method name, JSON and bytes ([`calls`]). A few threads of one tokio runtime do the work of all calls, and one
//! more thread hands the replies to the event loops ([`asyncio`]). The Python sources next to this crate make classes of it.

mod apart;
mod asyncio;
mod blocking;
mod calls;
mod gate;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::apart::compile_component;
    #[pymodule_export]
    use crate::asyncio::call;
    #[pymodule_export]
    use crate::blocking::{Call, call_sync, start, wait_any};
    #[pymodule_export]
    use crate::calls::forget;
    #[pymodule_export]
    use crate::gate::close;
    use pyo3::prelude::*;
    use pyo3::wrap_pyfunction;

    /// Registers the hook for the exit of the interpreter. The runtime starts with the first call.
    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let close = wrap_pyfunction!(crate::gate::close, module)?;
        module.py().import("atexit")?.call_method1("register", (close,))?;
        Ok(())
    }
}

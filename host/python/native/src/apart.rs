//! Compiles a component in a separate Python process, so that the kernel limits memory and time of the compiler.
//!
//! The host library can only start a program that the embedding program names. Here that is the Python interpreter: it
//! loads this module by its file name alone, without the package around it, and calls [`compile_component`].

use std::process::Command;
use std::sync::Once;

use pyo3::prelude::*;

/// The program of the other interpreter. Its argument is the file of this module.
const SCRIPT: &str = "\
import sys
from importlib import machinery, util
loader = machinery.ExtensionFileLoader('_native', sys.argv[1])
module = util.module_from_spec(util.spec_from_loader('_native', loader))
loader.exec_module(module)
sys.exit(module.compile_component())
";

/// Sets up compilation in another process, once for this process.
///
/// Does nothing if `sys.executable` is not set, for instance in a program that embeds Python. Then this process compiles
/// the component.
pub(crate) fn set_up(py: Python<'_>) -> PyResult<()> {
    static ONCE: Once = Once::new();
    if ONCE.is_completed() {
        return Ok(());
    }
    let program: Option<String> = py.import("sys")?.getattr("executable")?.extract()?;
    let module: String = py.import("sandbox_host._native")?.getattr("__file__")?.extract()?;
    if let Some(program) = program.filter(|program| !program.is_empty()) {
        ONCE.call_once(|| {
            sandbox_host::compile_apart(move || {
                let mut command = Command::new(&program);
                // `-I` and `-S` exclude the influence of the environment and of installed packages.
                command.args(["-I", "-S", "-c", SCRIPT, &module]).env_clear();
                // Some interpreters find their shared library by this variable.
                command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
                command
            });
        });
    }
    Ok(())
}

/// Compiles the component on standard input and writes the code to standard output. Returns the exit code of the process.
#[pyfunction]
pub(crate) fn compile_component(py: Python<'_>) -> i32 {
    py.detach(sandbox_host::compile_child)
}

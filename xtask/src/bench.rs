//! `cargo xtask bench`: builds the measured programs and the benchmark program (`tests/benches`) with optimisation, and
//! runs it.

use anyhow::Result;
use clap::Subcommand;

use crate::{
    build,
    tools::{self, cargo},
};

/// The benchmarks.
#[derive(Clone, Copy, Subcommand)]
pub enum What {
    /// The emulator alone: sandboxes, commands, large transfers, memory
    Emulator,
    /// Host and component, compared with a native client and the official Python SDK
    Host,
}

/// Builds and runs a benchmark. Fails if the machine has no namespaces, a build fails, or the benchmark reports an
/// error.
pub fn run(what: What) -> Result<()> {
    tools::check_namespaces()?;
    let name = match what {
        What::Emulator => "emulator",
        What::Host => {
            tools::python()?;
            "host"
        }
    };
    let program = build::dist()?.program;
    let component = program.with_file_name("modal-provider.wasm");
    tools::run(
        cargo()
            .args(["bench", "--package", "system-tests", "--bench", "bench", "--", name])
            .env("SANDBOX_PROGRAM", program)
            .env("SANDBOX_COMPONENT", component),
    )
}

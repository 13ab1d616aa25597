//! `cargo xtask bench`: builds what is measured and the program that measures (`tests/benches`), optimised, and runs it.

use anyhow::Result;
use clap::Subcommand;

use crate::{
    build,
    tools::{self, cargo},
};

/// What there is to measure.
#[derive(Clone, Copy, Subcommand)]
pub enum What {
    /// The emulator by itself: sandboxes, commands, big transfers, memory
    Emulator,
    /// Host and component, against a native client and the official Python SDK
    Host,
}

/// Measures it.
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

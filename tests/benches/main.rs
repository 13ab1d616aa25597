//! Benchmarks. `cargo xtask bench` starts them.
//!
//! Each prints a table of targets and measured values. Missed targets are marked but do not fail the run, because
//! machines differ. Errors fail it.

#[cfg(feature = "docker-bench")]
mod docker;
mod emulator;
mod host;
mod native;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Passed by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    #[cfg(feature = "docker-bench")]
    /// Measure the provider for Docker against the program `docker` and a native client
    Docker,
    /// Measure the emulator through a native client
    Emulator,
    /// Measure host and component against a native client and the official Python SDK
    Host,
}

fn main() -> ExitCode {
    let measured = match Cli::parse().what {
        #[cfg(feature = "docker-bench")]
        What::Docker => docker::run(),
        What::Emulator => emulator::run(),
        What::Host => host::run(),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

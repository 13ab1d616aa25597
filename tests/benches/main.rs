//! Measuring programs: what is fast enough, in one run, on this machine. `cargo xtask bench` starts them.
//!
//! Each prints a table of targets and measured values. Figures that miss their target are marked and do not fail the run:
//! machines differ. What goes wrong does.

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
    /// Given by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// The emulator, through a native client
    Emulator,
    /// Host and component, against a native client and the official Python SDK
    Host,
}

fn main() -> ExitCode {
    let measured = match Cli::parse().what {
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

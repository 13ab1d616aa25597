//! `cargo xtask …`: everything a newcomer types. Installs what it can into `target/`, says plainly what it cannot.

mod bench;
mod build;
mod demo;
mod evals;
mod inspect;
mod progress;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of this workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the program and the component into target/dist
    Build,
    /// Build, then show the main job on the emulator: no account, no network
    Demo,
    /// Build, then run random faults against everything, and check that nothing is lost or done twice
    Soak {
        /// How many cases
        #[arg(long, default_value_t = 1000)]
        runs: u64,
        /// Of the first one; another each time when left out
        #[arg(long)]
        seed: Option<u64>,
        /// Spoil connections on their way (cut, stall, delay, duplicate, swallow) instead of calls
        #[arg(long)]
        proxy: bool,
    },
    /// Write the sources that are made from proto/proto
    Generate,
    /// Print where the sources do not follow docs/architecture.md
    Layout,
    /// Build the Inspect AI plugin as a wheel into target/wheels
    Wheel,
    /// Build, check and test everything
    Test(test::Selection),
    /// Measure: prints targets and what was reached; fails only when something goes wrong
    Bench {
        /// What to measure
        #[command(subcommand)]
        what: bench::What,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Build => build::dist().map(drop),
        Task::Demo => demo::run(),
        Task::Soak { runs, seed, proxy } => test::soak(runs, seed, proxy),
        Task::Generate => tools::generate(&[]),
        Task::Layout => tools::run(tools::cargo().args(["run", "--quiet", "--package", "xtask-layout"])),
        Task::Wheel => inspect::wheel().map(drop),
        Task::Test(selection) => test::all(&selection),
        Task::Bench { what } => bench::run(what),
    };
    // The causes in one line and no backtrace, which would push what the tests said out of sight.
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! `cargo xtask …`: the tasks for work on this repository. They install missing tools into `target/` where possible and
//! otherwise name them.

mod bench;
mod build;
mod c;
mod conformance;
mod debian;
mod demo;
mod emulator;
mod engines;
mod evals;
mod guests;
mod inspect;
mod progress;
mod python;
mod report;
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
    /// Build the program and the components into target/dist
    Build {
        /// Let the provider for Docker work with engines of all architectures, not only that of this machine
        #[arg(long)]
        all_architectures: bool,
    },
    /// Build, then show the main workflow on the emulator, without an account and without a network
    Demo,
    /// Build, then run random faults and check that nothing is lost or done twice
    Soak {
        /// Number of cases
        #[arg(long, default_value_t = 1000)]
        runs: u64,
        /// Seed of the first case; by default a new one for each run
        #[arg(long)]
        seed: Option<u64>,
        /// Damage connections (cut, stall, delay, duplicate, swallow) instead of failing calls
        #[arg(long)]
        proxy: bool,
    },
    /// Build, then run `sandbox conformance` on every provider, and compare the results with docs/conformance.md
    Conformance {
        /// Write docs/conformance.md
        #[arg(long)]
        write: bool,
    },
    /// Write the sources that are generated from proto/proto
    Generate,
    /// Print the places where the sources do not follow docs/architecture.md
    Layout,
    /// Fetch container engines for tests into target/engines, without an installation
    Engines,
    /// Build the Python package and the Inspect AI plugin as wheels into target/wheels
    Wheel,
    /// Build the C library and its header into target/dist/c
    C,
    /// Build, check and test everything
    Test(test::Selection),
    /// Run a benchmark: prints targets and measured values, and fails only on errors
    Bench {
        /// What to measure
        #[command(subcommand)]
        what: bench::What,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Build { all_architectures: false } => build::dist().map(drop),
        Task::Build { all_architectures: true } => build::for_all_architectures().map(drop),
        Task::Demo => demo::run(),
        Task::Soak { runs, seed, proxy } => test::soak(runs, seed, proxy),
        Task::Conformance { write } => conformance::run(write),
        Task::Generate => tools::generate(&[]),
        Task::Layout => tools::run(tools::cargo().args(["run", "--quiet", "--package", "xtask-layout"])),
        Task::Engines => engines::fetch().map(|root| {
            if let Some(root) = root {
                println!("{}", root.display());
            }
        }),
        Task::Wheel => python::wheel().and_then(|_| inspect::wheel()).map(drop),
        Task::C => c::library().map(|folder| println!("{}", folder.display())),
        Task::Test(selection) => test::all(&selection),
        Task::Bench { what } => bench::run(what),
    };
    // Prints the causes on one line. A backtrace would push the output of failed tests out of sight.
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

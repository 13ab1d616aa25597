//! `cargo xtask …`: everything a newcomer types. Installs what it can into `target/`, says plainly what it cannot.

mod build;
mod demo;
mod test;
mod tools;

use anyhow::Result;
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
    /// Build, check and test everything
    Test {
        /// Only the steps whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Build => build::dist().map(drop),
        Task::Demo => demo::run(),
        Task::Test { only } => test::all(only.as_deref()),
    }
}

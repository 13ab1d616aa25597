//! `sandbox-host completions`: prints a completion script for a shell.

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, Completions, PROGRAM};
use crate::output;

/// Runs `sandbox-host completions`. Returns the exit code.
pub fn completions(args: Completions) -> Result<i32> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), PROGRAM, &mut script);
    output::print_own(&script)?;
    Ok(0)
}

//! `sandbox-host man`: prints the manual page, or writes all pages to a directory.

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Cli, Man};
use crate::output;

/// Runs `sandbox-host man`. Returns the exit code.
pub fn man(args: Man) -> Result<i32> {
    match &args.directory {
        Some(directory) => {
            std::fs::create_dir_all(directory)?;
            clap_mangen::generate_to(Cli::command(), directory)?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            output::print_own(&page)?;
        }
    }
    Ok(0)
}

//! Plays the inner roles of containers. Programs with containers call [`container_isolation::child_entry`] themselves; this one
//! is for the tests of this crate.

use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    container_isolation::child_entry();
    let _ = writeln!(std::io::stderr(), "error: this program plays the inner roles of containers and nothing else");
    ExitCode::FAILURE
}

//! Runs the inner roles of containers, for the tests of this crate. Other programs call
//! [`container_isolation::child_entry`] themselves.

use std::{io::Write as _, process::ExitCode};

fn main() -> ExitCode {
    container_isolation::child_entry();
    let _ = writeln!(
        std::io::stderr(),
        "error: this program only runs the inner processes of containers; it is started by the emulator"
    );
    ExitCode::FAILURE
}

//! `sandbox-host emulator`: runs the emulator in the foreground.

use anyhow::Result;

use crate::args::Emulator;
use crate::output::Failure;

/// Runs an inner role of the emulator if this process was started for one, and then never returns. Must be called first
/// in `main`.
pub fn child_entry() {
    #[cfg(feature = "emulator")]
    modal_emulator::child_entry();
}

/// Runs the emulator in the foreground, with its own async runtime. Returns the exit code.
#[cfg(feature = "emulator")]
pub fn foreground(args: Emulator) -> Result<i32> {
    match modal_emulator::cli::run(args.args) {
        Ok(()) => Ok(0),
        Err(error) => Err(Failure::new("start the emulator", format!("{error:#}")).into()),
    }
}

/// Fails, because this program was built without the emulator.
#[cfg(not(feature = "emulator"))]
pub fn foreground(_args: Emulator) -> Result<i32> {
    Err(Failure::new("start the emulator", "this program was built without it")
        .hint("build it with the feature `emulator`")
        .into())
}

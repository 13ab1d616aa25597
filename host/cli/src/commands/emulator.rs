//! `sandbox emulator`: the emulator in the foreground.

use anyhow::Result;

use crate::args::Emulator;
use crate::output::Failure;

/// The emulator has entry points that the very first line of `main` must give way to.
pub fn child_entry() {
    #[cfg(feature = "emulator")]
    modal_emulator::child_entry();
}

/// Runs the emulator in the foreground, with a runtime of its own.
#[cfg(feature = "emulator")]
pub fn foreground(args: Emulator) -> Result<i32> {
    match modal_emulator::cli::run(args.args) {
        Ok(()) => Ok(0),
        Err(error) => Err(Failure::new("start the emulator", format!("{error:#}")).into()),
    }
}

/// Runs the emulator in the foreground, with a runtime of its own.
#[cfg(not(feature = "emulator"))]
pub fn foreground(_args: Emulator) -> Result<i32> {
    Err(Failure::new("start the emulator", "this program was built without it")
        .hint("build it with the feature `emulator`")
        .into())
}

//! All unsafe code of these tests.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::{SigHandler, Signal, signal};

/// Resets SIGHUP of a program to its default action, because `nohup` lets the tests and their children ignore it.
pub fn default_sighup(command: &mut Command) {
    let default = || {
        // SAFETY: the default action is not a handler, so no code of this program runs in signal context.
        Ok(unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }.map(drop)?)
    };
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(default) };
}

//! The unsafe code of these tests.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has a program end at SIGHUP, also where the tests are run under `nohup`.
pub fn default_sighup(command: &mut Command) {
    let default = || {
        // SAFETY: the default action is no handler, so nothing of this program runs in one.
        Ok(unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) }.map(drop)?)
    };
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(default) };
}

//! All unsafe code of this crate.

use nix::sys::signal::Signal;

/// Returns whether this process ignores `signal`. It inherits that from the program that started it, such as `nohup`.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: the structure consists of integers and of a pointer that may be null, so all-zero is valid.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with a null pointer for the new action, the call only reads the current action; it writes `found`, which outlives
    // it.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut found) };
    asked == 0 && found.sa_sigaction == libc::SIG_IGN
}

//! The unsafe code of this crate.

use nix::sys::signal::Signal;

/// Whether the program that started this one wants a signal to be ignored, as `nohup` does.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: the structure consists of integers and of a pointer that may be null, so all-zero is valid.
    let mut found: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with a null pointer for the new action the call only asks; it writes `found`, which outlives it.
    let asked = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut found) };
    asked == 0 && found.sa_sigaction == libc::SIG_IGN
}

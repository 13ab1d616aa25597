//! Forks, signals and other process attributes.

use std::{io, ptr};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{SigHandler, Signal, signal},
    unistd::ForkResult,
};
use rustix::{
    io::retry_on_intr,
    process::{Pid, WaitOptions, waitpid},
};

/// From linux/keyctl.h.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// The highest signal number.
const LAST_SIGNAL: i32 = 64;

/// The result of [`fork`].
pub(crate) enum Fork {
    /// Returned in the child process.
    Child(ForkedChild),
    /// Returned in the parent process: the pid of the child.
    Parent(i32),
}

/// Proves that this process is a fork, whose descriptors are copies of its parent's.
pub(crate) struct ForkedChild(());

/// Forks a single-threaded process.
///
/// # Errors
///
/// Fails with `EINVAL` if the process has more than one thread.
pub(crate) fn fork() -> nix::Result<Fork> {
    // Has no effect, but fails if the process has several threads.
    unshare(CloneFlags::CLONE_THREAD)?;
    // SAFETY: the kernel has just confirmed that this is the only thread. So no other thread holds a lock that the child
    // would need, and the child may run any code.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Fork::Child(ForkedChild(())),
        ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
    })
}

/// Closes all descriptors except the standard streams, in a fork that will execute another program. Values that own
/// descriptors are left over from the parent and must not be used or dropped afterwards.
pub(crate) fn close_all_but_standard(_: ForkedChild) {
    // SAFETY: takes only numbers. The process is a fork, so no descriptor of its parent is closed. Each fork makes this
    // call once, in a function that does not return and drops nothing that owns a descriptor.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// A child process that does nothing. Killed when dropped.
pub(crate) struct PausedChild {
    pid: libc::pid_t,
}

impl PausedChild {
    /// Forks the child process. The calling process may have several threads.
    pub(crate) fn start() -> io::Result<PausedChild> {
        // SAFETY: the child makes only system calls, which is permitted in a fork of a multi-threaded program.
        match unsafe { libc::fork() } {
            ..0 => Err(io::Error::last_os_error()),
            0 => loop {
                // Kills the child when its parent ends.
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                nix::unistd::pause();
            },
            pid => Ok(PausedChild { pid }),
        }
    }

    /// Returns the pid.
    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid
    }
}

impl Drop for PausedChild {
    fn drop(&mut self) {
        kill(self.pid, libc::SIGKILL);
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = retry_on_intr(|| waitpid(Some(pid), WaitOptions::empty()));
        }
    }
}

/// Sends a signal. Supports real-time signals, which nix and rustix do not. Returns `false` if it fails.
pub(crate) fn kill(pid: libc::pid_t, signal: libc::c_int) -> bool {
    // SAFETY: takes only numbers.
    (unsafe { libc::kill(pid, signal) }) == 0
}

/// Gives the process a new, empty session keyring, instead of the one inherited from its parent.
pub(crate) fn join_own_keyring() {
    // SAFETY: a null name requests a new keyring; the kernel reads no memory.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
}

/// Resets all signals to their default actions. Uses the system call, because the C library reserves two signal numbers.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask. All zero is the default action.
    let default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the kernel reads the structure, which has the kernel's layout and outlives the call, and writes
        // nothing. No handler is installed. The calls for SIGKILL and SIGSTOP fail.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), 8) };
    }
}

/// Resets SIGPIPE to its default action, which is what programs in other languages expect.
pub(crate) fn default_sigpipe() {
    // SAFETY: the default action is not a handler, so no code of this program runs in one.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// Makes writing to a closed pipe fail with EPIPE.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: ignoring a signal needs no handler, so no code of this program runs in one.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

//! Forks, signals and other properties of whole processes.

use std::{io, ptr};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{SigHandler, Signal, signal},
    unistd::ForkResult,
};

/// Of linux/keyctl.h.
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;

/// The highest number of a signal.
const LAST_SIGNAL: i32 = 64;

/// What [`fork`] returns.
pub(crate) enum Fork {
    /// In the new process.
    Child(ForkedChild),
    /// In the old one: the number of the new one.
    Parent(i32),
}

/// Shows that the process is a fork, whose descriptors are copies of its parent's.
pub(crate) struct ForkedChild(());

/// Forks a process that has one thread.
///
/// # Errors
///
/// EINVAL if the process has more than one thread.
pub(crate) fn fork() -> nix::Result<Fork> {
    // Changes nothing; the kernel refuses it to a process with more threads.
    unshare(CloneFlags::CLONE_THREAD)?;
    // SAFETY: the kernel has just confirmed that this is the only thread. So no lock is held by a thread that the child does
    // not have, and the child may do what any process may.
    Ok(match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Fork::Child(ForkedChild(())),
        ForkResult::Parent { child } => Fork::Parent(child.as_raw()),
    })
}

/// Closes every descriptor but the standard ones, in a fork that becomes another program: its values that own descriptors are
/// left over from its parent and must be neither used nor dropped from here on.
pub(crate) fn close_all_but_standard(_: ForkedChild) {
    // SAFETY: takes numbers only. The process is a fork, so that no descriptor of its parent is closed; there is one call for
    // each fork, in a function that does not return and drops nothing that owns a descriptor.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// A child process that does nothing, until it is dropped.
pub(crate) struct PausedChild {
    pid: libc::pid_t,
}

impl PausedChild {
    /// Forks it. The calling process may have further threads.
    pub(crate) fn start() -> io::Result<PausedChild> {
        // SAFETY: the child makes system calls only, which a fork of a program with threads may do.
        match unsafe { libc::fork() } {
            ..0 => Err(io::Error::last_os_error()),
            0 => loop {
                // It ends with its parent, should that be killed right now.
                let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
                // SAFETY: waits; touches no memory.
                unsafe { libc::pause() };
            },
            pid => Ok(PausedChild { pid }),
        }
    }

    /// Its number.
    pub(crate) fn pid(&self) -> libc::pid_t {
        self.pid
    }
}

impl Drop for PausedChild {
    fn drop(&mut self) {
        kill(self.pid, libc::SIGKILL);
        // SAFETY: the kernel writes nothing when the pointer is null. The child is collected here alone.
        unsafe { libc::waitpid(self.pid, ptr::null_mut(), 0) };
    }
}

/// Sends a signal, as `kill` does: real-time ones too, for which nix and rustix have no names. False if it fails.
pub(crate) fn kill(pid: libc::pid_t, signal: libc::c_int) -> bool {
    // SAFETY: takes numbers only.
    (unsafe { libc::kill(pid, signal) }) == 0
}

/// Gives the process an empty keyring, in place of that of the program that started it.
pub(crate) fn join_own_keyring() {
    // SAFETY: a null name asks for a new keyring; the kernel reads no memory.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
}

/// Gives every signal its default action. Not by the C library, which keeps two of the numbers to itself.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction`: handler, flags, restorer, mask. All zero is the default action.
    let default = [0u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: the kernel reads the structure, which has its layout and outlives the call, and writes nothing. No handler
        // is set. SIGKILL and SIGSTOP refuse.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null::<u64>(), 8) };
    }
}

/// Lets SIGPIPE end the process, as it does programs that are not written in Rust.
pub(crate) fn default_sigpipe() {
    // SAFETY: the default action is no handler, so nothing of this program runs in one.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}

/// Has writing to a closed pipe fail with EPIPE.
pub(crate) fn ignore_sigpipe() {
    // SAFETY: to ignore a signal takes no handler, so nothing of this program runs in one.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
}

//! Processes and signals.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    io,
    os::fd::{FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::Pid;

/// On which side of a fork the caller is.
pub enum Fork {
    /// The process that called, with the id of the new process.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Duplicates this process.
///
/// # Errors
///
/// Fails if the kernel has no room for another process.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: this program has one thread, so that the new process may call any function.
    let pid = unsafe { libc::fork() };
    match pid {
        ..0 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Replaces this program by `path`. Returns only the error.
pub fn execute(path: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| -> Vec<*const c_char> {
        words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer and point to strings that live until the call returns.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Sends a signal of any number.
///
/// # Errors
///
/// Fails if the process does not exist, or the signal is no signal.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: the call has no memory arguments.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn set_of(signals: &[c_int]) -> libc::sigset_t {
    // SAFETY: sigset_t is a plain array of integers.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place for a set.
    unsafe { libc::sigemptyset(&mut set) };
    for signal in signals {
        // SAFETY: `set` is initialised. A number that is no signal is an error without an effect.
        unsafe { libc::sigaddset(&mut set, *signal) };
    }
    set
}

/// Blocks exactly these signals for this process.
pub fn block_signals(signals: &[c_int]) {
    let set = set_of(signals);
    // SAFETY: `set` is a valid set, and the old set is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut()) };
}

/// A descriptor that is readable when one of these signals is pending. The signals have to be blocked.
///
/// # Errors
///
/// Fails if there are too many descriptors.
pub fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    let set = set_of(signals);
    // SAFETY: `set` is a valid set.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and no other value owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The numbers of the signals that a descriptor of [`signal_descriptor`] holds now.
pub fn take_signals(descriptor: &OwnedFd) -> Vec<c_int> {
    const RECORD: usize = size_of::<libc::signalfd_siginfo>();
    let mut signals = Vec::new();
    let mut record = [0u8; RECORD];
    while let Ok(RECORD) = rustix::io::read(descriptor, &mut record) {
        // The signal's number is the first field.
        signals.push(c_int::from_ne_bytes([record[0], record[1], record[2], record[3]]));
    }
    signals
}

/// Restores the default action of all signals and unblocks them, for a program that is about to be executed.
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: the default action runs no code of this program. Signals that cannot be changed are left alone.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    block_signals(&[]);
}

/// Replaces the arguments of this process, as other users see them in the list of processes. Nothing is changed if the
/// kernel does not say where they are.
pub fn replace_arguments(title: &str) {
    let Some((start, end)) = arguments() else { return };
    let title = title.as_bytes().iter().copied().take(end - start - 1);
    for (address, byte) in (start..end).zip(title.chain(std::iter::repeat(0))) {
        // SAFETY: the kernel says that the arguments lie at these addresses, on the stack above all frames. They are
        // writable. No reference into them exists: the standard library copies them when the program asks for them.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(byte) };
    }
}

/// The first address of the arguments, and the one behind them.
fn arguments() -> Option<(usize, usize)> {
    let text = std::fs::read("/proc/self/stat").ok()?;
    let text = String::from_utf8_lossy(&text);
    // Fields 48 and 49. The name of the program (field 2) ends with the last parenthesis.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(45);
    let mut next = || fields.next()?.parse().ok();
    let (start, end): (usize, usize) = (next()?, next()?);
    (start != 0 && start < end).then_some((start, end))
}

//! File descriptors that are inherited from the parent, or registered with the runtime.

use std::{
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tokio::io::{Interest, unix::AsyncFd};

/// Takes ownership of the single descriptor that the parent process left open for this one.
///
/// # Errors
///
/// Fails with `EBADF` if the descriptor is not open, is a standard stream, or if one was taken before.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is_standard = (0..=2).contains(&number);
    if is_standard || !super::clone::is_open(number) || TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open. The roles call this before the program has opened any descriptor, so it is not
    // owned by another value; and only one call gets here, so it gets a single owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes a command inherit this descriptor with the same number.
pub(crate) fn leave_open(command: &mut Command, fd: OwnedFd) {
    let open = move || Ok(fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)?);
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(open) };
}

/// Registers a descriptor with the runtime, for readability only.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` returns the same descriptor on every call and keeps it open until it is dropped. `AsyncFd` drops
    // it only after it has deregistered the descriptor from the runtime.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Registers a socket with the runtime.
pub(crate) fn watch_socket(socket: UnixStream) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: as for `OwnedFd`: `UnixStream` owns its descriptor.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

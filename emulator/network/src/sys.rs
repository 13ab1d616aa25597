//! The unsafe code of this crate: the registration of file descriptors with the runtime.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Registers a file descriptor with the runtime.
///
/// # Errors
///
/// Fails if the kernel cannot watch this file descriptor with epoll.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` returns the same descriptor on every call and keeps it open until it is dropped. `AsyncFd` drops
    // it only after it has deregistered the descriptor from the runtime.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

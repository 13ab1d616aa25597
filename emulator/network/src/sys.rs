//! The unsafe code of this crate.

use std::{io, os::fd::OwnedFd};

use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime.
///
/// # Errors
///
/// If the kernel cannot watch this descriptor.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` returns the same descriptor on every call and keeps it open until it is dropped, which `AsyncFd` does
    // only after it has taken the descriptor out of the runtime.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

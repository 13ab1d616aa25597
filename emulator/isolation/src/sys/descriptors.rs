//! Descriptors that come from elsewhere: from the program that started this one, over a socket, or into the runtime.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Takes over the one descriptor that the program which started this one left open for it.
///
/// # Errors
///
/// If there is no such descriptor, or one was taken before.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let is_standard = (0..=2).contains(&number);
    if is_standard || !super::clone::is_open(number) || TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is open. The roles call this first thing, before this program has opened any other descriptor, so
    // it is none of this program's own; and only one call gets here, so it has no second owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has a command start with this descriptor open, under the number that it has here. The command keeps it.
pub(crate) fn leave_open(command: &mut Command, fd: OwnedFd) {
    let open = move || Ok(fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)?);
    // SAFETY: between fork and exec the closure makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(open) };
}

/// One `recvmsg`: how many bytes have arrived in `buffer`, and the descriptors that came with them. `most` is how many
/// descriptors one message has at most.
pub(crate) fn receive<const MOST: usize>(socket: RawFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MOST]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just opened these descriptors for this message. nix gives out their numbers once and does
            // not close them.
            fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, fds))
}

/// Registers a descriptor with the runtime, which tells when it can be read.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` returns the same descriptor on every call and keeps it open until it is dropped, which `AsyncFd` does
    // only after it has taken the descriptor out of the runtime.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Registers a socket with the runtime.
pub(crate) fn watch_socket(socket: UnixStream) -> io::Result<AsyncFd<UnixStream>> {
    // SAFETY: as above, `UnixStream` owns its descriptor.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

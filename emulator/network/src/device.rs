//! The descriptor of a container's network device.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// The outer side of a container's network device.
#[derive(Debug)]
pub(crate) struct Device {
    fd: AsyncFd<OwnedFd>,
    /// Largest packet, in bytes.
    pub(crate) mtu: usize,
}

impl Device {
    pub(crate) fn new(fd: OwnedFd, mtu: usize) -> io::Result<Device> {
        Ok(Device { fd: sys::watch(fd)?, mtu })
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| nix::unistd::read(fd, buffer).map_err(io::Error::from);
        self.fd.async_io(Interest::READABLE, read).await
    }

    /// Delivers a packet. One that cannot be delivered is lost: the kernel takes any that is well formed at once.
    pub(crate) fn write(&self, packet: &[u8]) {
        if let Err(error) = nix::unistd::write(self.fd.get_ref(), packet) {
            tracing::debug!(fd = self.fd.as_raw_fd(), %error, "packet not delivered");
        }
    }
}

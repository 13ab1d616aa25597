//! Reads and writes packets on the file descriptor of a container's network device.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::sys;

/// The emulator's side of a container's network device.
#[derive(Debug)]
pub(crate) struct Device {
    fd: AsyncFd<OwnedFd>,
    /// Largest packet that the device accepts, in bytes.
    pub(crate) mtu: usize,
}

impl Device {
    /// Registers the file descriptor with the runtime. `mtu` is in bytes.
    pub(crate) fn new(fd: OwnedFd, mtu: usize) -> io::Result<Device> {
        Ok(Device { fd: sys::watch(fd)?, mtu })
    }

    /// Reads one packet into `buffer`. Returns its length in bytes.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| nix::unistd::read(fd, buffer).map_err(io::Error::from);
        self.fd.async_io(Interest::READABLE, read).await
    }

    /// Writes a packet to the container. Drops the packet and logs the error if the write fails; the kernel accepts every
    /// well-formed packet at once.
    pub(crate) fn write(&self, packet: &[u8]) {
        if let Err(error) = nix::unistd::write(self.fd.get_ref(), packet) {
            tracing::debug!(fd = self.fd.as_raw_fd(), %error, "packet not delivered");
        }
    }
}

//! A container's network devices, set up by its init while it still has the capabilities for that: its loopback, and where
//! asked a device whose packets go to the emulator instead of a wire.
//!
//! The device is the kernel's TUN: what programs inside send comes out of a descriptor as IP packets, and what is written
//! there reaches them. The descriptor is handed to the engine; init keeps none.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use nix::{
    fcntl::OFlag,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
};

use crate::sys::interfaces;

/// The device file that makes them.
pub(crate) const TUN: &str = "/dev/net/tun";

/// A container's own addresses on its device, by its number among those of one network. 192.0.0.0/24 is set aside for
/// protocols (RFC 6890), so no host has an address in it; the IPv6 prefix is a locally assigned one, which resolvers prefer
/// IPv4 to.
pub fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let host = number.saturating_add(FIRST);
    (Ipv4Addr::new(192, 0, 0, host), Ipv6Addr::new(0xfd00, 0x6d6f, 0x6461, 0x6c00, 0, 0, 0, host.into()))
}

/// Last byte of the address of the container with the number 0.
const FIRST: u8 = 2;
/// Containers that one network has addresses for.
pub const MOST: u8 = 254 - FIRST + 1;
/// Bits of an IPv4 address that say which network it is in; all of these addresses are in the same one.
pub const PREFIX: u8 = 24;
/// The same in IPv6.
pub const PREFIX6: u8 = 64;
/// The mask of the IPv4 network.
const MASK: Ipv4Addr = Ipv4Addr::from_bits(u32::MAX << (32 - PREFIX));
/// Their peer: where the container's `/etc/resolv.conf` sends questions.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// Largest packet. Nothing of it ever sees a wire, and each costs two system calls whatever its size.
pub const MTU: usize = 65_535;

/// Its name inside: what programs expect.
const NAME: &[u8] = b"eth0";

/// Opens a device for the caller's network namespace. To be called while the machine's `/dev` is still there.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let device = nix::fcntl::open(TUN, flags, Mode::empty())?;
    interfaces::make_tun(&device, NAME)?;
    Ok(device)
}

/// Gives the opened device its addresses and makes it the way to everywhere.
pub(crate) fn bring_up(number: u8) -> io::Result<()> {
    let (own, own6) = addresses(number);
    let socket = udp(AddressFamily::Inet)?;
    interfaces::set_mtu(&socket, NAME, MTU as i32)?;
    interfaces::set_address(&socket, NAME, own, MASK)?;
    interfaces::set_up(&socket, NAME)?;
    interfaces::set_default_route(&socket, GATEWAY)?;
    let index = interfaces::index(&socket, NAME)?;
    // A kernel without IPv6 has none inside either.
    let _ = bring_up6(index, own6);
    Ok(())
}

fn bring_up6(index: i32, own: Ipv6Addr) -> io::Result<()> {
    let socket = udp(AddressFamily::Inet6)?;
    interfaces::set_address6(&socket, index, own, PREFIX6)?;
    interfaces::set_default_route6(&socket, index)
}

/// Brings the namespace's own loopback up.
pub(crate) fn loopback_up() -> io::Result<()> {
    interfaces::set_up(&udp(AddressFamily::Inet)?, b"lo")
}

/// Any socket will do: these requests only need one of the family.
fn udp(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_container_has_the_address_that_is_for_all() {
        assert_eq!(MASK, Ipv4Addr::new(255, 255, 255, 0));
        assert!((0..MOST).all(|number| addresses(number).0.octets()[3] < 255));
    }
}

//! Sets up a container's network interfaces while its init still has the capabilities for it: the loopback, and
//! optionally a device whose packets go to the emulator.
//!
//! The device is a TUN device: packets that programs in the container send can be read from a descriptor, and packets
//! written to the descriptor are delivered to them. The descriptor is passed to the engine; init does not keep it.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use crate::sys::interfaces::{Ipv4Socket, Ipv6Socket, make_tun};

/// Returns the addresses of a container by its number in its network. 192.0.0.0/24 is reserved for protocol assignments
/// (RFC 6890), so no host has an address in it. The IPv6 prefix is a unique local one, and resolvers prefer IPv4 to it.
pub fn addresses(number: u8) -> (Ipv4Addr, Ipv6Addr) {
    let host = number.saturating_add(FIRST);
    (Ipv4Addr::new(192, 0, 0, host), Ipv6Addr::new(0xfd00, 0x6d6f, 0x6461, 0x6c00, 0, 0, 0, host.into()))
}

/// Last byte of the IPv4 address of container number 0.
const FIRST: u8 = 2;
/// Maximum number of containers in one network.
pub const MOST: u8 = 254 - FIRST + 1;
/// Prefix length of the IPv4 network, which contains all containers' addresses.
pub const PREFIX: u8 = 24;
/// Prefix length of the IPv6 network.
pub const PREFIX6: u8 = 64;
/// Netmask of the IPv4 network.
const MASK: Ipv4Addr = Ipv4Addr::from_bits(u32::MAX << (32 - PREFIX));
/// The name server in `/etc/resolv.conf` of containers, and their default gateway.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 1);

/// MTU in bytes. Packets never cross a physical link, and each costs two system calls whatever its size, so the largest
/// value is the best.
pub const MTU: usize = 65_535;

/// Name of the device in the container; the one that programs expect.
const NAME: &[u8] = b"eth0";

/// Opens a TUN device for the caller's network namespace. Must be called while the machine's `/dev` is still accessible.
pub(crate) fn open() -> io::Result<OwnedFd> {
    make_tun(NAME)
}

/// Assigns the device's addresses, brings it up, and adds the default routes.
pub(crate) fn bring_up(number: u8) -> io::Result<()> {
    let (own, own6) = addresses(number);
    let socket = Ipv4Socket::open()?;
    socket.set_mtu(NAME, MTU as i32)?;
    socket.set_address(NAME, own, MASK)?;
    socket.set_up(NAME)?;
    socket.set_default_route(GATEWAY)?;
    let index = socket.index(NAME)?;
    // Fails if the kernel does not support IPv6; the container then has none.
    let _ = bring_up6(index, own6);
    Ok(())
}

fn bring_up6(index: i32, own: Ipv6Addr) -> io::Result<()> {
    let socket = Ipv6Socket::open()?;
    socket.add_address(index, own, PREFIX6)?;
    socket.set_default_route(index)
}

/// Brings up the loopback interface of the network namespace.
pub(crate) fn loopback_up() -> io::Result<()> {
    Ipv4Socket::open()?.set_up(b"lo")
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

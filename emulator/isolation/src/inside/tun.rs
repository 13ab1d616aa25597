//! A container's network devices, set up by its init while it still has the capabilities for that: its loopback, and where
//! asked a device whose packets go to the emulator instead of a wire.
//!
//! The device is the kernel's TUN: what programs inside send comes out of a descriptor as IP packets, and what is written
//! there reaches them. The descriptor is handed to the engine; init keeps none.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    fcntl::OFlag,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
};

/// The device file that makes them.
pub(crate) const TUN: &str = "/dev/net/tun";

/// A container's own addresses on its device, by its number among those of one network. 192.0.0.0/24 is set aside for
/// protocols (RFC 6890), so it is nobody's destination; the IPv6 prefix is a locally assigned one, which resolvers prefer
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

// Of linux/if_tun.h; `_IOW('T', 202, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// The kernel's `struct in6_rtmsg`, whose fields the library hides.
#[repr(C)]
struct Route6 {
    destination: libc::in6_addr,
    source: libc::in6_addr,
    gateway: libc::in6_addr,
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    interface: libc::c_int,
}

/// Opens a device for the caller's network namespace. To be called while the machine's `/dev` is still there.
pub(crate) fn open() -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let device = nix::fcntl::open(TUN, flags, Mode::empty())?;
    let mut request = request(NAME);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    ioctl(&device, TUNSETIFF, &mut request)?;
    Ok(device)
}

/// Gives the opened device its addresses and makes it the way to everywhere.
pub(crate) fn bring_up(number: u8) -> io::Result<()> {
    let (own, own6) = addresses(number);
    let socket = udp(AddressFamily::Inet)?;
    let mut request = request(NAME);
    request.ifr_ifru.ifru_mtu = MTU as libc::c_int;
    ioctl(&socket, libc::SIOCSIFMTU, &mut request)?;
    request.ifr_ifru.ifru_addr = address(own);
    ioctl(&socket, libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_netmask = address(MASK);
    ioctl(&socket, libc::SIOCSIFNETMASK, &mut request)?;
    set_up(&socket, NAME)?;

    // Safety: all-zero is a valid route: no destination, no mask is the default route.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address(GATEWAY);
    route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    ioctl(&socket, libc::SIOCADDRT, &mut route)?;

    ioctl(&socket, libc::SIOCGIFINDEX, &mut request)?;
    // Safety: the call above has stored the number.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    // A kernel without IPv6 has none inside either.
    let _ = bring_up6(index, own6);
    Ok(())
}

fn bring_up6(index: libc::c_int, own: Ipv6Addr) -> io::Result<()> {
    let socket = udp(AddressFamily::Inet6)?;
    let own = libc::in6_addr { s6_addr: own.octets() };
    let none = libc::in6_addr { s6_addr: [0; 16] };
    let mut request = libc::in6_ifreq { ifr6_addr: own, ifr6_prefixlen: u32::from(PREFIX6), ifr6_ifindex: index };
    ioctl(&socket, libc::SIOCSIFADDR, &mut request)?;
    let mut route = Route6 {
        destination: none,
        source: none,
        gateway: none,
        kind: 0,
        destination_length: 0,
        source_length: 0,
        metric: 1,
        info: 0,
        flags: u32::from(libc::RTF_UP),
        interface: index,
    };
    ioctl(&socket, libc::SIOCADDRT, &mut route)
}

/// Brings the namespace's own loopback up.
pub(crate) fn loopback_up() -> io::Result<()> {
    set_up(&udp(AddressFamily::Inet)?, b"lo")
}

fn set_up(socket: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    ioctl(socket, libc::SIOCGIFFLAGS, &mut request)?;
    // Safety: the call above has stored the flags.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    ioctl(socket, libc::SIOCSIFFLAGS, &mut request)
}

/// Any socket will do: these requests only need one of the family.
fn udp(family: AddressFamily) -> io::Result<OwnedFd> {
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}

fn request(name: &[u8]) -> libc::ifreq {
    // Safety: an all-zero structure is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request
}

fn address(address: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // Safety: both are sixteen bytes of plain data.
    unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(inet) }
}

fn ioctl<T>(fd: &OwnedFd, number: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // Safety: each caller passes the structure that the request reads and writes.
    if unsafe { libc::ioctl(fd.as_raw_fd(), number as _, std::ptr::from_mut(argument)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
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

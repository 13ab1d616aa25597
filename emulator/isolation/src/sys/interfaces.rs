//! Requests about network interfaces, each with the one structure that the kernel reads and writes for it.
//!
//! `socket` is any socket of the address family that the request is about.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

/// Of linux/if_tun.h: `_IOW('T', 202, int)`.
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

/// Makes a TUN device of this name, whose packets come without a head, in the caller's network namespace. `device` is an open
/// `/dev/net/tun`.
pub(crate) fn make_tun(device: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: this request is about a `struct ifreq`.
    unsafe { ioctl(device, TUNSETIFF, &mut request) }
}

/// Sets the largest packet, in bytes.
pub(crate) fn set_mtu(socket: &OwnedFd, name: &[u8], mtu: libc::c_int) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = mtu;
    // SAFETY: this request is about a `struct ifreq`.
    unsafe { ioctl(socket, libc::SIOCSIFMTU, &mut request) }
}

/// Sets the IPv4 address and the mask of its network.
pub(crate) fn set_address(socket: &OwnedFd, name: &[u8], own: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_addr = address(own);
    // SAFETY: this request is about a `struct ifreq`.
    unsafe { ioctl(socket, libc::SIOCSIFADDR, &mut request) }?;
    request.ifr_ifru.ifru_netmask = address(mask);
    // SAFETY: as above.
    unsafe { ioctl(socket, libc::SIOCSIFNETMASK, &mut request) }
}

/// Brings an interface up.
pub(crate) fn set_up(socket: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    // SAFETY: this request is about a `struct ifreq`.
    unsafe { ioctl(socket, libc::SIOCGIFFLAGS, &mut request) }?;
    // SAFETY: the request above has stored the flags, and every value of theirs is valid.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: as above.
    unsafe { ioctl(socket, libc::SIOCSIFFLAGS, &mut request) }
}

/// The number of an interface.
pub(crate) fn index(socket: &OwnedFd, name: &[u8]) -> io::Result<libc::c_int> {
    let mut request = request(name);
    // SAFETY: this request is about a `struct ifreq`.
    unsafe { ioctl(socket, libc::SIOCGIFINDEX, &mut request) }?;
    // SAFETY: the request has stored the number, and every value of its is valid.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Makes a gateway the way to all IPv4 addresses.
pub(crate) fn set_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: the structure consists of integers and of a pointer that may be null, so all-zero is valid.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address(gateway);
    route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: this request to a socket of IPv4 is about a `struct rtentry`, whose pointer is null.
    unsafe { ioctl(socket, libc::SIOCADDRT, &mut route) }
}

/// Sets an IPv6 address.
pub(crate) fn set_address6(socket: &OwnedFd, index: libc::c_int, own: Ipv6Addr, prefix: u8) -> io::Result<()> {
    let own = libc::in6_addr { s6_addr: own.octets() };
    let mut request = libc::in6_ifreq { ifr6_addr: own, ifr6_prefixlen: prefix.into(), ifr6_ifindex: index };
    // SAFETY: this request to a socket of IPv6 is about a `struct in6_ifreq`.
    unsafe { ioctl(socket, libc::SIOCSIFADDR, &mut request) }
}

/// Makes an interface the way to all IPv6 addresses.
pub(crate) fn set_default_route6(socket: &OwnedFd, index: libc::c_int) -> io::Result<()> {
    let none = libc::in6_addr { s6_addr: [0; 16] };
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
    // SAFETY: this request to a socket of IPv6 is about a `struct in6_rtmsg`, whose layout `Route6` has.
    unsafe { ioctl(socket, libc::SIOCADDRT, &mut route) }
}

fn request(name: &[u8]) -> libc::ifreq {
    // SAFETY: the structure consists of integers and of a pointer that may be null, so all-zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name) {
        *to = *from as libc::c_char;
    }
    request
}

/// A `struct sockaddr_in` of this address and port 0, in the form of a `struct sockaddr`.
fn address(address: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    // The port comes first, in two bytes.
    for (to, from) in sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

/// One request.
///
/// # Safety
///
/// `T` has the layout of the structure that the request `number` reads and writes on such a descriptor, and pointers in it are
/// null or valid for that.
unsafe fn ioctl<T>(fd: &OwnedFd, number: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller promises that the kernel reads and writes no more than `argument`, which outlives the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), number as _, std::ptr::from_mut(argument)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

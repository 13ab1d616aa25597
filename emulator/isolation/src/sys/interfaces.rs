//! `ioctl` requests for network interfaces, each with the structure that the kernel expects.
//!
//! `socket` is any socket of the request's address family.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

/// From linux/if_tun.h: `_IOW('T', 202, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// The kernel's `struct in6_rtmsg`, whose fields are private in libc.
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

/// Creates a TUN device with this name in the caller's network namespace. Its packets have no header before the IP
/// header. `device` is an open `/dev/net/tun`.
pub(crate) fn make_tun(device: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(device, TUNSETIFF, &mut request) }
}

/// Sets the MTU in bytes.
pub(crate) fn set_mtu(socket: &OwnedFd, name: &[u8], mtu: libc::c_int) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_mtu = mtu;
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(socket, libc::SIOCSIFMTU, &mut request) }
}

/// Sets the IPv4 address and the netmask.
pub(crate) fn set_address(socket: &OwnedFd, name: &[u8], own: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_addr = address(own);
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(socket, libc::SIOCSIFADDR, &mut request) }?;
    request.ifr_ifru.ifru_netmask = address(mask);
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(socket, libc::SIOCSIFNETMASK, &mut request) }
}

/// Brings an interface up.
pub(crate) fn set_up(socket: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let mut request = request(name);
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(socket, libc::SIOCGIFFLAGS, &mut request) }?;
    // SAFETY: the request has stored the flags, and every value of this field is valid.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(socket, libc::SIOCSIFFLAGS, &mut request) }
}

/// Returns the index of an interface.
pub(crate) fn index(socket: &OwnedFd, name: &[u8]) -> io::Result<libc::c_int> {
    let mut request = request(name);
    // SAFETY: the kernel expects a `struct ifreq` for this request.
    unsafe { ioctl(socket, libc::SIOCGIFINDEX, &mut request) }?;
    // SAFETY: the request has stored the index, and every value of this field is valid.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Adds an IPv4 default route through a gateway.
pub(crate) fn set_default_route(socket: &OwnedFd, gateway: Ipv4Addr) -> io::Result<()> {
    // SAFETY: the structure consists of integers and a pointer that may be null, so all-zero is a valid value.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
    route.rt_gateway = address(gateway);
    route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
    route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
    // SAFETY: the kernel expects a `struct rtentry` for this request on an IPv4 socket. The pointer in it is null.
    unsafe { ioctl(socket, libc::SIOCADDRT, &mut route) }
}

/// Sets an IPv6 address and its prefix length.
pub(crate) fn set_address6(socket: &OwnedFd, index: libc::c_int, own: Ipv6Addr, prefix: u8) -> io::Result<()> {
    let own = libc::in6_addr { s6_addr: own.octets() };
    let mut request = libc::in6_ifreq { ifr6_addr: own, ifr6_prefixlen: prefix.into(), ifr6_ifindex: index };
    // SAFETY: the kernel expects a `struct in6_ifreq` for this request on an IPv6 socket.
    unsafe { ioctl(socket, libc::SIOCSIFADDR, &mut request) }
}

/// Adds an IPv6 default route through an interface.
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
    // SAFETY: the kernel expects a `struct in6_rtmsg` for this request on an IPv6 socket, and `Route6` has its layout.
    unsafe { ioctl(socket, libc::SIOCADDRT, &mut route) }
}

fn request(name: &[u8]) -> libc::ifreq {
    // SAFETY: the structure consists of integers and a pointer that may be null, so all-zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name) {
        *to = *from as libc::c_char;
    }
    request
}

/// Returns a `struct sockaddr_in` with this address and port 0, as a `struct sockaddr`.
fn address(address: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    // The first two bytes are the port.
    for (to, from) in sa_data.iter_mut().skip(2).zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}

/// Makes an `ioctl` request.
///
/// # Safety
///
/// `T` must have the layout of the structure that the kernel reads and writes for the request `number` on this
/// descriptor, and pointers in it must be null or valid.
unsafe fn ioctl<T>(fd: &OwnedFd, number: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller guarantees that the kernel accesses only `argument`, which outlives the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), number as _, std::ptr::from_mut(argument)) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

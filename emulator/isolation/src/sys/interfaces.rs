//! Network interfaces and routes, by `ioctl` requests with the structures that the kernel expects.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        socket::{AddressFamily, SockFlag, SockType, socket},
        stat::Mode,
    },
};

/// The device file that creates TUN devices.
pub(crate) const TUN: &str = "/dev/net/tun";

/// From linux/if_tun.h: `_IOW('T', 202, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;

/// Size of the value in a `struct ifreq`, in bytes.
const VALUE_BYTES: usize = size_of::<libc::ifreq>() - libc::IFNAMSIZ;

/// The value of a [`InterfaceRequest`].
type Value = [u8; VALUE_BYTES];

/// The kernel's `struct ifreq`: the name of an interface, and a value whose type depends on the request. In libc the
/// value is a union, which only unsafe code can read.
#[repr(C, align(8))]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    value: Value,
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// The kernel's `struct rtentry`, whose fields differ between C libraries in libc.
#[repr(C)]
struct Route4 {
    unused1: libc::c_ulong,
    destination: [u8; 16],
    gateway: [u8; 16],
    mask: [u8; 16],
    flags: u16,
    unused2: i16,
    unused3: libc::c_ulong,
    unused4: libc::c_ulong,
    metric: i16,
    device: libc::c_ulong,
    mtu: libc::c_ulong,
    window: libc::c_ulong,
    round_trip: u16,
}

const _: () = assert!(size_of::<Route4>() == size_of::<libc::rtentry>());

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

const _: () = assert!(size_of::<Route6>() == size_of::<libc::in6_rtmsg>());

/// The requests whose argument is a `struct ifreq`: to the TUN device file, or to a socket.
#[derive(Clone, Copy)]
enum Request {
    MakeTun,
    SetMtu,
    SetAddress,
    SetNetmask,
    GetFlags,
    SetFlags,
    GetIndex,
}

impl Request {
    fn number(self) -> libc::c_ulong {
        match self {
            Self::MakeTun => TUNSETIFF,
            Self::SetMtu => libc::SIOCSIFMTU,
            Self::SetAddress => libc::SIOCSIFADDR,
            Self::SetNetmask => libc::SIOCSIFNETMASK,
            Self::GetFlags => libc::SIOCGIFFLAGS,
            Self::SetFlags => libc::SIOCSIFFLAGS,
            Self::GetIndex => libc::SIOCGIFINDEX,
        }
    }
}

/// Creates a TUN device with this name in the caller's network namespace. Its packets have no header before the IP
/// header. Returns the emulator's side of it, which is non-blocking.
pub(crate) fn make_tun(name: &[u8]) -> io::Result<OwnedFd> {
    let device = nix::fcntl::open(TUN, OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())?;
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    interface_request(&device, Request::MakeTun, name, &flags.to_ne_bytes())?;
    Ok(device)
}

/// An IPv4 socket for requests about the interfaces and routes of the caller's network namespace.
pub(crate) struct Ipv4Socket(OwnedFd);

impl Ipv4Socket {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?))
    }

    /// Sets the MTU in bytes.
    pub(crate) fn set_mtu(&self, name: &[u8], mtu: libc::c_int) -> io::Result<()> {
        interface_request(&self.0, Request::SetMtu, name, &mtu.to_ne_bytes()).map(drop)
    }

    /// Sets the address and the netmask.
    pub(crate) fn set_address(&self, name: &[u8], own: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
        interface_request(&self.0, Request::SetAddress, name, &socket_address(own))?;
        interface_request(&self.0, Request::SetNetmask, name, &socket_address(mask)).map(drop)
    }

    /// Brings an interface up.
    pub(crate) fn set_up(&self, name: &[u8]) -> io::Result<()> {
        let found = interface_request(&self.0, Request::GetFlags, name, &[])?;
        let flags = libc::c_short::from_ne_bytes([found[0], found[1]]) | libc::IFF_UP as libc::c_short;
        interface_request(&self.0, Request::SetFlags, name, &flags.to_ne_bytes()).map(drop)
    }

    /// Returns the index of an interface.
    pub(crate) fn index(&self, name: &[u8]) -> io::Result<libc::c_int> {
        let found = interface_request(&self.0, Request::GetIndex, name, &[])?;
        Ok(libc::c_int::from_ne_bytes([found[0], found[1], found[2], found[3]]))
    }

    /// Adds a default route through a gateway.
    pub(crate) fn set_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        let mut route = Route4 {
            unused1: 0,
            destination: socket_address(Ipv4Addr::UNSPECIFIED),
            gateway: socket_address(gateway),
            mask: socket_address(Ipv4Addr::UNSPECIFIED),
            flags: libc::RTF_UP | libc::RTF_GATEWAY,
            unused2: 0,
            unused3: 0,
            unused4: 0,
            metric: 0,
            device: 0,
            mtu: 0,
            window: 0,
            round_trip: 0,
        };
        // SAFETY: the kernel accesses a `struct rtentry` for this request on an IPv4 socket. `Route4` has its layout, and the
        // pointer in it, `device`, is null.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCADDRT as _, &raw mut route) };
        Ok(Errno::result(done).map(drop)?)
    }
}

/// An IPv6 socket for requests about the interfaces and routes of the caller's network namespace.
pub(crate) struct Ipv6Socket(OwnedFd);

impl Ipv6Socket {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?))
    }

    /// Adds an address with its prefix length to the interface with this index.
    pub(crate) fn add_address(&self, index: libc::c_int, own: Ipv6Addr, prefix: u8) -> io::Result<()> {
        let own = libc::in6_addr { s6_addr: own.octets() };
        let mut request = libc::in6_ifreq { ifr6_addr: own, ifr6_prefixlen: prefix.into(), ifr6_ifindex: index };
        // SAFETY: the kernel accesses a `struct in6_ifreq` for this request on an IPv6 socket.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCSIFADDR as _, &raw mut request) };
        Ok(Errno::result(done).map(drop)?)
    }

    /// Adds a default route through the interface with this index.
    pub(crate) fn set_default_route(&self, index: libc::c_int) -> io::Result<()> {
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
        // SAFETY: the kernel accesses a `struct in6_rtmsg` for this request on an IPv6 socket, and `Route6` has its layout.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCADDRT as _, &raw mut route) };
        Ok(Errno::result(done).map(drop)?)
    }
}

/// Makes a request about an interface. `value` has at most [`VALUE_BYTES`] bytes; the rest is zero. Returns the value
/// that the kernel has stored. `fd` is a socket, or the TUN device file for [`Request::MakeTun`].
fn interface_request(fd: &OwnedFd, request: Request, name: &[u8], value: &[u8]) -> io::Result<Value> {
    let mut argument = InterfaceRequest { name: [0; libc::IFNAMSIZ], value: [0; VALUE_BYTES] };
    // The last byte of the name stays zero.
    for (to, from) in argument.name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name) {
        *to = *from;
    }
    argument.value[..value.len()].copy_from_slice(value);
    // SAFETY: the kernel accesses at most a `struct ifreq` for each of these requests. `argument` has its size and its
    // alignment, and none of the values is a pointer.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request.number() as _, &raw mut argument) };
    Errno::result(done)?;
    Ok(argument.value)
}

/// Returns a `struct sockaddr_in` with this address and port 0.
fn socket_address(address: Ipv4Addr) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes
}

//! Which ports of a network namespace accept connections, asked from the kernel. The tables in `/proc/net` have the same
//! content, but the kernel takes milliseconds to write them, because it looks at all places for connections.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with};

/// Numbers of the kernel's interface: `linux/netlink.h`, `linux/sock_diag.h`, `linux/inet_diag.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
const BY_FAMILY: u16 = 20;
const REQUEST_DUMP: u16 = 0x301;
const TCP: u8 = 6;
const LISTEN: u32 = 1 << 10;
const FAMILIES: [u8; 2] = [2, 10];

/// Lengths of the head of a message, and of a request with its head.
const HEAD: usize = 16;
const LENGTH: usize = HEAD + 56;

/// Places in a socket that the kernel describes.
const PORT: usize = 4;
const ADDRESS: usize = 8;
const SOCKET: usize = 24;

/// A connection to the kernel, in the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Listeners(OwnedFd);

impl Listeners {
    /// Opens a connection in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Fails if the kernel was built without this interface.
    pub(crate) fn open() -> io::Result<Self> {
        let protocol = Some(netlink::SOCK_DIAG);
        Ok(Self(socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?))
    }

    /// Returns the TCP ports that accept connections to 127.0.0.1. Two threads must not call this at a time.
    ///
    /// # Errors
    ///
    /// Fails if the kernel refuses the question.
    pub(crate) fn local_ports(&self) -> io::Result<BTreeSet<u16>> {
        let mut ports = BTreeSet::new();
        for family in FAMILIES {
            send(&self.0, &question(family), SendFlags::empty())?;
            let mut buffer = [0; 32 << 10];
            loop {
                let (length, _) = recv(&self.0, &mut buffer, RecvFlags::empty())?;
                if read(&buffer[..length], family, &mut ports)? {
                    break;
                }
            }
        }
        Ok(ports)
    }
}

fn question(family: u8) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    message[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    message[HEAD] = family;
    message[HEAD + 1] = TCP;
    message[HEAD + 4..HEAD + 8].copy_from_slice(&LISTEN.to_ne_bytes());
    message
}

/// Adds the ports of some messages. Returns whether they contain the last one.
fn read(mut messages: &[u8], family: u8, ports: &mut BTreeSet<u16>) -> io::Result<bool> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of sockets is incomplete");
    while let Some((head, _)) = messages.split_first_chunk::<HEAD>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let message = messages.get(HEAD..length).ok_or_else(invalid)?;
        match u16::from_ne_bytes([head[4], head[5]]) {
            DONE => return Ok(true),
            ERROR => return Err(io::Error::other("the kernel does not list sockets")),
            _ => {
                let socket = message.get(..SOCKET).ok_or_else(invalid)?;
                if accepts_local(&socket[ADDRESS..], family) {
                    ports.insert(u16::from_be_bytes([socket[PORT], socket[PORT + 1]]));
                }
            }
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Returns whether a socket with this address accepts connections to 127.0.0.1.
fn accepts_local(address: &[u8], family: u8) -> bool {
    if family == FAMILIES[0] {
        return address.starts_with(&Ipv4Addr::LOCALHOST.octets()) || address.starts_with(&[0; 4]);
    }
    address == Ipv6Addr::UNSPECIFIED.octets() || address == Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn ports_that_accept_local_connections_are_found() {
        let port = |listener: &TcpListener| listener.local_addr().expect("no address").port();
        let local = TcpListener::bind("127.0.0.1:0").expect("no port");
        let all = TcpListener::bind("0.0.0.0:0").expect("no port");
        let both = TcpListener::bind("[::]:0").expect("no port");
        let other = TcpListener::bind("127.0.0.2:0").expect("no port");
        let listeners = Listeners::open().expect("cannot ask");
        let ports = listeners.local_ports().expect("no answer");
        assert!([&local, &all, &both].iter().all(|listener| ports.contains(&port(listener))), "{ports:?}");
        assert!(!ports.contains(&port(&other)), "{ports:?}");
        let closed = port(&local);
        drop(local);
        assert!(!listeners.local_ports().expect("no answer").contains(&closed));
    }

    #[test]
    fn an_incomplete_message_is_an_error() {
        let mut message = question(FAMILIES[0]);
        assert!(read(&message[..LENGTH - 1], FAMILIES[0], &mut BTreeSet::new()).is_err());
        message[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        assert!(read(&message, FAMILIES[0], &mut BTreeSet::new()).is_err());
        message[4..6].copy_from_slice(&DONE.to_ne_bytes());
        assert!(read(&message, FAMILIES[0], &mut BTreeSet::new()).is_ok_and(|last| last));
    }
}

//! Names and addresses as this machine knows them: how a name is resolved for a container, and which addresses no container
//! may reach whatever its policy says.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use net_classes::Class;
use tokio::sync::Semaphore;

/// Look-ups at a time, of all containers together. The machine's resolver blocks, so each holds a thread, for many seconds
/// if no name server answers.
const AT_A_TIME: usize = 16;

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no such name.
    Unknown,
    /// No name server could be asked.
    Unavailable,
}

/// Resolves names for all containers of an emulator.
#[derive(Debug)]
pub struct Names {
    own: HashMap<String, Vec<IpAddr>>,
    permits: Semaphore,
}

impl Names {
    /// `own` are names that have these addresses inside, whatever the machine's resolver says.
    pub fn new(own: &[(String, IpAddr)]) -> Names {
        let mut by_name: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (name, address) in own {
            by_name.entry(name.to_ascii_lowercase()).or_default().push(*address);
        }
        Names { own: by_name, permits: Semaphore::new(AT_A_TIME) }
    }

    /// The addresses of a name: those given, or what the machine's own resolver (with its hosts file) says.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(own) = self.own.get(&name) {
            return Ok(own.clone());
        }
        let Ok(_permit) = self.permits.acquire().await else { return Err(Failure::Unavailable) };
        let looked_up = tokio::task::spawn_blocking(move || {
            // One answer per address, not one per kind of socket.
            let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
            let found = getaddrinfo(Some(&name), None, Some(hints)).map_err(|error| match error.kind() {
                LookupErrorKind::NoName | LookupErrorKind::NoData => Failure::Unknown,
                _ => Failure::Unavailable,
            })?;
            Ok(found.filter_map(Result::ok).map(|found| found.sockaddr.ip()).collect())
        });
        looked_up.await.unwrap_or(Err(Failure::Unavailable))
    }
}

/// Whether a container may ever reach this address: an address of one other machine. Not this machine's own ones, among
/// which are all on which its services listen; not those that mean "this host", "this link" or "all hosts", and not the
/// metadata services of clouds, which hand out credentials. Ranges for documentation and benchmarks may be reached: a
/// machine's own network may use them.
pub fn may_be_reached(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let special = matches!(Class::of(address), Class::Loopback | Class::LinkLocal | Class::Metadata)
        || match address {
            IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 224,
            IpAddr::V6(v6) => v6.is_multicast() || holds_v4(v6),
        };
    !special && !is_own(address)
}

/// Whether an IPv6 address holds an IPv4 address: translators would send packets to that address, which has not been checked.
fn holds_v4(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = address.segments();
    // The deprecated `::a.b.c.d`, 6to4, and the well-known and local prefixes of NAT64 (RFC 6052, RFC 8215).
    [a, b, c, d, e, f] == [0; 6] || a == 0x2002 || (a, b) == (0x64, 0xff9b)
}

/// Whether the machine would deliver to itself. Asked of its routing, which knows of more than the addresses of interfaces:
/// who sends to himself does so from the address he sends to, or
/// from the loopback's. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The port is of no account; discard is one.
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    // Without a route there it will not be reached anyway, and who asks is told so when he tries.
    from.is_ok_and(|from| from.ip() == address || from.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_never_reached() {
        for address in [
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "fe80::1",
            "ff02::1",
            // Metadata services of clouds.
            "fd00:ec2::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "64:ff9b:1::a9fe:a9fe",
        ] {
            assert!(!may_be_reached(address.parse().unwrap()), "{address}");
        }
        // Documentation addresses: no host has them.
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(may_be_reached(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn own_addresses_are_known_by_the_way_to_them() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        // Not assigned to any interface, and still this machine.
        assert!(is_own("127.1.2.3".parse().unwrap()));
        assert!(!is_own("192.0.2.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn given_names_come_first() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let names = Names::new(&[("Given.Example".to_owned(), address)]);
        assert_eq!(names.resolve("given.example.").await, Ok(vec![address]));
        assert!(names.resolve("localhost").await.unwrap().iter().all(IpAddr::is_loopback));
    }
}

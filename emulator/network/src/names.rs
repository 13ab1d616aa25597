//! Resolves names for containers, and decides which addresses no container may reach, whatever its policy permits.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use net_classes::Class;
use tokio::sync::Semaphore;

/// Maximum number of concurrent look-ups, for all containers together. The machine's resolver is blocking, so each
/// look-up occupies a thread, for many seconds if no name server responds.
const AT_A_TIME: usize = 16;

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The name does not exist or has no addresses.
    Unknown,
    /// The look-up failed, for example because no name server responded.
    Unavailable,
}

/// Resolves names for all containers of an emulator.
#[derive(Debug)]
pub struct Names {
    own: HashMap<String, Vec<IpAddr>>,
    permits: Semaphore,
}

impl Names {
    /// Creates a resolver. The names in `own` resolve to the addresses given here instead of those of the machine's
    /// resolver. Names are case-insensitive; a name may occur more than once to have several addresses.
    pub fn new(own: &[(String, IpAddr)]) -> Names {
        let mut by_name: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for (name, address) in own {
            by_name.entry(name.to_ascii_lowercase()).or_default().push(*address);
        }
        Names { own: by_name, permits: Semaphore::new(AT_A_TIME) }
    }

    /// Returns the addresses of a name: those passed to [`Names::new`], or else those that the machine's resolver
    /// returns, which also reads the hosts file. A trailing dot in the name is ignored.
    ///
    /// # Errors
    ///
    /// Returns [`Failure::Unknown`] if the name has no addresses, and [`Failure::Unavailable`] if the look-up fails.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Failure> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(own) = self.own.get(&name) {
            return Ok(own.clone());
        }
        let Ok(_permit) = self.permits.acquire().await else { return Err(Failure::Unavailable) };
        let looked_up = tokio::task::spawn_blocking(move || {
            // With a socket type, `getaddrinfo` returns each address once instead of once per socket type.
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

/// Returns whether containers may reach this address if their policy permits it. Returns `false` for:
///
/// - addresses of this machine, on which its services listen;
/// - loopback, link-local, multicast and reserved addresses, broadcast and `0.0.0.0/8`;
/// - the metadata services of clouds, which return credentials;
/// - IPv6 addresses that contain an IPv4 address.
///
/// Ranges for documentation and benchmarks are permitted because the machine's network may use them.
pub fn may_be_reached(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let special = matches!(Class::of(address), Class::Loopback | Class::LinkLocal | Class::Metadata)
        || match address {
            IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 224,
            IpAddr::V6(v6) => v6.is_multicast() || holds_v4(v6),
        };
    !special && !is_own(address)
}

/// Returns whether an IPv6 address contains an IPv4 address. A translator would send packets to that IPv4 address, which
/// has not been checked.
fn holds_v4(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, ..] = address.segments();
    // The deprecated `::a.b.c.d`, 6to4, and the well-known and local prefixes of NAT64 (RFC 6052, RFC 8215).
    [a, b, c, d, e, f] == [0; 6] || a == 0x2002 || (a, b) == (0x64, 0xff9b)
}

/// Returns whether the machine would deliver packets for `address` to itself. Connects a UDP socket, which sends nothing,
/// and checks the source address that the kernel chooses: for local destinations it is the destination itself or a
/// loopback address. Unlike a list of the interfaces' addresses, this also covers local routes.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Any port works, because nothing is sent; 9 is the discard port.
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    // Without a route, the later connection attempt fails and reports the error to the program.
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
        // Documentation addresses, which no host has.
        for address in ["192.0.2.1", "2001:db8::1"] {
            assert!(may_be_reached(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn own_addresses_are_known_by_the_way_to_them() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        // Not assigned to an interface, but still delivered locally.
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

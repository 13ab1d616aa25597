//! The addresses of containers, as the maker of their devices has given them out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses of the containers that reach each other through one [`Switch`](crate::Switch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    /// Where containers send questions for names.
    pub gateway: Ipv4Addr,
    /// The addresses of each container, by its number. A switch has as many ports.
    pub containers: Vec<(Ipv4Addr, Ipv6Addr)>,
    /// The networks that all these addresses are in. Nothing in them is reached outside.
    pub networks: Vec<IpNet>,
    /// Largest packet of a device, in bytes.
    pub mtu: usize,
}

impl Addressing {
    /// Whether an address is that of the container with this number.
    pub(crate) fn has(&self, number: u8, address: IpAddr) -> bool {
        let own = self.containers.get(usize::from(number));
        own.is_some_and(|(v4, v6)| address == IpAddr::V4(*v4) || address == IpAddr::V6(*v6))
    }

    /// Whether an address is in the networks of containers.
    pub(crate) fn is_containers(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_belong_to_numbers_and_networks() {
        let v6 = |last: u16| Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, last);
        let addressing = Addressing {
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            containers: vec![(Ipv4Addr::new(192, 0, 2, 2), v6(2)), (Ipv4Addr::new(192, 0, 2, 3), v6(3))],
            networks: vec!["192.0.2.0/24".parse().unwrap(), "fd00:0:0:1::/64".parse().unwrap()],
            mtu: 1500,
        };
        assert!(addressing.has(0, Ipv4Addr::new(192, 0, 2, 2).into()) && addressing.has(1, v6(3).into()));
        assert!(!addressing.has(1, v6(2).into()) && !addressing.has(2, Ipv4Addr::new(192, 0, 2, 4).into()));
        assert!(
            addressing.is_containers(Ipv4Addr::new(192, 0, 2, 77).into()) && addressing.is_containers(v6(77).into())
        );
        assert!(!addressing.is_containers(Ipv4Addr::new(192, 0, 3, 2).into()));
    }
}

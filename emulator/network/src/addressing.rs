//! The IP addresses of the containers on one switch. The crate that creates the network devices assigns them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The addresses of the containers that are connected by one [`Switch`](crate::Switch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressing {
    /// Address of the name server, which `dns` implements. Containers send DNS queries there.
    pub gateway: Ipv4Addr,
    /// IPv4 and IPv6 address of each container, indexed by container number. A switch has one port per entry.
    pub containers: Vec<(Ipv4Addr, Ipv6Addr)>,
    /// The networks that contain all of these addresses. Packets to other addresses in them are never sent outside.
    pub networks: Vec<IpNet>,
    /// MTU of a container's network device, in bytes.
    pub mtu: usize,
}

impl Addressing {
    /// Returns whether `address` belongs to the container with this number.
    pub(crate) fn has(&self, number: u8, address: IpAddr) -> bool {
        let own = self.containers.get(usize::from(number));
        own.is_some_and(|(v4, v6)| address == IpAddr::V4(*v4) || address == IpAddr::V6(*v6))
    }

    /// Returns whether `address` is in one of the container networks.
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

//! Classifies IP addresses by the IANA registries of special-purpose addresses.
//!
//! The host and the emulator use the classes to decide which addresses may be reached. The tests of both cover this
//! crate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The class of an IP address, as far as network policies distinguish them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// Routed on the internet.
    Public,
    /// This machine. The unspecified address is included, because connections to it reach this machine.
    Loopback,
    /// A private network. Unique local IPv6 addresses and carrier-grade NAT are included.
    Private,
    /// The local link, where most clouds have their metadata services.
    LinkLocal,
    /// A metadata service of a cloud, at an address that would otherwise have another class.
    Metadata,
    /// Multicast, documentation, translation and other reserved ranges.
    Reserved,
}

use Class::{LinkLocal, Loopback, Metadata, Private, Public, Reserved};

/// The IANA IPv4 Special-Purpose Address Registry (RFC 6890), multicast (RFC 5771), and metadata services. The smallest
/// range that contains an address decides. An address outside all ranges is public.
const V4: &[(&str, Class)] = &[
    // "This network", and "this host on this network".
    ("0.0.0.0/8", Reserved),
    ("0.0.0.0/32", Loopback),
    ("10.0.0.0/8", Private),
    // Shared address space: carrier-grade NAT.
    ("100.64.0.0/10", Private),
    // Alibaba Cloud.
    ("100.100.100.200/32", Metadata),
    ("127.0.0.0/8", Loopback),
    ("169.254.0.0/16", LinkLocal),
    // Azure ("WireServer").
    ("168.63.129.16/32", Metadata),
    ("172.16.0.0/12", Private),
    // IETF protocol assignments: DS-Lite, the IPv4 dummy address, PCP and TURN anycast, NAT64 discovery.
    ("192.0.0.0/24", Reserved),
    // Oracle Cloud.
    ("192.0.0.192/32", Metadata),
    // Documentation.
    ("192.0.2.0/24", Reserved),
    // AS112 and AMT are public services that no plugin needs.
    ("192.31.196.0/24", Reserved),
    ("192.52.193.0/24", Reserved),
    // 6to4 relay anycast, withdrawn.
    ("192.88.99.0/24", Reserved),
    ("192.168.0.0/16", Private),
    ("192.175.48.0/24", Reserved),
    // Benchmarking.
    ("198.18.0.0/15", Reserved),
    ("198.51.100.0/24", Reserved),
    ("203.0.113.0/24", Reserved),
    // Multicast, and addresses reserved for future use, with the limited broadcast address.
    ("224.0.0.0/4", Reserved),
    ("240.0.0.0/4", Reserved),
];

/// The IANA IPv6 Special-Purpose Address Registry, and metadata services. The smallest range decides, as in [`V4`].
/// Addresses outside 2000::/3, the global unicast addresses in use, are reserved.
const V6: &[(&str, Class)] = &[
    ("::/0", Reserved),
    ("::/128", Loopback),
    ("::1/128", Loopback),
    // NAT64 with a prefix of the local network (RFC 8215). The network decides where these addresses lead.
    ("64:ff9b:1::/48", Reserved),
    // Discard-only, and the dummy prefix.
    ("100::/64", Reserved),
    ("100:0:0:1::/64", Reserved),
    ("2000::/3", Public),
    // IETF protocol assignments: Teredo, benchmarking, AMT, AS112, ORCHID in both versions, DRIP.
    ("2001::/23", Reserved),
    ("2001::/32", Reserved),
    ("2001:2::/48", Reserved),
    ("2001:10::/28", Reserved),
    ("2001:20::/28", Reserved),
    ("2001:30::/28", Reserved),
    // Documentation.
    ("2001:db8::/32", Reserved),
    ("3fff::/20", Reserved),
    ("2620:4f:8000::/48", Reserved),
    // Segment routing.
    ("5f00::/16", Reserved),
    // Unique local.
    ("fc00::/7", Private),
    // Amazon, Google, Oracle and Scaleway, in that order.
    ("fd00:ec2::254/128", Metadata),
    ("fd20:ce::254/128", Metadata),
    ("fd00:c1::a9fe:a9fe/128", Metadata),
    ("fd00:42::42/128", Metadata),
    ("fe80::/10", LinkLocal),
    ("ff00::/8", Reserved),
];

impl Class {
    /// Classifies an address. An IPv6 address that contains an IPv4 address (mapped, compatible, 6to4, or NAT64 with
    /// the well-known prefix) has the class of that IPv4 address.
    pub fn of(address: IpAddr) -> Class {
        let address = match address {
            IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
            IpAddr::V4(_) => address,
        };
        match address {
            IpAddr::V4(v4) => smallest(V4, u128::from(v4.to_bits()), 32).unwrap_or(Public),
            IpAddr::V6(v6) => smallest(V6, v6.to_bits(), 128).unwrap_or(Reserved),
        }
    }
}

/// Returns the IPv4 address that an IPv6 address contains by its format.
pub fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, .., g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        _ if v6.to_ipv4_mapped().is_some() => v6.to_ipv4_mapped(),
        _ if a == 0x2002 => Some(v4(b, c)),
        // NAT64 with the well-known prefix. With another prefix, the local network decides where the IPv4 address is
        // within the address (RFC 6052, section 2.2), so it cannot be extracted.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(v4(g, h)),
        // The obsolete "compatible" format, which excludes ::1 and ::.
        [0, 0, 0, 0, 0, 0, ..] if g != 0 => Some(v4(g, h)),
        _ => None,
    }
}

/// Returns the class of the smallest range that contains the address.
fn smallest(ranges: &[(&str, Class)], address: u128, width: u32) -> Option<Class> {
    let mut found: Option<(u32, Class)> = None;
    for (range, class) in ranges {
        let Some((base, length)) = parse(range) else { continue };
        let rest = width - length;
        // A shift by all 128 bits is undefined. The range of that size contains every address.
        let holds = rest == 128 || (base ^ address) >> rest == 0;
        if holds && found.is_none_or(|(longest, _)| length >= longest) {
            found = Some((length, *class));
        }
    }
    found.map(|(_, class)| class)
}

fn parse(range: &str) -> Option<(u128, u32)> {
    let (base, length) = range.split_once('/')?;
    let base = match base.parse().ok()? {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    Some((base, length.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_valid_and_unique() {
        for (ranges, width) in [(V4, 32), (V6, 128)] {
            for (n, (range, _)) in ranges.iter().enumerate() {
                let (base, length) = parse(range).unwrap_or_else(|| panic!("{range}"));
                assert!(length <= width, "{range}");
                let mask = if length == 0 { 0 } else { u128::MAX << (width - length) };
                assert_eq!(base & !mask & (u128::MAX >> (128 - width)), 0, "{range}");
                assert!(ranges[..n].iter().all(|(other, _)| other != range), "{range}");
            }
        }
    }

    /// The first and the last address of each range, and their neighbours.
    #[test]
    fn ranges_end_where_the_registries_say() {
        for (text, class) in [
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("0.0.0.0", Loopback),
            ("0.0.0.1", Reserved),
            ("100.63.255.255", Public),
            ("100.64.0.0", Private),
            ("100.100.100.199", Private),
            ("100.100.100.200", Metadata),
            ("100.127.255.255", Private),
            ("100.128.0.0", Public),
            ("168.63.129.15", Public),
            ("168.63.129.16", Metadata),
            ("169.253.255.255", Public),
            ("169.254.0.0", LinkLocal),
            ("172.15.255.255", Public),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("192.0.0.192", Metadata),
            ("192.0.1.0", Public),
            ("198.17.255.255", Public),
            ("198.19.255.255", Reserved),
            ("198.20.0.0", Public),
            ("223.255.255.255", Public),
            ("224.0.0.0", Reserved),
            ("255.255.255.255", Reserved),
            ("::", Loopback),
            ("::1", Loopback),
            ("::2", Reserved),
            ("1fff::", Reserved),
            ("2000::", Public),
            ("2001::1", Reserved),
            ("2001:10::", Reserved),
            ("2001:1f:ffff::", Reserved),
            ("2001:2f:ffff::", Reserved),
            ("2001:1ff::", Reserved),
            ("2001:200::", Public),
            ("2001:db7::", Public),
            ("2001:db8::", Reserved),
            ("2001:db9::", Public),
            ("2606:2800:220:1::1", Public),
            ("3ffe:ffff::", Public),
            ("3fff::", Reserved),
            ("3fff:fff::1", Reserved),
            ("3fff:1000::", Public),
            ("4000::", Reserved),
            ("fbff::", Reserved),
            ("fc00::", Private),
            ("fd00:ec2::253", Private),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("fdff:ffff::", Private),
            ("fe7f::", Reserved),
            ("fe80::", LinkLocal),
            ("febf::", LinkLocal),
            ("fec0::", Reserved),
            ("ff02::1", Reserved),
            ("::ffff:168.63.129.16", Metadata),
            ("::168.63.129.16", Metadata),
            ("64:ff9b::6464:64c8", Metadata),
            ("2002:a83f:8110::", Metadata),
            ("64:ff9b:1::a9fe:a9fe", Reserved),
            ("64:ff9b:2::", Reserved),
        ] {
            assert_eq!(Class::of(text.parse().unwrap()), class, "{text}");
        }
    }
}

//! Parses the IP packets that programs in a container send, and builds the packets that answer them.
//!
//! The library checks all lengths before it reads. Fragments and extension headers are not supported: the device accepts
//! packets of any size, so the kernel in the container does not fragment.

use std::net::{IpAddr, SocketAddr};

use smoltcp::{
    phy::ChecksumCapabilities,
    wire::{
        Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Message, Icmpv6Packet,
        IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
    },
};

/// Number of bytes of a rejected packet that the ICMP message quotes; enough for the sender to find its socket.
const QUOTED: usize = 128;

/// TTL (IPv4) or hop limit (IPv6) of the packets built here. They make a single hop.
const HOPS: u8 = 64;

/// The two endpoints of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    /// Address and port of the program in the container.
    pub(crate) inside: SocketAddr,
    /// Address and port of the destination.
    pub(crate) outside: SocketAddr,
}

/// The protocol of a packet, with its payload for UDP.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// A TCP segment; `opens` is true for the SYN that opens a connection.
    Tcp { opens: bool },
    /// A UDP datagram.
    Udp { payload: &'a [u8] },
    /// An ICMP echo request (ping).
    Echo,
}

/// A packet that a program in the container sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) ends: Ends,
    pub(crate) kind: Kind<'a>,
    /// Offset of the transport header in `bytes`.
    transport: usize,
}

/// Why a packet is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The policy does not permit it.
    Prohibited,
    /// The destination cannot be reached.
    Host,
    /// No process listens on the port.
    Port,
}

/// Returns the source and the destination address of an IP packet. Returns `None` if the packet is malformed.
pub(crate) fn addresses(bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match bytes.first()? >> 4 {
        4 => Ipv4Packet::new_checked(bytes).ok().map(|ip| (ip.src_addr().into(), ip.dst_addr().into())),
        6 => Ipv6Packet::new_checked(bytes).ok().map(|ip| (ip.src_addr().into(), ip.dst_addr().into())),
        _ => None,
    }
}

impl<'a> Packet<'a> {
    /// Parses an IP packet. Returns `None` if it is malformed, a fragment, a TCP reset, sent to a multicast or broadcast
    /// address, or is neither TCP, UDP nor an ICMP echo request.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Packet<'a>> {
        let (protocol, source, destination, transport, end) = match bytes.first()? >> 4 {
            4 => {
                let ip = Ipv4Packet::new_checked(bytes).ok()?;
                if ip.more_frags() || ip.frag_offset() != 0 {
                    return None;
                }
                let (from, to) = (ip.src_addr(), ip.dst_addr());
                if to.is_multicast() || to.is_broadcast() {
                    return None;
                }
                (ip.next_header(), from.into(), to.into(), usize::from(ip.header_len()), usize::from(ip.total_len()))
            }
            6 => {
                let ip = Ipv6Packet::new_checked(bytes).ok()?;
                let (from, to): (std::net::Ipv6Addr, std::net::Ipv6Addr) = (ip.src_addr(), ip.dst_addr());
                if to.is_multicast() {
                    return None;
                }
                (ip.next_header(), IpAddr::from(from), IpAddr::from(to), ip.header_len(), ip.total_len())
            }
            _ => return None,
        };
        let payload = bytes.get(transport..end)?;
        let (kind, from, to) = match protocol {
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(payload).ok()?;
                let opens = tcp.syn() && !tcp.ack() && !tcp.rst();
                // A reset must not be answered with a reset: the exchange might never end.
                if tcp.rst() {
                    return None;
                }
                (Kind::Tcp { opens }, tcp.src_port(), tcp.dst_port())
            }
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(payload).ok()?;
                let (from, to) = (udp.src_port(), udp.dst_port());
                (Kind::Udp { payload: udp.payload() }, from, to)
            }
            IpProtocol::Icmp if Icmpv4Packet::new_checked(payload).ok()?.msg_type() == Icmpv4Message::EchoRequest => {
                (Kind::Echo, 0, 0)
            }
            IpProtocol::Icmpv6 if Icmpv6Packet::new_checked(payload).ok()?.msg_type() == Icmpv6Message::EchoRequest => {
                (Kind::Echo, 0, 0)
            }
            _ => return None,
        };
        if matches!(kind, Kind::Tcp { .. } | Kind::Udp { .. }) && (from == 0 || to == 0) {
            return None;
        }
        let ends = Ends { inside: (source, from).into(), outside: (destination, to).into() };
        Some(Packet { bytes: &bytes[..end], ends, kind, transport })
    }

    /// Builds the TCP reset that a host sends for a segment of an unknown connection. Returns an empty vector if the
    /// packet cannot be parsed as TCP.
    pub(crate) fn reset(&self) -> Vec<u8> {
        let Ok(tcp) = TcpPacket::new_checked(&self.bytes[self.transport..]) else { return Vec::new() };
        let (seq_number, ack_number) = if tcp.ack() {
            (tcp.ack_number(), None)
        } else {
            (TcpSeqNumber::default(), Some(tcp.seq_number() + tcp.segment_len()))
        };
        let repr = TcpRepr {
            src_port: self.ends.outside.port(),
            dst_port: self.ends.inside.port(),
            control: TcpControl::Rst,
            seq_number,
            ack_number,
            window_len: 0,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let (mut packet, header) = answer(self.ends, IpProtocol::Tcp, repr.buffer_len());
        let (from, to) = (self.ends.outside.ip().into(), self.ends.inside.ip().into());
        repr.emit(&mut TcpPacket::new_unchecked(&mut packet[header..]), &from, &to, &ChecksumCapabilities::default());
        packet
    }

    /// Builds the ICMP "destination unreachable" message that a router sends for a packet that it does not forward.
    pub(crate) fn unreachable(&self, reason: Reason) -> Vec<u8> {
        let quoted = &self.bytes[..self.bytes.len().min(QUOTED)];
        match (self.ends.outside.ip(), self.ends.inside.ip()) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (mut packet, header) = answer(self.ends, IpProtocol::Icmpv6, 8 + quoted.len());
                let mut icmp = Icmpv6Packet::new_unchecked(&mut packet[header..]);
                icmp.set_msg_type(Icmpv6Message::DstUnreachable);
                icmp.set_msg_code(u8::from(match reason {
                    Reason::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
                    Reason::Host => Icmpv6DstUnreachable::AddrUnreachable,
                    Reason::Port => Icmpv6DstUnreachable::PortUnreachable,
                }));
                icmp.payload_mut().copy_from_slice(quoted);
                icmp.fill_checksum(&from, &to);
                packet
            }
            _ => {
                let (mut packet, header) = answer(self.ends, IpProtocol::Icmp, 8 + quoted.len());
                let mut icmp = Icmpv4Packet::new_unchecked(&mut packet[header..]);
                icmp.set_msg_type(Icmpv4Message::DstUnreachable);
                icmp.set_msg_code(u8::from(match reason {
                    Reason::Prohibited => Icmpv4DstUnreachable::CommProhibited,
                    Reason::Host => Icmpv4DstUnreachable::HostUnreachable,
                    Reason::Port => Icmpv4DstUnreachable::PortUnreachable,
                }));
                icmp.data_mut().copy_from_slice(quoted);
                icmp.fill_checksum();
                packet
            }
        }
    }
}

/// Builds a UDP datagram from the outside endpoint to the program.
pub(crate) fn udp(ends: Ends, payload: &[u8]) -> Vec<u8> {
    let repr = UdpRepr { src_port: ends.outside.port(), dst_port: ends.inside.port() };
    let (mut packet, header) = answer(ends, IpProtocol::Udp, repr.header_len() + payload.len());
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut packet[header..]),
        &ends.outside.ip().into(),
        &ends.inside.ip().into(),
        payload.len(),
        |to| to.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    packet
}

/// Builds an IP packet from the outside endpoint to the program, with a zeroed payload of `length` bytes. Returns the
/// packet and the offset of the payload.
fn answer(ends: Ends, protocol: IpProtocol, length: usize) -> (Vec<u8>, usize) {
    let repr = IpRepr::new(ends.outside.ip().into(), ends.inside.ip().into(), protocol, length, HOPS);
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut packet, &ChecksumCapabilities::default());
    (packet, repr.header_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends { inside: "192.0.0.2:4000".parse().unwrap(), outside: "10.0.0.1:53".parse().unwrap() }
    }

    #[test]
    fn a_datagram_is_understood_again() {
        for ends in
            [ends(), Ends { inside: "[fd00::2]:4000".parse().unwrap(), outside: "[2001:db8::1]:53".parse().unwrap() }]
        {
            let made = udp(ends, b"payload");
            let packet = Packet::parse(&made).unwrap();
            assert_eq!((packet.ends.inside, packet.ends.outside), (ends.outside, ends.inside));
            assert!(matches!(packet.kind, Kind::Udp { payload: b"payload" }));
            assert!(!packet.unreachable(Reason::Port).is_empty());
        }
    }

    #[test]
    fn no_bytes_at_all_make_it_fall_over() {
        let whole = udp(ends(), b"payload");
        for length in 0..whole.len() {
            assert!(Packet::parse(&whole[..length]).is_none(), "{length}");
        }
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..4 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 24) as u8;
            }
            if let Some(packet) = Packet::parse(&bytes) {
                packet.reset();
                packet.unreachable(Reason::Prohibited);
            }
        }
    }
}

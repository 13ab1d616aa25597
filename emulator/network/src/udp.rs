//! A UDP flow: the datagrams between a port of a program in the container and one destination. Each flow has its own
//! socket, which is closed after a period without datagrams.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use tokio::{io::Interest, net::UdpSocket, sync::mpsc};

use crate::{
    gate::{Gate, Seen},
    packet::{self, Ends, Kind, Packet, Reason},
    policy::Transport,
};

/// How long a flow may be idle. RFC 4787 requires NATs to wait at least two minutes.
const SILENCE: Duration = Duration::from_secs(120);

/// Largest UDP datagram, in bytes.
const LARGEST: usize = 65_535;

/// Serves a flow until it ends.
pub(crate) async fn run(gate: Gate, ends: Ends, mut packets: mpsc::Receiver<Vec<u8>>) {
    let any: IpAddr = if ends.outside.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(ends.outside).await?;
        io::Result::Ok(socket)
    };
    let socket = match socket.await {
        Ok(socket) => socket,
        Err(_) => {
            if let Some(first) = packets.recv().await {
                refuse(&gate, &first, Reason::Host);
            }
            return;
        }
    };
    let forbidden = gate.until_forbidden(Transport::Udp, ends.outside, &Seen::Nothing);
    tokio::pin!(forbidden);
    // The last packet from the program, which ICMP messages quote.
    let mut last = Vec::new();
    loop {
        tokio::select! {
            packet = packets.recv() => {
                let Some(packet) = packet else { return };
                if let Some(Packet { kind: Kind::Udp { payload }, .. }) = Packet::parse(&packet)
                    && let Err(error) = socket.send(payload).await
                {
                    refuse(&gate, &packet, reason(&error));
                }
                last = packet;
            }
            // An ICMP "port unreachable" makes the socket report only an error, not readability.
            failed = socket.async_io(Interest::READABLE | Interest::ERROR, || deliver(&gate, &socket, ends)) => {
                if let Err(error) = failed {
                    refuse(&gate, &last, reason(&error));
                }
            }
            () = &mut forbidden => return,
            () = tokio::time::sleep(SILENCE) => return,
        }
    }
}

/// Sends all datagrams that have arrived to the program. Always ends with an error: `WouldBlock` if no more have arrived,
/// or the error of the socket. The 64 KiB buffer is on the stack so that idle flows do not hold one.
fn deliver(gate: &Gate, socket: &UdpSocket, ends: Ends) -> io::Result<()> {
    let mut buffer = [0; LARGEST];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        gate.device.write(&packet::udp(ends, &buffer[..length]));
    }
}

/// Converts a socket error to the reason in an ICMP message.
fn reason(error: &io::Error) -> Reason {
    if error.kind() == io::ErrorKind::ConnectionRefused { Reason::Port } else { Reason::Host }
}

/// Rejects a packet that is not parsed yet.
fn refuse(gate: &Gate, packet: &[u8], reason: Reason) {
    if let Some(packet) = Packet::parse(packet) {
        gate.refuse(&packet, reason);
    }
}

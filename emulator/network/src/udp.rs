//! Datagrams between a program inside and one address outside: a socket of the emulator's for each pair of ports, forgotten
//! when nothing has come by for a while.

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

/// How long a flow may be silent. Routers that translate addresses give two minutes (RFC 4787).
const SILENCE: Duration = Duration::from_secs(120);

/// Largest datagram.
const LARGEST: usize = 65_535;

/// Serves a flow to its end.
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
    // What a refusal quotes.
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
            // That no process listens shows as an error alone.
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

/// Passes on all that has arrived; ends with the error that there is no more, or another. The buffer is as large as a
/// datagram can be, so it is not kept in every flow.
fn deliver(gate: &Gate, socket: &UdpSocket, ends: Ends) -> io::Result<()> {
    let mut buffer = [0; LARGEST];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT)?;
        gate.device.write(&packet::udp(ends, &buffer[..length]));
    }
}

fn reason(error: &io::Error) -> Reason {
    if error.kind() == io::ErrorKind::ConnectionRefused { Reason::Port } else { Reason::Host }
}

fn refuse(gate: &Gate, packet: &[u8], reason: Reason) {
    if let Some(packet) = Packet::parse(packet) {
        gate.refuse(&packet, reason);
    }
}

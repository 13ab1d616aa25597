//! A TCP connection of a program in the container: a TCP/IP stack with a single socket on the program's side, and an
//! ordinary socket of the emulator to the destination.
//!
//! The program's connection is accepted only after the destination has accepted the emulator's connection, so that the
//! program sees refused connections. Only if the policy depends on the TLS server name, the program's connection is
//! accepted first and the destination is dialled once the name is known.
//!
//! Every flow has its own stack: packets are assigned to flows before they get here, so flows share no state and need no
//! locks, and a flow ends with its task.

use std::{collections::VecDeque, io, net::SocketAddr, os::fd::AsRawFd, sync::Arc, time::Duration};

use nix::sys::socket::{Shutdown, shutdown};
use rustls::server::Acceptor;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{self, Checksum, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Instant,
    wire::{HardwareAddress, IpAddress, IpCidr},
};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::mpsc,
    time::{Instant as Time, timeout_at},
};

use crate::{
    device::Device,
    gate::{Gate, Seen},
    names,
    packet::{Ends, Packet, Reason},
    policy::{Transport, Verdict},
};

/// Size of the buffer for each direction, in bytes, and thus the TCP window: a few packets of the largest size.
const WINDOW: usize = 128 * 1024;

/// Timeout for connecting to the destination. Programs usually give up sooner.
const DIAL: Duration = Duration::from_secs(60);

/// How long a program may take to send the TLS ClientHello if the policy depends on it.
const HELLO: Duration = Duration::from_secs(10);

/// Serves a connection until it ends. The first packet in `packets` must be the SYN.
pub(crate) async fn run(gate: Gate, ends: Ends, mut packets: mpsc::Receiver<Vec<u8>>, verdict: Verdict) {
    let Some(first) = packets.recv().await else { return };
    if verdict != Verdict::Inspect {
        match dial(ends.outside).await {
            Ok(outside) => {
                let inside = Inside::accept(gate.clone(), ends, packets, first);
                inside.forward(outside, &Seen::Nothing).await;
            }
            Err(error) => {
                tracing::debug!(container = gate.label, destination = %ends.outside, %error, "not connected");
                if let Some(packet) = Packet::parse(&first) {
                    if error.kind() == io::ErrorKind::ConnectionRefused {
                        gate.device.write(&packet.reset());
                    } else {
                        gate.refuse(&packet, Reason::Host);
                    }
                }
            }
        }
        return;
    }
    let mut inside = Inside::accept(gate.clone(), ends, packets, first);
    let Some(name) = inside.hello().await else { return };
    let verdict = gate.policy.borrow().verdict_for(ends.outside, name.as_deref());
    let dialled = match (verdict, &name) {
        (Verdict::Pass, _) => dial(ends.outside).await,
        (Verdict::PassByName, Some(name)) => dial_by_name(&gate, ends.outside, name).await,
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    };
    match dialled {
        Ok(outside) => inside.forward(outside, &Seen::Name { dialled: verdict == Verdict::PassByName, name }).await,
        Err(error) => {
            tracing::debug!(container = gate.label, destination = %ends.outside, name, %error, "TLS connection refused");
            inside.abort();
        }
    }
}

/// Connects to the destination within [`DIAL`].
async fn dial(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(DIAL, TcpStream::connect(to)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to an address of a permitted server name. The program chooses both the name and the destination address, but
/// the policy permits only the name, so the destination address is used only if the name resolves to it.
async fn dial_by_name(gate: &Gate, wanted: SocketAddr, name: &str) -> io::Result<TcpStream> {
    let found = gate.names.resolve(name).await.map_err(|_| io::Error::from(io::ErrorKind::NotFound))?;
    let (exact, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| *address == wanted.ip());
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in exact.into_iter().chain(others).filter(|address| names::may_be_reached(*address)) {
        match dial((address, wanted.port()).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The program's side of a connection.
struct Inside {
    gate: Gate,
    ends: Ends,
    packets: mpsc::Receiver<Vec<u8>>,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
}

/// The network device that the TCP/IP stack sees: packets that have arrived, and the device that it sends to.
struct Wire {
    arrived: VecDeque<Vec<u8>>,
    device: Arc<Device>,
}

impl Inside {
    /// Creates the stack and lets it accept the connection that the packet `first` opens.
    fn accept(gate: Gate, ends: Ends, packets: mpsc::Receiver<Vec<u8>>, first: Vec<u8>) -> Inside {
        let mut wire = Wire { arrived: VecDeque::from([first]), device: gate.device.clone() };
        let mut config = Config::new(HardwareAddress::Ip);
        // The seed of the initial sequence numbers.
        config.random_seed = rand::random();
        let mut interface = Interface::new(config, &mut wire, Instant::now());
        // The stack takes the address of the destination.
        let own = IpAddress::from(ends.outside.ip());
        interface.update_ip_addrs(|addresses| {
            let length = if ends.outside.is_ipv4() { 32 } else { 128 };
            let _ = addresses.push(IpCidr::new(own, length));
        });
        let _ = match ends.inside.ip().into() {
            IpAddress::Ipv4(inside) => interface.routes_mut().add_default_ipv4_route(inside),
            IpAddress::Ipv6(inside) => interface.routes_mut().add_default_ipv6_route(inside),
        };
        let buffer = || SocketBuffer::new(vec![0; WINDOW]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        // Fails only for port 0; `Packet::parse` rejects packets with that port.
        let _ = socket.listen((own, ends.outside.port()));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        Inside { gate, ends, packets, wire, interface, sockets, socket }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Lets the stack process the packets that have arrived and send what is due. Returns the time until the stack must
    /// be polled again, or `None` if only a new packet requires that.
    fn turn(&mut self) -> Option<Duration> {
        while let Ok(packet) = self.packets.try_recv() {
            self.wire.arrived.push_back(packet);
        }
        self.interface.poll(Instant::now(), &mut self.wire, &mut self.sockets);
        self.interface.poll_delay(Instant::now(), &self.sockets).map(Into::into)
    }

    /// Waits until [`Inside::turn`] has something to do: a packet arrives or `delay` has passed. Returns `false` if no
    /// more packets will come.
    async fn something(&mut self, delay: Option<Duration>) -> bool {
        let due = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            packet = self.packets.recv() => match packet {
                Some(packet) => {
                    self.wire.arrived.push_back(packet);
                    true
                }
                None => false,
            },
            () = due => true,
        }
    }

    /// Resets the program's connection.
    fn abort(&mut self) {
        self.socket().abort();
        self.turn();
    }

    /// Reads the server name from the TLS ClientHello without consuming it. Returns `Some(None)` if the connection is not
    /// TLS or has no server name, and `None` if it broke before that was known.
    async fn hello(&mut self) -> Option<Option<String>> {
        let until = Time::now() + HELLO;
        let mut seen = 0;
        loop {
            let delay = self.turn();
            let socket = self.socket();
            if matches!(socket.state(), State::Closed) {
                return None;
            }
            // No more data will come, because the program has closed its side or the buffer is full.
            let all = socket.recv_queue() == socket.recv_capacity()
                || (socket.recv_queue() > 0 && matches!(socket.state(), State::CloseWait));
            let available = socket.recv_queue();
            if available > seen {
                seen = available;
                match server_name(socket.peek(available).unwrap_or_default()) {
                    Hello::Complete(name) => return Some(name),
                    Hello::Partial if all => return Some(None),
                    Hello::Partial => {}
                }
            } else if matches!(socket.state(), State::CloseWait) {
                return Some(None);
            }
            match timeout_at(until, self.something(delay)).await {
                Ok(true) => {}
                Ok(false) => return None,
                // The program waits for the server to send first, which no TLS client does.
                Err(_) => return Some(None),
            }
        }
    }

    /// Forwards bytes in both directions until both sides have closed, one side has failed, or the policy forbids the
    /// flow.
    async fn forward(mut self, outside: TcpStream, seen: &Seen) {
        let gate = self.gate.clone();
        let forbidden = gate.until_forbidden(Transport::Tcp, self.ends.outside, seen);
        tokio::pin!(forbidden);
        let (mut sent_all, mut received_all) = (false, false);
        loop {
            let delay = self.turn();
            let moved = self.send(&outside, &mut sent_all).and_then(|sent| {
                let received = self.receive(&outside, &mut received_all)?;
                Ok(sent || received)
            });
            match moved {
                Ok(true) => {
                    // The window may have opened, or there is data to send: poll the stack again.
                    tokio::task::coop::consume_budget().await;
                    continue;
                }
                Ok(false) => {}
                Err(_) => return self.abort(),
            }
            let socket = self.socket();
            if matches!(socket.state(), State::Closed | State::TimeWait) {
                return;
            }
            let mut interest = None;
            if socket.can_send() && !received_all {
                interest = Some(Interest::READABLE);
            }
            if socket.can_recv() {
                interest = Some(interest.map_or(Interest::WRITABLE, |other| other | Interest::WRITABLE));
            }
            let ready = async {
                match interest {
                    Some(interest) => outside.ready(interest).await.map(drop),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                more = self.something(delay) => if !more { return },
                ready = ready => if ready.is_err() { return self.abort() },
                () = &mut forbidden => return self.abort(),
            }
        }
    }

    /// Sends data from the program to the destination. Returns whether any was sent.
    fn send(&mut self, outside: &TcpStream, ended: &mut bool) -> io::Result<bool> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        let mut moved = false;
        while socket.can_recv() {
            let written = socket.recv(|bytes| match outside.try_write(bytes) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match written {
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        let over = matches!(socket.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if over && !*ended && socket.recv_queue() == 0 {
            *ended = true;
            shutdown(outside.as_raw_fd(), Shutdown::Write)?;
        }
        Ok(moved)
    }

    /// Receives data from the destination for the program. Returns whether any was received.
    fn receive(&mut self, outside: &TcpStream, ended: &mut bool) -> io::Result<bool> {
        let socket = self.sockets.get_mut::<Socket<'_>>(self.socket);
        let mut moved = false;
        while socket.can_send() && !*ended {
            let read = socket.send(|free| match outside.try_read(free) {
                Ok(count) => (count, Ok(count)),
                Err(error) => (0, Err(error)),
            });
            match read {
                Ok(Ok(0)) => {
                    *ended = true;
                    moved = true;
                    socket.close();
                }
                Ok(Ok(_)) => moved = true,
                Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(moved),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(moved)
    }
}

/// The result of parsing the beginning of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Hello {
    /// More bytes are needed.
    Partial,
    /// The server name; `None` if the connection is not TLS or has no server name.
    Complete(Option<String>),
}

/// Parses the beginning of a connection as a TLS ClientHello.
fn server_name(mut bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    loop {
        match acceptor.read_tls(&mut bytes) {
            Ok(0) => return Hello::Partial,
            Ok(_) => {}
            Err(_) => return Hello::Complete(None),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Hello::Complete(accepted.client_hello().server_name().map(str::to_owned)),
            Ok(None) => {}
            Err(_) => return Hello::Complete(None),
        }
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&self.device)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&self.device))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.device.mtu;
        // The kernel leaves checksums to the hardware, so those of packets from the device must not be verified.
        capabilities.checksum.ipv4 = Checksum::Tx;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}

struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

struct Leaving<'a>(&'a Device);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut packet = vec![0; length];
        let filled = fill(&mut packet);
        self.0.write(&packet);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_from_the_first_message() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = "api.example.com".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        assert_eq!(server_name(&hello), Hello::Complete(Some("api.example.com".into())));
        for length in 0..hello.len() {
            assert_eq!(server_name(&hello[..length]), Hello::Partial, "{length}");
        }
        assert_eq!(server_name(b"GET / HTTP/1.1\r\n\r\n"), Hello::Complete(None));
        assert_eq!(server_name(b"SSH-2.0-OpenSSH_9.9\r\n"), Hello::Complete(None));
    }
}

//! The network of a container: what its programs send is taken from its device and, where a [`Policy`] permits it, sent on
//! from this machine.
//!
//! Nothing of the machine's network is inside the container: each flow (one TCP connection, or datagrams between two ports)
//! ends here, in a small TCP/IP stack of its own, and goes on over an ordinary socket of the emulator. So it needs no
//! privileges, no firewall and no route, and the policy is asked in one place. Addresses of the machine itself can never be
//! reached this way ([`names`]).
//!
//! - [`policy`]: what may go where.
//! - `packet`: IP packets, taken apart and made.
//! - `tcp`, `udp`: flows; each is one task, and no thread.
//! - [`switch`]: between the containers of one sandbox.
//! - `dns`: answers for the container's resolver. [`names`]: where the answers come from.
//!
//! It knows nothing of Modal and nothing of how the device came to be.

mod dns;
pub mod names;
mod packet;
pub mod policy;
pub mod switch;
mod tcp;
mod udp;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

pub use names::Names;
pub use policy::Policy;
pub use switch::{Port, Switch};

use crate::isolation::device::{self, GATEWAY, MTU};
use packet::{Ends, Kind, Packet, Reason};
use policy::{Transport, Verdict};

/// Most flows of one container at once. Each holds a descriptor of the emulator's and, if its ends do not read, up to two
/// windows of memory: a quarter of a GiB in all.
const MOST_FLOWS: usize = 1024;

/// Packets that wait for a flow's task; more are lost, as on any network.
const BACKLOG: usize = 256;

/// Port of name servers.
const DNS: u16 = 53;

/// A container's network, as long as it is kept.
#[derive(Debug)]
pub struct Network {
    task: AbortHandle,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// Serves a device whose reads and writes are IP packets. `policy` may change at any time: flows that are no longer
    /// permitted are cut then. `port` is its place among containers that reach each other, whatever the policy; its number is
    /// that of the device's addresses. `label` names the container in the log.
    ///
    /// Needs a tokio runtime with I/O and time.
    pub fn start(
        label: &str,
        device: OwnedFd,
        port: Port,
        policy: watch::Receiver<Arc<Policy>>,
        names: Arc<Names>,
    ) -> io::Result<Network> {
        // Safety: an owned descriptor, which stays open as long as it is registered.
        let device = Arc::new(Device(unsafe { AsyncFd::register(device)? }));
        port.connect(device.clone());
        let gate = Gate { label: label.to_owned(), device, port: Arc::new(port), policy, names };
        Ok(Network { task: tokio::spawn(gate.run()).abort_handle() })
    }
}

/// The emulator's side of a container's network device.
#[derive(Debug)]
struct Device(AsyncFd<OwnedFd>);

impl Device {
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| nix::unistd::read(fd, buffer).map_err(io::Error::from);
        self.0.async_io(tokio::io::Interest::READABLE, read).await
    }

    /// Delivers a packet. One that cannot be delivered is lost: the kernel takes any that is well formed at once.
    fn write(&self, packet: &[u8]) {
        if let Err(error) = nix::unistd::write(self.0.get_ref(), packet) {
            tracing::debug!(fd = self.0.as_raw_fd(), %error, "packet not delivered");
        }
    }
}

/// What a flow has of its container's network.
#[derive(Debug, Clone)]
struct Gate {
    label: String,
    device: Arc<Device>,
    port: Arc<Port>,
    policy: watch::Receiver<Arc<Policy>>,
    names: Arc<Names>,
}

/// What was seen of a flow when it was let through.
#[derive(Debug, Clone)]
enum Seen {
    /// It was not looked into.
    Nothing,
    /// Whom its TLS is for, none without TLS.
    Name {
        name: Option<String>,
        /// It goes to an address of that name for certain.
        dialled: bool,
    },
}

/// A flow by transport and both ends.
type Key = (Transport, Ends);

impl Gate {
    async fn run(self) {
        let mut flows: HashMap<Key, mpsc::Sender<Vec<u8>>> = HashMap::new();
        // Dropped, and with it every flow, when this task is.
        let mut tasks: JoinSet<Key> = JoinSet::new();
        let mut buffer = vec![0; MTU];
        loop {
            let length = tokio::select! {
                read = self.device.read(&mut buffer) => match read {
                    Ok(length) => length,
                    Err(error) => {
                        tracing::debug!(container = self.label, %error, "the network device is gone");
                        return;
                    }
                },
                Some(ended) = tasks.join_next() => {
                    // Its place may have been taken by a new flow between the same ports.
                    if let Ok(key) = ended && flows.get(&key).is_some_and(mpsc::Sender::is_closed) {
                        flows.remove(&key);
                    }
                    continue;
                }
            };
            if self.pass_on(&buffer[..length]) {
                continue;
            }
            if let Some(packet) = Packet::parse(&buffer[..length]) {
                self.take(&packet, &mut flows, &mut tasks);
            }
        }
    }

    /// Delivers what is for a neighbour, of whatever protocol: that does not leave the sandbox.
    fn pass_on(&self, packet: &[u8]) -> bool {
        let Some((from, to)) = packet::addresses(packet) else { return false };
        let Some(neighbour) = self.port.neighbour(to) else { return false };
        // Nobody speaks for another.
        if self.port.is_own(from) {
            neighbour.write(packet);
        }
        true
    }

    fn take(&self, packet: &Packet<'_>, flows: &mut HashMap<Key, mpsc::Sender<Vec<u8>>>, tasks: &mut JoinSet<Key>) {
        let transport = match packet.kind {
            Kind::Tcp { .. } => Transport::Tcp,
            Kind::Udp { .. } => Transport::Udp,
            // Nothing but these two goes through; who knocks otherwise is told.
            Kind::Echo => return self.refuse(packet, Reason::Prohibited),
        };
        let key = (transport, packet.ends);
        if let Some(flow) = flows.get(&key)
            && !flow.is_closed()
        {
            let _ = flow.try_send(packet.bytes.to_vec());
            return;
        }
        if let Kind::Tcp { opens: false } = packet.kind {
            return self.device.write(&packet.reset());
        }
        let outside = packet.ends.outside;
        if outside.ip() == IpAddr::V4(GATEWAY) {
            return match packet.kind {
                Kind::Udp { .. } if outside.port() == DNS => self.ask(packet, tasks),
                _ => self.refuse(packet, Reason::Port),
            };
        }
        // No neighbour's, and nobody's elsewhere.
        if device::is_containers(outside.ip()) {
            return self.refuse(packet, Reason::Host);
        }
        if !names::may_be_reached(outside.ip()) {
            tracing::debug!(container = self.label, destination = %outside, "not to be reached from inside");
            return self.refuse(packet, Reason::Prohibited);
        }
        let verdict = self.policy.borrow().verdict(transport, outside);
        if verdict == Verdict::Block {
            tracing::debug!(container = self.label, destination = %outside, ?transport, "blocked");
            return self.refuse(packet, Reason::Prohibited);
        }
        if flows.len() >= MOST_FLOWS {
            return self.refuse(packet, Reason::Host);
        }
        let (sender, packets) = mpsc::channel(BACKLOG);
        let _ = sender.try_send(packet.bytes.to_vec());
        flows.insert(key, sender);
        let gate = self.clone();
        tasks.spawn(async move {
            match transport {
                Transport::Tcp => tcp::run(gate, key.1, packets, verdict).await,
                Transport::Udp => udp::run(gate, key.1, packets).await,
            }
            key
        });
    }

    /// Answers a question to the resolver.
    fn ask(&self, packet: &Packet<'_>, tasks: &mut JoinSet<Key>) {
        let Kind::Udp { payload } = packet.kind else { return };
        let Some(question) = dns::Question::parse(payload) else { return };
        if tasks.len() >= 2 * MOST_FLOWS {
            return;
        }
        let (gate, ends) = (self.clone(), packet.ends);
        tasks.spawn(async move {
            let permitted = gate.policy.borrow().resolves(question.name());
            let answer = if permitted {
                question.answer(&gate.names.resolve(question.name()).await)
            } else {
                tracing::debug!(container = gate.label, name = question.name(), "not resolved: not on the list");
                question.answer(&Err(names::Failure::Unknown))
            };
            gate.device.write(&packet::udp(ends, &answer));
            (Transport::Udp, ends)
        });
    }

    fn refuse(&self, packet: &Packet<'_>, reason: Reason) {
        self.device.write(&packet.unreachable(reason));
    }

    /// Waits until the policy has changed into one that is not known to permit this flow. Nobody looks into a flow twice:
    /// if it should now depend on a name that was not looked at, it has to begin anew.
    async fn until_forbidden(&self, transport: Transport, outside: SocketAddr, seen: &Seen) {
        let mut policy = self.policy.clone();
        let permits = |policy: &Policy| match seen {
            Seen::Nothing => policy.verdict(transport, outside) == Verdict::Pass,
            Seen::Name { name, dialled } => match policy.verdict_for(outside, name.as_deref()) {
                Verdict::Pass => true,
                Verdict::PassByName => *dialled,
                Verdict::Inspect | Verdict::Block => false,
            },
        };
        // Also if it has changed since the flow was let through.
        if policy.wait_for(|now| !permits(now)).await.is_err() {
            std::future::pending::<()>().await;
        }
        tracing::debug!(container = self.label, destination = %outside, ?transport, "cut: no longer permitted");
    }
}

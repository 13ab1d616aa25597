//! Reads packets from a container's device, assigns them to flows, and starts a task for each new flow.

use std::{collections::HashMap, io, net::IpAddr, os::fd::OwnedFd, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use crate::{
    device::Device,
    dns,
    gate::Gate,
    names::{self, Names},
    packet::{self, Ends, Kind, Packet, Reason},
    policy::{Policy, Transport, Verdict},
    switch::Port,
    tcp, udp,
};

/// Maximum number of concurrent flows of one container. Each flow uses a file descriptor of the emulator and buffers up
/// to two windows of data if its peers do not read: 256 MiB for all flows together.
const MOST_FLOWS: usize = 1024;

/// Number of packets that can wait for a flow's task. Further packets are dropped, as on any network.
const BACKLOG: usize = 256;

/// UDP port of the DNS.
const DNS: u16 = 53;

/// The network of one container. Stops when dropped.
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
    /// Starts a task that serves a TUN device, on which each read and each write is one IP packet.
    ///
    /// `policy` may change at any time; flows that the new policy does not permit are closed at once. `port` connects the
    /// container to the other containers of its sandbox, which the policy does not restrict; the port's number must be
    /// the one that the device's addresses were derived from. `label` names the container in the log.
    ///
    /// Must be called in a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    ///
    /// Fails if the device cannot be registered with the runtime.
    pub fn start(
        label: &str,
        device: OwnedFd,
        port: Port,
        policy: watch::Receiver<Arc<Policy>>,
        names: Arc<Names>,
    ) -> io::Result<Network> {
        let device = Arc::new(Device::new(device, port.addressing().mtu)?);
        port.connect(device.clone());
        let gate = Gate { label: label.to_owned(), device, port: Arc::new(port), policy, names };
        Ok(Network { task: tokio::spawn(gate.run()).abort_handle() })
    }
}

/// Identifies a flow by its transport and its two endpoints.
type Key = (Transport, Ends);

impl Gate {
    /// Reads packets from the device until it fails.
    async fn run(self) {
        let mut flows: HashMap<Key, mpsc::Sender<Vec<u8>>> = HashMap::new();
        // Dropping the set, which happens when this task is aborted, aborts all flows.
        let mut tasks: JoinSet<Key> = JoinSet::new();
        let mut buffer = vec![0; self.device.mtu];
        loop {
            let length = tokio::select! {
                read = self.device.read(&mut buffer) => match read {
                    Ok(length) => length,
                    Err(error) => {
                        tracing::debug!(container = self.label, %error, "the network device was closed");
                        return;
                    }
                },
                Some(ended) = tasks.join_next() => {
                    // A new flow between the same endpoints may have replaced the ended one.
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

    /// Forwards a packet to another container on the same switch, whatever its protocol. Returns `false` if the
    /// destination is not such a container.
    fn pass_on(&self, packet: &[u8]) -> bool {
        let Some((from, to)) = packet::addresses(packet) else { return false };
        let Some(neighbour) = self.port.neighbour(to) else { return false };
        // Drops packets with a source address that is not the container's own.
        if self.port.is_own(from) {
            neighbour.write(packet);
        }
        true
    }

    /// Passes a packet to its flow. Starts a new flow if the packet opens one and the policy permits it; otherwise
    /// rejects it.
    fn take(&self, packet: &Packet<'_>, flows: &mut HashMap<Key, mpsc::Sender<Vec<u8>>>, tasks: &mut JoinSet<Key>) {
        let transport = match packet.kind {
            Kind::Tcp { .. } => Transport::Tcp,
            Kind::Udp { .. } => Transport::Udp,
            // Only TCP and UDP are forwarded; pings are rejected with an ICMP message.
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
        if outside.ip() == IpAddr::V4(self.port.addressing().gateway) {
            return match packet.kind {
                Kind::Udp { .. } if outside.port() == DNS => self.ask(packet, tasks),
                _ => self.refuse(packet, Reason::Port),
            };
        }
        // The address is in the container networks, but no container has it.
        if self.port.addressing().is_containers(outside.ip()) {
            return self.refuse(packet, Reason::Host);
        }
        if !names::may_be_reached(outside.ip()) {
            tracing::debug!(container = self.label, destination = %outside, "destination not permitted for containers");
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

    /// Answers a DNS query in a separate task.
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
                tracing::debug!(
                    container = gate.label,
                    name = question.name(),
                    "name not resolved: not on the allow-list"
                );
                question.answer(&Err(names::Failure::Unknown))
            };
            gate.device.write(&packet::udp(ends, &answer));
            (Transport::Udp, ends)
        });
    }
}

//! Takes packets from a device, sorts them by flow, and gives each flow a task.

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
        let device = Arc::new(Device::new(device, port.addressing().mtu)?);
        port.connect(device.clone());
        let gate = Gate { label: label.to_owned(), device, port: Arc::new(port), policy, names };
        Ok(Network { task: tokio::spawn(gate.run()).abort_handle() })
    }
}

/// A flow by transport and both ends.
type Key = (Transport, Ends);

impl Gate {
    async fn run(self) {
        let mut flows: HashMap<Key, mpsc::Sender<Vec<u8>>> = HashMap::new();
        // Dropped, and with it every flow, when this task is.
        let mut tasks: JoinSet<Key> = JoinSet::new();
        let mut buffer = vec![0; self.device.mtu];
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
        // A container sends from its own addresses only.
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
        if outside.ip() == IpAddr::V4(self.port.addressing().gateway) {
            return match packet.kind {
                Kind::Udp { .. } if outside.port() == DNS => self.ask(packet, tasks),
                _ => self.refuse(packet, Reason::Port),
            };
        }
        // No container has this address, and no host outside does.
        if self.port.addressing().is_containers(outside.ip()) {
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
}

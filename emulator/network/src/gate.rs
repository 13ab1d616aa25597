//! State that all flows of one container share.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use crate::{
    device::Device,
    names::Names,
    packet::{Packet, Reason},
    policy::{Policy, Transport, Verdict},
    switch::Port,
};

/// Gives a flow access to its container's device, switch port, policy and name look-ups.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) label: String,
    pub(crate) device: Arc<Device>,
    pub(crate) port: Arc<Port>,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    pub(crate) names: Arc<Names>,
}

/// What was inspected when a flow was permitted.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// The flow was permitted without inspection.
    Nothing,
    /// The server name (SNI) in the TLS ClientHello; `None` if the flow is not TLS or has no server name.
    Name {
        name: Option<String>,
        /// True if the connection was made to an address that the name resolves to.
        dialled: bool,
    },
}

impl Gate {
    /// Rejects a packet: answers it with an ICMP message that gives the reason.
    pub(crate) fn refuse(&self, packet: &Packet<'_>, reason: Reason) {
        self.device.write(&packet.unreachable(reason));
    }

    /// Waits until the policy no longer permits this flow. Flows are inspected only when they begin, so this also returns
    /// if the new policy needs a server name that was not inspected; the program must connect again then.
    pub(crate) async fn until_forbidden(&self, transport: Transport, outside: SocketAddr, seen: &Seen) {
        let mut policy = self.policy.clone();
        let permits = |policy: &Policy| match seen {
            Seen::Nothing => policy.verdict(transport, outside) == Verdict::Pass,
            Seen::Name { name, dialled } => match policy.verdict_for(outside, name.as_deref()) {
                Verdict::Pass => true,
                Verdict::PassByName => *dialled,
                Verdict::Inspect | Verdict::Block => false,
            },
        };
        // `wait_for` also checks the current value, so a change since the flow was permitted is not missed.
        if policy.wait_for(|now| !permits(now)).await.is_err() {
            std::future::pending::<()>().await;
        }
        tracing::debug!(container = self.label, destination = %outside, ?transport, "connection closed: no longer permitted");
    }
}

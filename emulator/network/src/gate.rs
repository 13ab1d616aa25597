//! What the flows of one container share.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use crate::{
    device::Device,
    names::Names,
    packet::{Packet, Reason},
    policy::{Policy, Transport, Verdict},
    switch::Port,
};

/// What a flow has of its container's network.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    pub(crate) label: String,
    pub(crate) device: Arc<Device>,
    pub(crate) port: Arc<Port>,
    pub(crate) policy: watch::Receiver<Arc<Policy>>,
    pub(crate) names: Arc<Names>,
}

/// What was seen of a flow when it was let through.
#[derive(Debug, Clone)]
pub(crate) enum Seen {
    /// It was not looked into.
    Nothing,
    /// The server name of its TLS; none without TLS.
    Name {
        name: Option<String>,
        /// It goes to an address of that name for certain.
        dialled: bool,
    },
}

impl Gate {
    pub(crate) fn refuse(&self, packet: &Packet<'_>, reason: Reason) {
        self.device.write(&packet.unreachable(reason));
    }

    /// Waits until the policy has changed into one that is not known to permit this flow. A flow is looked into once:
    /// if it should now depend on a name that was not looked at, it has to begin anew.
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
        // Also if it has changed since the flow was let through.
        if policy.wait_for(|now| !permits(now)).await.is_err() {
            std::future::pending::<()>().await;
        }
        tracing::debug!(container = self.label, destination = %outside, ?transport, "cut: no longer permitted");
    }
}

//! The addresses at which servers inside a sandbox are reached.

use std::collections::BTreeMap;

use modal_proto::client::TunnelData;
use tokio::task::JoinSet;

/// The listeners of one sandbox; gone when dropped.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// By container port.
    pub(crate) open: BTreeMap<u32, TunnelData>,
    /// Accepting and forwarding; aborted with this.
    pub(crate) tasks: JoinSet<()>,
}

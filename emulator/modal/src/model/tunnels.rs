//! The public addresses of servers inside a sandbox. `runtime::tunnels` opens them.

use std::collections::BTreeMap;

use modal_proto::client::TunnelData;
use tokio::task::JoinSet;

/// The listeners of one sandbox. Dropping this value closes them.
#[derive(Debug, Default)]
pub struct Tunnels {
    /// Tunnels by container port.
    pub(crate) open: BTreeMap<u32, TunnelData>,
    /// Tasks that accept and forward connections; aborted when this value is dropped.
    pub(crate) tasks: JoinSet<()>,
}

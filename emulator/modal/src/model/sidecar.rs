//! A sidecar: an additional container of a sandbox. `runtime::sidecars` starts and ends it.

use std::sync::{Arc, OnceLock};

use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use proto::generic_result::GenericStatus;
use tokio::sync::watch;

use crate::model::process::Running;
use crate::model::unit::Unit;

/// The name of a sandbox's own container.
pub const MAIN: &str = "main";

/// A sidecar.
#[derive(Debug)]
pub struct Sidecar {
    /// `ctr-…`
    pub id: String,
    /// Unique among the live sidecars of its sandbox.
    pub name: String,
    /// Its entry point, once it has started. Its output is kept for the sandbox's log.
    pub entry: OnceLock<Arc<Running>>,
    /// Its current phase.
    pub phase: watch::Sender<Phase>,
    /// Mebibytes that it takes of the memory reserved for sidecars.
    pub(crate) memory: Option<u32>,
    pub(crate) stop: watch::Sender<bool>,
}

/// The phase of a sidecar's life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// Its container is being made. Its name and memory are taken from this phase on.
    Starting,
    /// Processes can be started in it.
    Running(Arc<Unit>),
    /// It has ended.
    Ended(proto::GenericResult),
}

impl Sidecar {
    /// Returns what clients are told about the sidecar.
    pub fn info(&self) -> tcr::TaskContainerInfo {
        let result = match &*self.phase.borrow() {
            Phase::Starting | Phase::Running(_) => None,
            Phase::Ended(result) => Some(result.clone()),
        };
        let status = match result.as_ref().map(|r| r.status()) {
            None if *self.stop.borrow() => "stopping",
            None => "running",
            Some(GenericStatus::Success) => "success",
            Some(GenericStatus::Terminated) => "terminated",
            Some(_) => "failure",
        };
        tcr::TaskContainerInfo {
            container_id: self.id.clone(),
            container_name: self.name.clone(),
            status: status.to_owned(),
            result,
        }
    }

    /// Tells the sidecar to end, and returns at once.
    pub fn terminate(&self) {
        self.stop.send_replace(true);
    }

    /// Returns whether the sidecar has not ended.
    pub fn lives(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Starting | Phase::Running(_))
    }
}

//! A sandbox, from its creation to its result.
//!
//! One task per sandbox ([`crate::runtime::supervise`]) changes its [`Phase`]; all other code reads it and, while the sandbox
//! runs, its [`Unit`]. The result is published only after all processes and files of the sandbox are gone, so that a caller
//! that has waited for it finds the machine clean.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use container_network::{Policy, Switch};
use modal_proto::client as proto;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::error::Error;
use crate::model::exec::Exec;
use crate::model::image::Built;
use crate::model::network;
use crate::model::process::Running;
use crate::model::samples::Samples;
use crate::model::sidecar::Sidecar;
use crate::model::tunnels::Tunnels;
use crate::model::unit::Unit;
use crate::model::values::now;

/// A sandbox, running or ended.
#[derive(Debug)]
pub struct Sandbox {
    /// `sb-…`
    pub id: String,
    /// `ta-…`
    pub task_id: String,
    /// Id of its app.
    pub app_id: String,
    /// Name of the app's environment.
    pub environment: String,
    /// Whether the second backend (SandboxCreateV2) made it.
    pub v2: bool,
    /// Unix seconds.
    pub created_at: f64,
    /// The definition in the request that created it.
    pub definition: proto::Sandbox,
    /// The image that it runs.
    pub image: Arc<Built>,
    /// Environment variables of its processes: the image's, overridden by the request's.
    pub env: Vec<(String, String)>,
    /// Bytes that the sandbox may write; `None` if that is not limited.
    pub disk: Option<u64>,
    /// The properties that change during its life.
    pub changing: Mutex<Changing>,
    /// Its current phase.
    pub phase: watch::Sender<Phase>,
    /// When its readiness probe passed, in Unix seconds; `None` before that.
    pub ready: watch::Sender<Option<f64>>,
    /// Its entry point; `None` until it has started. Stays readable after the sandbox has ended.
    pub entry: watch::Sender<Option<Arc<Running>>>,
    /// Progress of SandboxStdinWrite. The lock is held while a request is carried out.
    pub stdin_writes: tokio::sync::Mutex<StdinWrites>,
    /// Commands that were started in it, by exec id.
    pub execs: Mutex<HashMap<String, Arc<Exec>>>,
    /// Image ids by snapshot id, so that a repeated request gets the same image.
    pub snapshots: Mutex<HashMap<String, Arc<tokio::sync::OnceCell<String>>>>,
    /// The id of the image that was taken of its files at its end, or the reason why that failed. `None` if no such snapshot
    /// was requested or it has not been taken yet.
    pub exit_snapshot: Mutex<Option<Result<String, String>>>,
    /// The outbound network policy. May change while the sandbox runs.
    pub policy: watch::Sender<Arc<Policy>>,
    /// Connects the containers of the sandbox.
    pub switch: Switch,
    /// Addresses at which servers inside are reachable while the sandbox runs.
    pub tunnels: Mutex<Tunnels>,
    /// Samples of its resource usage.
    pub samples: Mutex<Samples>,
    /// Sidecars, oldest first, including ended ones.
    pub sidecars: Mutex<Vec<Arc<Sidecar>>>,
    pub(crate) orders: watch::Sender<Option<Order>>,
    busy: AtomicUsize,
    pub(crate) active: Mutex<Instant>,
}

/// The properties of a sandbox that change during its life.
#[derive(Debug, Clone, Default)]
pub struct Changing {
    /// Unique among the live sandboxes of its app.
    pub name: Option<String>,
    /// Keys and values.
    pub tags: Vec<proto::SandboxTag>,
    /// Unix seconds; 0 until it runs.
    pub started_at: f64,
    /// Unix seconds; 0 until it has ended.
    pub finished_at: f64,
}

/// Progress of SandboxStdinWrite.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdinWrites {
    /// Index of the last request that was carried out; 0 before the first.
    pub done: u32,
    /// Index of the last request that was begun, and the offset of its first byte.
    pub begun: Option<(u32, u64)>,
}

/// The phase of a sandbox's life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// Its container is being made.
    Starting,
    /// Processes can be started in it.
    Running(Arc<Unit>),
    /// It has been told to end; its processes and files are being removed.
    Ending,
    /// All of its processes and files are gone.
    Ended(proto::GenericResult),
}

/// Why a sandbox ends before its command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// A caller terminates it.
    Terminate,
    /// Its worker was lost.
    Lose,
}

/// The validated input for a new sandbox.
#[derive(Debug)]
pub struct Plan {
    /// Whether the second backend makes it.
    pub v2: bool,
    /// Id of its app.
    pub app_id: String,
    /// Name of the app's environment.
    pub environment: String,
    /// The definition in the request.
    pub definition: proto::Sandbox,
    /// The initial outbound network policy.
    pub policy: Policy,
    /// Initial tags.
    pub tags: Vec<proto::SandboxTag>,
    /// The image that it runs.
    pub image: Arc<Built>,
    /// Environment variables: the image's, overridden by the request's.
    pub env: Vec<(String, String)>,
    /// Bytes that the sandbox may write; `None` if that is not limited.
    pub disk: Option<u64>,
}

/// Marks a sandbox as active until it is dropped.
#[derive(Debug)]
pub struct Busy(Arc<Sandbox>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.active.lock() = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Sandbox {
    /// Returns a sandbox in phase [`Phase::Starting`]. Starts nothing.
    pub fn new(plan: Plan) -> Sandbox {
        let changing = Changing {
            name: plan.definition.name.clone().filter(|n| !n.is_empty()),
            tags: plan.tags,
            ..Default::default()
        };
        // The id and the record use the same time, so that sorting by id also sorts by time.
        let created_at = now();
        Sandbox {
            id: if plan.v2 { crate::model::ids::sandbox_v2(created_at) } else { crate::model::ids::id("sb") },
            task_id: crate::model::ids::task(plan.v2),
            app_id: plan.app_id,
            environment: plan.environment,
            v2: plan.v2,
            created_at,
            definition: plan.definition,
            image: plan.image,
            env: plan.env,
            disk: plan.disk,
            changing: Mutex::new(changing),
            phase: watch::Sender::new(Phase::Starting),
            ready: watch::Sender::new(None),
            entry: watch::Sender::new(None),
            stdin_writes: tokio::sync::Mutex::default(),
            execs: Mutex::default(),
            snapshots: Mutex::default(),
            exit_snapshot: Mutex::default(),
            policy: watch::Sender::new(Arc::new(plan.policy)),
            switch: network::switch(),
            tunnels: Mutex::default(),
            samples: Mutex::default(),
            sidecars: Mutex::default(),
            orders: watch::Sender::new(None),
            busy: AtomicUsize::new(0),
            active: Mutex::new(Instant::now()),
        }
    }

    /// Returns the result; `None` until the sandbox has ended.
    pub fn result(&self) -> Option<proto::GenericResult> {
        match &*self.phase.borrow() {
            Phase::Ended(result) => Some(result.clone()),
            _ => None,
        }
    }

    /// Returns whether the sandbox has neither ended nor been told to end.
    pub fn lives(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Starting | Phase::Running(_))
    }

    /// Waits for the result, at most for `most`. Returns `None` if the sandbox has not ended by then.
    pub async fn wait(&self, most: Duration) -> Option<proto::GenericResult> {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_)));
        let _ = tokio::time::timeout(most, ended).await;
        self.result()
    }

    /// Waits until processes can be started in the sandbox, and returns its container.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::NotFound` if the sandbox is ending or has ended.
    pub async fn unit(&self) -> Result<Arc<Unit>, Error> {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match phase.as_deref() {
            Ok(Phase::Running(unit)) => Ok(unit.clone()),
            _ => Err(self.gone()),
        }
    }

    /// Returns how many bytes of output are stored for its processes.
    pub fn output(&self) -> u64 {
        let execs: Vec<_> = self.execs.lock().values().cloned().collect();
        let running = execs.iter().filter_map(|exec| exec.started()).chain(self.entry.borrow().clone());
        running.map(|running| running.stdout.progress().len + running.stderr.progress().len).sum()
    }

    /// Deletes the entry point's output on disk if the sandbox has ended. Returns the number of bytes.
    pub fn discard_output(&self) -> u64 {
        let entry = self.entry.borrow().clone().filter(|_| self.result().is_some());
        entry.map_or(0, |entry| entry.stdout.discard() + entry.stderr.discard())
    }

    /// Returns the error of calls that need a running sandbox, for a sandbox that has ended: `Kind::NotFound`.
    pub fn gone(&self) -> Error {
        Error::not_found(format!("Sandbox {} has already shut down", self.id))
    }

    /// Tells the sandbox to end, and returns at once. Has no effect if it has ended.
    pub fn terminate(&self) {
        self.order(Order::Terminate);
    }

    /// Ends the sandbox as if its worker had been lost.
    pub fn lose(&self) {
        self.order(Order::Lose);
    }

    fn order(&self, order: Order) {
        self.orders.send_if_modified(|slot| {
            let first = slot.is_none();
            slot.get_or_insert(order);
            first
        });
        self.phase.send_if_modified(|phase| {
            let live = matches!(phase, Phase::Starting | Phase::Running(_));
            if live {
                *phase = Phase::Ending;
            }
            live
        });
    }

    /// Marks the sandbox as active until the returned value is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    /// Waits until the sandbox has been inactive for `idle`.
    pub async fn idle(&self, idle: Duration) {
        loop {
            let last = *self.active.lock();
            let busy = self.busy.load(Ordering::Acquire) > 0;
            let until = if busy { Instant::now() + idle } else { last + idle };
            if !busy && until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

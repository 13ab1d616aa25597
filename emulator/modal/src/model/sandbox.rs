//! A sandbox, from its creation to its result.
//!
//! One task per sandbox ([`crate::runtime::supervise`]) changes its [`Phase`]; everything else reads it and, while the sandbox
//! runs, its [`Unit`]. The result appears only when nothing of the sandbox is left, so that a caller that has waited for it
//! finds the machine clean.

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
    /// Its app.
    pub app_id: String,
    /// The app's environment.
    pub environment: String,
    /// Made by the second backend.
    pub v2: bool,
    /// Unix seconds.
    pub created_at: f64,
    /// As it was asked for.
    pub definition: proto::Sandbox,
    /// What it is made of.
    pub image: Arc<Built>,
    /// Variables of its processes: the image's, then those of the request.
    pub env: Vec<(String, String)>,
    /// Bytes that it has to write to, if that is limited.
    pub disk: Option<u64>,
    /// What changes during its life.
    pub changing: Mutex<Changing>,
    /// Where it stands.
    pub phase: watch::Sender<Phase>,
    /// When its readiness probe passed, in unix seconds.
    pub ready: watch::Sender<Option<f64>>,
    /// Its entry point, once started; stays readable after the end.
    pub entry: watch::Sender<Option<Arc<Running>>>,
    /// Which SandboxStdinWrite was carried out last. Held while one is.
    pub stdin_writes: tokio::sync::Mutex<StdinWrites>,
    /// Commands started in it, by exec id.
    pub execs: Mutex<HashMap<String, Arc<Exec>>>,
    /// Image ids by snapshot id: a repeated request gets the same image.
    pub snapshots: Mutex<HashMap<String, Arc<tokio::sync::OnceCell<String>>>>,
    /// The image of its files at its end, if it was asked for and has been taken; or why not.
    pub exit_snapshot: Mutex<Option<Result<String, String>>>,
    /// What it may reach. May change while it runs.
    pub policy: watch::Sender<Arc<Policy>>,
    /// Between its containers.
    pub switch: Switch,
    /// How servers inside are reached, while it runs.
    pub tunnels: Mutex<Tunnels>,
    /// What it has used.
    pub samples: Mutex<Samples>,
    /// Further containers, oldest first; ended ones too.
    pub sidecars: Mutex<Vec<Arc<Sidecar>>>,
    pub(crate) orders: watch::Sender<Option<Order>>,
    busy: AtomicUsize,
    pub(crate) active: Mutex<Instant>,
}

/// What changes during a sandbox's life.
#[derive(Debug, Clone, Default)]
pub struct Changing {
    /// Unique among the running ones of its app.
    pub name: Option<String>,
    /// Keys and values.
    pub tags: Vec<proto::SandboxTag>,
    /// Unix seconds; 0 until it runs.
    pub started_at: f64,
    /// Unix seconds; 0 until it has ended.
    pub finished_at: f64,
}

/// How far SandboxStdinWrite has come.
#[derive(Debug, Clone, Copy, Default)]
pub struct StdinWrites {
    /// The index of the last request that was carried out; 0 before the first.
    pub done: u32,
    /// The index of the last request that was begun, and the offset of its first byte.
    pub begun: Option<(u32, u64)>,
}

/// Where a sandbox stands.
#[derive(Debug, Clone)]
pub enum Phase {
    /// Its container is being made.
    Starting,
    /// Processes can be started in it.
    Running(Arc<Unit>),
    /// It is being taken apart.
    Ending,
    /// Nothing of it is left.
    Ended(proto::GenericResult),
}

/// Why a sandbox should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is told to.
    Terminate,
    /// Its worker is gone.
    Lose,
}

/// What a new sandbox is made of, checked.
#[derive(Debug)]
pub struct Plan {
    /// Made by the second backend.
    pub v2: bool,
    /// Its app.
    pub app_id: String,
    /// The app's environment.
    pub environment: String,
    /// As it was asked for.
    pub definition: proto::Sandbox,
    /// What it may reach.
    pub policy: Policy,
    /// Initial tags.
    pub tags: Vec<proto::SandboxTag>,
    /// Image.
    pub image: Arc<Built>,
    /// Image variables and those of the request.
    pub env: Vec<(String, String)>,
    /// Bytes that it has to write to, if that is limited.
    pub disk: Option<u64>,
}

/// Counts as activity of a sandbox while it exists.
#[derive(Debug)]
pub struct Busy(Arc<Sandbox>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.active.lock() = Instant::now();
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Sandbox {
    /// A sandbox that has not been started yet.
    pub fn new(plan: Plan) -> Sandbox {
        let changing = Changing {
            name: plan.definition.name.clone().filter(|n| !n.is_empty()),
            tags: plan.tags,
            ..Default::default()
        };
        // One moment for both, so that the order by time is that by id.
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

    /// Its result, if it has one.
    pub fn result(&self) -> Option<proto::GenericResult> {
        match &*self.phase.borrow() {
            Phase::Ended(result) => Some(result.clone()),
            _ => None,
        }
    }

    /// Whether it has neither ended nor been told to.
    pub fn lives(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Starting | Phase::Running(_))
    }

    /// Waits for its result, at most `most`.
    pub async fn wait(&self, most: Duration) -> Option<proto::GenericResult> {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Ended(_)));
        let _ = tokio::time::timeout(most, ended).await;
        self.result()
    }

    /// Waits until processes can be started in it. NOT_FOUND when that time is over.
    pub async fn unit(&self) -> Result<Arc<Unit>, Error> {
        let mut phase = self.phase.subscribe();
        let phase = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
        match phase.as_deref() {
            Ok(Phase::Running(unit)) => Ok(unit.clone()),
            _ => Err(self.gone()),
        }
    }

    /// Bytes of output that are kept for its processes.
    pub fn output(&self) -> u64 {
        let execs: Vec<_> = self.execs.lock().values().cloned().collect();
        let running = execs.iter().filter_map(|exec| exec.started()).chain(self.entry.borrow().clone());
        running.map(|running| running.stdout.progress().len + running.stderr.progress().len).sum()
    }

    /// Gives up what is kept on disk of an ended sandbox's output. Returns how many bytes that were.
    pub fn discard_output(&self) -> u64 {
        let entry = self.entry.borrow().clone().filter(|_| self.result().is_some());
        entry.map_or(0, |entry| entry.stdout.discard() + entry.stderr.discard())
    }

    /// What calls that need a running sandbox get afterwards.
    pub fn gone(&self) -> Error {
        Error::not_found(format!("Sandbox {} has already shut down", self.id))
    }

    /// Ends it; returns at once. Nothing happens when it has ended.
    pub fn terminate(&self) {
        self.order(Order::Terminate);
    }

    /// Ends it as if its worker had been lost.
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

    /// Marks it as in use for as long as the returned value is kept.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    /// Resolves when nothing has happened for `idle`.
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

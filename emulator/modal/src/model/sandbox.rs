//! A sandbox's life: from its creation to its result, whichever of its ends comes first.
//!
//! Each sandbox has one supervising task. Everybody else looks at its [`Phase`] and, while it runs, at its [`Unit`]. The
//! result appears only when nothing of the sandbox is left, so that who has waited for it finds the machine clean.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use modal_proto::client as proto;
use parking_lot::Mutex;
use proto::generic_result::GenericStatus;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use crate::build::Built;
use crate::model::process::{Keep, Running};
use crate::model::state::{State, now};
use crate::model::volume_views::Views;
use crate::model::{outbound_policy, storage};
use crate::runtime::commands::Exec;
use container_isolation::{Container, ContainerSpec, End, Exit, ProcessSpec};
use container_network::{Network, Policy, Port, Switch};

/// What runs when neither the request nor the image names a command: the default image's own command.
const DEFAULT_COMMAND: [&str; 2] = ["sleep", "172800"];

/// PATH of an image that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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
    pub tunnels: Mutex<crate::runtime::tunnels::Tunnels>,
    /// What it has used.
    pub samples: Mutex<crate::service::stats::Samples>,
    /// Further containers, oldest first; ended ones too.
    pub sidecars: Mutex<Vec<Arc<crate::runtime::sidecars::Sidecar>>>,
    orders: watch::Sender<Option<Order>>,
    busy: AtomicUsize,
    active: Mutex<Instant>,
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

/// A container and how processes are started in it.
#[derive(Debug)]
pub struct Unit {
    /// The container.
    pub container: Arc<Container>,
    /// Variables that every process gets.
    pub env: Vec<(String, String)>,
    /// Where processes start.
    pub workdir: PathBuf,
    /// As whom.
    pub user: Option<String>,
    /// The image it was made of.
    pub image: Arc<Built>,
    /// Its layers: the image's and those of local files.
    pub layers: Vec<PathBuf>,
    /// What it sees of volumes.
    pub volumes: Arc<Views>,
}

/// Why a sandbox should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
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
            switch: crate::model::network::switch(),
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
    pub async fn unit(&self) -> Result<Arc<Unit>, Status> {
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
    pub fn gone(&self) -> Status {
        Status::not_found(format!("Sandbox {} has already shut down", self.id))
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

    /// Says that somebody is doing something with it, as long as the answer is kept.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(self.clone())
    }

    /// Resolves when nothing has happened for `idle`.
    async fn idle(&self, idle: Duration) {
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

/// A result with nothing but a status, an exit code and a text.
pub fn result(status: GenericStatus, exitcode: i32, exception: impl Into<String>) -> proto::GenericResult {
    proto::GenericResult { status: status as i32, exitcode, exception: exception.into(), ..Default::default() }
}

/// The exit code of a process as a shell would give it.
pub fn code(exit: Exit) -> i32 {
    match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
    }
}

/// Runs a sandbox to its end.
pub async fn supervise(state: Arc<State>, sandbox: Arc<Sandbox>) {
    let started = Instant::now();
    let mut orders = sandbox.orders.subscribe();
    let result = match start(&state, &sandbox).await {
        Err(error) => {
            tracing::warn!(sandbox = sandbox.id, error = format!("{error:#}"), "sandbox did not start");
            result(GenericStatus::InitFailure, 1, format!("{error:#}"))
        }
        Ok((unit, entry, network)) => {
            tracing::info!(sandbox = sandbox.id, millis = started.elapsed().as_millis() as u64, "sandbox runs");
            sandbox.changing.lock().started_at = now();
            sandbox.entry.send_replace(Some(entry.clone()));
            *sandbox.active.lock() = Instant::now();
            sandbox.phase.send_if_modified(|phase| {
                let starting = matches!(phase, Phase::Starting);
                if starting {
                    *phase = Phase::Running(unit.clone());
                }
                starting
            });
            let probe = tokio::spawn(crate::runtime::readiness::probe(sandbox.clone(), unit.clone()));
            let sampling = tokio::spawn(crate::service::stats::sample(sandbox.clone(), unit.clone()));
            let lifetime = Duration::from_secs(u64::from(sandbox.definition.timeout_secs));
            let idle = sandbox.definition.idle_timeout_secs.map(|secs| Duration::from_secs(u64::from(secs)));
            let result = tokio::select! {
                biased;
                Ok(order) = orders.wait_for(Option::is_some) => match *order {
                    Some(Order::Lose) => result(GenericStatus::InternalFailure, 137, "The worker was lost"),
                    _ => result(GenericStatus::Terminated, 137, ""),
                },
                // The entry point dies with the container, so the container's own end is looked at first.
                end = unit.container.ended() => match (end, entry.ended()) {
                    (End::OutOfMemory, _) => out_of_memory(),
                    (End::OutOfDisk, _) => {
                        result(GenericStatus::InternalFailure, 137, "The worker ran out of disk, and the sandbox had written most")
                    }
                    (End::Over, Some(exit)) => of_exit(exit),
                    (End::Over, None) => result(GenericStatus::InternalFailure, 137, "The container ended"),
                },
                exit = entry.wait() => of_entry(exit, &unit.container),
                () = tokio::time::sleep_until(started + lifetime), if !lifetime.is_zero() => {
                    result(GenericStatus::Timeout, 124, "")
                }
                () = async {
                    match idle {
                        Some(idle) => sandbox.idle(idle).await,
                        None => std::future::pending().await,
                    }
                } => result(GenericStatus::IdleTimeout, 137, "The sandbox was idle for too long"),
            };
            probe.abort();
            sampling.abort();
            crate::service::stats::look(&sandbox, &unit);
            sandbox.phase.send_replace(Phase::Ending);
            *sandbox.tunnels.lock() = Default::default();
            crate::runtime::sidecars::stop_all(&sandbox).await;
            if crate::service::snapshots::wants_exit_snapshot(&sandbox.definition) {
                let taken =
                    crate::service::snapshots::filesystem(&state, &unit, crate::service::snapshots::Keep::ALWAYS).await;
                let taken = taken.map(|image| image.id.clone()).map_err(|status| status.message().to_owned());
                *sandbox.exit_snapshot.lock() = Some(taken);
            }
            unit.container.stop().await;
            unit.volumes.close(true).await;
            drop(network);
            remove_in_background(unit.container.clone());
            result
        }
    };
    sandbox.execs.lock().clear();
    sandbox.snapshots.lock().clear();
    sandbox.changing.lock().finished_at = now();
    tracing::info!(
        sandbox = sandbox.id,
        result = GenericStatus::try_from(result.status).map_or("?", |s| s.as_str_name()),
        exitcode = result.exitcode,
        "sandbox ended"
    );
    sandbox.phase.send_replace(Phase::Ended(result));
    let mut tables = state.tables.lock();
    crate::service::apps::settle(&mut tables, &sandbox.app_id);
    tables.retire(&sandbox.id);
}

/// Removes what an ended container has written.
pub fn remove_in_background(container: Arc<Container>) {
    tokio::spawn(async move { remove(&container).await });
}

/// Ends a container and removes what it has written.
pub async fn remove(container: &Container) {
    if let Err(error) = container.remove().await {
        tracing::warn!(%error, "cannot remove what a container left");
    }
}

fn out_of_memory() -> proto::GenericResult {
    result(GenericStatus::KernelOomKill, 137, "The sandbox ran out of memory")
}

/// By the end of the entry point, which may have been killed for want of memory, or a shell whose command was.
fn of_entry(exit: Exit, container: &Container) -> proto::GenericResult {
    if code(exit) == 128 + libc::SIGKILL && container.oom_killed() { out_of_memory() } else { of_exit(exit) }
}

fn of_exit(exit: Exit) -> proto::GenericResult {
    match code(exit) {
        0 => result(GenericStatus::Success, 0, ""),
        code => result(GenericStatus::Failure, code, ""),
    }
}

async fn start(
    state: &Arc<State>,
    sandbox: &Arc<Sandbox>,
) -> anyhow::Result<(Arc<Unit>, Arc<Running>, Option<Network>)> {
    let definition = &sandbox.definition;
    let mut layers = sandbox.image.layers.clone();
    for id in &definition.mount_ids {
        layers.push(crate::build::mount_layer(state, id).await?);
    }
    let volumes = Arc::new(Views::open(state, &sandbox.id, &definition.volume_mounts).await?);
    let mut binds = volumes.binds();
    binds.extend(storage::bucket_binds(state, &storage::buckets(definition))?);
    let resources = definition.resources.clone().unwrap_or_default();
    let port =
        outbound_policy::port(state.options.network && !outbound_policy::is_blocked(definition), &sandbox.switch)?;
    let spec = ContainerSpec {
        id: sandbox.id.clone(),
        layers: layers.clone(),
        from_scratch: sandbox.image.from_scratch,
        hostname: "modal".to_owned(),
        device: port.as_ref().map(Port::number),
        binds,
        memory_limit: (resources.memory_mb_max > 0).then(|| u64::from(resources.memory_mb_max) << 20),
        cpu_request: (resources.milli_cpu > 0).then_some(resources.milli_cpu),
        cpu_limit: (resources.milli_cpu_max > 0).then_some(resources.milli_cpu_max),
        disk_limit: sandbox.disk,
    };
    let container = match state.engine.start(spec).await {
        Ok(container) => Arc::new(container),
        Err(error) => {
            volumes.close(false).await;
            return Err(error);
        }
    };
    let workdir = definition.workdir.clone().or_else(|| sandbox.image.config.workdir.clone());
    let unit = Arc::new(Unit {
        container,
        env: sandbox.env.clone(),
        workdir: PathBuf::from(workdir.unwrap_or_else(|| "/".to_owned())),
        user: sandbox.image.config.user.clone(),
        image: sandbox.image.clone(),
        layers,
        volumes,
    });
    let entered = async {
        let network =
            outbound_policy::serve(state, &sandbox.id, unit.container.device(), port, sandbox.policy.subscribe())?;
        let mut process = unit.process(command(&definition.entrypoint_args, &sandbox.image));
        terminal(&mut process, definition.pty_info.as_ref());
        let entry = Running::start(&unit.container, process, Keep::ALL, None, &state.spools()).await?;
        crate::runtime::tunnels::open(state, sandbox, &unit).await?;
        anyhow::Ok((entry, network))
    };
    match entered.await {
        Ok((entry, network)) => Ok((unit, entry, network)),
        Err(error) => {
            remove(&unit.container).await;
            unit.volumes.close(false).await;
            Err(error)
        }
    }
}

/// Returns the arguments of a container's first process: the image's ENTRYPOINT, and after it the command of the request, or
/// the image's CMD if the request names none.
pub fn command(asked: &[String], image: &Built) -> Vec<String> {
    let config = &image.config;
    let rest = if asked.is_empty() { config.cmd.as_deref().unwrap_or_default() } else { asked };
    let all: Vec<String> = config.entrypoint.iter().flatten().chain(rest).cloned().collect();
    if all.is_empty() { DEFAULT_COMMAND.map(str::to_owned).to_vec() } else { all }
}

/// Gives a process a terminal, and the variables that describe it, if one is asked for.
pub fn terminal(process: &mut ProcessSpec, info: Option<&proto::PtyInfo>) {
    let Some(info) = info.filter(|info| info.enabled) else { return };
    let cut = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    process.pty = Some((cut(info.winsz_rows), cut(info.winsz_cols)));
    for (key, value) in
        [("TERM", &info.env_term), ("COLORTERM", &info.env_colorterm), ("TERM_PROGRAM", &info.env_term_program)]
    {
        if !value.is_empty() && !process.env.iter().any(|(known, _)| known == key) {
            process.env.push((key.into(), value.into()));
        }
    }
}

impl Unit {
    /// A process with this container's variables, directory and user.
    pub fn process(&self, argv: Vec<String>) -> ProcessSpec {
        ProcessSpec {
            argv: argv.into_iter().map(Into::into).collect(),
            env: self.env.iter().map(|(key, value)| (key.into(), value.into())).collect(),
            cwd: self.workdir.clone(),
            user: self.user.clone(),
            ..Default::default()
        }
    }
}

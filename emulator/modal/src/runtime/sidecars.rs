//! Sidecars: additional containers of a sandbox. Each has its own image, processes and result; all end with the sandbox.

use std::sync::{Arc, OnceLock};

use container_isolation::ContainerSpec;
use container_network::{Network, Policy, Port};
use modal_proto::client as proto;
use proto::generic_result::GenericStatus;
use tokio::sync::{oneshot, watch};

use crate::model::error::Error;
use crate::model::image::Built;
use crate::model::outcome::{code, result};
use crate::model::process::{Keep, Running};
use crate::model::sandbox::Sandbox;
use crate::model::sidecar::{MAIN, Phase, Sidecar};
use crate::model::state::State;
use crate::model::unit::{Unit, command, terminal};
use crate::model::values::{DEFAULT_PATH, check_name, check_variables, overlay};
use crate::model::{definition, network, storage};
use crate::runtime::removal::{remove, remove_in_background};

/// The input for a new sidecar.
#[derive(Debug)]
pub struct Plan {
    /// Name, unique among the live sidecars of its sandbox.
    pub name: String,
    /// The image that it runs.
    pub image: Arc<Built>,
    /// Command; empty for the image's.
    pub args: Vec<String>,
    /// Environment variables of the request.
    pub variables: Vec<(String, String)>,
    /// Working directory; empty for the image's.
    pub workdir: String,
    /// Outbound network policy. It is independent of the sandbox's policy.
    pub policy: Policy,
    /// Volumes to mount.
    pub volumes: Vec<proto::VolumeMount>,
    /// Buckets to mount.
    pub buckets: Vec<proto::CloudBucketMount>,
    /// Mebibytes that it takes of the memory that its sandbox reserves for sidecars; `None` takes all that is left.
    pub memory: Option<u32>,
    /// Terminal of the entry point, if one is requested.
    pub pty: Option<proto::PtyInfo>,
    /// Bytes that it may write, if a fault limits that.
    pub disk: Option<u64>,
}

/// Returns the container that a request names, and waits until it runs. An empty id stands for the sandbox's own container.
///
/// # Errors
///
/// Fails with `Kind::NotFound` if the sandbox or the sidecar has ended, or if there is no such sidecar.
pub async fn unit(sandbox: &Sandbox, container_id: &str) -> Result<Arc<Unit>, Error> {
    let main = sandbox.unit().await?;
    if container_id.is_empty() {
        return Ok(main);
    }
    let sidecar = find(sandbox, container_id)?;
    let mut phase = sidecar.phase.subscribe();
    let phase = phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await;
    match phase.as_deref() {
        Ok(Phase::Running(unit)) => Ok(unit.clone()),
        _ => Err(Error::not_found(format!("Container {container_id} has ended"))),
    }
}

/// Returns a sidecar by id, also after it has ended.
///
/// # Errors
///
/// Fails with `Kind::NotFound` if there is no such sidecar.
pub fn find(sandbox: &Sandbox, container_id: &str) -> Result<Arc<Sidecar>, Error> {
    let sidecars = sandbox.sidecars.lock();
    let found = sidecars.iter().find(|sidecar| sidecar.id == container_id).cloned();
    found.ok_or_else(|| Error::not_found(format!("Container {container_id} not found")))
}

/// Returns the live sidecar that has this name. With `ended_too`, returns the newest ended one if none is alive.
///
/// # Errors
///
/// Fails with `Kind::NotFound` if there is no such sidecar.
pub fn by_name(sandbox: &Sandbox, name: &str, ended_too: bool) -> Result<Arc<Sidecar>, Error> {
    let sidecars = sandbox.sidecars.lock();
    let mut named = sidecars.iter().rev().filter(|sidecar| sidecar.name == name);
    let live = named.clone().find(|sidecar| sidecar.lives());
    let found = live.or_else(|| named.next().filter(|_| ended_too)).cloned();
    found.ok_or_else(|| Error::not_found(format!("Container '{name}' not found")))
}

/// Returns the mebibytes that a new sidecar gets of the memory reserved for sidecars; `None` if none is reserved.
fn memory(reserve: Option<u32>, sidecars: &[Arc<Sidecar>], wanted: Option<u32>) -> Result<Option<u32>, Error> {
    let Some(reserve) = reserve else { return Ok(None) };
    let taken: u32 = sidecars.iter().filter(|sidecar| sidecar.lives()).filter_map(|sidecar| sidecar.memory).sum();
    let left = reserve.saturating_sub(taken);
    let wanted = wanted.unwrap_or(left);
    if wanted == 0 || wanted > left {
        return Err(Error::resource_exhausted(format!(
            "{wanted} MiB are requested, but only {left} MiB of the {reserve} MiB reserved for sidecars are left"
        )));
    }
    Ok(Some(wanted))
}

/// Adds a sidecar to its sandbox's list. Its name and memory are checked and taken under one lock, so that concurrent callers
/// cannot get the same.
fn enter(sandbox: &Sandbox, plan: &Plan) -> Result<Arc<Sidecar>, Error> {
    let reserve = definition::sidecar_memory(&sandbox.definition);
    let mut sidecars = sandbox.sidecars.lock();
    // The sandbox's phase changes before `stop_all` reads the list, so `stop_all` stops every sidecar that is added here.
    if !sandbox.lives() {
        return Err(sandbox.gone());
    }
    if sidecars.iter().any(|other| other.name == plan.name && other.lives()) {
        return Err(Error::already_exists(format!("A container named '{}' is already running", plan.name)));
    }
    let sidecar = Arc::new(Sidecar {
        id: crate::model::ids::id("ctr"),
        name: plan.name.clone(),
        memory: memory(reserve, &sidecars, plan.memory)?,
        entry: OnceLock::new(),
        phase: watch::Sender::new(Phase::Starting),
        stop: watch::Sender::new(false),
    });
    sidecars.push(sidecar.clone());
    Ok(sidecar)
}

/// Creates a sidecar and waits until its entry point has started.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if the plan is not valid, with `Kind::NotFound` if the sandbox has ended or a volume does
/// not exist, with `Kind::AlreadyExists` if the name is taken, with `Kind::ResourceExhausted` if too little memory is reserved,
/// and with `Kind::Internal` if the container cannot be started.
pub async fn create(state: &Arc<State>, sandbox: &Arc<Sandbox>, plan: Plan) -> Result<Arc<Sidecar>, Error> {
    check_name("container", &plan.name)?;
    if plan.name == MAIN {
        return Err(Error::invalid_argument("The container name 'main' is reserved"));
    }
    sandbox.unit().await?;
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    overlay(&mut env, plan.image.config.env.clone());
    overlay(&mut env, plan.variables.clone());
    check_variables(&env)?;
    definition::check_workdir(Some(plan.workdir.as_str()).filter(|workdir| !workdir.is_empty()))?;
    storage::check(state, &plan.volumes, &plan.buckets)?;
    let sidecar = enter(sandbox, &plan)?;
    let (told, answer) = oneshot::channel();
    // In a task of its own, so that a caller that disconnects leaves no container behind that is in no list.
    tokio::spawn(run(state.clone(), sandbox.clone(), sidecar.clone(), plan, env, told));
    match answer.await {
        Ok(Ok(())) => Ok(sidecar),
        Ok(Err(error)) => Err(Error::internal(format!("{error:#}"))),
        Err(_) => Err(Error::internal("the result of the start was lost")),
    }
}

/// Starts a sidecar, reports the start to `told`, and supervises the sidecar until it has ended.
async fn run(
    state: Arc<State>,
    sandbox: Arc<Sandbox>,
    sidecar: Arc<Sidecar>,
    plan: Plan,
    env: Vec<(String, String)>,
    told: oneshot::Sender<anyhow::Result<()>>,
) {
    match start(&state, &sandbox, &sidecar, plan, env).await {
        Ok((unit, entry, network)) => {
            let _ = sidecar.entry.set(entry.clone());
            sidecar.phase.send_replace(Phase::Running(unit.clone()));
            let _ = told.send(Ok(()));
            supervise(sidecar, unit, entry, network).await;
        }
        Err(error) => {
            sandbox.sidecars.lock().retain(|other| other.id != sidecar.id);
            sidecar.phase.send_replace(Phase::Ended(result(GenericStatus::InitFailure, 1, format!("{error:#}"))));
            let _ = told.send(Err(error));
        }
    }
}

async fn start(
    state: &Arc<State>,
    sandbox: &Sandbox,
    sidecar: &Sidecar,
    plan: Plan,
    env: Vec<(String, String)>,
) -> anyhow::Result<(Arc<Unit>, Arc<Running>, Option<Network>)> {
    let volumes = Arc::new(storage::views(state, &sidecar.id, &plan.volumes).await?);
    let mut binds = volumes.binds();
    binds.extend(storage::bucket_binds(state, &plan.buckets)?);
    let port = network::port(state.options.network, &sandbox.switch)?;
    let spec = ContainerSpec {
        id: sidecar.id.clone(),
        layers: plan.image.layers.clone(),
        from_scratch: plan.image.from_scratch,
        hostname: plan.name,
        device: port.as_ref().map(Port::number),
        binds,
        disk_limit: plan.disk.or(state.options.disk),
        memory_limit: sidecar.memory.map(|mib| u64::from(mib) << 20),
        ..Default::default()
    };
    let container = match state.engine.start(spec).await {
        Ok(container) => Arc::new(container),
        Err(error) => {
            volumes.close(false).await;
            return Err(error);
        }
    };
    let workdir = Some(plan.workdir).filter(|w| !w.is_empty()).or_else(|| plan.image.config.workdir.clone());
    let unit = Arc::new(Unit {
        container,
        env,
        workdir: workdir.unwrap_or_else(|| "/".to_owned()).into(),
        user: plan.image.config.user.clone(),
        image: plan.image.clone(),
        layers: plan.image.layers.clone(),
        volumes,
    });
    let entered = async {
        let policy = watch::Sender::new(Arc::new(plan.policy)).subscribe();
        let network = network::serve(&state.names, &sidecar.id, unit.container.device(), port, policy)?;
        let mut process = unit.process(command(&plan.args, &plan.image));
        terminal(&mut process, plan.pty.as_ref());
        let keep = Keep { stdout: true, stderr: true };
        let entry = Running::start(&unit.container, process, keep, None, &state.spools()).await?;
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

async fn supervise(sidecar: Arc<Sidecar>, unit: Arc<Unit>, entry: Arc<Running>, network: Option<Network>) {
    let mut stop = sidecar.stop.subscribe();
    let result = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => result(GenericStatus::Terminated, 137, ""),
        exit = entry.wait() => match code(exit) {
            0 => result(GenericStatus::Success, 0, ""),
            code => result(GenericStatus::Failure, code, ""),
        },
    };
    unit.container.stop().await;
    unit.volumes.close(true).await;
    drop(network);
    remove_in_background(unit.container.clone());
    sidecar.phase.send_replace(Phase::Ended(result));
}

/// Ends all sidecars of a sandbox, and waits until they have ended.
pub async fn stop_all(sandbox: &Sandbox) {
    let sidecars = sandbox.sidecars.lock().clone();
    for sidecar in &sidecars {
        sidecar.terminate();
    }
    for sidecar in &sidecars {
        let _ = sidecar.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Ended(_))).await;
    }
}

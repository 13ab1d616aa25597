//! Further containers of a sandbox: each with its own image, processes and result, all ended with the sandbox.

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

/// What a sidecar is made of.
#[derive(Debug)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: Arc<Built>,
    /// Its command; empty for the image's.
    pub args: Vec<String>,
    /// Variables of the request.
    pub variables: Vec<(String, String)>,
    /// Empty for the image's.
    pub workdir: String,
    /// What it may reach: its own affair, whatever the sandbox may.
    pub policy: Policy,
    /// Volumes.
    pub volumes: Vec<proto::VolumeMount>,
    /// Buckets.
    pub buckets: Vec<proto::CloudBucketMount>,
    /// Mebibytes it takes of what its sandbox has set aside for sidecars; all that is left when none.
    pub memory: Option<u32>,
    /// A terminal.
    pub pty: Option<proto::PtyInfo>,
    /// Bytes that it has to write to, if that is limited by a fault.
    pub disk: Option<u64>,
}

/// The container that a request means: empty for the sandbox's own.
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

/// A sidecar by id.
pub fn find(sandbox: &Sandbox, container_id: &str) -> Result<Arc<Sidecar>, Error> {
    let sidecars = sandbox.sidecars.lock();
    let found = sidecars.iter().find(|sidecar| sidecar.id == container_id).cloned();
    found.ok_or_else(|| Error::not_found(format!("Container {container_id} not found")))
}

/// A sidecar by name: a live one, or the newest ended one if that is asked for.
pub fn by_name(sandbox: &Sandbox, name: &str, ended_too: bool) -> Result<Arc<Sidecar>, Error> {
    let sidecars = sandbox.sidecars.lock();
    let mut named = sidecars.iter().rev().filter(|sidecar| sidecar.name == name);
    let live = named.clone().find(|sidecar| sidecar.lives());
    let found = live.or_else(|| named.next().filter(|_| ended_too)).cloned();
    found.ok_or_else(|| Error::not_found(format!("Container '{name}' not found")))
}

/// What a new sidecar gets of the memory that its sandbox has set aside for sidecars, if it has.
fn memory(reserve: Option<u32>, sidecars: &[Arc<Sidecar>], wanted: Option<u32>) -> Result<Option<u32>, Error> {
    let Some(reserve) = reserve else { return Ok(None) };
    let taken: u32 = sidecars.iter().filter(|sidecar| sidecar.lives()).filter_map(|sidecar| sidecar.memory).sum();
    let left = reserve.saturating_sub(taken);
    let wanted = wanted.unwrap_or(left);
    if wanted == 0 || wanted > left {
        return Err(Error::resource_exhausted(format!(
            "{left} MiB are left of the {reserve} MiB set aside for sidecars, {wanted} are asked for"
        )));
    }
    Ok(Some(wanted))
}

/// Enters a sidecar into its sandbox's list: its name and its memory are looked at and taken under one lock, so that two
/// callers cannot get the same.
fn enter(sandbox: &Sandbox, plan: &Plan) -> Result<Arc<Sidecar>, Error> {
    let reserve = definition::sidecar_memory(&sandbox.definition);
    let mut sidecars = sandbox.sidecars.lock();
    // The sandbox's phase changes before `stop_all` looks at the list, so that it stops whatever is entered here.
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

/// Starts one.
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
    // A task of its own: a caller that hangs up half-way leaves no container behind that is in no list.
    tokio::spawn(run(state.clone(), sandbox.clone(), sidecar.clone(), plan, env, told));
    match answer.await {
        Ok(Ok(())) => Ok(sidecar),
        Ok(Err(error)) => Err(Error::internal(format!("{error:#}"))),
        Err(_) => Err(Error::internal("the start was lost")),
    }
}

/// A sidecar's life.
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

/// Ends all of a sandbox's sidecars and waits for that.
pub async fn stop_all(sandbox: &Sandbox) {
    let sidecars = sandbox.sidecars.lock().clone();
    for sidecar in &sidecars {
        sidecar.terminate();
    }
    for sidecar in &sidecars {
        let _ = sidecar.phase.subscribe().wait_for(|phase| matches!(phase, Phase::Ended(_))).await;
    }
}

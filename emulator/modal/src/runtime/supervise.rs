//! Supervises a sandbox from the start of its container to its result. One task per sandbox does this. It waits for the first
//! of several ends: an order, the container's end, the entry point's exit, the time limit, or the idle limit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use container_isolation::{Container, ContainerSpec, End, Exit};
use container_network::{Network, Port};
use modal_proto::client as proto;
use proto::generic_result::GenericStatus;
use tokio::time::Instant;

use crate::model::outcome::{code, result};
use crate::model::process::{Keep, Running};
use crate::model::sandbox::{Order, Phase, Sandbox};
use crate::model::state::State;
use crate::model::unit::{Unit, command, terminal};
use crate::model::values::now;
use crate::model::{definition, network, outbound_policy, storage};
use crate::runtime::removal::{remove, remove_in_background};
use crate::runtime::{app_lives, readiness, sidecars, snapshots, tunnels, usage};

/// Starts a sandbox, waits for its end, cleans up, and publishes the result.
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
            let probe = tokio::spawn(readiness::probe(sandbox.clone(), unit.clone()));
            let sampling = tokio::spawn(usage::sample(sandbox.clone(), unit.clone()));
            let lifetime = Duration::from_secs(u64::from(sandbox.definition.timeout_secs));
            let idle = sandbox.definition.idle_timeout_secs.map(|secs| Duration::from_secs(u64::from(secs)));
            let result = tokio::select! {
                biased;
                Ok(order) = orders.wait_for(Option::is_some) => match *order {
                    Some(Order::Lose) => result(GenericStatus::InternalFailure, 137, "The worker was lost"),
                    _ => result(GenericStatus::Terminated, 137, ""),
                },
                // The entry point is killed with the container, so the container's end must be checked first.
                end = unit.container.ended() => match (end, entry.ended()) {
                    (End::OutOfMemory, _) => out_of_memory(),
                    (End::OutOfDisk, _) => {
                        result(GenericStatus::InternalFailure, 137, "The worker ran out of disk space, and this sandbox had written most")
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
            usage::look(&sandbox, &unit);
            sandbox.phase.send_replace(Phase::Ending);
            *sandbox.tunnels.lock() = Default::default();
            sidecars::stop_all(&sandbox).await;
            if definition::wants_exit_snapshot(&sandbox.definition) {
                let taken = snapshots::filesystem(&state, &unit, snapshots::Keep::ALWAYS).await;
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
    app_lives::end_if_abandoned(&mut tables, &sandbox.app_id);
    tables.retire(&sandbox.id);
}

fn out_of_memory() -> proto::GenericResult {
    result(GenericStatus::KernelOomKill, 137, "The sandbox ran out of memory")
}

/// Returns the result after the exit of the entry point. If memory runs out, the kernel kills the entry point or one of its
/// children. A shell whose child was killed exits with the code 137 as well.
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
    let volumes = Arc::new(storage::views(state, &sandbox.id, &definition.volume_mounts).await?);
    let mut binds = volumes.binds();
    binds.extend(storage::bucket_binds(state, &storage::buckets(definition))?);
    let resources = definition.resources.clone().unwrap_or_default();
    let port = network::port(state.options.network && !outbound_policy::is_blocked(definition), &sandbox.switch)?;
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
            network::serve(&state.names, &sandbox.id, unit.container.device(), port, sandbox.policy.subscribe())?;
        let mut process = unit.process(command(&definition.entrypoint_args, &sandbox.image));
        terminal(&mut process, definition.pty_info.as_ref());
        let entry = Running::start(&unit.container, process, Keep::ALL, None, &state.spools()).await?;
        tunnels::open(state, sandbox, &unit).await?;
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

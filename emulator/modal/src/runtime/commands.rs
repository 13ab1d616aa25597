//! Commands that clients start in a sandbox. The client chooses the id of each.
//!
//! The id makes a start idempotent: the first request registers it and starts the command in a task of its own. Therefore
//! neither a repeated request nor a client that disconnects can start the command twice or interrupt its start.

use std::sync::Arc;
use std::time::Duration;

use container_isolation::ProcessSpec;
use modal_proto::task_command_router as tcr;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::error::Error;
use crate::model::exec::Exec;
use crate::model::process::{Keep, Running};
use crate::model::sandbox::Sandbox;
use crate::model::state::State;
use crate::model::unit::{Unit, terminal};
use crate::model::values::overlay;

/// Largest total size of the arguments in bytes; the official clients check the same limit.
const MAX_ARGV: usize = 65_536;

/// Returns the command that has this id.
///
/// # Errors
///
/// Fails with `Kind::NotFound` if the sandbox has ended or has no such command.
pub fn find(sandbox: &Sandbox, exec_id: &str) -> Result<Arc<Exec>, Error> {
    if !sandbox.lives() {
        return Err(sandbox.gone());
    }
    let exec = sandbox.execs.lock().get(exec_id).cloned();
    exec.ok_or_else(|| Error::not_found(format!("Exec {exec_id} not found")))
}

/// Starts a command, or waits for the start of the command that has this id already.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if the request is not valid, with `Kind::NotFound` if the sandbox has ended or a secret
/// does not exist, and with `Kind::Internal` if the command cannot be started.
pub async fn start(
    state: &Arc<State>,
    sandbox: &Arc<Sandbox>,
    request: tcr::TaskExecStartRequest,
) -> Result<(), Error> {
    if !sandbox.lives() {
        return Err(sandbox.gone());
    }
    check(&request)?;
    // The limit counts from the arrival of the request. Clients count from when they send it, or from the response.
    let due = request.timeout_secs.map(|secs| Instant::now() + Duration::from_secs(u64::from(secs)));
    let mut variables = state.variables(&request.secret_sources)?;
    for id in &request.secret_ids {
        variables.extend(state.secret_values(id)?);
    }
    let mut own: Vec<_> = request.env.clone().into_iter().collect();
    own.sort();
    variables.extend(own);

    let exec = Arc::new(Exec { started: watch::Sender::new(None) });
    let (exec, fresh) = match sandbox.execs.lock().entry(request.exec_id.clone()) {
        std::collections::hash_map::Entry::Occupied(known) => (known.get().clone(), false),
        std::collections::hash_map::Entry::Vacant(slot) => (slot.insert(exec).clone(), true),
    };
    if fresh {
        tokio::spawn(run(state.clone(), sandbox.clone(), request, variables, due, exec.clone()));
    }
    exec.running().await.map(drop)
}

async fn run(
    state: Arc<State>,
    sandbox: Arc<Sandbox>,
    request: tcr::TaskExecStartRequest,
    variables: Vec<(String, String)>,
    due: Option<Instant>,
    exec: Arc<Exec>,
) {
    let busy = sandbox.busy();
    let running = async {
        let unit = crate::runtime::sidecars::unit(&sandbox, &request.container_id).await?;
        let spec = spec(&unit, &request, variables);
        let keep = Keep {
            stdout: request.stdout_config() == tcr::TaskExecStdoutConfig::Pipe,
            stderr: request.stderr_config() == tcr::TaskExecStderrConfig::Pipe,
        };
        Running::start(&unit.container, spec, keep, due, &state.spools())
            .await
            .map_err(|error| if sandbox.lives() { Error::internal(format!("{error:#}")) } else { sandbox.gone() })
    }
    .await;
    match &running {
        Ok(running) => {
            let (id, exec, argv) = (&sandbox.id, &request.exec_id, &request.command_args);
            if sandbox.definition.verbose {
                tracing::info!(sandbox = id, exec, pid = running.pid, ?argv, "exec");
            } else {
                tracing::debug!(sandbox = id, exec, pid = running.pid, ?argv, "exec");
            }
        }
        Err(status) => {
            tracing::info!(
                sandbox = sandbox.id,
                exec = request.exec_id,
                status = status.message(),
                "exec did not start"
            );
            // Nothing was started, so a later request with the same id may try again.
            sandbox.execs.lock().remove(&request.exec_id);
        }
    }
    exec.started.send_replace(Some(running.clone()));
    if let Ok(running) = running {
        running.wait().await;
    }
    drop(busy);
}

fn check(request: &tcr::TaskExecStartRequest) -> Result<(), Error> {
    let bad = |text: String| Err(Error::invalid_argument(text));
    if request.exec_id.is_empty() || request.exec_id.len() > 128 {
        return bad("exec_id must be 1 to 128 characters long".into());
    }
    if request.command_args.is_empty() || request.command_args[0].is_empty() {
        return bad("command_args must name a program".into());
    }
    let size: usize = request.command_args.iter().map(String::len).sum();
    if size > MAX_ARGV {
        return bad(format!("The arguments have {size} bytes together, more than {MAX_ARGV}"));
    }
    if request.command_args.iter().any(|arg| arg.contains('\0')) {
        return bad("command_args must not contain zero bytes".into());
    }
    if let Some(workdir) = &request.workdir
        && (!workdir.starts_with('/') || workdir.contains('\0'))
    {
        return bad(format!("workdir must be an absolute path, got '{workdir}'"));
    }
    let older_form = !request.secret_ids.is_empty() || !request.env.is_empty();
    if older_form && !request.secret_sources.is_empty() {
        return bad("secret_sources cannot be combined with secret_ids or env".into());
    }
    if tcr::TaskExecStdoutConfig::try_from(request.stdout_config).is_err()
        || tcr::TaskExecStderrConfig::try_from(request.stderr_config).is_err()
    {
        return bad("unknown stdio configuration".into());
    }
    if request.timeout_secs == Some(0) {
        return bad("timeout_secs must be positive".into());
    }
    Ok(())
}

fn spec(unit: &Unit, request: &tcr::TaskExecStartRequest, variables: Vec<(String, String)>) -> ProcessSpec {
    let mut env = unit.env.clone();
    overlay(&mut env, variables);
    let mut spec = unit.process(request.command_args.clone());
    spec.env = env.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    if let Some(workdir) = &request.workdir {
        spec.cwd = workdir.into();
    }
    spec.merge_stderr = request.stderr_config() == tcr::TaskExecStderrConfig::Stdout;
    terminal(&mut spec, request.pty_info.as_ref());
    spec
}

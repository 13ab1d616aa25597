//! Calls about existing sandboxes: look-up, waiting, termination, names, tags.

use std::sync::Arc;
use std::time::Duration;

use modal_proto::client::*;
use tonic::Status;

use crate::model::definition::{check_tags, ports};
use crate::model::sandbox::{Phase, Sandbox};
use crate::model::state::State;
use crate::model::values::{check_name, now, wait};
use crate::service::caller::Caller;
use crate::service::sandbox_create::{access, metadata};

/// Longest wait of one call. Clients request 10 or 55 seconds and repeat the call.
const MAX_HOLD: Duration = Duration::from_secs(60);

/// Number of sandboxes on one page of a list.
const PAGE: usize = 100;

/// Waits for a sandbox's result. `result` stays unset while the sandbox runs, because some clients take its presence as the end
/// (docs/modal-protocol.md, section 6.1).
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist.
pub async fn wait_for(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxWaitRequest,
) -> Result<SandboxWaitResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let result = sandbox.wait(wait(request.timeout, MAX_HOLD)).await;
    Ok(SandboxWaitResponse { result, metadata: Some(metadata(&sandbox)) })
}

/// Tells a sandbox to end, and returns at once.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist.
pub async fn terminate(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxTerminateRequest,
) -> Result<SandboxTerminateResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let existing_result = sandbox.result();
    sandbox.terminate();
    Ok(SandboxTerminateResponse { existing_result })
}

/// Returns the task id of a sandbox. Waits until the sandbox has started if the request says so.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist.
pub async fn task_id(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetTaskIdRequest,
) -> Result<SandboxGetTaskIdResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    if request.wait_until_ready {
        let most = wait(request.timeout.unwrap_or(55.0), MAX_HOLD);
        let mut phase = sandbox.phase.subscribe();
        let _ = tokio::time::timeout(most, phase.wait_for(|phase| !matches!(phase, Phase::Starting))).await;
    }
    Ok(SandboxGetTaskIdResponse { task_id: Some(sandbox.task_id.clone()), task_result: sandbox.result() })
}

/// Returns router access for a sandbox or task of the second backend. Ended ones are included, because their output can still
/// be read.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the request names neither, and with NOT_FOUND if it does not exist.
pub async fn router_access(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxGetCommandRouterAccessRequest,
) -> Result<SandboxGetCommandRouterAccessResponse, Status> {
    use sandbox_get_command_router_access_request::Target;
    let sandbox = match &request.target {
        Some(Target::SandboxId(id)) => state.sandbox(id)?,
        Some(Target::TaskId(id)) => state.task(id)?,
        None => return Err(Status::invalid_argument("sandbox_id or task_id is required")),
    };
    let CommandRouterAccess { jwt, url } = access(state, caller, &sandbox);
    Ok(SandboxGetCommandRouterAccessResponse { jwt, url, worker_ipv4_address: state.address.ip().to_string() })
}

/// Returns router access for a task.
///
/// # Errors
///
/// Fails with NOT_FOUND if the task does not exist.
pub async fn task_router_access(
    state: &Arc<State>,
    caller: &Caller,
    request: TaskGetCommandRouterAccessRequest,
) -> Result<TaskGetCommandRouterAccessResponse, Status> {
    let sandbox = state.task(&request.task_id)?;
    let CommandRouterAccess { jwt, url } = access(state, caller, &sandbox);
    Ok(TaskGetCommandRouterAccessResponse { jwt, url })
}

/// Lists sandboxes of the first backend, newest first.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app or the environment does not exist.
pub async fn list(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxListRequest,
) -> Result<SandboxListResponse, Status> {
    list_some(state, caller, request, false)
}

/// Lists sandboxes of both backends, newest first.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app or the environment does not exist.
pub async fn list_v2(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxListRequest,
) -> Result<SandboxListResponse, Status> {
    list_some(state, caller, request, true)
}

fn list_some(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxListRequest,
    v2: bool,
) -> Result<SandboxListResponse, Status> {
    let environment = match request.app_id.as_str() {
        "" => Some(state.environment(&request.environment_name)?),
        id if state.tables.lock().apps.contains_key(id) => None,
        id => return Err(Status::not_found(format!("App with ID {id} not found"))),
    };
    let before = if request.before_timestamp > 0.0 { request.before_timestamp } else { f64::INFINITY };
    let mut found: Vec<_> = {
        let tables = state.tables.lock();
        let wanted = |s: &&Arc<Sandbox>| {
            environment.as_ref().map_or(s.app_id == request.app_id, |e| s.environment == *e)
                && (v2 || !s.v2)
                && s.created_at < before
                && (request.include_finished || s.lives())
        };
        tables.sandboxes.values().filter(wanted).cloned().collect()
    };
    found.retain(|sandbox| {
        let changing = sandbox.changing.lock();
        request.tags.iter().all(|tag| changing.tags.contains(tag))
    });
    found.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
    // The cursor is a time, so sandboxes with the same time of creation must be on the same page.
    let mut end = found.len().min(PAGE);
    while end < found.len() && found[end].created_at >= found[end - 1].created_at {
        end += 1;
    }
    found.truncate(end);
    Ok(SandboxListResponse { sandboxes: found.iter().map(|sandbox| info(sandbox)).collect() })
}

fn info(sandbox: &Sandbox) -> SandboxInfo {
    let changing = sandbox.changing.lock().clone();
    let definition = &sandbox.definition;
    let resources = definition.resources.clone().unwrap_or_default();
    let value = |value: u32| Some(resource_info::ResourceValue { value, is_default: value == 0 });
    let gpu = resources.gpu_config.clone().unwrap_or_default();
    SandboxInfo {
        id: sandbox.id.clone(),
        created_at: sandbox.created_at,
        task_info: Some(task_info(sandbox)),
        app_id: sandbox.app_id.clone(),
        tags: changing.tags,
        name: changing.name.unwrap_or_default(),
        image_id: definition.image_id.clone(),
        resource_info: Some(ResourceInfo {
            memory_mb: value(resources.memory_mb),
            milli_cpu: value(resources.milli_cpu),
            gpu_type: gpu.gpu_type,
            memory_mb_max: resources.memory_mb_max,
            ephemeral_disk_mb: resources.ephemeral_disk_mb,
            milli_cpu_max: resources.milli_cpu_max,
        }),
        regions: definition.scheduler_placement.clone().unwrap_or_default().regions,
        timeout_secs: definition.timeout_secs,
        idle_timeout_secs: definition.idle_timeout_secs,
        ready_at: *sandbox.ready.borrow(),
        readiness_probe: definition.readiness_probe.clone(),
        tunnels: if ports(definition).is_empty() {
            Vec::new()
        } else {
            crate::runtime::tunnels::known_at_once(sandbox)
        },
        metadata: Some(metadata(sandbox)),
    }
}

/// Returns the description of a sandbox's task.
pub fn task_info(sandbox: &Sandbox) -> TaskInfo {
    let changing = sandbox.changing.lock().clone();
    let gpu = sandbox.definition.resources.as_ref().and_then(|resources| resources.gpu_config.clone());
    let gpu = gpu.unwrap_or_default();
    TaskInfo {
        id: sandbox.task_id.clone(),
        started_at: changing.started_at,
        finished_at: changing.finished_at,
        result: sandbox.result(),
        enqueued_at: sandbox.created_at,
        gpu_type: gpu.gpu_type.clone(),
        sandbox_id: sandbox.id.clone(),
        gpu_config: Some(gpu),
        ..Default::default()
    }
}

/// Returns a sandbox of the first backend by name.
///
/// # Errors
///
/// Fails with NOT_FOUND if there is no such sandbox.
pub async fn from_name(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetFromNameRequest,
) -> Result<SandboxGetFromNameResponse, Status> {
    by_name(state, &request, false)
}

/// Returns a sandbox of the second backend by name.
///
/// # Errors
///
/// Fails with NOT_FOUND if there is no such sandbox.
pub async fn from_name_v2(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetFromNameRequest,
) -> Result<SandboxGetFromNameResponse, Status> {
    by_name(state, &request, true)
}

fn by_name(state: &State, request: &SandboxGetFromNameRequest, v2: bool) -> Result<SandboxGetFromNameResponse, Status> {
    let environment = state.environment(&request.environment_name)?;
    let missing =
        || Status::not_found(format!("Sandbox '{}' not found in app '{}'", request.sandbox_name, request.app_name));
    let mut found: Vec<_> = {
        let tables = state.tables.lock();
        let mut apps = tables.apps.values();
        let app =
            apps.find(|app| app.name == request.app_name && app.environment == environment && app.stopped_at == 0.0);
        let app = app.ok_or_else(missing)?;
        tables.sandboxes.values().filter(|s| s.app_id == app.id && s.v2 == v2).cloned().collect()
    };
    found.retain(|s| s.changing.lock().name.as_deref() == Some(request.sandbox_name.as_str()));
    found.sort_by(|a, b| b.lives().cmp(&a.lives()).then(b.created_at.total_cmp(&a.created_at)));
    let sandbox = found.first().filter(|s| s.lives() || request.include_terminated).ok_or_else(missing)?;
    Ok(SandboxGetFromNameResponse { sandbox_id: sandbox.id.clone(), metadata: Some(metadata(sandbox)) })
}

/// Gives a name to a sandbox that has none.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended, with INVALID_ARGUMENT if the name is not valid, with
/// FAILED_PRECONDITION if the sandbox has another name, and with ALREADY_EXISTS if the name is taken.
pub async fn set_name(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSetNameRequest,
) -> Result<SandboxSetNameResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    check_name("sandbox", &request.name)?;
    let tables = state.tables.lock();
    let known = sandbox.changing.lock().name.clone();
    match known {
        Some(name) if name == request.name => return Ok(SandboxSetNameResponse {}),
        Some(name) => return Err(Status::failed_precondition(format!("The sandbox already has the name '{name}'"))),
        None => {}
    }
    if !sandbox.lives() {
        return Err(sandbox.gone().into());
    }
    tables.free_name(&sandbox.app_id, &request.name)?;
    sandbox.changing.lock().name = Some(request.name);
    Ok(SandboxSetNameResponse {})
}

/// Returns a sandbox's tags.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist.
pub async fn tags(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxTagsGetRequest,
) -> Result<SandboxTagsGetResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let tags = sandbox.changing.lock().tags.clone();
    Ok(SandboxTagsGetResponse { tags })
}

/// Replaces a sandbox's tags.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist, and with INVALID_ARGUMENT if the tags are not valid.
pub async fn set_tags(state: &Arc<State>, _: &Caller, request: SandboxTagsSetRequest) -> Result<(), Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    check_tags(&request.tags)?;
    sandbox.changing.lock().tags = request.tags;
    Ok(())
}

/// Waits for the readiness probe. This is the older call of the control plane; the router has one as well.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or ends, with FAILED_PRECONDITION if it has no probe, and with
/// DEADLINE_EXCEEDED if the time is over.
pub async fn wait_until_ready(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxWaitUntilReadyRequest,
) -> Result<SandboxWaitUntilReadyResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let ready_at = crate::runtime::readiness::wait(&sandbox, wait(request.timeout, Duration::from_secs(600))).await?;
    Ok(SandboxWaitUntilReadyResponse { ready_at })
}

/// Returns the resources that are billed for a sandbox: the requested amounts, multiplied by its run time.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist.
pub async fn resource_usage(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetResourceUsageRequest,
) -> Result<SandboxGetResourceUsageResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let changing = sandbox.changing.lock().clone();
    let end = if changing.finished_at > 0.0 { changing.finished_at } else { now() };
    let seconds = if changing.started_at > 0.0 { (end - changing.started_at).max(0.0) } else { 0.0 };
    let resources = sandbox.definition.resources.clone().unwrap_or_default();
    // The service's defaults: an eighth of a core, and 128 MiB.
    let cores = f64::from(if resources.milli_cpu == 0 { 125 } else { resources.milli_cpu }) / 1000.0;
    let gib = f64::from(if resources.memory_mb == 0 { 128 } else { resources.memory_mb }) / 1024.0;
    let gpu = resources.gpu_config.unwrap_or_default();
    Ok(SandboxGetResourceUsageResponse {
        cpu_core_nanosecs: (cores * seconds * 1e9) as u64,
        mem_gib_nanosecs: (gib * seconds * 1e9) as u64,
        gpu_nanosecs: (f64::from(gpu.count) * seconds * 1e9) as u64,
        gpu_type: Some(gpu.gpu_type).filter(|gpu| !gpu.is_empty()),
    })
}

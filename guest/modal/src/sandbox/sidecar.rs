//! Sidecars: additional containers of a sandbox (docs/modal-protocol.md, section 6.6). On the newer backend the control
//! plane adds a sidecar, on the older one the router. All other calls go to the router.

use modal_proto::{
    client::{NetworkAccess, Sandbox, SandboxContainerCreateV2Request},
    rpc,
    task_command_router::{
        TaskContainerCreateRequest, TaskContainerInfo, TaskContainerListRequest, TaskContainerTerminateRequest,
        TaskContainerWaitRequest,
    },
};

use crate::{
    image::build::Builds,
    sandbox::{
        entry_point::{arguments, check_entry_point},
        volume,
    },
    service::{
        Service, container, ended,
        ended::{HOLD_SLACK, WAIT_HOLD},
        id, policy,
        wire::{check_outbound, network_access, secret_sources},
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check, ids,
        time::bounded_wait,
        wit::{EndReason, Outbound, SandboxState, SidecarInfo, SidecarSpec},
    },
    call::retry::{Policy, not_yet},
};

/// Implements `create-sidecar` of the interface. Adds a container to a running sandbox.
///
/// # Errors
///
/// `invalid-argument` or `unsupported` for a specification that Modal cannot provide, `already-exists` if the name is
/// in use, `sandbox-ended` if the sandbox has ended; otherwise the error of the failed request.
pub async fn create(service: &Service, builds: &Builds, sandbox: &str, spec: &SidecarSpec) -> Result<SidecarInfo> {
    id::check_sandbox(sandbox)?;
    check_spec(spec)?;
    let image = builds.ready_image(&spec.image).await?;
    make(service, sandbox, spec, &image.id, &service.new_uuid()).await
}

/// Adds a sidecar with an existing image. A repeated call with the same `key` does not add another one on the newer
/// backend.
pub(crate) async fn make(
    service: &Service,
    sandbox: &str,
    spec: &SidecarSpec,
    image_id: &str,
    key: &str,
) -> Result<SidecarInfo> {
    let secret_ids = service.names.secret_ids(&spec.secrets).await?;
    let secret_sources = secret_sources(&secret_ids, &spec.env);
    let volume_mounts = volume::mounts(service, &spec.volumes).await?;
    let access: NetworkAccess = network_access(&spec.outbound);
    let (image_id, name) = (image_id.to_string(), spec.name.clone());
    let id = if id::is_v1(sandbox) {
        let make = |task_id| TaskContainerCreateRequest {
            task_id,
            container_name: name,
            image_id,
            args: arguments(&spec.entry_point, &spec.image),
            workdir: spec.workdir.clone().unwrap_or_default(),
            volume_mounts,
            network_access: Some(access),
            secret_sources,
            ..Default::default()
        };
        service
            .router
            .ask(sandbox, &policy::ROUTER, "add the sidecar", rpc::TASK_CONTAINER_CREATE, make)
            .await?
            .container_id
    } else {
        let definition = Sandbox {
            entrypoint_args: arguments(&spec.entry_point, &spec.image),
            image_id,
            secret_ids,
            workdir: spec.workdir.clone(),
            volume_mounts,
            network_access: Some(access),
            ..Default::default()
        };
        let request = SandboxContainerCreateV2Request {
            sandbox_id: sandbox.to_string(),
            container_name: name,
            definition: Some(definition),
            secret_sources,
            ..Default::default()
        };
        let answer = service.control.keyed(&ids::derived_uuid(key), rpc::SANDBOX_CONTAINER_CREATE_V2, &request).await?;
        match answer {
            Ok(answer) => answer.container_id,
            // `NotFound` can mean the image or another resource of the sidecar.
            Err(status) => return Err(service.router.explain(sandbox, &status, "add the sidecar").await),
        }
    };
    Ok(SidecarInfo { id, name: spec.name.clone(), state: SandboxState::Running })
}

/// Implements `list-sidecars` of the interface. Lists all containers of a sandbox except the main one, also ended
/// containers.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox, `sandbox-ended` if it has ended; otherwise
/// the error of the failed request.
pub async fn list(service: &Service, sandbox: &str) -> Result<Vec<SidecarInfo>> {
    let make = |task_id| TaskContainerListRequest { task_id, include_terminated: true };
    let answer =
        service.router.ask(sandbox, &policy::ROUTER, "list the sidecars", rpc::TASK_CONTAINER_LIST, make).await?;
    let sidecars = answer.containers.into_iter().filter(|container| container.container_name != ids::MAIN);
    Ok(sidecars.map(|container| SidecarInfo { state: state(&container), ..named(container) }).collect())
}

/// Implements `wait-sidecar` of the interface. Waits up to `wait` milliseconds for the end of a sidecar.
///
/// # Errors
///
/// `invalid-argument` for an invalid name, `not-found` for an unknown sidecar, `sandbox-ended` if the sandbox has
/// ended; otherwise the error of the failed request.
pub async fn wait(service: &Service, sandbox: &str, name: &str, wait: u64) -> Result<Option<EndReason>> {
    let deadline = service.now() + bounded_wait(wait);
    let container = container::find(&service.router, sandbox, name).await?;
    if let Some(reason) = container.result.as_ref().and_then(ended::reason) {
        return Ok(Some(reason));
    }
    loop {
        let asked = service.now();
        let left = deadline.saturating_sub(asked);
        let hold = left.min(WAIT_HOLD);
        let policy = Policy { attempt: Some(hold + HOLD_SLACK), ..policy::ROUTER };
        let container_id = container.container_id.clone();
        let make = |task_id| TaskContainerWaitRequest { task_id, container_id, timeout: hold.as_secs_f32() };
        let answer =
            service.router.ask(sandbox, &policy, "wait for the sidecar", rpc::TASK_CONTAINER_WAIT, make).await?;
        let ended = answer.result.as_ref().and_then(ended::reason);
        if ended.is_some() || left.is_zero() {
            return Ok(ended);
        }
        not_yet(service.transport(), asked, hold).await;
    }
}

/// Implements `terminate-sidecar` of the interface. Terminates a sidecar.
///
/// # Errors
///
/// `invalid-argument` for an invalid name, `not-found` for an unknown sidecar, `sandbox-ended` if the sandbox has
/// ended; otherwise the error of the failed request.
pub async fn terminate(service: &Service, sandbox: &str, name: &str) -> Result<()> {
    let container = container::find(&service.router, sandbox, name).await?;
    if container.result.as_ref().and_then(ended::reason).is_some() {
        return Ok(());
    }
    let make = |task_id| TaskContainerTerminateRequest { task_id, container_id: container.container_id };
    service
        .router
        .ask(sandbox, &policy::ROUTER, "terminate the sidecar", rpc::TASK_CONTAINER_TERMINATE, make)
        .await
        .map(drop)
}

fn named(container: TaskContainerInfo) -> SidecarInfo {
    SidecarInfo { id: container.container_id, name: container.container_name, state: SandboxState::Unknown }
}

fn state(container: &TaskContainerInfo) -> SandboxState {
    container.result.as_ref().and_then(ended::reason).map_or(SandboxState::Running, SandboxState::Ended)
}

/// Checks the specification of a sidecar.
pub(crate) fn check_spec(spec: &SidecarSpec) -> Result<()> {
    container::check_name(&spec.name)?;
    check::env(&spec.env)?;
    check_outbound(&spec.outbound)?;
    check_entry_point(&spec.entry_point)?;
    volume::check(&spec.volumes)?;
    if matches!(spec.outbound, Outbound::Blocked) {
        return Err(Error::unsupported(
            "network.blocked",
            "Modal cannot block the network of one sidecar: block the network of the sandbox, or give the sidecar an empty allow-list.",
        ));
    }
    if spec.workdir.as_deref().is_some_and(|path| !path.starts_with('/')) {
        return Err(Error::invalid("The working directory of a sidecar must be an absolute path.").about("workdir"));
    }
    check::extra(&spec.extra)
}

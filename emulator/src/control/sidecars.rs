//! Requests for further containers, in the forms of both services.

use std::sync::Arc;

use modal_proto::client::*;
use modal_proto::task_command_router as tcr;
use network_access::NetworkAccessType;
use tonic::Status;

use super::Caller;
use super::sandbox::Sandbox;
use super::sidecar::{Plan, Sidecar, create};
use crate::state::State;

/// The control plane's form, for sandboxes of the second backend.
pub async fn create_v2(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxContainerCreateV2Request,
) -> Result<SandboxContainerCreateV2Response, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    for (used, what) in [
        (!super::sandboxes::ports(&definition).is_empty(), "open_ports"),
        (definition.readiness_probe.is_some(), "readiness_probe"),
        (definition.idle_timeout_secs.is_some(), "idle_timeout_secs"),
        (definition.enable_snapshot, "enable_snapshot"),
        (!definition.cloud_bucket_mounts.is_empty(), "cloud_bucket_mounts"),
        (!definition.mount_ids.is_empty(), "mount_ids"),
    ] {
        if used {
            return Err(Status::invalid_argument(format!("{what} is not supported for sidecar containers")));
        }
    }
    super::sandboxes::check_volumes(state, &definition.volume_mounts)?;
    check_network(definition.network_access.as_ref())?;
    let mut variables = state.variables(&request.secret_sources)?;
    variables.extend(request.ephemeral_secrets.unwrap_or_default().contents);
    if request.secret_sources.is_empty() {
        for id in &definition.secret_ids {
            variables.extend(state.secret_values(id)?);
        }
    }
    let plan = Plan {
        name: request.container_name,
        image: state.image(&definition.image_id)?.built()?,
        args: definition.entrypoint_args,
        variables,
        workdir: definition.workdir.unwrap_or_default(),
        volumes: definition.volume_mounts,
        pty: definition.pty_info,
    };
    let sidecar = create(state, &sandbox, plan).await?;
    Ok(SandboxContainerCreateV2Response { container_id: sidecar.id.clone(), container_name: sidecar.name.clone() })
}

/// The router's form.
pub async fn create_by_task(
    state: &Arc<State>,
    sandbox: &Arc<Sandbox>,
    request: tcr::TaskContainerCreateRequest,
) -> Result<Arc<Sidecar>, Status> {
    super::sandboxes::check_volumes(state, &request.volume_mounts)?;
    check_network(request.network_access.as_ref())?;
    let mut variables = state.variables(&request.secret_sources)?;
    for id in &request.secret_ids {
        variables.extend(state.secret_values(id)?);
    }
    variables.extend(request.env);
    let plan = Plan {
        name: request.container_name,
        image: state.image(&request.image_id)?.built()?,
        args: request.args,
        variables,
        workdir: request.workdir,
        volumes: request.volume_mounts,
        pty: request.pty_info,
    };
    create(state, sandbox, plan).await
}

fn check_network(access: Option<&NetworkAccess>) -> Result<(), Status> {
    let Some(access) = access else { return Ok(()) };
    if access.network_access_type() == NetworkAccessType::Blocked {
        return Err(Status::invalid_argument("A sidecar container's network cannot be blocked"));
    }
    super::sandboxes::check_access(access)
}

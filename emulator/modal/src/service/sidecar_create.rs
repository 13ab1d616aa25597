//! Calls that create sidecars, in the forms of both services. [`crate::runtime::sidecars`] does the work.

use std::sync::Arc;

use container_network::Policy;
use modal_proto::client::*;
use modal_proto::task_command_router as tcr;
use network_access::NetworkAccessType;
use tonic::Status;

use crate::model::sandbox::Sandbox;
use crate::model::sidecar::Sidecar;
use crate::model::state::State;
use crate::model::{definition, outbound_policy, storage};
use crate::runtime::sidecars::{Plan, create};
use crate::service::caller::Caller;

/// Creates a sidecar with the call of the control plane, which is for sandboxes of the second backend.
///
/// # Errors
///
/// Fails with the statuses of [`create`], with NOT_FOUND if an object does not exist, and with INVALID_ARGUMENT if the
/// definition has a field that sidecars do not support.
pub async fn create_v2(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxContainerCreateV2Request,
) -> Result<SandboxContainerCreateV2Response, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    if let Some(what) = definition::refused_for_sidecars(&definition) {
        return Err(Status::invalid_argument(format!("{what} is not supported for sidecar containers")));
    }
    definition::check_proxy(definition.proxy_id.as_deref())?;
    storage::check_credentials(&definition.cloud_bucket_mounts, request.cloud_bucket_mount_credentials.keys())?;
    let policy = policy(definition.network_access.as_ref())?;
    let mut variables: Vec<_> = definition.environment_variables.unwrap_or_default().contents.into_iter().collect();
    variables.extend(state.variables(&request.secret_sources)?);
    variables.extend(request.ephemeral_secrets.unwrap_or_default().contents);
    if request.secret_sources.is_empty() {
        for id in &definition.secret_ids {
            variables.extend(state.secret_values(id)?);
        }
    }
    if definition.include_oidc_identity_token {
        variables.push(state.identity());
    }
    let plan = Plan {
        name: request.container_name,
        image: state.image(&definition.image_id)?.built()?,
        args: definition.entrypoint_args,
        variables,
        workdir: definition.workdir.unwrap_or_default(),
        policy,
        volumes: definition.volume_mounts,
        buckets: definition.cloud_bucket_mounts,
        memory: definition.resources.map(|resources| resources.memory_mb).filter(|mib| *mib > 0),
        pty: definition.pty_info,
        disk: caller.ordered.disk,
    };
    let sidecar = create(state, &sandbox, plan).await?;
    Ok(SandboxContainerCreateV2Response { container_id: sidecar.id.clone(), container_name: sidecar.name.clone() })
}

/// Creates a sidecar with the call of the router.
///
/// # Errors
///
/// Fails with the statuses of [`create`], with NOT_FOUND if an object does not exist, and with INVALID_ARGUMENT if the network
/// access is not valid.
pub async fn create_by_task(
    state: &Arc<State>,
    sandbox: &Arc<Sandbox>,
    request: tcr::TaskContainerCreateRequest,
    disk: Option<u64>,
) -> Result<Arc<Sidecar>, Status> {
    let policy = policy(request.network_access.as_ref())?;
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
        policy,
        volumes: request.volume_mounts,
        buckets: Vec::new(),
        memory: request.memory_reserve_consume_mib,
        pty: request.pty_info,
        disk,
    };
    Ok(create(state, sandbox, plan).await?)
}

fn policy(access: Option<&NetworkAccess>) -> Result<Policy, Status> {
    let Some(access) = access else { return Ok(Policy::open()) };
    if access.network_access_type() == NetworkAccessType::Blocked {
        return Err(Status::invalid_argument("A sidecar container's network cannot be blocked"));
    }
    Ok(outbound_policy::of_access(access)?)
}

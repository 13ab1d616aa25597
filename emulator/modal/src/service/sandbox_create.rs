//! Calls that create sandboxes.
//!
//! Both backends share the implementation; only the shapes of ids and responses differ (docs/modal-protocol.md, section 5).

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::sandbox::Sandbox;
use crate::model::state::State;
use crate::model::storage;
use crate::runtime::create::make;
use crate::service::addresses::router_url;
use crate::service::caller::Caller;

/// Creates a sandbox of the first backend.
///
/// # Errors
///
/// Fails with the statuses of [`make`] for an invalid definition, and with NOT_FOUND if a secret does not exist.
pub async fn create(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxCreateRequest,
) -> Result<SandboxCreateResponse, Status> {
    let definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    storage::check_credentials(&storage::buckets(&definition), [].iter())?;
    let mut env = Vec::new();
    for id in &definition.secret_ids {
        env.extend(state.secret_values(id)?);
    }
    let sandbox = make(state, caller.ordered.disk, false, request.app_id, definition, request.tags, env)?;
    Ok(SandboxCreateResponse { sandbox_id: sandbox.id.clone(), metadata: Some(metadata(&sandbox)) })
}

/// Creates a sandbox of the second backend.
///
/// # Errors
///
/// Fails with the statuses of [`make`] for an invalid definition, with NOT_FOUND if a secret does not exist, and with
/// INVALID_ARGUMENT if credentials or secrets of the request are not valid.
pub async fn create_v2(
    state: &Arc<State>,
    caller: &Caller,
    request: SandboxCreateV2Request,
) -> Result<SandboxCreateV2Response, Status> {
    let definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    storage::check_credentials(&storage::buckets(&definition), request.cloud_bucket_mount_credentials.keys())?;
    if !request.secret_sources.is_empty() && request.ephemeral_secrets.is_some() {
        return Err(Status::invalid_argument("secret_sources cannot be combined with ephemeral_secrets"));
    }
    let mut env = Vec::new();
    if request.secret_sources.is_empty() {
        for id in &definition.secret_ids {
            env.extend(state.secret_values(id)?);
        }
        env.extend(request.ephemeral_secrets.unwrap_or_default().contents);
    } else {
        env = state.variables(&request.secret_sources)?;
    }
    let sandbox = make(state, caller.ordered.disk, true, request.app_id, definition, request.tags, env)?;
    Ok(SandboxCreateV2Response {
        sandbox_id: sandbox.id.clone(),
        tunnels: crate::runtime::tunnels::known_at_once(&sandbox),
        task_id: sandbox.task_id.clone(),
        metadata: Some(metadata(&sandbox)),
        command_router_access: Some(access(state, caller, &sandbox)),
        sandbox_token: state.signer.sign(&sandbox.id, state.options.auth_token_life),
    })
}

/// Returns the URL of the router, and a token for the sandbox's task.
pub fn access(state: &State, caller: &Caller, sandbox: &Sandbox) -> CommandRouterAccess {
    let jwt = state.task_token(&sandbox.task_id, caller.ordered.token_life);
    CommandRouterAccess { jwt, url: router_url(state, caller.https_router, caller.asked.as_deref()) }
}

/// Returns the metadata that responses about a sandbox include.
pub fn metadata(sandbox: &Sandbox) -> SandboxHandleMetadata {
    SandboxHandleMetadata { result: sandbox.result(), app_id: sandbox.app_id.clone() }
}

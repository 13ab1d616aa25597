//! Making sandboxes: what a request may ask for, and what it gets.
//!
//! Both backends share everything; only the shapes of ids and the answer differ (fact sheet, section 5).

use std::collections::HashSet;
use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::sandbox::{DEFAULT_PATH, Plan, Sandbox, supervise};
use crate::model::state::{State, check_variables, overlay};
use crate::model::{definition, outbound_policy, storage};
use crate::service::control::Caller;

/// Most tags of one sandbox.
const MAX_TAGS: usize = 50;

/// Makes a sandbox of the first backend.
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
    let sandbox = make(state, caller, false, request.app_id, definition, request.tags, env)?;
    Ok(SandboxCreateResponse { sandbox_id: sandbox.id.clone(), metadata: Some(metadata(&sandbox)) })
}

/// Makes a sandbox of the second backend.
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
    let sandbox = make(state, caller, true, request.app_id, definition, request.tags, env)?;
    Ok(SandboxCreateV2Response {
        sandbox_id: sandbox.id.clone(),
        tunnels: crate::runtime::tunnels::known_at_once(&sandbox),
        task_id: sandbox.task_id.clone(),
        metadata: Some(metadata(&sandbox)),
        command_router_access: Some(access(state, caller, &sandbox)),
        sandbox_token: state.signer.sign(&sandbox.id, state.options.auth_token_life),
    })
}

/// Makes one and sets it going. Variables of `env` come on top of the image's.
pub fn make(
    state: &Arc<State>,
    caller: &Caller,
    v2: bool,
    app_id: String,
    definition: modal_proto::client::Sandbox,
    tags: Vec<SandboxTag>,
    variables: Vec<(String, String)>,
) -> Result<Arc<Sandbox>, Status> {
    let app = state.app(&app_id)?;
    definition::check(state, v2, &definition)?;
    let policy = outbound_policy::policy(&definition)?;
    check_tags(&tags)?;
    let image = state.image(&definition.image_id)?.built()?;
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    overlay(&mut env, image.config.env.clone());
    overlay(&mut env, definition.environment_variables.clone().unwrap_or_default().contents);
    overlay(&mut env, variables);
    if definition.include_oidc_identity_token {
        overlay(&mut env, [state.identity()]);
    }
    check_variables(&env)?;
    let gpu = definition.resources.as_ref().and_then(|resources| resources.gpu_config.as_ref());
    if let Some(gpu) = gpu.filter(|gpu| gpu.count > 0) {
        tracing::warn!(gpu = gpu.gpu_type, count = gpu.count, "there are no GPUs here: the sandbox has none");
    }
    let (environment, disk) = (app.environment, caller.ordered.disk.or(state.options.disk));
    let sandbox = Arc::new(Sandbox::new(Plan { v2, app_id, environment, definition, policy, tags, image, env, disk }));
    {
        let mut tables = state.tables.lock();
        let name = sandbox.changing.lock().name.clone();
        if let Some(name) = name {
            free_name(&tables, &sandbox.app_id, &name)?;
        }
        tables.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        tables.tasks.insert(sandbox.task_id.clone(), sandbox.id.clone());
    }
    tracing::info!(sandbox = sandbox.id, image = sandbox.definition.image_id, v2, "sandbox created");
    tokio::spawn(supervise(state.clone(), sandbox.clone()));
    Ok(sandbox)
}

/// Fails when a live sandbox of the app has this name.
pub fn free_name(tables: &crate::model::state::Tables, app_id: &str, name: &str) -> Result<(), Status> {
    let mut sandboxes = tables.sandboxes.values();
    let taken = sandboxes
        .any(|other| other.app_id == app_id && other.lives() && other.changing.lock().name.as_deref() == Some(name));
    if taken {
        return Err(Status::already_exists(format!("Sandbox with name '{name}' already exists in this app")));
    }
    Ok(())
}

/// The ports a sandbox wants to be reached at.
pub fn ports(definition: &modal_proto::client::Sandbox) -> &[PortSpec] {
    match &definition.open_ports_oneof {
        Some(sandbox::OpenPortsOneof::OpenPorts(ports)) => &ports.ports,
        None => &[],
    }
}

/// How to reach a sandbox's router.
pub fn access(state: &State, caller: &Caller, sandbox: &Sandbox) -> CommandRouterAccess {
    let jwt = state.task_token(&sandbox.task_id, caller.ordered.token_life);
    CommandRouterAccess { jwt, url: state.router_url(caller.https_router, caller.asked.as_deref()) }
}

/// What every answer about a sandbox says besides.
pub fn metadata(sandbox: &Sandbox) -> SandboxHandleMetadata {
    SandboxHandleMetadata { result: sandbox.result(), app_id: sandbox.app_id.clone() }
}

/// Checks a set of tags.
pub fn check_tags(tags: &[SandboxTag]) -> Result<(), Status> {
    let mut names = HashSet::new();
    if tags.len() > MAX_TAGS {
        return Err(Status::invalid_argument(format!("A sandbox can have at most {MAX_TAGS} tags")));
    }
    for tag in tags {
        if tag.tag_name.is_empty() || !names.insert(&tag.tag_name) {
            return Err(Status::invalid_argument(format!("Tag '{}' is empty or given twice", tag.tag_name)));
        }
    }
    Ok(())
}

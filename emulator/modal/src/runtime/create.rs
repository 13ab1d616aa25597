//! Creates sandboxes and starts the tasks that supervise them.

use std::sync::Arc;

use modal_proto::client as proto;

use crate::model::error::Error;
use crate::model::sandbox::{Plan, Sandbox};
use crate::model::state::State;
use crate::model::values::{DEFAULT_PATH, check_variables, overlay};
use crate::model::{definition, outbound_policy};
use crate::runtime::supervise::supervise;

/// Creates a sandbox and starts it in the background. `variables` override the image's and the definition's. `disk` is the
/// number of bytes that the sandbox may write if a fault limits it.
///
/// # Errors
///
/// Fails with `Kind::NotFound` if the app, image or another object does not exist, with `Kind::InvalidArgument` or
/// `Kind::Unimplemented` if the definition is not accepted, with `Kind::FailedPrecondition` if the app has been stopped or the
/// image cannot be used, and with `Kind::AlreadyExists` if the sandbox's name is taken.
pub fn make(
    state: &Arc<State>,
    disk: Option<u64>,
    v2: bool,
    app_id: String,
    wanted: proto::Sandbox,
    tags: Vec<proto::SandboxTag>,
    variables: Vec<(String, String)>,
) -> Result<Arc<Sandbox>, Error> {
    let app = state.app(&app_id)?;
    definition::check(state, v2, &wanted)?;
    let policy = outbound_policy::policy(&wanted)?;
    definition::check_tags(&tags)?;
    let image = state.image(&wanted.image_id)?.built()?;
    let mut env = vec![("PATH".to_owned(), DEFAULT_PATH.to_owned())];
    overlay(&mut env, image.config.env.clone());
    overlay(&mut env, wanted.environment_variables.clone().unwrap_or_default().contents);
    overlay(&mut env, variables);
    if wanted.include_oidc_identity_token {
        overlay(&mut env, [state.identity()]);
    }
    check_variables(&env)?;
    let gpu = wanted.resources.as_ref().and_then(|resources| resources.gpu_config.as_ref());
    if let Some(gpu) = gpu.filter(|gpu| gpu.count > 0) {
        tracing::warn!(gpu = gpu.gpu_type, count = gpu.count, "this machine has no GPUs for the sandbox");
    }
    let (environment, disk) = (app.environment, disk.or(state.options.disk));
    let sandbox =
        Arc::new(Sandbox::new(Plan { v2, app_id, environment, definition: wanted, policy, tags, image, env, disk }));
    {
        let mut tables = state.tables.lock();
        let name = sandbox.changing.lock().name.clone();
        if let Some(name) = name {
            tables.free_name(&sandbox.app_id, &name)?;
        }
        tables.sandboxes.insert(sandbox.id.clone(), sandbox.clone());
        tables.tasks.insert(sandbox.task_id.clone(), sandbox.id.clone());
    }
    tracing::info!(sandbox = sandbox.id, image = sandbox.definition.image_id, v2, "sandbox created");
    tokio::spawn(supervise(state.clone(), sandbox.clone()));
    Ok(sandbox)
}

//! Persistent sandboxes: chains of sandboxes. Each session is a sandbox that starts with the files that the previous one left.

use std::sync::Arc;

use modal_proto::client::*;
use parking_lot::Mutex;
use tonic::Status;

use crate::model::sandbox::Sandbox;
use crate::model::state::{Persistent, State};
use crate::runtime::create::make;
use crate::service::caller::Caller;

/// Creates a persistent sandbox and starts its first session.
///
/// # Errors
///
/// Fails with the statuses of SandboxCreateV2.
pub async fn create(
    state: &Arc<State>,
    caller: &Caller,
    request: PersistentSandboxCreateRequest,
) -> Result<PersistentSandboxCreateResponse, Status> {
    let mut definition = request.definition.ok_or_else(|| Status::invalid_argument("definition is required"))?;
    definition.experimental_options_v2.insert("enable_exit_snapshot".to_owned(), "true".to_owned());
    let mut env = Vec::new();
    for id in &definition.secret_ids {
        env.extend(state.secret_values(id)?);
    }
    let sandbox = make(state, caller.ordered.disk, true, request.app_id, definition, Vec::new(), env)?;
    let id = crate::model::ids::id("ps");
    let chain = Persistent { turn: Mutex::default(), session: Mutex::new(sandbox.id.clone()) };
    state.tables.lock().persistent.insert(id.clone(), Arc::new(chain));
    Ok(PersistentSandboxCreateResponse { persistent_sandbox_id: id, sandbox_id: sandbox.id.clone() })
}

/// Returns the id of a persistent sandbox, and the id of its session if that is alive.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the request names none, and with NOT_FOUND if it does not exist.
pub async fn get(
    state: &Arc<State>,
    _: &Caller,
    request: PersistentSandboxGetRequest,
) -> Result<PersistentSandboxGetResponse, Status> {
    use persistent_sandbox_get_request::Lookup;
    let id = match request.lookup {
        Some(Lookup::PersistentSandboxId(id)) => id,
        Some(Lookup::Name(name)) => by_name(state, &name)?,
        None => return Err(Status::invalid_argument("persistent_sandbox_id or name is required")),
    };
    let session = session(state, &id)?;
    let sandbox_id = if session.lives() { session.id.clone() } else { String::new() };
    Ok(PersistentSandboxGetResponse { persistent_sandbox_id: id, sandbox_id })
}

/// Returns the running session, or starts a new one from the files of the last one.
///
/// # Errors
///
/// Fails with NOT_FOUND if the persistent sandbox does not exist, with UNAVAILABLE while the last session is ending, with
/// FAILED_PRECONDITION if its files were not saved, and with the statuses of SandboxCreateV2.
pub async fn resume(
    state: &Arc<State>,
    caller: &Caller,
    request: PersistentSandboxResumeRequest,
) -> Result<PersistentSandboxResumeResponse, Status> {
    let id = request.persistent_sandbox_id;
    let chain = state.tables.lock().persistent.get(&id).cloned().ok_or_else(|| missing(&id))?;
    let _turn = chain.turn.lock();
    let last = session(state, &id)?;
    if last.lives() {
        return Ok(PersistentSandboxResumeResponse { sandbox_id: last.id.clone() });
    }
    if last.result().is_none() {
        return Err(Status::unavailable("The last session is still being saved"));
    }
    let saved = last.exit_snapshot.lock().clone();
    let mut definition = last.definition.clone();
    match saved {
        Some(Ok(image_id)) => definition.image_id = image_id,
        Some(Err(error)) => {
            return Err(Status::failed_precondition(format!("The last session was not saved: {error}")));
        }
        None => return Err(Status::failed_precondition("The last session never ran")),
    }
    let (app_id, env) = (last.app_id.clone(), last.env.clone());
    let sandbox = make(state, caller.ordered.disk, true, app_id, definition, Vec::new(), env)?;
    chain.session.lock().clone_from(&sandbox.id);
    Ok(PersistentSandboxResumeResponse { sandbox_id: sandbox.id.clone() })
}

/// Ends the session if it is alive, and removes the persistent sandbox.
///
/// # Errors
///
/// Fails with NOT_FOUND if the persistent sandbox does not exist.
pub async fn terminate(
    state: &Arc<State>,
    _: &Caller,
    request: PersistentSandboxTerminateRequest,
) -> Result<PersistentSandboxTerminateResponse, Status> {
    let id = request.persistent_sandbox_id;
    let chain = state.tables.lock().persistent.get(&id).cloned().ok_or_else(|| missing(&id))?;
    let _turn = chain.turn.lock();
    session(state, &id)?.terminate();
    state.tables.lock().persistent.remove(&id);
    Ok(PersistentSandboxTerminateResponse::default())
}

/// Returns the tunnels of the running session.
///
/// # Errors
///
/// Fails with NOT_FOUND if the persistent sandbox does not exist or its session has ended.
pub async fn tunnels(
    state: &Arc<State>,
    caller: &Caller,
    request: PersistentSandboxTunnelsListRequest,
) -> Result<PersistentSandboxTunnelsListResponse, Status> {
    let sandbox_id = session(state, &request.persistent_sandbox_id)?.id.clone();
    let tunnels =
        crate::service::tunnels::get(state, caller, SandboxGetTunnelsRequest { sandbox_id, timeout: 0.0 }).await?;
    Ok(PersistentSandboxTunnelsListResponse { tunnels: tunnels.tunnels })
}

/// Returns the newest session.
fn session(state: &State, id: &str) -> Result<Arc<Sandbox>, Status> {
    let chain = state.tables.lock().persistent.get(id).cloned().ok_or_else(|| missing(id))?;
    let session = chain.session.lock().clone();
    state.sandbox(&session).map_err(|_| missing(id))
}

fn missing(id: &str) -> Status {
    Status::not_found(format!("Persistent sandbox {id} not found"))
}

fn by_name(state: &State, wanted: &PersistentSandboxNameLookup) -> Result<String, Status> {
    let environment = state.environment(&wanted.environment_name)?;
    let tables = state.tables.lock();
    let fits = |sandbox: &Arc<Sandbox>| {
        let app = tables.apps.get(&sandbox.app_id);
        app.is_some_and(|app| app.name == wanted.app_name && app.environment == environment)
            && sandbox.changing.lock().name.as_deref() == Some(wanted.name.as_str())
    };
    let mut all = tables.persistent.iter();
    let found = all.find(|(_, chain)| tables.sandboxes.get(&*chain.session.lock()).is_some_and(fits));
    found
        .map(|(id, _)| id.clone())
        .ok_or_else(|| Status::not_found(format!("Persistent sandbox '{}' not found", wanted.name)))
}

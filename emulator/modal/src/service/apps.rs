//! Calls about apps and environments.

use std::collections::HashMap;
use std::sync::Arc;

use modal_proto::client::*;
use tokio::time::Instant;
use tonic::Status;

use crate::model::ids;
use crate::model::state::{App, DEFAULT_ENVIRONMENT, Environment, State, Tables};
use crate::model::values::{check_name, now};
use crate::runtime::app_lives::{end, leave};
use crate::service::addresses::seen_at;
use crate::service::caller::Caller;

/// Name of the user in responses. The emulator has only one.
pub const USER: &str = "emulator";

/// Returns an app by name or id. Creates it if it does not exist and the request permits that.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment or the app does not exist, with ALREADY_EXISTS if a new app was required, and with
/// INVALID_ARGUMENT if the name is not valid.
pub async fn get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: AppGetOrCreateRequest,
) -> Result<AppGetOrCreateResponse, Status> {
    let environment = state.environment(&request.environment_name)?;
    let mut tables = state.tables.lock();
    let by_id = tables.apps.get(&request.app_name).filter(|app| app.stopped_at == 0.0);
    let known = by_id.or_else(|| {
        let mut named = tables.apps.values();
        named.find(|app| is_named(app, &request.app_name, &environment) && app.stopped_at == 0.0)
    });
    let app = match (known, request.object_creation_type()) {
        (Some(_), ObjectCreationType::CreateFailIfExists) => {
            return Err(Status::already_exists(format!("App '{}' already exists", request.app_name)));
        }
        (Some(app), _) => app.clone(),
        (None, ObjectCreationType::Unspecified) => {
            return Err(Status::not_found(format!(
                "App '{}' not found in environment '{environment}'",
                request.app_name
            )));
        }
        (None, _) => {
            check_name("app", &request.app_name)?;
            let app = App {
                id: ids::id("ap"),
                name: request.app_name.clone(),
                description: request.app_name,
                environment,
                state: AppState::Deployed as i32,
                created_at: now(),
                stopped_at: 0.0,
                deployed_at: now(),
                tags: HashMap::new(),
                heartbeat: None,
            };
            tables.apps.insert(app.id.clone(), app.clone());
            app
        }
    };
    Ok(AppGetOrCreateResponse { app_id: app.id.clone(), handle_metadata: Some(metadata(&app)) })
}

/// Creates an app without a name.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist.
pub async fn create(
    state: &Arc<State>,
    caller: &Caller,
    request: AppCreateRequest,
) -> Result<AppCreateResponse, Status> {
    let environment = state.environment(&request.environment_name)?;
    let app = App {
        id: ids::id("ap"),
        name: String::new(),
        description: request.description,
        environment,
        state: if request.app_state == 0 { AppState::Ephemeral as i32 } else { request.app_state },
        created_at: now(),
        stopped_at: 0.0,
        deployed_at: 0.0,
        tags: request.tags,
        heartbeat: None,
    };
    let url = page(state, caller, &app.id);
    let response =
        AppCreateResponse { app_id: app.id.clone(), app_page_url: url.clone(), app_logs_url: format!("{url}/logs") };
    state.tables.lock().apps.insert(app.id.clone(), app);
    Ok(response)
}

/// Lists the apps of an environment, newest first.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist.
pub async fn list(state: &Arc<State>, _: &Caller, request: AppListRequest) -> Result<AppListResponse, Status> {
    let environment = state.environment(&request.environment_name)?;
    let tables = state.tables.lock();
    let mut apps: Vec<_> = tables.apps.values().filter(|app| app.environment == environment).cloned().collect();
    apps.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
    let item = |app: App| app_list_response::AppListItem {
        app_id: app.id.clone(),
        description: app.description.clone(),
        state: app.state,
        created_at: app.created_at,
        stopped_at: app.stopped_at,
        n_running_tasks: tables.sandboxes.values().filter(|s| s.app_id == app.id && s.lives()).count() as i32,
        name: app.name.clone(),
        metadata: Some(metadata(&app)),
    };
    Ok(AppListResponse { apps: apps.into_iter().map(item).collect() })
}

/// Stops an app and all of its sandboxes.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn stop(state: &Arc<State>, _: &Caller, request: AppStopRequest) -> Result<(), Status> {
    let mut tables = state.tables.lock();
    known(&tables, &request.app_id)?;
    end(&mut tables, &request.app_id);
    Ok(())
}

/// Returns an app by id, stopped or not.
fn known<'a>(tables: &'a Tables, id: &str) -> Result<&'a App, Status> {
    tables.apps.get(id).ok_or_else(|| Status::not_found(format!("App with ID {id} not found")))
}

/// Returns whether an app has this name in this environment. Apps that were never deployed have no name.
fn is_named(app: &App, name: &str, environment: &str) -> bool {
    !name.is_empty() && app.name == name && app.environment == environment
}

fn page(state: &State, caller: &Caller, id: &str) -> String {
    format!("http://{}/apps/{id}", seen_at(state, caller.asked.as_deref()))
}

/// Publishes an app: sets whether it lives as long as its client, is detached from it, or is deployed under a name.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the state or the name is not valid, with UNIMPLEMENTED if the app has functions or classes,
/// with NOT_FOUND or FAILED_PRECONDITION if the app does not exist or has been stopped, and with ALREADY_EXISTS if the name is
/// taken.
pub async fn publish(
    state: &Arc<State>,
    caller: &Caller,
    request: AppPublishRequest,
) -> Result<AppPublishResponse, Status> {
    let deploys = request.app_state() == AppState::Deployed;
    if !matches!(
        request.app_state(),
        AppState::Unspecified | AppState::Ephemeral | AppState::Detached | AppState::Deployed
    ) {
        return Err(Status::invalid_argument("app_state must be ephemeral, detached or deployed"));
    }
    if !request.function_ids.is_empty() || !request.class_ids.is_empty() {
        return Err(Status::unimplemented("The emulator does not serve functions and classes"));
    }
    state.app(&request.app_id)?;
    let mut tables = state.tables.lock();
    let app = known(&tables, &request.app_id)?;
    let name = if request.name.is_empty() { app.name.clone() } else { request.name.clone() };
    if deploys {
        check_name("app", &name)?;
        let mut others = tables.apps.values().filter(|other| other.id != app.id && other.stopped_at == 0.0);
        if others.any(|other| is_named(other, &name, &app.environment)) {
            return Err(Status::already_exists(format!("Another app is deployed as '{name}'")));
        }
    }
    let mut deployed_at = 0.0;
    if let Some(app) = tables.apps.get_mut(&request.app_id) {
        if request.app_state != 0 {
            app.state = request.app_state;
        }
        if deploys {
            app.name = name;
            app.deployed_at = now();
            deployed_at = app.deployed_at;
        }
        app.tags.extend(request.tags);
    }
    Ok(AppPublishResponse { url: page(state, caller, &request.app_id), server_warnings: Vec::new(), deployed_at })
}

/// Records a heartbeat of an app's client.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist, and with FAILED_PRECONDITION if it has been stopped.
pub async fn heartbeat(state: &Arc<State>, _: &Caller, request: AppHeartbeatRequest) -> Result<(), Status> {
    state.app(&request.app_id)?;
    if let Some(app) = state.tables.lock().apps.get_mut(&request.app_id) {
        app.heartbeat = Some(Instant::now());
    }
    Ok(())
}

/// Handles that an app's client disconnects: an ephemeral app stops, a detached one stops when its last sandbox has ended.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn disconnect(state: &Arc<State>, _: &Caller, request: AppClientDisconnectRequest) -> Result<(), Status> {
    let mut tables = state.tables.lock();
    known(&tables, &request.app_id)?;
    tracing::info!(app = request.app_id, reason = ?request.reason(), error = request.exception, "client disconnects");
    leave(&mut tables, &request.app_id);
    Ok(())
}

/// Returns the state of an app and the times of its changes.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn lifecycle(
    state: &Arc<State>,
    _: &Caller,
    request: AppGetLifecycleRequest,
) -> Result<AppGetLifecycleResponse, Status> {
    let tables = state.tables.lock();
    Ok(AppGetLifecycleResponse { lifecycle: Some(lifecycle_of(known(&tables, &request.app_id)?)) })
}

/// Returns an app's description, environment and lifecycle.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn info(state: &Arc<State>, _: &Caller, request: AppGetInfoRequest) -> Result<AppGetInfoResponse, Status> {
    let tables = state.tables.lock();
    Ok(AppGetInfoResponse { info: Some(metadata(known(&tables, &request.app_id)?)) })
}

/// Returns the functions of an app. The list is always empty, because the emulator has no functions.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn layout(
    state: &Arc<State>,
    _: &Caller,
    request: AppGetLayoutRequest,
) -> Result<AppGetLayoutResponse, Status> {
    known(&state.tables.lock(), &request.app_id)?;
    Ok(AppGetLayoutResponse { app_layout: Some(AppLayout::default()) })
}

/// Returns the app that is deployed under a name, or the last one that was.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist.
pub async fn by_name(
    state: &Arc<State>,
    _: &Caller,
    request: AppGetByDeploymentNameRequest,
) -> Result<AppGetByDeploymentNameResponse, Status> {
    let environment_name = state.environment(&request.environment_name)?;
    let tables = state.tables.lock();
    let named = || tables.apps.values().filter(|app| is_named(app, &request.name, &environment_name));
    let live = named().find(|app| app.stopped_at == 0.0);
    let last = named().max_by(|a, b| a.stopped_at.total_cmp(&b.stopped_at)).filter(|_| live.is_none());
    let id = |app: Option<&App>| app.map(|app| app.id.clone()).unwrap_or_default();
    Ok(AppGetByDeploymentNameResponse {
        app_id: id(live),
        previous_app_id: id(last),
        lifecycle: live.or(last).map(lifecycle_of),
        environment_name,
    })
}

/// Returns an app's tags.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn tags(state: &Arc<State>, _: &Caller, request: AppGetTagsRequest) -> Result<AppGetTagsResponse, Status> {
    Ok(AppGetTagsResponse { tags: known(&state.tables.lock(), &request.app_id)?.tags.clone() })
}

/// Replaces an app's tags.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app does not exist.
pub async fn set_tags(state: &Arc<State>, _: &Caller, request: AppSetTagsRequest) -> Result<(), Status> {
    let mut tables = state.tables.lock();
    known(&tables, &request.app_id)?;
    if let Some(app) = tables.apps.get_mut(&request.app_id) {
        app.tags = request.tags;
    }
    Ok(())
}

/// Creates an environment.
///
/// # Errors
///
/// Fails with ALREADY_EXISTS if it exists, and with INVALID_ARGUMENT if the name is not valid.
pub async fn environment_create(
    state: &Arc<State>,
    _: &Caller,
    request: EnvironmentCreateRequest,
) -> Result<(), Status> {
    let mut tables = state.tables.lock();
    if tables.environments.contains_key(&request.name) {
        return Err(Status::already_exists(format!("Environment '{}' already exists", request.name)));
    }
    make_environment(&mut tables, &request.name).map(drop)
}

/// Removes an environment, its secrets, volumes and image names, and stops its apps.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist, and with FAILED_PRECONDITION if it is the default one.
pub async fn environment_delete(
    state: &Arc<State>,
    _: &Caller,
    request: EnvironmentDeleteRequest,
) -> Result<(), Status> {
    let name = state.environment(&request.name)?;
    if name == DEFAULT_ENVIRONMENT {
        return Err(Status::failed_precondition(format!("The environment '{name}' is the default one")));
    }
    let mut tables = state.tables.lock();
    tables.environments.remove(&name);
    let apps: Vec<String> =
        tables.apps.values().filter(|app| app.environment == name).map(|app| app.id.clone()).collect();
    for id in apps {
        end(&mut tables, &id);
    }
    tables.secrets.retain(|_, secret| secret.environment != name);
    tables.volumes.retain(|_, volume| volume.environment != name);
    tables.image_tags.retain(|(environment, _, _), _| *environment != name);
    Ok(())
}

/// Returns an environment by name. Creates it if it does not exist and the request permits that.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist, with ALREADY_EXISTS if a new one was required, and with
/// INVALID_ARGUMENT if the name is not valid.
pub async fn environment_get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: EnvironmentGetOrCreateRequest,
) -> Result<EnvironmentGetOrCreateResponse, Status> {
    let kind = request.object_creation_type();
    let name = if request.deployment_name.is_empty() { DEFAULT_ENVIRONMENT } else { &request.deployment_name };
    let mut tables = state.tables.lock();
    let id = match (tables.environments.get(name), kind) {
        (Some(_), ObjectCreationType::CreateFailIfExists) => {
            return Err(Status::already_exists(format!("Environment '{name}' already exists")));
        }
        (Some(environment), _) => environment.id.clone(),
        (None, ObjectCreationType::Unspecified) => {
            return Err(Status::not_found(format!("Environment '{name}' not found")));
        }
        (None, _) => make_environment(&mut tables, name)?,
    };
    drop(tables);
    Ok(EnvironmentGetOrCreateResponse {
        environment_id: id,
        metadata: Some(EnvironmentMetadata {
            name: name.to_owned(),
            settings: Some(EnvironmentSettings {
                image_builder_version: state.options.image_builder_version.clone(),
                ..Default::default()
            }),
            environment_type: EnvironmentType::Unspecified as i32,
        }),
    })
}

/// Creates an environment, which must not exist, and returns its id.
fn make_environment(tables: &mut Tables, name: &str) -> Result<String, Status> {
    check_name("environment", name)?;
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || name.starts_with("en-") {
        return Err(Status::invalid_argument(format!("Invalid environment name: '{name}'")));
    }
    let environment = Environment { id: ids::id("en"), created_at: now() };
    let id = environment.id.clone();
    tables.environments.insert(name.to_owned(), environment);
    Ok(id)
}

/// Lists the environments, sorted by name.
///
/// # Errors
///
/// Never fails.
pub async fn environment_list(state: &Arc<State>, _: &Caller, (): ()) -> Result<EnvironmentListResponse, Status> {
    let tables = state.tables.lock();
    let item = |(name, environment): (&String, &Environment)| EnvironmentListItem {
        name: name.clone(),
        created_at: environment.created_at,
        default: name == DEFAULT_ENVIRONMENT,
        environment_id: environment.id.clone(),
        image_builder_version: Some(state.options.image_builder_version.clone()),
        ..Default::default()
    };
    Ok(EnvironmentListResponse { items: tables.environments.iter().map(item).collect() })
}

fn metadata(app: &App) -> AppHandleMetadata {
    AppHandleMetadata {
        description: app.description.clone(),
        app_id: app.id.clone(),
        environment_name: app.environment.clone(),
        lifecycle: Some(lifecycle_of(app)),
        ..Default::default()
    }
}

fn lifecycle_of(app: &App) -> AppLifecycle {
    AppLifecycle {
        app_state: app.state,
        created_at: app.created_at,
        created_by: USER.to_owned(),
        deployed_at: app.deployed_at,
        deployed_by: if app.deployed_at > 0.0 { USER.to_owned() } else { String::new() },
        version: 1,
        stopped_at: app.stopped_at,
        ..Default::default()
    }
}

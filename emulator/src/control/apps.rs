//! Apps and environments.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use super::Caller;
use crate::ids;
use crate::state::{App, Environment, State, check_name, now};

/// What the emulator calls the one who asks.
pub const USER: &str = "emulator";

/// Finds an app by name or id, or makes it.
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
        named.find(|app| app.name == request.app_name && app.environment == environment && app.stopped_at == 0.0)
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
            };
            tables.apps.insert(app.id.clone(), app.clone());
            app
        }
    };
    Ok(AppGetOrCreateResponse { app_id: app.id.clone(), handle_metadata: Some(metadata(&app)) })
}

/// Makes an app without a name.
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
    };
    let url = format!("http://{}/apps/{}", state.seen_at(caller.asked.as_deref()), app.id);
    let response =
        AppCreateResponse { app_id: app.id.clone(), app_page_url: url.clone(), app_logs_url: format!("{url}/logs") };
    state.tables.lock().apps.insert(app.id.clone(), app);
    Ok(response)
}

/// Lists an environment's apps, newest first.
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

/// Stops an app and every sandbox in it.
pub async fn stop(state: &Arc<State>, _: &Caller, request: AppStopRequest) -> Result<(), Status> {
    let mut tables = state.tables.lock();
    let app = tables
        .apps
        .get_mut(&request.app_id)
        .ok_or_else(|| Status::not_found(format!("App with ID {} not found", request.app_id)))?;
    if app.stopped_at == 0.0 {
        app.state = AppState::Stopped as i32;
        app.stopped_at = now();
    }
    for sandbox in tables.sandboxes.values().filter(|sandbox| sandbox.app_id == request.app_id) {
        sandbox.terminate();
    }
    Ok(())
}

/// Finds an environment, or makes it.
pub async fn environment_get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: EnvironmentGetOrCreateRequest,
) -> Result<EnvironmentGetOrCreateResponse, Status> {
    let name = match state.environment(&request.deployment_name) {
        Ok(name) => name,
        Err(missing) if request.object_creation_type() == ObjectCreationType::Unspecified => return Err(missing),
        Err(_) => {
            let name = request.deployment_name.clone();
            check_name("environment", &name)?;
            if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || name.starts_with("en-") {
                return Err(Status::invalid_argument(format!("Invalid environment name: '{name}'")));
            }
            let environment = Environment { id: ids::id("en"), created_at: now() };
            state.tables.lock().environments.entry(name.clone()).or_insert(environment);
            name
        }
    };
    let id = state.tables.lock().environments.get(&name).map(|e| e.id.clone()).unwrap_or_default();
    Ok(EnvironmentGetOrCreateResponse {
        environment_id: id,
        metadata: Some(EnvironmentMetadata {
            name,
            settings: Some(EnvironmentSettings {
                image_builder_version: state.options.image_builder_version.clone(),
                ..Default::default()
            }),
            environment_type: EnvironmentType::Unspecified as i32,
        }),
    })
}

/// Lists environments by name.
pub async fn environment_list(state: &Arc<State>, _: &Caller, (): ()) -> Result<EnvironmentListResponse, Status> {
    let tables = state.tables.lock();
    let item = |(name, environment): (&String, &Environment)| EnvironmentListItem {
        name: name.clone(),
        created_at: environment.created_at,
        default: name == crate::state::DEFAULT_ENVIRONMENT,
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
        lifecycle: Some(AppLifecycle {
            app_state: app.state,
            created_at: app.created_at,
            created_by: USER.to_owned(),
            deployed_at: if app.name.is_empty() { 0.0 } else { app.created_at },
            version: 1,
            stopped_at: app.stopped_at,
            ..Default::default()
        }),
        ..Default::default()
    }
}

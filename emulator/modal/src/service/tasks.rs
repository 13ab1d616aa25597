//! Calls about tasks, one of which runs each sandbox. The official command line calls them containers.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::state::State;
use crate::service::caller::Caller;
use crate::service::sandbox_manage::task_info;

/// Lists the tasks of an app or of an environment that have not ended.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app or the environment does not exist.
pub async fn list(state: &Arc<State>, _: &Caller, request: TaskListRequest) -> Result<TaskListResponse, Status> {
    let environment = match request.app_id.as_str() {
        "" => Some(state.environment(&request.environment_name)?),
        id if state.tables.lock().apps.contains_key(id) => None,
        id => return Err(Status::not_found(format!("App with ID {id} not found"))),
    };
    let tables = state.tables.lock();
    let mut tasks: Vec<TaskStats> = Vec::new();
    for sandbox in tables.sandboxes.values().filter(|sandbox| sandbox.lives()) {
        if environment.as_ref().map_or(sandbox.app_id == request.app_id, |e| sandbox.environment == *e) {
            let app = tables.apps.get(&sandbox.app_id);
            tasks.push(TaskStats {
                task_id: sandbox.task_id.clone(),
                app_id: sandbox.app_id.clone(),
                app_description: app.map(|app| app.description.clone()).unwrap_or_default(),
                started_at: sandbox.changing.lock().started_at,
                enqueued_at: sandbox.created_at,
            });
        }
    }
    tasks.sort_by(|a, b| b.enqueued_at.total_cmp(&a.enqueued_at));
    Ok(TaskListResponse { tasks })
}

/// Returns the description of a task.
///
/// # Errors
///
/// Fails with NOT_FOUND if the task does not exist.
pub async fn info(state: &Arc<State>, _: &Caller, request: TaskGetInfoRequest) -> Result<TaskGetInfoResponse, Status> {
    let sandbox = state.task(&request.task_id)?;
    Ok(TaskGetInfoResponse { app_id: sandbox.app_id.clone(), info: Some(task_info(&sandbox)) })
}

/// Tells a task, and thereby its sandbox, to end. Returns at once.
///
/// # Errors
///
/// Fails with NOT_FOUND if the task does not exist.
pub async fn stop(
    state: &Arc<State>,
    _: &Caller,
    request: ContainerStopRequest,
) -> Result<ContainerStopResponse, Status> {
    state.task(&request.task_id)?.terminate();
    Ok(ContainerStopResponse {})
}

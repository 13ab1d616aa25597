//! The containers of a sandbox by name: the main one and the sidecars.

use modal_proto::{
    rpc,
    task_command_router::{TaskContainerGetRequest, TaskContainerInfo},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{check, ids, wit::ErrorKind},
};

use super::{id, policy, router::Router};

/// Returns the newest container with this name, also an ended one.
pub(crate) async fn find(router: &Router, sandbox: &str, name: &str) -> Result<TaskContainerInfo> {
    id::check_sandbox(sandbox)?;
    check_name(name)?;
    let container_name = name.to_string();
    let make = |task_id| TaskContainerGetRequest { task_id, container_name, include_terminated: true };
    let answer = router
        .ask(sandbox, &policy::ROUTER, "find the sidecar", rpc::TASK_CONTAINER_GET, make)
        .await
        .map_err(|error| match error.kind {
            ErrorKind::NotFound if error.subject.as_deref() == Some(sandbox) && error.provider_code.is_some() => {
                error.with_message(format!("The sandbox {sandbox} has no sidecar `{name}`.")).about(name)
            }
            _ => error,
        })?;
    answer.container.ok_or_else(|| Error::internal("Modal's response contains no container.").about(name))
}

/// Returns the id of a container for requests to the router. It is empty for the main container.
pub(crate) async fn id(router: &Router, sandbox: &str, name: Option<&str>) -> Result<String> {
    match name {
        None => Ok(String::new()),
        Some(name) => Ok(find(router, sandbox, name).await?.container_id),
    }
}

/// Checks the name of a sidecar.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name == ids::MAIN {
        return Err(
            Error::invalid("`main` is the main container of the sandbox: give the name of a sidecar.").about(name)
        );
    }
    check::name(name)
}

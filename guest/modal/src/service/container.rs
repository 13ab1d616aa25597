//! The containers of a sandbox: its own and its sidecars, by name.

use modal_proto::{
    rpc,
    task_command_router::{TaskContainerGetRequest, TaskContainerInfo},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{check, ids, wit::ErrorKind},
};

use super::{id, policy, router::Router};

/// The newest container of that name, ended ones included.
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
    answer.container.ok_or_else(|| Error::internal("Modal answered with no container.").about(name))
}

/// The id of a container by its name, as requests to the router want it: empty for the main one.
pub(crate) async fn id(router: &Router, sandbox: &str, name: Option<&str>) -> Result<String> {
    match name {
        None => Ok(String::new()),
        Some(name) => Ok(find(router, sandbox, name).await?.container_id),
    }
}

/// Refuses what cannot name a sidecar.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name == ids::MAIN {
        return Err(Error::invalid("`main` is the sandbox's own container: give a sidecar's name.").about(name));
    }
    check::name(name)
}

//! Calls that change what a running sandbox may reach.

use std::sync::Arc;

use modal_proto::client::network_access::NetworkAccessType;
use modal_proto::client::*;
use tonic::Status;

use crate::model::outbound_policy::{is_blocked, is_open, of_access, of_routes};
use crate::model::sandbox::Sandbox as Made;
use crate::model::state::State;
use crate::service::caller::Caller;

/// Finds a static-address proxy; there are none.
pub async fn proxy(state: &Arc<State>, _: &Caller, request: ProxyGetRequest) -> Result<ProxyGetResponse, Status> {
    state.environment(&request.environment_name)?;
    Err(Status::not_found(format!("Proxy '{}' not found", request.name)))
}

/// Replaces the route-based policy of a running sandbox.
pub async fn set(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSetOutboundPolicyRequest,
) -> Result<SandboxSetOutboundPolicyResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let routes = request.outbound_policy.ok_or_else(|| Status::invalid_argument("outbound_policy is required"))?;
    let policy = of_routes(&routes)?;
    sandbox.unit().await?;
    if !is_open(&sandbox.definition) {
        return Err(Status::failed_precondition("An outbound policy needs a sandbox whose network is open"));
    }
    sandbox.policy.send_replace(Arc::new(policy));
    Ok(SandboxSetOutboundPolicyResponse {})
}

/// Replaces the network access of a running sandbox. What is established and no longer permitted is cut.
pub async fn set_access(sandbox: &Made, access: &NetworkAccess) -> Result<(), Status> {
    let policy = of_access(access)?;
    sandbox.unit().await?;
    if access.network_access_type() == NetworkAccessType::Blocked {
        return Err(Status::invalid_argument(
            "The network of a running sandbox cannot be blocked: use an empty allow-list",
        ));
    }
    if is_blocked(&sandbox.definition) {
        return Err(Status::failed_precondition("The sandbox was created with its network blocked"));
    }
    if sandbox.definition.outbound_policy.is_some() {
        return Err(Status::failed_precondition("The sandbox has an outbound policy: replace that"));
    }
    sandbox.policy.send_replace(Arc::new(policy));
    Ok(())
}

/// Replaces header replacements; there are none to replace, since no sandbox is created with any.
pub async fn set_headers(sandbox: &Made) -> Result<(), Status> {
    sandbox.unit().await?;
    Err(Status::failed_precondition("The sandbox was created without an outbound policy"))
}

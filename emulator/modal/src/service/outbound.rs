//! Calls that change the outbound network policy of a running sandbox.

use std::sync::Arc;

use modal_proto::client::network_access::NetworkAccessType;
use modal_proto::client::*;
use tonic::Status;

use crate::model::outbound_policy::{is_blocked, is_open, of_access, of_routes};
use crate::model::sandbox::Sandbox as Made;
use crate::model::state::State;
use crate::service::caller::Caller;

/// Looks up a proxy with a static address. The emulator has no proxies.
///
/// # Errors
///
/// Always fails with NOT_FOUND.
pub async fn proxy(state: &Arc<State>, _: &Caller, request: ProxyGetRequest) -> Result<ProxyGetResponse, Status> {
    state.environment(&request.environment_name)?;
    Err(Status::not_found(format!("Proxy '{}' not found", request.name)))
}

/// Replaces the route-based policy of a running sandbox.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended, or if a route names a proxy, with INVALID_ARGUMENT or
/// UNIMPLEMENTED if the policy is not accepted, and with FAILED_PRECONDITION if the sandbox's network is not open.
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

/// Replaces the network access of a running sandbox. Connections that are no longer permitted are closed.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the access is not valid or blocks the network, with NOT_FOUND if the sandbox has ended, and
/// with FAILED_PRECONDITION if the sandbox was created with a blocked network or with an outbound policy.
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

/// Replaces the header replacements of a running sandbox. No sandbox has any, because the emulator creates none with them.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox has ended, and otherwise with FAILED_PRECONDITION.
pub async fn set_headers(sandbox: &Made) -> Result<(), Status> {
    sandbox.unit().await?;
    Err(Status::failed_precondition("The sandbox was created without an outbound policy"))
}

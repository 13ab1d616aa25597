//! What a sandbox may reach, beyond open and blocked. The emulator has no proxies and rewrites no traffic, and says so.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use super::Caller;
use crate::state::State;

/// Finds a static-address proxy; there are none.
pub async fn proxy(state: &Arc<State>, _: &Caller, request: ProxyGetRequest) -> Result<ProxyGetResponse, Status> {
    state.environment(&request.environment_name)?;
    Err(Status::not_found(format!("Proxy '{}' not found", request.name)))
}

/// Replaces a route-based policy, which would mean to intercept traffic.
pub async fn set(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSetOutboundPolicyRequest,
) -> Result<SandboxSetOutboundPolicyResponse, Status> {
    state.sandbox(&request.sandbox_id)?.unit().await?;
    Err(Status::unimplemented("The emulator does not route or rewrite outbound traffic"))
}

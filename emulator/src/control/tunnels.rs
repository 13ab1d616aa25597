//! Tunnels: how a server inside a sandbox is reached from outside.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use super::Caller;
use super::sandbox::Sandbox;
use super::sandboxes::ports;
use crate::state::State;

/// Tunnels that exist from the start. The emulator makes none before the sandbox runs.
pub fn known_at_once(_sandbox: &Sandbox) -> Vec<TunnelData> {
    Vec::new()
}

/// All tunnels of a sandbox.
pub async fn get(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetTunnelsRequest,
) -> Result<SandboxGetTunnelsResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    sandbox.unit().await?;
    if ports(&sandbox.definition).is_empty() {
        return Ok(SandboxGetTunnelsResponse::default());
    }
    Err(Status::unimplemented("The emulator has no tunnels"))
}

/// A token with which a server inside a sandbox is reached.
pub async fn connect_token(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxCreateConnectTokenRequest,
) -> Result<SandboxCreateConnectTokenResponse, Status> {
    state.sandbox(&request.sandbox_id)?;
    Err(Status::unimplemented("The emulator has no tunnels"))
}

//! The call that returns tunnels. [`crate::runtime::tunnels`] opens them.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::state::State;
use crate::runtime::tunnels::known_at_once;
use crate::service::caller::Caller;

/// Waits until a sandbox runs, and returns its tunnels.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended.
pub async fn get(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetTunnelsRequest,
) -> Result<SandboxGetTunnelsResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    sandbox.unit().await?;
    Ok(SandboxGetTunnelsResponse { tunnels: known_at_once(&sandbox), ..Default::default() })
}

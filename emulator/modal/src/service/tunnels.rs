//! Calls about tunnels.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::state::State;
use crate::runtime::tunnels::known_at_once;
use crate::service::caller::Caller;

/// All tunnels of a sandbox, once it runs.
pub async fn get(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetTunnelsRequest,
) -> Result<SandboxGetTunnelsResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    sandbox.unit().await?;
    Ok(SandboxGetTunnelsResponse { tunnels: known_at_once(&sandbox), ..Default::default() })
}

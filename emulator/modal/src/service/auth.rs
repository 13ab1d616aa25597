//! Calls with which clients sign in. [`crate::http::auth`] checks the credentials of all calls.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::state::State;
use crate::model::tokens::CONTROL;
use crate::service::caller::Caller;

/// Returns a short-lived token for the control plane.
///
/// # Errors
///
/// Never fails.
pub async fn token(
    state: &Arc<State>,
    caller: &Caller,
    _: AuthTokenGetRequest,
) -> Result<AuthTokenGetResponse, Status> {
    let life = caller.ordered.token_life.unwrap_or(state.options.auth_token_life);
    Ok(AuthTokenGetResponse { token: state.signer.sign(CONTROL, life) })
}

/// Returns the image builder version. Clients use this call to check their credentials.
///
/// # Errors
///
/// Never fails.
pub async fn hello(state: &Arc<State>, _: &Caller, (): ()) -> Result<ClientHelloResponse, Status> {
    Ok(ClientHelloResponse { image_builder_version: state.options.image_builder_version.clone(), ..Default::default() })
}

//! Creates connect tokens. With one, a client reaches a server inside a sandbox over HTTP ([`crate::http::connect_tokens`]).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::HeaderValue;
use modal_proto::client::*;
use rand::RngCore as _;
use tonic::Status;

use crate::model::state::{Grant, State};
use crate::service::caller::Caller;

/// Port of the server inside if a request names none.
const DEFAULT_PORT: u32 = 8080;

/// Creates a connect token for a port of a sandbox.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended, and with INVALID_ARGUMENT if the port or the user data is
/// not valid.
pub async fn create(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxCreateConnectTokenRequest,
) -> Result<SandboxCreateConnectTokenResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    if !sandbox.lives() {
        return Err(sandbox.gone().into());
    }
    let port = request.port.unwrap_or(DEFAULT_PORT);
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| Status::invalid_argument("port must be between 1 and 65535"))?;
    let metadata = match request.user_metadata.as_str() {
        "" => None,
        text if HeaderValue::from_str(text).is_ok() => Some(text.to_owned()),
        _ => {
            return Err(Status::invalid_argument(
                "user_metadata travels in a header: it cannot contain control characters",
            ));
        }
    };
    let mut random = [0; 32];
    rand::rng().fill_bytes(&mut random);
    let token = URL_SAFE_NO_PAD.encode(random);
    let grant = Grant { sandbox_id: sandbox.id.clone(), port, metadata };
    state.tables.lock().grants.insert(token.clone(), grant);
    Ok(SandboxCreateConnectTokenResponse { url: format!("http://{}", state.front), token })
}

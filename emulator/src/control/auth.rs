//! Who may call: the credentials of each request, and the short-lived token that some calls need as well.

use std::sync::Arc;

use http::HeaderMap;
use modal_proto::client::*;
use tonic::Status;

use super::Caller;
use crate::jwt::{CONTROL, Claims};
use crate::state::State;

/// A short-lived token for the control plane.
pub async fn token(state: &Arc<State>, _: &Caller, _: AuthTokenGetRequest) -> Result<AuthTokenGetResponse, Status> {
    Ok(AuthTokenGetResponse { token: state.signer.sign(CONTROL, state.options.auth_token_life) })
}

/// Says hello.
pub async fn hello(state: &Arc<State>, _: &Caller, (): ()) -> Result<ClientHelloResponse, Status> {
    Ok(ClientHelloResponse { image_builder_version: state.options.image_builder_version.clone(), ..Default::default() })
}

/// Checks a control-plane call (fact sheet, section 1.2). `method` without the service's name.
pub fn control(state: &State, method: &str, headers: &HeaderMap) -> Result<Caller, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, secret) = (text("x-modal-token-id"), text("x-modal-token-secret"));
    if id.is_empty() || secret.is_empty() {
        return Err(Status::unauthenticated(
            "Token missing. Could not authenticate client. Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; the emulator takes any pair, such as ak-test and as-test",
        ));
    }
    if let Some((wanted_id, wanted_secret)) = &state.options.token
        && (wanted_id != id || wanted_secret != secret)
    {
        return Err(Status::unauthenticated("Token validation failed. Could not authenticate client"));
    }
    let token = text("x-modal-auth-token");
    if token.is_empty() {
        if needs_token(method) {
            return Err(Status::unauthenticated(format!(
                "{method} needs the token of AuthTokenGet (x-modal-auth-token)"
            )));
        }
    } else if method != "AuthTokenGet" {
        let claims =
            state.signer.check(token).map_err(|e| Status::unauthenticated(format!("x-modal-auth-token: {e}")))?;
        if claims.sub != CONTROL {
            return Err(Status::unauthenticated("x-modal-auth-token: this token is for something else"));
        }
    }
    let library = text("x-modal-libmodal-version");
    let key = text("x-idempotency-key");
    Ok(Caller {
        https_router: library.starts_with("modal-js/") || library.starts_with("modal-go/"),
        key: (!key.is_empty()).then(|| key.to_owned()),
    })
}

/// Calls of the second backend carry the short-lived token in every official client.
fn needs_token(method: &str) -> bool {
    (method.starts_with("Sandbox") && method.ends_with("V2"))
        || method.starts_with("PersistentSandbox")
        || method == "SandboxGetCommandRouterAccess"
}

/// Checks a router call: whose task it may touch.
pub fn router(state: &State, headers: &HeaderMap) -> Result<Claims, Status> {
    let header = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = header
        .strip_prefix("Bearer ")
        .or_else(|| header.strip_prefix("bearer "))
        .ok_or_else(|| Status::unauthenticated("a router call needs `authorization: Bearer <token>`"))?;
    state.signer.check(token.trim()).map_err(|e| Status::unauthenticated(e.to_string()))
}

//! Authentication: checks the credentials of each request, and the short-lived token that some calls also need.

use http::HeaderMap;
use subtle::ConstantTimeEq as _;
use tonic::Status;

use crate::model::state::State;
use crate::model::tokens;
use crate::model::tokens::{CONTROL, Claims};
use crate::service::caller::Caller;

/// Authenticates a control-plane call (docs/modal-protocol.md, section 1.2). `method` is the name without the service.
///
/// # Errors
///
/// Fails with UNAUTHENTICATED if credentials or the token are missing or not accepted.
pub fn control(state: &State, method: &str, headers: &HeaderMap) -> Result<Caller, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, secret) = (text("x-modal-token-id"), text("x-modal-token-secret"));
    let refresh = text("x-modal-refresh-token");
    if !refresh.is_empty() {
        oauth(state, &text)?;
    } else if id.is_empty() || secret.is_empty() {
        return Err(Status::unauthenticated(
            "Token missing. Could not authenticate client. Set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; the emulator accepts any pair, such as ak-test and as-test",
        ));
    }
    if refresh.is_empty() {
        pair(state, headers)?;
    }
    let token = control_token(headers);
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
        ..Default::default()
    })
}

/// Checks a request's pair of id and secret, if the emulator was started with one. The administration endpoint checks nothing
/// else.
///
/// # Errors
///
/// Fails with UNAUTHENTICATED if the pair is missing or different.
pub fn pair(state: &State, headers: &HeaderMap) -> Result<(), Status> {
    let Some((id, secret)) = &state.options.token else { return Ok(()) };
    // The time of the comparison does not reveal how much of a guess is right.
    let is = |name: &str, wanted: &String| {
        headers.get(name).is_some_and(|value| value.as_bytes().ct_eq(wanted.as_bytes()).into())
    };
    if is("x-modal-token-id", id) && is("x-modal-token-secret", secret) {
        return Ok(());
    }
    Err(Status::unauthenticated("Token validation failed. Could not authenticate client"))
}

/// Authenticates an OAuth client instead of a pair of id and secret (docs/modal-protocol.md, sections 1.3 and 1.4). As with
/// pairs, any client is accepted. The claims of an assertion are checked, but not its signature, because the emulator does not
/// have the public key.
fn oauth<'a>(state: &State, text: &impl Fn(&str) -> &'a str) -> Result<(), Status> {
    let (client, secret) = (text("x-modal-oauth-client-id"), text("x-modal-oauth-client-secret"));
    let assertion = text("x-modal-oauth-client-assertion");
    let refused = |why: &str| Err(Status::unauthenticated(format!("OAuth: {why}")));
    if state.options.token.is_some() {
        return refused("this emulator takes one pair of tokens only");
    }
    if !text("x-modal-token-id").is_empty() || !text("x-modal-token-secret").is_empty() {
        return refused("it cannot be combined with a pair of tokens");
    }
    if client.is_empty() || secret.is_empty() == assertion.is_empty() {
        return refused("a client id is needed, and either a secret or an assertion");
    }
    if secret.is_empty()
        && let Err(why) = tokens::check_assertion(assertion, client)
    {
        return refused(&why);
    }
    Ok(())
}

/// Returns whether a method requires the short-lived token. Official clients send it with the calls of the second backend.
fn needs_token(method: &str) -> bool {
    (method.starts_with("Sandbox") && method.ends_with("V2"))
        || method.starts_with("PersistentSandbox")
        || method == "SandboxGetCommandRouterAccess"
}

/// Authenticates a router call. The returned claims name the task that the caller may access.
///
/// # Errors
///
/// Fails with UNAUTHENTICATED if the token is missing, forged or expired.
pub fn router(state: &State, headers: &HeaderMap) -> Result<Claims, Status> {
    let token = router_token(headers);
    if token.is_empty() {
        return Err(Status::unauthenticated("a router call needs `authorization: Bearer <token>`"));
    }
    state.signer.check(token).map_err(|e| Status::unauthenticated(e.to_string()))
}

/// Returns the short-lived token of a control-plane call; empty if there is none.
pub fn control_token(headers: &HeaderMap) -> &str {
    headers.get("x-modal-auth-token").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Returns the token of a router call; empty if there is none.
pub fn router_token(headers: &HeaderMap) -> &str {
    let header = headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer ")).unwrap_or_default().trim()
}

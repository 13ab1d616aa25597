//! Calls about secrets. A secret has a name, or is created for one use.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::ids;
use crate::model::state::{Secret, State};
use crate::model::values::{check_name, now};
use crate::service::caller::Caller;

/// Returns a named secret, or creates a secret.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment, the app or the secret does not exist, with ALREADY_EXISTS if a new one was
/// required, with INVALID_ARGUMENT if a name is not valid, and with FAILED_PRECONDITION if a required key is missing or the app
/// has been stopped.
pub async fn get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: SecretGetOrCreateRequest,
) -> Result<SecretGetOrCreateResponse, Status> {
    let kind = request.object_creation_type();
    let named = !matches!(kind, ObjectCreationType::AnonymousOwnedByApp | ObjectCreationType::Ephemeral);
    let environment = state.environment(&request.environment_name)?;
    if kind == ObjectCreationType::AnonymousOwnedByApp {
        state.app(&request.app_id)?;
    }
    if named {
        check_name("secret", &request.deployment_name)?;
    }
    if let Some(key) = request.env_dict.keys().find(|key| !is_variable(key)) {
        return Err(Status::invalid_argument(format!("Invalid environment variable name: '{key}'")));
    }
    let mut tables = state.tables.lock();
    let known = tables
        .secrets
        .values_mut()
        .find(|s| named && s.name == request.deployment_name && s.environment == environment);
    let secret = match (known, kind) {
        (Some(_), ObjectCreationType::CreateFailIfExists) => {
            return Err(Status::already_exists(format!("Secret '{}' already exists", request.deployment_name)));
        }
        (Some(secret), ObjectCreationType::CreateOverwriteIfExists) => {
            secret.values = request.env_dict.into_iter().collect();
            secret.clone()
        }
        (Some(secret), _) => secret.clone(),
        (None, ObjectCreationType::Unspecified) => {
            return Err(Status::not_found(format!(
                "Secret '{}' not found in environment '{environment}'",
                request.deployment_name
            )));
        }
        (None, _) => {
            let secret = Secret {
                id: ids::id("st"),
                name: if named { request.deployment_name } else { String::new() },
                environment,
                values: request.env_dict.into_iter().collect(),
                created_at: now(),
                last_used_at: 0.0,
            };
            tables.secrets.insert(secret.id.clone(), secret.clone());
            secret
        }
    };
    let missing = request.required_keys.iter().filter(|key| !secret.values.contains_key(*key));
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Status::failed_precondition(format!("Secret is missing key(s): {}", missing.join(", "))));
    }
    Ok(SecretGetOrCreateResponse { secret_id: secret.id.clone(), metadata: Some(metadata(&secret)) })
}

/// Returns a secret's metadata, without its values.
///
/// # Errors
///
/// Fails with NOT_FOUND if the secret does not exist.
pub async fn info(
    state: &Arc<State>,
    _: &Caller,
    request: SecretGetInfoRequest,
) -> Result<SecretGetInfoResponse, Status> {
    match state.tables.lock().secrets.get(&request.secret_id) {
        Some(secret) => Ok(SecretGetInfoResponse { metadata: Some(metadata(secret)) }),
        None => Err(missing(&request.secret_id)),
    }
}

/// Lists the named secrets of an environment, newest first.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist.
pub async fn list(state: &Arc<State>, _: &Caller, request: SecretListRequest) -> Result<SecretListResponse, Status> {
    let environment = state.environment(&request.environment_name)?;
    let page = request.pagination.unwrap_or_default();
    let before = if page.created_before > 0.0 { page.created_before } else { f64::INFINITY };
    let mut secrets: Vec<_> = {
        let tables = state.tables.lock();
        let fits = |s: &&Secret| s.environment == environment && !s.name.is_empty() && s.created_at < before;
        tables.secrets.values().filter(fits).cloned().collect()
    };
    secrets.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
    secrets.truncate(usize::try_from(page.max_objects).ok().filter(|n| *n > 0).unwrap_or(100).min(100));
    let item = |secret: &Secret| SecretListItem {
        label: secret.name.clone(),
        created_at: secret.created_at,
        last_used_at: secret.last_used_at,
        environment_name: secret.environment.clone(),
        secret_id: secret.id.clone(),
        metadata: Some(metadata(secret)),
    };
    Ok(SecretListResponse { items: secrets.iter().map(item).collect(), environment_name: environment })
}

/// Removes a secret.
///
/// # Errors
///
/// Fails with NOT_FOUND if the secret does not exist.
pub async fn delete(state: &Arc<State>, _: &Caller, request: SecretDeleteRequest) -> Result<(), Status> {
    state.tables.lock().secrets.remove(&request.secret_id).map(drop).ok_or_else(|| missing(&request.secret_id))
}

fn missing(id: &str) -> Status {
    Status::not_found(format!("Secret with ID {id} not found"))
}

/// Returns whether a name matches `[a-zA-Z_][a-zA-Z0-9_]*`.
fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn metadata(secret: &Secret) -> SecretMetadata {
    SecretMetadata {
        name: secret.name.clone(),
        creation_info: Some(CreationInfo {
            created_at: secret.created_at,
            created_by: crate::service::apps::USER.to_owned(),
        }),
        keys: secret.values.keys().cloned().collect(),
        environment_name: secret.environment.clone(),
        last_used_at: secret.last_used_at,
        ..Default::default()
    }
}

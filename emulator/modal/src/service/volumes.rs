//! Calls about volumes, which are directories of the emulator's state. [`crate::model::volume_views`] makes the copies that
//! containers see, and [`crate::service::volume_files`] serves the calls that read and change files.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use crate::model::ids;
use crate::model::state::{State, Tables, Volume};
use crate::model::values::{check_name, now};
use crate::service::caller::Caller;

/// Returns a named volume, or creates a volume.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment or the volume does not exist, with INVALID_ARGUMENT if the name or version is not
/// valid, with ALREADY_EXISTS if a new one was required, and with FAILED_PRECONDITION if the volume has another version.
pub async fn get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: VolumeGetOrCreateRequest,
) -> Result<VolumeGetOrCreateResponse, Status> {
    let kind = request.object_creation_type();
    let named = kind != ObjectCreationType::Ephemeral;
    let environment = state.environment(&request.environment_name)?;
    if VolumeFsVersion::try_from(request.version).is_err() {
        return Err(Status::invalid_argument("unknown volume version"));
    }
    if named {
        check_name("volume", &request.deployment_name)?;
    }
    let found = known(&state.tables.lock(), &request, named, &environment);
    let (volume, made) = match (found, kind) {
        (None, ObjectCreationType::Unspecified) => {
            return Err(Status::not_found(format!(
                "Volume '{}' not found in environment '{environment}'",
                request.deployment_name
            )));
        }
        (None, _) => make(state, &request, named, &environment).await?,
        (Some(volume), _) => (volume, false),
    };
    if !made && kind == ObjectCreationType::CreateFailIfExists {
        return Err(Status::already_exists(format!("Volume '{}' already exists", request.deployment_name)));
    }
    if request.version != 0 && request.version != volume.version {
        return Err(Status::failed_precondition(format!(
            "Volume '{}' has version {}, not {}",
            volume.name, volume.version, request.version
        )));
    }
    Ok(VolumeGetOrCreateResponse {
        volume_id: volume.id.clone(),
        version: volume.version,
        metadata: Some(metadata(&volume)),
    })
}

/// Returns the volume that a request names; `None` if it does not exist.
fn known(tables: &Tables, request: &VolumeGetOrCreateRequest, named: bool, environment: &str) -> Option<Volume> {
    let mut volumes = tables.volumes.values();
    volumes.find(|v| named && v.name == request.deployment_name && v.environment == environment).cloned()
}

/// Creates the volume that a request describes. If another caller creates one of the same name first, returns that one and
/// `false`.
async fn make(
    state: &State,
    request: &VolumeGetOrCreateRequest,
    named: bool,
    environment: &str,
) -> Result<(Volume, bool), Status> {
    let volume = Volume {
        id: ids::id("vo"),
        name: if named { request.deployment_name.clone() } else { String::new() },
        environment: environment.to_owned(),
        version: request.version.max(VolumeFsVersion::V1 as i32),
        created_at: now(),
        shared: Arc::default(),
    };
    let directory = state.volume_dir(&volume.id);
    // The directory is created first, because every volume in the table must have one.
    tokio::fs::create_dir_all(&directory)
        .await
        .map_err(|e| Status::internal(format!("cannot create the volume: {e}")))?;
    let earlier = {
        let mut tables = state.tables.lock();
        let earlier = known(&tables, request, named, environment);
        if earlier.is_none() {
            tables.volumes.insert(volume.id.clone(), volume.clone());
        }
        earlier
    };
    match earlier {
        None => Ok((volume, true)),
        Some(earlier) => {
            let _ = tokio::fs::remove_dir(&directory).await;
            Ok((earlier, false))
        }
    }
}

/// Returns a volume by id.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume does not exist.
pub async fn by_id(
    state: &Arc<State>,
    _: &Caller,
    request: VolumeGetByIdRequest,
) -> Result<VolumeGetByIdResponse, Status> {
    let volume = state.volume(&request.volume_id)?;
    Ok(VolumeGetByIdResponse { volume_id: volume.id.clone(), metadata: Some(metadata(&volume)) })
}

/// Accepts the heartbeat of an ephemeral volume. It has no effect, because all volumes live as long as the emulator.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume does not exist.
pub async fn heartbeat(state: &Arc<State>, _: &Caller, request: VolumeHeartbeatRequest) -> Result<(), Status> {
    state.volume(&request.volume_id)?;
    Ok(())
}

/// Removes a volume. Its files stay until the emulator ends, because sandboxes may still have the volume mounted.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume does not exist.
pub async fn delete(state: &Arc<State>, _: &Caller, request: VolumeDeleteRequest) -> Result<(), Status> {
    let removed = state.tables.lock().volumes.remove(&request.volume_id);
    removed.map(drop).ok_or_else(|| missing(&request.volume_id))
}

/// Lists the named volumes of an environment, newest first.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist.
pub async fn list(state: &Arc<State>, _: &Caller, request: VolumeListRequest) -> Result<VolumeListResponse, Status> {
    let environment = state.environment(&request.environment_name)?;
    let page = request.pagination.unwrap_or_default();
    let before = if page.created_before > 0.0 { page.created_before } else { f64::INFINITY };
    let mut volumes: Vec<_> = {
        let tables = state.tables.lock();
        let fits = |v: &&Volume| v.environment == environment && !v.name.is_empty() && v.created_at < before;
        tables.volumes.values().filter(fits).cloned().collect()
    };
    volumes.sort_by(|a, b| b.created_at.total_cmp(&a.created_at));
    volumes.truncate(usize::try_from(page.max_objects).ok().filter(|n| *n > 0).unwrap_or(100).min(100));
    let item = |volume: &Volume| VolumeListItem {
        label: volume.name.clone(),
        volume_id: volume.id.clone(),
        created_at: volume.created_at,
        metadata: Some(metadata(volume)),
    };
    Ok(VolumeListResponse { items: volumes.iter().map(item).collect(), environment_name: environment })
}

/// Renames a volume.
///
/// # Errors
///
/// Fails with NOT_FOUND if the volume does not exist, with INVALID_ARGUMENT if the name is not valid, and with ALREADY_EXISTS
/// if another volume has the name.
pub async fn rename(state: &Arc<State>, _: &Caller, request: VolumeRenameRequest) -> Result<(), Status> {
    check_name("volume", &request.name)?;
    let mut tables = state.tables.lock();
    let volume = tables.volumes.get(&request.volume_id).ok_or_else(|| missing(&request.volume_id))?;
    let mut others = tables.volumes.values().filter(|other| other.id != volume.id);
    if others.any(|other| other.name == request.name && other.environment == volume.environment) {
        return Err(Status::already_exists(format!("Volume '{}' already exists", request.name)));
    }
    if let Some(volume) = tables.volumes.get_mut(&request.volume_id) {
        volume.name = request.name;
    }
    Ok(())
}

fn missing(id: &str) -> Status {
    Status::not_found(format!("Volume with ID {id} not found"))
}

fn metadata(volume: &Volume) -> VolumeMetadata {
    VolumeMetadata {
        version: volume.version,
        name: volume.name.clone(),
        creation_info: Some(CreationInfo {
            created_at: volume.created_at,
            created_by: crate::service::apps::USER.to_owned(),
        }),
    }
}

//! Volumes: directories of the emulator's state that sandboxes have mounted. All of them see writes at once, so that a
//! commit or a reload has nothing left to do.

use std::sync::Arc;

use modal_proto::client::*;
use tonic::Status;

use super::Caller;
use crate::ids;
use crate::state::{State, Volume, check_name, now};

/// Finds a named volume, or makes one.
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
    let known = {
        let tables = state.tables.lock();
        let mut volumes = tables.volumes.values();
        volumes.find(|v| named && v.name == request.deployment_name && v.environment == environment).cloned()
    };
    let volume = match (known, kind) {
        (Some(_), ObjectCreationType::CreateFailIfExists) => {
            return Err(Status::already_exists(format!("Volume '{}' already exists", request.deployment_name)));
        }
        (Some(volume), _) => {
            if request.version != 0 && request.version != volume.version {
                return Err(Status::failed_precondition(format!(
                    "Volume '{}' has version {}, not {}",
                    volume.name, volume.version, request.version
                )));
            }
            volume
        }
        (None, ObjectCreationType::Unspecified) => {
            return Err(Status::not_found(format!(
                "Volume '{}' not found in environment '{environment}'",
                request.deployment_name
            )));
        }
        (None, _) => {
            let volume = Volume {
                id: ids::id("vo"),
                name: if named { request.deployment_name } else { String::new() },
                environment,
                version: request.version.max(VolumeFsVersion::V1 as i32),
                created_at: now(),
            };
            tokio::fs::create_dir_all(state.volume_dir(&volume.id))
                .await
                .map_err(|e| Status::internal(format!("cannot make the volume: {e}")))?;
            state.tables.lock().volumes.insert(volume.id.clone(), volume.clone());
            volume
        }
    };
    Ok(VolumeGetOrCreateResponse {
        volume_id: volume.id.clone(),
        version: volume.version,
        metadata: Some(metadata(&volume)),
    })
}

/// Finds a volume by id.
pub async fn by_id(
    state: &Arc<State>,
    _: &Caller,
    request: VolumeGetByIdRequest,
) -> Result<VolumeGetByIdResponse, Status> {
    let volume = get(state, &request.volume_id)?;
    Ok(VolumeGetByIdResponse { volume_id: volume.id.clone(), metadata: Some(metadata(&volume)) })
}

/// Keeps an ephemeral volume alive; here they all live as long as the emulator.
pub async fn heartbeat(state: &Arc<State>, _: &Caller, request: VolumeHeartbeatRequest) -> Result<(), Status> {
    get(state, &request.volume_id).map(drop)
}

/// Removes a volume. Its files go once no sandbox can have it mounted any more: with the emulator.
pub async fn delete(state: &Arc<State>, _: &Caller, request: VolumeDeleteRequest) -> Result<(), Status> {
    let removed = state.tables.lock().volumes.remove(&request.volume_id);
    removed.map(drop).ok_or_else(|| missing(&request.volume_id))
}

/// A volume by id.
pub fn get(state: &State, id: &str) -> Result<Volume, Status> {
    state.tables.lock().volumes.get(id).cloned().ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Status {
    Status::not_found(format!("Volume with ID {id} not found"))
}

fn metadata(volume: &Volume) -> VolumeMetadata {
    VolumeMetadata {
        version: volume.version,
        name: volume.name.clone(),
        creation_info: Some(CreationInfo { created_at: volume.created_at, created_by: super::apps::USER.to_owned() }),
    }
}

//! Snapshots: a sandbox's files, or those of a directory, as an image; and images mounted in running sandboxes. Memory
//! snapshots are answered as the service does where it has none.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use modal_proto::client::generic_result::GenericStatus;
use modal_proto::client::*;
use tonic::Status;

use crate::build::{Built, Image, Lifetime};
use crate::model::ids;
use crate::model::sandbox::{Sandbox, Unit, result};
use crate::model::state::State;
use crate::service::control::Caller;
use container_isolation::{DirectoryError, MountSpec};

/// How an image of a snapshot is kept.
#[derive(Debug)]
pub struct Keep {
    /// How long.
    pub lifetime: Lifetime,
    /// The key without which it cannot be used.
    pub key: Option<Bytes>,
}

impl Keep {
    /// As long as the emulator, for everybody.
    pub const ALWAYS: Keep = Keep { lifetime: Lifetime::Unlimited, key: None };
}

/// Makes an image of all files of a container as they are now. What is mounted in it stays out.
pub async fn filesystem(state: &Arc<State>, unit: &Unit, keep: Keep) -> Result<Arc<Image>, Status> {
    let id = ids::id("im");
    let layer = state.layers().join(&id);
    let copied = unit.container.snapshot(&layer).await;
    if let Err(error) = copied {
        crate::build::remove_in_background(layer);
        return Err(Status::internal(format!("cannot take a snapshot: {error:#}")));
    }
    let mut layers = unit.layers.clone();
    layers.push(layer);
    let built = Built { layers, from_scratch: unit.image.from_scratch, config: unit.image.config.clone() };
    Ok(put(state, &id, built, keep))
}

/// Makes an image of a directory as processes in a container see it, without what is mounted below it.
pub async fn directory(state: &Arc<State>, unit: &Unit, path: &str, keep: Keep) -> Result<Arc<Image>, Status> {
    if path.trim_matches('/').is_empty() {
        return filesystem(state, unit, keep).await;
    }
    let id = ids::id("im");
    let layer = state.layers().join(&id);
    let copied = unit.container.snapshot_directory(Path::new(path), &layer).await;
    if let Err(error) = copied {
        crate::build::remove_in_background(layer);
        return Err(refusal("take a snapshot of", path, error));
    }
    let built = Built { layers: vec![layer], from_scratch: true, config: Default::default() };
    Ok(put(state, &id, built, keep))
}

fn put(state: &State, id: &str, built: Built, keep: Keep) -> Arc<Image> {
    let image = Arc::new(Image::snapshot(id, built, keep.lifetime, keep.key.as_deref()));
    tracing::info!(image = id, lifetime = ?image.lifetime(), encrypted = keep.key.is_some(), "snapshot taken");
    state.tables.lock().images.insert(id.to_owned(), image.clone());
    image
}

/// Takes a snapshot once for each snapshot id, and gives its image's id.
pub async fn once<F>(sandbox: &Sandbox, snapshot_id: &str, take: F) -> Result<String, Status>
where
    F: Future<Output = Result<Arc<Image>, Status>>,
{
    if snapshot_id.is_empty() {
        return take.await.map(|image| image.id.clone());
    }
    let cell = sandbox.snapshots.lock().entry(snapshot_id.to_owned()).or_default().clone();
    let id = cell.get_or_try_init(|| async { take.await.map(|image| image.id.clone()) }).await?;
    Ok(id.clone())
}

/// Mounts an image, or without an id an empty directory, in a running container.
pub async fn mount(state: &State, unit: &Unit, path: &str, image_id: &str, key: Option<&[u8]>) -> Result<(), Status> {
    if path.trim_matches('/').is_empty() {
        return Err(Status::invalid_argument("An image cannot be mounted at /"));
    }
    let image = match image_id {
        "" => Arc::new(Built { from_scratch: true, ..Default::default() }),
        id => state.image(id)?.unsealed(key)?,
    };
    let spec = MountSpec {
        target: path.into(),
        layers: image.layers.clone(),
        from_scratch: image.from_scratch,
        ..MountSpec::default()
    };
    unit.container.mount(spec).await.map_err(|error| refusal("mount an image at", path, error))?;
    tracing::info!(container = unit.container.id(), path, image = image_id, "image mounted");
    Ok(())
}

/// Takes a mounted image away.
pub async fn unmount(unit: &Unit, path: &str) -> Result<(), Status> {
    let unmounted = unit.container.unmount(Path::new(path)).await;
    unmounted.map_err(|error| refusal("unmount an image from", path, error))?;
    tracing::info!(container = unit.container.id(), path, "image unmounted");
    Ok(())
}

fn refusal(what: &str, path: &str, error: DirectoryError) -> Status {
    let text = format!("Cannot {what} '{path}': {error}");
    match error {
        DirectoryError::Missing | DirectoryError::NoSource => Status::not_found(text),
        DirectoryError::NotADirectory | DirectoryError::Reserved => Status::invalid_argument(text),
        DirectoryError::NotMounted => Status::failed_precondition(text),
        DirectoryError::Failed(error) => Status::internal(format!("Cannot {what} '{path}': {error:#}")),
    }
}

/// The older form, on the control plane.
pub async fn fs(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotFsRequest,
) -> Result<SandboxSnapshotFsResponse, Status> {
    let unit = state.sandbox(&request.sandbox_id)?.unit().await?;
    let image = filesystem(state, &unit, Keep::ALWAYS).await?;
    Ok(answer(&image))
}

/// The same without waiting; here it is done at once.
pub async fn fs_async(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotFsAsyncRequest,
) -> Result<SandboxSnapshotFsAsyncResponse, Status> {
    let unit = state.sandbox(&request.sandbox_id)?.unit().await?;
    let image = filesystem(state, &unit, Keep::ALWAYS).await?;
    Ok(SandboxSnapshotFsAsyncResponse { image_id: image.id.clone() })
}

/// The outcome of the call before.
pub async fn fs_async_get(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotFsAsyncGetRequest,
) -> Result<SandboxSnapshotFsResponse, Status> {
    let image = state.image(&request.image_id)?;
    image.built()?;
    Ok(answer(&image))
}

fn answer(image: &Image) -> SandboxSnapshotFsResponse {
    SandboxSnapshotFsResponse {
        image_id: image.id.clone(),
        result: Some(result(GenericStatus::Success, 0, "")),
        image_metadata: image.built().ok().map(|built| crate::service::images::metadata(&built)),
    }
}

/// What every memory snapshot gets.
pub fn no_memory(sandbox: &Sandbox) -> Status {
    if sandbox.definition.enable_snapshot {
        Status::failed_precondition("Memory snapshots are not available on this worker")
    } else {
        Status::failed_precondition("The sandbox was created without memory snapshots (enable_memory_snapshot)")
    }
}

/// Memory snapshot of a sandbox.
pub async fn memory(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotRequest,
) -> Result<SandboxSnapshotResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    sandbox.unit().await?;
    Err(no_memory(&sandbox))
}

fn no_snapshot(id: &str) -> Status {
    Status::not_found(format!("Snapshot {id} not found"))
}

/// Waits for a memory snapshot; there are none.
pub async fn memory_wait(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotWaitRequest,
) -> Result<SandboxSnapshotWaitResponse, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// Finds a memory snapshot; there are none.
pub async fn memory_get(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotGetRequest,
) -> Result<SandboxSnapshotGetResponse, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// Restores a memory snapshot; there are none.
pub async fn restore(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxRestoreRequest,
) -> Result<SandboxRestoreResponse, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// The same for the second backend.
pub async fn restore_v2(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxRestoreV2Request,
) -> Result<SandboxRestoreV2Response, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// The snapshot taken at a sandbox's end, which it has to be asked for at its creation.
pub async fn at_exit(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetExitSnapshotRequest,
) -> Result<SandboxGetExitSnapshotResponse, Status> {
    use sandbox_get_exit_snapshot_response::{Outcome, Pending, Success};
    let sandbox = state.sandbox(&request.sandbox_id)?;
    if !wants_exit_snapshot(&sandbox.definition) {
        return Err(Status::failed_precondition("The sandbox was created without enable_exit_snapshot"));
    }
    sandbox.wait(crate::model::state::wait(request.timeout, std::time::Duration::from_secs(60))).await;
    let taken = sandbox.exit_snapshot.lock().clone();
    let outcome = match (sandbox.result(), taken) {
        (None, _) => Outcome::Pending(Pending {}),
        (Some(_), Some(Ok(image_id))) => Outcome::Success(Success { image_id }),
        (Some(_), failed) => Outcome::Error(sandbox_get_exit_snapshot_response::Error {
            error_code: sandbox_get_exit_snapshot_response::ErrorCode::Internal as i32,
            message: failed.and_then(Result::err).unwrap_or_else(|| "The sandbox never ran".to_owned()),
        }),
    };
    Ok(SandboxGetExitSnapshotResponse { outcome: Some(outcome) })
}

/// Whether a snapshot is to be taken when the sandbox ends.
pub fn wants_exit_snapshot(definition: &modal_proto::client::Sandbox) -> bool {
    crate::model::definition::is_on(definition, "enable_exit_snapshot")
}

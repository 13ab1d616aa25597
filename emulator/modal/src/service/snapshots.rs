//! Calls of the control plane about snapshots. Memory snapshots fail with the errors of a worker that does not support them.

use std::sync::Arc;

use modal_proto::client::generic_result::GenericStatus;
use modal_proto::client::*;
use tonic::Status;

use crate::model::definition;
use crate::model::image::Image;
use crate::model::outcome::result;
use crate::model::sandbox::Sandbox;
use crate::model::state::State;
use crate::model::values::wait;
use crate::runtime::snapshots::{Keep, filesystem};
use crate::service::caller::Caller;

/// Takes a snapshot of a sandbox's files with the older call of the control plane.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended, and with INTERNAL if the files cannot be copied.
pub async fn fs(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotFsRequest,
) -> Result<SandboxSnapshotFsResponse, Status> {
    let unit = state.sandbox(&request.sandbox_id)?.unit().await?;
    let image = filesystem(state, &unit, Keep::ALWAYS).await?;
    Ok(answer(&image))
}

/// Takes a snapshot of a sandbox's files with the asynchronous call. Here the snapshot is complete when the call returns.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended, and with INTERNAL if the files cannot be copied.
pub async fn fs_async(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotFsAsyncRequest,
) -> Result<SandboxSnapshotFsAsyncResponse, Status> {
    let unit = state.sandbox(&request.sandbox_id)?.unit().await?;
    let image = filesystem(state, &unit, Keep::ALWAYS).await?;
    Ok(SandboxSnapshotFsAsyncResponse { image_id: image.id.clone() })
}

/// Returns the result of [`fs_async`].
///
/// # Errors
///
/// Fails with NOT_FOUND if the image does not exist, and with FAILED_PRECONDITION if it cannot be used.
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

/// Returns the status of every attempt to take a memory snapshot: FAILED_PRECONDITION.
pub fn no_memory(sandbox: &Sandbox) -> Status {
    if sandbox.definition.enable_snapshot {
        Status::failed_precondition("Memory snapshots are not available on this worker")
    } else {
        Status::failed_precondition("The sandbox was created without memory snapshots (enable_memory_snapshot)")
    }
}

/// Rejects a memory snapshot of a sandbox.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist or has ended, and otherwise with the status of [`no_memory`].
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

/// Waits for a memory snapshot. There are no memory snapshots.
///
/// # Errors
///
/// Always fails with NOT_FOUND.
pub async fn memory_wait(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotWaitRequest,
) -> Result<SandboxSnapshotWaitResponse, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// Looks up a memory snapshot. There are no memory snapshots.
///
/// # Errors
///
/// Always fails with NOT_FOUND.
pub async fn memory_get(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxSnapshotGetRequest,
) -> Result<SandboxSnapshotGetResponse, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// Restores a memory snapshot on the first backend. There are no memory snapshots.
///
/// # Errors
///
/// Always fails with NOT_FOUND.
pub async fn restore(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxRestoreRequest,
) -> Result<SandboxRestoreResponse, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// Restores a memory snapshot on the second backend. There are no memory snapshots.
///
/// # Errors
///
/// Always fails with NOT_FOUND.
pub async fn restore_v2(
    _: &Arc<State>,
    _: &Caller,
    request: SandboxRestoreV2Request,
) -> Result<SandboxRestoreV2Response, Status> {
    Err(no_snapshot(&request.snapshot_id))
}

/// Waits for the snapshot that is taken when a sandbox ends, and returns its outcome.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist, and with FAILED_PRECONDITION if it was created without such a snapshot.
pub async fn at_exit(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetExitSnapshotRequest,
) -> Result<SandboxGetExitSnapshotResponse, Status> {
    use sandbox_get_exit_snapshot_response::{Outcome, Pending, Success};
    let sandbox = state.sandbox(&request.sandbox_id)?;
    if !definition::wants_exit_snapshot(&sandbox.definition) {
        return Err(Status::failed_precondition("The sandbox was created without enable_exit_snapshot"));
    }
    sandbox.wait(wait(request.timeout, std::time::Duration::from_secs(60))).await;
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

//! Snapshots of file systems, directories and memory, and mounts of images in running sandboxes
//! (docs/modal-protocol.md, section 6.5).

use std::time::Duration;

use modal_proto::{
    client::{
        SandboxGetExitSnapshotRequest, SandboxGetTaskIdRequest, SandboxRestoreRequest, SandboxRestoreV2Request,
        SandboxSnapshotGetRequest, SandboxSnapshotRequest, SandboxSnapshotWaitRequest, generic_result::GenericStatus,
        sandbox_get_exit_snapshot_response::Outcome, sandbox_restore_request::SandboxNameOverrideType,
    },
    rpc,
    task_command_router::{
        TaskMountDirectoryRequest, TaskSnapshotDirectoryRequest, TaskSnapshotFilesystemRequest,
        TaskSnapshotMemoryRequest, TaskUnmountDirectoryRequest,
    },
};

use crate::{
    image::layers::check_image_id,
    sandbox::find::backend,
    service::{
        Service, container, ended,
        ended::{HOLD_SLACK, WAIT_HOLD},
        id, policy,
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        ids,
        time::{bounded_wait, whole_seconds},
        wit::{ErrorKind, Happened, Location, RetryAdvice, SandboxInfo, SandboxState},
    },
    call::retry::{Policy, not_yet},
};

/// Time limit of one attempt at a snapshot of files, as in the official clients (docs/modal-protocol.md, section 1.7).
const FILES_ATTEMPT: Duration = Duration::from_secs(55);

/// Time limit of one attempt at a snapshot of memory.
const MEMORY_ATTEMPT: Duration = Duration::from_secs(300);

/// Time for which the server holds a request that waits for a memory snapshot or a restored sandbox, in seconds, and
/// the number of such requests. Together they take as long as a memory snapshot may on the newer backend.
const MEMORY_HOLD: f32 = 55.0;
const MEMORY_LOOKS: u32 = 6;

/// Implements `snapshot-filesystem` of the interface. Saves the file system as an image and returns the image's id.
///
/// # Errors
///
/// `invalid-argument` for an invalid key or a `ttl` of 0, `not-found` for an unknown sandbox, `sandbox-ended` if it has
/// ended; otherwise the error of the failed request.
pub async fn filesystem(service: &Service, sandbox: &str, key: &str, ttl: Option<u64>) -> Result<String> {
    let (snapshot_id, ttl_seconds) = named(key, ttl)?;
    let make = |task_id| TaskSnapshotFilesystemRequest { task_id, snapshot_id, ttl_seconds, ..Default::default() };
    let policy = Policy { attempt: Some(FILES_ATTEMPT), ..policy::ROUTER };
    let what = "snapshot the file system";
    Ok(service.router.ask(sandbox, &policy, what, rpc::TASK_SNAPSHOT_FILESYSTEM, make).await?.image_id)
}

/// Implements `snapshot-directory` of the interface. Saves one directory as an image that can be mounted.
///
/// # Errors
///
/// `invalid-argument` for an invalid path or key or a `ttl` of 0, `not-found` for an unknown sandbox or path,
/// `sandbox-ended` if the sandbox has ended; otherwise the error of the failed request.
pub async fn directory(service: &Service, at: &Location, key: &str, ttl: Option<u64>) -> Result<String> {
    let (snapshot_id, ttl_seconds) = named(key, ttl)?;
    let (path, container_id) = place(service, at).await?;
    let make = |task_id| TaskSnapshotDirectoryRequest {
        task_id,
        path,
        snapshot_id,
        ttl_seconds,
        container_id,
        ..Default::default()
    };
    let policy = Policy { attempt: Some(FILES_ATTEMPT), ..policy::ROUTER };
    let what = "snapshot the directory";
    let answer = service.router.ask(&at.sandbox, &policy, what, rpc::TASK_SNAPSHOT_DIRECTORY, make).await;
    Ok(answer.map_err(|error| about_path(error, at))?.image_id)
}

/// Implements `mount` of the interface. Mounts `image` at a path, or an empty directory if `image` is `None`.
///
/// # Errors
///
/// `invalid-argument` for an invalid path or image id, `not-found` for an unknown sandbox or image, `sandbox-ended` if
/// the sandbox has ended; otherwise the error of the failed request.
pub async fn mount(service: &Service, at: &Location, image: Option<&str>) -> Result<()> {
    if let Some(image) = image {
        check_image_id(image)?;
    }
    let (path, container_id) = place(service, at).await?;
    let image_id = image.unwrap_or_default().to_string();
    let make = |task_id| TaskMountDirectoryRequest { task_id, path, image_id, container_id, ..Default::default() };
    let what = "mount the image";
    let answer = service.router.ask(&at.sandbox, &policy::ROUTER, what, rpc::TASK_MOUNT_DIRECTORY, make).await;
    answer.map_err(|error| about_path(error, at))
}

/// Implements `unmount` of the interface. Removes a mount.
///
/// # Errors
///
/// `invalid-argument` for an invalid path, `not-found` if nothing is mounted there, `sandbox-ended` if the sandbox has
/// ended; otherwise the error of the failed request.
pub async fn unmount(service: &Service, at: &Location) -> Result<()> {
    let (path, container_id) = place(service, at).await?;
    let make = |task_id| TaskUnmountDirectoryRequest { task_id, path, container_id };
    let what = "unmount the image";
    let answer = service.router.ask(&at.sandbox, &policy::ROUTER, what, rpc::TASK_UNMOUNT_DIRECTORY, make).await;
    answer.map_err(|error| match error.kind {
        // Modal reports a missing mount as a conflict. An ended sandbox has been recognized before.
        ErrorKind::Conflict => {
            let mut error = error;
            error.kind = ErrorKind::NotFound;
            about_path(error, at)
        }
        _ => about_path(error, at),
    })
}

/// Checks a location and returns its path and the id of its container.
async fn place(service: &Service, at: &Location) -> Result<(bytes::Bytes, String)> {
    id::check_sandbox(&at.sandbox)?;
    let path = &at.path;
    if !path.starts_with('/') || path.trim_matches('/').is_empty() || path.contains('\0') || path.len() > 4096 {
        return Err(Error::invalid(format!(
            "`{}` is not a valid directory: give an absolute path below `/` of at most 4096 bytes.",
            shown(path)
        ))
        .about(path));
    }
    let container_id = container::id(&service.router, &at.sandbox, at.container.as_deref()).await?;
    Ok((path.clone().into(), container_id))
}

/// Implements `snapshot-memory` of the interface. Saves memory, processes and files, and returns the snapshot's id.
///
/// # Errors
///
/// `invalid-argument` for an invalid id or key, `not-found` for an unknown sandbox, `timed-out` if the snapshot is not
/// ready in time, `internal` if it failed; otherwise the error of the failed request.
pub async fn memory(service: &Service, sandbox: &str, key: &str) -> Result<String> {
    let (idempotency_key, _) = named(key, None)?;
    id::check_sandbox(sandbox)?;
    if !id::is_v1(sandbox) {
        let make = |task_id| TaskSnapshotMemoryRequest { task_id, idempotency_key };
        let policy = Policy { attempt: Some(MEMORY_ATTEMPT), ..policy::ROUTER };
        let what = "snapshot the memory";
        return Ok(service.router.ask(sandbox, &policy, what, rpc::TASK_SNAPSHOT_MEMORY, make).await?.snapshot_id);
    }
    let request = SandboxSnapshotRequest { sandbox_id: sandbox.to_string() };
    let answer = service.control.keyed(&idempotency_key, rpc::SANDBOX_SNAPSHOT, &request).await?;
    let answer =
        answer.map_err(|status| ended::unknown(sandbox, service.control.error(&status, "snapshot the memory")))?;
    let request = SandboxSnapshotWaitRequest { snapshot_id: answer.snapshot_id.clone(), timeout: MEMORY_HOLD };
    for _ in 0..MEMORY_LOOKS {
        let asked = service.now();
        let waited = service.control.call("snapshot the memory", rpc::SANDBOX_SNAPSHOT_WAIT, &request).await?;
        let result = waited.result.unwrap_or_default();
        match result.status() {
            GenericStatus::Success => return Ok(answer.snapshot_id),
            GenericStatus::Unspecified => {
                not_yet(service.transport(), asked, Duration::from_secs_f32(MEMORY_HOLD)).await;
            }
            _ => {
                return Err(
                    Error::internal(format!("The memory snapshot failed: {}.", result.exception)).about(sandbox)
                );
            }
        }
    }
    Err(late("The memory snapshot was not ready in time. Repeat it with the same key.", sandbox))
}

/// Implements `restore` of the interface. Creates a sandbox from a memory snapshot.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, key or name; `not-found` for an unknown snapshot; `already-exists` if the name
/// is taken; otherwise the error of the failed request.
pub async fn restore(service: &Service, snapshot: &str, key: &str, name: Option<String>) -> Result<SandboxInfo> {
    ids::check_chosen("a key", key)?;
    let good = snapshot.strip_prefix("sn-").is_some_and(|rest| {
        !rest.is_empty() && rest.len() <= 128 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    });
    if !good {
        let shown = shown(snapshot);
        return Err(
            Error::invalid(format!("`{shown}` is not a snapshot id: Modal's begin with `sn-`.")).about(snapshot)
        );
    }
    if let Some(name) = &name {
        check::name(name)?;
    }
    let request = SandboxSnapshotGetRequest { snapshot_id: snapshot.to_string() };
    let answer = service
        .control
        .call("look up the snapshot", rpc::SANDBOX_SNAPSHOT_GET, &request)
        .await
        .map_err(|error| error.about(snapshot))?;
    let key = ids::derived_uuid(&format!("restore {key}"));
    let override_type = match &name {
        // The sandbox of the snapshot may still have its name.
        None => SandboxNameOverrideType::None,
        Some(_) => SandboxNameOverrideType::String,
    };
    let (snapshot_id, sandbox_name_override) = (snapshot.to_string(), name.clone().unwrap_or_default());
    let sandbox_name_override_type = override_type.into();
    let id = if answer.handle_metadata.unwrap_or_default().is_v2 {
        let request = SandboxRestoreV2Request {
            snapshot_id,
            sandbox_name_override,
            sandbox_name_override_type,
            ..Default::default()
        };
        let answer = service.control.create(&key, rpc::SANDBOX_RESTORE_V2, &request).await?;
        service.router.accesses().remember(&answer.sandbox_id, &answer.task_id, answer.command_router_access);
        answer.sandbox_id
    } else {
        let request = SandboxRestoreRequest {
            snapshot_id,
            sandbox_name_override,
            sandbox_name_override_type,
            ..Default::default()
        };
        let id = service.control.create(&key, rpc::SANDBOX_RESTORE, &request).await?.sandbox_id;
        let request =
            SandboxGetTaskIdRequest { sandbox_id: id.clone(), timeout: Some(MEMORY_HOLD), wait_until_ready: true };
        service.control.call("wait for the restored sandbox", rpc::SANDBOX_GET_TASK_ID, &request).await?;
        id
    };
    Ok(SandboxInfo {
        extra: vec![backend(&id)],
        id,
        name,
        state: SandboxState::Running,
        image: None,
        created: None,
        tags: Vec::new(),
        tunnels: Vec::new(),
    })
}

/// Implements `exit-snapshot` of the interface. Returns the id of the image that was saved at the end of the sandbox,
/// or `None` if there is none after `wait` milliseconds.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox or if the snapshot failed; otherwise the
/// error of the failed request.
pub async fn exit(service: &Service, sandbox: &str, wait: u64) -> Result<Option<String>> {
    id::check_sandbox(sandbox)?;
    let v1 = id::is_v1(sandbox);
    let deadline = service.now() + bounded_wait(wait);
    loop {
        let asked = service.now();
        let left = deadline.saturating_sub(asked);
        let hold = left.min(WAIT_HOLD);
        let request = SandboxGetExitSnapshotRequest { sandbox_id: sandbox.to_string(), timeout: hold.as_secs_f32() };
        let rpc = if v1 { rpc::SANDBOX_GET_EXIT_SNAPSHOT } else { rpc::SANDBOX_GET_EXIT_SNAPSHOT_V2 };
        let answer = service
            .control
            .call_within("find the exit snapshot", rpc, &request, hold + HOLD_SLACK)
            .await
            .map_err(|error| ended::unknown(sandbox, error))?;
        match answer.outcome {
            Some(Outcome::Success(taken)) => return Ok(Some(taken.image_id)),
            Some(Outcome::Error(error)) => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    format!("The snapshot at the sandbox's end could not be taken: {}.", error.message),
                )
                .about(sandbox));
            }
            Some(Outcome::Pending(_)) | None if left.is_zero() => return Ok(None),
            Some(Outcome::Pending(_)) | None => not_yet(service.transport(), asked, hold).await,
        }
    }
}

/// Converts a caller's key and lifetime to Modal's form. The lifetime is always sent, because an unset one means a
/// sliding lifetime of 30 days.
fn named(key: &str, ttl: Option<u64>) -> Result<(String, Option<i64>)> {
    ids::check_chosen("a snapshot key", key)?;
    if ttl == Some(0) {
        return Err(Error::invalid("The time to live is 0: give a positive time, or omit it to keep the snapshot.")
            .about("ttl"));
    }
    Ok((ids::wire_uuid(key), Some(ttl.map_or(-1, |ttl| i64::from(whole_seconds(ttl))))))
}

fn about_path(error: Error, at: &Location) -> Error {
    // An error about the sandbox itself keeps its subject.
    if matches!(error.kind, ErrorKind::SandboxEnded) { error } else { error.about(&at.path) }
}

fn late(text: &str, subject: &str) -> Error {
    Error::new(ErrorKind::TimedOut, text).with_happened(Happened::Unknown).with_retry(RetryAdvice::Maybe).about(subject)
}

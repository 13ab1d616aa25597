//! The task command router: commands in a sandbox with their input and output, files and snapshots (docs/modal-protocol.md,
//! section 7).
//!
//! [`crate::http::auth`] checks tokens before a call gets here, and passes on their content: the task that the caller may
//! access ([`Claims`]).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use container_isolation::Exit;
use futures_util::{Stream, StreamExt as _, stream};
use modal_proto::task_command_router::task_command_router_server::TaskCommandRouter;
use modal_proto::task_command_router::*;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::model::faults::Ordered;
use crate::model::image::Lifetime;
use crate::model::sandbox::Sandbox;
use crate::model::sidecar;
use crate::model::state::State;
use crate::model::tokens::Claims;
use crate::model::values::wait;
use crate::runtime::{commands, readiness, sidecars, snapshots};
use crate::service::{logs, outbound, sidecar_create};

/// The service of the router.
#[derive(Debug, Clone)]
pub struct Router(pub Arc<State>);

/// Longest wait of a call that waits for a container.
const MAX_HOLD: Duration = Duration::from_secs(60);

/// How long after the request's arrival the start of a command with a time limit is answered, unless the command ends earlier.
/// The official SDKs count the limit from the response and then give up on their own (exit code -1 in Python). The service
/// counts from the start, which precedes the response by the network's latency, so that its result (SIGKILL, 137) arrives first
/// (docs/modal-protocol.md, section 7.4). Loopback has no such latency. This lag is longer than a busy client takes to request
/// and read the result.
const ANSWER_LAG: Duration = Duration::from_millis(500);

type Answer<T> = Result<Response<T>, Status>;
type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Router {
    /// Returns the sandbox of a task if the caller's token is valid for it.
    fn task<T>(&self, request: &Request<T>, task_id: &str) -> Result<Arc<Sandbox>, Status> {
        allowed(request.extensions().get(), task_id)?;
        Ok(self.0.task(task_id)?)
    }

    /// Returns the sandbox of a task if the caller's token is valid for it and the sandbox is alive.
    fn live<T>(&self, request: &Request<T>, task_id: &str) -> Result<Arc<Sandbox>, Status> {
        let sandbox = self.task(request, task_id)?;
        if sandbox.lives() { Ok(sandbox) } else { Err(sandbox.gone().into()) }
    }
}

fn allowed(claims: Option<&Claims>, task_id: &str) -> Result<(), Status> {
    if task_id.is_empty() {
        return Err(Status::invalid_argument("task_id is required"));
    }
    match claims {
        Some(claims) if claims.sub == task_id => Ok(()),
        _ => Err(Status::unauthenticated("the token is for another task")),
    }
}

/// Returns whether one of the official SDKs sent the request, from its user agent: `modal-client` (Python), `grpc-node-js`,
/// `grpc-go`.
fn is_official<T>(request: &Request<T>) -> bool {
    let agent = request.metadata().get("user-agent").and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    ["modal-client/", "grpc-node-js/", "grpc-go/"].iter().any(|name| agent.contains(name))
}

/// Parses a path inside the container. It must be absolute and must not contain `..`.
fn path_of(bytes: &[u8]) -> Result<&str, Status> {
    let path = std::str::from_utf8(bytes).map_err(|_| Status::invalid_argument("path is not UTF-8"))?;
    if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return Err(Status::invalid_argument(format!("path must be absolute, got '{path}'")));
    }
    // The kernel's limits of paths and file names.
    if path.len() > 4095 || path.split('/').any(|part| part.len() > 255) {
        return Err(Status::invalid_argument("path is too long"));
    }
    Ok(path)
}

fn keep(ttl_seconds: Option<i64>, key: Option<bytes::Bytes>) -> Result<snapshots::Keep, Status> {
    check_key(key.as_ref())?;
    Ok(snapshots::Keep { lifetime: Lifetime::of_snapshot(ttl_seconds)?, key })
}

fn check_key(key: Option<&bytes::Bytes>) -> Result<(), Status> {
    match key {
        Some(key) if !(16..=512).contains(&key.len()) => {
            Err(Status::invalid_argument("customer_supplied_encryption_key must have 16 to 512 bytes"))
        }
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl TaskCommandRouter for Router {
    type SandboxStdioReadV2Stream = Pieces<SandboxStdioReadV2Response>;
    type TaskExecStdioReadStream = Pieces<TaskExecStdioReadResponse>;

    async fn task_exec_start(&self, request: Request<TaskExecStartRequest>) -> Answer<TaskExecStartResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let unlimited = request.extensions().get::<Ordered>().is_some_and(|ordered| ordered.ignore_time_limit);
        let counts = request.get_ref().timeout_secs.is_some() && is_official(&request);
        let answer = Instant::now() + ANSWER_LAG;
        let mut request = request.into_inner();
        if unlimited {
            request.timeout_secs = None;
        }
        let exec_id = request.exec_id.clone();
        commands::start(&self.0, &sandbox, request).await?;
        if counts && let Ok(exec) = commands::find(&sandbox, &exec_id) {
            let running = exec.running().await?;
            let _ = tokio::time::timeout_at(answer, running.wait()).await;
        }
        Ok(Response::new(TaskExecStartResponse {}))
    }

    async fn task_exec_stdio_read(
        &self,
        request: Request<TaskExecStdioReadRequest>,
    ) -> Answer<Self::TaskExecStdioReadStream> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let request = request.into_inner();
        let running = commands::find(&sandbox, &request.exec_id)?.running().await?;
        let spool = match TaskExecStdioFileDescriptor::try_from(request.file_descriptor) {
            Ok(TaskExecStdioFileDescriptor::Stdout) => running.stdout.clone(),
            Ok(TaskExecStdioFileDescriptor::Stderr) => running.stderr.clone(),
            Err(_) => return Err(Status::invalid_argument("unknown file_descriptor")),
        };
        check_offset(request.offset, &spool)?;
        let pieces = spool.follow(request.offset).map(|piece| Ok(TaskExecStdioReadResponse { data: piece?.1 }));
        Ok(Response::new(pieces.boxed()))
    }

    async fn task_exec_stdin_write(
        &self,
        request: Request<TaskExecStdinWriteRequest>,
    ) -> Answer<TaskExecStdinWriteResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let request = request.into_inner();
        let running = commands::find(&sandbox, &request.exec_id)?.running().await?;
        running.stdin.write(request.offset, &request.data, request.eof, None, &mut running.exit.clone()).await?;
        Ok(Response::new(TaskExecStdinWriteResponse {}))
    }

    async fn task_exec_stdin_write_stream(
        &self,
        request: Request<Streaming<TaskExecStdinWriteStreamRequest>>,
    ) -> Answer<TaskExecStdinWriteStreamResponse> {
        use task_exec_stdin_write_stream_request::Payload;
        let claims = request.extensions().get::<Claims>().cloned();
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.payload);
        let Some(Payload::Start(start)) = first else {
            return Err(Status::invalid_argument("the first message of a stdin stream must be start"));
        };
        allowed(claims.as_ref(), &start.task_id)?;
        let sandbox = self.0.task(&start.task_id)?;
        let running = commands::find(&sandbox, &start.exec_id)?.running().await?;
        let turn = running.stdin.take_turn();
        let (accepted, _) = running.stdin.status();
        if start.offset != accepted {
            return Err(Status::failed_precondition(format!(
                "standard input has {accepted} bytes, cannot continue at {}",
                start.offset
            )));
        }
        let mut offset = start.offset;
        let mut exit = running.exit.clone();
        while let Some(message) = messages.message().await? {
            match message.payload {
                Some(Payload::Data(data)) => {
                    running.stdin.write(offset, &data, false, Some(turn), &mut exit).await?;
                    offset += data.len() as u64;
                }
                Some(Payload::End(_)) => {
                    running.stdin.write(offset, &[], true, Some(turn), &mut exit).await?;
                    break;
                }
                Some(Payload::Start(_)) => {
                    return Err(Status::invalid_argument("a stdin stream must have only one start"));
                }
                None => return Err(Status::invalid_argument("a message of the stdin stream is empty")),
            }
        }
        // Without `end`, standard input stays open: the client may reconnect and continue.
        Ok(Response::new(TaskExecStdinWriteStreamResponse {}))
    }

    async fn task_exec_stdin_status(
        &self,
        request: Request<TaskExecStdinStatusRequest>,
    ) -> Answer<TaskExecStdinStatusResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let running = commands::find(&sandbox, &request.get_ref().exec_id)?.running().await?;
        running.stdin.take_turn();
        let (num_bytes_written, closed) = running.stdin.status();
        Ok(Response::new(TaskExecStdinStatusResponse { num_bytes_written, closed }))
    }

    async fn task_exec_poll(&self, request: Request<TaskExecPollRequest>) -> Answer<TaskExecPollResponse> {
        use task_exec_poll_response::ExitStatus;
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let running = commands::find(&sandbox, &request.get_ref().exec_id)?.running().await?;
        let exit_status = running.ended().map(|exit| match exit {
            Exit::Code(code) => ExitStatus::Code(code),
            Exit::Signal(signal) => ExitStatus::Signal(signal),
        });
        Ok(Response::new(TaskExecPollResponse { exit_status }))
    }

    async fn task_exec_wait(&self, request: Request<TaskExecWaitRequest>) -> Answer<TaskExecWaitResponse> {
        use task_exec_wait_response::ExitStatus;
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let running = commands::find(&sandbox, &request.get_ref().exec_id)?.running().await?;
        let exit = running.wait().await;
        // A command that was killed because its sandbox ended has no exit status of its own.
        if !sandbox.lives() && exit == Exit::Signal(libc::SIGKILL) {
            return Err(sandbox.gone().into());
        }
        let exit_status = Some(match exit {
            Exit::Code(code) => ExitStatus::Code(code),
            Exit::Signal(signal) => ExitStatus::Signal(signal),
        });
        Ok(Response::new(TaskExecWaitResponse { exit_status }))
    }

    async fn sandbox_stdio_read_v2(
        &self,
        request: Request<SandboxStdioReadV2Request>,
    ) -> Answer<Self::SandboxStdioReadV2Stream> {
        let sandbox = self.task(&request, &request.get_ref().task_id)?;
        let request = request.into_inner();
        let fd = SandboxStdioFileDescriptor::try_from(request.file_descriptor)
            .map_err(|_| Status::invalid_argument("unknown file_descriptor"))?;
        let Some(entry) = logs::entry(&sandbox).await else {
            return Ok(Response::new(stream::empty().boxed()));
        };
        let spool = match fd {
            SandboxStdioFileDescriptor::Stdout => entry.stdout.clone(),
            SandboxStdioFileDescriptor::Stderr => entry.stderr.clone(),
        };
        check_offset(request.offset, &spool)?;
        let pieces = spool.follow(request.offset).map(|piece| {
            let (starting_offset, data) = piece?;
            Ok(SandboxStdioReadV2Response { data, starting_offset })
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn sandbox_stdin_write_v2(
        &self,
        request: Request<SandboxStdinWriteV2Request>,
    ) -> Answer<SandboxStdinWriteV2Response> {
        let sandbox = self.task(&request, &request.get_ref().task_id)?;
        let request = request.into_inner();
        let ended = || Status::failed_precondition("The sandbox has ended");
        if !sandbox.lives() {
            return Err(ended());
        }
        let _busy = sandbox.busy();
        let entry = logs::entry(&sandbox).await.ok_or_else(ended)?;
        entry.stdin.write(request.offset, &request.data, request.eof, None, &mut entry.exit.clone()).await?;
        Ok(Response::new(SandboxStdinWriteV2Response {}))
    }

    async fn sandbox_wait_until_ready(
        &self,
        request: Request<SandboxWaitUntilReadyTcrRequest>,
    ) -> Answer<SandboxWaitUntilReadyTcrResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let most = wait(request.get_ref().timeout, Duration::from_secs(24 * 3600));
        Ok(Response::new(SandboxWaitUntilReadyTcrResponse { ready_at: readiness::wait(&sandbox, most).await? }))
    }

    async fn task_snapshot_filesystem(
        &self,
        request: Request<TaskSnapshotFilesystemRequest>,
    ) -> Answer<TaskSnapshotFilesystemResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let request = request.into_inner();
        if request.ttl_seconds.is_none() {
            return Err(Status::invalid_argument("ttl_seconds is required"));
        }
        let keep = keep(request.ttl_seconds, request.customer_supplied_encryption_key)?;
        let unit = sidecars::unit(&sandbox, &request.container_id).await?;
        let _busy = sandbox.busy();
        let taken = snapshots::filesystem(&self.0, &unit, keep);
        let image_id = snapshots::once(&sandbox, &request.snapshot_id, taken).await?;
        Ok(Response::new(TaskSnapshotFilesystemResponse { image_id }))
    }

    async fn task_snapshot_directory(
        &self,
        request: Request<TaskSnapshotDirectoryRequest>,
    ) -> Answer<TaskSnapshotDirectoryResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let request = request.into_inner();
        let path = path_of(&request.path)?;
        let keep = keep(request.ttl_seconds, request.customer_supplied_encryption_key)?;
        let unit = sidecars::unit(&sandbox, &request.container_id).await?;
        let _busy = sandbox.busy();
        let taken = snapshots::directory(&self.0, &unit, path, keep);
        let image_id = snapshots::once(&sandbox, &request.snapshot_id, taken).await?;
        Ok(Response::new(TaskSnapshotDirectoryResponse { image_id }))
    }

    async fn task_mount_directory(&self, request: Request<TaskMountDirectoryRequest>) -> Answer<()> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let request = request.get_ref();
        let path = path_of(&request.path)?;
        let key = request.customer_supplied_encryption_key.as_ref();
        check_key(key)?;
        let unit = sidecars::unit(&sandbox, &request.container_id).await?;
        let _busy = sandbox.busy();
        snapshots::mount(&self.0, &unit, path, &request.image_id, key.map(AsRef::as_ref)).await?;
        Ok(Response::new(()))
    }

    async fn task_unmount_directory(&self, request: Request<TaskUnmountDirectoryRequest>) -> Answer<()> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let path = path_of(&request.get_ref().path)?;
        let unit = sidecars::unit(&sandbox, &request.get_ref().container_id).await?;
        let _busy = sandbox.busy();
        snapshots::unmount(&unit, path).await?;
        Ok(Response::new(()))
    }

    async fn task_snapshot_memory(
        &self,
        request: Request<TaskSnapshotMemoryRequest>,
    ) -> Answer<TaskSnapshotMemoryResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        sandbox.unit().await?;
        Err(crate::service::snapshots::no_memory(&sandbox))
    }

    async fn task_reload_volumes(
        &self,
        request: Request<TaskReloadVolumesRequest>,
    ) -> Answer<TaskReloadVolumesResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let unit = sidecars::unit(&sandbox, &request.get_ref().container_id).await?;
        let _busy = sandbox.busy();
        let reloaded = unit.volumes.reload().await;
        reloaded.map_err(|error| Status::internal(format!("Cannot reload volumes: {error:#}")))?;
        Ok(Response::new(TaskReloadVolumesResponse {}))
    }

    async fn task_set_network_access(
        &self,
        request: Request<TaskSetNetworkAccessRequest>,
    ) -> Answer<TaskSetNetworkAccessResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let access = request.into_inner().network_access;
        let access = access.ok_or_else(|| Status::invalid_argument("network_access is required"))?;
        outbound::set_access(&sandbox, &access).await?;
        Ok(Response::new(TaskSetNetworkAccessResponse {}))
    }

    async fn task_set_outbound_policy(
        &self,
        request: Request<TaskSetExperimentalOutboundPolicyRequest>,
    ) -> Answer<TaskSetExperimentalOutboundPolicyResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        outbound::set_headers(&sandbox).await?;
        Ok(Response::new(TaskSetExperimentalOutboundPolicyResponse {}))
    }

    async fn task_container_create(
        &self,
        request: Request<TaskContainerCreateRequest>,
    ) -> Answer<TaskContainerCreateResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let disk = request.extensions().get::<Ordered>().and_then(|ordered| ordered.disk);
        let made = sidecar_create::create_by_task(&self.0, &sandbox, request.into_inner(), disk).await?;
        Ok(Response::new(TaskContainerCreateResponse {
            container_id: made.id.clone(),
            container_name: made.name.clone(),
        }))
    }

    async fn task_container_get(&self, request: Request<TaskContainerGetRequest>) -> Answer<TaskContainerGetResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let request = request.get_ref();
        let found = sidecars::by_name(&sandbox, &request.container_name, request.include_terminated)?;
        Ok(Response::new(TaskContainerGetResponse { container: Some(found.info()) }))
    }

    async fn task_container_list(
        &self,
        request: Request<TaskContainerListRequest>,
    ) -> Answer<TaskContainerListResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let ended_too = request.get_ref().include_terminated;
        let mut containers: Vec<_> = sandbox.sidecars.lock().iter().map(|sidecar| sidecar.info()).collect();
        containers.retain(|info| ended_too || info.result.is_none());
        Ok(Response::new(TaskContainerListResponse { containers }))
    }

    async fn task_container_wait(
        &self,
        request: Request<TaskContainerWaitRequest>,
    ) -> Answer<TaskContainerWaitResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        let found = sidecars::find(&sandbox, &request.get_ref().container_id)?;
        let mut phase = found.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, sidecar::Phase::Ended(_)));
        let _ = tokio::time::timeout(wait(request.get_ref().timeout, MAX_HOLD), ended).await;
        Ok(Response::new(TaskContainerWaitResponse { result: found.info().result }))
    }

    async fn task_container_terminate(
        &self,
        request: Request<TaskContainerTerminateRequest>,
    ) -> Answer<TaskContainerTerminateResponse> {
        let sandbox = self.live(&request, &request.get_ref().task_id)?;
        sidecars::find(&sandbox, &request.get_ref().container_id)?.terminate();
        Ok(Response::new(TaskContainerTerminateResponse {}))
    }
}

/// Checks an offset of a request. An offset beyond the end of a complete stream is a mistake of the client.
fn check_offset(offset: u64, spool: &crate::model::spool::Spool) -> Result<(), Status> {
    let progress = spool.progress();
    if progress.closed && offset > progress.len {
        return Err(Status::out_of_range(format!(
            "the stream has {} bytes, offset {offset} is beyond its end",
            progress.len
        )));
    }
    Ok(())
}

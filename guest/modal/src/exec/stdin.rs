//! Writes the input of commands (docs/modal-protocol.md, sections 7.4 and 8.1).

use std::time::Duration;

use bytes::Bytes;
use modal_proto::{
    rpc,
    task_command_router::{
        SandboxStdinWriteV2Request, TaskExecStdinStatusRequest, TaskExecStdinWriteRequest, TaskExecStdinWriteStreamEnd,
        TaskExecStdinWriteStreamRequest, TaskExecStdinWriteStreamStart, task_exec_stdin_write_stream_request::Payload,
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        ids,
        wit::{ExecRef, InputState},
    },
    call::grpc::{Code, Framed, Status, Wire},
    exec,
    platform::within,
};

use super::process::{self, check_ref};
use crate::service::{Service, id, policy};

/// Largest write to stdin in one call, in bytes: the largest message of the official client (docs/modal-protocol.md,
/// section 6.4).
const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;

/// Size of one message of a stream to stdin, in bytes, as in the official clients (docs/modal-protocol.md, section
/// 8.1). Inputs up to this size are sent in a single message.
const STREAM_PIECE: usize = 256 * 1024;

/// Size of the single message after a failed stream, in bytes. It is small, because a slow connection may be the cause.
const SINGLE_PIECE: usize = 1024 * 1024;

/// Time for which one write waits for the program to read, before the caller gets the number of accepted bytes.
const INPUT_ATTEMPT: Duration = Duration::from_secs(60);

/// Implements `write-input` of the interface. Writes `data` to standard input at the byte `offset`, and closes the
/// input after it if `eof` is set.
///
/// # Errors
///
/// `invalid-argument` for more than 16 MiB or a gap before `offset`, `unsupported` for the entry point on the V1
/// backend, `sandbox-ended` if the sandbox has ended; otherwise the error of the failed request.
pub async fn write_input(
    service: &Service,
    exec: ExecRef,
    offset: u64,
    data: Vec<u8>,
    eof: bool,
) -> Result<InputState> {
    check_ref(&exec)?;
    if data.len() > MAX_INPUT_BYTES {
        return Err(Error::invalid(format!(
            "{} bytes are too many for one write to stdin: send at most {MAX_INPUT_BYTES} at a time.",
            data.len()
        )));
    }
    if exec.exec == ids::MAIN {
        return write_main(service, &exec.sandbox, offset, data, eof).await;
    }
    let exec_id = ids::wire_uuid(&exec.exec);
    if data.is_empty() && !eof {
        return state(service, &exec.sandbox, &exec_id).await;
    }
    let write = write(service, &exec.sandbox, &exec_id, offset, data.into(), eof);
    match within(service.transport(), INPUT_ATTEMPT, write).await {
        Some(written) => written,
        // The program does not read. The bytes that it accepted before count.
        None => state(service, &exec.sandbox, &exec_id).await,
    }
}

/// Like [`write()`], but faster for large inputs: the router accepts the first bytes while the last ones are sent. The
/// stream is tried once. If it fails, a single message with retries continues at the offset that the stream reached.
pub(crate) async fn write_much(
    service: &Service,
    sandbox: &str,
    exec_id: &str,
    offset: u64,
    data: Bytes,
    eof: bool,
) -> Result<InputState> {
    let end = offset + data.len() as u64;
    // gRPC-Web has no request streams.
    if data.len() <= STREAM_PIECE || service.control.setup().channel().wire == Wire::GrpcWeb {
        return write(service, sandbox, exec_id, offset, data, eof).await;
    }
    let stream = stream(service, sandbox, exec_id, offset, data.clone(), eof);
    if let Some(Ok(())) = within(service.transport(), INPUT_ATTEMPT, stream).await.transpose()? {
        return Ok(InputState { accepted: end, closed: eof });
    }
    // This request also ends a stream that the server still considers open (docs/modal-protocol.md, section 7.4).
    let state = state(service, sandbox, exec_id).await?;
    let rest = data.slice((state.accepted.clamp(offset, end) - offset) as usize..);
    let offset = end - rest.len() as u64;
    if rest.is_empty() && !eof {
        return Ok(InputState { accepted: end, ..state });
    }
    let piece = rest.slice(..rest.len().min(SINGLE_PIECE));
    let last = eof && piece.len() == rest.len();
    write(service, sandbox, exec_id, offset, piece, last).await
}

async fn stream(
    service: &Service,
    sandbox: &str,
    exec_id: &str,
    offset: u64,
    data: Bytes,
    eof: bool,
) -> Result<Result<(), Status>> {
    let exec_id = exec_id.to_string();
    let start = |task_id| Payload::Start(TaskExecStdinWriteStreamStart { task_id, exec_id, offset });
    let pieces = (0..data.len().div_ceil(STREAM_PIECE)).map(move |number| {
        let begin = number * STREAM_PIECE;
        Payload::Data(data.slice(begin..data.len().min(begin + STREAM_PIECE)))
    });
    let end = eof.then_some(Payload::End(TaskExecStdinWriteStreamEnd {}));
    let message = |payload| TaskExecStdinWriteStreamRequest { payload: Some(payload) };
    let more = pieces.chain(end).map(move |payload| Framed::new(&message(payload)));
    let rpc = rpc::TASK_EXEC_STDIN_WRITE_STREAM;
    let answer = service.router.upload(sandbox, rpc, |task_id| message(start(task_id)), more).await?;
    Ok(answer.map(drop))
}

/// Writes in one message, with retries.
pub(crate) async fn write(
    service: &Service,
    sandbox: &str,
    exec_id: &str,
    offset: u64,
    data: Bytes,
    eof: bool,
) -> Result<InputState> {
    let end = offset + data.len() as u64;
    let make = |task_id: String| TaskExecStdinWriteRequest {
        task_id,
        exec_id: exec_id.to_string(),
        offset,
        data: data.clone(),
        eof,
    };
    let result = service.router.call(sandbox, &policy::ROUTER, rpc::TASK_EXEC_STDIN_WRITE, make).await?;
    let status = match result {
        Ok(_) => return Ok(InputState { accepted: end, closed: eof }),
        Err(status) => status,
    };
    if matches!(status.code(), Code::FailedPrecondition | Code::Aborted | Code::OutOfRange | Code::InvalidArgument) {
        // The program has ended or closed its input, or the offset does not match.
        if process::wait_exit(service, sandbox, exec_id, Duration::ZERO).await?.is_some() {
            return Ok(InputState { accepted: offset, closed: true });
        }
        let state = state(service, sandbox, exec_id).await?;
        if offset > state.accepted && !state.closed {
            return Err(Error::invalid(format!(
                "The write to stdin begins at offset {offset}, but only {} bytes have arrived: send from there.",
                state.accepted
            )));
        }
        let refused = status.code() == Code::FailedPrecondition && state.accepted == offset;
        if refused || state.closed || state.accepted != offset {
            return Ok(InputState { closed: state.closed || refused, ..state });
        }
    }
    Err(service.router.explain(sandbox, &status, "write to the command's stdin").await)
}

async fn state(service: &Service, sandbox: &str, exec_id: &str) -> Result<InputState> {
    let make = |task_id: String| TaskExecStdinStatusRequest { task_id, exec_id: exec_id.to_string() };
    let result = service.router.call(sandbox, &policy::ROUTER, rpc::TASK_EXEC_STDIN_STATUS, make).await?;
    match result {
        Ok(answer) => Ok(InputState { accepted: answer.num_bytes_written, closed: answer.closed }),
        Err(status) => Err(service.router.explain(sandbox, &status, "read the state of the command's stdin").await),
    }
}

async fn write_main(service: &Service, sandbox: &str, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
    if id::is_v1(sandbox) {
        return Err(Error::unsupported(
            "main.input",
            "Input for the entry-point command needs a sandbox on Modal's V2 backend.",
        ));
    }
    let end = offset + data.len() as u64;
    let data = Bytes::from(data);
    let make = |task_id: String| SandboxStdinWriteV2Request { task_id, offset, data: data.clone(), eof };
    let result = service.router.call(sandbox, &policy::ROUTER, rpc::SANDBOX_STDIN_WRITE_V2, make).await?;
    match result {
        Ok(_) => Ok(InputState { accepted: end, closed: eof }),
        Err(status) => Err(service.router.explain(sandbox, &status, "write to the entry-point command's stdin").await),
    }
}

/// Writes all of `input` and closes it.
pub(crate) async fn feed(service: &Service, sandbox: &str, exec_id: &str, input: Bytes) -> Result<()> {
    exec::feed(input, |offset, piece, last| write(service, sandbox, exec_id, offset, piece, last)).await
}

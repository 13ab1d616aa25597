//! The start and the end of a command, by its id at Modal (docs/modal-protocol.md, section 7).

use std::time::Duration;

use modal_proto::{
    rpc,
    task_command_router::{
        TaskExecPollRequest, TaskExecStartRequest, TaskExecWaitRequest,
        task_exec_poll_response::ExitStatus as PollStatus, task_exec_wait_response::ExitStatus as WaitStatus,
    },
};
use sandbox_provider_kit::{
    Result,
    api::{ids, wit::ExecRef},
    call::{
        Failure as _,
        grpc::{Code, Status},
        retry::{Policy, not_yet},
    },
    platform::within,
};

use crate::service::{Service, id, policy};

/// Longest time of one `TaskExecWait` request; after that, it is repeated (docs/modal-protocol.md, section 1.5).
pub(crate) const WAIT_ATTEMPT: Duration = Duration::from_secs(60);

/// Longest time of a check whether an exec has ended, without waiting for its end.
const POLL_ATTEMPT: Duration = Duration::from_secs(15);

/// Starts a command. A repeated call with the same id does nothing.
pub(crate) async fn start(service: &Service, sandbox: &str, request: TaskExecStartRequest) -> Result<()> {
    let result = service
        .router
        .call(sandbox, &policy::ROUTER, rpc::TASK_EXEC_START, |task_id| TaskExecStartRequest {
            task_id,
            ..request.clone()
        })
        .await?;
    match result {
        Ok(_) => Ok(()),
        Err(status) => Err(service.router.explain(sandbox, &status, "start the command").await),
    }
}

/// Waits up to `wait` for the exit of an exec, with a new request each minute. Returns `None` if it still runs.
pub(crate) async fn wait_exit(service: &Service, sandbox: &str, exec_id: &str, wait: Duration) -> Result<Option<Exit>> {
    let transport = service.transport();
    let deadline = service.now() + wait;
    let mut failures = 0;
    loop {
        let left = deadline.saturating_sub(service.now());
        if left.is_zero() && !wait.is_zero() {
            return Ok(None);
        }
        let (asked, limit) = (service.now(), left.min(WAIT_ATTEMPT));
        // The provider's clock limits the whole attempt, because connecting to a router that starts up can take longer
        // than `limit`.
        let attempt = if wait.is_zero() {
            within(transport, POLL_ATTEMPT, poll_exit(service, sandbox, exec_id)).await
        } else {
            within(transport, limit, await_exit(service, sandbox, exec_id, limit)).await
        };
        let status = match attempt.transpose()? {
            Some(Ok(Some(exit))) => return Ok(Some(exit)),
            None | Some(Ok(None)) if wait.is_zero() => return Ok(None),
            None | Some(Ok(None)) => {
                not_yet(transport, asked, limit).await;
                continue;
            }
            Some(Err(status)) => status,
        };
        match status.code() {
            // The server reports the deadline that the request set.
            Code::DeadlineExceeded if !wait.is_zero() => not_yet(transport, asked, limit).await,
            _ if status.is_retryable() && failures < policy::ROUTER.limit(&status) && !wait.is_zero() => {
                transport.sleep(policy::ROUTER.pause(failures, &**transport).min(left)).await;
                failures += 1;
            }
            _ => return Err(service.router.explain(sandbox, &status, "wait for the command").await),
        }
    }
}

async fn poll_exit(service: &Service, sandbox: &str, exec_id: &str) -> Result<Result<Option<Exit>, Status>> {
    let make = |task_id: String| TaskExecPollRequest { task_id, exec_id: exec_id.to_string() };
    let answer = service.router.call(sandbox, &policy::ROUTER, rpc::TASK_EXEC_POLL, make).await?;
    Ok(answer.map(|answer| answer.exit_status.map(Exit::from)))
}

async fn await_exit(
    service: &Service,
    sandbox: &str,
    exec_id: &str,
    limit: Duration,
) -> Result<Result<Option<Exit>, Status>> {
    let policy = Policy { retries: 0, attempt: Some(limit), ..policy::ROUTER };
    let make = |task_id: String| TaskExecWaitRequest { task_id, exec_id: exec_id.to_string() };
    let answer = service.router.call(sandbox, &policy, rpc::TASK_EXEC_WAIT, make).await?;
    Ok(answer.map(|answer| answer.exit_status.map(Exit::from)))
}

/// The exit of an exec, as the router reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
}

impl From<WaitStatus> for Exit {
    fn from(status: WaitStatus) -> Exit {
        match status {
            WaitStatus::Code(code) => Exit::Code(code),
            WaitStatus::Signal(signal) => Exit::Signal(signal),
        }
    }
}

impl From<PollStatus> for Exit {
    fn from(status: PollStatus) -> Exit {
        match status {
            PollStatus::Code(code) => Exit::Code(code),
            PollStatus::Signal(signal) => Exit::Signal(signal),
        }
    }
}

/// Checks a sandbox id and an exec id.
pub(crate) fn check_ref(exec: &ExecRef) -> Result<()> {
    id::check_sandbox(&exec.sandbox)?;
    ids::check_chosen("an exec id", &exec.exec)
}

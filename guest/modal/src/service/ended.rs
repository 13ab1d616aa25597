//! Whether and why a sandbox has ended (docs/modal-protocol.md, section 6.1).

use std::time::Duration;

use modal_proto::{
    client::{GenericResult, SandboxWaitRequest, generic_result::GenericStatus},
    rpc,
};
use sandbox_provider_kit::{
    Error, Result,
    api::wit::{EndReason, ErrorKind},
    call::retry::not_yet,
};

use super::{control::Control, id};

/// Longest time for which the server holds one `SandboxWait` request, and the additional time for its answer
/// (docs/modal-protocol.md, section 1.5).
pub(crate) const WAIT_HOLD: Duration = Duration::from_secs(10);
pub(crate) const HOLD_SLACK: Duration = Duration::from_secs(5);

/// Returns the reason why a sandbox has ended, or `None` if it is running.
pub(crate) async fn poll(control: &Control, sandbox: &str) -> Result<Option<EndReason>> {
    ask(control, sandbox, Duration::ZERO).await
}

pub(crate) async fn wait(control: &Control, sandbox: &str, wait: Duration) -> Result<Option<EndReason>> {
    let deadline = control.setup().now() + wait;
    loop {
        let asked = control.setup().now();
        let left = deadline.saturating_sub(asked);
        let hold = left.min(WAIT_HOLD);
        let ended = ask(control, sandbox, hold).await?;
        if ended.is_some() || left.is_zero() {
            return Ok(ended);
        }
        not_yet(control.setup().transport(), asked, hold).await;
    }
}

async fn ask(control: &Control, sandbox: &str, hold: Duration) -> Result<Option<EndReason>> {
    id::check_sandbox(sandbox)?;
    let request = SandboxWaitRequest { sandbox_id: sandbox.to_string(), timeout: hold.as_secs_f32() };
    let v1 = id::is_v1(sandbox);
    let limit = hold + HOLD_SLACK;
    let answer = control
        .call_within("look up the sandbox", if v1 { rpc::SANDBOX_WAIT } else { rpc::SANDBOX_WAIT_V2 }, &request, limit)
        .await
        .map_err(|error| unknown(sandbox, error))?;
    Ok(answer.result.as_ref().and_then(reason))
}

pub(crate) fn unknown(sandbox: &str, error: Error) -> Error {
    if !error.is_not_found() {
        return error.about(sandbox);
    }
    let message =
        format!("Modal has no sandbox {sandbox}. It may belong to another workspace, or have been deleted long ago.");
    error.with_message(message).about(sandbox)
}

/// Converts a result to the reason of the end, or `None` if the sandbox has not ended (docs/modal-protocol.md, section
/// 6.1).
pub(crate) fn reason(result: &GenericResult) -> Option<EndReason> {
    Some(match result.status() {
        GenericStatus::Unspecified => return None,
        GenericStatus::Success | GenericStatus::Failure => EndReason::Finished(result.exitcode),
        GenericStatus::Terminated => EndReason::Terminated,
        GenericStatus::Timeout => EndReason::Lifetime,
        GenericStatus::IdleTimeout => EndReason::Idle,
        GenericStatus::InitFailure => EndReason::FailedToStart(result.exception.clone()),
        GenericStatus::InternalFailure => EndReason::Lost(result.exception.clone()),
        GenericStatus::MemoryManagerEviction
        | GenericStatus::MemoryThrashingEviction
        | GenericStatus::KernelOomKill => EndReason::OutOfMemory,
    })
}

/// Describes the reason of an end.
fn describe(reason: &EndReason) -> String {
    match reason {
        EndReason::Finished(code) => format!("its command exited with code {code}"),
        EndReason::Terminated => "it was terminated".to_string(),
        EndReason::Lifetime => "it reached the end of its lifetime".to_string(),
        EndReason::Idle => "it was idle for too long".to_string(),
        EndReason::OutOfMemory => "it ran out of memory".to_string(),
        EndReason::FailedToStart(text) => format!("it did not start ({text})"),
        EndReason::Lost(text) => format!("the provider lost it ({text})"),
        EndReason::Other(text) => text.clone(),
    }
}

/// Makes the `sandbox-ended` error.
pub(crate) fn error(sandbox: &str, reason: &EndReason) -> Error {
    Error::new(ErrorKind::SandboxEnded, format!("The sandbox {sandbox} has ended: {}.", describe(reason)))
        .about(sandbox)
}

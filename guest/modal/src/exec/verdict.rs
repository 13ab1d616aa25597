//! Converts the end of a command to its verdict.

use std::time::Duration;

use sandbox_provider_kit::{
    Error, Result,
    api::{
        ids,
        time::millis,
        wit::{EndReason, ErrorKind, ExecRef, Verdict},
    },
    exec::Deadlines,
};

use super::process::{self, Exit};
use crate::service::{Service, ended};

/// Waits for the verdict of a command other than the entry-point one.
pub(crate) async fn wait(
    service: &Service,
    deadlines: &Deadlines,
    exec: &ExecRef,
    wait: Duration,
) -> Result<Option<Verdict>> {
    match process::wait_exit(service, &exec.sandbox, &ids::wire_uuid(&exec.exec), wait).await {
        Ok(exit) => Ok(exit.map(|exit| verdict(service, deadlines, exit, exec))),
        Err(error) => fate(service, exec, error).await.map(Some),
    }
}

/// Returns the verdict of an exec after an error from its sandbox, or the error if the sandbox has not ended.
pub(crate) async fn fate(service: &Service, exec: &ExecRef, error: Error) -> Result<Verdict> {
    if matches!(error.kind, ErrorKind::SandboxEnded)
        && let Some(reason) = ended::poll(&service.control, &exec.sandbox).await?
    {
        return Ok(if exec.exec == ids::MAIN { main_verdict(reason) } else { Verdict::SandboxEnded(reason) });
    }
    Err(error)
}

/// Returns the verdict for an exit. Modal does not report that a time limit was the cause (docs/modal-protocol.md,
/// section 7.4), neither for its own SIGKILL nor for the SIGTERM of this or another instance. So an exit by one of
/// these signals at or after the deadline, and any exit of an exec that this instance has ended, becomes `deadline`.
fn verdict(service: &Service, deadlines: &Deadlines, exit: Exit, exec: &ExecRef) -> Verdict {
    let overdue = exec.deadline.is_some_and(|deadline| millis(service.now()) >= deadline);
    match exit {
        _ if deadlines.was_ended(exec) => Verdict::Deadline,
        Exit::Signal(9 | 15) | Exit::Code(137 | 143) if overdue => Verdict::Deadline,
        Exit::Code(code) => Verdict::Exited(code),
        Exit::Signal(signal) => Verdict::Signaled(signal.unsigned_abs()),
    }
}

/// Returns the verdict of the entry-point command.
pub(crate) fn main_verdict(reason: EndReason) -> Verdict {
    match reason {
        EndReason::Finished(code) => Verdict::Exited(code),
        other => Verdict::SandboxEnded(other),
    }
}

//! Converts the end of a command or a sandbox to an exit code and a message.

use std::time::Duration;

use anyhow::Result;
use sandbox_host::types::{self, EndReason, Verdict};
use sandbox_host::{Happened, Sandbox};

use crate::output::text::end_text;
use crate::output::{DEADLINE, FAILED, Failure};
use crate::session::Session;

/// How long to wait for the reason why a sandbox has ended.
const PROGRAM_END: Duration = Duration::from_secs(5);

/// The hint if an image's own program ends.
pub const STAY_HINT: &str = "give the sandbox a command that keeps running, such as `sandbox-host create … -- sleep infinity`; if the \
                             image has an ENTRYPOINT that does not run it, add --line 'ENTRYPOINT []'";

/// Returns how the sandbox's own program ended, if that is why a command could not start.
pub async fn not_begun(sandbox: &Sandbox, error: &anyhow::Error) -> Option<types::EndReason> {
    let known = error.downcast_ref::<sandbox_host::Error>()?;
    if !known.is_sandbox_ended() || known.happened() != Happened::No {
        return None;
    }
    let reason = sandbox.wait_for(PROGRAM_END).await.ok()??;
    matches!(reason, types::EndReason::Finished(_) | types::EndReason::FailedToStart(_)).then_some(reason)
}

/// Returns the exit code of this program for the end of a command.
pub fn code_of(verdict: &Verdict) -> i32 {
    match verdict {
        Verdict::Exited(code) => *code & 0xff,
        Verdict::Signaled(signal) => 128 + (*signal as i32 & 0x7f),
        Verdict::Deadline => DEADLINE,
        Verdict::OutOfMemory => 128 + 9,
        Verdict::SandboxEnded(_) | Verdict::Lost(_) | Verdict::Other(_) => FAILED,
    }
}

/// Returns the exit code, and prints a message if the code alone does not tell what happened. Fails if the sandbox ended
/// first or the result is unknown.
pub fn exit_code(session: &Session, verdict: Verdict) -> Result<i32> {
    match &verdict {
        Verdict::SandboxEnded(reason) => {
            let hint = match reason {
                types::EndReason::Finished(_) => STAY_HINT,
                _ => "create a new sandbox",
            };
            return Err(Failure::new("finish the command", format!("the sandbox ended first: {}", end_text(reason)))
                .hint(hint)
                .into());
        }
        Verdict::Lost(why) | Verdict::Other(why) => {
            return Err(Failure::new("determine how the command ended", why.clone()).into());
        }
        Verdict::Deadline => session.voice.say("the command exceeded its time limit and was killed"),
        Verdict::OutOfMemory => session.voice.say("the command was killed because the sandbox's memory was used up"),
        Verdict::Signaled(signal) => session.voice.say(format_args!("the command was killed by signal {signal}")),
        Verdict::Exited(_) => {}
    }
    Ok(code_of(&verdict))
}

/// Returns the name of a verdict for JSON.
pub fn verdict_name(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Exited(_) => "exited".into(),
        Verdict::Signaled(signal) => format!("signaled {signal}"),
        Verdict::Deadline => "deadline".into(),
        Verdict::SandboxEnded(reason) => format!("sandbox ended: {}", end_text(reason)),
        Verdict::OutOfMemory => "out of memory".into(),
        Verdict::Lost(why) => format!("lost: {why}"),
        Verdict::Other(name) => name.clone(),
    }
}

/// Converts an I/O error. If it contains an error of `sandbox_host`, returns that error.
pub fn unwrap(error: std::io::Error) -> anyhow::Error {
    match error.downcast::<sandbox_host::Error>() {
        Ok(error) => error.into(),
        Err(error) => error.into(),
    }
}

/// Returns the exit code of a command that waits for the end of a sandbox or a sidecar.
pub fn end_code(reason: &EndReason) -> i32 {
    match reason {
        EndReason::Finished(code) => code & 0xff,
        EndReason::Lifetime | EndReason::Idle => DEADLINE,
        // The exit code that a shell reports for a process killed with SIGKILL.
        EndReason::Terminated | EndReason::OutOfMemory => 128 + 9,
        EndReason::FailedToStart(_) | EndReason::Lost(_) | EndReason::Other(_) => FAILED,
    }
}

//! Runs the provider's scripts in a sandbox: signals to an exec, the size of its terminal, and the end of execs whose
//! time limit has passed. Modal has no calls for signals and terminal sizes (docs/modal-protocol.md, section 7.4).
//!
//! A script has a time limit too, and another script ends it when that has passed. Therefore all of this is in one
//! file.

use std::time::Duration;

use bytes::Bytes;
use modal_proto::{
    client::{SecretSource, StringMap, secret_source::Source},
    task_command_router::{TaskExecStartRequest, TaskExecStderrConfig, TaskExecStdoutConfig},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::clip,
        ids,
        time::{millis, whole_seconds},
        wit::{ErrorKind, ExecRef, Keep, OutputLimits, Pty, RunResult, Verdict},
    },
    exec::{self, Deadlines, KILL_TIME, Running},
    inside::{
        Script,
        script::environment,
        signal::{self, MARKER},
    },
    platform::within,
};

use super::{
    helper::Helper,
    process::{self, WAIT_ATTEMPT, check_ref},
    shell, stdin, verdict,
};
use crate::service::{Service, container, id};

/// Time limit of a script, in milliseconds. Scripts take some tenths of a second. An image can have another program in
/// the place of the shell, which must not block the caller for ever.
const SCRIPT_MS: u64 = 60_000;

/// Time between SIGTERM and SIGKILL for a command whose time limit has passed, in tenths of a second.
const GRACE_TENTHS: u32 = 50;

/// Additional time after which the service kills the program, for cases in which the provider cannot. Modal rounds it
/// up to whole seconds and kills only the program, so its children survive and callers wait for the output that these
/// hold open.
const KILL_AFTER: Duration = Duration::from_secs(7);

/// Number of searches for the processes of an exec that has not ended. An exec that was just started, or is replacing
/// its program, has no marker for a moment, which on a busy machine takes seconds. With [`FIRST_PAUSE`], the searches
/// take five seconds.
const LOOKS: u32 = 8;

/// Pause after the first search. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Runs scripts.
pub struct Scripts {
    helper: Helper,
    deadlines: Deadlines,
}

impl Scripts {
    /// Makes the scripts on top of this helper.
    #[must_use]
    pub fn new(helper: Helper) -> Scripts {
        Scripts { helper, deadlines: Deadlines::default() }
    }

    pub(crate) fn service(&self) -> &Service {
        self.helper.service()
    }

    pub(crate) fn helper(&self) -> &Helper {
        &self.helper
    }

    /// Returns the execs whose time limit has passed.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Runs a script to its end. Repeats it if the container has its shell at another path.
    pub(crate) async fn run(
        &self,
        sandbox: &str,
        container: Option<&str>,
        script: &Script,
        limits: OutputLimits,
    ) -> Result<RunResult> {
        loop {
            // Boxed because of the recursion: a script ends a script whose time limit has passed.
            let result = Box::pin(self.attempt(sandbox, container, script, limits)).await?;
            if !matches!(result.verdict, Verdict::Exited(126 | 127))
                || !shell::find(&self.helper, sandbox, container).await
            {
                return Ok(result);
            }
        }
    }

    async fn attempt(
        &self,
        sandbox: &str,
        container: Option<&str>,
        script: &Script,
        limits: OutputLimits,
    ) -> Result<RunResult> {
        let service = self.service();
        let begun = service.now();
        id::check_sandbox(sandbox)?;
        let exec_id = service.new_uuid();
        let contents = environment().chain([(MARKER.to_string(), exec_id.clone())]).collect();
        let request = TaskExecStartRequest {
            exec_id: exec_id.clone(),
            container_id: container::id(&service.router, sandbox, container).await?,
            command_args: self.helper.places().placed(sandbox, container, shell::argv(script)),
            stdout_config: TaskExecStdoutConfig::Pipe.into(),
            stderr_config: TaskExecStderrConfig::Pipe.into(),
            timeout_secs: Some(time_limit(SCRIPT_MS)),
            secret_sources: vec![SecretSource { source: Some(Source::Env(StringMap { contents })) }],
            ..Default::default()
        };
        process::start(service, sandbox, request).await?;
        let exec = ExecRef {
            sandbox: sandbox.to_string(),
            exec: exec_id,
            deadline: Some(millis(begun) + SCRIPT_MS),
            container: container.map(str::to_string),
        };
        self.attend(&exec, begun, Bytes::new(), limits).await
    }

    /// Writes the input of an exec that was started at `begun`, collects its output and waits for its end.
    pub(crate) async fn attend(
        &self,
        exec: &ExecRef,
        begun: Duration,
        input: Bytes,
        limits: OutputLimits,
    ) -> Result<RunResult> {
        let (service, outputs) = (self.service(), self.helper.outputs());
        let exec_id = ids::wire_uuid(&exec.exec);
        let running = Running {
            begun,
            limits,
            stdout: outputs.take(exec, 0, 0),
            stderr: outputs.take(exec, 1, 0),
            verdict: self.wait_for_ever(exec),
            idle: input.is_empty(),
            input: stdin::feed(service, &exec.sandbox, &exec_id, input),
            kill: self.kill_when_due(exec),
            given_up: || self.given_up(exec),
        };
        exec::run(service.transport(), running).await
    }

    async fn wait_for_ever(&self, exec: &ExecRef) -> Result<Verdict> {
        loop {
            if let Some(verdict) = verdict::wait(self.service(), &self.deadlines, exec, WAIT_ATTEMPT).await? {
                return Ok(verdict);
            }
        }
    }

    /// Implements `signal` of the interface. Sends a signal (its Linux number, 1 to 64) to all processes of a command.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a signal that Linux does not have, `unsupported` for the entry point and for images
    /// without a shell, `conflict` if no process of the exec can be found; otherwise the error of the failed request.
    pub async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        check_ref(&exec)?;
        if !(1..=64).contains(&signal) {
            return Err(Error::invalid(format!("{signal} is not a signal: signals are 1 to 64.")));
        }
        if exec.exec == ids::MAIN {
            return Err(Error::unsupported(
                "exec.signal",
                "The entry-point command cannot be signalled: terminate the sandbox.",
            ));
        }
        self.send(&exec, signal, 0).await
    }

    /// Ends an exec with all its processes: SIGTERM, then SIGKILL to the remaining processes after `grace_tenths`
    /// tenths of a second.
    pub(crate) async fn end(&self, exec: &ExecRef, grace_tenths: u32) -> Result<()> {
        self.send(exec, 15, grace_tenths).await
    }

    async fn send(&self, exec: &ExecRef, signal: u32, grace_tenths: u32) -> Result<()> {
        let script = signal::signal(&ids::wire_uuid(&exec.exec), signal, grace_tenths);
        let absent = "No process of the exec could be found, because it has cleared its environment. Terminate the sandbox to end it.";
        self.on_processes(exec, &script, "exec.signal", "", absent).await
    }

    /// Runs a script on the processes of an exec. Looks several times, because an exec has none, and no terminal, right after
    /// its start. Succeeds if the exec has ended. `absent` is the text of the error if there is nothing to work on.
    async fn on_processes(
        &self,
        exec: &ExecRef,
        script: &Script,
        capability: &str,
        tools: &str,
        absent: &str,
    ) -> Result<()> {
        for look in 0..LOOKS {
            let result = self.about(exec, script).await?;
            match result.verdict {
                Verdict::Exited(0) | Verdict::SandboxEnded(_) => return Ok(()),
                // The exec has ended or never existed.
                Verdict::Exited(signal::NOT_FOUND) if self.has_ended(exec).await? => return Ok(()),
                Verdict::Exited(signal::NOT_FOUND) => self.service().transport().sleep(FIRST_PAUSE * (1 << look)).await,
                verdict => return Err(failed(capability, tools, &verdict, &result.stderr.data)),
            }
        }
        Err(Error::new(ErrorKind::Conflict, absent).about(&exec.exec))
    }

    /// Implements `resize` of the interface. Changes the size of the terminal of a command.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an empty size, `unsupported` for the entry point and for images without a shell or
    /// `stty`, `conflict` if the exec has no terminal; otherwise the error of the failed request.
    pub async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        check_ref(&exec)?;
        if size.rows == 0 || size.columns == 0 {
            return Err(Error::invalid("The terminal size is invalid: give at least one row and one column."));
        }
        if exec.exec == ids::MAIN {
            return Err(Error::unsupported("exec.resize", "The terminal of the entry-point command has a fixed size."));
        }
        let script = signal::resize(&ids::wire_uuid(&exec.exec), size.rows, size.columns);
        self.on_processes(&exec, &script, "exec.resize", " and stty", "The exec has no terminal: start it with `pty`.")
            .await
    }

    async fn has_ended(&self, exec: &ExecRef) -> Result<bool> {
        let exit =
            process::wait_exit(self.service(), &exec.sandbox, &ids::wire_uuid(&exec.exec), Duration::ZERO).await?;
        Ok(exit.is_some())
    }

    /// Runs a script that operates on an exec.
    async fn about(&self, exec: &ExecRef, script: &Script) -> Result<RunResult> {
        let limits = OutputLimits { stdout_max: 0, stderr_max: 4096, keep: Keep::Tail };
        self.run(&exec.sandbox, exec.container.as_deref(), script, limits).await
    }

    /// Kills an exec with all its processes when its time limit has passed. Never resolves without a time limit.
    async fn kill_when_due(&self, exec: &ExecRef) {
        let Some(deadline) = exec.deadline else { return std::future::pending().await };
        self.service().transport().sleep(Duration::from_millis(deadline).saturating_sub(self.service().now())).await;
        self.kill_once(exec, true).await;
    }

    /// Ends an exec whose time limit has passed; `alive` as for [`Scripts::kill_once`]. Returns `true` if it was ended
    /// before and is to be given up.
    pub(crate) async fn overdue(&self, exec: &ExecRef, alive: bool) -> bool {
        let known = self.deadlines.is_killed(exec);
        self.kill_once(exec, alive).await;
        known
    }

    /// Returns the verdict of an exec that still runs after it was ended, and tells the user.
    pub(crate) fn given_up(&self, exec: &ExecRef) -> Verdict {
        self.service().transport().tell(&format!(
            "the command {} was killed at its time limit and is not over: something in it cannot be killed, or the service \
             does not kill it; terminate the sandbox {}",
            exec.exec, exec.sandbox
        ));
        Verdict::Deadline
    }

    /// Ends the remaining processes of an exec once: SIGTERM, then SIGKILL after a grace period. In an image without a
    /// shell only Modal's own kill remains. `alive` says that the exec is known not to have ended before its limit.
    /// Otherwise this function asks, because a late check must not report a normal end as the verdict `deadline`.
    pub(crate) async fn kill_once(&self, exec: &ExecRef, alive: bool) {
        if self.deadlines.is_killed(exec) {
            return;
        }
        let service = self.service();
        let over = !alive && matches!(verdict::wait(service, &self.deadlines, exec, Duration::ZERO).await, Ok(Some(_)));
        self.deadlines.note(exec, service.now() + KILL_TIME, over);
        let _ = within(service.transport(), KILL_TIME, self.end(exec, GRACE_TENTHS)).await;
        self.deadlines.note(exec, service.now(), over);
    }
}

/// Returns the time limit that the service gets for a command with this limit, in seconds. `limit` is in milliseconds.
pub(crate) fn time_limit(limit: u64) -> u32 {
    whole_seconds(limit.saturating_add(millis(KILL_AFTER)))
}

fn failed(capability: &str, tools: &str, verdict: &Verdict, complaint: &[u8]) -> Error {
    if matches!(verdict, Verdict::Exited(126 | 127)) {
        return Error::unsupported(
            capability,
            format!("This operation runs a shell in the sandbox, but the image has no /bin/sh{tools}."),
        );
    }
    let text = clip(String::from_utf8_lossy(complaint).trim());
    let end = match verdict {
        Verdict::Exited(code) => format!("exit code {code}"),
        Verdict::Signaled(signal) => format!("signal {signal}"),
        Verdict::Deadline | Verdict::SandboxEnded(_) | Verdict::OutOfMemory | Verdict::Lost(_) | Verdict::Other(_) => {
            "it did not exit by itself".to_string()
        }
    };
    Error::internal(format!("The script inside the sandbox failed ({end}): {text}"))
}

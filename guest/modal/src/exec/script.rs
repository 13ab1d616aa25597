//! Scripts of ours in a sandbox, and what is done by them: signals to an exec and the size of its terminal, for Modal has calls
//! for neither (docs/modal-protocol.md, section 7.4), and the end of what has outlived its time limit.
//!
//! A script has a time limit itself, and one that outlives it is ended by a script: so all of it is in this file.

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
    exec::{self, Deadlines, Running, SWEEP_TIME},
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

/// Time for a script of our own, in milliseconds; they take some tenths of a second. What the sandbox has in the place of a
/// shell must not keep the caller for ever.
const SCRIPT_MS: u64 = 60_000;

/// How long a command whose time is up has to end after SIGTERM, in tenths of a second; then it is killed.
const GRACE_TENTHS: u32 = 50;

/// How much later than that the service is told to kill the program, where we can not. Modal rounds up to whole seconds and
/// kills the program only, which leaves its children, and callers that wait for the output that they hold.
const KILL_AFTER: Duration = Duration::from_secs(7);

/// How often an exec that has not ended is looked for. One that was just started, or is just becoming another program, has no
/// marker for a moment, which on a busy machine is seconds. With [`FIRST_PAUSE`] the looks take five seconds.
const LOOKS: u32 = 8;

/// Pause behind the first look; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Runs scripts of ours.
pub struct Scripts {
    helper: Helper,
    deadlines: Deadlines,
}

impl Scripts {
    /// With this helper.
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

    /// Execs that have outlived their time limit.
    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Runs a script to its end.
    pub(crate) async fn run(
        &self,
        sandbox: &str,
        container: Option<&str>,
        script: &Script,
        limits: OutputLimits,
    ) -> Result<RunResult> {
        loop {
            // Boxed: what has outlived its time limit is ended by a script.
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

    /// Feeds an exec that was started at `begun`, collects its output and waits for its end.
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
            sweep: self.sweep_when_due(exec),
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

    /// See `signal` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there; `unsupported` where the image lacks a shell.
    pub async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        check_ref(&exec)?;
        if !(1..=64).contains(&signal) {
            return Err(Error::invalid(format!("{signal} is not a signal: Linux has 1 to 64.")));
        }
        if exec.exec == ids::MAIN {
            return Err(Error::unsupported(
                "exec.signal",
                "The entry-point command cannot be signalled: terminate the sandbox.",
            ));
        }
        self.send(&exec, signal, 0).await
    }

    /// Ends an exec with all that it has started: by SIGTERM, and by SIGKILL what is left after a grace.
    pub(crate) async fn end(&self, exec: &ExecRef, grace_tenths: u32) -> Result<()> {
        self.send(exec, 15, grace_tenths).await
    }

    async fn send(&self, exec: &ExecRef, signal: u32, grace_tenths: u32) -> Result<()> {
        for look in 0..LOOKS {
            let script = signal::signal(&ids::wire_uuid(&exec.exec), signal, grace_tenths);
            let result = self.about(exec, &script).await?;
            match result.verdict {
                Verdict::Exited(0) | Verdict::SandboxEnded(_) => return Ok(()),
                // It has ended, or there never was one.
                Verdict::Exited(signal::NOT_FOUND) if self.has_ended(exec).await? => return Ok(()),
                Verdict::Exited(signal::NOT_FOUND) => self.service().transport().sleep(FIRST_PAUSE * (1 << look)).await,
                verdict => return Err(failed("exec.signal", "", &verdict, &result.stderr.data)),
            }
        }
        let text = format!(
            "No process of the exec {} can be found: it has cleared its environment. Terminating the sandbox ends it.",
            exec.exec
        );
        Err(Error::new(ErrorKind::Conflict, text).about(&exec.exec))
    }

    /// See `resize` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there; `unsupported` where the image lacks a shell or `stty`.
    pub async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        check_ref(&exec)?;
        if size.rows == 0 || size.columns == 0 {
            return Err(Error::invalid("A terminal has at least one row and one column."));
        }
        if exec.exec == ids::MAIN {
            return Err(Error::unsupported("exec.resize", "The terminal of the entry-point command has a fixed size."));
        }
        let script = signal::resize(&ids::wire_uuid(&exec.exec), size.rows, size.columns);
        let result = self.about(&exec, &script).await?;
        match result.verdict {
            Verdict::Exited(0) | Verdict::SandboxEnded(_) => Ok(()),
            Verdict::Exited(signal::NOT_FOUND) if self.has_ended(&exec).await? => Ok(()),
            Verdict::Exited(signal::NOT_FOUND) => {
                Err(Error::new(ErrorKind::Conflict, format!("The exec {} has no terminal.", exec.exec))
                    .about(&exec.exec))
            }
            verdict => Err(failed("exec.resize", " and stty", &verdict, &result.stderr.data)),
        }
    }

    async fn has_ended(&self, exec: &ExecRef) -> Result<bool> {
        let exit =
            process::wait_exit(self.service(), &exec.sandbox, &ids::wire_uuid(&exec.exec), Duration::ZERO).await?;
        Ok(exit.is_some())
    }

    /// Runs a script about an exec.
    async fn about(&self, exec: &ExecRef, script: &Script) -> Result<RunResult> {
        let limits = OutputLimits { stdout_max: 0, stderr_max: 4096, keep: Keep::Tail };
        self.run(&exec.sandbox, exec.container.as_deref(), script, limits).await
    }

    /// Ends an exec when its time is up, with all that it has started. Without a time limit, never.
    async fn sweep_when_due(&self, exec: &ExecRef) {
        let Some(deadline) = exec.deadline else { return std::future::pending().await };
        self.service().transport().sleep(Duration::from_millis(deadline).saturating_sub(self.service().now())).await;
        self.sweep(exec, true).await;
    }

    /// Ends an exec whose time is up; `alive` as for [`Scripts::sweep`]. True when that has been done before, and it is to
    /// be given up.
    pub(crate) async fn overdue(&self, exec: &ExecRef, alive: bool) -> bool {
        let known = self.deadlines.is_swept(exec);
        self.sweep(exec, alive).await;
        known
    }

    /// What became of an exec that goes on though its time is up, whatever was done about it.
    pub(crate) fn given_up(&self, exec: &ExecRef) -> Verdict {
        self.service().transport().tell(&format!(
            "the command {} was killed at its time limit and is not over: something in it cannot be killed, or the service \
             does not kill it; terminate the sandbox {}",
            exec.exec, exec.sandbox
        ));
        Verdict::Deadline
    }

    /// Ends whatever is left of an exec, once: by SIGTERM, and by SIGKILL what is left after a grace. An image without a
    /// shell has only Modal's own kill. `alive` if it is known not to have ended before its limit; else it is asked, for
    /// a late question must not take a good end for a deadline.
    pub(crate) async fn sweep(&self, exec: &ExecRef, alive: bool) {
        if self.deadlines.is_swept(exec) {
            return;
        }
        let service = self.service();
        let over = !alive && matches!(verdict::wait(service, &self.deadlines, exec, Duration::ZERO).await, Ok(Some(_)));
        self.deadlines.note(exec, service.now() + SWEEP_TIME, over);
        let _ = within(service.transport(), SWEEP_TIME, self.end(exec, GRACE_TENTHS)).await;
        self.deadlines.note(exec, service.now(), over);
    }
}

/// When the service is to kill a command that has this time limit, in whole seconds.
pub(crate) fn time_limit(limit: u64) -> u32 {
    whole_seconds(limit.saturating_add(millis(KILL_AFTER)))
}

fn failed(capability: &str, tools: &str, verdict: &Verdict, complaint: &[u8]) -> Error {
    if matches!(verdict, Verdict::Exited(126 | 127)) {
        return Error::unsupported(
            capability,
            format!("This is done by a shell inside the sandbox, and the image has no /bin/sh{tools}."),
        );
    }
    let text = clip(String::from_utf8_lossy(complaint).trim());
    let end = match verdict {
        Verdict::Exited(code) => format!("exit code {code}"),
        Verdict::Signaled(signal) => format!("signal {signal}"),
        Verdict::Deadline | Verdict::SandboxEnded(_) | Verdict::Lost(_) => "it did not end by itself".to_string(),
    };
    Error::internal(format!("The script inside the sandbox failed ({end}): {text}"))
}

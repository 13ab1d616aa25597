//! The commands of callers, with the functions of the interface: start, output, input and end, in single steps or in
//! one call.

use std::{rc::Rc, time::Duration};

use sandbox_provider_kit::{
    Result,
    api::{
        check, ids,
        time::{bounded_wait, millis},
        wit::{ExecRef, ExecSpec, InputState, Output, OutputChunk, OutputLimits, ReadRequest, RunResult, Verdict},
    },
    exec::{fill, share},
};

use super::{
    output::Outputs,
    process::{self, check_ref},
    script::Scripts,
    start, stdin,
    user::Users,
    verdict,
};
use crate::service::{Service, ended};

/// The commands of callers.
pub struct Commands {
    scripts: Rc<Scripts>,
    users: Users,
}

impl Commands {
    /// Makes the commands on top of these scripts.
    #[must_use]
    pub fn new(scripts: Rc<Scripts>) -> Commands {
        Commands { scripts, users: Users::default() }
    }

    fn service(&self) -> &Service {
        self.scripts.service()
    }

    fn outputs(&self) -> &Outputs {
        self.scripts.helper().outputs()
    }

    /// Implements `start` of the interface. Starts a command and returns when it has started.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for a specification that cannot be started, `not-found` for an unknown secret or user,
    /// `unsupported` if the image cannot switch to the user, `sandbox-ended` if the sandbox has ended; otherwise the
    /// error of the failed request.
    pub async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        let request = start::request(&self.scripts, &self.users, sandbox, spec).await?;
        process::start(self.service(), sandbox, request).await
    }

    /// Implements `read-output` of the interface. Returns output of both streams from the offsets of `request`, and the
    /// verdict.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid id or `max-bytes` 0, `not-found` for an unknown sandbox or exec; otherwise the
    /// error of the failed request.
    pub async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        check_ref(&exec)?;
        let max = check::max_bytes(request.max_bytes)?;
        let deadline = self.service().now() + bounded_wait(request.wait);
        let mut stdout = self.outputs().take(&exec, 0, request.stdout_offset);
        let mut stderr = self.outputs().take(&exec, 1, request.stderr_offset);

        // A command that runs longer than its time limit is ended here, because its output might otherwise never end.
        let due = self.scripts.deadlines().due_at(&exec).filter(|due| *due <= deadline);
        let timer = self.service().transport().sleep(due.unwrap_or(deadline).saturating_sub(self.service().now()));
        let filled = fill(&mut stdout, &mut stderr, max, timer).await;
        let timed_out = matches!(filled, Ok(true));
        let given_up = timed_out && due.is_some() && self.scripts.overdue(&exec, false).await;
        if given_up || filled.is_err() {
            let verdict = match filled {
                Err(error) => verdict::fate(self.service(), &exec, error).await?,
                Ok(_) => self.scripts.given_up(&exec),
            };
            return Ok(Output {
                stdout: OutputChunk { offset: stdout.offset(), data: Vec::new(), end: true },
                stderr: OutputChunk { offset: stderr.offset(), data: Vec::new(), end: true },
                verdict: Some(verdict),
            });
        }

        let (stdout_chunk, stderr_chunk) = share(&mut stdout, &mut stderr, max);
        let verdict =
            if stdout_chunk.end && stderr_chunk.end && stdout_chunk.data.is_empty() && stderr_chunk.data.is_empty() {
                let left = deadline.saturating_sub(self.service().now());
                self.wait_verdict(&exec, left).await?
            } else {
                None
            };
        if verdict.is_none() {
            self.outputs().keep(&exec, 0, stdout);
            self.outputs().keep(&exec, 1, stderr);
        }
        Ok(Output { stdout: stdout_chunk, stderr: stderr_chunk, verdict })
    }

    /// Implements `wait-exec` of the interface. Waits up to `wait` milliseconds for the end of a command.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox or exec; otherwise the error of the
    /// failed request.
    pub async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        check_ref(&exec)?;
        self.wait_verdict(&exec, bounded_wait(wait)).await
    }

    pub(crate) async fn wait_verdict(&self, exec: &ExecRef, wait: Duration) -> Result<Option<Verdict>> {
        if exec.exec == ids::MAIN {
            return Ok(ended::wait(&self.service().control, &exec.sandbox, wait).await?.map(verdict::main_verdict));
        }
        let until = self.service().now() + wait;
        let verdict = loop {
            let due = self.scripts.deadlines().due_at(exec).filter(|due| *due <= until);
            let early = due.is_some_and(|due| due > self.service().now());
            let verdict = verdict::wait(
                self.service(),
                self.scripts.deadlines(),
                exec,
                due.unwrap_or(until).saturating_sub(self.service().now()),
            )
            .await?;
            if verdict.is_some() || due.is_none() {
                break verdict;
            }
            if self.scripts.overdue(exec, early).await {
                break Some(self.scripts.given_up(exec));
            }
        };
        // Modal kills only the program and not the processes that it started.
        if matches!(verdict, Some(Verdict::Deadline)) {
            self.scripts.kill_once(exec, true).await;
        }
        Ok(verdict)
    }

    /// Implements `write-input` of the interface. Writes `data` to standard input at the byte `offset`, and closes the
    /// input after it if `eof` is set.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for more than 16 MiB or a gap before `offset`, `unsupported` for the entry point on the V1
    /// backend, `sandbox-ended` if the sandbox has ended; otherwise the error of the failed request.
    pub async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        stdin::write_input(self.service(), exec, offset, data, eof).await
    }

    /// Implements `run` of the interface. Starts a command, writes `stdin` to it, collects its output and waits for its
    /// end.
    ///
    /// # Errors
    ///
    /// The errors of [`Commands::start`]; after the start, those of the output, the input and the end.
    pub async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        let begun = self.service().now();
        let deadline = spec.timeout.map(|timeout| millis(begun).saturating_add(timeout));
        let exec = ExecRef {
            sandbox: sandbox.to_string(),
            exec: spec.id.clone(),
            deadline,
            container: spec.container.clone(),
        };
        self.start(sandbox, spec).await?;
        self.scripts.attend(&exec, begun, stdin.into(), limits).await
    }
}

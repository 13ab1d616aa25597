//! Execs: start, output, input and end (fact sheet, section 7).

use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::Bytes;
use modal_proto::{
    client::{PtyInfo, SecretSource, StringMap, pty_info::PtyType, secret_source::Source},
    rpc,
    task_command_router::{
        SandboxStdinWriteV2Request, TaskExecPollRequest, TaskExecStartRequest, TaskExecStderrConfig,
        TaskExecStdinStatusRequest, TaskExecStdinWriteRequest, TaskExecStdinWriteStreamEnd,
        TaskExecStdinWriteStreamRequest, TaskExecStdinWriteStreamStart, TaskExecStdoutConfig, TaskExecWaitRequest,
        task_exec_poll_response::ExitStatus as PollStatus, task_exec_stdin_write_stream_request::Payload,
        task_exec_wait_response::ExitStatus as WaitStatus,
    },
};

use crate::{
    exec::{argv, output::Follow, run::KILL_AFTER, signal::MARKER},
    provider::Provider,
    service::{id, policy},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check, ids,
        time::{bounded_wait, millis, whole_seconds},
        wit::{
            EndReason, ErrorKind, ExecRef, ExecSpec, InputState, Output, OutputChunk, OutputMode, Pty, ReadRequest,
            Verdict,
        },
    },
    call::{
        Failure as _,
        grpc::{Code, Framed, Status, Wire},
        retry::{Policy, not_yet},
    },
    platform::within,
};

/// Largest write to stdin in one call: the largest message that the official client sends (fact sheet, section 6.4).
const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;

/// Bytes in one message of a stream to stdin, as the official clients send (fact sheet, section 8.1); what is not more goes
/// in a single message.
const STREAM_PIECE: usize = 256 * 1024;

/// Bytes in a single message behind a stream that failed: little, for a slow connection may be why.
const SINGLE_PIECE: usize = 1024 * 1024;

/// How long one write to stdin may wait for the program to read, before the caller is told how far it got.
const INPUT_ATTEMPT: Duration = Duration::from_secs(60);

/// Time for one TaskExecWait, after which it is asked again (fact sheet, section 1.5).
pub(crate) const WAIT_ATTEMPT: Duration = Duration::from_secs(60);

/// Time for a script of our own, in milliseconds; they take some tenths of a second.
const SCRIPT_MS: u64 = 60_000;

/// Longest time for a look whether an exec has ended that is not meant to wait.
const POLL_ATTEMPT: Duration = Duration::from_secs(15);

impl Provider {
    /// See `start` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        let request = self.start_request(sandbox, spec).await?;
        self.start_exec(sandbox, request).await
    }

    pub(crate) async fn start_exec(&self, sandbox: &str, request: TaskExecStartRequest) -> Result<()> {
        let result = self
            .router(sandbox, &policy::ROUTER, rpc::TASK_EXEC_START, |task_id| TaskExecStartRequest {
                task_id,
                ..request.clone()
            })
            .await?;
        match result {
            Ok(_) => Ok(()),
            Err(status) => Err(self.explain(sandbox, &status, "start the command").await),
        }
    }

    pub(crate) async fn start_request(&self, sandbox: &str, spec: ExecSpec) -> Result<TaskExecStartRequest> {
        id::check_sandbox(sandbox)?;
        check::exec_spec(&spec)?;
        let exec_id = ids::wire_uuid(&spec.id);
        let container = spec.container.as_deref();
        let container_id = self.container_id(sandbox, container).await?;
        let mut sources: Vec<SecretSource> = self
            .secret_ids(&spec.secrets)
            .await?
            .into_iter()
            .map(|id| SecretSource { source: Some(Source::SecretId(id)) })
            .collect();
        let switch = match &spec.user {
            Some(user) => Some(self.switch(sandbox, container, user).await?),
            None => None,
        };
        let mut env: std::collections::HashMap<_, _> =
            switch.iter().flat_map(crate::exec::user::Switch::environment).chain(spec.env).collect();
        let (mut argv, mut workdir) = (spec.argv, spec.cwd);
        let relative = workdir.take_if(|cwd| !cwd.starts_with('/'));
        if relative.is_some() || argv::is_long(&argv) || switch.as_ref().is_some_and(|switch| switch.needs_shell(&env))
        {
            argv = argv::past_a_shell(&env, argv);
        }
        if let Some(cwd) = relative {
            argv = argv::in_directory(&cwd, argv);
        }
        if let Some(switch) = &switch {
            argv = switch.wrap(argv, &mut env);
        }
        env.insert(MARKER.to_string(), exec_id.clone());
        sources.push(SecretSource { source: Some(Source::Env(StringMap { contents: env })) });
        let argv = self.bootstrap(sandbox, container, &exec_id, argv).await?;
        Ok(TaskExecStartRequest {
            exec_id,
            container_id,
            command_args: argv,
            stdout_config: match spec.stdout {
                OutputMode::Keep => TaskExecStdoutConfig::Pipe,
                OutputMode::Discard => TaskExecStdoutConfig::Devnull,
            }
            .into(),
            stderr_config: match spec.stderr {
                _ if spec.merge_stderr => TaskExecStderrConfig::Stdout,
                OutputMode::Keep => TaskExecStderrConfig::Pipe,
                OutputMode::Discard => TaskExecStderrConfig::Devnull,
            }
            .into(),
            timeout_secs: spec.timeout.map(|time| whole_seconds(time.saturating_add(millis(KILL_AFTER)))),
            workdir,
            pty_info: spec.pty.map(pty_info),
            secret_sources: sources,
            ..Default::default()
        })
    }

    /// See `read-output` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        check_ref(&exec)?;
        let max = check::max_bytes(request.max_bytes)?;
        let deadline = self.now() + bounded_wait(request.wait);
        let mut stdout = self.take_follow(&exec, 0, request.stdout_offset);
        let mut stderr = self.take_follow(&exec, 1, request.stderr_offset);

        // What outlives its time limit is ended, or its output might never be.
        let due = self.overdue_at(&exec).filter(|due| *due <= deadline);
        let mut timer = self.transport().sleep(due.unwrap_or(deadline).saturating_sub(self.now()));
        let mut timed_out = false;
        let result = poll_fn(|cx| {
            let first = stdout.poll_fill(cx, max);
            let second = stderr.poll_fill(cx, max);
            if stdout.has_data() || stderr.has_data() {
                return Poll::Ready(Ok(()));
            }
            match (first, second) {
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                _ => timer.as_mut().poll(cx).map(|()| {
                    timed_out = true;
                    Ok(())
                }),
            }
        })
        .await;
        let given_up = timed_out && due.is_some() && self.overdue(&exec, false).await;
        if given_up || result.is_err() {
            let verdict = match result {
                Err(error) => self.fate(&exec, error).await?,
                Ok(()) => self.given_up(&exec),
            };
            return Ok(Output {
                stdout: OutputChunk { offset: stdout.offset(), data: Vec::new(), end: true },
                stderr: OutputChunk { offset: stderr.offset(), data: Vec::new(), end: true },
                verdict: Some(verdict),
            });
        }

        // When both have more than fits, each gets half.
        let share = stderr.available().min(max / 2);
        let stdout_chunk = chunk(&mut stdout, max - share);
        let stderr_chunk = chunk(&mut stderr, max - stdout_chunk.data.len());
        let verdict =
            if stdout_chunk.end && stderr_chunk.end && stdout_chunk.data.is_empty() && stderr_chunk.data.is_empty() {
                let left = deadline.saturating_sub(self.now());
                self.wait_verdict(&exec, left).await?
            } else {
                None
            };
        if verdict.is_none() {
            self.keep_follow(&exec, 0, stdout);
            self.keep_follow(&exec, 1, stderr);
        }
        Ok(Output { stdout: stdout_chunk, stderr: stderr_chunk, verdict })
    }

    /// The open stream that ends at `offset`, or a new one.
    pub(crate) fn take_follow(&self, exec: &ExecRef, descriptor: i32, offset: u64) -> Follow {
        let key = (exec.sandbox.clone(), exec.exec.clone(), descriptor);
        let kept = self.inner.state.borrow_mut().follows.remove(&key);
        kept.filter(|follow| follow.offset() == offset)
            .unwrap_or_else(|| Follow::new(self, &exec.sandbox, &exec.exec, descriptor, offset))
    }

    pub(crate) fn keep_follow(&self, exec: &ExecRef, descriptor: i32, follow: Follow) {
        let key = (exec.sandbox.clone(), exec.exec.clone(), descriptor);
        self.inner.state.borrow_mut().follows.insert(key, follow);
    }

    /// See `wait-exec` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        check_ref(&exec)?;
        self.wait_verdict(&exec, bounded_wait(wait)).await
    }

    pub(crate) async fn wait_verdict(&self, exec: &ExecRef, wait: Duration) -> Result<Option<Verdict>> {
        if exec.exec == ids::MAIN {
            return Ok(self.wait_end(&exec.sandbox, wait).await?.map(main_verdict));
        }
        let until = self.now() + wait;
        let verdict = loop {
            let due = self.overdue_at(exec).filter(|due| *due <= until);
            let early = due.is_some_and(|due| due > self.now());
            let verdict = self.exit_verdict(exec, due.unwrap_or(until).saturating_sub(self.now())).await?;
            if verdict.is_some() || due.is_none() {
                break verdict;
            }
            if self.overdue(exec, early).await {
                break Some(self.given_up(exec));
            }
        };
        // Modal has killed the program, and not what it has started.
        if matches!(verdict, Some(Verdict::Deadline)) {
            self.sweep(exec, true).await;
        }
        Ok(verdict)
    }

    pub(crate) async fn exit_verdict(&self, exec: &ExecRef, wait: Duration) -> Result<Option<Verdict>> {
        match self.wait_exit(&exec.sandbox, &ids::wire_uuid(&exec.exec), wait).await {
            Ok(exit) => Ok(exit.map(|exit| self.verdict(exit, exec))),
            Err(error) => self.fate(exec, error).await.map(Some),
        }
    }

    /// Waits for the exit of an exec, asking again each minute.
    pub(crate) async fn wait_exit(&self, sandbox: &str, exec_id: &str, wait: Duration) -> Result<Option<Exit>> {
        let transport = self.transport();
        let deadline = self.now() + wait;
        let mut failures = 0;
        loop {
            let left = deadline.saturating_sub(self.now());
            if left.is_zero() && !wait.is_zero() {
                return Ok(None);
            }
            let (asked, limit) = (self.now(), left.min(WAIT_ATTEMPT));
            // Our own clock bounds the whole attempt: a router that is still coming up is tried for longer than that.
            let attempt = if wait.is_zero() {
                within(transport, POLL_ATTEMPT, self.poll_exit(sandbox, exec_id)).await
            } else {
                within(transport, limit, self.await_exit(sandbox, exec_id, limit)).await
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
                // The server's echo of our deadline.
                Code::DeadlineExceeded if !wait.is_zero() => not_yet(transport, asked, limit).await,
                _ if status.is_retryable() && failures < policy::ROUTER.limit(&status) && !wait.is_zero() => {
                    transport.sleep(policy::ROUTER.pause(failures, &**transport).min(left)).await;
                    failures += 1;
                }
                _ => return Err(self.explain(sandbox, &status, "wait for the command").await),
            }
        }
    }

    async fn poll_exit(&self, sandbox: &str, exec_id: &str) -> Result<Result<Option<Exit>, Status>> {
        let make = |task_id: String| TaskExecPollRequest { task_id, exec_id: exec_id.to_string() };
        let answer = self.router(sandbox, &policy::ROUTER, rpc::TASK_EXEC_POLL, make).await?;
        Ok(answer.map(|answer| answer.exit_status.map(Exit::from)))
    }

    async fn await_exit(&self, sandbox: &str, exec_id: &str, limit: Duration) -> Result<Result<Option<Exit>, Status>> {
        let policy = Policy { retries: 0, attempt: Some(limit), ..policy::ROUTER };
        let make = |task_id: String| TaskExecWaitRequest { task_id, exec_id: exec_id.to_string() };
        let answer = self.router(sandbox, &policy, rpc::TASK_EXEC_WAIT, make).await?;
        Ok(answer.map(|answer| answer.exit_status.map(Exit::from)))
    }

    /// What became of an exec whose sandbox gave this error.
    async fn fate(&self, exec: &ExecRef, error: Error) -> Result<Verdict> {
        if matches!(error.kind, ErrorKind::SandboxEnded)
            && let Some(reason) = self.poll_end(&exec.sandbox).await?
        {
            return Ok(if exec.exec == ids::MAIN { main_verdict(reason) } else { Verdict::SandboxEnded(reason) });
        }
        Err(error)
    }

    /// An exec that was ended because its time was up does not say so (fact sheet, section 7.4): neither Modal's SIGKILL nor
    /// the SIGTERM of this or another instance. Such an end at or after the deadline is the deadline's, and so is any end
    /// of an exec that this instance has ended.
    fn verdict(&self, exit: Exit, exec: &ExecRef) -> Verdict {
        let overdue = exec.deadline.is_some_and(|deadline| millis(self.now()) >= deadline);
        match exit {
            _ if self.was_ended(exec) => Verdict::Deadline,
            Exit::Signal(9 | 15) | Exit::Code(137 | 143) if overdue => Verdict::Deadline,
            Exit::Code(code) => Verdict::Exited(code),
            Exit::Signal(signal) => Verdict::Signaled(signal.unsigned_abs()),
        }
    }

    /// See `write-input` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        check_ref(&exec)?;
        if data.len() > MAX_INPUT_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are too many for one write to stdin: send at most {MAX_INPUT_BYTES} at a time.",
                data.len()
            )));
        }
        if exec.exec == ids::MAIN {
            return self.write_main_input(&exec.sandbox, offset, data, eof).await;
        }
        let exec_id = ids::wire_uuid(&exec.exec);
        if data.is_empty() && !eof {
            return self.input_state(&exec.sandbox, &exec_id).await;
        }
        let write = self.write_stdin(&exec.sandbox, &exec_id, offset, data.into(), eof);
        match within(self.transport(), INPUT_ATTEMPT, write).await {
            Some(written) => written,
            // The program does not read. What went in before it stopped counts.
            None => self.input_state(&exec.sandbox, &exec_id).await,
        }
    }

    /// As [`Provider::write_stdin`], and faster for much: the other side takes the first bytes in while the last ones are
    /// on their way. A stream is tried once; when it fails, a single message goes on where it came to, with its retries.
    pub(crate) async fn write_much_stdin(
        &self,
        sandbox: &str,
        exec_id: &str,
        offset: u64,
        data: Bytes,
        eof: bool,
    ) -> Result<InputState> {
        let end = offset + data.len() as u64;
        // gRPC-Web has no streams of requests.
        if data.len() <= STREAM_PIECE || self.channel().wire == Wire::GrpcWeb {
            return self.write_stdin(sandbox, exec_id, offset, data, eof).await;
        }
        let stream = self.stream_stdin(sandbox, exec_id, offset, data.clone(), eof);
        if let Some(Ok(())) = within(self.transport(), INPUT_ATTEMPT, stream).await.transpose()? {
            return Ok(InputState { accepted: end, closed: eof });
        }
        // This also ends a stream that the other side takes for alive (fact sheet, section 7.4).
        let state = self.input_state(sandbox, exec_id).await?;
        let rest = data.slice((state.accepted.clamp(offset, end) - offset) as usize..);
        let offset = end - rest.len() as u64;
        if rest.is_empty() && !eof {
            return Ok(InputState { accepted: end, ..state });
        }
        let piece = rest.slice(..rest.len().min(SINGLE_PIECE));
        let last = eof && piece.len() == rest.len();
        self.write_stdin(sandbox, exec_id, offset, piece, last).await
    }

    async fn stream_stdin(
        &self,
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
        let answer = self.router_upload(sandbox, rpc, |task_id| message(start(task_id)), more).await?;
        Ok(answer.map(drop))
    }

    pub(crate) async fn write_stdin(
        &self,
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
        let result = self.router(sandbox, &policy::ROUTER, rpc::TASK_EXEC_STDIN_WRITE, make).await?;
        let status = match result {
            Ok(_) => return Ok(InputState { accepted: end, closed: eof }),
            Err(status) => status,
        };
        if matches!(status.code(), Code::FailedPrecondition | Code::Aborted | Code::OutOfRange | Code::InvalidArgument)
        {
            // The program has ended, or the offset does not fit, or the program has closed its end.
            if self.wait_exit(sandbox, exec_id, Duration::ZERO).await?.is_some() {
                return Ok(InputState { accepted: offset, closed: true });
            }
            let state = self.input_state(sandbox, exec_id).await?;
            if offset > state.accepted && !state.closed {
                return Err(Error::invalid(format!(
                    "Bytes at offset {offset} were offered to stdin, but only {} have arrived: send from there.",
                    state.accepted
                )));
            }
            let refused = status.code() == Code::FailedPrecondition && state.accepted == offset;
            if refused || state.closed || state.accepted != offset {
                return Ok(InputState { closed: state.closed || refused, ..state });
            }
        }
        Err(self.explain(sandbox, &status, "write to the command's stdin").await)
    }

    async fn input_state(&self, sandbox: &str, exec_id: &str) -> Result<InputState> {
        let make = |task_id: String| TaskExecStdinStatusRequest { task_id, exec_id: exec_id.to_string() };
        let result = self.router(sandbox, &policy::ROUTER, rpc::TASK_EXEC_STDIN_STATUS, make).await?;
        match result {
            Ok(answer) => Ok(InputState { accepted: answer.num_bytes_written, closed: answer.closed }),
            Err(status) => Err(self.explain(sandbox, &status, "look at the command's stdin").await),
        }
    }

    async fn write_main_input(&self, sandbox: &str, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        if id::is_v1(sandbox) {
            return Err(Error::unsupported(
                "main.input",
                "Input of the entry-point command needs a sandbox on Modal's V2 backend.",
            ));
        }
        let end = offset + data.len() as u64;
        let data = bytes::Bytes::from(data);
        let make = |task_id: String| SandboxStdinWriteV2Request { task_id, offset, data: data.clone(), eof };
        let result = self.router(sandbox, &policy::ROUTER, rpc::SANDBOX_STDIN_WRITE_V2, make).await?;
        match result {
            Ok(_) => Ok(InputState { accepted: end, closed: eof }),
            Err(status) => Err(self.explain(sandbox, &status, "write to the entry-point command's stdin").await),
        }
    }
}

/// How an exec ended, as the router says it.
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

fn main_verdict(reason: EndReason) -> Verdict {
    match reason {
        EndReason::Finished(code) => Verdict::Exited(code),
        other => Verdict::SandboxEnded(other),
    }
}

/// An exec of a script of our own. What the sandbox has in the place of a shell must not keep the caller for ever.
pub(crate) fn plain_spec(id: String) -> ExecSpec {
    ExecSpec {
        id,
        argv: Vec::new(),
        env: Vec::new(),
        secrets: Vec::new(),
        cwd: None,
        user: None,
        timeout: Some(SCRIPT_MS),
        pty: None,
        stdout: OutputMode::Keep,
        stderr: OutputMode::Keep,
        merge_stderr: false,
        container: None,
        extra: Vec::new(),
    }
}

pub(crate) fn check_ref(exec: &ExecRef) -> Result<()> {
    id::check_sandbox(&exec.sandbox)?;
    ids::check_chosen("an exec id", &exec.exec)
}

pub(crate) fn pty_info(pty: Pty) -> PtyInfo {
    PtyInfo {
        enabled: true,
        winsz_rows: pty.rows.into(),
        winsz_cols: pty.columns.into(),
        env_term: pty.term,
        pty_type: PtyType::Shell.into(),
        no_terminate_on_idle_stdin: true,
        ..Default::default()
    }
}

fn chunk(follow: &mut Follow, max: usize) -> OutputChunk {
    let data = follow.take(max);
    OutputChunk { offset: follow.offset() - data.len() as u64, data, end: follow.is_ended() }
}

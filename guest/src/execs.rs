//! Execs: start, output, input, end, signals, and `run`, which is all of them in one call (fact sheet, section 7).

use std::{future::poll_fn, task::Poll, time::Duration};

use futures_util::future::join4;
use modal_proto::{
    client::{PtyInfo, SecretSource, StringMap, pty_info::PtyType, secret_source::Source},
    rpc,
    task_command_router::{
        SandboxStdinWriteV2Request, TaskExecPollRequest, TaskExecStartRequest, TaskExecStderrConfig,
        TaskExecStdinStatusRequest, TaskExecStdinWriteRequest, TaskExecStdoutConfig, TaskExecWaitRequest,
        task_exec_poll_response::ExitStatus as PollStatus, task_exec_wait_response::ExitStatus as WaitStatus,
    },
};
use tonic::{Code, Status};

use crate::{
    bindings::{
        Captured, EndReason, ErrorKind, ExecRef, ExecSpec, Happened, InputState, Keep, Output, OutputChunk,
        OutputLimits, OutputMode, Pty, ReadRequest, RunResult, Verdict,
    },
    error::{Error, Result},
    follow::Follow,
    ids,
    provider::Provider,
    retry,
    transport::within,
};

/// Longest wait that one call makes, in milliseconds; the interface documents it.
const MAX_WAIT_MS: u64 = 600_000;

/// Largest reply that one call gives, in bytes; the interface documents it.
const MAX_REPLY_BYTES: u32 = 64 * 1024 * 1024;

/// Largest write to stdin in one call: the largest message that the official client sends (fact sheet, section 6.4).
const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;

/// Piece of stdin that `run` sends at a time.
const INPUT_PIECE: usize = 4 * 1024 * 1024;

/// Time for one TaskExecWait, after which it is asked again (fact sheet, section 1.5).
const WAIT_ATTEMPT: Duration = Duration::from_secs(60);

/// Longest time for a look whether an exec has ended that is not meant to wait.
const POLL_ATTEMPT: Duration = Duration::from_secs(15);

/// Longest argv, in bytes (fact sheet, section 7.4).
const MAX_ARGV_BYTES: usize = 65_536;

/// Set in each exec's environment, and so inherited by its whole process tree: how [`Provider::signal`] finds it.
const MARKER: &str = "SANDBOX_EXEC_ID";

/// Sends signal `$2` to every process whose environment carries marker `$1`. SIGKILL is repeated until nobody is left,
/// so that a tree that forks while it is being killed does not get away.
const SIGNAL_SCRIPT: &str = r#"
while :; do
  found=
  for environ in /proc/[0-9]*/environ; do
    pid=${environ#/proc/}; pid=${pid%/environ}
    [ "$pid" = 1 ] && continue
    if tr '\0' '\n' <"$environ" 2>/dev/null | grep -q "^SANDBOX_EXEC_ID=$1\$"; then
      kill -"$2" "$pid" 2>/dev/null && found=1
    fi
  done
  [ "$2" = 9 ] && [ -n "$found" ] || break
done
"#;

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
            .router(sandbox, &retry::ROUTER, rpc::TASK_EXEC_START, |task_id| TaskExecStartRequest {
                task_id,
                ..request.clone()
            })
            .await?;
        match result {
            Ok(_) => Ok(()),
            Err(status) => Err(self.explain(sandbox, &status, "start the command").await),
        }
    }

    async fn start_request(&self, sandbox: &str, spec: ExecSpec) -> Result<TaskExecStartRequest> {
        ids::check_sandbox(sandbox)?;
        check_spec(&spec)?;
        let exec_id = ids::wire_uuid(&spec.id);
        let mut sources: Vec<SecretSource> = self
            .secret_ids(&spec.secrets)
            .await?
            .into_iter()
            .map(|id| SecretSource { source: Some(Source::SecretId(id)) })
            .collect();
        let switch = match &spec.user {
            Some(user) => Some(self.switch(sandbox, user).await?),
            None => None,
        };
        let mut env: std::collections::HashMap<_, _> =
            switch.iter().flat_map(crate::user::Switch::environment).chain(spec.env).collect();
        env.insert(MARKER.to_string(), exec_id.clone());
        sources.push(SecretSource { source: Some(Source::Env(StringMap { contents: env })) });

        let mut argv = match &switch {
            Some(switch) => switch.wrap(spec.argv),
            None => spec.argv,
        };
        let workdir = match spec.cwd {
            // Modal takes absolute paths only: a relative one is resolved by the shell, from where it was started.
            Some(cwd) if !cwd.starts_with('/') => {
                let mut shell: Vec<String> =
                    ["/bin/sh", "-c", r#"cd -- "$1" && shift && exec "$@""#, "sh", &cwd].map(str::to_string).into();
                shell.append(&mut argv);
                argv = shell;
                None
            }
            other => other,
        };
        Ok(TaskExecStartRequest {
            exec_id,
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
            timeout_secs: spec.timeout.map(whole_seconds),
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
        let max = check_max(request.max_bytes)?;
        let deadline = self.now() + bounded_wait(request.wait);
        let mut stdout = self.take_follow(&exec, 0, request.stdout_offset);
        let mut stderr = self.take_follow(&exec, 1, request.stderr_offset);

        let mut timer = self.inner.transport.sleep(bounded_wait(request.wait));
        let result = poll_fn(|cx| {
            let first = stdout.poll_fill(cx, max);
            let second = stderr.poll_fill(cx, max);
            if stdout.has_data() || stderr.has_data() {
                return Poll::Ready(Ok(()));
            }
            match (first, second) {
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                _ => timer.as_mut().poll(cx).map(Ok),
            }
        })
        .await;
        if let Err(error) = result {
            let verdict = self.fate(&exec, error).await?;
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

    async fn wait_verdict(&self, exec: &ExecRef, wait: Duration) -> Result<Option<Verdict>> {
        if exec.exec == ids::MAIN {
            return Ok(self.wait_end(&exec.sandbox, wait).await?.map(main_verdict));
        }
        match self.wait_exit(&exec.sandbox, &ids::wire_uuid(&exec.exec), wait).await {
            Ok(Some(exit)) => Ok(Some(self.verdict(exit, exec.deadline))),
            Ok(None) => Ok(None),
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
            // Our own clock bounds the whole attempt: a router that is still coming up is tried for longer than that.
            let attempt = if wait.is_zero() {
                within(transport, POLL_ATTEMPT, self.poll_exit(sandbox, exec_id)).await
            } else {
                let limit = left.min(WAIT_ATTEMPT);
                within(transport, limit, self.await_exit(sandbox, exec_id, limit)).await
            };
            let status = match attempt.transpose()? {
                Some(Ok(Some(exit))) => return Ok(Some(exit)),
                None | Some(Ok(None)) if wait.is_zero() => return Ok(None),
                None | Some(Ok(None)) => continue,
                Some(Err(status)) => status,
            };
            match status.code() {
                // The server's echo of our deadline.
                Code::DeadlineExceeded if !wait.is_zero() => {}
                _ if retry::is_retryable(&status) && failures < retry::ROUTER.limit(&status) && !wait.is_zero() => {
                    transport.sleep(retry::ROUTER.pause(failures, &**transport).min(left)).await;
                    failures += 1;
                }
                _ => return Err(self.explain(sandbox, &status, "wait for the command").await),
            }
        }
    }

    async fn poll_exit(&self, sandbox: &str, exec_id: &str) -> Result<Result<Option<Exit>, Status>> {
        let make = |task_id: String| TaskExecPollRequest { task_id, exec_id: exec_id.to_string() };
        let answer = self.router(sandbox, &retry::ROUTER, rpc::TASK_EXEC_POLL, make).await?;
        Ok(answer.map(|answer| answer.exit_status.map(Exit::from)))
    }

    async fn await_exit(&self, sandbox: &str, exec_id: &str, limit: Duration) -> Result<Result<Option<Exit>, Status>> {
        let policy = retry::Policy { retries: 0, attempt: Some(limit), ..retry::ROUTER };
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

    /// Modal kills with SIGKILL when the time is up and does not say why (fact sheet, section 7.4): such an end at or
    /// after the deadline is the deadline's. Our clock started before Modal's, so none of its kills comes too early.
    fn verdict(&self, exit: Exit, deadline: Option<u64>) -> Verdict {
        let now = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        let overdue = deadline.is_some_and(|deadline| now >= deadline);
        match exit {
            Exit::Signal(9) | Exit::Code(137) if overdue => Verdict::Deadline,
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
        self.write_stdin(&exec.sandbox, &exec_id, offset, data.into(), eof).await
    }

    pub(crate) async fn write_stdin(
        &self,
        sandbox: &str,
        exec_id: &str,
        offset: u64,
        data: bytes::Bytes,
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
        let result = self.router(sandbox, &retry::ROUTER, rpc::TASK_EXEC_STDIN_WRITE, make).await?;
        let status = match result {
            Ok(_) => return Ok(InputState { accepted: end, closed: eof }),
            Err(status) => status,
        };
        if matches!(status.code(), Code::FailedPrecondition | Code::Aborted | Code::OutOfRange | Code::InvalidArgument)
        {
            // Either the program has ended, or the offset does not fit.
            if self.wait_exit(sandbox, exec_id, Duration::ZERO).await?.is_some() {
                return Ok(InputState { accepted: offset, closed: true });
            }
            let state = self.input_state(sandbox, exec_id).await?;
            if state.closed || state.accepted != offset {
                let gap = offset > state.accepted && !state.closed;
                return if gap {
                    Err(Error::invalid(format!(
                        "Bytes at offset {offset} were offered to stdin, but only {} have arrived: send from there.",
                        state.accepted
                    )))
                } else {
                    Ok(state)
                };
            }
        }
        Err(self.explain(sandbox, &status, "write to the command's stdin").await)
    }

    async fn input_state(&self, sandbox: &str, exec_id: &str) -> Result<InputState> {
        let make = |task_id: String| TaskExecStdinStatusRequest { task_id, exec_id: exec_id.to_string() };
        let result = self.router(sandbox, &retry::ROUTER, rpc::TASK_EXEC_STDIN_STATUS, make).await?;
        match result {
            Ok(answer) => Ok(InputState { accepted: answer.num_bytes_written, closed: answer.closed }),
            Err(status) => Err(self.explain(sandbox, &status, "look at the command's stdin").await),
        }
    }

    async fn write_main_input(&self, sandbox: &str, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        if ids::is_v1(sandbox) {
            return Err(Error::unsupported(
                "main.input",
                "Input of the entry-point command needs a sandbox on Modal's V2 backend.",
            ));
        }
        let end = offset + data.len() as u64;
        let data = bytes::Bytes::from(data);
        let make = |task_id: String| SandboxStdinWriteV2Request { task_id, offset, data: data.clone(), eof };
        let result = self.router(sandbox, &retry::ROUTER, rpc::SANDBOX_STDIN_WRITE_V2, make).await?;
        match result {
            Ok(_) => Ok(InputState { accepted: end, closed: eof }),
            Err(status) => Err(self.explain(sandbox, &status, "write to the entry-point command's stdin").await),
        }
    }

    /// See `signal` in the interface. Modal has no such call: a second exec finds the process tree by the marker in its
    /// environment, whatever groups or sessions it has split into.
    ///
    /// # Errors
    ///
    /// As documented there; `unsupported` where the image lacks a shell, `tr` or `grep`.
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
        let argv = ["/bin/sh", "-c", SIGNAL_SCRIPT, "sh", &ids::wire_uuid(&exec.exec), &signal.to_string()];
        let spec = ExecSpec { argv: argv.map(str::to_string).into(), ..plain_spec(self.new_uuid()) };
        let limits = OutputLimits { stdout_max: 0, stderr_max: 4096, keep: Keep::Tail };
        let result = self.run(&exec.sandbox, spec, Vec::new(), limits).await?;
        match result.verdict {
            Verdict::Exited(0) => Ok(()),
            Verdict::Exited(126 | 127) => Err(Error::unsupported(
                "exec.signal",
                "A signal is sent by a shell inside the sandbox, and this image has no /bin/sh with tr and grep.",
            )),
            Verdict::SandboxEnded(_) => Ok(()),
            other => Err(Error::internal(format!(
                "The signal could not be sent ({other:?}): {}",
                String::from_utf8_lossy(&result.stderr.data)
            ))),
        }
    }

    /// See `run` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        let begun = self.now();
        let deadline = spec.timeout.map(|timeout| millis(begun).saturating_add(timeout));
        let exec = ExecRef { sandbox: sandbox.to_string(), exec: spec.id.clone(), deadline };
        let request = self.start_request(sandbox, spec).await?;
        let exec_id = request.exec_id.clone();
        self.start_exec(sandbox, request).await?;

        // From here on the command runs: whatever goes wrong, it happened.
        let (verdict, stdout, stderr, fed) = join4(
            self.wait_for_ever(&exec),
            self.collect(&exec, 0, limits.stdout_max, limits.keep),
            self.collect(&exec, 1, limits.stderr_max, limits.keep),
            self.feed(sandbox, &exec_id, stdin.into()),
        )
        .await;
        let (verdict, mut lost) = match verdict {
            Ok(verdict) => (verdict, None),
            Err(error) => (Verdict::Lost(error.message.clone()), Some(error)),
        };
        let sandbox_ended = matches!(verdict, Verdict::SandboxEnded(_));
        let mut part = |result: (Captured, Option<Error>)| {
            if let (_, Some(error)) = &result
                && !sandbox_ended
            {
                lost.get_or_insert(error.clone());
            }
            result.0
        };
        let (stdout, stderr) = (part(stdout), part(stderr));
        if let Err(error) = fed
            && !sandbox_ended
        {
            lost.get_or_insert(error);
        }
        if let Some(error) = lost {
            return Err(Error { happened: Happened::Yes, ..error });
        }
        Ok(RunResult { verdict, stdout, stderr, duration: millis(self.now().saturating_sub(begun)) })
    }

    async fn wait_for_ever(&self, exec: &ExecRef) -> Result<Verdict> {
        loop {
            if let Some(verdict) = self.wait_verdict(exec, WAIT_ATTEMPT).await? {
                return Ok(verdict);
            }
        }
    }

    /// Reads a stream to its end, keeping what the limit allows.
    async fn collect(&self, exec: &ExecRef, descriptor: i32, max: u64, keep: Keep) -> (Captured, Option<Error>) {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut captured = Captured { data: Vec::new(), total: 0 };
        let mut follow = self.take_follow(exec, descriptor, 0);
        loop {
            let filled = poll_fn(|cx| follow.poll_fill(cx, 1)).await;
            let piece = follow.take(usize::MAX);
            captured.total += piece.len() as u64;
            keep_piece(&mut captured.data, &piece, max, keep);
            let error = filled.err();
            if error.is_some() || follow.is_ended() {
                let excess = captured.data.len().saturating_sub(max);
                captured.data.drain(..excess);
                return (captured, error);
            }
        }
    }

    async fn feed(&self, sandbox: &str, exec_id: &str, mut stdin: bytes::Bytes) -> Result<()> {
        let mut offset = 0;
        loop {
            let piece = stdin.split_to(stdin.len().min(INPUT_PIECE));
            let (length, eof) = (piece.len() as u64, stdin.is_empty());
            let state = self.write_stdin(sandbox, exec_id, offset, piece, eof).await?;
            if eof || state.closed {
                return Ok(());
            }
            offset += length;
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

/// An exec without any wishes.
pub(crate) fn plain_spec(id: String) -> ExecSpec {
    ExecSpec {
        id,
        argv: Vec::new(),
        env: Vec::new(),
        secrets: Vec::new(),
        cwd: None,
        user: None,
        timeout: None,
        pty: None,
        stdout: OutputMode::Keep,
        stderr: OutputMode::Keep,
        merge_stderr: false,
        container: None,
        extra: Vec::new(),
    }
}

fn check_spec(spec: &ExecSpec) -> Result<()> {
    ids::check_chosen("an exec id", &spec.id)?;
    if spec.id == ids::MAIN {
        return Err(Error::invalid(
            "The exec id `main` stands for the entry-point command: choose another, such as a UUID.",
        ));
    }
    match spec.argv.first() {
        None => return Err(Error::invalid("The command is empty: give a program and its arguments.")),
        Some(program) if program.is_empty() => {
            return Err(Error::invalid("The program's name is empty: give a name or a path."));
        }
        Some(_) => {}
    }
    if let Some(argument) = spec.argv.iter().find(|argument| argument.contains('\0')) {
        return Err(Error::invalid(format!(
            "The argument `{}` contains a NUL character, which no program can be given.",
            argument.escape_debug()
        )));
    }
    let bytes: usize = spec.argv.iter().map(String::len).sum();
    if bytes > MAX_ARGV_BYTES {
        return Err(Error::unsupported(
            "exec.long-argv",
            format!(
                "The command has {bytes} bytes and Modal takes {MAX_ARGV_BYTES}: pass the rest by stdin or a file."
            ),
        ));
    }
    check_env(&spec.env)?;
    if spec.cwd.as_deref().is_some_and(|cwd| cwd.is_empty() || cwd.contains('\0')) {
        return Err(Error::invalid("The working directory is empty or contains a NUL character: give a path."));
    }
    if spec.timeout == Some(0) {
        return Err(Error::invalid("A time limit of 0 would kill the command at once: leave it out for no limit."));
    }
    if spec.container.is_some() {
        return Err(Error::unsupported("sidecars", "This version knows no sidecars: leave the container out."));
    }
    check_extra(&spec.extra)
}

pub(crate) fn check_extra(extra: &[(String, String)]) -> Result<()> {
    match extra.first() {
        None => Ok(()),
        Some((name, _)) => Err(Error::invalid(format!(
            "There is no field `{}`: this version takes no extra fields.",
            name.escape_debug()
        ))
        .about(name)),
    }
}

pub(crate) fn check_env(env: &[(String, String)]) -> Result<()> {
    for (name, value) in env {
        let good = name
            .bytes()
            .enumerate()
            .all(|(index, byte)| byte == b'_' || byte.is_ascii_alphabetic() || index > 0 && byte.is_ascii_digit());
        if name.is_empty() || !good {
            return Err(Error::invalid(format!(
                "`{}` cannot name an environment variable: use letters, digits and `_`, not a digit first.",
                name.escape_debug()
            ))
            .about(name));
        }
        if value.contains('\0') {
            return Err(Error::invalid(format!("The value of {name} contains a NUL character.")).about(name));
        }
    }
    Ok(())
}

fn check_ref(exec: &ExecRef) -> Result<()> {
    ids::check_sandbox(&exec.sandbox)?;
    ids::check_chosen("an exec id", &exec.exec)
}

pub(crate) fn check_max(max_bytes: u32) -> Result<usize> {
    if max_bytes == 0 {
        return Err(Error::invalid("max-bytes is 0: ask for at least one byte."));
    }
    Ok(max_bytes.min(MAX_REPLY_BYTES) as usize)
}

pub(crate) fn bounded_wait(wait: u64) -> Duration {
    Duration::from_millis(wait.min(MAX_WAIT_MS))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as whole seconds, rounded up: never earlier than asked for.
pub(crate) fn whole_seconds(millis: u64) -> u32 {
    u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX)
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

/// Adds a piece to what is kept. The tail is cut back only when it has grown to twice the limit, which makes it cheap.
fn keep_piece(data: &mut Vec<u8>, piece: &[u8], max: usize, keep: Keep) {
    match keep {
        Keep::Head => data.extend_from_slice(&piece[..piece.len().min(max.saturating_sub(data.len()))]),
        Keep::Tail => {
            data.extend_from_slice(piece);
            if data.len() > max.saturating_mul(2) {
                data.drain(..data.len() - max);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_output_is_the_head_or_the_tail() {
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for max in [0, 1, 7, 999, 5000, 9000] {
            for size in [1, 3, 100, 5000] {
                let mut head = Vec::new();
                let mut tail = Vec::new();
                for piece in all.chunks(size) {
                    keep_piece(&mut head, piece, max, Keep::Head);
                    keep_piece(&mut tail, piece, max, Keep::Tail);
                    assert!(tail.len() <= max.saturating_mul(2), "bounded");
                }
                let excess = tail.len().saturating_sub(max);
                tail.drain(..excess);
                assert_eq!(head, all[..max.min(all.len())]);
                assert_eq!(tail, all[all.len() - max.min(all.len())..]);
            }
        }
    }

    #[test]
    fn time_limits_round_up() {
        assert_eq!([1, 999, 1000, 1001, u64::MAX].map(whole_seconds), [1, 1, 1, 2, u32::MAX]);
    }

    #[test]
    fn bad_specs_are_refused_with_their_reason() {
        let spec = |change: fn(&mut ExecSpec)| {
            let mut spec = ExecSpec { argv: vec!["true".into()], ..plain_spec("e1".into()) };
            change(&mut spec);
            check_spec(&spec).map_err(|error| error.message)
        };
        assert_eq!(spec(|_| {}), Ok(()));
        type Change = fn(&mut ExecSpec);
        let refused: [(Change, &str); 8] = [
            (|s| s.argv.clear(), "empty"),
            (|s| s.argv[0].clear(), "empty"),
            (|s| s.argv.push("a\0b".into()), "NUL"),
            (|s| s.argv.push("x".repeat(70_000)), "70004 bytes"),
            (|s| s.id = "main".into(), "main"),
            (|s| s.env.push(("1A".into(), "x".into())), "1A"),
            (|s| s.timeout = Some(0), "time limit"),
            (|s| s.extra.push(("nice".into(), "1".into())), "nice"),
        ];
        for (change, text) in refused {
            assert!(spec(change).is_err_and(|message| message.contains(text)), "{text}");
        }
    }
}

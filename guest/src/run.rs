//! `run`: start, feed, collect and wait in one call.

use std::{collections::VecDeque, future::poll_fn, pin::pin, time::Duration};

use bytes::{Buf as _, Bytes};
use futures_util::future::{Either, join3, select};

use crate::{
    bindings::{Captured, ErrorKind, ExecRef, ExecSpec, Happened, Keep, OutputLimits, RunResult, Verdict},
    error::{Error, Result},
    execs::{WAIT_ATTEMPT, millis},
    provider::Provider,
    transport::within,
};

/// Most that is kept of one stream; the interface documents it. Both together are its largest reply.
const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// Piece of stdin that is sent at a time.
const INPUT_PIECE: usize = 4 * 1024 * 1024;

/// When a command without input is told so: most never look, and the call is saved if they are over by then.
const NO_INPUT_AFTER: Duration = Duration::from_millis(100);

/// How long after its time limit an exec is ended by us: Modal rounds up to whole seconds and kills the program only,
/// which leaves its children and whoever waits for the output that they hold.
const SWEEP_AFTER: Duration = Duration::from_secs(2);

/// Time for ending it, and time in which it must then be over.
const SWEEP_TIME: Duration = Duration::from_secs(30);
const SWEPT_WAIT: Duration = Duration::from_secs(60);

impl Provider {
    /// See `run` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        let begun = self.now();
        let deadline = spec.timeout.map(|timeout| millis(begun).saturating_add(timeout));
        let exec = ExecRef {
            sandbox: sandbox.to_string(),
            exec: spec.id.clone(),
            deadline,
            container: spec.container.clone(),
        };
        let request = self.start_request(sandbox, spec).await?;
        let exec_id = request.exec_id.clone();
        self.start_exec(sandbox, request).await?;

        // From here on the command runs: whatever goes wrong, it happened.
        let output = join3(
            self.wait_for_ever(&exec),
            self.collect(&exec, 0, Kept::new(limits.stdout_max, limits.keep)),
            self.collect(&exec, 1, Kept::new(limits.stderr_max, limits.keep)),
        );
        let idle = stdin.is_empty();
        let input = async {
            if idle {
                self.transport().sleep(NO_INPUT_AFTER).await;
            }
            self.feed(sandbox, &exec_id, stdin.into()).await
        };
        let work = async {
            match select(pin!(output), pin!(input)).await {
                // Nobody is left to be told that there is no input.
                Either::Left((parts, _)) if idle => (parts, Ok(())),
                Either::Left((parts, input)) => (parts, input.await),
                Either::Right((fed, output)) => (output.await, fed),
            }
        };
        let ((verdict, stdout, stderr), fed) = match select(pin!(work), pin!(self.end_overdue(&exec))).await {
            Either::Left((parts, _)) => parts,
            Either::Right((error, _)) => return Err(error),
        };
        let mut failure = None;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // It was started, so it, or its sandbox, was there; nobody will ever know more.
            Err(error) if error.kind_is_not_found() => Verdict::Lost(error.into_record().message),
            Err(error) => {
                let message = error.message.clone();
                failure = Some(error);
                Verdict::Lost(message)
            }
        };
        if !matches!(verdict, Verdict::SandboxEnded(_) | Verdict::Lost(_)) {
            failure = [stdout.1, stderr.1, fed.err()].into_iter().flatten().next();
        }
        if let Some(error) = failure {
            return Err(error.with_happened(Happened::Yes));
        }
        let duration = millis(self.now().saturating_sub(begun));
        Ok(RunResult { verdict, stdout: stdout.0.captured(), stderr: stderr.0.captured(), duration })
    }

    async fn wait_for_ever(&self, exec: &ExecRef) -> Result<Verdict> {
        loop {
            if let Some(verdict) = self.wait_verdict(exec, WAIT_ATTEMPT).await? {
                return Ok(verdict);
            }
        }
    }

    /// Reads a stream to its end, keeping what the limit allows.
    async fn collect(&self, exec: &ExecRef, descriptor: i32, mut kept: Kept) -> (Kept, Option<Error>) {
        let mut follow = self.take_follow(exec, descriptor, 0);
        loop {
            let filled = poll_fn(|cx| follow.poll_fill(cx, 1)).await;
            while let Some(piece) = follow.take_piece() {
                kept.push(&piece);
            }
            if filled.is_err() || follow.is_ended() {
                return (kept, filled.err());
            }
        }
    }

    /// Writes all of `stdin` and closes it. A program that wants no more ends it early.
    pub(crate) async fn feed(&self, sandbox: &str, exec_id: &str, mut stdin: Bytes) -> Result<()> {
        let mut offset = 0;
        loop {
            let piece = stdin.slice(..stdin.len().min(INPUT_PIECE));
            let last = piece.len() == stdin.len();
            let state = self.write_stdin(sandbox, exec_id, offset, piece, last).await?;
            if state.closed {
                return Ok(());
            }
            let taken = usize::try_from(state.accepted.saturating_sub(offset)).unwrap_or(usize::MAX).min(stdin.len());
            stdin.advance(taken);
            offset += taken as u64;
        }
    }

    /// Ends an exec that outlives its time limit, with all that it has started. Resolves only when that did not help.
    async fn end_overdue(&self, exec: &ExecRef) -> Error {
        let Some(due) = self.sweep_due(exec) else { return std::future::pending().await };
        self.transport().sleep(due.saturating_sub(self.now())).await;
        self.sweep(exec).await;
        self.transport().sleep(SWEPT_WAIT).await;
        let message = "The command was killed after its time limit and is not over: something in it cannot be killed. \
                       Terminate the sandbox.";
        Error::new(ErrorKind::TimedOut, message).with_happened(Happened::Yes)
    }

    /// When an exec counts as overdue; none without a limit, or when it has been ended.
    pub(crate) fn sweep_due(&self, exec: &ExecRef) -> Option<Duration> {
        let key = (exec.sandbox.clone(), exec.exec.clone());
        if self.inner.state.borrow().swept.get(&key).is_some() {
            return None;
        }
        exec.deadline.map(|deadline| Duration::from_millis(deadline).saturating_add(SWEEP_AFTER))
    }

    /// Kills whatever is left of an exec, once. An image without a shell has only Modal's own kill.
    pub(crate) async fn sweep(&self, exec: &ExecRef) {
        let key = (exec.sandbox.clone(), exec.exec.clone());
        self.inner.state.borrow_mut().swept.insert(key, ());
        let _ = within(self.transport(), SWEEP_TIME, self.signal(exec.clone(), 9)).await;
    }
}

/// What is kept of a stream.
struct Kept {
    data: VecDeque<u8>,
    total: u64,
    max: usize,
    keep: Keep,
}

impl Kept {
    fn new(max: u64, keep: Keep) -> Kept {
        let max = usize::try_from(max.min(MAX_KEPT)).unwrap_or(0);
        Kept { data: VecDeque::new(), total: 0, max, keep }
    }

    fn push(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        let room = self.max - self.data.len();
        match self.keep {
            Keep::Head => self.data.extend(&piece[..piece.len().min(room)]),
            Keep::Tail => {
                let piece = &piece[piece.len().saturating_sub(self.max)..];
                self.data.drain(..piece.len().saturating_sub(room));
                self.data.extend(piece);
            }
        }
    }

    fn captured(self) -> Captured {
        Captured { data: self.data.into(), total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_output_is_the_head_or_the_tail() {
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for max in [0, 1, 7, 999, 4999, 5000, 9000] {
            for size in [1, 3, 100, 5000] {
                for keep in [Keep::Head, Keep::Tail] {
                    let mut kept = Kept::new(max as u64, keep);
                    for piece in all.chunks(size) {
                        kept.push(piece);
                        assert!(kept.data.len() <= max);
                    }
                    let captured = kept.captured();
                    let length = max.min(all.len());
                    let expected = match keep {
                        Keep::Head => &all[..length],
                        Keep::Tail => &all[all.len() - length..],
                    };
                    assert_eq!(captured.data, expected, "{keep:?} {max} {size}");
                    assert_eq!(captured.total, 5000);
                }
            }
        }
        assert_eq!(Kept::new(u64::MAX, Keep::Tail).max as u64, MAX_KEPT);
    }
}

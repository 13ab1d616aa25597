//! `run`: start, feed, collect and wait in one call.

use std::{cell::RefCell, collections::VecDeque, future::poll_fn, pin::pin, time::Duration};

use bytes::{Buf as _, Bytes};
use futures_util::future::{Either, join3, select};

use crate::{exec::process::WAIT_ATTEMPT, provider::Provider};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        time::millis,
        wit::{Captured, ExecRef, ExecSpec, Happened, Keep, OutputLimits, RunResult, Verdict},
    },
    platform::within,
};

/// Most that is kept of one stream; the interface documents it. Both together are its largest reply.
const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// Piece of stdin that is sent at a time.
const INPUT_PIECE: usize = 4 * 1024 * 1024;

/// When a command without input is told so: most never look, and the call is saved if they are over by then.
const NO_INPUT_AFTER: Duration = Duration::from_millis(100);

/// How long a command whose time is up has to end after SIGTERM, in tenths of a second; then it is killed.
const GRACE_TENTHS: u32 = 50;

/// How much later than that the service is told to kill the program, where we can not. Modal rounds up to whole seconds and
/// kills the program only, which leaves its children, and callers that wait for the output that they hold.
pub(crate) const KILL_AFTER: Duration = Duration::from_secs(7);

/// Time for ending it, and time in which it must then be over: what is not is given up.
const SWEEP_TIME: Duration = Duration::from_secs(30);
const SWEPT_WAIT: Duration = Duration::from_secs(5);

/// An exec whose time is up.
#[derive(Debug, Clone, Copy)]
pub struct Swept {
    /// When it was ended, or will have been.
    at: Duration,
    /// It had come to its end by itself before that; what it left behind was ended.
    over: bool,
}

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
        let stdout = RefCell::new(Kept::new(limits.stdout_max, limits.keep));
        let stderr = RefCell::new(Kept::new(limits.stderr_max, limits.keep));
        let output = join3(self.wait_for_ever(&exec), self.collect(&exec, 0, &stdout), self.collect(&exec, 1, &stderr));
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
        let parts = match select(pin!(work), pin!(self.sweep_when_due(&exec))).await {
            Either::Left((parts, swept)) => {
                // Nothing that it has started is to be left.
                if matches!(parts.0.0, Ok(Verdict::Deadline)) {
                    swept.await;
                }
                Some(parts)
            }
            Either::Right(((), work)) => within(self.transport(), SWEPT_WAIT, work).await,
        };
        let ((verdict, out, err), fed) = parts.unwrap_or_else(|| ((Ok(self.given_up(&exec)), None, None), Ok(())));
        let mut failure = None;
        let verdict = match verdict {
            Ok(verdict) => verdict,
            // It was started, so it, or its sandbox, was there; nobody will ever know more.
            Err(error) if error.is_not_found() => Verdict::Lost(error.into_record().message),
            Err(error) => {
                let message = error.message.clone();
                failure = Some(error);
                Verdict::Lost(message)
            }
        };
        if !matches!(verdict, Verdict::SandboxEnded(_) | Verdict::Lost(_)) {
            failure = [out, err, fed.err()].into_iter().flatten().next();
        }
        if let Some(error) = failure {
            return Err(error.with_happened(Happened::Yes));
        }
        let duration = millis(self.now().saturating_sub(begun));
        Ok(RunResult {
            verdict,
            stdout: stdout.into_inner().captured(),
            stderr: stderr.into_inner().captured(),
            duration,
        })
    }

    async fn wait_for_ever(&self, exec: &ExecRef) -> Result<Verdict> {
        loop {
            if let Some(verdict) = self.exit_verdict(exec, WAIT_ATTEMPT).await? {
                return Ok(verdict);
            }
        }
    }

    /// Reads a stream to its end, keeping what the limit allows. Gives why it could not.
    async fn collect(&self, exec: &ExecRef, descriptor: i32, kept: &RefCell<Kept>) -> Option<Error> {
        let mut follow = self.take_follow(exec, descriptor, 0);
        loop {
            let filled = poll_fn(|cx| follow.poll_fill(cx, 1)).await;
            while let Some(piece) = follow.take_piece() {
                kept.borrow_mut().push(&piece);
            }
            if filled.is_err() || follow.is_ended() {
                return filled.err();
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

    /// Ends an exec when its time is up, with all that it has started. Without a time limit, never.
    async fn sweep_when_due(&self, exec: &ExecRef) {
        let Some(deadline) = exec.deadline else { return std::future::pending().await };
        self.transport().sleep(Duration::from_millis(deadline).saturating_sub(self.now())).await;
        self.sweep(exec, true).await;
    }

    /// When something is to be done about an exec that has not ended by then: [`Provider::overdue`]. None without a time
    /// limit, and when all has been done.
    pub(crate) fn overdue_at(&self, exec: &ExecRef) -> Option<Duration> {
        let deadline = Duration::from_millis(exec.deadline?);
        match self.swept(exec) {
            None => Some(deadline),
            Some(swept) => (!swept.over).then(|| swept.at + SWEPT_WAIT),
        }
    }

    /// Ends an exec whose time is up; `alive` as for [`Provider::sweep`]. True when that has been done before, and it is to
    /// be given up.
    pub(crate) async fn overdue(&self, exec: &ExecRef, alive: bool) -> bool {
        let known = self.swept(exec).is_some();
        self.sweep(exec, alive).await;
        known
    }

    /// Whether it is us who has ended the exec.
    pub(crate) fn was_ended(&self, exec: &ExecRef) -> bool {
        self.swept(exec).is_some_and(|swept| !swept.over)
    }

    fn swept(&self, exec: &ExecRef) -> Option<Swept> {
        self.inner.state.borrow().swept.get(&(exec.sandbox.clone(), exec.exec.clone())).copied()
    }

    /// What became of an exec that goes on though its time is up, whatever was done about it.
    pub(crate) fn given_up(&self, exec: &ExecRef) -> Verdict {
        self.transport().tell(&format!(
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
        if self.swept(exec).is_some() {
            return;
        }
        let note = |at: Duration, over: bool| {
            let key = (exec.sandbox.clone(), exec.exec.clone());
            self.inner.state.borrow_mut().swept.insert(key, Swept { at, over });
        };
        let over = !alive && matches!(self.exit_verdict(exec, Duration::ZERO).await, Ok(Some(_)));
        note(self.now() + SWEEP_TIME, over);
        let _ = within(self.transport(), SWEEP_TIME, self.end(exec, GRACE_TENTHS)).await;
        note(self.now(), over);
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

//! Runs a started command to its end: writes its input, collects its output and waits for its verdict.

use std::{cell::RefCell, future::Future, future::poll_fn, pin::pin, rc::Rc, time::Duration};

use futures_util::future::{Either, join3, select};

use super::{
    capture::Capture,
    deadline::KILLED_WAIT,
    follow::{Follow, Source},
};
use crate::{
    api::{
        error::{Error, Result},
        time::millis,
        wit::{Happened, OutputLimits, RunResult, Verdict},
    },
    platform::{Transport, within},
};

/// Delay before the input of a command without input is closed. Most commands do not read their input; if they end
/// earlier, the request is saved.
const NO_INPUT_AFTER: Duration = Duration::from_millis(100);

/// A started command, and the futures that operate on it.
pub struct Running<S: Source, V, I, D, G> {
    /// When it was started.
    pub begun: Duration,
    /// How much of its output to keep.
    pub limits: OutputLimits,
    /// Its standard output, from the beginning.
    pub stdout: Follow<S>,
    /// Its standard error, from the beginning.
    pub stderr: Follow<S>,
    /// Waits for its end without a time limit.
    pub verdict: V,
    /// Writes its input and closes it.
    pub input: I,
    /// Whether there is no input, so that closing it can be delayed.
    pub idle: bool,
    /// Kills the command with all its processes when its time limit has passed. Never resolves without a time limit.
    pub kill: D,
    /// Makes the verdict of a command that still runs after `kill`.
    pub given_up: G,
}

/// Runs a command to its end. A command that still runs [`KILLED_WAIT`] after `kill` gets the verdict of `given_up`.
///
/// # Errors
///
/// The error of the input, of an output stream, or of the verdict. `happened` is `yes`, because the command was
/// started. If the command cannot be found any more, the result is the verdict `lost` and not an error.
pub async fn run<S, V, I, D, G>(transport: &Rc<dyn Transport>, running: Running<S, V, I, D, G>) -> Result<RunResult>
where
    S: Source,
    V: Future<Output = Result<Verdict>>,
    I: Future<Output = Result<()>>,
    D: Future<Output = ()>,
    G: FnOnce() -> Verdict,
{
    let Running { begun, limits, stdout, stderr, verdict, input, idle, kill, given_up } = running;
    let out = RefCell::new(Capture::new(limits.stdout_max, limits.keep));
    let err = RefCell::new(Capture::new(limits.stderr_max, limits.keep));
    let output = join3(verdict, collect(stdout, &out), collect(stderr, &err));
    let input = async {
        if idle {
            transport.sleep(NO_INPUT_AFTER).await;
        }
        input.await
    };
    let work = async {
        match select(pin!(output), pin!(input)).await {
            // The command has ended, so its input need not be closed.
            Either::Left((parts, _)) if idle => (parts, Ok(())),
            Either::Left((parts, input)) => (parts, input.await),
            Either::Right((fed, output)) => (output.await, fed),
        }
    };
    let parts = match select(pin!(work), pin!(kill)).await {
        Either::Left((parts, killed)) => {
            // Wait until the processes that it started have ended too.
            if matches!(parts.0.0, Ok(Verdict::Deadline)) {
                killed.await;
            }
            Some(parts)
        }
        Either::Right(((), work)) => within(transport, KILLED_WAIT, work).await,
    };
    let ((verdict, out_failure, err_failure), fed) = parts.unwrap_or_else(|| ((Ok(given_up()), None, None), Ok(())));
    let mut failure = None;
    let verdict = match verdict {
        Ok(verdict) => verdict,
        // The command was started, so it existed. Its verdict cannot be known any more.
        Err(error) if error.is_not_found() => Verdict::Lost(error.into_record().message),
        Err(error) => {
            let message = error.message.clone();
            failure = Some(error);
            Verdict::Lost(message)
        }
    };
    if !matches!(verdict, Verdict::SandboxEnded(_) | Verdict::Lost(_)) {
        failure = [out_failure, err_failure, fed.err()].into_iter().flatten().next();
    }
    if let Some(error) = failure {
        return Err(error.with_happened(Happened::Yes));
    }
    let duration = millis(transport.now().saturating_sub(begun));
    let (stdout, stderr) = (out.into_inner().captured(), err.into_inner().captured());
    Ok(RunResult { verdict, stdout, stderr, duration })
}

/// Reads a stream to its end into `kept`. Returns the error if the stream fails.
async fn collect<S: Source>(mut follow: Follow<S>, kept: &RefCell<Capture>) -> Option<Error> {
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

//! The verbs `read`, `wait` and `signal`.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::{
    answer::{Answer, Failure, send},
    args::Args,
    context::Context,
    exec::{
        follow::{Range, follow},
        start::MAIN,
        state::{Exec, RUNNING, Verdict},
        tree,
    },
    sys::process::kill,
};

/// How long SIGKILL is repeated until no process is left.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two rounds of kills.
const KILL_PAUSE: Duration = Duration::from_millis(5);

/// The command that the arguments name.
///
/// # Errors
///
/// Fails if there is none.
pub fn existing(args: &Args, context: &Context) -> Answer<Exec> {
    let id = args.required("id")?;
    Exec::existing(&context.base.exec(id)?, id)
}

/// Sends output of a command.
///
/// # Errors
///
/// Fails if there is no such command, or it was not started.
pub fn read(args: &Args, context: &mut Context) -> Answer {
    let exec = existing(args, context)?;
    exec.until_started()?;
    let range = Range {
        out: args.number("out")?.unwrap_or(0),
        err: args.number("err")?.unwrap_or(0),
        max: args.number("max")?.unwrap_or(u64::MAX),
        follow: args.flag("follow"),
        wait: args.duration("wait")?,
        beat: args.duration("beat")?.unwrap_or(Range::default().beat),
    };
    follow(&exec, range)
}

/// Waits for the verdict of a command.
///
/// # Errors
///
/// Fails if there is no such command, or it was not started.
pub fn wait(args: &Args, context: &mut Context) -> Answer {
    let exec = existing(args, context)?;
    exec.until_started()?;
    let end = Instant::now().checked_add(args.duration("wait")?.unwrap_or_default());
    exec.check();
    loop {
        let seen = exec.seen();
        if let Some(verdict) = exec.verdict() {
            send(b'v', verdict.text())?;
            break;
        }
        let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            break;
        }
        exec.sleep(seen, left);
    }
    send(b'.', "")
}

/// Sends a signal to the process tree of a command.
///
/// # Errors
///
/// Fails if there is no such command, or no process of it can be found.
pub fn signal(args: &Args, context: &mut Context) -> Answer {
    let id = args.required("id")?;
    let number = args.number("signal")?.and_then(|number| i32::try_from(number).ok());
    let signal = number
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(|| Failure::invalid("signal", "A signal is a number from 1 to 64."))?;
    if id == MAIN {
        return Err(Failure::invalid(
            "id",
            "The first command of the container ends with the sandbox, not by signals.",
        ));
    }
    if Exec::open(&context.base.exec(id)?)?.is_none() && end_transfer(id, context)? {
        return send(b'.', "");
    }
    let exec = existing(args, context)?;
    exec.until_started()?;
    exec.check();
    if exec.phase() == RUNNING && !deliver(&exec, signal) {
        // It may have ended meanwhile; its supervisor needs a moment to say so.
        let end = Instant::now() + Duration::from_secs(1);
        while exec.phase() == RUNNING && Instant::now() < end {
            exec.sleep(exec.seen(), KILL_PAUSE);
        }
        if exec.phase() == RUNNING {
            let message = format!("No process of the command {id:?} can be found.");
            return Err(Failure::new("conflict", id, message));
        }
    }
    send(b'.', "")
}

/// Sends a signal to all descendants of the supervisor; SIGKILL until none is left. Returns whether there was any.
fn deliver(exec: &Exec, signal: i32) -> bool {
    let supervisor = exec.page().supervisor.load(Ordering::SeqCst);
    let mut reached = tree::signal(supervisor, signal) > 0;
    if signal == libc::SIGKILL {
        let end = Instant::now() + KILL_LIMIT;
        while exec.is_supervised() && tree::signal(supervisor, signal) > 0 && Instant::now() < end {
            reached = true;
            std::thread::sleep(KILL_PAUSE);
        }
    }
    reached
}

/// Ends a transfer or a watch, if there is one with this id.
fn end_transfer(id: &str, context: &Context) -> Answer<bool> {
    let dir = context.base.transfer(id)?;
    if let Some(watch) = Exec::open(&dir)? {
        // The directory stays, so that the next call for events is told the end.
        watch.until_started()?;
        if watch.is_supervised() && watch.verdict().is_none() {
            let _ = kill(watch.page().supervisor.load(Ordering::SeqCst), libc::SIGKILL);
        }
        watch.end(Verdict::Signaled(libc::SIGKILL as u32));
        return Ok(true);
    }
    match std::fs::remove_dir_all(&dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Failure::internal(id, error)),
    }
}

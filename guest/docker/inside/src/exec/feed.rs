//! The verbs `input` and `resize`.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::{
    answer::{Answer, Failure, send, send_json},
    args::{Args, Data},
    context::Context,
    exec::{
        state::{Exec, HAS_TERMINAL, STDIN_CLOSED, STDIN_COMPLETE},
        verbs::existing,
    },
    json,
};

/// How long the supervisor may take to apply a size.
const RESIZE_LIMIT: Duration = Duration::from_secs(5);

/// Appends to the input of a command.
///
/// # Errors
///
/// Fails if there is no such command, bytes before the offset are missing, or the disk is full.
pub fn input(args: &Args, context: &mut Context) -> Answer {
    let exec = existing(args, context)?;
    let offset = args.number("offset")?.unwrap_or(0);
    let mut data = args.data(&context.base)?;
    exec.until_started()?;
    exec.check();
    let (accepted, closed) = accept(&exec, offset, &mut data, args.flag("eof"))?;
    send_json(&json::Object::new().number("accepted", accepted).flag("closed", closed).end())
}

/// Appends to the input of a command. Returns the number of bytes that were accepted so far, and whether the input is
/// closed.
///
/// # Errors
///
/// Fails if bytes before the offset are missing, or the disk is full.
pub fn accept(exec: &Exec, offset: u64, data: &mut Data, eof: bool) -> Answer<(u64, bool)> {
    let failed = |error: std::io::Error| Failure::internal("stdin", error);
    let mut spool = OpenOptions::new().write(true).open(exec.dir.join("stdin")).map_err(failed)?;
    flock(&spool, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let page = exec.page();
    let accepted = page.accepted.load(Ordering::SeqCst);
    let is_closed = || exec.has(STDIN_CLOSED) || exec.has(STDIN_COMPLETE) || exec.verdict().is_some();
    if is_closed() {
        return Ok((accepted, true));
    }
    let known = accepted.checked_sub(offset).ok_or_else(|| {
        let message = format!("The input starts at byte {offset}, but only {accepted} bytes were accepted before.");
        Failure::invalid("offset", message)
    })?;
    let accepted = data.append(known, &mut spool, accepted).map_err(failed)?;
    page.accepted.store(accepted, Ordering::SeqCst);
    if eof {
        exec.set(STDIN_COMPLETE);
    }
    nudge(exec);
    Ok((accepted, is_closed()))
}

/// Wakes the supervisor. If it has gone, there is nothing left to do for it.
fn nudge(exec: &Exec) {
    let flags = OFlags::NONBLOCK.bits() as i32;
    if let Ok(pipe) = OpenOptions::new().write(true).custom_flags(flags).open(exec.dir.join("wake")) {
        // A full pipe wakes it as well.
        let _ = rustix::io::write(&pipe, &[1]);
    }
}

/// Changes the size of the terminal of a command.
///
/// # Errors
///
/// Fails if there is no such command, or it has no terminal.
pub fn resize(args: &Args, context: &mut Context) -> Answer {
    let exec = existing(args, context)?;
    let size = |name| -> Answer<u64> {
        let number = args.number(name)?.filter(|number| *number <= u64::from(u16::MAX));
        number.ok_or_else(|| Failure::invalid(name, "Rows and columns are numbers from 0 to 65535."))
    };
    let (rows, columns) = (size("rows")?, size("columns")?);
    exec.until_started()?;
    if !exec.has(HAS_TERMINAL) {
        return Err(Failure::new("conflict", args.required("id")?, "The command has no terminal."));
    }
    let wanted = &exec.page().size_wanted;
    let next = |old: u64| ((old >> 32) + 1) << 32 | rows << 16 | columns;
    let previous = wanted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |old| Some(next(old))).unwrap_or(0);
    nudge(&exec);
    let end = Instant::now() + RESIZE_LIMIT;
    loop {
        let seen = exec.seen();
        let applied = exec.page().size_applied.load(Ordering::SeqCst);
        if applied >> 32 > previous >> 32 || exec.verdict().is_some() || Instant::now() >= end {
            return send(b'.', "");
        }
        exec.sleep(seen, RESIZE_LIMIT);
    }
}

//! The end of the sandbox's lifetime, and the verb `extend`, which moves it.
//!
//! A moved deadline is the content of a file, in milliseconds since the Unix epoch, so that it holds when the container is
//! started again. The holder of the file's lock decides: process 1 keeps the lock when it ends the sandbox, so no deadline
//! that was confirmed is missed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    time::{Duration, Instant, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    answer::{Answer, Failure, send_json},
    args::Args,
    base::Base,
    context::Context,
    sys::process::kill,
};

/// The signal that tells process 1 to look at the file.
pub const MOVED: i32 = libc::SIGUSR1;

/// The deadline, as process 1 knows it.
pub struct Deadline {
    file: File,
    end: Option<Instant>,
}

impl Deadline {
    /// Makes the deadline of a sandbox that starts now. A moved one of an earlier life of the container holds on, unless it
    /// has passed.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn new(base: &Base, lifetime: Option<Duration>) -> io::Result<Self> {
        let end = lifetime.and_then(|time| Instant::now().checked_add(time));
        let mut deadline = Self { file: open(base)?, end };
        match deadline.moved()? {
            Some(left) if !left.is_zero() => deadline.end = Instant::now().checked_add(left),
            Some(_) => deadline.file.set_len(0)?,
            None => {}
        }
        Ok(deadline)
    }

    /// How long the sandbox lives on; none without a deadline. Zero is the end: it cannot be moved any more then.
    pub fn left(&mut self) -> Option<Duration> {
        let left = self.end?.saturating_duration_since(Instant::now());
        if left.is_zero() && flock(&self.file, FlockOperation::LockExclusive).is_ok() {
            self.look();
            let left = self.end?.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let _ = flock(&self.file, FlockOperation::Unlock);
            }
            return Some(left);
        }
        Some(left)
    }

    /// Looks whether it was moved.
    pub fn look(&mut self) {
        if let Ok(Some(left)) = self.moved() {
            self.end = Instant::now().checked_add(left);
        }
    }

    /// How long the sandbox lives on by the file; none if it was not moved.
    fn moved(&mut self) -> io::Result<Option<Duration>> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_string(&mut text)?;
        let end = text.trim().parse().ok().map(Duration::from_millis);
        Ok(end.map(|end| end.saturating_sub(now())))
    }
}

/// Moves the end of the sandbox.
///
/// # Errors
///
/// Fails if the disk is full.
pub fn extend(args: &Args, context: &mut Context) -> Answer {
    let lifetime = args.duration("lifetime")?.unwrap_or_default();
    let failed = |error: io::Error| Failure::internal("extend", error);
    let mut file = open(&context.base).map_err(failed)?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    let end = now().saturating_add(lifetime).as_millis();
    // All numbers have the same length, so that a full disk cannot cut one.
    file.write_all(format!("{end:020}").as_bytes()).map_err(failed)?;
    drop(file);
    // The sandbox may end at once.
    send_json(&format!("{{\"end\":{end}}}"))?;
    let _ = kill(1, MOVED);
    Ok(())
}

fn open(base: &Base) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).open(base.file("deadline"))
}

/// The time since the Unix epoch.
fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

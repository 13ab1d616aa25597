//! The directory and the shared page of one command.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::{io::Errno, thread::futex, time::Timespec};

use crate::{
    answer::{Answer, Failure},
    exec::tree,
    sys::page::{Mapping, PAGE_BYTES, Page},
};

/// The command is prepared.
pub const PREPARING: u32 = 0;
/// The supervisor is about to execute the program.
pub const LAUNCHING: u32 = 1;
/// The program was executed.
pub const RUNNING: u32 = 2;
/// There is a verdict.
pub const ENDED: u32 = 3;
/// The command was not started. The page says why.
pub const FAILED: u32 = 4;

/// Bit of `Page::streams`: stdout has ended.
pub const STDOUT_ENDED: u32 = 1;
/// Bit of `Page::streams`: stderr has ended.
pub const STDERR_ENDED: u32 = 2;
/// Bit of `Page::streams`: all of stdin was accepted.
pub const STDIN_COMPLETE: u32 = 4;
/// Bit of `Page::streams`: the command reads no more input.
pub const STDIN_CLOSED: u32 = 8;
/// Bit of `Page::streams`: the command has a terminal.
pub const HAS_TERMINAL: u32 = 16;

/// How long a waiter sleeps at most before it checks that the supervisor still lives.
const CHECK: Duration = Duration::from_secs(1);

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It exited with this code.
    Exited(u32),
    /// This signal ended it.
    Signaled(u32),
    /// Its time limit passed.
    Deadline,
    /// The kernel killed it for memory.
    OutOfMemory,
    /// Its supervisor was killed, so that its result is unknown.
    Unsupervised,
    /// Its output did not fit the disk.
    DiskFull,
}

impl Verdict {
    /// The text of the verdict frame.
    pub fn text(self) -> String {
        match self {
            Self::Exited(code) => format!("exited {code}"),
            Self::Signaled(signal) => format!("signaled {signal}"),
            Self::Deadline => "deadline".into(),
            Self::OutOfMemory => "out-of-memory".into(),
            Self::Unsupervised => "lost the supervisor was killed".into(),
            Self::DiskFull => "lost the disk of the sandbox is full, so that output was lost".into(),
        }
    }

    /// The exit code that a shell would report.
    pub fn code(self) -> u32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
            _ => 137,
        }
    }

    fn numbers(self) -> (u32, u32) {
        match self {
            Self::Exited(code) => (1, code),
            Self::Signaled(signal) => (2, signal),
            Self::Deadline => (3, 0),
            Self::OutOfMemory => (4, 0),
            Self::Unsupervised => (5, 0),
            Self::DiskFull => (6, 0),
        }
    }

    fn of_numbers(kind: u32, number: u32) -> Self {
        match kind {
            1 => Self::Exited(number),
            2 => Self::Signaled(number),
            3 => Self::Deadline,
            4 => Self::OutOfMemory,
            6 => Self::DiskFull,
            _ => Self::Unsupervised,
        }
    }
}

fn ticks_of(pid: u32) -> u64 {
    tree::process(pid).map_or(0, |process| process.ticks)
}

/// One command or watch: its directory and its page.
pub struct Exec {
    /// The directory.
    pub dir: PathBuf,
    page: Mapping,
}

impl Exec {
    /// Creates the page in a directory that is not published yet.
    ///
    /// # Errors
    ///
    /// Fails if the disk is full.
    pub fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join("state");
        // Real bytes reserve the space on the disk. A hole would be a signal for the process that fills it later.
        fs::write(&path, [0; PAGE_BYTES])?;
        let exec = Self::map(dir)?;
        let own = std::process::id();
        exec.page.starter_ticks.store(ticks_of(own), Ordering::SeqCst);
        exec.page.starter.store(own, Ordering::SeqCst);
        Ok(exec)
    }

    /// Makes this process responsible for the command. False if it was given up before.
    pub fn take_over(&self) -> bool {
        let own = std::process::id();
        self.page.supervisor_ticks.store(ticks_of(own), Ordering::SeqCst);
        self.page.supervisor.store(own, Ordering::SeqCst);
        self.advance(PREPARING, LAUNCHING)
    }

    /// Makes this process the watcher that the page describes. False if it was given up before.
    pub fn supervise_here(&self) -> bool {
        self.take_over() && self.advance(LAUNCHING, RUNNING)
    }

    fn map(dir: &Path) -> io::Result<Self> {
        let file: File = OpenOptions::new().read(true).write(true).open(dir.join("state"))?;
        Ok(Self { dir: dir.to_path_buf(), page: Mapping::of(&file)? })
    }

    /// The same command after its directory got another name.
    pub fn renamed(self, dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), ..self }
    }

    /// The command in a directory, or none if there is no such directory.
    ///
    /// # Errors
    ///
    /// Fails if the page cannot be mapped.
    pub fn open(dir: &Path) -> Answer<Option<Self>> {
        match Self::map(dir) {
            Ok(exec) => Ok(Some(exec)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::internal("state", error)),
        }
    }

    /// The command in a directory.
    ///
    /// # Errors
    ///
    /// Fails with `not-found` if there is none.
    pub fn existing(dir: &Path, id: &str) -> Answer<Self> {
        Self::open(dir)?.ok_or_else(|| Failure::new("not-found", id, format_args!("There is no command {id:?}.")))
    }

    /// The shared page.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Tells all waiters that the page changed.
    pub fn wake(&self) {
        self.page.change.fetch_add(1, Ordering::SeqCst);
        let _ = futex::wake(&self.page.change, futex::Flags::empty(), i32::MAX as u32);
    }

    /// Where the command is in its life.
    pub fn phase(&self) -> u32 {
        self.page.phase.load(Ordering::SeqCst)
    }

    /// Changes the phase if it is `from`, and says whether it was.
    pub fn advance(&self, from: u32, to: u32) -> bool {
        let changed = self.page.phase.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        self.wake();
        changed
    }

    /// Whether all these bits of `streams` are set.
    pub fn has(&self, bits: u32) -> bool {
        self.page.streams.load(Ordering::SeqCst) & bits == bits
    }

    /// Sets bits of `streams`.
    pub fn set(&self, bits: u32) {
        self.page.streams.fetch_or(bits, Ordering::SeqCst);
        self.wake();
    }

    /// Ends the command, unless it has ended or failed before.
    pub fn end(&self, verdict: Verdict) {
        let phase = self.phase();
        if phase == ENDED || phase == FAILED {
            return;
        }
        let (kind, number) = verdict.numbers();
        self.page.verdict_number.store(number, Ordering::SeqCst);
        self.page.verdict.store(kind, Ordering::SeqCst);
        self.advance(phase, ENDED);
    }

    /// The verdict, if there is one.
    pub fn verdict(&self) -> Option<Verdict> {
        (self.phase() == ENDED).then(|| {
            let number = self.page.verdict_number.load(Ordering::SeqCst);
            Verdict::of_numbers(self.page.verdict.load(Ordering::SeqCst), number)
        })
    }

    /// Records that the command was not started.
    pub fn fail(&self, failure: &Failure) {
        let payload = failure.payload();
        let mut length = payload.len().min(self.page.failure.len());
        while !payload.is_char_boundary(length) {
            length -= 1;
        }
        for (place, byte) in self.page.failure.iter().zip(payload[..length].bytes()) {
            place.store(byte, Ordering::Relaxed);
        }
        self.page.failure_length.store(length as u32, Ordering::SeqCst);
        self.page.phase.store(FAILED, Ordering::SeqCst);
        self.set(STDOUT_ENDED | STDERR_ENDED | STDIN_CLOSED);
    }

    /// Waits until the command was started.
    ///
    /// # Errors
    ///
    /// Fails as the start failed.
    pub fn until_started(&self) -> Answer {
        loop {
            let seen = self.seen();
            match self.phase() {
                FAILED => return Err(self.failure()),
                RUNNING | ENDED => return Ok(()),
                _ => self.sleep(seen, CHECK),
            }
        }
    }

    fn failure(&self) -> Failure {
        let length = self.page.failure_length.load(Ordering::SeqCst) as usize;
        let bytes: Vec<u8> = self.page.failure.iter().take(length).map(|byte| byte.load(Ordering::Relaxed)).collect();
        Failure::of_payload(&String::from_utf8_lossy(&bytes))
    }

    /// The present count of changes. It is read before the conditions that a later [`Exec::sleep`] waits for.
    pub fn seen(&self) -> u32 {
        self.page.change.load(Ordering::SeqCst)
    }

    /// Waits until the page has changed since `seen`, at most for `limit` or a second. If nothing changed for a second,
    /// it ends a command whose supervisor was killed.
    pub fn sleep(&self, seen: u32, limit: Duration) {
        let limit = limit.min(CHECK);
        let time = Timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos() as _ };
        // After another value, a wake-up or a signal the caller looks again.
        if futex::wait(&self.page.change, futex::Flags::empty(), seen, Some(&time)) == Err(Errno::TIMEDOUT) {
            self.check();
        }
    }

    /// Ends the command if its supervisor was killed.
    pub fn check(&self) {
        let all = STDOUT_ENDED | STDERR_ENDED | STDIN_CLOSED;
        let phase = self.phase();
        if (matches!(phase, ENDED | FAILED) && self.has(all)) || self.is_supervised() {
            return;
        }
        // The supervisor may have ended between the two looks.
        if self.phase() == phase && !matches!(phase, ENDED | FAILED) {
            self.end(Verdict::Unsupervised);
        }
        self.set(all);
    }

    /// Whether the process that is responsible for the command lives.
    pub fn is_supervised(&self) -> bool {
        let load = |ticks: &AtomicU64| ticks.load(Ordering::SeqCst);
        match self.page.supervisor.load(Ordering::SeqCst) {
            0 => {
                tree::lives(self.page.starter.load(Ordering::SeqCst), load(&self.page.starter_ticks))
                    // A supervisor may have taken over since.
                    || self.page.supervisor.load(Ordering::SeqCst) != 0
            }
            pid => tree::lives(pid, load(&self.page.supervisor_ticks)),
        }
    }
}

//! Process 1 of the container: it reaps orphans, runs the first command and ends the sandbox.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::fcntl_dupfd_cloexec,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitOptions, set_child_subreaper, wait},
    time::Timespec,
};

use crate::{
    answer::{Answer, Failure},
    args::Args,
    base::{Activity, Base, make_dir},
    context::Context,
    exec::{
        command::Command,
        deadline::{Deadline, MOVED},
        launch::launch,
        note,
        start::MAIN,
        state::{Exec, Verdict},
        supervise::Extras,
        tree,
    },
    sys::process::{block_signals, signal_descriptor, take_signals},
};

/// How often the idle time is checked at least.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// Bytes reserved for the reason of the end, so that it can be written when the disk is full.
const END_BYTES: usize = 1024;

/// The signals that process 1 asks for.
const SIGNALS: [i32; 4] = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, MOVED];

/// Why and with which code the sandbox ends.
struct End {
    reason: Option<String>,
    code: i32,
}

/// The file that says why the sandbox ended.
struct EndFile {
    base: Base,
    file: File,
}

impl EndFile {
    /// Reserves the space of the file, and removes that of an earlier life of the container.
    fn reserve(base: &Base) -> io::Result<Self> {
        make_dir(base.file(""))?;
        make_dir(base.file(note::FOLDER))?;
        match fs::remove_file(base.file(note::FOLDER).join("end")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(true).mode(0o600).open(base.file(note::FOLDER).join(".end"))?;
        file.write_all_at(&[b' '; END_BYTES], 0)?;
        // The container may have been started again. The newest note of a name counts.
        let _ = note::print(&mut io::stderr(), "end", "");
        Ok(Self { base: base.clone(), file })
    }

    fn write(&self, reason: &str) -> io::Result<()> {
        let text = reason.as_bytes().get(..END_BYTES).unwrap_or(reason.as_bytes());
        self.file.write_all_at(text, 0)?;
        self.file.set_len(text.len() as u64)?;
        fs::rename(self.base.file(note::FOLDER).join(".end"), self.base.file(note::FOLDER).join("end"))?;
        note::print(&mut io::stderr(), "end", reason)
    }
}

/// Serves as process 1 until the sandbox ends, and returns the exit code of the container.
///
/// # Errors
///
/// Fails if an argument is wrong, or the directory of the helper cannot be written.
pub fn init(args: &Args, context: &mut Context) -> Answer<i32> {
    let failed = |error: io::Error| Failure::internal("init", error);
    let base = context.base.clone();
    let (lifetime, idle) = (args.duration("lifetime")?, args.duration("idle")?);
    let end_file = EndFile::reserve(&base).map_err(failed)?;
    // Other users of the container must not look into the directory.
    fs::set_permissions(base.file(""), fs::Permissions::from_mode(0o700)).map_err(failed)?;
    fs::write(base.file("settings"), args.settings()).map_err(failed)?;
    // Process 1 ignores signals that it does not ask for.
    block_signals(&SIGNALS);
    let signals = signal_descriptor(&SIGNALS).map_err(failed)?;
    let _ = set_child_subreaper(Pid::from_raw(1));
    let deadline = Deadline::new(&base, lifetime).map_err(failed)?;
    let mut init = Init { base, signals, deadline, idle: None, main: None };
    let end = match init.prepare(args, idle) {
        Ok(()) => init.attend(),
        Err(failure) => End { reason: Some(format!("failed {}", failure.message)), code: 1 },
    };
    if let Some(reason) = &end.reason {
        end_file.write(reason).map_err(failed)?;
    }
    Ok(end.code)
}

struct Init {
    base: Base,
    signals: OwnedFd,
    deadline: Deadline,
    idle: Option<(Duration, Activity)>,
    /// The first command, and a descriptor that is closed when it has ended.
    main: Option<(Exec, OwnedFd)>,
}

impl Init {
    fn prepare(&mut self, args: &Args, idle: Option<Duration>) -> Answer {
        let failed = |error: io::Error| Failure::internal("init", error);
        if let Some(idle) = idle {
            let activity = self.base.activity().map_err(failed)?;
            // Looking at the lock releases the own part of it.
            activity.idle();
            self.idle = Some((idle, activity));
        }
        if args.argv.is_empty() {
            return Ok(());
        }
        // The command of an earlier life of the container.
        match fs::remove_dir_all(self.base.exec(MAIN)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let (ended, on_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let errno = |error: rustix::io::Errno| failed(error.into());
        let stdout = fcntl_dupfd_cloexec(io::stdout(), 3).map_err(errno)?;
        let stderr = fcntl_dupfd_cloexec(io::stderr(), 3).map_err(errno)?;
        let extras = Extras { copies: Some((stdout, stderr)), on_end: Some(on_end) };
        let mut activity = Some(self.base.activity().map_err(failed)?);
        let exec = launch(&self.base, MAIN, || Command::of(args), extras, &mut activity)?;
        self.main = Some((exec, ended));
        Ok(())
    }

    /// Waits for the end of the sandbox.
    fn attend(&mut self) -> End {
        loop {
            for signal in take_signals(&self.signals) {
                if signal == MOVED {
                    self.deadline.look();
                }
                if signal == libc::SIGTERM || signal == libc::SIGINT {
                    match &self.main {
                        Some((exec, _)) => terminate(exec),
                        None => return End { reason: None, code: 143 },
                    }
                }
            }
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let mut next = self.deadline.left();
            if next == Some(Duration::ZERO) {
                return End { reason: Some("lifetime".into()), code: 0 };
            }
            if let Some((limit, activity)) = &self.idle {
                let idle = activity.idle();
                if idle >= *limit {
                    return End { reason: Some("idle".into()), code: 0 };
                }
                let left = (*limit - idle).min(IDLE_CHECK);
                next = Some(next.map_or(left, |next| next.min(left)));
            }
            if self.wait(next) {
                return self.finished();
            }
        }
    }

    /// Waits for a signal, the time or the end of the first command. Returns whether that has ended.
    fn wait(&self, next: Option<Duration>) -> bool {
        let timeout = next.map(|next| {
            let next = next + Duration::from_micros(500);
            Timespec { tv_sec: next.as_secs() as _, tv_nsec: next.subsec_nanos() as _ }
        });
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some((_, ended)) = &self.main {
            polled.push(PollFd::new(ended, PollFlags::IN));
        }
        let _ = poll(&mut polled, timeout.as_ref());
        polled.get(1).is_some_and(|ended| !ended.revents().is_empty())
    }

    fn finished(&self) -> End {
        let code = self.main.as_ref().map_or(0, |(exec, _)| {
            exec.check();
            exec.verdict().unwrap_or(Verdict::Unsupervised).code()
        });
        End { reason: Some(format!("finished {code}")), code: i32::try_from(code).unwrap_or(1) }
    }
}

/// Sends SIGTERM to the process of the first command, not to its children.
fn terminate(exec: &Exec) {
    let supervisor = exec.page().supervisor.load(std::sync::atomic::Ordering::SeqCst);
    let command = tree::descendants(supervisor).into_iter().filter(|process| process.parent == supervisor);
    // The first child is the command itself: orphans came later.
    if let Some(process) = command.min_by_key(|process| process.ticks) {
        let _ = crate::sys::process::kill(process.pid, libc::SIGTERM);
    }
}

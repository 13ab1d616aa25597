//! The supervisor of one command: a process that copies its output and input, and records how it ended.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Gid, Mode, OFlags, Uid, fchown},
    io::{Errno, fcntl_dupfd_cloexec},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, WaitOptions, WaitStatus, set_child_subreaper, wait},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
    time::Timespec,
};

use crate::{
    answer::{Answer, Failure},
    base::Activity,
    exec::{
        command::{Command, Sink, Step, too_long},
        input::Input,
        memory,
        state::{Exec, HAS_TERMINAL, LAUNCHING, RUNNING, STDERR_ENDED, STDOUT_ENDED, Verdict},
        stream::Stream,
        tree,
    },
    sys::process::{Fork, block_signals, fork, signal_descriptor, take_signals},
    user::User,
};

/// How long a stream stays open after the end of the command, for the output of processes that it left behind.
const GRACE: Duration = Duration::from_secs(2);
/// How long processes are killed again until none is left. A process that waits for a broken disk cannot be killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// First pause between two rounds of kills.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// Pause before output is written again that did not fit the disk.
const DISK_PAUSE: Duration = Duration::from_millis(100);

/// What only the first command of a container has.
#[derive(Default)]
pub struct Extras {
    /// Where stdout and stderr are copied to.
    pub copies: Option<(OwnedFd, OwnedFd)>,
    /// Closed when the command and its streams have ended.
    pub on_end: Option<OwnedFd>,
}

/// The state of the supervisor.
struct Supervisor<'a> {
    exec: &'a Exec,
    command: &'a Command,
    streams: [Stream; 2],
    input: Input,
    terminal: Option<OwnedFd>,
    wake: File,
    signals: OwnedFd,
    pid: Pid,
    deadline: Option<Instant>,
    /// When the time limit passed.
    killing: Option<Instant>,
    memory_kills: Option<u64>,
    /// When and how the command ended.
    result: Option<(Instant, Verdict)>,
    activity: Option<Activity>,
    on_end: Option<OwnedFd>,
    buffer: Vec<u8>,
}

/// The descriptors of a command and their other ends.
struct Ends {
    inner: [OwnedFd; 3],
    input: Option<OwnedFd>,
    output: [Option<OwnedFd>; 2],
    terminal: Option<OwnedFd>,
}

/// Starts the command, and returns when it and its streams have ended.
pub fn supervise(exec: &Exec, command: &Command, extras: Extras, activity: Option<Activity>) {
    if !exec.take_over() {
        return;
    }
    match Supervisor::launch(exec, command, extras, activity) {
        Ok(Some(supervisor)) => supervisor.attend(),
        Ok(None) => {}
        Err(failure) => exec.fail(&failure),
    }
}

impl<'a> Supervisor<'a> {
    /// Forks the command. None if its program could not be executed, which has a verdict already.
    fn launch(
        exec: &'a Exec,
        command: &'a Command,
        mut extras: Extras,
        activity: Option<Activity>,
    ) -> Answer<Option<Self>> {
        let failed = |error: io::Error| Failure::internal("start", error);
        let errno = |error: Errno| failed(error.into());
        // Orphans of the command become children of this process, so that they are found.
        set_child_subreaper(Pid::from_raw(1)).map_err(errno)?;
        // A signal to all processes of the container does not end the supervisor before the command.
        block_signals(&[
            libc::SIGCHLD,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGUSR1,
            libc::SIGUSR2,
        ]);
        let signals = signal_descriptor(&[libc::SIGCHLD]).map_err(failed)?;
        let file = |name: &str, append: bool| {
            let flags = OFlags::NONBLOCK.bits() as i32;
            OpenOptions::new().read(true).write(true).append(append).custom_flags(flags).open(exec.dir.join(name))
        };
        let (stdout, stderr) = (file("stdout", true).map_err(failed)?, file("stderr", true).map_err(failed)?);
        let (stdin, wake) = (file("stdin", false).map_err(failed)?, file("wake", false).map_err(failed)?);
        let ends = Ends::create(command).map_err(failed)?;
        let memory_kills = memory::kills();
        let (report_reader, report_writer) = pipe_with(PipeFlags::CLOEXEC).map_err(errno)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        exec.page().started.store(now.as_millis() as u64, Ordering::SeqCst);
        let pid = match fork().map_err(failed)? {
            Fork::Child => command.execute(ends.inner, report_writer),
            Fork::Parent(pid) => pid,
        };
        drop((report_writer, ends.inner));
        let (out_copy, err_copy) = extras.copies.take().unzip();
        let [out, err] = ends.output;
        let mut supervisor = Self {
            exec,
            command,
            streams: [
                Stream::new(out, stdout, out_copy, STDOUT_ENDED, |exec| &exec.page().stdout),
                Stream::new(err, stderr, err_copy, STDERR_ENDED, |exec| &exec.page().stderr),
            ],
            input: Input::new(ends.input, stdin, command.pty.is_some()),
            terminal: ends.terminal,
            wake,
            signals,
            pid,
            deadline: command.timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            killing: None,
            memory_kills,
            result: None,
            activity,
            on_end: extras.on_end.take(),
            buffer: Vec::new(),
        };
        if command.pty.is_some() {
            exec.set(HAS_TERMINAL);
        }
        if command.out == Sink::Discard {
            // Output of a terminal is read all the same.
            supervisor.streams[0].end(exec);
        }
        // Streams that the command does not have have ended when its start is answered.
        supervisor.streams.iter_mut().for_each(|stream| stream.settle(exec));
        if supervisor.input.writer.is_none() {
            supervisor.input.close(exec);
        }
        Ok(supervisor.executed(&report_reader)?.then_some(supervisor))
    }

    /// Waits until the program was executed. False if that failed and the verdict says so.
    fn executed(&mut self, report: &OwnedFd) -> Answer<bool> {
        let mut message = [0; 8];
        let count = loop {
            match rustix::io::read(report, &mut message) {
                Err(Errno::INTR) => {}
                other => break other.unwrap_or(0),
            }
        };
        if count < 8 {
            self.exec.advance(LAUNCHING, RUNNING);
            return Ok(true);
        }
        let (step, error) = message.split_at(4);
        let number = |bytes: &[u8]| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let error = io::Error::from_raw_os_error(number(error));
        let kind = error.kind();
        match number(step) {
            step if step == Step::User as i32 => Err(User::change_failure(&error)),
            step if step == Step::Directory as i32 || step == Step::Program as i32 => {
                if kind == io::ErrorKind::ArgumentListTooLong {
                    return Err(too_long());
                }
                let missing = matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
                let (code, reason) = if missing { (127, "not found".into()) } else { (126, error.to_string()) };
                let end = if self.terminal.is_some() { "\r\n" } else { "\n" };
                let what = match &self.command.cwd {
                    Some(cwd) if step == Step::Directory as i32 => cwd.to_string_lossy(),
                    _ => self.command.argv[0].to_string_lossy(),
                };
                let line = format!("{what}: {reason}{end}");
                let stream = match self.command.err {
                    Sink::Keep => Some(1),
                    Sink::Merge if self.command.out == Sink::Keep => Some(0),
                    _ => None,
                };
                if let Some(stream) = stream {
                    self.streams[stream].append(self.exec, line.as_bytes());
                }
                self.exec.advance(LAUNCHING, RUNNING);
                self.exec.end(Verdict::Exited(code));
                self.streams.iter_mut().for_each(|stream| stream.end(self.exec));
                self.input.close(self.exec);
                Ok(false)
            }
            _ => Err(Failure::internal("start", error)),
        }
    }

    /// Serves the command until it and all its streams have ended.
    fn attend(mut self) {
        loop {
            self.reap();
            self.pass_deadline();
            self.settle();
            if self.result.is_some() && self.exec.verdict().is_some() && self.is_drained() {
                return;
            }
            self.wait_and_serve();
        }
    }

    fn is_drained(&self) -> bool {
        self.streams.iter().all(|stream| stream.pipe.is_none() && stream.has_ended())
    }

    /// Takes the results of all ended children.
    fn reap(&mut self) {
        take_signals(&self.signals);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if pid == self.pid {
                self.result = Some((Instant::now(), self.verdict_of(status)));
            }
        }
    }

    fn verdict_of(&self, status: WaitStatus) -> Verdict {
        if self.killing.is_some() {
            return Verdict::Deadline;
        }
        if let Some(code) = status.exit_status() {
            return Verdict::Exited(code as u32);
        }
        let signal = status.terminating_signal().unwrap_or(libc::SIGKILL);
        let killed = memory::kills().zip(self.memory_kills).is_some_and(|(now, before)| now > before);
        if signal == libc::SIGKILL && killed {
            return Verdict::OutOfMemory;
        }
        Verdict::Signaled(signal as u32)
    }

    /// Kills the tree when the time limit has passed, again and again until none is left.
    fn pass_deadline(&mut self) {
        if self.result.is_none() && self.killing.is_none() && self.deadline.is_some_and(|end| end <= Instant::now()) {
            self.killing = Some(Instant::now());
        }
        if let Some(since) = self.killing
            && (tree::signal(std::process::id(), libc::SIGKILL) == 0 || since.elapsed() > KILL_LIMIT)
            && self.result.is_some()
        {
            self.killing = None;
        }
    }

    /// Publishes what is final.
    fn settle(&mut self) {
        for stream in &mut self.streams {
            stream.settle(self.exec);
        }
        if self.terminal.is_some() && self.streams[0].pipe.is_none() {
            self.input.close(self.exec);
        }
        let Some((since, verdict)) = self.result else { return };
        let late = since.elapsed() >= GRACE;
        if self.exec.verdict().is_none() && self.killing.is_none() {
            // What the command wrote before it ended is in the pipes.
            for stream in &mut self.streams {
                for _ in 0..16 {
                    if !stream.pump(self.exec, &mut self.buffer) {
                        break;
                    }
                }
                stream.settle(self.exec);
            }
            let blocked = self.streams.iter().any(Stream::is_blocked);
            if blocked && !late {
                return;
            }
            self.exec.end(if blocked { Verdict::DiskFull } else { verdict });
            self.input.close(self.exec);
            if let Some(activity) = self.activity.take() {
                let _ = activity.stamp();
            }
        }
        if late && self.exec.verdict().is_some() {
            self.streams.iter_mut().for_each(|stream| stream.end(self.exec));
        }
        if self.exec.verdict().is_some() && self.streams.iter().all(Stream::has_ended) {
            self.on_end = None;
        }
    }

    /// When something has to be done although nothing happens.
    fn timeout(&self) -> Option<Duration> {
        let until = |time: Instant| time.saturating_duration_since(Instant::now());
        let pause = |active: bool, pause: Duration| active.then_some(pause);
        let grace =
            self.result.filter(|_| !self.streams.iter().all(Stream::has_ended)).map(|(end, _)| until(end + GRACE));
        let deadline = self.deadline.filter(|_| self.result.is_none() && self.killing.is_none()).map(until);
        // Later rounds are rarer and rarer.
        let kill = self.killing.map(|since| KILL_PAUSE + since.elapsed() / 8);
        let disk = pause(self.streams.iter().any(Stream::is_blocked), DISK_PAUSE);
        [grace, deadline, kill, disk].into_iter().flatten().min()
    }

    /// Waits until something happens, and copies what there is.
    fn wait_and_serve(&mut self) {
        let timeout = self.timeout().map(|time| {
            // Rounded up, so that the time has passed afterwards.
            let time = time + Duration::from_micros(500);
            Timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos() as _ }
        });
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
        let streams = self.streams.iter().filter(|stream| !stream.is_blocked());
        polled.extend(streams.filter_map(|stream| stream.pipe.as_ref()).map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        let first_outputs = polled.len();
        if let Some(writer) = &self.input.writer {
            // Without work it still reports that all readers have gone.
            let interest = if self.input.has_work(self.exec) { PollFlags::OUT } else { PollFlags::empty() };
            // A terminal reports that through its output.
            if self.terminal.is_none() || !interest.is_empty() {
                polled.push(PollFd::new(writer, interest));
            }
        }
        let _ = poll(&mut polled, timeout.as_ref());
        let woken = !polled[1].revents().is_empty();
        let gone = self.terminal.is_none()
            && polled.get(first_outputs).is_some_and(|writer| writer.revents().contains(PollFlags::ERR));
        drop(polled);
        if woken {
            let mut bytes = [0; 64];
            while rustix::io::read(&self.wake, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
            self.resize();
        }
        if gone {
            self.input.close(self.exec);
        }
        self.input.pump(self.exec, &mut self.buffer);
        for stream in &mut self.streams {
            stream.pump(self.exec, &mut self.buffer);
        }
    }

    /// Applies the size of the terminal that was asked for last.
    fn resize(&self) {
        let page = self.exec.page();
        let wanted = page.size_wanted.load(Ordering::SeqCst);
        if wanted == page.size_applied.load(Ordering::SeqCst) {
            return;
        }
        if let Some(terminal) = &self.terminal {
            let _ = tcsetwinsize(terminal, window((wanted >> 16) as u16, wanted as u16));
        }
        page.size_applied.store(wanted, Ordering::SeqCst);
        self.exec.wake();
    }
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Ends {
    /// Creates the pipes or the terminal. They belong to the user, who may open them again by `/dev/stdout`.
    fn create(command: &Command) -> io::Result<Self> {
        let own = |end: &OwnedFd| {
            if let Some(user) = &command.user {
                let _ = fchown(end, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)));
            }
        };
        let again = |end: &OwnedFd| fcntl_dupfd_cloexec(end, 3);
        if let Some((rows, columns)) = command.pty {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = openpt(flags)?;
            grantpt(&master)?;
            unlockpt(&master)?;
            let inner = ioctl_tiocgptpeer(&master, flags)?;
            own(&inner);
            tcsetwinsize(&master, window(rows, columns))?;
            unblock(&master)?;
            let inner = [again(&inner)?, again(&inner)?, inner];
            let output = [Some(again(&master)?), None];
            return Ok(Self { inner, input: Some(again(&master)?), output, terminal: Some(master) });
        }
        let null = || -> io::Result<OwnedFd> {
            Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
        };
        let output = |kept: bool| -> io::Result<(Option<OwnedFd>, OwnedFd)> {
            if !kept {
                return Ok((None, null()?));
            }
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            own(&writer);
            unblock(&reader)?;
            Ok((Some(reader), writer))
        };
        let (out, stdout) = output(command.out == Sink::Keep)?;
        let (err, stderr) = match command.err {
            Sink::Merge => (None, again(&stdout)?),
            sink => output(sink == Sink::Keep)?,
        };
        let (input, stdin) = if command.stdin {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
            own(&reader);
            unblock(&writer)?;
            (Some(writer), reader)
        } else {
            (None, null()?)
        };
        Ok(Self { inner: [stdin, stdout, stderr], input, output: [out, err], terminal: None })
    }
}

fn unblock(end: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&end)?;
    Ok(rustix::fs::fcntl_setfl(&end, flags | OFlags::NONBLOCK)?)
}

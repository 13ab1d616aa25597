//! The engine's side of a running container: one task per container that talks with its init and sees it end.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, bail, ensure};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, oneshot, watch},
};

use super::{
    Exit, Process, ProcessSpec,
    cgroups::Group,
    engine::Shared,
    protocol::{Inbox, Message, Reply, Request, Setup, has_zero, send_some},
    spawn::Init,
    tree::remove_tree,
};

/// What pipes are enlarged to. The default of 64 KiB costs a wake-up for each; beyond this nothing more is gained.
const PIPE_SIZE: i32 = 256 * 1024;

/// What the container's init answers to the start of a process.
type Started = Result<(i32, Option<OwnedFd>), String>;

/// A frame on its way to init.
struct Outgoing {
    frame: Vec<u8>,
    fds: Vec<OwnedFd>,
}

#[derive(Debug, Default)]
struct Processes {
    /// Init is gone; nothing will be answered any more.
    gone: bool,
    starting: HashMap<u64, (oneshot::Sender<Started>, oneshot::Sender<Exit>)>,
    running: HashMap<u64, oneshot::Sender<Exit>>,
}

/// How a container ended.
#[derive(Debug, Clone, Copy)]
struct End {
    out_of_memory: bool,
}

/// A running container, as its task and its handle see it.
#[derive(Debug)]
pub(super) struct Link {
    engine: Arc<Shared>,
    id: String,
    directory: PathBuf,
    upper: PathBuf,
    group: Group,
    pidfd: OwnedFd,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    ready: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
    processes: Mutex<Processes>,
    next: AtomicU64,
    stopped: AtomicBool,
    reaped: AtomicBool,
    end: watch::Sender<Option<End>>,
}

impl Link {
    /// Starts the task that lives as long as init does.
    pub(super) fn new(
        engine: Arc<Shared>,
        id: String,
        directory: PathBuf,
        upper: PathBuf,
        group: Group,
        init: Init,
    ) -> anyhow::Result<Arc<Self>> {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let watched = || -> io::Result<_> {
            let pidfd = init.pidfd.try_clone()?;
            // Safety: both own their descriptors and keep the same one open as long as they live.
            unsafe {
                let ended = AsyncFd::register_with_interest(pidfd, Interest::READABLE)?;
                Ok((ended, AsyncFd::register(init.control)?))
            }
        };
        let (ended, control) = watched().inspect_err(|_| {
            Init::kill(&init.pidfd);
            Init::reap(&init.pidfd);
        })?;
        let link = Arc::new(Self {
            engine,
            id,
            directory,
            upper,
            group,
            pidfd: init.pidfd,
            outgoing,
            ready: Mutex::default(),
            processes: Mutex::default(),
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            reaped: AtomicBool::new(false),
            end: watch::Sender::new(None),
        });
        tokio::spawn(link.clone().live(control, queue, ended));
        Ok(link)
    }

    async fn live(
        self: Arc<Self>,
        control: AsyncFd<UnixStream>,
        queue: mpsc::UnboundedReceiver<Outgoing>,
        ended: AsyncFd<OwnedFd>,
    ) {
        // Ends with the stream's end: init is gone, or talks nonsense and must go.
        let result = tokio::select! {
            result = self.read(&control) => result,
            never = write_all(&control, queue) => match never {},
        };
        if let Err(error) = result {
            tracing::debug!(container = self.id, %error, "the link broke");
        }
        Init::kill(&self.pidfd);
        let _ = ended.readable().await;
        Init::reap(&self.pidfd);
        self.reaped.store(true, Ordering::SeqCst);
        let left = {
            let mut processes = self.processes();
            processes.gone = true;
            (std::mem::take(&mut processes.starting), std::mem::take(&mut processes.running))
        };
        // Tells those who wait.
        drop(left);
        let out_of_memory = !self.stopped.load(Ordering::SeqCst) && self.group.oom_kills() > 0;
        self.end.send_replace(Some(End { out_of_memory }));
        let _ = tokio::task::spawn_blocking(move || {
            self.clear();
            self.engine.forget(&self.id);
        })
        .await;
    }

    /// Takes away all but what was written.
    fn clear(&self) {
        self.group.remove();
        for part in ["work", "root", "own"] {
            if let Err(error) = remove_tree(&self.directory.join(part)) {
                tracing::warn!(container = self.id, %error, "cannot remove a directory");
            }
        }
    }

    async fn read(&self, control: &AsyncFd<UnixStream>) -> io::Result<()> {
        let mut inbox = Inbox::default();
        loop {
            while let Some((reply, mut fds)) = inbox.take::<Reply>()? {
                self.take(reply, fds.pop());
            }
            let mut guard = control.readable().await?;
            match guard.try_io(|control| inbox.receive_some(control.as_raw_fd())) {
                Ok(Ok(true)) | Err(_) => {}
                Ok(Ok(false)) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    fn take(&self, reply: Reply, terminal: Option<OwnedFd>) {
        match reply {
            Reply::Ready(_) => self.answer(Ok(())),
            Reply::Failed(message) => self.answer(Err(message)),
            Reply::Started { id, pid } => {
                let Some((started, exit)) = self.processes().starting.remove(&id) else { return };
                self.processes().running.insert(id, exit);
                if started.send(Ok((pid, terminal))).is_err() {
                    // Whoever asked has given up and would never know of it.
                    let _ = self.send(&Request::Kill { pid, signal: libc::SIGKILL }, Vec::new());
                }
            }
            Reply::Refused { id, message } => {
                if let Some((started, _)) = self.processes().starting.remove(&id) {
                    let _ = started.send(Err(message));
                }
            }
            Reply::Exited { id, exit } => {
                if let Some(sender) = self.processes().running.remove(&id) {
                    let _ = sender.send(exit);
                }
            }
        }
    }

    fn answer(&self, result: Result<(), String>) {
        if let Some(ready) = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = ready.send(result);
        }
    }

    /// Has init build the root.
    pub(super) async fn start(&self, setup: Setup) -> anyhow::Result<()> {
        let (sender, receiver) = oneshot::channel();
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.send(&Request::Setup(setup), Vec::new())?;
        tokio::select! {
            answer = receiver => match answer? {
                Ok(()) => Ok(()),
                Err(message) => bail!(message),
            },
            _ = self.ended() => bail!("it ended while its root was built"),
        }
    }

    fn send(&self, request: &Request, fds: Vec<OwnedFd>) -> anyhow::Result<()> {
        let frame = request.pack(fds.len())?;
        self.outgoing.send(Outgoing { frame, fds }).ok().context("the container has ended")
    }

    pub(super) async fn spawn(&self, spec: ProcessSpec) -> anyhow::Result<Process> {
        ensure!(!spec.argv.is_empty(), "no program given");
        ensure!(spec.cwd.as_os_str().is_empty() || spec.cwd.is_absolute(), "not absolute: {}", spec.cwd.display());
        let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
        let zero = spec.argv.iter().chain(variables).any(|text| has_zero(text)) || has_zero(spec.cwd.as_os_str());
        ensure!(!zero, "an argument, a variable or the directory contains a zero byte");

        let (ours, theirs) = match spec.pty {
            Some(_) => (None, Vec::new()),
            None => {
                let (stdin, our_stdin) = pipe2(OFlag::O_CLOEXEC)?;
                let (our_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
                let (our_stderr, stderr) = if spec.merge_stderr {
                    (None, stdout.try_clone()?)
                } else {
                    let (ours, theirs) = pipe2(OFlag::O_CLOEXEC)?;
                    (Some(ours), theirs)
                };
                for pipe in [&our_stdin, &our_stdout] {
                    // Refused beyond a user's share; then they stay as they are.
                    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
                }
                (Some((our_stdin, our_stdout, our_stderr)), vec![stdin, stdout, stderr])
            }
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (started, answer) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        {
            let mut processes = self.processes();
            ensure!(!processes.gone, "the container has ended");
            processes.starting.insert(id, (started, exited));
        }
        self.send(&Request::Spawn { id, spec }, theirs)?;
        let (pid, terminal) = match answer.await.context("the container has ended")? {
            Ok(started) => started,
            Err(message) => bail!("cannot start a process: {message}"),
        };
        let (stdin, stdout, stderr) = match (ours, terminal) {
            (Some(pipes), _) => pipes,
            (None, Some(master)) => (master.try_clone()?, master, None),
            (None, None) => bail!("the container's init sent no terminal"),
        };
        for fd in [Some(&stdin), Some(&stdout), stderr.as_ref()].into_iter().flatten() {
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Process { pid, stdin, stdout, stderr, exit })
    }

    pub(super) fn signal(&self, pid: i32, signal: i32) -> anyhow::Result<()> {
        ensure!((0..=64).contains(&signal), "not a signal: {signal}");
        ensure!(!self.processes().gone, "the container has ended");
        self.send(&Request::Kill { pid, signal }, Vec::new())
    }

    /// Kills everything inside; does not wait.
    pub(super) fn kill(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        Init::kill(&self.pidfd);
    }

    /// Resolves when all is gone; true if that was for want of memory.
    pub(super) async fn ended(&self) -> bool {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.is_some_and(|end| end.out_of_memory),
            Err(_) => false,
        }
    }

    pub(super) fn oom_killed(&self) -> bool {
        self.group.oom_kills() > 0
    }

    /// The number of init as the machine counts processes; it is in the kernel's own account of the descriptor.
    pub(super) fn machine_pid(&self) -> Option<i32> {
        let account = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd())).ok()?;
        let line = account.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        line.trim().parse().ok().filter(|pid| *pid > 0)
    }

    pub(super) fn upper(&self) -> &Path {
        &self.upper
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Link {
    /// Only reached before the end when the runtime is taken down: its task, which holds one, was dropped.
    fn drop(&mut self) {
        if !*self.reaped.get_mut() {
            Init::kill(&self.pidfd);
            Init::reap(&self.pidfd);
            self.clear();
        }
    }
}

/// Never returns: that the stream is broken shows on the reading side, once all that was sent before is read.
async fn write_all(control: &AsyncFd<UnixStream>, mut queue: mpsc::UnboundedReceiver<Outgoing>) -> Infallible {
    while let Some(outgoing) = queue.recv().await {
        if write(control, outgoing).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

async fn write(control: &AsyncFd<UnixStream>, Outgoing { frame, fds }: Outgoing) -> io::Result<()> {
    let mut sent = 0;
    while sent < frame.len() {
        let mut guard = control.writable().await?;
        let raw: Vec<_> = if sent == 0 { fds.iter().map(AsRawFd::as_raw_fd).collect() } else { Vec::new() };
        match guard.try_io(|control| send_some(control.as_raw_fd(), &frame[sent..], &raw)) {
            Ok(Ok(count)) => sent += count,
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
    Ok(())
}

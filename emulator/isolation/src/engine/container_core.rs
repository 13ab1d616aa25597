//! The engine's side of a running container: one task per container that exchanges messages with its init process and
//! waits for its end.

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
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use anyhow::{Context, bail, ensure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::pipe2,
};
use tokio::{
    io::unix::AsyncFd,
    net::TcpSocket,
    sync::{Mutex as AsyncMutex, mpsc, oneshot, watch},
};

use super::engine_core::EngineCore;
use crate::{
    cgroups::Group,
    live_mounts::{Answer, Order, What},
    protocol::{Inbox, Reply, Request, Setup, has_zero, pack, send_some},
    rootfs::{self, Root, layer, remove_tree},
    spawner::Init,
    spec::{DirectoryError, End, Exit, MountSpec, Process, ProcessSpec},
    sys,
};

/// Capacity of the pipes for standard streams, in bytes. With the default of 64 KiB, each 64 KiB cost a wake-up; more
/// than 256 KiB gains nothing further.
const PIPE_SIZE: i32 = 256 * 1024;

/// Init's reply to the start of a process: its pid, and the master of its terminal if it has one.
type Started = Result<(i32, Option<OwnedFd>), String>;

/// A frame to be sent to init.
struct Outgoing {
    frame: Vec<u8>,
    fds: Vec<OwnedFd>,
}

#[derive(Debug, Default)]
struct Processes {
    /// Init has ended, so no more replies will come.
    gone: bool,
    starting: HashMap<u64, (oneshot::Sender<Started>, oneshot::Sender<Exit>)>,
    running: HashMap<u64, oneshot::Sender<Exit>>,
    sockets: HashMap<u64, oneshot::Sender<Result<OwnedFd, String>>>,
}

/// The directories of a container on the machine.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) directory: PathBuf,
    pub(crate) upper: PathBuf,
    /// Limit of the bytes that the container may write. With a limit, they are written to a tmpfs instead of `upper`.
    pub(crate) disk: Option<u64>,
    /// Directories of the machine that are mounted writable, each with the subdirectory that the container sees.
    pub(crate) shared: Vec<(PathBuf, PathBuf)>,
}

/// The images mounted in a running container.
#[derive(Debug, Default)]
struct Mounted {
    /// Mount ids by mount point, in the order in which they were mounted.
    at: HashMap<PathBuf, Vec<u64>>,
    count: usize,
}

/// A running container; shared by its task and its handle.
#[derive(Debug)]
pub(crate) struct ContainerCore {
    engine: Arc<EngineCore>,
    id: String,
    places: Places,
    /// The directory of the tmpfs that the container writes to, if its disk is limited.
    limited: OnceLock<OwnedFd>,
    group: Group,
    pidfd: OwnedFd,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    ready: Mutex<Option<oneshot::Sender<Result<(), String>>>>,
    device: Mutex<Option<OwnedFd>>,
    processes: Mutex<Processes>,
    next: AtomicU64,
    mounted: AsyncMutex<Mounted>,
    stopped: AtomicBool,
    /// Removal of the container's written files has begun.
    removed: AtomicBool,
    evicted: AtomicBool,
    reaped: AtomicBool,
    end: watch::Sender<Option<End>>,
}

impl ContainerCore {
    /// Starts the task of the container, which runs until init has ended.
    pub(crate) fn new(
        engine: Arc<EngineCore>,
        id: String,
        places: Places,
        group: Group,
        init: Init,
    ) -> anyhow::Result<Arc<Self>> {
        let (outgoing, queue) = mpsc::unbounded_channel();
        let watched = || -> io::Result<_> {
            Ok((sys::watch_readable(init.pidfd.try_clone()?)?, sys::watch_socket(init.control)?))
        };
        let (ended, control) = watched().inspect_err(|_| {
            Init::kill(&init.pidfd);
            Init::reap(&init.pidfd);
        })?;
        let link = Arc::new(Self {
            engine,
            id,
            places,
            limited: OnceLock::new(),
            group,
            pidfd: init.pidfd,
            outgoing,
            ready: Mutex::default(),
            device: Mutex::default(),
            processes: Mutex::default(),
            next: AtomicU64::new(0),
            mounted: AsyncMutex::default(),
            stopped: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            reaped: AtomicBool::new(false),
            end: watch::Sender::new(None),
        });
        tokio::spawn(link.clone().live(control, queue, ended));
        Ok(link)
    }

    /// Runs the container's task: exchanges messages with init until the stream ends, then kills and reaps init, and
    /// cleans up.
    async fn live(
        self: Arc<Self>,
        control: AsyncFd<UnixStream>,
        queue: mpsc::UnboundedReceiver<Outgoing>,
        ended: AsyncFd<OwnedFd>,
    ) {
        // The select ends when the stream ends or fails: init has ended, or it sent an invalid frame and must be killed.
        let result = tokio::select! {
            result = self.read(&control) => result,
            never = write_all(&control, queue) => match never {},
        };
        if let Err(error) = result {
            tracing::debug!(container = self.id, %error, "the connection to the container's init failed");
        }
        Init::kill(&self.pidfd);
        let _ = ended.readable().await;
        Init::reap(&self.pidfd);
        self.reaped.store(true, Ordering::SeqCst);
        let left = {
            let mut processes = self.processes();
            // Includes the senders of all replies that are still awaited.
            std::mem::replace(&mut *processes, Processes { gone: true, ..Default::default() })
        };
        // Dropping the senders wakes the tasks that wait for a reply.
        drop(left);
        let end = if self.evicted.load(Ordering::SeqCst) {
            End::OutOfDisk
        } else if !self.stopped.load(Ordering::SeqCst) && self.group.oom_kills() > 0 {
            End::OutOfMemory
        } else {
            End::Over
        };
        self.end.send_replace(Some(end));
        let _ = tokio::task::spawn_blocking(move || {
            self.clear();
            self.engine.forget(&self.id);
        })
        .await;
    }

    /// Removes the container's directories, except the files that it has written, and its control groups.
    fn clear(&self) {
        self.group.remove();
        for part in ["work", "root", "own", "mounts"] {
            if let Err(error) = remove_tree(&self.places.directory.join(part)) {
                tracing::warn!(container = self.id, %error, "cannot remove a directory");
            }
        }
    }

    /// Reads and handles replies until the stream ends.
    async fn read(&self, control: &AsyncFd<UnixStream>) -> io::Result<()> {
        let mut inbox = Inbox::default();
        loop {
            while let Some((reply, fds)) = inbox.take::<Reply>()? {
                self.take(reply, fds);
            }
            let mut guard = control.readable().await?;
            match guard.try_io(|control| inbox.receive_some(control.get_ref())) {
                Ok(Ok(true)) | Err(_) => {}
                Ok(Ok(false)) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Handles one reply.
    fn take(&self, reply: Reply, mut fds: Vec<OwnedFd>) {
        match reply {
            Reply::Ready(_) => {
                let _ = fds.pop_if(|_| self.places.disk.is_some()).map(|limited| self.limited.set(limited));
                *self.device.lock().unwrap_or_else(PoisonError::into_inner) = fds.pop();
                self.answer(Ok(()));
            }
            Reply::Failed(message) => self.answer(Err(message)),
            Reply::Started { id, pid } => {
                let Some((started, exit)) = self.processes().starting.remove(&id) else { return };
                self.processes().running.insert(id, exit);
                if started.send(Ok((pid, fds.pop()))).is_err() {
                    // The caller has stopped waiting, so it will never know about this process.
                    let _ = self.send(&Request::Kill { pid, signal: libc::SIGKILL }, Vec::new());
                }
            }
            Reply::Refused { id, message } => {
                let mut processes = self.processes();
                if let Some((started, _)) = processes.starting.remove(&id) {
                    let _ = started.send(Err(message));
                } else if let Some(socket) = processes.sockets.remove(&id) {
                    let _ = socket.send(Err(message));
                }
            }
            Reply::Socket { id } => {
                if let Some((sender, fd)) = self.processes().sockets.remove(&id).zip(fds.pop()) {
                    let _ = sender.send(Ok(fd));
                }
            }
            Reply::Exited { id, exit } => {
                if let Some(sender) = self.processes().running.remove(&id) {
                    let _ = sender.send(exit);
                }
            }
        }
    }

    /// Reports the result of the set-up to `start`.
    fn answer(&self, result: Result<(), String>) {
        if let Some(ready) = self.ready.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = ready.send(result);
        }
    }

    /// Sends the set-up to init and waits until init has built the root.
    pub(crate) async fn start(&self, setup: Setup) -> anyhow::Result<()> {
        let (sender, receiver) = oneshot::channel();
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.send(&Request::Setup(setup), Vec::new())?;
        tokio::select! {
            // A failing init sends a reply and exits, and both can be ready when this is polled: the reply has to win.
            biased;
            answer = receiver => match answer? {
                Ok(()) => Ok(()),
                Err(message) => bail!(message),
            },
            _ = self.ended() => bail!("the container ended while its root was built"),
        }
    }

    /// Queues a request to init. Fails if the container has ended or the request is too large.
    fn send(&self, request: &Request, fds: Vec<OwnedFd>) -> anyhow::Result<()> {
        let frame = pack(request, fds.len())?;
        self.outgoing.send(Outgoing { frame, fds }).ok().context("the container has ended")
    }

    /// Starts a process and waits for init's reply.
    pub(crate) async fn spawn(&self, spec: ProcessSpec) -> anyhow::Result<Process> {
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
                    // Fails if the user's pipe quota is exhausted; the pipe then keeps its default size.
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
        if let Err(error) = self.send(&Request::Spawn { id, spec }, theirs) {
            self.processes().starting.remove(&id);
            return Err(error);
        }
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

    /// Returns an unconnected TCP socket in the container's network namespace. Init only creates the socket, because
    /// connecting could block it.
    ///
    /// # Errors
    ///
    /// Fails with `NotConnected` if the container has ended.
    pub(crate) async fn socket(&self, ipv6: bool) -> io::Result<TcpSocket> {
        let ended = || io::Error::new(io::ErrorKind::NotConnected, "the container has ended");
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        {
            let mut processes = self.processes();
            if processes.gone {
                return Err(ended());
            }
            processes.sockets.insert(id, sender);
        }
        self.send(&Request::Socket { id, ipv6 }, Vec::new()).map_err(io::Error::other)?;
        let socket = receiver.await.map_err(|_| ended())?.map_err(io::Error::other)?;
        Ok(TcpSocket::from_std_stream(std::net::TcpStream::from(socket)))
    }

    /// Returns the container's network device. Returns `None` if it has none, or if the device was returned before.
    pub(crate) fn device(&self) -> Option<OwnedFd> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends a signal to a process's group and session. Fails if the signal number is invalid or the container has ended.
    pub(crate) fn signal(&self, pid: i32, signal: i32) -> anyhow::Result<()> {
        ensure!((0..=64).contains(&signal), "not a signal: {signal}");
        ensure!(!self.processes().gone, "the container has ended");
        self.send(&Request::Kill { pid, signal }, Vec::new())
    }

    /// Mounts an image. Holds a lock during the mount, so that the order of mounts on the same path is known.
    pub(crate) async fn mount(self: Arc<Self>, spec: MountSpec) -> Result<(), DirectoryError> {
        let mut mounted = self.mounted.lock().await;
        let target: PathBuf = spec.target.components().collect();
        mounted.count += 1;
        let directory = self.places.directory.join("mounts").join(mounted.count.to_string());
        let (link, place) = (self.clone(), target.clone());
        let attached = tokio::task::spawn_blocking(move || {
            let what = match &spec.directory {
                Some(directory) => What::Directory(directory.clone()),
                None => {
                    let (stage, overlays) = link.engine.lay_out_mount(&spec, &directory)?;
                    What::Overlays { stage, overlays, disk: spec.disk.or(link.places.disk) }
                }
            };
            let (source, read_only) = (spec.source, spec.read_only);
            let answer = link.engine.attach(&link.pidfd, Order::Mount { what, source, read_only, target: place });
            if !matches!(answer, Ok(Answer::Mounted(_))) {
                remove_tree(&directory)?;
            }
            answer
        });
        match attached.await.map_err(anyhow::Error::from)?? {
            Answer::Mounted(mount) => {
                mounted.at.entry(target).or_default().push(mount);
                Ok(())
            }
            other => Err(refusal(other)),
        }
    }

    /// Removes all mounts at a path that were made with `mount`, the last one first.
    pub(crate) async fn unmount(self: Arc<Self>, target: &Path) -> Result<(), DirectoryError> {
        let mut mounted = self.mounted.lock().await;
        let target: PathBuf = target.components().collect();
        let mounts = mounted.at.remove(&target).ok_or(DirectoryError::NotMounted)?;
        for mount in mounts.into_iter().rev() {
            let (link, target) = (self.clone(), target.clone());
            let order = Order::Unmount { target, mount };
            let detached = tokio::task::spawn_blocking(move || link.engine.attach(&link.pidfd, order));
            match detached.await.map_err(anyhow::Error::from)?? {
                Answer::Unmounted => {}
                other => return Err(refusal(other)),
            }
        }
        Ok(())
    }

    /// Opens the container's root directory. Blocks for a short time.
    pub(crate) fn root(&self) -> anyhow::Result<Root> {
        let pid = self.machine_pid().context("the container has ended")?;
        let root = Root::open(Path::new(&format!("/proc/{pid}/root"))).context("cannot enter the container")?;
        // The pid could have been reused while the path was opened. Checked again: as long as init has not been reaped,
        // its pid belongs to no other process.
        self.machine_pid().context("the container has ended")?;
        Ok(root)
    }

    /// Copies a directory into `to` as processes inside see it.
    pub(crate) fn copy_directory(&self, path: &Path, to: &Path) -> Result<(), DirectoryError> {
        let directory = self.root()?.open_directory(path).map_err(|error| match error {
            Errno::ENOENT => DirectoryError::Missing,
            Errno::ENOTDIR | Errno::ELOOP => DirectoryError::NotADirectory,
            other => DirectoryError::Failed(anyhow::Error::new(other).context("cannot open the directory")),
        })?;
        Ok(layer::copy_seen(directory, to)?)
    }

    /// Kills all processes of the container. Does not wait for their end.
    pub(crate) fn kill(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        Init::kill(&self.pidfd);
    }

    /// Records that the removal of the written files begins now.
    pub(crate) fn removing(&self) {
        self.removed.store(true, Ordering::SeqCst);
    }

    /// Fails if the removal of the written files has begun: a copy of them may be incomplete.
    pub(crate) fn ensure_whole(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.removed.load(Ordering::SeqCst), "the container has ended meanwhile");
        Ok(())
    }

    /// Kills all processes of the container because the disk is full. Returns `false` if the container is already being
    /// stopped.
    pub(crate) fn evict(&self) -> bool {
        if self.stopped.load(Ordering::SeqCst) {
            return false;
        }
        self.evicted.store(true, Ordering::SeqCst);
        self.kill();
        true
    }

    /// Returns the number of bytes on disk that the container has written, including all files in directories of the
    /// machine that it may write to.
    pub(crate) fn used(&self) -> u64 {
        let all = Path::new("");
        let own = [(&*self.places.upper, all), (&*self.places.directory, Path::new("mounts"))];
        let shared = self.places.shared.iter().map(|(source, inside)| (&**source, &**inside));
        own.into_iter().chain(shared).map(|(tree, inside)| rootfs::used(tree, inside)).sum()
    }

    /// Kills all processes of the container and waits until they and its mounts are gone.
    pub(crate) async fn stop(&self) {
        self.kill();
        self.ended().await;
    }

    /// Waits until the container has ended. Returns the reason.
    pub(crate) async fn ended(&self) -> End {
        let mut end = self.end.subscribe();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(End::Over),
            Err(_) => End::Over,
        }
    }

    /// Returns whether the OOM killer has killed a process of the container.
    pub(crate) fn oom_killed(&self) -> bool {
        self.group.oom_kills() > 0
    }

    /// Returns the processor time used so far, in microseconds, and the memory in use, in bytes.
    pub(crate) fn usage(&self) -> (u64, u64) {
        self.group.usage()
    }

    /// Returns the pid of init in the machine's pid namespace, from the kernel's `fdinfo` of the pidfd. Returns `None` if
    /// init has been reaped.
    pub(crate) fn machine_pid(&self) -> Option<i32> {
        let account = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd())).ok()?;
        let line = account.lines().find_map(|line| line.strip_prefix("Pid:"))?;
        line.trim().parse().ok().filter(|pid| *pid > 0)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the path of the directory that contains the written files. The path is valid as long as `self` exists.
    pub(crate) fn written(&self) -> PathBuf {
        match self.limited.get() {
            Some(limited) => format!("/proc/self/fd/{}", limited.as_raw_fd()).into(),
            None => self.places.upper.clone(),
        }
    }

    /// Returns the directory of written files. It is empty if the disk is limited.
    pub(crate) fn upper(&self) -> &Path {
        &self.places.upper
    }

    /// Returns the container's own directory in the state directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.places.directory
    }

    fn processes(&self) -> MutexGuard<'_, Processes> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ContainerCore {
    /// A container that was not reaped is dropped only if the runtime is shut down and drops the container's task.
    fn drop(&mut self) {
        if !*self.reaped.get_mut() {
            Init::kill(&self.pidfd);
            Init::reap(&self.pidfd);
            self.clear();
        }
    }
}

/// Converts an answer that is not the expected one to an error.
fn refusal(answer: Answer) -> DirectoryError {
    match answer {
        Answer::NotADirectory => DirectoryError::NotADirectory,
        Answer::NoSource => DirectoryError::NoSource,
        Answer::Reserved => DirectoryError::Reserved,
        Answer::NotMounted => DirectoryError::NotMounted,
        Answer::Failed(message) => DirectoryError::Failed(anyhow::Error::msg(message)),
        Answer::Mounted(_) | Answer::Unmounted => DirectoryError::Failed(anyhow::Error::msg("an unexpected response")),
    }
}

/// Sends queued frames. Never returns: a broken stream is reported by the reading side, after it has read everything that
/// was sent before.
async fn write_all(control: &AsyncFd<UnixStream>, mut queue: mpsc::UnboundedReceiver<Outgoing>) -> Infallible {
    while let Some(outgoing) = queue.recv().await {
        if write(control, outgoing).await.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Sends one frame with its descriptors.
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

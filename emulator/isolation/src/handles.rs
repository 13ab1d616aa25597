//! The two public handles: the engine and its containers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use tokio::net::TcpStream;

use crate::{
    engine::{ContainerCore, EngineCore},
    rootfs::{Root, layer, remove_tree},
    spec::{ContainerSpec, DirectoryError, End, MountSpec, Process, ProcessSpec},
};

/// Creates containers. An emulator has one engine.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<EngineCore>,
}

/// A running container. Dropping it kills its processes and removes its mounts; its `upper` directory stays until
/// [`Container::remove`].
#[derive(Debug)]
pub struct Container {
    link: Arc<ContainerCore>,
}

impl Engine {
    /// Prepares the state directory, which is created if missing, and finds out what this machine supports. Removes what
    /// killed emulators left in sibling state directories.
    ///
    /// `program` is executed for the inner roles; it must call [`crate::child_entry`] first in `main`. Starts a trial
    /// container, so this blocks for some tens of milliseconds. With `devices`, containers with network devices must be
    /// possible.
    ///
    /// # Errors
    ///
    /// Fails if containers cannot be started on this machine, if `devices` is true and network devices are not available,
    /// or if the state directory cannot be prepared.
    pub fn new(state: &Path, program: &Path, devices: bool) -> anyhow::Result<Engine> {
        Ok(Engine { shared: Arc::new(EngineCore::new(state, program, devices)?) })
    }

    /// Returns one sentence for each limit that cannot be enforced on this machine, for the log at start.
    pub fn limits_missing(&self) -> &[String] {
        self.shared.limits_missing()
    }

    /// Starts a container. Returns when processes can be started in it.
    ///
    /// # Errors
    ///
    /// Fails if the specification is invalid, the id is in use, the engine is shut down, or the container's root cannot
    /// be built.
    pub async fn start(&self, spec: ContainerSpec) -> anyhow::Result<Container> {
        let shared = self.shared.clone();
        // A separate task, because cancelling the start half-way would leave directories and control groups behind.
        Ok(Container { link: tokio::spawn(async move { shared.start(spec).await }).await?? })
    }

    /// Returns the number of bytes on disk that each running container has written, by id: its own files, and all files
    /// in directories of the machine that it may write to. Traverses all these directories.
    pub fn usage(&self) -> Vec<(String, u64)> {
        self.shared.usage()
    }

    /// Kills a container because the disk is full. Returns `false` if it is not running or already being stopped.
    pub fn evict(&self, id: &str) -> bool {
        self.shared.running(id).is_some_and(|link| link.evict())
    }

    /// Returns whether a container with this id is running or still being cleaned up.
    pub fn runs(&self, id: &str) -> bool {
        self.shared.running(id).is_some()
    }

    /// Returns whether written files of ended containers still exist. Their removal is about to free space.
    pub fn clearing(&self) -> bool {
        self.shared.clearing()
    }

    /// Kills all containers and removes everything that the engine created. Idempotent.
    pub async fn shutdown(&self) {
        self.shared.shutdown().await;
    }
}

impl Container {
    /// Returns its [`ContainerSpec::id`].
    pub fn id(&self) -> &str {
        self.link.id()
    }

    /// Starts a process.
    ///
    /// # Errors
    ///
    /// Fails if the specification is invalid, the container has ended, or the process cannot be created. A missing
    /// program is not an error here: the process then exits with code 127.
    pub async fn spawn(&self, spec: ProcessSpec) -> anyhow::Result<Process> {
        self.link.spawn(spec).await
    }

    /// Sends a signal to the process group and the session of a process started by [`Container::spawn`]. Does nothing if
    /// it has ended.
    ///
    /// # Errors
    ///
    /// Fails if `signal` is not in 0..=64 or the container has ended.
    pub async fn kill(&self, pid: i32, signal: i32) -> anyhow::Result<()> {
        self.link.signal(pid, signal)
    }

    /// Returns the emulator's side of the network device, non-blocking. Each read returns one IP packet that was sent
    /// inside; each write delivers one. Returns `None` if the container has no device, or if the device was returned
    /// before.
    pub fn device(&self) -> Option<OwnedFd> {
        self.link.device()
    }

    /// Connects to a port on the container's loopback interface, over IPv4 first and then IPv6.
    ///
    /// # Errors
    ///
    /// Fails with the error of the IPv4 attempt if both attempts fail, and with `NotConnected` if the container has
    /// ended.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let refused = match self.link.socket(false).await?.connect((Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(refused) => refused,
        };
        let connected = self.link.socket(true).await?.connect((Ipv6Addr::LOCALHOST, port).into()).await;
        connected.map_err(|_| refused)
    }

    /// Opens the container's root directory, to access its files from outside.
    ///
    /// # Errors
    ///
    /// Fails if the container has ended.
    pub async fn root(&self) -> anyhow::Result<Root> {
        let link = self.link.clone();
        tokio::task::spawn_blocking(move || link.root()).await?
    }

    /// Returns the directory of all files that were written in this container. A copy of it is a layer for other
    /// containers. It is empty if the container's disk is limited.
    pub fn upper(&self) -> &Path {
        self.link.upper()
    }

    /// Copies the files written so far into `to` as a layer. Keeps whiteouts, opaque directories, owners, modes, times
    /// and links. Processes may run meanwhile.
    ///
    /// # Errors
    ///
    /// Fails if the copy fails, or if the removal of the container has begun.
    pub async fn snapshot(&self, to: &Path) -> anyhow::Result<()> {
        let (from, to) = (self.link.written(), to.to_owned());
        tokio::task::spawn_blocking(move || layer::copy_layer(&from, &to)).await??;
        self.link.ensure_whole()
    }

    /// Copies a directory as processes inside see it, without the mounts below it, into `to` as a layer. Processes may
    /// run meanwhile.
    ///
    /// # Errors
    ///
    /// Fails with [`DirectoryError::Missing`] or [`DirectoryError::NotADirectory`] if `path` does not lead to a
    /// directory, and with [`DirectoryError::Failed`] otherwise.
    pub async fn snapshot_directory(&self, path: &Path, to: &Path) -> Result<(), DirectoryError> {
        let (link, path, to) = (self.link.clone(), path.to_owned(), to.to_owned());
        let copied = tokio::task::spawn_blocking(move || link.copy_directory(&path, &to)).await;
        copied.map_err(anyhow::Error::from)??;
        Ok(self.link.ensure_whole()?)
    }

    /// Mounts an image, visible for all processes at once. Hides what was at the path, including earlier mounts. Files
    /// written to the mount are stored separately from the container's other files.
    ///
    /// # Errors
    ///
    /// Fails with [`DirectoryError::NotADirectory`] if the target does not fit, [`DirectoryError::NoSource`] if the image
    /// does not contain the source, [`DirectoryError::Reserved`] if nothing may be mounted at the target, and
    /// [`DirectoryError::Failed`] otherwise.
    pub async fn mount(&self, spec: MountSpec) -> Result<(), DirectoryError> {
        let link = self.link.clone();
        // A separate task, because a mount that is cancelled half-way would not be recorded.
        tokio::spawn(async move { link.mount(spec).await }).await.map_err(anyhow::Error::from)?
    }

    /// Unmounts everything that was mounted at a path, so that the original content is visible again. Processes that use
    /// the mount keep access to it.
    ///
    /// # Errors
    ///
    /// Fails with [`DirectoryError::NotMounted`] if nothing is mounted at the path, and with [`DirectoryError::Failed`]
    /// otherwise.
    pub async fn unmount(&self, target: &Path) -> Result<(), DirectoryError> {
        let (link, target) = (self.link.clone(), target.to_owned());
        tokio::spawn(async move { link.unmount(&target).await }).await.map_err(anyhow::Error::from)?
    }

    /// Kills all processes of the container and waits until they and its mounts are gone.
    pub async fn stop(&self) {
        self.link.stop().await;
    }

    /// Stops the container like [`Container::stop`] and removes the files that it has written.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be removed. The container is stopped all the same, and files may be left in its directory.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.stop().await;
        self.link.removing();
        let directory = self.link.directory().to_owned();
        Ok(tokio::task::spawn_blocking(move || remove_tree(&directory)).await??)
    }

    /// Waits until the container has ended. Returns the reason.
    pub async fn ended(&self) -> End {
        self.link.ended().await
    }

    /// Returns the processor time used so far, in microseconds, and the memory in use, in bytes. A value is 0 if the
    /// machine does not count it per container.
    pub fn usage(&self) -> (u64, u64) {
        self.link.usage()
    }

    /// Returns whether the kernel has killed a process of this container because its memory limit was reached.
    pub fn oom_killed(&self) -> bool {
        self.link.oom_killed()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.link.kill();
    }
}

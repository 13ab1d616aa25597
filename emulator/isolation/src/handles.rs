//! The two handles that users of this crate hold: an engine, and its containers.

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

/// Makes containers. One per emulator.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<EngineCore>,
}

/// A running container. Killed, and its mounts gone, when dropped; its `upper` directory stays until removed.
#[derive(Debug)]
pub struct Container {
    link: Arc<ContainerCore>,
}

impl Engine {
    /// Prepares the state directory (made if missing) and finds out what this machine allows. Removes what emulators that are
    /// no more (`kill -9`) left in sibling state directories.
    ///
    /// `program` is executed for inner roles; it must call [`crate::child_entry`] first thing in `main`. Starts a container
    /// to see how that can be done here, so it blocks for some tens of milliseconds. `devices`: containers with a network
    /// device will be wanted, and it is an error if they cannot be had.
    pub fn new(state: &Path, program: &Path, devices: bool) -> anyhow::Result<Engine> {
        Ok(Engine { shared: Arc::new(EngineCore::new(state, program, devices)?) })
    }

    /// What cannot be enforced on this machine, one sentence each, for the log at start.
    pub fn limits_missing(&self) -> &[String] {
        self.shared.limits_missing()
    }

    /// Starts a container; resolves when processes can be started in it.
    pub async fn start(&self, spec: ContainerSpec) -> anyhow::Result<Container> {
        let shared = self.shared.clone();
        // A task of its own: given up half-way, it would leave directories and groups behind.
        Ok(Container { link: tokio::spawn(async move { shared.start(spec).await }).await?? })
    }

    /// Bytes on disk that running containers have written, by id: their own files, and what is in directories of the machine
    /// that they may write to. Reads all their directories.
    pub fn usage(&self) -> Vec<(String, u64)> {
        self.shared.usage()
    }

    /// Ends a container because the disk is full; false if it does not run.
    pub fn evict(&self, id: &str) -> bool {
        self.shared.running(id).is_some_and(|link| link.evict())
    }

    /// Whether a container of this id is there, or not yet quite gone.
    pub fn runs(&self, id: &str) -> bool {
        self.shared.running(id).is_some()
    }

    /// Whether what a container has written is still there although it has ended: about to be removed, which makes room.
    pub fn clearing(&self) -> bool {
        self.shared.clearing()
    }

    /// Ends all containers and removes everything that was made. Idempotent.
    pub async fn shutdown(&self) {
        self.shared.shutdown().await;
    }
}

impl Container {
    /// Its [`ContainerSpec::id`].
    pub fn id(&self) -> &str {
        self.link.id()
    }

    /// Starts a process.
    pub async fn spawn(&self, spec: ProcessSpec) -> anyhow::Result<Process> {
        self.link.spawn(spec).await
    }

    /// Sends a signal to a process's whole group, or session, as started by [`Container::spawn`]. Fine when it has ended.
    pub async fn kill(&self, pid: i32, signal: i32) -> anyhow::Result<()> {
        self.link.signal(pid, signal)
    }

    /// The emulator's side of its network device, non-blocking: each read gives an IP packet that was sent inside, each write
    /// delivers one. None when it has no device, or once it was taken.
    pub fn device(&self) -> Option<OwnedFd> {
        self.link.device()
    }

    /// Connects to a port on its own loopback, IPv4 first.
    pub async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let refused = match self.link.socket(false).await?.connect((Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(refused) => refused,
        };
        let connected = self.link.socket(true).await?.connect((Ipv6Addr::LOCALHOST, port).into()).await;
        connected.map_err(|_| refused)
    }

    /// The container's root directory, to work in it from outside.
    pub async fn root(&self) -> anyhow::Result<Root> {
        let link = self.link.clone();
        tokio::task::spawn_blocking(move || link.root()).await?
    }

    /// The directory that holds all that was written in this container: a layer for other containers once it is copied.
    /// Empty with a limit of its disk.
    pub fn upper(&self) -> &Path {
        self.link.upper()
    }

    /// Copies what was written so far into `to` as a layer (whiteouts, opaque directories, owners, modes, times and links
    /// kept). Processes may run meanwhile.
    pub async fn snapshot(&self, to: &Path) -> anyhow::Result<()> {
        let (from, to) = (self.link.written(), to.to_owned());
        tokio::task::spawn_blocking(move || layer::copy_layer(&from, &to)).await??;
        self.link.ensure_whole()
    }

    /// Copies a directory as processes inside see it, without what is mounted below it, into `to` as a layer. Processes may
    /// run meanwhile.
    pub async fn snapshot_directory(&self, path: &Path, to: &Path) -> Result<(), DirectoryError> {
        let (link, path, to) = (self.link.clone(), path.to_owned(), to.to_owned());
        let copied = tokio::task::spawn_blocking(move || link.copy_directory(&path, &to)).await;
        copied.map_err(anyhow::Error::from)??;
        Ok(self.link.ensure_whole()?)
    }

    /// Mounts an image; all processes see it at once. What was at the path, also what was mounted there before, is hidden. What
    /// is written there stays apart from the container's other files.
    pub async fn mount(&self, spec: MountSpec) -> Result<(), DirectoryError> {
        let link = self.link.clone();
        // A task of its own: given up half-way, the mount would not be recorded.
        tokio::spawn(async move { link.mount(spec).await }).await.map_err(anyhow::Error::from)?
    }

    /// Takes away what was mounted at a path; what was there before is seen again. Processes that are in it stay in it.
    pub async fn unmount(&self, target: &Path) -> Result<(), DirectoryError> {
        let (link, target) = (self.link.clone(), target.to_owned());
        tokio::spawn(async move { link.unmount(&target).await }).await.map_err(anyhow::Error::from)?
    }

    /// Kills everything in the container and waits until its processes and mounts are gone.
    pub async fn stop(&self) {
        self.link.stop().await;
    }

    /// Like [`Container::stop`], and removes what was written, too.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.stop().await;
        self.link.removing();
        let directory = self.link.directory().to_owned();
        Ok(tokio::task::spawn_blocking(move || remove_tree(&directory)).await??)
    }

    /// Resolves when the container has ended, for whatever reason.
    pub async fn ended(&self) -> End {
        self.link.ended().await
    }

    /// Microseconds of processor time that it has used so far, and bytes of memory that it uses now; 0 where this machine does not
    /// count them for a container.
    pub fn usage(&self) -> (u64, u64) {
        self.link.usage()
    }

    /// Whether the kernel has killed a process of this container because its memory limit was reached.
    pub fn oom_killed(&self) -> bool {
        self.link.oom_killed()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.link.kill();
    }
}

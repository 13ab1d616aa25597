//! Containers out of the kernel's own parts: namespaces and overlays over the machine's programs. Knows nothing of Modal.
//!
//! A container is an inner process (this program, executed again in an inner role) that has built a root of its own and is
//! PID 1 there; it is asked over a socket to start processes. What a container writes lands in its `upper` directory; an
//! image is an ordered list of such directories ("layers") over the machine's programs.
//!
//! - On the engine's side: [`Engine`] (`engine`, with the state directory in `state_dir`, what lies below every container in
//!   `rootfs_base`, limits in `cgroups`), [`Container`] (`container`), `sealed_program` and `spawner` (start the inner
//!   process), `live_mounts` (mounts images in a running container), [`rootfs`] (all that is done to a container's files from
//!   outside), [`disk_space`].
//! - Inside: `inside::init` (process 1), `inside::build_root` (its root), [`tun`] (its network), `inside::launch` (turns a fork
//!   into a process), `inside::capabilities`, `inside::syscall_filter`, and `users`; [`fstools`] is the program inside a
//!   container by which clients read and write files.
//! - Between them: `protocol`.
//!
//! A program that uses this crate calls [`child_entry`] first thing in `main`: it is executed again for the inner roles.
//!
//! Needs Linux 5.12. As root of the machine a container's root is still shut in by a user namespace in which all ids mean the
//! same as outside, so that layers can hold files of any owner; without root, it is our own user.

mod cgroups;
mod container;
pub mod disk_space;
mod engine;
pub mod fstools;
mod inside;
mod live_mounts;
mod mount_calls;
mod protocol;
mod roles;
pub mod rootfs;
mod rootfs_base;
mod sealed_program;
mod spawner;
mod state_dir;
mod users;

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

pub use disk_space::Space;
pub use inside::tun;
pub use roles::child_entry;
pub use rootfs::remove_tree;

/// Makes containers. One per emulator.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<engine::Shared>,
}

/// What a container is made of.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Names the container's directory below the state directory: `[A-Za-z0-9-]+`, unique.
    pub id: String,
    /// Layers over the machine's programs, bottom first. Directories as [`Container::upper`] gives them.
    pub layers: Vec<PathBuf>,
    /// No machine programs below: only the layers (an image `FROM scratch`).
    pub from_scratch: bool,
    /// Host name inside.
    pub hostname: String,
    /// Besides its own loopback, it has a network device, whose other side is [`Container::device`]. Its addresses are those of
    /// this number ([`tun::addresses`]).
    pub device: Option<u8>,
    /// Directories of the machine to mount. For volumes.
    pub binds: Vec<Bind>,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// Share of the processors, in thousandths of a core, when there are not enough for all.
    pub cpu_request: Option<u32>,
    /// Processor limit in thousandths of a core.
    pub cpu_limit: Option<u32>,
    /// Bytes that can be written; then there is no space left. They are held in memory. Also of each image that is mounted
    /// in the container.
    pub disk_limit: Option<u64>,
}

/// A directory of the machine that is mounted in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Bind {
    /// The directory, which no container can replace.
    pub source: PathBuf,
    /// Only this directory in it, which containers may have written: made where missing, no links followed. All of it when
    /// empty.
    pub inside: PathBuf,
    /// Absolute path in the container.
    pub target: PathBuf,
    /// It cannot be written to through this mount.
    pub read_only: bool,
}

/// An image, or a directory of the machine, to mount in a running container.
#[derive(Debug, Clone, Default)]
pub struct MountSpec {
    /// Where: an absolute path inside without `..`. Directories that are missing are made, and an empty file for a file.
    pub target: PathBuf,
    /// Layers, bottom first; none for an empty directory. What is written is kept apart from them.
    pub layers: Vec<PathBuf>,
    /// Only the layers are shown, not the machine's programs.
    pub from_scratch: bool,
    /// A directory of the machine instead, which no container can replace; it is written to itself.
    pub directory: Option<PathBuf>,
    /// Only this file or directory of it, links followed as if it were the root. All of it when empty.
    pub source: PathBuf,
    /// It cannot be written to.
    pub read_only: bool,
    /// Bytes that can be written, held in memory; as many as the container can when there is none.
    pub disk: Option<u64>,
}

/// Why a directory of a running container could not be mounted at, unmounted or copied.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is nothing at the path.
    #[error("there is no such directory")]
    Missing,
    /// What is at the path, or above it, is not a directory, or is one where a file is to be mounted.
    #[error("it is not a directory")]
    NotADirectory,
    /// What is to be mounted is not there.
    #[error("what is to be mounted is not there")]
    NoSource,
    /// The path leads to what the kernel or the emulator has mounted.
    #[error("nothing can be mounted there")]
    Reserved,
    /// No image is mounted at exactly this path.
    #[error("nothing is mounted there")]
    NotMounted,
    /// Anything else.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A process to start in a container.
#[derive(Debug, Clone, Default)]
pub struct ProcessSpec {
    /// Program and arguments; at least one. A program without a slash is looked up in PATH of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited. HOME is added where it is missing, from the container's account files.
    pub env: Vec<(OsString, OsString)>,
    /// Absolute directory to start in; `/` when it is empty. A missing one makes the process exit 127 with a message.
    pub cwd: PathBuf,
    /// `name|uid[:group|gid]` as in a Dockerfile's USER; none for root. Unknown names make the process exit 126.
    pub user: Option<String>,
    /// Rows and columns of a terminal; none for pipes. With one, `stdin` and `stdout` of [`Process`] are its master side.
    pub pty: Option<(u16, u16)>,
    /// stderr goes where stdout goes.
    pub merge_stderr: bool,
}

/// A started process. Its descriptors are non-blocking on our side. Reading from a terminal fails with EIO, rather than
/// ends, once nobody has its other side open.
#[derive(Debug)]
pub struct Process {
    /// Its number inside the container.
    pub pid: i32,
    /// Write end of its standard input.
    pub stdin: OwnedFd,
    /// Read end of its standard output.
    pub stdout: OwnedFd,
    /// Read end of its standard error; none when merged or with a terminal.
    pub stderr: Option<OwnedFd>,
    /// Resolves when it ends; an error when the container ended first.
    pub exit: tokio::sync::oneshot::Receiver<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited. 127: no such program or directory; 126: not executable.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was stopped, or ended by itself.
    Over,
    /// The kernel killed its first process, for want of memory.
    OutOfMemory,
    /// It was evicted.
    OutOfDisk,
}

/// A running container. Killed, and its mounts gone, when dropped; its `upper` directory stays until removed.
#[derive(Debug)]
pub struct Container {
    link: Arc<container::Link>,
}

impl Engine {
    /// Prepares the state directory (made if missing) and finds out what this machine allows. Removes what emulators that are
    /// no more (`kill -9`) left in sibling state directories.
    ///
    /// `program` is executed for inner roles; it must call [`child_entry`] first thing in `main`. Starts a container
    /// to see how that can be done here, so it blocks for some tens of milliseconds. `devices`: containers with a network
    /// device will be wanted, and it is an error if they cannot be had.
    pub fn new(state: &Path, program: &Path, devices: bool) -> anyhow::Result<Engine> {
        Ok(Engine { shared: Arc::new(engine::Shared::new(state, program, devices)?) })
    }

    /// What cannot be enforced on this machine, one sentence each, for the log at start.
    pub fn limits_missing(&self) -> &[String] {
        self.shared.limits_missing()
    }

    /// Starts a container; resolves when processes can be started in it.
    pub async fn start(&self, spec: ContainerSpec) -> anyhow::Result<Container> {
        let shared = self.shared.clone();
        // A task of its own: given up half-way, it would leave directories and groups behind.
        tokio::spawn(async move { shared.start(spec).await }).await?
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
    pub async fn root(&self) -> anyhow::Result<rootfs::Root> {
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
        tokio::task::spawn_blocking(move || rootfs::layer::copy_layer(&from, &to)).await??;
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
        // A task of its own: given up half-way, nobody would know of the mount.
        tokio::spawn(async move { link.mount(spec).await }).await.map_err(anyhow::Error::from)?
    }

    /// Takes away what was mounted at a path; what was there before is seen again. Processes that are in it stay in it.
    pub async fn unmount(&self, target: &Path) -> Result<(), DirectoryError> {
        let (link, target) = (self.link.clone(), target.to_owned());
        tokio::spawn(async move { link.unmount(&target).await }).await.map_err(anyhow::Error::from)?
    }

    /// Kills everything in the container and waits until its processes and mounts are gone.
    pub async fn stop(&self) {
        self.link.kill();
        self.link.ended().await;
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

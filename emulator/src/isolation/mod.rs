//! Containers out of the kernel's own parts: namespaces and overlays over the machine's programs. Knows nothing of Modal.
//!
//! A container is an inner process (this program, executed again in an inner role) that has built a root of its own and is
//! PID 1 there; it is asked over a socket to start processes. What a container writes lands in its `upper` directory; an
//! image is an ordered list of such directories ("layers") over the machine's programs.
//!
//! - On the emulator's side: [`Engine`] (`engine`, with the state directory in `state`, what lies below every container in
//!   `base`, limits in `cgroups`), [`Container`] (`container`), `spawn` (the inner process comes to be), `layer` (snapshots).
//! - Inside: `init` (process 1), `root` (builds the root), `launch` (a fork becomes a process), `users`, `caps`.
//! - Between them: `protocol`.
//!
//! Needs Linux 5.12. As root of the machine a container's root is still shut in by a user namespace in which all ids mean the
//! same as outside, so that layers can hold files of any owner; without root, it is our own user.

mod base;
mod caps;
mod cgroups;
mod container;
mod engine;
pub(crate) mod init;
mod launch;
mod layer;
mod mounts;
mod protocol;
mod root;
pub(crate) mod spawn;
mod state;
mod tree;
mod users;

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use tree::remove_tree;

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
    /// Whether it uses the machine's network; otherwise it has a loopback of its own and nothing else.
    pub machine_network: bool,
    /// Directories of the machine to mount: (source, absolute target inside, read-only). For volumes.
    pub binds: Vec<(PathBuf, PathBuf, bool)>,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// Processor limit in thousandths of a core.
    pub cpu_limit: Option<u32>,
}

/// A process to start in a container.
#[derive(Debug, Clone, Default)]
pub struct ProcessSpec {
    /// Program and arguments; at least one. A program without a slash is looked up in PATH of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited.
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

/// A running container. Killed, and its mounts gone, when dropped; its `upper` directory stays until removed.
#[derive(Debug)]
pub struct Container {
    link: Arc<container::Link>,
}

impl Engine {
    /// Prepares the state directory (made if missing) and finds out what this machine allows. Removes what emulators that are
    /// no more (`kill -9`) left in sibling state directories.
    ///
    /// `program` is executed for inner roles; it must call [`crate::child_entry`] first thing in `main`. Starts a container
    /// to see how that can be done here, so it blocks for some tens of milliseconds.
    pub fn new(state: &Path, program: &Path) -> anyhow::Result<Engine> {
        Ok(Engine { shared: Arc::new(engine::Shared::new(state, program)?) })
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

    /// Ends all containers and removes everything that was made. Idempotent.
    pub async fn shutdown(&self) {
        self.shared.shutdown().await;
    }
}

impl Container {
    /// Starts a process.
    pub async fn spawn(&self, spec: ProcessSpec) -> anyhow::Result<Process> {
        self.link.spawn(spec).await
    }

    /// Sends a signal to a process's whole group, or session, as started by [`Container::spawn`]. Fine when it has ended.
    pub async fn kill(&self, pid: i32, signal: i32) -> anyhow::Result<()> {
        self.link.signal(pid, signal)
    }

    /// The container's root directory as seen from the machine, while it runs. Links in it are relative to whoever follows
    /// them: resolve paths with `openat2` and `RESOLVE_IN_ROOT`.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.link.machine_pid().unwrap_or(0)))
    }

    /// The directory that holds all that was written in this container: a layer for other containers once it is copied.
    pub fn upper(&self) -> &Path {
        self.link.upper()
    }

    /// Copies what was written so far into `to` as a layer (whiteouts, opaque directories, owners, modes, times and links
    /// kept). Processes may run meanwhile.
    pub async fn snapshot(&self, to: &Path) -> anyhow::Result<()> {
        let (from, to) = (self.upper().to_owned(), to.to_owned());
        tokio::task::spawn_blocking(move || layer::copy_layer(&from, &to)).await?
    }

    /// Kills everything in the container and waits until its processes and mounts are gone.
    pub async fn stop(&self) {
        self.link.kill();
        self.link.ended().await;
    }

    /// Like [`Container::stop`], and removes what was written, too.
    pub async fn remove(&self) -> anyhow::Result<()> {
        self.stop().await;
        let directory = self.link.directory().to_owned();
        Ok(tokio::task::spawn_blocking(move || remove_tree(&directory)).await??)
    }

    /// Resolves when the container has ended, for whatever reason; true if the kernel's out-of-memory killer ended it.
    pub async fn ended(&self) -> bool {
        self.link.ended().await
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

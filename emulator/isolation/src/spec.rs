//! What users of this crate ask for, and what they get back.

use std::{ffi::OsString, os::fd::OwnedFd, path::PathBuf};

use serde::{Deserialize, Serialize};

/// What a container is made of.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Names the container's directory below the state directory: `[A-Za-z0-9-]+`, unique.
    pub id: String,
    /// Layers over the machine's programs, bottom first. Directories as [`crate::Container::upper`] gives them.
    pub layers: Vec<PathBuf>,
    /// No machine programs below: only the layers (an image `FROM scratch`).
    pub from_scratch: bool,
    /// Host name inside.
    pub hostname: String,
    /// Besides its own loopback, it has a network device, whose other side is [`crate::Container::device`]. Its addresses are those of
    /// this number ([`crate::tun::addresses`]).
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
/// ends, once no process has its other side open.
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

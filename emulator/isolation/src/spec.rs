//! Parameters and results of the public functions of this crate.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The parameters of a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Unique name, `[A-Za-z0-9-]+`. Also the name of the container's directory below the state directory.
    pub id: String,
    /// Layers over the machine's programs, bottom first. Directories as returned by [`crate::Container::upper`].
    pub layers: Vec<PathBuf>,
    /// The container contains only the layers and not the machine's programs (an image `FROM scratch`).
    pub from_scratch: bool,
    /// Host name inside the container.
    pub hostname: String,
    /// If set, the container has a network device besides its loopback; [`crate::Container::device`] returns its other
    /// side. The number determines its addresses ([`crate::tun::addresses`]).
    pub device: Option<u8>,
    /// Directories of the machine to mount, for example volumes.
    pub binds: Vec<Bind>,
    /// Memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// Share of the processors under contention, in thousandths of a core.
    pub cpu_request: Option<u32>,
    /// Processor limit in thousandths of a core.
    pub cpu_limit: Option<u32>,
    /// Maximum number of bytes that can be written, both to the container's root and to each image that is mounted in it.
    /// With a limit, written files are kept in memory. Further writes fail with ENOSPC.
    pub disk_limit: Option<u64>,
}

/// A directory of the machine that is mounted in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Bind {
    /// The directory. Containers must not be able to replace it.
    pub source: PathBuf,
    /// The subdirectory to mount; empty mounts all of `source`. Containers may have written to it: missing directories
    /// are created, and links are not followed.
    pub inside: PathBuf,
    /// Absolute mount point in the container.
    pub target: PathBuf,
    /// The mount is read-only.
    pub read_only: bool,
}

/// An image, or a directory of the machine, to mount in a running container.
#[derive(Debug, Clone, Default)]
pub struct MountSpec {
    /// The mount point: an absolute path inside without `..`. Missing directories are created, and an empty file if a
    /// file is mounted.
    pub target: PathBuf,
    /// Layers, bottom first; empty for an empty directory. Written files are stored separately from them.
    pub layers: Vec<PathBuf>,
    /// Only the layers are visible, not the machine's programs.
    pub from_scratch: bool,
    /// A directory of the machine to mount instead of an image. Containers must not be able to replace it, and write to
    /// it directly.
    pub directory: Option<PathBuf>,
    /// The file or directory in the image or directory to mount; links are resolved as if the latter were the root. Empty
    /// mounts all of it.
    pub source: PathBuf,
    /// The mount is read-only.
    pub read_only: bool,
    /// Maximum number of bytes that can be written. With a limit, they are kept in memory. `None` uses the limit of the
    /// container.
    pub disk: Option<u64>,
}

/// Why an operation on a directory of a running container failed: mounting, unmounting or copying.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// Nothing exists at the path.
    #[error("there is no such directory")]
    Missing,
    /// The path or one of its parents is not a directory, or the path is a directory and a file was to be mounted.
    #[error("it is not a directory")]
    NotADirectory,
    /// The file or directory to mount does not exist.
    #[error("the source of the mount does not exist")]
    NoSource,
    /// The path leads to a file system that the kernel or the emulator has mounted.
    #[error("nothing can be mounted there")]
    Reserved,
    /// No image is mounted at exactly this path.
    #[error("nothing is mounted there")]
    NotMounted,
    /// Any other error.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

/// A process to start in a container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; at least one. A program name without a slash is searched in the `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The complete environment; nothing is inherited. If `HOME` is missing, it is set from the container's account
    /// files.
    pub env: Vec<(OsString, OsString)>,
    /// Absolute working directory; empty means `/`. If it does not exist, the process exits with 127 and prints a
    /// message.
    #[serde(serialize_with = "path_as_bytes", deserialize_with = "path_from_bytes")]
    pub cwd: PathBuf,
    /// `name|uid[:group|gid]` as in a Dockerfile's `USER`; `None` for root. The process exits with 126 if a name is
    /// unknown.
    pub user: Option<String>,
    /// Rows and columns of a terminal; `None` for pipes. With a terminal, `stdin` and `stdout` of [`Process`] are its
    /// master side.
    pub pty: Option<(u16, u16)>,
    /// Redirects stderr to stdout.
    pub merge_stderr: bool,
}

/// Serializes a path as bytes, because `serde` serializes paths as UTF-8, and directories may have other names.
fn path_as_bytes<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_os_str().serialize(serializer)
}

/// Deserializes what [`path_as_bytes`] serialized.
fn path_from_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    OsString::deserialize(deserializer).map(PathBuf::from)
}

/// A started process. The descriptors are non-blocking. Reading from a terminal fails with EIO, instead of returning 0
/// bytes, when no process has its other side open.
#[derive(Debug)]
pub struct Process {
    /// Pid in the container's pid namespace.
    pub pid: i32,
    /// Write end of standard input.
    pub stdin: OwnedFd,
    /// Read end of standard output.
    pub stdout: OwnedFd,
    /// Read end of standard error; `None` if it is merged or the process has a terminal.
    pub stderr: Option<OwnedFd>,
    /// Receives the exit status when the process ends; fails if the container ends first.
    pub exit: tokio::sync::oneshot::Receiver<Exit>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code. 127: program or directory not found; 126: not executable.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was stopped, or its init ended.
    Over,
    /// The kernel killed its init because the memory limit was reached.
    OutOfMemory,
    /// It was evicted because the disk is full.
    OutOfDisk,
}

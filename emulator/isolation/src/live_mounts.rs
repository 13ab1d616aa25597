//! Mounts images in running containers, and unmounts them.
//!
//! A container's own processes have dropped the capabilities for mounting, and cannot reach the layers. So each order is
//! executed by a process outside: this program in another inner role. It enters the container's user namespace and
//! creates its own mount namespace, in which the machine's directories are still reachable. There it assembles the
//! overlays and opens a detached copy of the result. Only then it enters the container's mount namespace and attaches the
//! copy. Paths are resolved there, so no link can lead out of the container. Before unmounting, it checks the mount id,
//! because processes in the container can change what a path refers to.

use std::{
    ffi::{CString, OsStr},
    io::{self, Write},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
    mount::{MntFlags, MsFlags, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};

use crate::{mount_calls, overlays, protocol::Overlay, rootfs, sealed_program::Program, steps::at, sys};

/// `argv[0]` that selects this role.
pub(crate) const NAME: &str = "modal-emulator-mount";

/// Directories in which the kernel or the emulator has mounted file systems. Nothing may be mounted on these file
/// systems.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/__modal"];

/// A request to the mounting process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Attach something at a path in the container.
    Mount {
        what: What,
        /// The path in it that is mounted.
        source: PathBuf,
        read_only: bool,
        target: PathBuf,
    },
    /// Unmount the mount with this id, if it is still at this path.
    Unmount { target: PathBuf, mount: u64 },
}

/// The source of a mount.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// Overlays, assembled on an empty directory of the machine.
    Overlays { stage: PathBuf, overlays: Vec<Overlay>, disk: Option<u64> },
    /// A directory of the machine.
    Directory(PathBuf),
}

/// The result of an order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Mounted, with the mount id.
    Mounted(u64),
    Unmounted,
    /// The path or one of its parents is not a directory.
    NotADirectory,
    /// The source does not exist.
    NoSource,
    /// The path leads to a file system on which nothing may be mounted.
    Reserved,
    /// Nothing, or another mount, is at this path.
    NotMounted,
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    container: RawFd,
    user_namespace: bool,
    order: Order,
}

/// Executes an order in the container of the init process that `pidfd` refers to. Blocks for some milliseconds.
///
/// # Errors
///
/// Fails if the process cannot be started or returns no answer.
pub(crate) fn order(program: &Program, pidfd: &OwnedFd, user_namespace: bool, order: Order) -> anyhow::Result<Answer> {
    let pidfd = pidfd.try_clone()?;
    let container = pidfd.as_raw_fd();
    let errand = serde_json::to_vec(&Errand { container, user_namespace, order })?;
    // The new process has the same descriptor number until it executes the program.
    let program = program.executable()?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0(NAME).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    sys::leave_open(&mut command, pidfd);
    let mut child = command.spawn().context("cannot start a process that mounts")?;
    // If the process has already ended, its missing output is reported below.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&errand));
    let output = child.wait_with_output()?;
    ensure!(!output.stdout.is_empty(), "the process that mounts exited without a message: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs the mounting process. Never returns.
pub(crate) fn main() -> ! {
    // Processes in the container must not trace this process, which has descriptors of the machine.
    let _ = nix::sys::prctl::set_dumpable(false);
    let answer = match serde_json::from_reader(io::stdin().lock()) {
        Ok(errand) => run(errand).unwrap_or_else(Answer::Failed),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let written = serde_json::to_writer(io::stdout().lock(), &answer);
    std::process::exit(i32::from(written.is_err()))
}

fn run(Errand { container, user_namespace, order }: Errand) -> Result<Answer, String> {
    let container = at("take the container's descriptor", sys::take_inherited(container))?;
    if user_namespace {
        at("enter the user namespace", setns(&container, CloneFlags::CLONE_NEWUSER))?;
    }
    match order {
        Order::Mount { what, source, read_only, target } => {
            at("create a mount namespace", unshare(CloneFlags::CLONE_NEWNS))?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            at("private mounts", nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>))?;
            let root = match what {
                What::Overlays { stage, overlays, disk } => overlays::assemble(&stage, overlays, disk)?.0,
                What::Directory(directory) => directory,
            };
            let held = nix::fcntl::open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
            let held = at("open the source of the mount", held)?;
            // Containers may have written to this directory, so links in it must not lead out of it.
            let held = match rootfs::resolve(&held, &source, OFlag::O_PATH, ResolveFlag::RESOLVE_IN_ROOT) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(Answer::NoSource),
                held => at("open the source of the mount", held)?,
            };
            let image = at("open the image", mount_calls::copy_of_held(&held))?;
            if read_only {
                at("protect the image", mount_calls::make_read_only(&image))?;
            }
            at("enter the container", setns(&container, CloneFlags::CLONE_NEWNS))?;
            attach(&image, &target)
        }
        Order::Unmount { target, mount } => {
            at("enter the container", setns(&container, CloneFlags::CLONE_NEWNS))?;
            detach(&target, mount)
        }
    }
}

/// Attaches the image at `target` in the container. Creates missing directories, or an empty file if the image is a file.
fn attach(image: &OwnedFd, target: &Path) -> Result<Answer, String> {
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let found = at("stat the image", nix::sys::stat::fstat(image))?;
    let is_directory = found.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if target == Path::new("/") {
        return Ok(Answer::Reserved);
    }
    let directory = if is_directory { target } else { target.parent().unwrap_or(target) };
    match std::fs::create_dir_all(directory) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) => {
            return Ok(Answer::NotADirectory);
        }
        Err(error) => return Err(format!("create {}: {error}", directory.display())),
    }
    if !is_directory {
        match std::fs::File::create_new(target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("create {}: {error}", target.display()));
            }
            _ => {}
        }
    }
    // Uses this descriptor from here on, because the path can change.
    let held = at("open the target", nix::fcntl::open(target, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()))?;
    let place = at("stat the target", nix::sys::stat::fstat(&held))?;
    if (place.st_mode & libc::S_IFMT == libc::S_IFDIR) != is_directory {
        return Ok(Answer::NotADirectory);
    }
    let same = |reserved: &&str| nix::sys::stat::stat(*reserved).is_ok_and(|found| found.st_dev == place.st_dev);
    if RESERVED.iter().any(same) {
        return Ok(Answer::Reserved);
    }
    at("attach", mount_calls::attach_to(image, &held))?;
    at("read the id of the mount", mount_calls::id(image, OsStr::new(""))).map(Answer::Mounted)
}

/// Unmounts the mount with this id at `target`.
fn detach(target: &Path, mount: u64) -> Result<Answer, String> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else { return Ok(Answer::NotMounted) };
    // Changes to the parent directory first: a mount point cannot be renamed or replaced, but its parents can.
    if nix::unistd::chdir(parent).is_err() || mount_calls::id(rustix::fs::CWD, name).ok() != Some(mount) {
        return Ok(Answer::NotMounted);
    }
    let name = at("name", CString::new(name.as_bytes()))?;
    // With `MNT_DETACH`, processes that use the mount keep access to it.
    at("unmount", umount2(name.as_c_str(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW))?;
    Ok(Answer::Unmounted)
}

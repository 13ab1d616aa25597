//! Mounts images in running containers, and takes them away again.
//!
//! A container's own processes have given up what mounting takes, and from inside the layers cannot be reached. So a process
//! outside does it: this program in another inner role, for one order. In the container's user namespace it makes a mount
//! namespace of its own, where the machine's directories still have their names, puts the overlays together there and takes
//! hold of the result; only then it enters the container's mount namespace and attaches it. Paths inside are resolved there,
//! so no link can lead out of the container. Before something is unmounted, it is made sure that it is the very mount that
//! was made: names in a container can be changed by it.

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

/// argv[0] by which the program knows that it has this role.
pub(crate) const NAME: &str = "modal-emulator-mount";

/// What the kernel or the emulator itself has mounted inside, and whatever lies below on the same file system.
const RESERVED: [&str; 4] = ["/proc", "/sys", "/dev", "/__modal"];

/// What is to be done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Attach something at a path inside.
    Mount {
        what: What,
        /// The part of it.
        source: PathBuf,
        read_only: bool,
        target: PathBuf,
    },
    /// Take a mount away, which must be at this path still.
    Unmount { target: PathBuf, mount: u64 },
}

/// What is mounted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// Overlays, put together on an empty directory of the machine.
    Overlays { stage: PathBuf, overlays: Vec<Overlay>, disk: Option<u64> },
    /// A directory of the machine.
    Directory(PathBuf),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The kernel's number of the mount.
    Mounted(u64),
    Unmounted,
    /// The path, or one above it, is not a directory.
    NotADirectory,
    /// There is nothing to mount.
    NoSource,
    /// The path leads to where nothing may be mounted.
    Reserved,
    /// Something else, or nothing, is mounted there.
    NotMounted,
    Failed(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Errand {
    container: RawFd,
    user_namespace: bool,
    order: Order,
}

/// Has an order carried out in the container whose init `pidfd` stands for. Blocks for some milliseconds.
pub(crate) fn order(program: &Program, pidfd: &OwnedFd, user_namespace: bool, order: Order) -> anyhow::Result<Answer> {
    let pidfd = pidfd.try_clone()?;
    let container = pidfd.as_raw_fd();
    let errand = serde_json::to_vec(&Errand { container, user_namespace, order })?;
    // By the number that it has here and, until it is executed, in the new process.
    let program = program.executable()?;
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.arg0(NAME).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    sys::leave_open(&mut command, pidfd);
    let mut child = command.spawn().context("cannot start a process that mounts")?;
    // Should it be gone already, its answer says so by not being there.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(&errand));
    let output = child.wait_with_output()?;
    ensure!(!output.stdout.is_empty(), "the process that mounts ended without a word: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs the role. Never returns.
pub(crate) fn main() -> ! {
    // Nothing inside may look into this process, which has descriptors of the machine.
    let _ = nix::sys::prctl::set_dumpable(false);
    let answer = match serde_json::from_reader(io::stdin().lock()) {
        Ok(errand) => run(errand).unwrap_or_else(Answer::Failed),
        Err(error) => Answer::Failed(error.to_string()),
    };
    let written = serde_json::to_writer(io::stdout().lock(), &answer);
    std::process::exit(i32::from(written.is_err()))
}

fn run(Errand { container, user_namespace, order }: Errand) -> Result<Answer, String> {
    let container = at("take over the container's descriptor", sys::take_inherited(container))?;
    if user_namespace {
        at("enter the user namespace", setns(&container, CloneFlags::CLONE_NEWUSER))?;
    }
    match order {
        Order::Mount { what, source, read_only, target } => {
            at("make a mount namespace", unshare(CloneFlags::CLONE_NEWNS))?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            at("private mounts", nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>))?;
            let root = match what {
                What::Overlays { stage, overlays, disk } => overlays::assemble(&stage, overlays, disk)?.0,
                What::Directory(directory) => directory,
            };
            let held = nix::fcntl::open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
            let held = at("open what is mounted", held)?;
            // Containers have written what is in there.
            let held = match rootfs::resolve(&held, &source, OFlag::O_PATH, ResolveFlag::RESOLVE_IN_ROOT) {
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(Answer::NoSource),
                held => at("open what is mounted", held)?,
            };
            let image = at("take hold of the image", mount_calls::copy_of_held(&held))?;
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

fn attach(image: &OwnedFd, target: &Path) -> Result<Answer, String> {
    nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
    let found = at("look at the image", nix::sys::stat::fstat(image))?;
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
        Err(error) => return Err(format!("make {}: {error}", directory.display())),
    }
    if !is_directory {
        match std::fs::File::create_new(target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("make {}: {error}", target.display()));
            }
            _ => {}
        }
    }
    // Held from here on: the path may lead elsewhere in a moment.
    let held = at("open the target", nix::fcntl::open(target, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()))?;
    let place = at("look at the target", nix::sys::stat::fstat(&held))?;
    if (place.st_mode & libc::S_IFMT == libc::S_IFDIR) != is_directory {
        return Ok(Answer::NotADirectory);
    }
    let same = |reserved: &&str| nix::sys::stat::stat(*reserved).is_ok_and(|found| found.st_dev == place.st_dev);
    if RESERVED.iter().any(same) {
        return Ok(Answer::Reserved);
    }
    at("attach", mount_calls::attach_to(image, &held))?;
    at("look at the mount", mount_calls::id(image, OsStr::new(""))).map(Answer::Mounted)
}

fn detach(target: &Path, mount: u64) -> Result<Answer, String> {
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else { return Ok(Answer::NotMounted) };
    // From its directory on: a mount point can neither be renamed nor replaced, what is above it can.
    if nix::unistd::chdir(parent).is_err() || mount_calls::id(rustix::fs::CWD, name).ok() != Some(mount) {
        return Ok(Answer::NotMounted);
    }
    let name = at("name", CString::new(name.as_bytes()))?;
    // Processes that are in there stay there, with what was mounted.
    at("unmount", umount2(name.as_c_str(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW))?;
    Ok(Answer::Unmounted)
}

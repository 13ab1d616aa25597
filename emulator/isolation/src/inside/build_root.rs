//! Builds the root of a container. Runs in the container's init, in its new mount namespace.
//!
//! The root is an overlay of a skeleton and the image's layers. `/usr` and the other directories that the machine
//! provides are separate overlays on top of it, because a user namespace may not use a directory with mounts below it
//! (such as `/`) as a lower layer. No other directory of the machine is mounted. Sources (devices, volumes, the program)
//! are opened as detached mounts before the machine's root is unmounted, and attached afterwards: by then every path,
//! including those through links in an image, resolves inside the container.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, umount2};

use super::tun;
use crate::{
    mount_calls::{self, mount},
    overlays,
    protocol::Setup,
    rootfs::open_inside,
    spec::Bind,
    steps::at,
    sys::interfaces::TUN,
};

/// Path of the file tools in a container.
pub(crate) const FS_TOOLS: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Device files in every container, as far as the machine has them.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// A detached mount that will be attached at `target`.
struct Held {
    mount: OwnedFd,
    is_directory: bool,
    target: PathBuf,
}

impl Held {
    /// Opens a source as a read-only detached mount.
    fn take(source: &Path, target: &Path) -> Result<Self, String> {
        let step = format!("open {}", source.display());
        let is_directory = at(&step, fs::metadata(source))?.is_dir();
        let copy = at(&step, mount_calls::copy_of(source))?;
        at(&step, mount_calls::make_read_only(&copy))?;
        Ok(Self { mount: copy, is_directory, target: target.to_owned() })
    }

    /// Opens the subdirectory of a bind as a detached mount.
    fn take_inside(bind: &Bind) -> Result<Self, String> {
        let step = format!("open {} in {}", bind.inside.display(), bind.source.display());
        let held = at(&step, open_inside(&bind.source, &bind.inside))?;
        let copy = at(&step, mount_calls::copy_of_held(&held))?;
        if bind.read_only {
            at(&step, mount_calls::make_read_only(&copy))?;
        }
        Ok(Self { mount: copy, is_directory: true, target: bind.target.clone() })
    }

    /// Attaches the mount. Creates its target if that does not exist.
    fn attach(&self) -> Result<(), String> {
        let step = format!("attach {}", self.target.display());
        if self.is_directory {
            at(&step, fs::create_dir_all(&self.target))?;
        } else if !self.target.exists() {
            if let Some(parent) = self.target.parent() {
                at(&step, fs::create_dir_all(parent))?;
            }
            at(&step, fs::File::create(&self.target))?;
        }
        at(&step, mount_calls::attach(&self.mount, &self.target))
    }
}

/// The result of building a root.
pub(crate) struct Built {
    /// One sentence for each feature that had to be left out.
    pub(crate) missing: Vec<String>,
    /// The network device, if the container has one.
    pub(crate) device: Option<OwnedFd>,
    /// The directory of the written files, if the disk is limited.
    pub(crate) written: Option<OwnedFd>,
}

/// Builds the root and makes it the root of this process.
pub(crate) fn build(setup: &Setup) -> Result<Built, String> {
    let mut missing = Vec::new();
    let network = if setup.device.is_some() { Some(at(format_args!("open {TUN}"), tun::open())?) } else { None };
    // Stops mount propagation between the machine and the container, in both directions.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    at("private mounts", nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>))?;

    let mut held = Vec::new();
    for name in DEVICES.into_iter().filter(|name| Path::new("/dev").join(name).exists()) {
        // Read-only protects owner and mode of the device files, not the data: the container's root may be the machine's
        // root user.
        held.push(Held::take(&Path::new("/dev").join(name), &Path::new("/dev").join(name))?);
    }
    let tools = Held::take(&setup.program, Path::new(FS_TOOLS))?;
    let mut volumes = Vec::new();
    for bind in &setup.binds {
        volumes.push(Held::take_inside(bind)?);
    }

    let (root, written) = overlays::assemble(&setup.stage, setup.overlays.clone(), setup.disk)?;
    if setup.user_namespace {
        // Processes that create a nested user namespace could mount the cgroup file system in a cgroup namespace. Its
        // files, such as the limits, belong to the machine's root, and the container's root may be the same user.
        let _ = fs::write("/proc/sys/user/max_cgroup_namespaces", "1");
    }
    mount_proc(&root.join("proc"), &mut missing)?;

    at("enter the root", nix::unistd::chdir(&root))?;
    at("change the root", nix::unistd::pivot_root(".", "."))?;
    at("leave the machine's root", umount2(".", MntFlags::MNT_DETACH))?;
    at("enter /", nix::unistd::chdir("/"))?;

    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount("sys", Path::new("/sys"), "tmpfs", quiet | MsFlags::MS_RDONLY, "mode=755,size=4k")?;
    mount("dev", Path::new("/dev"), "tmpfs", MsFlags::MS_NOSUID, "mode=755,size=1m")?;
    for device in &held {
        device.attach()?;
    }
    finish_dev(setup.all_ids)?;
    mount("modal", Path::new("/__modal"), "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755,size=4k")?;
    tools.attach()?;
    at("protect /__modal", mount_calls::protect(Path::new("/__modal")))?;
    for volume in &volumes {
        volume.attach()?;
    }

    at("activate the loopback device", tun::loopback_up())?;
    if let Some(number) = setup.device {
        at("activate the network device", tun::bring_up(number))?;
    }
    at("host name", nix::unistd::sethostname(&setup.hostname))?;
    Ok(Built { missing, device: network, written })
}

/// Mounts a procfs for the container's processes, and covers the files that reveal or change state of the machine.
fn mount_proc(proc: &Path, missing: &mut Vec<String>) -> Result<(), String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = mount("proc", proc, "proc", quiet, "") {
        // The kernel refuses a full procfs to a user namespace if parts of the outer procfs are covered.
        missing.push(format!("containers have no /proc: {error}"));
        return mount("none", proc, "tmpfs", quiet | MsFlags::MS_RDONLY, "size=4k");
    }
    for name in ["kcore", "keys", "latency_stats", "timer_list", "sched_debug", "kmsg"] {
        let path = proc.join(name);
        if path.exists() {
            let flags = MsFlags::MS_BIND;
            let covered = nix::mount::mount(Some("/dev/null"), &path, None::<&str>, flags, None::<&str>);
            at(format_args!("cover {}", path.display()), covered)?;
        }
    }
    for name in ["acpi", "scsi"] {
        let path = proc.join(name);
        if path.is_dir() {
            mount("none", &path, "tmpfs", quiet | MsFlags::MS_RDONLY, "size=4k")?;
        }
    }
    // All other entries belong to the machine's root, which may be the container's root too: changes of modes and owners
    // would apply to the whole machine. They are made read-only. The directories of processes are not changed.
    for entry in at("list /proc", fs::read_dir(proc))?.flatten() {
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_process || entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        let path = entry.path();
        let step = format!("protect {}", path.display());
        let copy = at(&step, mount_calls::copy_of(&path))?;
        at(&step, mount_calls::make_read_only(&copy))?;
        at(&step, mount_calls::attach(&copy, &path))?;
    }
    Ok(())
}

/// Creates the directories, links and mounts in `/dev`.
fn finish_dev(all_ids: bool) -> Result<(), String> {
    // Group 5 is `tty` on all distributions; it cannot be used where only root exists.
    let options =
        if all_ids { "newinstance,ptmxmode=0666,mode=620,gid=5" } else { "newinstance,ptmxmode=0666,mode=620" };
    let no_exec = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        let path = Path::new("/dev").join(name);
        at(name, fs::DirBuilder::new().mode(mode).create(&path))?;
        at(name, fs::set_permissions(&path, fs::Permissions::from_mode(mode)))?;
    }
    mount("devpts", Path::new("/dev/pts"), "devpts", no_exec, options)?;
    mount("shm", Path::new("/dev/shm"), "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777")?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        at(name, symlink(target, Path::new("/dev").join(name)))?;
    }
    Ok(())
}

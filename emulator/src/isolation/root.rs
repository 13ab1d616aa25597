//! Builds a container's root, as its init, in its fresh mount namespace.
//!
//! The root is an overlay of the skeleton and the image's layers; `/usr` and what else of the machine is offered are
//! overlays of their own on top of it, because a user namespace may not use a directory with mounts below it (such as `/`)
//! as a lower layer. Everything else of the machine is never mounted. Sources (devices, volumes, the program) are taken
//! hold of as descriptors before the machine's root is let go, and attached after: by then every path, also one through
//! links that an image contains, can only lead to places inside the container.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, umount2};

use super::{
    mounts::{self, mount},
    protocol::{Overlay, Setup},
};

/// Where the file tools sit inside.
pub(crate) const FS_TOOLS: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Devices that every program may expect.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

fn at<T, E: std::fmt::Display>(step: impl std::fmt::Display, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{step}: {error}"))
}

/// A mount that waits to be attached.
struct Held {
    mount: OwnedFd,
    is_directory: bool,
    target: PathBuf,
}

impl Held {
    fn take(source: &Path, target: &Path, read_only: bool) -> Result<Self, String> {
        let step = format!("take hold of {}", source.display());
        let is_directory = at(&step, fs::metadata(source))?.is_dir();
        let copy = at(&step, mounts::copy_of(source))?;
        if read_only {
            at(&step, mounts::make_read_only(&copy))?;
        }
        Ok(Self { mount: copy, is_directory, target: target.to_owned() })
    }

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
        at(&step, mounts::attach(&self.mount, &self.target))
    }
}

/// Builds the root and moves into it. Returns what had to be left out, one sentence each.
pub(super) fn build(setup: &Setup) -> Result<Vec<String>, String> {
    let mut missing = Vec::new();
    // Nothing mounted here may travel back to the machine, nor the other way round.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    at("private mounts", nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>))?;

    let mut held = Vec::new();
    for name in DEVICES.into_iter().filter(|name| Path::new("/dev").join(name).exists()) {
        held.push(Held::take(&Path::new("/dev").join(name), &Path::new("/dev").join(name), false)?);
    }
    let tools = Held::take(&setup.program, Path::new(FS_TOOLS), true)?;
    let mut volumes = Vec::new();
    for (source, target, read_only) in &setup.binds {
        volumes.push(Held::take(source, target, *read_only)?);
    }

    mount("stage", &setup.stage, "tmpfs", MsFlags::empty(), "mode=755")?;
    let root = setup.stage.join("root");
    at("make the root", fs::create_dir(&root))?;
    for (number, overlay) in setup.overlays.iter().enumerate() {
        mount_overlay(&setup.stage, number, &root, overlay)?;
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
    at("protect /__modal", mounts::protect(Path::new("/__modal")))?;
    for volume in &volumes {
        volume.attach()?;
    }

    if setup.own_network {
        at("bring the loopback up", loopback_up())?;
    }
    at("host name", nix::unistd::sethostname(&setup.hostname))?;
    Ok(missing)
}

/// Mounts one overlay. The option string must fit a page and treats `:` and `,` as its own, so the layers are named by
/// short links made for the purpose.
fn mount_overlay(stage: &Path, number: usize, root: &Path, overlay: &Overlay) -> Result<(), String> {
    let step = format!("layers of {}", overlay.target.display());
    let names = stage.join(number.to_string());
    at(&step, fs::create_dir(&names))?;
    for (layer, path) in overlay.lower.iter().enumerate() {
        at(&step, symlink(path, names.join(layer.to_string())))?;
    }
    at(&step, symlink(&overlay.upper, names.join("u")))?;
    at(&step, symlink(&overlay.work, names.join("w")))?;
    at(&step, nix::unistd::chdir(&names))?;
    let lower: Vec<String> = (0..overlay.lower.len()).map(|layer| layer.to_string()).collect();
    // userxattr: the only form that a user namespace may use, and one form for all, so that a layer made in one mode works
    // in the other. volatile: nothing written here has to survive a crash of the machine, so `fsync` need not reach the disk.
    let options = format!("userxattr,volatile,lowerdir={},upperdir=u,workdir=w", lower.join(":"));
    let target = match overlay.target.strip_prefix("/") {
        Ok(inside) => root.join(inside),
        Err(_) => return Err(format!("{step}: not an absolute path")),
    };
    mount("overlay", &target, "overlay", MsFlags::empty(), &options)
}

/// A procfs of the container's own processes, without the files that say or change something about the machine.
fn mount_proc(proc: &Path, missing: &mut Vec<String>) -> Result<(), String> {
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = mount("proc", proc, "proc", quiet, "") {
        // The kernel refuses a user namespace a full procfs while parts of the one outside are covered.
        missing.push(format!("there is no /proc in containers: {error}"));
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
    // Owned by the machine's root, whom the container's root may be.
    for name in ["sys", "sysrq-trigger", "irq", "bus", "fs"] {
        let path = proc.join(name);
        if path.exists() {
            let copy = at(format_args!("cover {}", path.display()), mounts::copy_of(&path))?;
            at("read-only /proc", mounts::make_read_only(&copy))?;
            at("cover /proc", mounts::attach(&copy, &path))?;
        }
    }
    Ok(())
}

fn finish_dev(all_ids: bool) -> Result<(), String> {
    // Group 5 is tty everywhere; where only root exists it cannot be named.
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

/// Sets IFF_UP on the namespace's own loopback.
fn loopback_up() -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // Safety: an all-zero ifreq is valid and "lo" fits its name; both calls read and write that structure only.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

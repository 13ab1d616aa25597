//! The kernel's newer mount calls, which the libraries do not wrap: a mount is taken hold of by descriptor first and
//! attached somewhere later, when its source is no longer reachable by name.

use std::{
    ffi::{CStr, CString, OsStr},
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::mount::{MntFlags, umount2};

// Flags of linux/mount.h.
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
const MOVE_MOUNT_T_SYMLINKS: libc::c_uint = 0x10;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const MOUNT_ATTR_RDONLY: u64 = 1;

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn path_text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A detached copy of the mount at `source` and everything mounted below it.
pub(crate) fn copy_of(source: &Path) -> io::Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, &path_text(source)?, 0)
}

/// The same of a directory that is held open.
pub(crate) fn copy_of_held(source: &OwnedFd) -> io::Result<OwnedFd> {
    open_tree(source.as_raw_fd(), c"", libc::AT_EMPTY_PATH as libc::c_uint)
}

fn open_tree(directory: RawFd, path: &CStr, flags: libc::c_uint) -> io::Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | flags;
    // Safety: the path outlives the call; on success the descriptor is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, directory, path.as_ptr(), flags);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

/// Makes a detached copy, and all below it, read-only.
pub(crate) fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    set_read_only(mount.as_raw_fd(), c"", libc::AT_EMPTY_PATH as libc::c_uint | AT_RECURSIVE)
}

/// Makes what is already mounted at `path` read-only.
pub(crate) fn protect(path: &Path) -> io::Result<()> {
    set_read_only(libc::AT_FDCWD, &path_text(path)?, AT_RECURSIVE)
}

fn set_read_only(directory: RawFd, path: &CStr, flags: libc::c_uint) -> io::Result<()> {
    let attributes = Attributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // Safety: path and structure outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Attaches a detached copy at `target`, following links.
pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    // The target is resolved inside the container's own root.
    move_mount(mount, libc::AT_FDCWD, &path_text(target)?, MOVE_MOUNT_T_SYMLINKS)
}

/// Attaches a detached copy at a directory that is held open.
pub(crate) fn attach_to(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    move_mount(mount, target.as_raw_fd(), c"", MOVE_MOUNT_T_EMPTY_PATH)
}

fn move_mount(mount: &OwnedFd, directory: RawFd, target: &CStr, flags: libc::c_uint) -> io::Result<()> {
    let from = mount.as_raw_fd();
    let flags = MOVE_MOUNT_F_EMPTY_PATH | flags;
    // Safety: the paths outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), directory, target.as_ptr(), flags) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's number of the mount that `name` in a directory is on, links not followed; of the directory itself when the
/// name is empty.
pub(crate) fn id(directory: RawFd, name: &OsStr) -> io::Result<u64> {
    let name = CString::new(name.as_bytes())?;
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // Safety: zero is a valid value of every field; the kernel writes the structure only, and the name outlives the call.
    unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        if libc::statx(directory, name.as_ptr(), flags, libc::STATX_MNT_ID, &raw mut found) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(found.stx_mnt_id)
    }
}

/// A file system mounted for its content only: `mount` with the text of an error that says what it was for.
pub(crate) fn mount(
    source: &str,
    target: &Path,
    kind: &str,
    flags: nix::mount::MsFlags,
    options: &str,
) -> Result<(), String> {
    nix::mount::mount(Some(source), target, Some(kind), flags, Some(options))
        .map_err(|error| format!("mount {kind} at {}: {}", target.display(), error.desc()))
}

/// Takes away mounts below `path` that this process can see. False if one stays: removing the tree would then remove
/// what is mounted.
pub(crate) fn detach_mounts(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    // Blanks and the like are written in octal there, so a directory with one in its name would seem to have no mounts.
    if path.as_os_str().as_bytes().iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'\\') {
        return false;
    }
    let below = |line: &str| {
        let target = line.split(' ').nth(4).map(Path::new)?;
        target.starts_with(path).then(|| target.to_owned())
    };
    // Later ones lie over earlier ones.
    mounts.lines().filter_map(below).rev().all(|target| umount2(&target, MntFlags::MNT_DETACH).is_ok())
}

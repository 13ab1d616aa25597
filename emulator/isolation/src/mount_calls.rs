//! The kernel's newer mount calls, in the forms that containers need: a mount is taken hold of by descriptor first and
//! attached somewhere later, when its source is no longer reachable by name.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::mount::{MntFlags, umount2};
use rustix::{
    fs::{AtFlags, CWD, StatxFlags, statx},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use crate::sys;

/// A copy is detached, closed when a program is executed, and has all that is mounted below.
const COPY: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

/// A detached copy of the mount at `source` and everything mounted below it.
pub(crate) fn copy_of(source: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, source, COPY)?)
}

/// The same of a directory that is held open.
pub(crate) fn copy_of_held(source: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(open_tree(source, c"", COPY | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Makes a detached copy, and all below it, read-only.
pub(crate) fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    sys::set_read_only(mount.as_fd(), c"")
}

/// Makes what is already mounted at `path` read-only.
pub(crate) fn protect(path: &Path) -> io::Result<()> {
    sys::set_read_only(CWD, &CString::new(path.as_os_str().as_bytes())?)
}

/// Attaches a detached copy at `target`, following links.
pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    // The target is resolved inside the container's own root.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(move_mount(mount, c"", CWD, target, flags)?)
}

/// Attaches a detached copy at a directory that is held open.
pub(crate) fn attach_to(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// The kernel's number of the mount that `name` in a directory is on, links not followed; of the directory itself when the
/// name is empty.
pub(crate) fn id(directory: impl AsFd, name: &OsStr) -> io::Result<u64> {
    let found = statx(directory, name, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
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

//! Wrappers of the newer mount system calls: a mount is opened as a detached copy first, and attached later, when its
//! source is no longer reachable by path.

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

/// Copies are detached, close-on-exec, and include all mounts below.
const COPY: OpenTreeFlags =
    OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

/// Opens a detached copy of the mount at `source` and of all mounts below it.
pub(crate) fn copy_of(source: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, source, COPY)?)
}

/// Opens a detached copy of an open directory and of all mounts below it.
pub(crate) fn copy_of_held(source: &OwnedFd) -> io::Result<OwnedFd> {
    Ok(open_tree(source, c"", COPY | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Makes a detached copy and all mounts below it read-only.
pub(crate) fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    sys::set_read_only(mount.as_fd(), c"")
}

/// Makes the mount at `path` and all mounts below it read-only.
pub(crate) fn protect(path: &Path) -> io::Result<()> {
    sys::set_read_only(CWD, &CString::new(path.as_os_str().as_bytes())?)
}

/// Attaches a detached copy at `target`. Follows links.
pub(crate) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    // Links are safe: the target is resolved in the container's own root.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    Ok(move_mount(mount, c"", CWD, target, flags)?)
}

/// Attaches a detached copy at an open file or directory.
pub(crate) fn attach_to(mount: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}

/// Returns the mount id of `name` in a directory, without following links, or of the directory itself if the name is
/// empty.
pub(crate) fn id(directory: impl AsFd, name: &OsStr) -> io::Result<u64> {
    let found = statx(directory, name, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

/// Mounts a file system. The error names the file system and the target.
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

/// Detaches all mounts below `path` that this process can see. Returns `false` if one may remain: removing the tree would
/// then remove the mounted files.
pub(crate) fn detach_mounts(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    // `mountinfo` escapes whitespace and backslashes, so a path that contains them would seem to have no mounts.
    if path.as_os_str().as_bytes().iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'\\') {
        return false;
    }
    let below = |line: &str| {
        let target = line.split(' ').nth(4).map(Path::new)?;
        target.starts_with(path).then(|| target.to_owned())
    };
    // Later mounts cover earlier ones.
    mounts.lines().filter_map(below).rev().all(|target| umount2(&target, MntFlags::MNT_DETACH).is_ok())
}

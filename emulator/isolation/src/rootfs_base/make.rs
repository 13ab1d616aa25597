//! Creates directories and whiteouts of layers.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use nix::sys::stat::{Mode, SFlag};

/// Creates a directory with exactly this mode, regardless of the umask.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// Creates a whiteout, which marks a removed entry in an overlay. The kernel permits every user to create this device
/// node.
pub(crate) fn whiteout(path: &Path) -> io::Result<()> {
    Ok(nix::sys::stat::mknod(path, SFlag::S_IFCHR, Mode::empty(), 0)?)
}

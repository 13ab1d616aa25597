//! Measures the disk usage of a directory tree.

use std::{os::unix::ffi::OsStrExt, path::Path};

use nix::{
    fcntl::{AtFlags, OFlag},
    sys::stat::{Mode, fstatat},
};

use super::remove_tree::{entries, open};

/// Unit of `st_blocks` in bytes; it does not depend on the file system.
const BLOCK: u64 = 512;

/// Returns the disk usage in bytes of the directory `inside` in a tree, or of the whole tree if `inside` is empty. Files
/// that vanish meanwhile and directories that cannot be opened are not counted.
pub(crate) fn used(tree: &Path, inside: &Path) -> u64 {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(top) = nix::fcntl::open(tree, flags, Mode::empty()) else { return 0 };
    let mut sum = 0;
    let mut left = vec![inside.strip_prefix("/").unwrap_or(inside).to_owned()];
    while let Some(path) = left.pop() {
        let Ok(directory) = open(&top, &path, OFlag::O_RDONLY) else { continue };
        let Ok(all) = directory.try_clone().and_then(entries) else { continue };
        for (name, is_directory) in all {
            let Ok(found) = fstatat(&directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            sum += u64::try_from(found.st_blocks).unwrap_or(0) * BLOCK;
            if is_directory {
                left.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
            }
        }
    }
    sum
}

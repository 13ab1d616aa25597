//! How much of the disk a tree takes.

use std::{os::unix::ffi::OsStrExt, path::Path};

use nix::{
    fcntl::{AtFlags, OFlag},
    sys::stat::{Mode, fstatat},
};

use super::remove_tree::{entries, open};

/// Unit of `st_blocks`, whatever the file system's own is.
const BLOCK: u64 = 512;

/// Bytes that a tree, or the directory `inside` it, takes on disk. What vanishes meanwhile, or cannot be entered, counts as
/// nothing.
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

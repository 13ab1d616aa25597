//! How much room there is on a file system, and how much a directory takes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Unit of `st_blocks`, whatever the file system's own is.
const BLOCK: u64 = 512;

/// A file system's room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this user may still write.
    pub free: u64,
    /// All there is.
    pub total: u64,
}

impl Space {
    /// Of the file system that `path` is on.
    pub fn of(path: &Path) -> io::Result<Self> {
        let found = nix::sys::statvfs::statvfs(path)?;
        let unit = found.fragment_size();
        Ok(Self { free: found.blocks_available() * unit, total: found.blocks() * unit })
    }
}

/// Bytes that a tree takes on disk. What vanishes meanwhile, or cannot be entered, counts as nothing.
pub(super) fn used(tree: &Path) -> u64 {
    let mut sum = 0;
    let mut left: Vec<PathBuf> = vec![tree.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            sum += found.blocks() * BLOCK;
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_takes_what_is_in_it() {
        let tree = tempfile::tempdir().unwrap();
        let before = used(tree.path());
        fs::create_dir(tree.path().join("d")).unwrap();
        fs::write(tree.path().join("d/f"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", tree.path().join("link")).unwrap();
        let grown = used(tree.path()) - before;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
        let space = Space::of(tree.path()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
    }
}

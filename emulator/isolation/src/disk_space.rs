//! How much room there is on a file system.

use std::{io, path::Path};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_free_than_there_is() {
        let tree = tempfile::tempdir().unwrap();
        let space = Space::of(tree.path()).unwrap();
        assert!(space.free <= space.total && space.total > 0);
    }
}

//! The free space of a file system.

use std::{io, path::Path};

/// The space of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this user can still write.
    pub free: u64,
    /// Size of the file system.
    pub total: u64,
}

impl Space {
    /// Returns the space of the file system that contains `path`.
    ///
    /// # Errors
    ///
    /// Fails if `statvfs` fails, for example because `path` does not exist.
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

//! Creates and removes directories of layers.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Removes a directory tree in a blocking task, and logs a failure.
pub fn remove_in_background(path: PathBuf) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = remove(&path) {
            tracing::warn!(%error, path = %path.display(), "cannot remove");
        }
    });
}

/// Removes a directory tree, even if the modes of its directories do not permit that.
///
/// # Errors
///
/// Fails if an entry cannot be removed.
pub fn remove(path: &Path) -> std::io::Result<()> {
    container_isolation::remove_tree(path)
}

/// Returns the mode for a directory of a layer. In an overlay the mode of the topmost directory counts, so a layer that only
/// has files below such a directory must repeat the mode that the base gives it.
fn directory_mode(path: &Path) -> u32 {
    match path.to_str() {
        Some("tmp" | "var/tmp" | "dev/shm" | "run/lock") => 0o1777,
        Some("root") => 0o700,
        _ => 0o755,
    }
}

/// Creates a directory and its parents below `root`, with the modes that they have in the base.
pub(crate) fn make_directories(root: &Path, path: &Path) -> std::io::Result<()> {
    let mut so_far = PathBuf::new();
    for part in path.components() {
        so_far.push(part);
        let directory = root.join(&so_far);
        if !directory.is_dir() {
            std::fs::create_dir(&directory)?;
            std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(directory_mode(&so_far)))?;
        }
    }
    Ok(())
}

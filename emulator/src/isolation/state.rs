//! The state directory: made, locked, and cleared of what emulators that are no more left beside it.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use super::{
    cgroups,
    tree::{detach_mounts, remove_tree},
};

/// State directories are named so; a later emulator looks for the leftovers of this one by it.
const PREFIX: &str = "modal-emulator-";

/// A directory without a lock file is one that is just being made, unless it is older than this.
const UNLOCKED_AGE: Duration = Duration::from_secs(600);

/// A locked state directory. The lock goes when the process does, however that ends.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory where missing, for nobody else to enter, and locks it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.with_context(|| format!("cannot make the state directory {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        let lock = File::create(path.join("lock"))
            .with_context(|| format!("cannot write into the state directory {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("the state directory {} is in use by another emulator", path.display())
            }
            Err(TryLockError::Error(error)) => Err(error).context("cannot lock the state directory"),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The name under which this emulator's control groups stand.
    pub(super) fn group_name(&self) -> String {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let tail: String = name.strip_prefix(PREFIX).unwrap_or(name).chars().filter(char::is_ascii).collect();
        format!("{PREFIX}{}-{}", std::process::id(), tail.replace(['/', '\n'], "-"))
    }

    /// Removes sibling directories whose emulators are no more. What cannot be removed stays for the next one.
    pub(super) fn sweep(&self) {
        let Some(parent) = self.path.parent() else { return };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path() != self.path {
                match sweep_one(&entry.path()) {
                    Ok(true) => tracing::info!(directory = %entry.path().display(), "removed leftovers"),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(directory = %entry.path().display(), %error, "cannot remove leftovers");
                    }
                }
            }
        }
    }
}

/// True if the directory was a dead emulator's and is gone.
fn sweep_one(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    // Not through a link that somebody may have put there.
    let lock = match fs::symlink_metadata(path.join("lock")) {
        Ok(lock) if lock.is_file() => File::open(path.join("lock"))?,
        Ok(_) => return Ok(false),
        Err(_) if found.modified()?.elapsed().unwrap_or_default() > UNLOCKED_AGE => File::open(path)?,
        Err(_) => return Ok(false),
    };
    if lock.try_lock().is_err() || !detach_mounts(path) {
        return Ok(false);
    }
    cgroups::remove_recorded(path);
    remove_tree(path)?;
    Ok(true)
}

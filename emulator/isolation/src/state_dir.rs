//! The state directory: creates and locks it, and removes sibling directories that killed emulators left behind.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

use crate::{cgroups, mount_calls::detach_mounts, rootfs::remove_tree};

/// Prefix of the names of state directories. A later emulator finds leftovers by it.
const PREFIX: &str = "modal-emulator-";

/// A directory without a lock file is considered as being created unless it is older than this.
const UNLOCKED_AGE: Duration = Duration::from_secs(600);

/// A locked state directory. The lock is released on drop, or when the process ends in any way.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    lock: File,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Closing the file is not enough: a child process between fork and exec also has it open.
        let _ = self.lock.unlock();
    }
}

impl StateDir {
    /// Creates the directory with mode 700 if it does not exist, and locks it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
        made.with_context(|| format!("cannot create the state directory {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
        let lock = lock(&path).with_context(|| format!("cannot use the state directory {}", path.display()))?;
        Ok(Self { path, lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of this emulator's control groups.
    pub(crate) fn group_name(&self) -> String {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let tail: String = name.strip_prefix(PREFIX).unwrap_or(name).chars().filter(char::is_ascii).collect();
        format!("{PREFIX}{}-{}", std::process::id(), tail.replace(['/', '\n'], "-"))
    }

    /// Removes sibling directories whose emulators have ended. Logs a warning if one cannot be removed.
    pub(crate) fn remove_leftovers(&self) {
        let Some(parent) = self.path.parent() else { return };
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path() != self.path {
                match remove_if_leftover(&entry.path()) {
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

/// Creates and locks the directory's lock file, or locks the existing one.
fn lock(directory: &Path) -> anyhow::Result<File> {
    let path = directory.join("lock");
    // Locked before it gets its final name, so that other emulators that start now do not find it unlocked.
    let made = tempfile::NamedTempFile::new_in(directory).context("cannot write into it")?;
    made.as_file().try_lock().context("cannot lock a file in it")?;
    let lock = match made.persist_noclobber(&path) {
        Ok(lock) => return Ok(lock),
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => File::open(&path),
        Err(failed) => Err(failed.error),
    };
    let lock = lock.context("cannot create its lock file")?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            anyhow::bail!("it is in use by another emulator: end that emulator, or choose another directory")
        }
        Err(TryLockError::Error(error)) => Err(error).context("cannot lock it"),
    }
}

/// Returns `true` if the directory belonged to an ended emulator and was removed.
fn remove_if_leftover(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() {
        return Ok(false);
    }
    // Does not follow a link, which another user may have created.
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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn a_directory_has_one_user() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join(format!("{PREFIX}one"));
        let first = StateDir::open(&path).expect("it is free");
        let second = StateDir::open(&path).expect_err("it is not");
        assert!(format!("{second:#}").contains("in use by another emulator"), "{second:#}");
        // A process that is being started holds the file like this.
        let _held = first.lock.try_clone().expect("a descriptor");
        drop(first);
        StateDir::open(&path).expect("it is free again");
    }

    /// While two processes start at once, a directory that one is creating is not a leftover for the other.
    #[test]
    fn what_is_being_made_is_no_leftover() {
        let parent = tempfile::tempdir().expect("a directory");
        let remover = StateDir::open(&parent.path().join(format!("{PREFIX}remover"))).expect("it is free");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    remover.remove_leftovers();
                }
            });
            let made: Result<Vec<_>, _> =
                (0..2_000).map(|n| StateDir::open(&parent.path().join(format!("{PREFIX}{n}")))).collect();
            done.store(true, Ordering::Relaxed);
            let made = made.expect("no other test uses them");
            assert!(made.iter().all(|state| state.path().join("lock").exists()));
        });
    }

    #[test]
    fn leftovers_go() {
        let parent = tempfile::tempdir().expect("a directory");
        let dead = parent.path().join(format!("{PREFIX}dead"));
        drop(StateDir::open(&dead).expect("it is free"));
        fs::write(dead.join("file"), "left").expect("a file");
        let other = parent.path().join("another's");
        fs::create_dir(&other).expect("a directory");
        StateDir::open(&parent.path().join(format!("{PREFIX}new"))).expect("it is free").remove_leftovers();
        assert!(!dead.exists() && other.exists());
    }
}

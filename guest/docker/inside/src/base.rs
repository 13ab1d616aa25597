//! The directory of the helper, `/.sandbox`, and the lock that tells `init` whether the sandbox is idle.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::PathBuf,
    time::Duration,
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    time::{ClockId, clock_gettime},
};

use crate::answer::{Answer, Failure};

/// Most characters of an id or of the name of an upload.
const MAX_ID: usize = 128;

/// The directory of the helper.
#[derive(Clone)]
pub struct Base {
    dir: PathBuf,
}

impl Base {
    /// The directory at a path. It is created when something is written into it.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory of the command `id`.
    ///
    /// # Errors
    ///
    /// Fails if the id is not usable as a file name.
    pub fn exec(&self, id: &str) -> Answer<PathBuf> {
        Ok(self.execs().join(checked(id)?))
    }

    /// The directory that has one entry for each command.
    pub fn execs(&self) -> PathBuf {
        self.dir.join("execs")
    }

    /// The directory of the transfer or watch `id`.
    ///
    /// # Errors
    ///
    /// Fails if the id is not usable as a file name.
    pub fn transfer(&self, id: &str) -> Answer<PathBuf> {
        Ok(self.dir.join("files").join(checked(id)?))
    }

    /// A file of the directory itself.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The file `up/NAME`.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file.
    pub fn upload(&self, name: &str) -> Answer<Upload> {
        let path = self.dir.join("up").join(checked(name)?);
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        match OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(&path) {
            Ok(file) => Ok(Upload { file, path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::invalid("file", format_args!("No data has been put at up/{name}.")))
            }
            Err(error) => Err(Failure::internal(name, error)),
        }
    }

    /// Says that the sandbox is in use until the result is dropped and closed in all processes that inherited it.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn activity(&self) -> io::Result<Activity> {
        let path = self.file("activity");
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_dir(&self.dir)?;
                open()?
            }
            other => other?,
        };
        // It only waits while `init` looks at the lock, or decides that the sandbox ends.
        flock(&file, FlockOperation::LockShared)?;
        let activity = Activity(file);
        activity.stamp()?;
        Ok(activity)
    }
}

/// Data that the provider put into `up`. It is removed when it is dropped.
pub struct Upload {
    /// The data, at its start.
    pub file: File,
    /// Where it lies.
    pub path: PathBuf,
}

impl Drop for Upload {
    fn drop(&mut self) {
        // It may have been renamed.
        let _ = fs::remove_file(&self.path);
    }
}

/// A shared lock on the file that also holds the time of the last activity.
pub struct Activity(File);

impl Activity {
    /// Writes the present time as that of the last activity.
    ///
    /// # Errors
    ///
    /// Fails if the disk is full.
    pub fn stamp(&self) -> io::Result<()> {
        self.0.write_all_at(&milliseconds().to_ne_bytes(), 0)
    }

    /// How long the sandbox has been idle; zero while anything else holds the lock. It gives up the own lock.
    pub fn idle(&self) -> Duration {
        // The conversion to an exclusive lock fails while another process has the shared one.
        let free = flock(&self.0, FlockOperation::NonBlockingLockExclusive).is_ok();
        let _ = flock(&self.0, FlockOperation::Unlock);
        if !free {
            return Duration::ZERO;
        }
        let mut last = [0; 8];
        match self.0.read_exact_at(&mut last, 0) {
            Ok(()) => Duration::from_millis(milliseconds().saturating_sub(u64::from_ne_bytes(last))),
            Err(_) => Duration::ZERO,
        }
    }
}

/// Milliseconds since the boot of the machine, including the time that it slept.
pub fn milliseconds() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Creates a directory and its parents that only root can enter.
///
/// # Errors
///
/// Fails if the disk is full.
pub fn make_dir(path: impl AsRef<std::path::Path>) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Checks that an id is a safe name of a file.
fn checked(id: &str) -> Answer<&str> {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if id.is_empty() || id.len() > MAX_ID || id.starts_with('.') || !id.bytes().all(safe) {
        let message =
            "An id has 1 to 128 letters, digits, dots, dashes and underscores, and does not start with a dot.";
        return Err(Failure::invalid("id", message));
    }
    Ok(id)
}

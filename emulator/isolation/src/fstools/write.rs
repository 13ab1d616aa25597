//! The operation that writes standard input to a file.
//!
//! Writes the content to an unnamed file, which then replaces the target: readers see either the old or the new content,
//! and an interrupted write leaves nothing behind. Where that is impossible (a device, a mount point, a directory in
//! which the user may not create files), the target is overwritten in place.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, Gid, Uid, faccessat, fchown, linkat},
};

use super::{
    failure::{About, Failure, Kind, Outcome},
    names::NAME,
};

/// The kernel's limit of symbolic links in a path resolution.
const MOST_LINKS: usize = 40;

/// Copies standard input to a file and creates its parent directories.
pub(crate) fn write(path: &Path) -> Outcome {
    let target = follow(path)?;
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().about(Path::new("input"))?);
    let existing = match fs::metadata(&target) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Failure::io(path, &error)),
    };
    if let Some(found) = &existing {
        if found.is_dir() {
            return Err(Failure::new(Kind::IsDirectory, format!("{}: is a directory", path.display())));
        }
        // Replacing a file needs no write permission for the file itself, but the requested operation is a write.
        faccessat(AT_FDCWD, &target, AccessFlags::W_OK, AtFlags::AT_EACCESS).map_err(io::Error::from).about(path)?;
        if !found.is_file() {
            return in_place(&mut input, &target).about(path);
        }
    }
    let (Some(directory), Some(_)) = (target.parent(), target.file_name()) else {
        return Err(Failure::new(Kind::IsDirectory, format!("{}: is a directory", path.display())));
    };
    fs::create_dir_all(directory).about(path)?;
    let draft = match Draft::new(directory) {
        Ok(draft) => draft,
        Err(error) if existing.is_some() && is_refusal(&error) => return in_place(&mut input, &target).about(path),
        Err(error) => return Err(Failure::io(path, &error)),
    };
    io::copy(&mut input, &mut &draft.file).about(path)?;
    draft.attributes(existing.as_ref()).about(path)?;
    match draft.publish(&target) {
        // The target is a mount point.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EXDEV)) => {
            let mut content = draft.reopen().about(path)?;
            in_place(&mut content, &target).about(path)
        }
        published => published.about(path),
    }
}

/// Resolves symbolic links in the last component, so that files are written through links, including dangling ones.
fn follow(path: &Path) -> Outcome<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(link) => target = target.parent().unwrap_or(Path::new("/")).join(link),
            // Not a link, or the path does not exist.
            Err(_) => return Ok(target),
        }
    }
    Err(Failure::io(path, &io::Error::from_raw_os_error(libc::ELOOP)))
}

/// Returns whether the directory cannot be written to.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// Overwrites an existing file.
fn in_place(input: &mut File, target: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(target)?;
    io::copy(input, &mut file).map(drop)
}

/// The new content of a file before it replaces the target.
struct Draft {
    file: File,
    directory: PathBuf,
    /// The temporary name, on file systems that do not support `O_TMPFILE`.
    name: Option<PathBuf>,
}

impl Draft {
    fn new(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        match options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
            Ok(file) => Ok(Self { file, directory: directory.to_owned(), name: None }),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::ENOENT)) => {
                let (name, file) = unused(directory, |name| options.clone().create_new(true).open(name))?;
                Ok(Self { file, directory: directory.to_owned(), name: Some(name) })
            }
            Err(error) => Err(error),
        }
    }

    /// Sets owner and mode to those of the replaced file, or to the defaults for new files.
    fn attributes(&self, existing: Option<&Metadata>) -> io::Result<()> {
        let mode = match existing {
            Some(found) => {
                // Changes the owner as far as the user has permission for it.
                let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
                if fchown(&self.file, Some(uid), Some(gid)).is_err() {
                    let _ = fchown(&self.file, None, Some(gid));
                }
                found.mode() & 0o7777
            }
            None => 0o666 & !umask(),
        };
        self.file.set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Moves the draft to its target.
    fn publish(&self, target: &Path) -> io::Result<()> {
        let named;
        let name = match &self.name {
            Some(name) => name,
            None => {
                let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let link = |name: &Path| {
                    linkat(AT_FDCWD, source.as_str(), AT_FDCWD, name, AtFlags::AT_SYMLINK_FOLLOW)
                        .map_err(io::Error::from)
                };
                named = unused(&self.directory, link)?.0;
                &named
            }
        };
        fs::rename(name, target).inspect_err(|_| {
            let _ = fs::remove_file(name);
        })
    }

    /// Returns the draft's content from its beginning.
    fn reopen(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        io::Seek::rewind(&mut file)?;
        Ok(file)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Already gone if it was renamed to the target.
        if let Some(name) = &self.name {
            let _ = fs::remove_file(name);
        }
    }
}

/// Calls `make` with a name that does not exist in `directory`. The name does not contain the target's name, because that
/// may already have the maximum length.
fn unused<T>(directory: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    let mut number: u32 = 0;
    loop {
        let name = directory.join(OsString::from(format!(".{}-{}-{number}", NAME, std::process::id())));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            made => return Ok((name, made?)),
        }
    }
}

/// Returns the umask of the process.
fn umask() -> u32 {
    use nix::sys::stat::{Mode, umask};
    // The umask can only be read by setting it.
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

//! The verb `write-tree`: unpacks a tar archive into a directory.
//!
//! Entries cannot leave the directory. Names with `..` and absolute names are refused before anything is written, and
//! each directory on the way to an entry is opened by itself, without following links.

use std::{
    ffi::OsStr,
    fs::{DirBuilder, File},
    io::{self, BufReader, Read, Seek},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::DirBuilderExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, linkat, mkdirat, mknodat,
        open, openat, symlinkat, unlinkat, utimensat,
    },
    io::Errno,
};

use crate::{
    answer::{Answer, Failure},
    args::Args,
    context::Context,
    files::{
        access::{Access, file_failure, path_of},
        tar::{Entry, padding, read_header},
        transfer::{Upload, receive},
    },
};

/// Permissions of directories that have no entry of their own.
const NEW_MODE: Mode = Mode::from_raw_mode(0o755);
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// Accepts a piece of an archive, and unpacks it with the last one.
///
/// # Errors
///
/// Fails if the piece does not fit, the archive is malformed or leaves the directory, or the user must not write there.
pub fn write_tree(args: &Args, context: &mut Context) -> Answer {
    let path = path_of(args, "path")?;
    let access = Access::of(args)?;
    receive(args, context, |upload| access.perform(|| unpack(&path, upload))?)
}

fn unpack(root: &Path, upload: &mut Upload) -> Answer {
    let mut input = BufReader::with_capacity(64 * 1024, &mut upload.content);
    while let Some(entry) = next(&mut input)? {
        parts(&entry.name)?;
        if entry.kind == b'1' {
            parts(&entry.link)?;
        }
        if !matches!(entry.kind, 0 | b'0'..=b'2' | b'5'..=b'7') {
            return Err(refused(&entry.name, "is neither a file, a directory, a link nor a pipe"));
        }
        let skip = i64::try_from(entry.size.saturating_add(padding(entry.size) as u64));
        let skip = skip.map_err(|_| Failure::invalid("tree", "The archive is malformed: an entry is too large."))?;
        input.seek_relative(skip).map_err(|error| malformed(&error))?;
    }
    let end = input.stream_position().map_err(|error| malformed(&error))?;
    if end > upload.length {
        return Err(Failure::invalid("tree", "The archive is malformed: it ends within an entry."));
    }
    input.rewind().map_err(|error| malformed(&error))?;
    let prepare = || {
        let created = DirBuilder::new().recursive(true).mode(0o755).create(root);
        created.map_err(|error| match error.kind() {
            // Something is there that is no directory.
            io::ErrorKind::AlreadyExists => Errno::NOTDIR.into(),
            _ => error,
        })?;
        Ok(open(root, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?)
    };
    let mut target = Target {
        root: root.to_path_buf(),
        top: prepare().map_err(|error: io::Error| file_failure(root, &error))?,
        directories: Vec::new(),
    };
    while let Some(entry) = next(&mut input)? {
        let mut content = (&mut input).take(entry.size);
        target.create(&entry, &mut content)?;
        let rest = content.limit() + padding(entry.size) as u64;
        io::copy(&mut (&mut input).take(rest), &mut io::sink()).map_err(|error| malformed(&error))?;
    }
    target.finish()
}

fn malformed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::InvalidData => Failure::invalid("tree", format_args!("The tree cannot be unpacked: {error}.")),
        _ => Failure::invalid("tree", "The archive is malformed: it ends within an entry."),
    }
}

fn next(input: &mut impl Read) -> Answer<Option<Entry>> {
    let entry = read_header(input).map_err(|error| malformed(&error))?;
    // Only files have content. Some writers set the size of links.
    Ok(entry.map(|entry| match entry.kind {
        0 | b'0' | b'7' => entry,
        _ => Entry { size: 0, ..entry },
    }))
}

fn refused(name: &[u8], why: &str) -> Failure {
    let name = String::from_utf8_lossy(name).into_owned();
    let message = format!("The entry {name:?} of the tree {why}.");
    Failure::invalid(name, message)
}

/// The names on the way to an entry. None for the directory itself.
fn parts(name: &[u8]) -> Answer<Vec<&OsStr>> {
    if name.first() == Some(&b'/') {
        return Err(refused(name, "has an absolute path"));
    }
    let mut parts = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(refused(name, "leaves the directory by \"..\"")),
            part => parts.push(OsStr::from_bytes(part)),
        }
    }
    Ok(parts)
}

/// The directory into which an archive is unpacked.
struct Target {
    root: PathBuf,
    top: OwnedFd,
    /// Directories with entries, which get their permissions and times at the end.
    directories: Vec<Entry>,
}

impl Target {
    fn failure(&self, name: &[u8], error: impl Into<io::Error>) -> Failure {
        let error = error.into();
        if matches!(Errno::from_io_error(&error), Some(Errno::LOOP)) {
            return refused(name, "lies behind a symbolic link");
        }
        let path: PathBuf = self.root.join(parts(name).unwrap_or_default().into_iter().collect::<PathBuf>());
        file_failure(&path, &error)
    }

    /// Opens the directory at `parts`, and creates what is missing of it.
    fn directory(&self, parts: &[&OsStr]) -> Result<OwnedFd, Errno> {
        let mut dir = openat(&self.top, ".", DIRECTORY, Mode::empty())?;
        for part in parts {
            dir = match openat(&dir, *part, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match mkdirat(&dir, *part, NEW_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    openat(&dir, *part, DIRECTORY, Mode::empty())
                }
                // The kernel reports a link like any other entry that is no directory.
                Err(Errno::NOTDIR) if is_link(&dir, part) => Err(Errno::LOOP),
                other => other,
            }?;
        }
        Ok(dir)
    }

    fn create(&mut self, entry: &Entry, content: &mut impl Read) -> Answer {
        let parts = parts(&entry.name)?;
        let failed = |error: Errno| self.failure(&entry.name, error);
        if entry.kind == b'5' || parts.is_empty() {
            self.directory(&parts).map_err(failed)?;
            if entry.kind == b'5' {
                self.directories.push(entry.clone());
            }
            return Ok(());
        }
        let (name, parents) = parts.split_last().ok_or_else(|| failed(Errno::NOENT))?;
        let parent = self.directory(parents).map_err(failed)?;
        match unlinkat(&parent, *name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        match entry.kind {
            b'1' => self.link(entry, &parent, name),
            b'2' => {
                symlinkat(entry.link.as_slice(), &parent, *name).map_err(failed)?;
                // Not all file systems keep the time of a link.
                let _ = utimensat(&parent, *name, &times(entry), AtFlags::SYMLINK_NOFOLLOW);
                Ok(())
            }
            b'6' => mknodat(&parent, *name, FileType::Fifo, Mode::from_raw_mode(entry.mode), 0).map_err(failed),
            _ => self.file(entry, &parent, name, content),
        }
    }

    fn link(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr) -> Answer {
        let failed = |error: Errno| self.failure(&entry.link, error);
        let target = parts(&entry.link)?;
        let (target, parents) = target.split_last().ok_or_else(|| failed(Errno::ISDIR))?;
        let directory = self.directory(parents).map_err(failed)?;
        // Without flags, a link at the end is not followed.
        linkat(&directory, *target, parent, name, AtFlags::empty()).map_err(failed)
    }

    fn file(&self, entry: &Entry, parent: &OwnedFd, name: &OsStr, content: &mut impl Read) -> Answer {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut write = || -> io::Result<()> {
            let mut file = File::from(openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
            if io::copy(content, &mut file)? < entry.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            fchmod(&file, Mode::from_raw_mode(entry.mode))?;
            futimens(&file, &times(entry))?;
            Ok(())
        };
        write().map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => malformed(&error),
            _ => self.failure(&entry.name, error),
        })
    }

    /// Gives directories their permissions and times, the deepest first.
    fn finish(self) -> Answer {
        for entry in self.directories.iter().rev() {
            let parts = parts(&entry.name)?;
            let set = || -> Result<(), Errno> {
                let directory = self.directory(&parts)?;
                match fchmod(directory.as_fd(), Mode::from_raw_mode(entry.mode)) {
                    // The directory was there before, and belongs to another user.
                    Err(Errno::PERM) => return Ok(()),
                    other => other?,
                }
                futimens(directory.as_fd(), &times(entry))
            };
            set().map_err(|error| self.failure(&entry.name, error))?;
        }
        Ok(())
    }
}

fn is_link(dir: &OwnedFd, name: &OsStr) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|metadata| FileType::from_raw_mode(metadata.st_mode) == FileType::Symlink)
}

fn times(entry: &Entry) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: entry.modified, tv_nsec: 0 },
    }
}

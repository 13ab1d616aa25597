//! Copies files from one root directory into another, from outside, without ever leaving either.

use std::{
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Component, Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, ResolveFlag, openat, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, futimens, mkdirat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, symlinkat, unlinkat},
};

use super::{copy_content, kind, open_directory, open_file, resolve};

/// Bytes that are read of a file: those that are looked at are small.
const LARGEST_READ: u64 = 1 << 20;

/// Levels of directories that are copied; two descriptors are held for each.
const DEEPEST: usize = 400;

/// The root directory of something: a container, or a build context.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// What copied files get instead of their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes {
    /// User and group; root when unset.
    pub owner: Option<(u32, u32)>,
    /// Permission bits.
    pub mode: Option<u32>,
}

impl Attributes {
    /// Gives a file its owner, and its mode after that: a change of the owner takes bits away.
    fn give(self, file: impl std::os::fd::AsFd, mode: u32) -> io::Result<()> {
        // Without privileges everything belongs to us, who are root inside; other owners cannot be had then.
        if let Some((user, group)) = self.owner {
            fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        Ok(fchmod(&file, Mode::from_bits_truncate(mode & 0o7777))?)
    }
}

impl Root {
    /// Opens a root directory.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Root { fd: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(resolve(&self.fd, path, flags, ResolveFlag::RESOLVE_IN_ROOT)?)
    }

    /// Opens a directory as processes inside see it.
    pub(in super::super) fn open_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        resolve(&self.fd, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT)
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.open_directory(path)?)
    }

    /// The directory that something is in, and its name there.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Whether there is a directory at `path`.
    pub fn is_dir(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// Whether there is anything at `path`, links not followed.
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
    }

    /// The beginning of a regular file; nothing when there is none.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).ok()?;
        let found = fstat(&file).ok().filter(|found| kind(found) == SFlag::S_IFREG)?;
        let size = u64::try_from(found.st_size).unwrap_or(0).min(LARGEST_READ);
        let mut content = Vec::new();
        File::from(file).take(size).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// Names in a directory, sorted.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = names(self.directory(path)?)?;
        let mut names: Vec<_> = names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// Makes a directory and those above it; those that are there stay as they are.
    pub fn make_directories(&self, path: &Path, attributes: Attributes) -> io::Result<()> {
        self.made_directory(path, attributes).map(drop)
    }

    /// The same; the directory.
    fn made_directory(&self, path: &Path, attributes: Attributes) -> io::Result<OwnedFd> {
        let mut so_far = PathBuf::new();
        let place = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let mut held = self.resolve(&so_far, place)?;
        for part in path.components() {
            if !matches!(part, Component::Normal(_) | Component::ParentDir) {
                continue;
            }
            so_far.push(part);
            held = match self.resolve(&so_far, place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // In the directory that was found before; what may be at its path by now does not matter.
                    let made = make_directory(&held, part.as_os_str())?;
                    attributes.give(&made, 0o755)?;
                    made
                }
                found => found?,
            };
        }
        Ok(held)
    }

    /// Copies what is at `source` of another root to `target` here. A directory's contents go into the directory `target`;
    /// parents are made.
    pub fn copy(&self, from: &Root, source: &Path, target: &Path, attributes: Attributes) -> io::Result<()> {
        if let Ok(directory) = from.directory(source) {
            let target = self.made_directory(target, attributes)?;
            return copy_contents(directory, &target, attributes, 0);
        }
        let (source, name) = from.parent(source)?;
        let target_name = text(target.file_name().ok_or(io::ErrorKind::InvalidInput)?)?;
        let target = self.made_directory(target.parent().unwrap_or(Path::new("")), attributes)?;
        copy_entry(&source, &text(name)?, &target, &target_name, attributes, 0)
    }

    /// Writes a file, whose parents are made.
    pub fn write(&self, target: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.made_directory(target.parent().unwrap_or(Path::new("")), attributes)?;
        let mut file = create(&directory, &text(name)?)?;
        file.write_all(content)?;
        attributes.give(&file, attributes.mode.unwrap_or(0o644))
    }

    /// Removes a file.
    pub fn remove(&self, target: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(target)?;
        Ok(unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?)
    }
}

fn text(name: &OsStr) -> io::Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

/// All names in a directory, at once: what is added meanwhile is not waited for.
fn names(directory: OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Makes a directory that only its owner may enter, or takes the one that is there.
fn make_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(error) => return Err(error.into()),
    }
    open_directory(parent, name).map_err(|error| match error {
        Errno::ENOTDIR | Errno::ELOOP => io::Error::other(format!("{} is not a directory", name.display())),
        error => error.into(),
    })
}

fn copy_contents(from: OwnedFd, to: &OwnedFd, attributes: Attributes, depth: usize) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other(format!("directories are nested deeper than {DEEPEST} levels")));
    }
    for name in names(from.try_clone()?)? {
        match copy_entry(&from, &name, to, &name, attributes, depth) {
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Copies one entry, links as links.
fn copy_entry(
    from: &OwnedFd,
    name: &CStr,
    to: &OwnedFd,
    new_name: &CStr,
    attributes: Attributes,
    depth: usize,
) -> io::Result<()> {
    let found = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    match kind(&found) {
        SFlag::S_IFDIR => {
            let source = open_directory(from, name)?;
            let target = make_directory(to, OsStr::from_bytes(new_name.to_bytes()))?;
            let mode = attributes.mode.unwrap_or(fstat(&source)?.st_mode);
            copy_contents(source, &target, attributes, depth + 1)?;
            attributes.give(&target, mode)
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name)?;
            let _ = unlinkat(to, new_name, UnlinkatFlags::NoRemoveDir);
            Ok(symlinkat(target.as_os_str(), to, new_name)?)
        }
        SFlag::S_IFREG => {
            // Something else by now is left out like the following.
            let Some((source, found)) = open_file(from, name)? else { return Ok(()) };
            let mut target = create(to, new_name)?;
            copy_content(&source, &found, &mut target)?;
            attributes.give(&target, attributes.mode.unwrap_or(found.st_mode))?;
            let (accessed, modified) = times(&found);
            Ok(futimens(&target, &accessed, &modified)?)
        }
        // Sockets, pipes and devices mean nothing in an image.
        _ => Ok(()),
    }
}

fn times(found: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(0, libc::UTIME_OMIT), TimeSpec::new(found.st_mtime, found.st_mtime_nsec))
}

/// A new file in place of whatever file or link was there.
fn create(directory: &OwnedFd, name: &CStr) -> io::Result<File> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
}

//! Copies files from one root directory to another, without following links out of either.

use std::{
    ffi::{CStr, CString, OsStr, OsString},
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
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat},
};

use super::{
    chmod::Chmod,
    open::{copy_content, kind, open_directory, open_file, resolve},
};

/// Maximum number of bytes that [`Root::read`] returns; the files that are read this way are small.
const LARGEST_READ: u64 = 1 << 20;

/// Maximum number of links that are followed in one path; the kernel's limit.
const MOST_LINKS: usize = 40;

/// Maximum depth of directories that are copied. Two descriptors are open per level.
pub(crate) const DEEPEST: usize = 400;

/// A root directory, for example of a container or of a build context.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// The attributes that copied files get instead of those of their source.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// User and group id; root if unset.
    pub owner: Option<(u32, u32)>,
    /// Files keep the user and group of their source, unless `owner` is set.
    pub keep_owner: bool,
    /// The change of permission bits.
    pub mode: Option<Chmod>,
}

impl Attributes {
    /// Sets the owner and mode of a new directory or file. The mode is set last, because changing the owner clears bits.
    pub(crate) fn give(&self, file: impl std::os::fd::AsFd, mode: u32) -> io::Result<()> {
        // Without privileges, all files belong to the emulator's user, who is root inside, and cannot get another owner.
        if let Some((user, group)) = self.owner {
            fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        Ok(fchmod(&file, Mode::from_bits_truncate(mode & 0o7777))?)
    }

    /// Sets the owner and mode of a copy of the file with the attributes `found`.
    fn give_copy(&self, file: impl std::os::fd::AsFd, found: &FileStat) -> io::Result<()> {
        if let Some((user, group)) = self.owner_of_copy(found) {
            fchown(&file, Some(user), Some(group))?;
        }
        let mode = self.mode_of(found.st_mode, kind(found) == SFlag::S_IFDIR);
        Ok(fchmod(&file, Mode::from_bits_truncate(mode))?)
    }

    fn owner_of_copy(&self, found: &FileStat) -> Option<(Uid, Gid)> {
        let (user, group) = match self.owner {
            Some(owner) => owner,
            None if !nix::unistd::geteuid().is_root() => return None,
            None if self.keep_owner => (found.st_uid, found.st_gid),
            None => (0, 0),
        };
        Some((Uid::from_raw(user), Gid::from_raw(group)))
    }

    fn mode_of(&self, mode: u32, is_directory: bool) -> u32 {
        self.mode.as_ref().map_or(mode & 0o7777, |change| change.apply(mode, is_directory))
    }
}

/// Decides which paths below a directory are copied; `None` copies all.
pub type Wanted<'a> = Option<&'a dyn Fn(&Path) -> bool>;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// File name.
    pub name: String,
    /// True for directories, but not for links to directories.
    pub is_directory: bool,
}

impl Root {
    /// Opens a root directory.
    ///
    /// # Errors
    ///
    /// Fails if `path` is not a directory or cannot be opened.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Root { fd: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(resolve(&self.fd, path, flags, ResolveFlag::RESOLVE_IN_ROOT)?)
    }

    /// Opens a directory, resolving its path as processes inside would.
    pub(crate) fn open_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        resolve(&self.fd, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT)
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.open_directory(path)?)
    }

    /// Opens the directory that contains `path`. Returns it with the last component of the path.
    pub(crate) fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.directory(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// Returns whether `path` is a directory, or a link to one within the root.
    pub fn is_dir(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// Returns whether anything exists at `path`, including dangling links.
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
    }

    /// Returns the path without links: resolves links as processes inside would. Components that do not exist are kept
    /// unchanged.
    pub fn real(&self, path: &Path) -> PathBuf {
        let mut waiting: Vec<OsString> = path.components().rev().map(|part| part.as_os_str().to_owned()).collect();
        let mut real = PathBuf::new();
        let mut followed = 0;
        while let Some(part) = waiting.pop() {
            match Path::new(&part).components().next() {
                Some(Component::Normal(name)) => real.push(name),
                Some(Component::ParentDir) => drop(real.pop()),
                Some(Component::RootDir) => real.clear(),
                _ => {}
            }
            let held = self.resolve(&real, OFlag::O_PATH | OFlag::O_NOFOLLOW);
            let Some(target) = held.ok().and_then(|held| readlinkat(&held, "").ok()) else { continue };
            followed += 1;
            if followed > MOST_LINKS {
                break;
            }
            real.pop();
            waiting.extend(Path::new(&target).components().rev().map(|part| part.as_os_str().to_owned()));
        }
        real
    }

    /// Returns the content of a regular file, up to 1 MiB. Links are followed within the root. Returns `None` if there is
    /// no regular file at `path` or reading fails.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).ok()?;
        let found = fstat(&file).ok().filter(|found| kind(found) == SFlag::S_IFREG)?;
        let size = u64::try_from(found.st_size).unwrap_or(0).min(LARGEST_READ);
        let mut content = Vec::new();
        File::from(file).take(size).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// Returns the entries of a directory, sorted by name. Omits names that are not UTF-8.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` or `NotADirectory` if there is no directory at `path`.
    pub fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        let directory = self.directory(path)?;
        let mut entries = Vec::new();
        for name in names(directory.try_clone()?)? {
            let found = fstatat(&directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW);
            let is_directory = found.is_ok_and(|found| kind(&found) == SFlag::S_IFDIR);
            entries.extend(name.into_string().ok().map(|name| Listed { name, is_directory }));
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Creates a directory and its parents. Existing directories are not changed.
    ///
    /// # Errors
    ///
    /// Fails if a component exists and is not a directory, and with the I/O errors of the file system.
    pub fn make_directories(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        self.made_directory(path, attributes).map(drop)
    }

    /// Creates a directory and its parents like [`Root::make_directories`], and opens it.
    pub(crate) fn made_directory(&self, path: &Path, attributes: &Attributes) -> io::Result<OwnedFd> {
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
                    // Created in the directory that was opened before, even if another one is at its path by now.
                    let made = make_directory(&held, part.as_os_str())?;
                    attributes.give(&made, 0o755)?;
                    made
                }
                found => found?,
            };
        }
        Ok(held)
    }

    /// Copies the file or directory at `source` in another root, following links, to `target` in this root, and creates
    /// parent directories. For a directory, copies those of its entries that are `wanted` into the directory `target`.
    /// Files that are neither regular files nor directories are ignored.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if there is nothing at `source`, with `InvalidInput` if `target` has no file name, and with
    /// the I/O errors of the file system.
    pub fn copy(
        &self,
        from: &Root,
        source: &Path,
        target: &Path,
        attributes: &Attributes,
        wanted: Wanted<'_>,
    ) -> io::Result<()> {
        if let Ok(directory) = from.directory(source) {
            let target = self.made_directory(target, attributes)?;
            return Contents { attributes, wanted }.copy(directory, &target, Path::new(""), 0);
        }
        let name = text(target.file_name().ok_or(io::ErrorKind::InvalidInput)?)?;
        let found = from.resolve(source, OFlag::O_PATH)?;
        if kind(&fstat(&found)?) != SFlag::S_IFREG {
            // Ignored, as in directories.
            return Ok(());
        }
        let source = from.resolve(source, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let found = fstat(&source)?;
        let target = self.made_directory(target.parent().unwrap_or(Path::new("")), attributes)?;
        if kind(&found) == SFlag::S_IFREG {
            copy_file(&File::from(source), &found, &target, &name, attributes)
        } else {
            Ok(())
        }
    }

    /// Writes a file and creates its parent directories.
    ///
    /// # Errors
    ///
    /// Fails with `InvalidInput` if `target` has no file name, and with the I/O errors of the file system.
    pub fn write(&self, target: &Path, content: &[u8], attributes: &Attributes) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.made_directory(target.parent().unwrap_or(Path::new("")), attributes)?;
        let mut file = create(&directory, &text(name)?)?;
        file.write_all(content)?;
        attributes.give(&file, attributes.mode_of(0o644, false))
    }

    /// Removes a file or link.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if nothing is at `target`.
    pub fn remove(&self, target: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(target)?;
        Ok(unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes the file or directory at `target` if it is empty; otherwise does nothing.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if nothing is at `target`, and with `DirectoryNotEmpty` if a directory there is not empty.
    pub fn remove_empty(&self, target: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(target)?;
        let found = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match kind(&found) {
            SFlag::S_IFDIR => Ok(unlinkat(&directory, name, UnlinkatFlags::RemoveDir)?),
            SFlag::S_IFREG if found.st_size == 0 => Ok(unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?),
            _ => Ok(()),
        }
    }
}

/// Converts a name to a C string. Fails if it contains a zero byte.
pub(crate) fn text(name: &OsStr) -> io::Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

/// Reads all names in a directory at once, so that names that are added during the copy are not included.
pub(crate) fn names(directory: OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Creates a directory with mode 700, or opens the existing one.
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

/// Copies the content of a directory.
struct Contents<'a> {
    attributes: &'a Attributes,
    wanted: Wanted<'a>,
}

impl Contents<'_> {
    /// Copies all entries. `path` is the path of the directory relative to the one where the copy began.
    fn copy(&self, from: OwnedFd, to: &OwnedFd, path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEEPEST {
            return Err(io::Error::other(format!("directories are nested deeper than {DEEPEST} levels")));
        }
        for name in names(from.try_clone()?)? {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if self.wanted.is_some_and(|wanted| !wanted(&path)) {
                continue;
            }
            match self.entry(&from, &name, to, &name, &path, depth) {
                // The entry was removed in the meantime.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Copies one entry to a new name. Links are copied as links.
    fn entry(
        &self,
        from: &OwnedFd,
        name: &CStr,
        to: &OwnedFd,
        new_name: &CStr,
        path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let found = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match kind(&found) {
            SFlag::S_IFDIR => {
                let source = open_directory(from, name)?;
                let target = make_directory(to, OsStr::from_bytes(new_name.to_bytes()))?;
                let found = fstat(&source)?;
                self.copy(source, &target, path, depth + 1)?;
                self.attributes.give_copy(&target, &found)
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(from, name)?;
                let _ = unlinkat(to, new_name, UnlinkatFlags::NoRemoveDir);
                symlinkat(target.as_os_str(), to, new_name)?;
                if let Some((user, group)) = self.attributes.owner_of_copy(&found) {
                    fchownat(to, new_name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW)?;
                }
                Ok(())
            }
            SFlag::S_IFREG => match open_file(from, name)? {
                Some((source, found)) => copy_file(&source, &found, to, new_name, self.attributes),
                // The file was replaced by something else, which is omitted like the types below.
                None => Ok(()),
            },
            // Sockets, pipes and devices are not useful in an image.
            _ => Ok(()),
        }
    }
}

/// Copies one entry to a new name, including the content of a directory. Links are copied as links.
pub(crate) fn copy_entry(
    from: &OwnedFd,
    name: &CStr,
    to: &OwnedFd,
    new_name: &CStr,
    attributes: &Attributes,
) -> io::Result<()> {
    Contents { attributes, wanted: None }.entry(from, name, to, new_name, Path::new(""), 0)
}

fn copy_file(source: &File, found: &FileStat, to: &OwnedFd, name: &CStr, attributes: &Attributes) -> io::Result<()> {
    let mut target = create(to, name)?;
    copy_content(source, found, &mut target)?;
    attributes.give_copy(&target, found)?;
    let (accessed, modified) = times(found);
    Ok(futimens(&target, &accessed, &modified)?)
}

fn times(found: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(0, libc::UTIME_OMIT), TimeSpec::new(found.st_mtime, found.st_mtime_nsec))
}

/// Creates a file. Replaces an existing file or link.
fn create(directory: &OwnedFd, name: &CStr) -> io::Result<File> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
}

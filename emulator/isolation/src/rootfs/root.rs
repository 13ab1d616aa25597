//! Copies files from one root directory into another, from outside, without ever leaving either.

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

/// Bytes that are read of a file: those that are looked at are small.
const LARGEST_READ: u64 = 1 << 20;

/// Links that are followed in one path, as many as the kernel does.
const MOST_LINKS: usize = 40;

/// Levels of directories that are copied; two descriptors are held for each.
pub(crate) const DEEPEST: usize = 400;

/// The root directory of something: a container, or a build context.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

/// What copied files get instead of their own.
#[derive(Debug, Clone, Default)]
pub struct Attributes {
    /// User and group; root when unset.
    pub owner: Option<(u32, u32)>,
    /// Files keep the user and group that they have at their source, unless `owner` is set.
    pub keep_owner: bool,
    /// What becomes of permission bits.
    pub mode: Option<Chmod>,
}

impl Attributes {
    /// Gives a directory that was made for what is copied, or a file that was written, its owner and its mode. The mode comes
    /// second: a change of the owner takes bits away.
    pub(crate) fn give(&self, file: impl std::os::fd::AsFd, mode: u32) -> io::Result<()> {
        // Without privileges everything belongs to us, who are root inside; other owners cannot be had then.
        if let Some((user, group)) = self.owner {
            fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?;
        }
        Ok(fchmod(&file, Mode::from_bits_truncate(mode & 0o7777))?)
    }

    /// The same for a copy of what was found.
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

/// Which paths below a directory are copied; all when there is none.
pub type Wanted<'a> = Option<&'a dyn Fn(&Path) -> bool>;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// It is a directory, and no link to one.
    pub is_directory: bool,
}

impl Root {
    /// Opens a root directory.
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Root { fd: nix::fcntl::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(resolve(&self.fd, path, flags, ResolveFlag::RESOLVE_IN_ROOT)?)
    }

    /// Opens a directory as processes inside see it.
    pub(crate) fn open_directory(&self, path: &Path) -> nix::Result<OwnedFd> {
        resolve(&self.fd, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, ResolveFlag::RESOLVE_IN_ROOT)
    }

    fn directory(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.open_directory(path)?)
    }

    /// The directory that something is in, and its name there.
    pub(crate) fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
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

    /// Where a path leads, as processes inside would follow its links: a path without links, as far as it is there now.
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

    /// The beginning of a regular file; nothing when there is none.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY).ok()?;
        let found = fstat(&file).ok().filter(|found| kind(found) == SFlag::S_IFREG)?;
        let size = u64::try_from(found.st_size).unwrap_or(0).min(LARGEST_READ);
        let mut content = Vec::new();
        File::from(file).take(size).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// What is in a directory, sorted by name. Names that are not UTF-8 are left out.
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

    /// Makes a directory and those above it; those that are there stay as they are.
    pub fn make_directories(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        self.made_directory(path, attributes).map(drop)
    }

    /// The same; the directory.
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

    /// Copies what is at `source` of another root, where a link is followed, to `target` here. A directory's contents go into
    /// the directory `target`, those of them that are wanted; parents are made.
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
            // As in a directory.
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

    /// Writes a file, whose parents are made.
    pub fn write(&self, target: &Path, content: &[u8], attributes: &Attributes) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.made_directory(target.parent().unwrap_or(Path::new("")), attributes)?;
        let mut file = create(&directory, &text(name)?)?;
        file.write_all(content)?;
        attributes.give(&file, attributes.mode_of(0o644, false))
    }

    /// Removes a file.
    pub fn remove(&self, target: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(target)?;
        Ok(unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes a file or directory if there is nothing in it.
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

pub(crate) fn text(name: &OsStr) -> io::Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

/// All names in a directory, at once: what is added meanwhile is not waited for.
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

/// The copying of a directory's contents.
struct Contents<'a> {
    attributes: &'a Attributes,
    wanted: Wanted<'a>,
}

impl Contents<'_> {
    /// `path` is that of the directory below the one where the copying began.
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
                // It was removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Copies one entry to a name, links as links.
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
                // Something else by now is left out like the following.
                None => Ok(()),
            },
            // Sockets, pipes and devices mean nothing in an image.
            _ => Ok(()),
        }
    }
}

/// Copies one entry to a name, with all that is in it, links as links.
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

/// A new file in place of whatever file or link was there.
fn create(directory: &OwnedFd, name: &CStr) -> io::Result<File> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?))
}

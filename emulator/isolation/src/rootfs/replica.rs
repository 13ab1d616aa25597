//! Synchronizes two directories: a volume, and a container's copy of it.
//!
//! Containers write to their own copy, so that others do not see their changes. [`Replica::commit`] copies changes from
//! the copy to the volume, and [`Replica::refresh`] from the volume to the copy. If two containers change the same file,
//! the later commit wins.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, OsStr},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    open::{kind, open_directory, open_file},
    root::{Attributes, DEEPEST, Root, copy_entry, names, text},
};

/// Temporary name of a file that is being written.
const PART: &CStr = c".modal-volume-part";

/// The type of a directory entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device, or an unknown type.
    Other,
}

/// A file or directory below a root.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Path relative to the root.
    pub path: PathBuf,
    /// Type of the entry.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification, in Unix seconds.
    pub modified: u64,
    stamp: Stamp,
}

/// The attributes by which changes of an entry are detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    mode: u32,
    owner: (u32, u32),
    /// `None` for directories, whose attributes change with their entries.
    content: Option<Content>,
}

/// Inode, size and times of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content {
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Entry {
    fn new(path: PathBuf, found: &FileStat) -> Entry {
        let kind = match kind(found) {
            SFlag::S_IFREG => EntryKind::File,
            SFlag::S_IFDIR => EntryKind::Directory,
            SFlag::S_IFLNK => EntryKind::Link,
            SFlag::S_IFIFO => EntryKind::Fifo,
            SFlag::S_IFSOCK => EntryKind::Socket,
            _ => EntryKind::Other,
        };
        let content = Content {
            inode: found.st_ino,
            size: found.st_size,
            modified: (found.st_mtime, found.st_mtime_nsec),
            changed: (found.st_ctime, found.st_ctime_nsec),
        };
        Entry {
            path,
            kind,
            size: u64::try_from(found.st_size).unwrap_or(0),
            modified: u64::try_from(found.st_mtime).unwrap_or(0),
            stamp: Stamp {
                mode: found.st_mode,
                owner: (found.st_uid, found.st_gid),
                content: (kind != EntryKind::Directory).then_some(content),
            },
        }
    }

    /// Returns whether entries of this type are copied between a volume and its copies.
    fn is_kept(&self) -> bool {
        matches!(self.kind, EntryKind::File | EntryKind::Directory | EntryKind::Link)
            && self.path.file_name() != Some(OsStr::from_bytes(PART.to_bytes()))
    }
}

impl Root {
    /// Returns the attributes of the entry at a path. Links are followed within the root.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if nothing is at the path.
    pub fn entry(&self, path: &Path) -> io::Result<Entry> {
        let found = fstat(self.resolve(path, OFlag::O_PATH)?)?;
        Ok(Entry::new(path.to_owned(), &found))
    }

    /// Returns the entries of the directory at a path, where links are followed within the root, including those of its
    /// subdirectories if `recursive`, with parents before their content. For a file, returns its own entry.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if nothing is at the path, and if directories are nested too deeply.
    pub fn entries(&self, path: &Path, recursive: bool) -> io::Result<Vec<Entry>> {
        let mut all = Vec::new();
        match self.open_directory(path) {
            Ok(directory) => enter(directory, path, recursive, &mut all, 0)?,
            Err(Errno::ENOTDIR) => all.push(self.entry(path)?),
            Err(error) => return Err(error.into()),
        }
        Ok(all)
    }

    /// Opens a regular file for reading. Returns it with its size in bytes. Links are followed within the root.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if nothing is at the path, with `IsADirectory` for a directory, and with `Other` for pipes
    /// and devices.
    pub fn open_file(&self, path: &Path) -> io::Result<(File, u64)> {
        let file = self.resolve(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        let found = fstat(&file)?;
        match kind(&found) {
            SFlag::S_IFREG => Ok((File::from(file), u64::try_from(found.st_size).unwrap_or(0))),
            SFlag::S_IFDIR => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::other("not a regular file")),
        }
    }

    /// Writes the content of `source` to a file, and creates its parent directories. An existing file is replaced
    /// atomically.
    ///
    /// # Errors
    ///
    /// Fails with `InvalidInput` if the path has no file name, and with the I/O errors of `source` and the file system.
    pub fn put(&self, path: &Path, mut source: impl io::Read, mode: u32) -> io::Result<()> {
        let name = text(path.file_name().ok_or(io::ErrorKind::InvalidInput)?)?;
        let directory = self.made_directory(path.parent().unwrap_or(Path::new("")), &Attributes::default())?;
        let _ = unlinkat(&directory, PART, UnlinkatFlags::NoRemoveDir);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut part = File::from(openat(&directory, PART, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        io::copy(&mut source, &mut part)?;
        Attributes::default().give(&part, mode)?;
        Ok(renameat(&directory, PART, &directory, name.as_c_str())?)
    }

    /// Removes the file or directory at a path, without following links. Non-empty directories are removed only if
    /// `recursive`.
    ///
    /// # Errors
    ///
    /// Fails with `NotFound` if nothing is at the path, and with `DirectoryNotEmpty` for a non-empty directory.
    pub fn remove_all(&self, path: &Path, recursive: bool) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        remove(&directory, &text(name)?, recursive, 0)
    }
}

/// Adds the entries of a directory to `all`.
fn enter(directory: OwnedFd, path: &Path, recursive: bool, all: &mut Vec<Entry>, depth: usize) -> io::Result<()> {
    if depth > DEEPEST {
        return Err(io::Error::other(format!("directories are nested deeper than {DEEPEST} levels")));
    }
    let mut names = names(directory.try_clone()?)?;
    names.sort();
    for name in names {
        // The entry may have been removed in the meantime.
        let Ok(found) = fstatat(&directory, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        let entry = Entry::new(path.join(OsStr::from_bytes(name.to_bytes())), &found);
        let below = (recursive && entry.kind == EntryKind::Directory).then(|| entry.path.clone());
        all.push(entry);
        if let Some(path) = below
            && let Ok(directory) = open_directory(&directory, name.as_c_str())
        {
            enter(directory, &path, recursive, all, depth + 1)?;
        }
    }
    Ok(())
}

/// Removes an entry of a directory.
fn remove(directory: &OwnedFd, name: &CStr, recursive: bool, depth: usize) -> io::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) if depth <= DEEPEST => {}
        other => return Ok(other?),
    }
    if recursive {
        let inner = open_directory(directory, name)?;
        for name in names(inner.try_clone()?)? {
            remove(&inner, &name, true, depth + 1)?;
        }
    }
    Ok(unlinkat(directory, name, UnlinkatFlags::RemoveDir)?)
}

/// A container's copy of a volume.
#[derive(Debug)]
pub struct Replica {
    volume: PathBuf,
    own: PathBuf,
    /// The attributes of all entries when both directories were last synchronized, in the volume and in the copy.
    alike: BTreeMap<PathBuf, (Stamp, Stamp)>,
}

impl Replica {
    /// Copies the directory `volume` to `own`, which is created.
    ///
    /// # Errors
    ///
    /// Fails with the I/O errors of the file system.
    pub fn new(volume: PathBuf, own: PathBuf) -> io::Result<Replica> {
        std::fs::create_dir_all(&own)?;
        let mut replica = Replica { volume, own, alike: BTreeMap::new() };
        replica.refresh()?;
        Ok(replica)
    }

    /// Copies the changes in the copy to the volume. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// Fails with the I/O errors of the file system.
    pub fn commit(&mut self) -> io::Result<bool> {
        let (volume, own) = (Root::open(&self.volume)?, Root::open(&self.own)?);
        let alike = &mut self.alike;
        carry(&own, &volume, alike, |(_, own)| *own, |in_own, in_volume| (in_volume, in_own))
    }

    /// Copies the changes in the volume to the copy. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// Fails with the I/O errors of the file system.
    pub fn refresh(&mut self) -> io::Result<bool> {
        let (volume, own) = (Root::open(&self.volume)?, Root::open(&self.own)?);
        let alike = &mut self.alike;
        carry(&volume, &own, alike, |(volume, _)| *volume, |in_volume, in_own| (in_volume, in_own))
    }
}

/// Copies to `to` the entries of `from` whose attributes differ from those in `alike`, and removes those that are missing
/// in `from`. `side` selects the attributes of `from` in a pair, and `both` builds a pair. Returns whether anything
/// changed.
fn carry(
    from: &Root,
    to: &Root,
    alike: &mut BTreeMap<PathBuf, (Stamp, Stamp)>,
    side: impl Fn(&(Stamp, Stamp)) -> Stamp,
    both: impl Fn(Stamp, Stamp) -> (Stamp, Stamp),
) -> io::Result<bool> {
    let mut changed = false;
    let mut seen = BTreeSet::new();
    for entry in from.entries(Path::new(""), true)? {
        if !entry.is_kept() {
            continue;
        }
        seen.insert(entry.path.clone());
        if alike.get(&entry.path).is_some_and(|stamps| side(stamps) == entry.stamp) {
            continue;
        }
        match copy(from, to, &entry) {
            Ok(stamp) => {
                changed = true;
                alike.insert(entry.path, both(entry.stamp, stamp));
            }
            // The entry was removed in the meantime; the next call removes it from `to`.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // In reverse order, so that the content of a directory is removed before the directory.
    let gone: Vec<PathBuf> = alike.keys().rev().filter(|path| !seen.contains(*path)).cloned().collect();
    for path in gone {
        match to.remove_all(&path, false) {
            // Directories that contain files of others are kept.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Err(error);
            }
            _ => changed = true,
        }
        alike.remove(&path);
    }
    Ok(changed)
}

/// Copies one entry, without the content of directories. Returns the attributes of the copy.
fn copy(from: &Root, to: &Root, entry: &Entry) -> io::Result<Stamp> {
    let owner = nix::unistd::geteuid().is_root().then_some(entry.stamp.owner);
    let attributes = Attributes { owner, ..Attributes::default() };
    let (source, name) = from.parent(&entry.path)?;
    let name = text(name)?;
    let parent = to.made_directory(entry.path.parent().unwrap_or(Path::new("")), &Attributes::default())?;
    let there = fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok();
    let is_directory = there.as_ref().map(|found| kind(found) == SFlag::S_IFDIR);
    if is_directory.is_some_and(|there| there != (entry.kind == EntryKind::Directory)) {
        remove(&parent, &name, true, 0)?;
    }
    match entry.kind {
        EntryKind::Directory => {
            let made = to.made_directory(&entry.path, &Attributes::default())?;
            // Opened again by name, because `made` is an `O_PATH` descriptor.
            drop(made);
            attributes.give(open_directory(&parent, name.as_c_str())?, entry.stamp.mode)?;
        }
        EntryKind::File => {
            // Rejects a pipe or device that has replaced the file.
            if open_file(&source, name.as_c_str())?.is_none() {
                return Err(io::ErrorKind::NotFound.into());
            }
            copy_entry(&source, &name, &parent, PART, &attributes)?;
            renameat(&parent, PART, &parent, name.as_c_str())?;
        }
        _ => {
            copy_entry(&source, &name, &parent, PART, &attributes)?;
            renameat(&parent, PART, &parent, name.as_c_str())?;
        }
    }
    let found = fstatat(&parent, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(Entry::new(entry.path.clone(), &found).stamp)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Place {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("volume")).unwrap();
            Place { directory }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.directory.path().join(path)
        }

        fn replica(&self, name: &str) -> Replica {
            Replica::new(self.at("volume"), self.at(name)).unwrap()
        }
    }

    #[test]
    fn changes_are_seen_after_commit_and_refresh() {
        let place = Place::new();
        fs::write(place.at("volume/old"), "old").unwrap();
        let (mut one, mut two) = (place.replica("one"), place.replica("two"));
        assert_eq!(fs::read_to_string(place.at("one/old")).unwrap(), "old");
        fs::create_dir_all(place.at("one/a/b")).unwrap();
        fs::write(place.at("one/a/b/new"), "new").unwrap();
        symlink("/etc/passwd", place.at("one/link")).unwrap();
        fs::remove_file(place.at("one/old")).unwrap();
        assert!(!two.refresh().unwrap());
        assert!(one.commit().unwrap());
        assert!(!one.commit().unwrap());
        assert!(!place.at("two/a").exists() && place.at("two/old").exists());
        assert!(two.refresh().unwrap());
        assert_eq!(fs::read_to_string(place.at("two/a/b/new")).unwrap(), "new");
        assert_eq!(fs::read_link(place.at("two/link")).unwrap(), Path::new("/etc/passwd"));
        assert!(!place.at("two/old").exists());
        // Synchronized changes are not reported again.
        assert!(!two.commit().unwrap());
        assert!(!one.refresh().unwrap());
    }

    #[test]
    fn changes_of_different_files_come_together_and_the_later_one_of_a_file_wins() {
        let place = Place::new();
        fs::write(place.at("volume/both"), "0").unwrap();
        fs::create_dir(place.at("volume/d")).unwrap();
        let (mut one, mut two) = (place.replica("one"), place.replica("two"));
        fs::write(place.at("one/both"), "one").unwrap();
        fs::write(place.at("one/mine"), "one").unwrap();
        fs::write(place.at("two/both"), "second").unwrap();
        fs::write(place.at("two/d/theirs"), "two").unwrap();
        fs::remove_dir(place.at("one/d")).unwrap();
        two.commit().unwrap();
        one.commit().unwrap();
        two.refresh().unwrap();
        one.refresh().unwrap();
        for side in ["volume", "one", "two"] {
            let read = |name: &str| fs::read_to_string(place.at(side).join(name)).unwrap();
            assert_eq!((read("both"), read("mine"), read("d/theirs")), ("one".into(), "one".into(), "two".into()));
        }
    }

    #[test]
    fn a_file_takes_the_place_of_a_directory_and_the_other_way_round() {
        let place = Place::new();
        fs::create_dir_all(place.at("volume/x/y")).unwrap();
        fs::write(place.at("volume/z"), "file").unwrap();
        let mut one = place.replica("one");
        fs::remove_dir_all(place.at("one/x")).unwrap();
        fs::write(place.at("one/x"), "file").unwrap();
        fs::remove_file(place.at("one/z")).unwrap();
        fs::create_dir(place.at("one/z")).unwrap();
        fs::write(place.at("one/z/in"), "in").unwrap();
        one.commit().unwrap();
        assert_eq!(fs::read_to_string(place.at("volume/x")).unwrap(), "file");
        assert_eq!(fs::read_to_string(place.at("volume/z/in")).unwrap(), "in");
    }

    #[test]
    fn no_link_leads_out() {
        let place = Place::new();
        fs::create_dir(place.at("outside")).unwrap();
        let mut one = place.replica("one");
        fs::create_dir(place.at("one/d")).unwrap();
        fs::write(place.at("one/d/f"), "f").unwrap();
        one.commit().unwrap();
        // A container that can write to the volume may replace its directory with a link that leads out.
        fs::remove_dir_all(place.at("volume/d")).unwrap();
        symlink(place.at("outside"), place.at("volume/d")).unwrap();
        fs::write(place.at("one/d/f"), "more").unwrap();
        let _ = one.commit();
        assert_eq!(fs::read_dir(place.at("outside")).unwrap().count(), 0);
        let root = Root::open(&place.at("volume")).unwrap();
        symlink("/etc/passwd", place.at("volume/passwd")).unwrap();
        assert_eq!(root.open_file(Path::new("passwd")).unwrap_err().kind(), io::ErrorKind::NotFound);
        root.put(Path::new("a/b"), &b"x"[..], 0o600).unwrap();
        assert_eq!(fs::read_to_string(place.at("volume/a/b")).unwrap(), "x");
        assert!(root.remove_all(Path::new("a"), false).is_err());
        root.remove_all(Path::new("a"), true).unwrap();
        assert!(!place.at("volume/a").exists());
    }
}

//! Copies files from one root directory into another, from outside, without ever leaving either.
//!
//! A container's root is reached through `/proc`; paths in it are resolved by the kernel as if it were `/`
//! (`RESOLVE_IN_ROOT`), so that links an image has put there cannot lead to the machine.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

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

impl Root {
    /// Opens a root directory.
    pub fn open(path: &Path) -> io::Result<Root> {
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECTORY);
        Ok(Root { fd: options.open(path)?.into() })
    }

    fn resolve(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(self.fd.as_fd(), path, how)?)
    }

    /// Whether there is a directory at `path`.
    pub fn is_dir(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok()
    }

    /// Whether there is anything at `path`, links not followed.
    pub fn exists(&self, path: &Path) -> bool {
        self.resolve(path, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
    }

    /// Reads a file; nothing when there is none.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        use io::Read as _;
        let mut content = Vec::new();
        let file = File::from(self.resolve(path, OFlag::O_RDONLY).ok()?);
        file.take(1 << 20).read_to_end(&mut content).ok()?;
        Some(content)
    }

    /// Names in a directory, sorted.
    pub fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let directory = self.directory(path)?;
        let mut names = Vec::new();
        for entry in fs::read_dir(directory.path())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn directory(&self, path: &Path) -> io::Result<Directory> {
        self.resolve(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map(Directory)
    }

    /// Makes a directory and those above it; those that are there stay as they are.
    pub fn make_directories(&self, path: &Path, attributes: Attributes) -> io::Result<()> {
        let mut so_far = PathBuf::new();
        for part in path.components() {
            if !matches!(part, Component::Normal(_) | Component::ParentDir) {
                continue;
            }
            let parent = so_far.clone();
            so_far.push(part);
            if self.is_dir(&so_far) {
                continue;
            }
            let parent = self.directory(&parent)?;
            let new = parent.path().join(part);
            fs::create_dir(&new)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
            own(&File::open(&new)?, attributes.owner)?;
        }
        Ok(())
    }

    /// Copies what is at `source` of another root to `target` here. A directory's contents go into the directory `target`;
    /// parents are made.
    pub fn copy(&self, from: &Root, source: &Path, target: &Path, attributes: Attributes) -> io::Result<()> {
        if let Ok(directory) = from.directory(source) {
            self.make_directories(target, attributes)?;
            return copy_contents(&directory.path(), &self.directory(target)?.path(), attributes);
        }
        let parent = source.parent().unwrap_or(Path::new(""));
        let name = source.file_name().ok_or(io::ErrorKind::NotFound)?;
        let source = from.directory(parent)?;
        let target_name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let target_parent = target.parent().unwrap_or(Path::new(""));
        self.make_directories(target_parent, Attributes { mode: None, ..attributes })?;
        let target = self.directory(target_parent)?;
        copy_entry(&source.path().join(name), &target.path().join(target_name), attributes)
    }

    /// Writes a file, whose parents are made.
    pub fn write(&self, target: &Path, content: &[u8], attributes: Attributes) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = target.parent().unwrap_or(Path::new(""));
        self.make_directories(parent, Attributes { mode: None, ..attributes })?;
        let directory = self.directory(parent)?;
        let mut file = create(&directory.path().join(name))?;
        io::Write::write_all(&mut file, content)?;
        file.set_permissions(fs::Permissions::from_mode(attributes.mode.unwrap_or(0o644)))?;
        own(&file, attributes.owner)
    }

    /// Removes a file.
    pub fn remove(&self, target: &Path) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        fs::remove_file(self.directory(target.parent().unwrap_or(Path::new("")))?.path().join(name))
    }
}

/// An open directory, named by its descriptor: entries of it cannot be swapped for something elsewhere.
struct Directory(OwnedFd);

impl Directory {
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

fn copy_contents(from: &Path, to: &Path, attributes: Attributes) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy_entry(&entry.path(), &to.join(entry.file_name()), attributes)?;
    }
    Ok(())
}

/// Copies one entry, links as links.
fn copy_entry(from: &Path, to: &Path, attributes: Attributes) -> io::Result<()> {
    let found = fs::symlink_metadata(from)?;
    if found.is_dir() {
        match fs::symlink_metadata(to) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err(io::Error::other(format!("{} is not a directory", to.display()))),
            Err(_) => fs::create_dir(to)?,
        }
        let mode = attributes.mode.unwrap_or(found.mode() & 0o7777);
        let open =
            |path: &Path| File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
        let (source, target) = (Directory(open(from)?.into()), Directory(open(to)?.into()));
        fs::set_permissions(target.path(), fs::Permissions::from_mode(mode))?;
        own(&File::from(target.0.try_clone()?), attributes.owner)?;
        return copy_contents(&source.path(), &target.path(), attributes);
    }
    if found.is_symlink() {
        let _ = fs::remove_file(to);
        return symlink(fs::read_link(from)?, to);
    }
    if !found.is_file() {
        // Sockets, pipes and devices mean nothing in an image.
        return Ok(());
    }
    let mut source = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from)?;
    let mut target = create(to)?;
    io::copy(&mut source, &mut target)?;
    target.set_permissions(fs::Permissions::from_mode(attributes.mode.unwrap_or(found.mode() & 0o7777)))?;
    own(&target, attributes.owner)?;
    target.set_times(fs::FileTimes::new().set_modified(found.modified()?))
}

/// A new file in place of whatever file or link was there.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

/// Without privileges everything belongs to us, who are root inside; other owners cannot be had then.
fn own(file: &File, owner: Option<(u32, u32)>) -> io::Result<()> {
    match owner {
        Some((user, group)) => fchown(file, Some(user), Some(group)),
        None => Ok(()),
    }
}

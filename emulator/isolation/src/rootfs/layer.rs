//! Copies what a container has written, as a layer for other containers.
//!
//! The container may still be writing, and its files are untrusted: a directory may be replaced by a link to a directory
//! of the machine between two system calls. So every file is opened relative to the descriptor of its directory, never
//! through a link.

use std::{
    collections::HashMap,
    ffi::{CStr, CString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::{Context, ensure};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat},
    sys::{
        stat::{
            FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, mkdirat, mknodat,
            utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchownat, linkat, symlinkat},
};

use rustix::fs::XattrFlags;

use super::open;

/// Maximum depth of directories. Two descriptors are open per level, and no image is nested deeper.
const DEEPEST: usize = 400;

/// Attributes of overlays that are only valid for one mount. The others, such as `opaque`, belong to the layer.
const NOT_COPIED: [&str; 6] = [
    "user.overlay.origin",
    "user.overlay.impure",
    "user.overlay.nlink",
    "user.overlay.uuid",
    "user.overlay.upper",
    "user.overlay.protattr",
];

/// Copies the layer `from` into `to`, which is created or must be empty.
pub(crate) fn copy_layer(from: &Path, to: &Path) -> anyhow::Result<()> {
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let source = nix::fcntl::open(from, directory, Mode::empty())?;
    copy(source, to, None).with_context(|| format!("cannot copy {}", from.display()))
}

/// Copies a directory as processes in the container see it, without the mounts below it, into `to`, which is created or
/// must be empty.
pub(crate) fn copy_seen(source: OwnedFd, to: &Path) -> anyhow::Result<()> {
    let device = nix::sys::stat::fstat(&source)?.st_dev;
    copy(source, to, Some(device))
}

fn copy(source: OwnedFd, to: &Path, device: Option<libc::dev_t>) -> anyhow::Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    ensure!(to.read_dir()?.next().is_none(), "{} is not empty", to.display());
    let directory = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let target = nix::fcntl::open(to, directory, Mode::empty())?;
    let found = nix::sys::stat::fstat(&source)?;
    let as_root = nix::unistd::geteuid().is_root();
    let mut copy = Copy { as_root, device, links: HashMap::new(), target: target.try_clone()? };
    copy.directory(source, &target, &found, &mut Vec::new())
}

struct Copy {
    as_root: bool,
    /// If set, directories on other devices are copied without content, because they are mount points. (Files in an
    /// overlay may have other device numbers.)
    device: Option<libc::dev_t>,
    /// For each file with several hard links, the path of its first copy, relative to the target.
    links: HashMap<(u64, u64), Vec<CString>>,
    target: OwnedFd,
}

impl Copy {
    fn directory(
        &mut self,
        source: OwnedFd,
        target: &OwnedFd,
        found: &FileStat,
        path: &mut Vec<CString>,
    ) -> anyhow::Result<()> {
        ensure!(path.len() < DEEPEST, "directories are nested deeper than {DEEPEST} levels");
        let mut entries = Dir::from_fd(source.try_clone()?)?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            path.push(name.to_owned());
            match self.entry(&source, target, name, path) {
                // The entry was removed in the meantime.
                Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::ENOENT) => {}
                other => other.with_context(|| name.to_string_lossy().into_owned())?,
            }
            path.pop();
        }
        copy_attributes(&source, target)?;
        self.finish(target.as_fd(), found)
    }

    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        path: &mut Vec<CString>,
    ) -> anyhow::Result<()> {
        let found = fstatat(source, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = open::kind(&found);
        let key = (found.st_dev, found.st_ino);
        if kind != SFlag::S_IFDIR && found.st_nlink > 1 && !is_whiteout(&found) {
            if let Some(first) = self.links.get(&key) {
                return self.link(first, target, name);
            }
            self.links.insert(key, path.clone());
        }
        match kind {
            SFlag::S_IFDIR if self.device.is_some_and(|device| device != found.st_dev) => {
                mkdirat(target, name, Mode::S_IRWXU)?;
                return self.finish(open::open_directory(target, name)?.as_fd(), &found);
            }
            SFlag::S_IFDIR => {
                let shut = !self.as_root && found.st_mode & 0o500 != 0o500;
                let inner = self.open(source, name, OFlag::O_DIRECTORY, shut)?;
                mkdirat(target, name, Mode::S_IRWXU)?;
                let made = open::open_directory(target, name)?;
                let again = if shut { Some(inner.try_clone()?) } else { None };
                let copied = self.directory(inner, &made, &found, path);
                if let Some(directory) = again {
                    fchmod(&directory, Mode::from_bits_truncate(found.st_mode))?;
                }
                return copied;
            }
            SFlag::S_IFREG => {
                let shut = !self.as_root && found.st_mode & 0o400 == 0;
                let from = File::from(self.open(source, name, OFlag::O_NONBLOCK, shut)?);
                if shut {
                    fchmod(&from, Mode::from_bits_truncate(found.st_mode))?;
                }
                let now = nix::sys::stat::fstat(&from)?;
                if open::kind(&now) != SFlag::S_IFREG {
                    // The file was replaced in the meantime.
                    return Ok(());
                }
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mut to = File::from(openat(target, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
                open::copy_content(&from, &now, &mut to)?;
                copy_attributes(&from, &to)?;
                return self.finish(to.as_fd(), &found);
            }
            SFlag::S_IFLNK => symlinkat(readlinkat(source, name)?.as_os_str(), target, name)?,
            SFlag::S_IFCHR if !is_whiteout(&found) => return Ok(()),
            SFlag::S_IFCHR | SFlag::S_IFIFO | SFlag::S_IFSOCK => {
                mknodat(target, name, kind, Mode::from_bits_truncate(found.st_mode), 0)?;
            }
            // Containers cannot create other devices.
            _ => return Ok(()),
        }
        if self.as_root {
            let (uid, gid) = (Uid::from_raw(found.st_uid), Gid::from_raw(found.st_gid));
            fchownat(target, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let (accessed, modified) = times(&found);
        Ok(utimensat(target, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?)
    }

    /// Opens a file for reading. With `shut`, its owner, this user, has no permission for that: the permission is added
    /// first, and the caller must remove it again.
    fn open(&self, directory: &OwnedFd, name: &CStr, flags: OFlag, shut: bool) -> nix::Result<OwnedFd> {
        let safely = OFlag::O_NOFOLLOW | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        if shut {
            let held = openat(directory, name, OFlag::O_PATH | safely, Mode::empty())?;
            let found = nix::sys::stat::fstat(&held)?;
            // The path of the descriptor refers to exactly this file; the file's own name may refer to another one by
            // now.
            let by_descriptor = format!("/proc/self/fd/{}", held.as_raw_fd());
            let mode = Mode::from_bits_truncate(found.st_mode | 0o700);
            fchmodat(AT_FDCWD, by_descriptor.as_str(), mode, FchmodatFlags::FollowSymlink)?;
        }
        openat(directory, name, flags | OFlag::O_RDONLY | safely, Mode::empty())
    }

    fn link(&self, first: &[CString], target: &OwnedFd, name: &CStr) -> anyhow::Result<()> {
        let mut directory = self.target.try_clone()?;
        let Some((last, parents)) = first.split_last() else { return Ok(()) };
        for parent in parents {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            directory = openat(&directory, parent.as_c_str(), flags, Mode::empty())?;
        }
        Ok(linkat(&directory, last.as_c_str(), target, name, AtFlags::empty())?)
    }

    /// Sets owner, mode and times in this order, because each change can reset the following ones.
    fn finish(&self, fd: BorrowedFd<'_>, found: &FileStat) -> anyhow::Result<()> {
        if self.as_root {
            nix::unistd::fchown(fd, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
        }
        fchmod(fd, Mode::from_bits_truncate(found.st_mode))?;
        let (accessed, modified) = times(found);
        Ok(nix::sys::stat::futimens(fd, &accessed, &modified)?)
    }
}

/// Returns whether a file is a whiteout, which marks a removed entry in an overlay.
fn is_whiteout(found: &FileStat) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && found.st_rdev == 0
}

fn times(found: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(found.st_atime, found.st_atime_nsec), TimeSpec::new(found.st_mtime, found.st_mtime_nsec))
}

/// Copies extended attributes: those of overlays, capabilities of programs, and user-defined ones.
fn copy_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0u8; 64 * 1024];
    let Ok(length) = rustix::fs::flistxattr(&from, names.as_mut_slice()) else { return Ok(()) };
    for name in names[..length].split_inclusive(|byte| *byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name.to_str().is_ok_and(|name| NOT_COPIED.contains(&name)) {
            continue;
        }
        let mut value = vec![0u8; 64 * 1024];
        let Ok(length) = rustix::fs::fgetxattr(&from, name, value.as_mut_slice()) else { continue };
        match rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty()) {
            // Security labels cannot be set, nor can capabilities without privileges. The layer then lacks them.
            Err(_) if !name.to_bytes().starts_with(b"user.") => {}
            set => set?,
        }
    }
    Ok(())
}

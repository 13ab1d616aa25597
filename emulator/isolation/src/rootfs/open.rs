//! Opens files of a container without following a path out of it.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{FileStat, Mode, SFlag, fstat},
};

/// Flags to open a directory for listing.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// How often a path is resolved again if `openat2` fails with EAGAIN because of a concurrent rename.
const RESOLVE_TRIES: usize = 64;

/// Resolves a path relative to a directory with `openat2`. Never follows the links to descriptors in `/proc`.
pub(crate) fn resolve(directory: impl AsFd, path: &Path, flags: OFlag, how: ResolveFlag) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(how | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let mut tries = 0;
    loop {
        match openat2(directory.as_fd(), path, how) {
            Err(Errno::EAGAIN) if tries < RESOLVE_TRIES => tries += 1,
            opened => return opened,
        }
    }
}

/// Opens a directory by its name in another directory. Does not follow links.
pub(crate) fn open_directory(directory: impl AsFd, name: &(impl nix::NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    openat(directory, name, DIRECTORY, Mode::empty())
}

/// Opens a regular file by its name in a directory for reading. Returns `None` if it is not a regular file.
pub(crate) fn open_file(
    directory: impl AsFd,
    name: &(impl nix::NixPath + ?Sized),
) -> nix::Result<Option<(File, FileStat)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    let found = fstat(&file)?;
    Ok((kind(&found) == SFlag::S_IFREG).then(|| (File::from(file), found)))
}

/// Copies a file's content, at most as many bytes as `found` says: the file may grow without end.
pub(crate) fn copy_content(from: &File, found: &FileStat, to: &mut File) -> io::Result<u64> {
    let size = u64::try_from(found.st_size).unwrap_or(0);
    // Shares blocks if the file system supports it, and otherwise copies inside the kernel.
    io::copy(&mut io::Read::take(from, size), to)
}

/// Returns the file type.
pub(crate) fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

/// Opens the directory `inside` below `source`, a directory of the machine to which containers may have written. Does not
/// follow links, and creates missing directories.
pub(crate) fn open_inside(source: &Path, inside: &Path) -> nix::Result<OwnedFd> {
    use std::path::Component;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut held = nix::fcntl::open(source, flags, Mode::empty())?;
    for part in inside.components() {
        let name = match part {
            Component::Normal(name) => name,
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::EINVAL),
        };
        match nix::sys::stat::mkdirat(&held, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error),
        }
        held = openat(&held, name, flags, Mode::empty())?;
    }
    Ok(held)
}

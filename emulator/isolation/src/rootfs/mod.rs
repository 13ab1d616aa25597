//! All that is done to a container's files from outside of it. No other module of the emulator touches them.
//!
//! What lies in a container is hostile and changes at every moment: between two looks at a path, a directory can have become
//! a link to a place of the machine, and a file a pipe. So no path is ever used twice, and none is resolved as the machine's:
//!
//! - A path is resolved once, by `openat2`, as if the container's root were `/` (`RESOLVE_IN_ROOT`), and never through the
//!   links that `/proc` makes of descriptors. What is done then is done to the descriptor, or to one name in it.
//! - Links in the last part of a path are not followed.
//! - Only regular files are opened for reading, without waiting (`O_NONBLOCK`), and only as many bytes are read as the file
//!   had when it was opened.
//! - Nothing of it runs on a thread of the runtime.
//!
//! [`Root`] copies and writes files (builds); [`Replica`] keeps what a container sees of a volume; `layer` copies trees
//! (snapshots), `remove_tree` removes them and counts what they take. What runs inside a container (its init, the file tools) is not meant: paths are the container's own there.

mod chmod;
pub(crate) mod layer;
pub(crate) mod remove_tree;
mod replica;
mod root;

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

pub use chmod::Chmod;
pub use remove_tree::remove_tree;
pub use replica::{Entry, EntryKind, Replica};
pub use root::{Attributes, Listed, Root, Wanted};

/// A directory to look into.
const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Times that a path is resolved again because something was renamed meanwhile, which the kernel answers with EAGAIN.
const RESOLVE_TRIES: usize = 64;

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

/// Opens a directory by its name in another one.
fn open_directory(directory: impl AsFd, name: &(impl nix::NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    openat(directory, name, DIRECTORY, Mode::empty())
}

/// Opens a regular file by its name in a directory, for reading. None when it is something else.
fn open_file(directory: impl AsFd, name: &(impl nix::NixPath + ?Sized)) -> nix::Result<Option<(File, FileStat)>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, name, flags, Mode::empty())?;
    let found = fstat(&file)?;
    Ok((kind(&found) == SFlag::S_IFREG).then(|| (File::from(file), found)))
}

/// Copies a file's content, no more than it had when it was looked at: it may grow for ever.
fn copy_content(from: &File, found: &FileStat, to: &mut File) -> io::Result<u64> {
    let size = u64::try_from(found.st_size).unwrap_or(0);
    // Shares blocks where the file system can, and otherwise copies within the kernel.
    io::copy(&mut io::Read::take(from, size), to)
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

/// Opens a directory below one of the machine's, in which containers may have written: no link is followed. Missing directories
/// are made.
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

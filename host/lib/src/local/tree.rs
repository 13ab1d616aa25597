//! Converts directories of this machine to tar streams, and unpacks and checks the streams that sandboxes send.
//!
//! **Streams of a sandbox are not trusted.** Every path is resolved below the target directory, by the kernel where
//! possible (`cap-std`), and one directory at a time, so that neither `..` nor a link from the stream or from before
//! leads a write elsewhere. Links that lead outside, devices, pipes and sockets are not created. The set-user-id and
//! set-group-id bits of files are removed, the sticky bit is kept. Files belong to the user that unpacks them. Extended
//! headers, which contain names of any length, are read up to a limit.
//!
//! A link is kept only if it first goes up, not beyond the target directory, and then down: `../../a/b`. Nothing is
//! written through a link, so each link is in the directory that its path names, and goes up through real directories.
//! From there it only goes down, whatever is created later, also by the next stream. The target directory may have
//! contained links that lead outside; new links that lead there are found and removed at the end, also if unpacking
//! fails.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, Permissions};
use tar::{Archive, Builder, EntryType};

/// Largest extended header, in bytes. A path in Linux has at most 4096, and a regular header has little more.
const MAX_HEADER: u64 = 1 << 20;

/// Most bytes of the names of directories and links that are remembered until the end.
const MAX_REMEMBERED: usize = 64 << 20;

/// Most skipped entries that are listed. Others are only counted.
const MAX_NAMED: usize = 20;

/// Why a link was skipped.
const LEADS_OUTSIDE: &str = "a link that points outside of the directory";

/// The result of sending a directory to a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Packed {
    /// Length of the stream that was sent, in bytes.
    pub bytes: u64,
    /// Number of entries that were skipped, because they are neither files nor directories nor links.
    pub skipped: u64,
    /// The first skipped entries, at most 20, each with its path below the directory and the reason.
    pub examples: Vec<(PathBuf, &'static str)>,
}

/// The result of unpacking a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Number of files, directories and links that were created.
    pub entries: u64,
    /// Number of entries that were skipped, because they cannot exist outside of the sandbox.
    pub skipped: u64,
    /// The first skipped entries, at most 20, each with its path and the reason.
    pub examples: Vec<(PathBuf, &'static str)>,
    /// Number of files that were created without their set-user-id or set-group-id bit. With it, the program from the
    /// sandbox would have the rights of the user that unpacks it.
    pub unprivileged: u64,
    /// The paths of the first of these files, at most 20.
    pub unprivileged_examples: Vec<PathBuf>,
}

impl Unpacked {
    fn skip(&mut self, path: &Path, why: &'static str) {
        self.skipped += 1;
        if self.examples.len() < MAX_NAMED {
            self.examples.push((path.to_owned(), why));
        }
    }
}

/// Why a stream cannot be unpacked.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An I/O operation of this machine failed.
    Io(io::Error),
    /// The stream is not a tar archive, or violates a rule.
    Refused(String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Io(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => error.fmt(f),
            Fault::Refused(why) => f.write_str(why),
        }
    }
}

fn refused<T>(why: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused(why.into()))
}

/// Packs a directory with its contents as a tar stream. Links are packed as links. Pipes, sockets and devices are
/// skipped: they have no content, and a device would be another one in the sandbox. The result has no length yet.
pub(crate) fn pack<W: Write>(from: &Path, writer: W) -> io::Result<Packed> {
    let mut packed = Packed::default();
    let mut archive = Builder::new(writer);
    archive.follow_symlinks(false);
    // Some `tar` programs in sandboxes do not support sparse files.
    archive.sparse(false);
    // The entries are added one by one, because errors of the library's recursive function do not name the file.
    let mut left = vec![from.to_owned()];
    while let Some(path) = left.pop() {
        let name = Path::new(".").join(path.strip_prefix(from).unwrap_or(&path));
        let named = |error: io::Error| match name.strip_prefix(".") {
            Ok(name) if !name.as_os_str().is_empty() => {
                io::Error::new(error.kind(), format!("{}: {error}", shown(name)))
            }
            _ => error,
        };
        // `from` itself may be a link to the directory. Links in the directory are packed as links.
        let meta = if path == from { std::fs::metadata(&path) } else { std::fs::symlink_metadata(&path) };
        let kind = meta.map_err(named)?.file_type();
        if kind.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(named)? {
                left.push(entry.map_err(named)?.path());
            }
            archive.append_dir(&name, &path).map_err(named)?;
        } else if kind.is_file() {
            pack_file(&mut archive, &path, &name).map_err(named)?;
        } else if kind.is_symlink() {
            archive.append_path_with_name(&path, &name).map_err(named)?;
        } else {
            packed.skipped += 1;
            if packed.examples.len() < MAX_NAMED {
                let why = if kind.is_fifo() {
                    "a pipe"
                } else if kind.is_socket() {
                    "a socket"
                } else {
                    "a device"
                };
                packed.examples.push((name.strip_prefix(".").unwrap_or(&name).to_owned(), why));
            }
        }
    }
    archive.into_inner()?.flush()?;
    Ok(packed)
}

/// Packs a regular file as long as it is now. The size stands before the content, so what a program appends in the meantime is
/// left out, and a file that becomes shorter is an error.
fn pack_file<W: Write>(archive: &mut Builder<W>, path: &Path, name: &Path) -> io::Result<()> {
    // Another program may have put a pipe in the place of the file, which would be waited for, or a link.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it was replaced while it was read"));
    }
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&meta);
    let mut content = file.take(meta.len());
    archive.append_data(&mut header, name, &mut content)?;
    match content.limit() {
        0 => Ok(()),
        _ => Err(io::Error::other("it became shorter while it was read")),
    }
}

/// Unpacks a stream into `to`, which is created. Existing files stay, unless an entry replaces them.
pub(crate) fn unpack<R: Read>(reader: R, to: &Path) -> Result<Unpacked, Fault> {
    std::fs::create_dir_all(to)?;
    let root = Dir::open_ambient_dir(to, cap_std::ambient_authority())?;
    let mut work = Work::new(&root);
    match entries(reader, &mut work) {
        Ok(()) => work.finish(),
        // The created files stay, except links that lead outside.
        Err(fault) => match work.remove_links() {
            Ok(()) => Err(fault),
            Err(left) => refused(format!("{fault}; a link that points outside could not be removed: {left}")),
        },
    }
}

fn entries<R: Read>(reader: R, work: &mut Work<'_>) -> Result<(), Fault> {
    let mut archive = Archive::new(reader);
    let mut names = Names::default();
    let foreign = |error: io::Error| Fault::Refused(format!("the archive from the sandbox is invalid: {error}"));
    // Raw entries, because the library would read extended headers of any length into memory.
    for entry in archive.entries().map_err(foreign)?.raw(true) {
        let mut entry = entry.map_err(foreign)?;
        if names.take(&mut entry)? {
            continue;
        }
        let names = std::mem::take(&mut names);
        if names.size.is_some_and(|size| size != entry.size()) {
            return refused("the archive from the sandbox contains two sizes for one file");
        }
        let header = entry.header().clone();
        let path = names.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = names.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        work.entry(&path, link.as_deref(), &header, &mut entry)?;
    }
    // The padding after the end is read too, so that the sender can finish writing.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Copies a stream from one sandbox to another, whose `tar` may check less than [`unpack`]. Fails if a name leads out
/// of the target directory, or if an entry is below a link that came before it. Links are not changed.
pub(crate) fn pass<R: Read, W: Write>(reader: R, writer: W) -> Result<(), Fault> {
    let mut archive = Archive::new(reader);
    let mut passed = Builder::new(writer);
    let mut names = Names::default();
    let mut links = BTreeSet::new();
    let mut remembered = 0;
    let foreign = |error: io::Error| Fault::Refused(format!("the archive from the sandbox is invalid: {error}"));
    for entry in archive.entries().map_err(foreign)?.raw(true) {
        let mut entry = entry.map_err(foreign)?;
        if names.take(&mut entry)? {
            continue;
        }
        let names = std::mem::take(&mut names);
        if names.size.is_some_and(|size| size != entry.size()) {
            return refused("the archive from the sandbox contains two sizes for one file");
        }
        let mut header = entry.header().clone();
        let mut path = below(&names.path.unwrap_or_else(|| header.path_bytes().into_owned()))?;
        let link = names.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).unwrap_or_default();
        if path.ancestors().any(|above| links.contains(above)) {
            return refused(format!(
                "the archive from the sandbox contains an entry below or in place of a link: {}",
                shown(&path)
            ));
        }
        if path.as_os_str().is_empty() {
            path.push(".");
        }
        match header.entry_type() {
            EntryType::Symlink => {
                remembered += path.as_os_str().len();
                if remembered > MAX_REMEMBERED {
                    return refused("the archive from the sandbox contains too many links");
                }
                links.insert(path.clone());
                passed.append_link(&mut header, &path, OsString::from_vec(link))?;
            }
            EntryType::Link => {
                let target = below(&link)?;
                if target.ancestors().skip(1).any(|above| links.contains(above)) {
                    return refused(format!(
                        "the archive from the sandbox contains a link whose path leads through another link: {}",
                        shown(&path)
                    ));
                }
                if links.contains(&target) {
                    links.insert(path.clone());
                }
                passed.append_link(&mut header, &path, &target)?;
            }
            _ => passed.append_data(&mut header, &path, &mut entry)?,
        }
    }
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    passed.into_inner()?.flush()?;
    Ok(())
}

/// The values of extended headers for the next entry.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Names {
    /// Reads an entry if it is an extended header. Returns false for other entries.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool, Fault> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {}
            EntryType::XGlobalHeader => return Ok(true),
            _ => return Ok(false),
        }
        if entry.size() > MAX_HEADER {
            return refused("the archive from the sandbox contains a header that exceeds the size limit");
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        match kind {
            EntryType::XHeader => {
                for record in tar::PaxExtensions::new(&data) {
                    let Ok(record) = record else {
                        return refused("the archive from the sandbox contains a malformed header");
                    };
                    match record.key_bytes() {
                        b"path" => self.path = Some(record.value_bytes().to_vec()),
                        b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                        b"size" => {
                            let size = record.value().ok().and_then(|text| text.parse().ok());
                            self.size = Some(size.unwrap_or(u64::MAX));
                        }
                        _ => {}
                    }
                }
            }
            _ => {
                let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
                data.truncate(end);
                *if kind == EntryType::GNULongLink { &mut self.link } else { &mut self.path } = Some(data);
            }
        }
        Ok(true)
    }
}

/// The state while a stream is unpacked.
struct Work<'a> {
    root: &'a Dir,
    /// The directory of the last entry with its path, because the next entry is often in the same one.
    last: Option<(PathBuf, Rc<Dir>)>,
    unpacked: Unpacked,
    /// Modes of the created directories, which are set at the end, when nothing more is written into them.
    directories: Vec<(PathBuf, u32)>,
    links: BTreeSet<PathBuf>,
    remembered: usize,
    mask: u32,
}

impl<'a> Work<'a> {
    fn new(root: &'a Dir) -> Work<'a> {
        Work {
            root,
            last: None,
            unpacked: Unpacked::default(),
            directories: Vec::new(),
            links: BTreeSet::new(),
            remembered: 0,
            mask: creation_mask(),
        }
    }

    fn remember(&mut self, path: &Path) -> Result<(), Fault> {
        self.remembered += path.as_os_str().len();
        if self.remembered > MAX_REMEMBERED {
            return refused("the archive from the sandbox contains too many directories and links");
        }
        Ok(())
    }

    fn entry(
        &mut self,
        name: &[u8],
        link: Option<&[u8]>,
        header: &tar::Header,
        data: &mut impl Read,
    ) -> Result<(), Fault> {
        let path = below(name)?;
        // Removes the bits of this user's umask, because the sandbox must not decide who may write to the files.
        let sent = header.mode().unwrap_or(0o644);
        let mode = sent & 0o1777 & !self.mask;
        let kind = match header.entry_type() {
            // Very old archives mark directories in this way.
            EntryType::Regular if name.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        if path.as_os_str().is_empty() {
            // The entry is the target directory itself.
            return Ok(());
        }
        match kind {
            EntryType::Directory => {
                let (parent, name) = self.make_room(&path, true)?;
                match parent.create_dir(&name) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(|error| at(&path, error))?,
                }
                self.remember(&path)?;
                self.directories.push((path, mode | sent & 0o2000 | 0o700));
            }
            EntryType::Regular | EntryType::Continuous => {
                let (parent, name) = self.make_room(&path, false)?;
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(mode);
                let mut file = parent.open_with(&name, &options).map_err(|error| at(&path, error))?;
                let size = io::copy(data, &mut file).map_err(|error| at(&path, error))?;
                if size != header.entry_size().unwrap_or(size) {
                    return refused("the archive from the sandbox ends within a file");
                }
                if sent & 0o6000 != 0 {
                    self.unpacked.unprivileged += 1;
                    if self.unpacked.unprivileged_examples.len() < MAX_NAMED {
                        self.unpacked.unprivileged_examples.push(path.clone());
                    }
                }
                let file = file.into_std();
                let modified = header.mtime().ok().map(Duration::from_secs);
                if let Some(time) = modified.and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time)) {
                    // A time that the file system cannot store is ignored.
                    let _ = file.set_modified(time);
                }
            }
            EntryType::Symlink => {
                let target = PathBuf::from(OsString::from_vec(link.unwrap_or_default().to_vec()));
                return self.link(path, &target);
            }
            EntryType::Link => {
                let target = below(link.unwrap_or_default())?;
                return self.hard_link(path, &target);
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.unpacked.skip(&path, "a device or a pipe");
                return Ok(());
            }
            _ => {
                self.unpacked.skip(&path, "an entry of an unknown kind");
                return Ok(());
            }
        }
        self.unpacked.entries += 1;
        Ok(())
    }

    /// Creates a symbolic link, unless it leads outside.
    fn link(&mut self, path: PathBuf, target: &Path) -> Result<(), Fault> {
        if target.as_os_str().is_empty() || leads_outside(&path, target) {
            self.unpacked.skip(&path, LEADS_OUTSIDE);
            return Ok(());
        }
        let (parent, name) = self.make_room(&path, false)?;
        parent.symlink(target, &name).map_err(|error| at(&path, error))?;
        self.unpacked.entries += 1;
        self.remember(&path)?;
        self.links.insert(path);
        Ok(())
    }

    /// Creates a hard link to an entry that was created before.
    fn hard_link(&mut self, path: PathBuf, target: &Path) -> Result<(), Fault> {
        let found = self.parent(target, false).and_then(|(parent, name)| {
            let found = parent.symlink_metadata(&name).map_err(|error| at(target, error))?;
            Ok((parent, name, found))
        });
        let (from, from_name, found) = match found {
            Ok(found) => found,
            // The target of the link was skipped.
            Err(Fault::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.unpacked.skip(&path, "a link to a skipped entry");
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        if found.is_symlink() {
            // A hard link to a symbolic link would lead elsewhere from another directory, so it is checked and created
            // like a new link.
            let target = from.read_link_contents(&from_name).map_err(|error| at(target, error))?;
            return self.link(path, &target);
        }
        if !found.is_file() {
            self.unpacked.skip(&path, "a hard link to an entry that is not a file");
            return Ok(());
        }
        if path != target {
            let (parent, name) = self.make_room(&path, false)?;
            from.hard_link(&from_name, &parent, &name).map_err(|error| at(&path, error))?;
        }
        self.unpacked.entries += 1;
        Ok(())
    }

    /// Returns the directory that contains a path, and the name in it. Does not follow links. With `make`, creates
    /// missing directories.
    fn parent(&mut self, path: &Path, make: bool) -> Result<(Rc<Dir>, OsString), Fault> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let above = path.parent().unwrap_or(Path::new(""));
        if let Some((_, known)) = self.last.as_ref().filter(|(path, _)| path == above) {
            return Ok((known.clone(), name));
        }
        let mut directory = self.root.try_clone()?;
        let mut reached = PathBuf::new();
        for part in above {
            reached.push(part);
            let failed = |error| at(&reached, error);
            match directory.symlink_metadata(part) {
                Ok(found) if found.is_dir() => {}
                Ok(found) if found.is_symlink() => {
                    return Err(failed(io::Error::new(
                        io::ErrorKind::NotADirectory,
                        "files are not written through a link",
                    )));
                }
                Ok(_) => return Err(failed(io::ErrorKind::NotADirectory.into())),
                Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                    directory.create_dir(part).map_err(failed)?;
                }
                Err(error) => return Err(failed(error)),
            }
            directory = directory.open_dir(part).map_err(failed)?;
        }
        let directory = Rc::new(directory);
        self.last = Some((above.to_owned(), directory.clone()));
        Ok((directory, name))
    }

    /// Creates the parents of an entry, and removes what is in its place, except a directory in the place of a
    /// directory. Returns the directory that the entry goes into, and its name in it.
    fn make_room(&mut self, path: &Path, directory: bool) -> Result<(Rc<Dir>, OsString), Fault> {
        let (parent, name) = self.parent(path, true)?;
        match parent.symlink_metadata(&name) {
            Ok(found) if found.is_dir() && directory => {}
            Ok(found) if found.is_dir() => {
                // Fails if the directory is not empty: a file does not replace a directory with content.
                parent.remove_dir(&name).map_err(|error| at(path, error))?;
                self.last = None;
            }
            Ok(_) => parent.remove_file(&name).map_err(|error| at(path, error))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at(path, error)),
        }
        Ok((parent, name))
    }

    /// Removes links that lead outside by way of other links. Continues after a failure and returns the first one.
    fn remove_links(&mut self) -> Result<(), Fault> {
        let mut failed = None;
        for path in std::mem::take(&mut self.links) {
            // The link may have been replaced meanwhile.
            let Ok((parent, name)) = self.parent(&path, false) else { continue };
            if !parent.symlink_metadata(&name).is_ok_and(|found| found.is_symlink()) {
                continue;
            }
            if let Err(error) = self.root.metadata(&path)
                && error.kind() == io::ErrorKind::PermissionDenied
            {
                match parent.remove_file(&name) {
                    Ok(()) => {
                        self.unpacked.entries -= 1;
                        self.unpacked.skip(&path, LEADS_OUTSIDE);
                    }
                    Err(error) => {
                        failed.get_or_insert(at(&path, error));
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Finishes after the last entry: removes links that lead outside, and sets the modes of directories.
    fn finish(mut self) -> Result<Unpacked, Fault> {
        self.remove_links()?;
        // In reverse order, so that a directory comes after its contents.
        for (path, mode) in std::mem::take(&mut self.directories).iter().rev() {
            // The directory or one above it may have been replaced meanwhile.
            let Ok((parent, name)) = self.parent(path, false) else { continue };
            if parent.symlink_metadata(&name).is_ok_and(|found| found.is_dir()) {
                let permissions = Permissions::from_std(std::fs::Permissions::from_mode(*mode));
                parent.set_permissions(&name, permissions).map_err(|error| at(path, error))?;
            }
        }
        Ok(self.unpacked)
    }
}

/// Returns whether a link at this path, below the target directory, can lead out of it now or after more entries were
/// created. A link that goes down and then up can: a directory on its way may be replaced by a link.
fn leads_outside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    let mut goes_down = false;
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => goes_down = true,
            Component::ParentDir if depth > 0 && !goes_down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

/// Returns the umask of this process, or 022 if it cannot be read.
fn creation_mask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}

/// Converts a name from the stream to a path below the target directory. Fails if it leads outside.
fn below(name: &[u8]) -> Result<PathBuf, Fault> {
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    if name.as_os_str().as_bytes().contains(&0) {
        return refused("the archive from the sandbox contains a name with a NUL character");
    }
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return refused(format!(
                    "the archive from the sandbox contains an entry outside of the directory: {}",
                    shown(name)
                ));
            }
        }
    }
    Ok(path)
}

fn at(path: &Path, error: io::Error) -> Fault {
    Fault::Io(io::Error::new(error.kind(), format!("{}: {error}", shown(path))))
}

/// Returns a name from the stream, escaped and shortened for messages.
fn shown(path: &Path) -> String {
    crate::error::clip(path.to_string_lossy().escape_debug().to_string(), 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    /// An entry of a generated archive, including ones that `tar` never writes.
    #[derive(Debug, Clone)]
    struct Entry {
        kind: EntryType,
        name: String,
        link: String,
    }

    fn name() -> impl Strategy<Value = String> {
        // Few different names, so that entries conflict.
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..5).prop_map(|parts| parts.join("/"))
    }

    fn target() -> impl Strategy<Value = String> {
        let parts = prop::sample::select(vec!["a", "b", "c", "..", "..", ".", "outside"]);
        let relative = prop::collection::vec(parts, 1..6).prop_map(|parts| parts.join("/"));
        prop_oneof![8 => relative, 1 => Just("/".to_owned()), 1 => name().prop_map(|name| format!("/{name}"))]
    }

    fn an_entry() -> impl Strategy<Value = Entry> {
        let kinds = prop_oneof![
            (Just(EntryType::Directory), Just(String::new())),
            (Just(EntryType::Regular), Just(String::new())),
            (Just(EntryType::Symlink), target()),
            (Just(EntryType::Link), name()),
        ];
        let name = prop_oneof![30 => name(), 1 => name().prop_map(|name| format!("a/../../{name}"))];
        (kinds, name).prop_map(|((kind, link), name)| Entry { kind, name, link })
    }

    /// Keeps what is written, and changes a file after the header of the directory and that of the file.
    struct Changing<F: FnMut()> {
        written: Vec<u8>,
        change: Option<F>,
    }

    impl<F: FnMut()> Write for Changing<F> {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.written.extend_from_slice(data);
            if self.written.len() >= 1024
                && let Some(mut change) = self.change.take()
            {
                change();
            }
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        let pack = |size: u64| {
            std::fs::write(&file, "12345").unwrap();
            let change = || std::fs::File::options().write(true).open(&file).unwrap().set_len(size).unwrap();
            let mut writer = Changing { written: Vec::new(), change: Some(change) };
            pack(folder.path(), &mut writer).map(|_| writer.written)
        };
        let packed = pack(5000).unwrap();
        let mut archive = Archive::new(&packed[..]);
        let mut texts = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut text = String::new();
            entry.unwrap().read_to_string(&mut text).unwrap();
            texts.push(text);
        }
        assert_eq!(texts, ["", "12345"], "what was appended is left out");
        let error = pack(3).unwrap_err().to_string();
        assert!(error.contains("log: it became shorter"), "{error}");
    }

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_old();
            header.as_old_mut().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
            header.as_old_mut().linkname[..entry.link.len()].copy_from_slice(entry.link.as_bytes());
            let data: &[u8] = if entry.kind == EntryType::Regular { b"from the sandbox" } else { b"" };
            header.set_entry_type(entry.kind);
            header.set_size(data.len() as u64);
            header.set_mode(0o755);
            header.set_cksum();
            archive.append(&header, data).unwrap();
        }
        archive.into_inner().unwrap()
    }

    /// Returns whether a link below `root` leads out of it, or will after the path that it names was created.
    fn escapes(root: &Path, link: &Path) -> bool {
        let mut at: Vec<std::ffi::OsString> = Vec::new();
        let mut left: Vec<PathBuf> = link.components().rev().map(|part| part.as_os_str().into()).collect();
        // More steps than a kernel follows. A cycle leads nowhere.
        for _ in 0..1000 {
            let Some(part) = left.pop() else { return false };
            match part.components().next() {
                None | Some(Component::CurDir) => {}
                Some(Component::ParentDir) => {
                    if at.pop().is_none() {
                        return true;
                    }
                }
                Some(Component::Normal(name)) => {
                    at.push(name.to_owned());
                    if let Ok(target) = std::fs::read_link(root.join(at.iter().collect::<PathBuf>())) {
                        at.pop();
                        left.extend(target.components().rev().map(|part| PathBuf::from(part.as_os_str())));
                    }
                }
                Some(Component::RootDir | Component::Prefix(_)) => return true,
            }
        }
        false
    }

    /// Collects all links below a directory, by their paths in it.
    fn links(root: &Path, below: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let (path, kind) = (below.join(entry.file_name()), entry.file_type().unwrap());
            if kind.is_symlink() {
                found.push(path);
            } else if kind.is_dir() {
                links(root, &path, found);
            }
        }
    }

    fn check(archives: &[(Vec<Entry>, Option<prop::sample::Index>)], before: bool) -> Result<(), TestCaseError> {
        let base = tempfile::tempdir().unwrap();
        let (to, outside) = (base.path().join("to"), base.path().join("outside"));
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "secret").unwrap();
        std::fs::create_dir(&to).unwrap();
        if before {
            // A link of the user, which may lead anywhere.
            std::os::unix::fs::symlink("../outside", to.join("c")).unwrap();
        }
        for (entries, cut) in archives {
            let mut archive = archive(entries);
            if let Some(cut) = cut {
                archive.truncate(cut.index(archive.len()));
            }
            let unpacked = unpack(archive.as_slice(), &to);
            let mut found = Vec::new();
            links(&to, Path::new(""), &mut found);
            for link in found {
                let own =
                    std::fs::read_link(to.join(&link)).unwrap() == Path::new("../outside") && link == Path::new("c");
                prop_assert!((before && own) || !escapes(&to, &link), "{link:?} leads outside: {unpacked:?}");
            }
            let names = |at: &Path| {
                let mut names: Vec<_> =
                    std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
                names.sort();
                names
            };
            prop_assert_eq!(names(base.path()), ["outside", "to"]);
            prop_assert_eq!(names(&outside), ["secret"]);
            prop_assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"secret");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        /// Unpacks several archives into the same directory. Some of them are truncated.
        #[test]
        fn no_archive_leaves_a_link_that_leads_outside(
            archives in prop::collection::vec(
                (prop::collection::vec(an_entry(), 1..10), prop::option::weighted(0.2, any::<prop::sample::Index>())),
                1..4,
            ),
            before in any::<bool>(),
        ) {
            check(&archives, before)?;
        }
    }

    /// The `tar` of another sandbox receives no entry that leads out of its target directory.
    #[test]
    fn what_is_passed_on_stays_inside() {
        let entry = |kind, name: &str, link: &str| Entry { kind, name: name.into(), link: link.into() };
        let good = [
            entry(EntryType::Directory, "./", ""),
            entry(EntryType::Directory, "a", ""),
            entry(EntryType::Regular, "a/f", ""),
            entry(EntryType::Symlink, "a/l", "/etc/passwd"),
            entry(EntryType::Link, "h", "a/f"),
        ];
        let mut passed = Vec::new();
        pass(archive(&good).as_slice(), &mut passed).unwrap();
        let mut read = Archive::new(passed.as_slice());
        let names: Vec<_> = read
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let link = entry.link_name().unwrap().unwrap_or_default();
                format!("{} {}", entry.path().unwrap().display(), link.display())
            })
            .collect();
        assert_eq!(names, [". ", "a ", "a/f ", "a/l /etc/passwd", "h a/f"]);
        let link = entry(EntryType::Symlink, "l", "/etc");
        for bad in [
            vec![entry(EntryType::Regular, "../f", "")],
            vec![entry(EntryType::Regular, "/f", "")],
            vec![link.clone(), entry(EntryType::Regular, "l/f", "")],
            vec![link.clone(), entry(EntryType::Directory, "l", "")],
            vec![link.clone(), entry(EntryType::Link, "m", "l"), entry(EntryType::Regular, "m/f", "")],
            vec![link, entry(EntryType::Link, "h", "l/passwd")],
            vec![entry(EntryType::Link, "h", "../f")],
        ] {
            assert!(matches!(pass(archive(&bad).as_slice(), io::sink()), Err(Fault::Refused(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_sticky_bit_stays_and_a_file_gets_no_rights_of_its_user() {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, mode) in [
            ("shared/", EntryType::Directory, 0o1777),
            ("group/", EntryType::Directory, 0o2755),
            ("program", EntryType::Regular, 0o6755),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(0);
            builder.append_data(&mut header, name, io::empty()).unwrap();
        }
        let base = tempfile::tempdir().unwrap();
        let unpacked = unpack(builder.into_inner().unwrap().as_slice(), base.path()).unwrap();
        let mode = |name: &str| std::fs::metadata(base.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("shared"), 0o1777 & !creation_mask());
        assert_eq!(mode("group"), 0o2755 & !creation_mask());
        assert_eq!(mode("program"), 0o755 & !creation_mask());
        assert_eq!((unpacked.unprivileged, unpacked.unprivileged_examples), (1, vec!["program".into()]));
    }

    /// A case that the random archives rarely contain.
    #[test]
    fn a_hard_link_to_a_link_is_a_link() {
        let entry = |kind, name: &str, link: &str| Entry { kind, name: name.into(), link: link.into() };
        let up = entry(EntryType::Symlink, "a/b/up", "../../c");
        let moved = entry(EntryType::Link, "up", "a/b/up");
        let kept = entry(EntryType::Link, "a/a/up", "a/b/up");
        let broken = entry(EntryType::Regular, "a/../../x", "");
        for entries in [vec![up.clone(), moved.clone()], vec![up.clone(), moved, kept.clone(), broken]] {
            check(&[(entries, None)], false).unwrap();
        }
        let base = tempfile::tempdir().unwrap();
        let unpacked = unpack(archive(&[up, kept]).as_slice(), base.path()).unwrap();
        assert_eq!((unpacked.entries, unpacked.skipped), (2, 0));
        assert_eq!(std::fs::read_link(base.path().join("a/a/up")).unwrap(), Path::new("../../c"));
    }
}

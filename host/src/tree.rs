//! Directories as tar streams, on this side: packing one, and unpacking what a sandbox sent.
//!
//! **What a sandbox sends is not trusted.** Every path is resolved below the target directory and nowhere else, by the
//! kernel where it can (`cap-std`), so neither `..` nor a link, whether it came in the stream or lay there before, leads
//! a write outside. Links that lead outside are not made, devices, pipes and sockets neither; set-user-id and the like are
//! dropped. Owners are whoever unpacks. Extended headers, which hold names of any length, are read up to a bound.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _, Permissions};
use tar::{Archive, Builder, EntryType};

/// Longest extended header that is read, in bytes: a path of Linux has 4096, and an honest header is little more.
const MAX_HEADER: u64 = 1 << 20;

/// Names of directories and links that are remembered until the end, in bytes in all.
const MAX_REMEMBERED: usize = 64 << 20;

/// Skipped entries that are named; the rest are only counted.
const MAX_NAMED: usize = 20;

/// What became of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unpacked {
    /// Files, directories and links that were made.
    pub entries: u64,
    /// Entries that were not, because they have no place outside of the sandbox.
    pub skipped: u64,
    /// The first of those: path and reason.
    pub examples: Vec<(PathBuf, &'static str)>,
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
    /// This side failed.
    Io(io::Error),
    /// The stream is none, or not one that is taken.
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

/// Packs a directory with all below it; links as links.
pub(crate) fn pack<W: Write>(from: &Path, writer: W) -> io::Result<()> {
    let mut archive = Builder::new(writer);
    archive.follow_symlinks(false);
    // Not every `tar` in a sandbox knows them.
    archive.sparse(false);
    // Not all at once by the library: its errors do not say which of the files it was.
    let mut left = vec![from.to_owned()];
    while let Some(path) = left.pop() {
        let name = Path::new(".").join(path.strip_prefix(from).unwrap_or(&path));
        let named = |error: io::Error| match name.strip_prefix(".") {
            Ok(name) if !name.as_os_str().is_empty() => {
                io::Error::new(error.kind(), format!("{}: {error}", shown(name)))
            }
            _ => error,
        };
        // The directory to be packed may be named by a link; those in it are packed as links.
        let meta = if path == from { std::fs::metadata(&path) } else { std::fs::symlink_metadata(&path) };
        if meta.map_err(named)?.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(named)? {
                left.push(entry.map_err(named)?.path());
            }
            archive.append_dir(&name, &path).map_err(named)?;
        } else {
            archive.append_path_with_name(&path, &name).map_err(named)?;
        }
    }
    archive.into_inner()?.flush()
}

/// Unpacks a stream into `to`, which is made. What is there already stays, unless an entry takes its place.
pub(crate) fn unpack<R: Read>(reader: R, to: &Path) -> Result<Unpacked, Fault> {
    std::fs::create_dir_all(to)?;
    let root = Dir::open_ambient_dir(to, cap_std::ambient_authority())?;
    let mut work = Work::new(&root);
    match entries(reader, &mut work) {
        Ok(()) => work.finish(),
        Err(fault) => {
            // What was made stays; links that lead outside do not.
            work.remove_links()?;
            Err(fault)
        }
    }
}

fn entries<R: Read>(reader: R, work: &mut Work<'_>) -> Result<(), Fault> {
    let mut archive = Archive::new(reader);
    let mut names = Names::default();
    let foreign = |error: io::Error| Fault::Refused(format!("the sandbox's archive cannot be read: {error}"));
    // Raw: the library would read extended headers of any length into memory.
    for entry in archive.entries().map_err(foreign)?.raw(true) {
        let mut entry = entry.map_err(foreign)?;
        if names.take(&mut entry)? {
            continue;
        }
        let names = std::mem::take(&mut names);
        if names.size.is_some_and(|size| size != entry.size()) {
            return refused("the sandbox's archive gives a file two sizes");
        }
        let header = entry.header().clone();
        let path = names.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = names.link.or_else(|| header.link_name_bytes().map(|name| name.into_owned()));
        work.entry(&path, link.as_deref(), &header, &mut entry)?;
    }
    // Padding after the end is read too, so that the other side can finish writing.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// What extended headers say of the entry that follows.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Names {
    /// Takes in an extended header; false if the entry is none.
    fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool, Fault> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader => {}
            EntryType::XGlobalHeader => return Ok(true),
            _ => return Ok(false),
        }
        if entry.size() > MAX_HEADER {
            return refused("the sandbox's archive has a header that is longer than any honest one");
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data)?;
        match kind {
            EntryType::XHeader => {
                for record in tar::PaxExtensions::new(&data) {
                    let Ok(record) = record else { return refused("the sandbox's archive has a broken header") };
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

/// An unpacking under way.
struct Work<'a> {
    root: &'a Dir,
    unpacked: Unpacked,
    /// Modes of directories, set when nothing more is written into them.
    directories: Vec<(PathBuf, u32)>,
    links: BTreeSet<PathBuf>,
    remembered: usize,
    mask: u32,
}

impl<'a> Work<'a> {
    fn new(root: &'a Dir) -> Work<'a> {
        Work {
            root,
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
            return refused("the sandbox's tree has too many directories and links");
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
        // Less what this user's new files do not get: it is not the sandbox that says who may write to them.
        let mode = header.mode().unwrap_or(0o644) & 0o777 & !self.mask;
        let kind = match header.entry_type() {
            // As very old archives have directories.
            EntryType::Regular if name.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        if path.as_os_str().is_empty() {
            // The directory itself.
            return Ok(());
        }
        match kind {
            EntryType::Directory => {
                self.make_room(&path, true)?;
                match self.root.create_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    made => made.map_err(|error| at(&path, error))?,
                }
                self.remember(&path)?;
                self.directories.push((path, mode | 0o700));
            }
            EntryType::Regular | EntryType::Continuous => {
                self.make_room(&path, false)?;
                let mut options = OpenOptions::new();
                options.write(true).create_new(true).mode(mode);
                let mut file = self.root.open_with(&path, &options).map_err(|error| at(&path, error))?;
                let size = io::copy(data, &mut file).map_err(|error| at(&path, error))?;
                if size != header.entry_size().unwrap_or(size) {
                    return refused("the sandbox's archive ends in the middle of a file");
                }
                let file = file.into_std();
                let modified = header.mtime().ok().map(Duration::from_secs);
                if let Some(time) = modified.and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time)) {
                    // A time that the file system cannot hold is no reason to fail.
                    let _ = file.set_modified(time);
                }
            }
            EntryType::Symlink => {
                let target = PathBuf::from(std::ffi::OsString::from_vec(link.unwrap_or_default().to_vec()));
                if target.as_os_str().is_empty() || leads_outside(&path, &target) {
                    self.unpacked.skip(&path, "a link that leads outside");
                    return Ok(());
                }
                self.make_room(&path, false)?;
                self.root.symlink(&target, &path).map_err(|error| at(&path, error))?;
                self.remember(&path)?;
                self.links.insert(path);
            }
            EntryType::Link => {
                let target = below(link.unwrap_or_default())?;
                self.make_room(&path, false)?;
                match self.root.hard_link(&target, self.root, &path) {
                    // What it shares its content with was skipped.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.unpacked.skip(&path, "a link to what was skipped");
                        return Ok(());
                    }
                    linked => linked.map_err(|error| at(&path, error))?,
                }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.unpacked.skip(&path, "a device or a pipe");
                return Ok(());
            }
            _ => {
                self.unpacked.skip(&path, "of a kind that is not known here");
                return Ok(());
            }
        }
        self.unpacked.entries += 1;
        Ok(())
    }

    /// Makes the parents, and takes away what is in the place of an entry; a directory only if it is another kind's.
    fn make_room(&self, path: &Path, directory: bool) -> Result<(), Fault> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.root.create_dir_all(parent).map_err(|error| at(parent, error))?;
        }
        match self.root.symlink_metadata(path) {
            Ok(found) if found.is_dir() && directory => Ok(()),
            // What is not empty is not removed for a file's sake.
            Ok(found) if found.is_dir() => self.root.remove_dir(path).map_err(|error| at(path, error)),
            Ok(_) => self.root.remove_file(path).map_err(|error| at(path, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(at(path, error)),
        }
    }

    /// Takes away the links that turn out to lead outside, by way of others.
    fn remove_links(&mut self) -> Result<(), Fault> {
        for path in &self.links {
            // Something else may have taken its place meanwhile.
            if !self.root.symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
                continue;
            }
            if let Err(error) = self.root.metadata(path)
                && error.kind() == io::ErrorKind::PermissionDenied
            {
                self.root.remove_file(path).map_err(|error| at(path, error))?;
                self.unpacked.entries -= 1;
                self.unpacked.skip(path, "a link that leads outside");
            }
        }
        Ok(())
    }

    /// Once everything is there: the links that do not stay, and the modes of directories.
    fn finish(mut self) -> Result<Unpacked, Fault> {
        self.remove_links()?;
        // Deepest first.
        for (path, mode) in self.directories.iter().rev() {
            if self.root.symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
                let permissions = Permissions::from_std(std::fs::Permissions::from_mode(*mode));
                self.root.set_permissions(path, permissions).map_err(|error| at(path, error))?;
            }
        }
        Ok(self.unpacked)
    }
}

/// Whether a link at this path, below the target, leads out of the target as far as its own words go: also by way of what
/// is not there yet, for somebody may make it later.
fn leads_outside(path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count() - 1;
    for component in target.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return true,
        }
    }
    false
}

/// The bits that this process's new files and directories do not get; the usual ones where that cannot be known.
fn creation_mask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
}

/// A name of the stream as a path below the target.
fn below(name: &[u8]) -> Result<PathBuf, Fault> {
    let name = Path::new(std::ffi::OsStr::from_bytes(name));
    if name.as_os_str().as_bytes().contains(&0) {
        return refused("the sandbox's archive has a name with a NUL character");
    }
    let mut path = PathBuf::new();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                return refused(format!("the sandbox sent an entry that would land outside: {}", shown(name)));
            }
        }
    }
    Ok(path)
}

fn at(path: &Path, error: io::Error) -> Fault {
    Fault::Io(io::Error::new(error.kind(), format!("{}: {error}", shown(path))))
}

/// A foreign name, fit to be read.
fn shown(path: &Path) -> String {
    crate::error::clip(path.to_string_lossy().escape_debug().to_string(), 512)
}

//! The build context: the files of a directory that a Dockerfile can COPY.
//!
//! They are found by walking the directory with the rules of `.dockerignore` ([`crate::local::ignore`]) and named by
//! their digests. A content that the provider has already is not sent again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use md5::Md5;
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::blocking::blocking;
use crate::digest::hex;
use crate::error::{Error, Kind, Result};
use crate::local::ignore::{Ignore, clean, pattern};
use crate::types::{Content, ContextFile};

/// Most files of a context. A directory with more was probably not meant as a context.
const MAX_FILES: usize = 100_000;

/// The directory of the files in the upload, if the context has more than files: see [`crate::local::dockerfile`].
pub(crate) const FILES: &str = "context";

/// The name of the archive with links and directories in the upload.
pub(crate) const ARCHIVE: &str = "entries.tar";

/// Most links that are followed to resolve one path.
const MAX_LINKS: u32 = 40;

/// A build context: the selected files of a directory on this machine.
#[derive(Clone, Debug, Default)]
pub struct BuildContext {
    files: Vec<(ContextFile, PathBuf)>,
    links: Vec<(String, PathBuf)>,
    /// The directories with their modes, including those that contain files.
    directories: Vec<(String, u32)>,
    /// Number of directories that contain no file.
    empty: usize,
    skipped: Vec<String>,
    /// The paths that each requested pattern matches.
    found: HashMap<String, Vec<String>>,
    /// Links on the path of a pattern that lead out of the directory of the files. Each has the path to which it leads,
    /// relative to the root of the build stage, and the path in the context that it stands for.
    leaving: Vec<(String, String)>,
    /// The archive of links and directories, after it was created.
    archive: Option<(ContextFile, Arc<NamedTempFile>)>,
    md5: bool,
}

/// Selects the files of a directory.
#[derive(Clone, Debug, Default)]
pub struct ContextFilter {
    /// The file with ignore rules. `None` for `.dockerignore` in the directory, if it exists.
    pub ignore_file: Option<PathBuf>,
    /// Patterns to select, such as the sources of COPY lines. `None` selects everything.
    pub only: Option<Vec<String>>,
    /// Further digest algorithms that the provider requires.
    pub digests: Vec<String>,
}

impl BuildContext {
    /// Reads a directory, except the files that its `.dockerignore` excludes. `digests` are further digest algorithms
    /// that the provider requires. See [`filtered`](BuildContext::filtered).
    ///
    /// # Errors
    ///
    /// Those of [`filtered`](BuildContext::filtered).
    pub async fn directory(path: impl Into<PathBuf>, digests: &[String]) -> Result<BuildContext> {
        BuildContext::filtered(path, ContextFilter { digests: digests.to_vec(), ..ContextFilter::default() }).await
    }

    /// Reads the selected files of a directory. Links to files within the directory are replaced by these files. Other
    /// links, and entries that are neither files nor directories, are left out: see [`skipped`](BuildContext::skipped).
    /// [`Provider::dockerfile`](crate::Provider::dockerfile) also sends links and empty directories.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`] if a file or directory cannot be read, [`Kind::InvalidArgument`] for more than 100,000 files or an
    /// invalid pattern, [`Kind::Unsupported`] for an unknown digest algorithm.
    pub async fn filtered(path: impl Into<PathBuf>, filter: ContextFilter) -> Result<BuildContext> {
        BuildContext::read(path.into(), filter, false).await
    }

    /// Reads the selected files of a directory. With `links`, keeps links; otherwise replaces them by the files they
    /// lead to.
    pub(crate) async fn read(path: PathBuf, filter: ContextFilter, links: bool) -> Result<BuildContext> {
        blocking(move || {
            let what = format!("read the build context {}", path.display());
            if let Some(unknown) = filter.digests.iter().find(|name| *name != "md5") {
                return Err(Error::new(
                    Kind::Unsupported,
                    what,
                    format!("the provider requests the digest {unknown:?}, which this host does not support"),
                ));
            }
            let root = path.canonicalize().map_err(|error| Error::io(&what, error))?;
            let rules = filter.ignore_file.clone().unwrap_or_else(|| root.join(".dockerignore"));
            let ignore = match std::fs::read(&rules) {
                Ok(text) => Ignore::parse(&String::from_utf8_lossy(&text))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && filter.ignore_file.is_none() => {
                    Ignore::default()
                }
                Err(error) => return Err(Error::io(format!("read {}", rules.display()), error)),
            };
            let mut tree = Tree { root, nodes: BTreeMap::new() };
            tree.directory(&ignore, "")?;
            tree.context(&filter, links)
        })
        .await
    }

    /// Returns the files for an image specification.
    pub fn files(&self) -> Vec<ContextFile> {
        let Some((archive, _)) = &self.archive else {
            return self.files.iter().map(|(file, _)| file.clone()).collect();
        };
        let moved = |file: &ContextFile| ContextFile { path: format!("{FILES}/{}", file.path), ..file.clone() };
        self.files.iter().map(|(file, _)| moved(file)).chain([archive.clone()]).collect()
    }

    /// Returns the selected entries that cannot be sent, each with the reason.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Returns the size of all files together, in bytes.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.content.size).sum()
    }

    /// Returns the contents to send by their SHA-256 digests. Equal files have one content.
    pub(crate) fn contents(&self) -> HashMap<&str, (&Content, &Path)> {
        let archive = self.archive.iter().map(|(file, temporary)| (file, temporary.path()));
        let files = self.files.iter().map(|(file, path)| (file, path.as_path()));
        files.chain(archive).map(|(file, path)| (file.content.sha256.as_str(), (&file.content, path))).collect()
    }

    /// Returns the number of files and links.
    pub(crate) fn count(&self) -> usize {
        self.files.len() + self.links.len()
    }

    /// Returns files, links, and directories without files, sorted, one per line.
    #[cfg(test)]
    pub(crate) fn entries(&self) -> Vec<String> {
        let files = self.files.iter().map(|(file, _)| file.path.clone());
        let links = self.links.iter().map(|(path, target)| format!("{path} -> {}", target.display()));
        let filled = |directory: &str| {
            let below = format!("{directory}/");
            let paths = self.files.iter().map(|(file, _)| &file.path).chain(self.links.iter().map(|(path, _)| path));
            paths.into_iter().any(|path| path.starts_with(&below))
        };
        let empty = self.directories.iter().filter(|(path, _)| !filled(path)).map(|(path, _)| format!("{path}/"));
        let mut all: Vec<_> = files.chain(links).chain(empty).collect();
        all.sort();
        all
    }

    /// Returns the paths at the root of the stage that contains [`FILES`], and the paths in the context that they stand
    /// for.
    pub(crate) fn leaving(&self) -> &[(String, String)] {
        &self.leaving
    }

    pub(crate) fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Returns whether a list of files represents the whole context. Ignores group write permission of directories,
    /// because their files belong to root in the image.
    pub(crate) fn is_flat(&self) -> bool {
        let usual = |mode: u32| mode & !0o020 == 0o755;
        self.has_files()
            && self.links.is_empty()
            && self.empty == 0
            && self.directories.iter().all(|(_, mode)| usual(*mode))
    }

    /// Returns whether a requested pattern matches anything.
    pub(crate) fn has(&self, pattern: &str) -> bool {
        self.found.get(pattern).is_some_and(|found| !found.is_empty())
    }

    /// Returns whether one of the files that a pattern matches is an archive, which ADD unpacks.
    pub(crate) fn has_archive(&self, pattern: &str) -> bool {
        let Some(found) = self.found.get(pattern) else { return false };
        self.files.iter().any(|(file, path)| found.contains(&file.path) && is_archive(&file.path, path))
    }

    /// Creates the archive of links and directories. It becomes one of the files.
    pub(crate) async fn archive(&mut self) -> Result<()> {
        let (directories, links, md5) = (self.directories.clone(), self.links.clone(), self.md5);
        let made = blocking(move || {
            let fail = |error: std::io::Error| Error::io("collect the links of the build context", error);
            let file = NamedTempFile::new().map_err(fail)?;
            write_archive(&directories, &links, file.as_file()).map_err(fail)?;
            let content = digest(file.path(), md5).map_err(fail)?;
            Ok((ContextFile { path: ARCHIVE.to_owned(), mode: 0o644, content }, Arc::new(file)))
        });
        self.archive = Some(made.await?);
        Ok(())
    }
}

/// Writes the archive. Equal entries result in equal archives.
fn write_archive(
    directories: &[(String, u32)],
    links: &[(String, PathBuf)],
    to: &std::fs::File,
) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(std::io::BufWriter::new(to));
    let header = |kind, mode| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header
    };
    // Without any entry, the file would not be recognised as an archive.
    let root = [(".".to_owned(), 0o755)];
    for (path, mode) in root.iter().chain(directories) {
        archive.append_data(&mut header(tar::EntryType::Directory, *mode), format!("{path}/"), std::io::empty())?;
    }
    for (path, target) in links {
        let mut header = header(tar::EntryType::Symlink, 0o777);
        let short = target.as_os_str().len() < header.as_old().linkname.len();
        if short {
            // Set literally, because the library would write `./a` as `a`.
            header.set_link_name_literal(target.as_os_str().as_encoded_bytes())?;
            archive.append_data(&mut header, path, std::io::empty())?;
        } else {
            archive.append_link(&mut header, path, target)?;
        }
    }
    archive.into_inner()?.flush()
}

/// Returns whether ADD unpacks a file, according to its name or its first bytes.
fn is_archive(name: &str, path: &Path) -> bool {
    let endings = [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"];
    if endings.iter().any(|ending| name.ends_with(ending)) {
        return true;
    }
    let mut head = Vec::new();
    if std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut head)).is_err() {
        return false;
    }
    let packed: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    packed.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

/// The contents of a directory of this machine.
struct Tree {
    root: PathBuf,
    /// Entries by path below the root, without the root itself.
    nodes: BTreeMap<String, Node>,
}

enum Node {
    File,
    Directory {
        mode: u32,
    },
    Link(PathBuf),
    /// An entry that cannot be sent, with the reason.
    Other(String),
}

impl Tree {
    fn directory(&mut self, ignore: &Ignore, inside: &str) -> Result<()> {
        let directory = self.root.join(inside);
        let fail = |error: std::io::Error| Error::io(format!("read the build context {}", directory.display()), error);
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !inside.is_empty() => {
                self.nodes.insert(inside.to_owned(), Node::Other("permission denied".to_owned()));
                return Ok(());
            }
            entries => entries.map_err(fail)?,
        };
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            let shown = name.to_string_lossy();
            let inner = if inside.is_empty() { shown.to_string() } else { format!("{inside}/{shown}") };
            let excluded = ignore.excludes(&inner);
            let kind = entry.file_type().map_err(fail)?;
            if excluded && !(kind.is_dir() && ignore.has_exceptions()) {
                continue;
            }
            if name.to_str().is_none() {
                self.nodes.insert(inner, Node::Other("its name is not UTF-8".to_owned()));
                continue;
            }
            if kind.is_dir() {
                let before = self.nodes.len();
                self.directory(ignore, &inner)?;
                // An excluded directory is kept only if an exception includes something in it.
                if !excluded || self.nodes.len() > before {
                    let mode = entry.metadata().map_err(fail)?.permissions().mode() & 0o7777;
                    self.nodes.entry(inner).or_insert(Node::Directory { mode });
                }
            } else if kind.is_symlink() {
                let target = std::fs::read_link(entry.path()).map_err(fail)?;
                self.nodes.insert(inner, Node::Link(target));
            } else if kind.is_file() {
                self.nodes.insert(inner, Node::File);
            } else {
                self.nodes.insert(inner, Node::Other(unsendable(kind).to_owned()));
            }
        }
        Ok(())
    }

    /// Selects the requested entries.
    fn context(mut self, filter: &ContextFilter, links: bool) -> Result<BuildContext> {
        let md5 = filter.digests.iter().any(|name| name == "md5");
        let mut context = BuildContext { md5, ..BuildContext::default() };
        let mut selected: BTreeSet<String> = BTreeSet::new();
        match &filter.only {
            Some(only) => {
                let mut passed = BTreeSet::new();
                for pattern in only {
                    let found = self.matching(pattern, &mut passed)?;
                    found.iter().for_each(|path| self.select(path, &mut selected));
                    context.found.insert(pattern.clone(), found);
                }
                context.leaving = passed.iter().filter_map(|link| self.leaving(link)).collect();
                selected.append(&mut passed);
            }
            None => self.select("", &mut selected),
        }
        if !links {
            self.follow_links(&mut selected, &mut context);
        }
        let mut above = BTreeSet::new();
        let mut filled = BTreeSet::new();
        for path in &selected {
            let parents = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
            match self.nodes.get(path) {
                Some(Node::File) => {
                    let sent = self.file(&mut context, path)?;
                    filled.extend(parents.clone().filter(|_| sent));
                }
                Some(Node::Link(target)) => context.links.push((path.clone(), target.clone())),
                Some(Node::Directory { .. }) => drop(above.insert(path.clone())),
                Some(Node::Other(why)) => context.skipped.push(format!("{path}: {why}")),
                None => {}
            }
            above.extend(parents);
        }
        for path in above {
            if let Some(Node::Directory { mode }) = self.nodes.get(&path) {
                context.empty += usize::from(!filled.contains(&path));
                context.directories.push((path, *mode));
            }
        }
        Ok(context)
    }

    /// Adds a file. Returns false if it cannot be sent.
    fn file(&self, context: &mut BuildContext, inner: &str) -> Result<bool> {
        if context.files.len() >= MAX_FILES {
            return Err(Error::invalid(
                format!("read the build context {}", self.root.display()),
                format!("it contains more than {MAX_FILES} files"),
            )
            .with_hint("exclude files with .dockerignore"));
        }
        let path = self.root.join(inner);
        let read = std::fs::metadata(&path).and_then(|meta| Ok((meta, digest(&path, context.md5)?)));
        match read {
            Ok((meta, content)) => {
                let file = ContextFile { path: inner.to_owned(), mode: meta.permissions().mode() & 0o7777, content };
                context.files.push((file, path));
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                context.skipped.push(format!("{inner}: permission denied"));
                Ok(false)
            }
            Err(error) => Err(Error::io(format!("read {}", path.display()), error)),
        }
    }

    /// Replaces links by the files that they lead to, for receivers that do not support links.
    fn follow_links(&mut self, selected: &mut BTreeSet<String>, context: &mut BuildContext) {
        for path in selected.iter() {
            if !matches!(self.nodes.get(path), Some(Node::Link(_))) {
                continue;
            }
            let target = self.root.join(path).canonicalize().ok().filter(|target| target.starts_with(&self.root));
            let node = match target.map(|target| target.metadata()) {
                Some(Ok(meta)) if meta.is_file() => Node::File,
                Some(Ok(meta)) if meta.is_dir() => Node::Other("a link to a directory".to_owned()),
                Some(Ok(meta)) => Node::Other(unsendable(meta.file_type()).to_owned()),
                _ => Node::Other("a link whose target is missing or outside of the context".to_owned()),
            };
            self.nodes.insert(path.clone(), node);
        }
        context.directories.clear();
    }

    /// Adds a path with everything below it.
    fn select(&self, path: &str, selected: &mut BTreeSet<String>) {
        if path.is_empty() {
            selected.extend(self.nodes.keys().cloned());
        } else if self.nodes.contains_key(path) {
            selected.insert(path.to_owned());
            let below = format!("{path}/");
            let all = self.nodes.range(below.clone()..).map(|(path, _)| path);
            selected.extend(all.take_while(|path| path.starts_with(&below)).cloned());
        }
    }

    /// Returns the paths that a source of COPY matches, without links in them. Adds the links on the way to `passed`,
    /// because the build follows these links too.
    fn matching(&self, source: &str, passed: &mut BTreeSet<String>) -> Result<Vec<String>> {
        let glob = clean(source);
        if glob.split('/').any(|part| part.contains("**")) {
            let glob = pattern(&glob)?;
            return Ok(self.nodes.keys().filter(|path| glob.is_match(path)).cloned().collect());
        }
        let mut found = vec![String::new()];
        for part in glob.split('/').filter(|part| !part.is_empty()) {
            let join =
                |base: &str, name: &str| if base.is_empty() { name.to_owned() } else { format!("{base}/{name}") };
            let mut next = Vec::new();
            for base in found {
                if !part.contains(['*', '?', '[', '\\']) {
                    next.push(join(&base, part));
                    continue;
                }
                let glob = pattern(part)?;
                next.extend(self.names(&base).filter(|name| glob.is_match(name)).map(|name| join(&base, name)));
            }
            found = next.into_iter().filter_map(|path| self.real(&path, passed, &mut MAX_LINKS.clone())).collect();
        }
        // The root of the context matches even if the context is empty.
        Ok(found)
    }

    /// Returns the names in a directory.
    fn names<'a>(&'a self, base: &'a str) -> impl Iterator<Item = &'a str> {
        let below = if base.is_empty() { String::new() } else { format!("{base}/") };
        let length = below.len();
        let all = self.nodes.range(below.clone()..).map(|(path, _)| path.as_str());
        all.take_while(move |path| path.starts_with(&below))
            .map(move |path| &path[length..])
            .filter(|name| !name.contains('/'))
    }

    /// Resolves the links in a path. Returns `None` if the path does not exist, or has too many links.
    fn real(&self, path: &str, passed: &mut BTreeSet<String>, left: &mut u32) -> Option<String> {
        let Node::Link(target) = self.nodes.get(path)? else { return Some(path.to_owned()) };
        passed.insert(path.to_owned());
        *left = left.checked_sub(1)?;
        let target = target.to_str()?;
        let mut reached = match path.rsplit_once('/') {
            Some((above, _)) if !target.starts_with('/') => above.to_owned(),
            // An absolute link is relative to the root of the context.
            _ => String::new(),
        };
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => reached.truncate(reached.rfind('/').unwrap_or(0)),
                part => {
                    let inner = if reached.is_empty() { part.to_owned() } else { format!("{reached}/{part}") };
                    reached = self.real(&inner, passed, left)?;
                }
            }
        }
        Some(reached)
    }
}

impl Tree {
    /// Returns the path to which a link leads in a stage that has the context in [`FILES`], if that is outside of
    /// [`FILES`]. Also returns the path in the context that it stands for: links cannot lead above the root of the
    /// context.
    fn leaving(&self, link: &str) -> Option<(String, String)> {
        let Node::Link(target) = self.nodes.get(link)? else { return None };
        let target = target.to_str()?;
        let above = link.rsplit_once('/').map_or("", |(above, _)| above);
        let staged = if target.starts_with('/') { clean(target) } else { clean(&format!("{FILES}/{above}/{target}")) };
        let inside = staged == FILES || staged.strip_prefix(FILES).is_some_and(|rest| rest.starts_with('/'));
        if inside || staged.is_empty() {
            return None;
        }
        let real = self.real(link, &mut BTreeSet::new(), &mut MAX_LINKS.clone())?;
        (!real.is_empty()).then_some((staged, real))
    }
}

/// Returns why an entry that is not a file, directory or link cannot be sent.
fn unsendable(kind: std::fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_socket() => "it is a socket",
        kind if kind.is_fifo() => "it is a named pipe",
        kind if kind.is_block_device() || kind.is_char_device() => "it is a device",
        _ => "it is neither a file nor a directory",
    }
}

fn digest(path: &Path, with_md5: bool) -> std::io::Result<Content> {
    let mut file = std::fs::File::open(path)?;
    let (mut sha256, mut md5, mut size) = (Sha256::new(), Md5::new(), 0);
    let mut piece = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        size += read as u64;
        sha256.update(&piece[..read]);
        if with_md5 {
            md5.update(&piece[..read]);
        }
    }
    let digests = if with_md5 { vec![("md5".to_owned(), hex(&md5.finalize()))] } else { vec![] };
    Ok(Content { sha256: hex(&sha256.finalize()), size, digests })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(context: &BuildContext) -> Vec<String> {
        context.files().into_iter().map(|file| file.path).collect()
    }

    #[tokio::test]
    async fn a_directory_becomes_named_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        std::fs::write(directory.path().join("sub/a"), b"hello").unwrap();
        std::fs::write(directory.path().join("b.log"), b"no").unwrap();
        std::fs::write(directory.path().join(".dockerignore"), b"*.log\n.dockerignore\n").unwrap();
        let context = BuildContext::directory(directory.path(), &["md5".to_owned()]).await.unwrap();
        let files = context.files();
        assert_eq!(paths(&context), ["sub/a"]);
        assert_eq!(files[0].content.size, 5);
        assert_eq!(files[0].content.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(files[0].content.digests[0].1, "5d41402abc4b2a76b9719d911017c592");
        assert!(BuildContext::directory(directory.path(), &["sha1".to_owned()]).await.is_err());
    }

    #[tokio::test]
    async fn only_what_is_copied_is_read() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["src/a.rs", "src/deep/b.rs", "Cargo.toml", "target/x"] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let only = |globs: &[&str]| ContextFilter {
            only: Some(globs.iter().map(|glob| (*glob).to_owned()).collect()),
            ..ContextFilter::default()
        };
        let read = |globs: &'static [&'static str]| {
            let directory = directory.path().to_owned();
            async move { paths(&BuildContext::filtered(directory, only(globs)).await.unwrap()) }
        };
        assert_eq!(read(&["./src/", "Cargo.*"]).await, ["Cargo.toml", "src/a.rs", "src/deep/b.rs"]);
        assert_eq!(read(&["../src/*.rs"]).await, ["src/a.rs"]);
        assert_eq!(read(&["**/*.rs"]).await, ["src/a.rs", "src/deep/b.rs"]);
        assert_eq!(read(&["s*"]).await, ["src/a.rs", "src/deep/b.rs"]);
        assert_eq!(read(&["."]).await.len(), 4);
        assert_eq!(read(&["nothing"]).await, [""; 0]);
    }

    /// Files outside of the context must not be sent, even if a link leads to them.
    #[tokio::test]
    async fn links_that_lead_out_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (root, outside) = (directory.path().join("root"), directory.path().join("secret"));
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(&outside, b"secret").unwrap();
        std::fs::write(root.join("sub/file"), b"inside").unwrap();
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, root.join(name)).unwrap();
        link(&outside, "out");
        link(Path::new("../secret"), "relative");
        link(Path::new("sub/file"), "in");
        link(Path::new("sub"), "directory");
        link(Path::new("nowhere"), "dangling");
        let context = BuildContext::directory(&root, &[]).await.unwrap();
        assert_eq!(paths(&context), ["in", "sub/file"]);
        assert_eq!(context.skipped().len(), 4, "{:?}", context.skipped());
    }
}

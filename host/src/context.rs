//! The build context: the files that a Dockerfile may COPY.
//!
//! They are found by walking the directory with the rules of `.dockerignore`, named by digest, and sent once: what the
//! provider has already is not sent again.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use md5::Md5;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::error::{Error, Kind, Result};
use crate::instance::Call;
use crate::plugin::{blocking, hex};
use crate::provider::{Provider, ask};
use crate::types::{Content, ContextFile};

/// Files of a context. A directory with more was not meant to be one.
const MAX_FILES: usize = 100_000;

/// Size of a piece of an upload.
const PIECE: usize = 4 << 20;

/// Pieces that bring nothing in a row before an upload is given up.
const ATTEMPTS: u32 = 4;

/// A build context on this machine.
#[derive(Clone, Debug, Default)]
pub struct Context {
    files: Vec<(ContextFile, PathBuf)>,
}

impl Context {
    /// Reads a directory, without what its `.dockerignore` excludes. Links are followed as files; special files and
    /// links to directories are left out. `digests`: further digest algorithms that the provider asks for.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`] when something cannot be read, [`Kind::InvalidArgument`] beyond 100,000 files,
    /// [`Kind::Unsupported`] for an unknown digest.
    pub async fn directory(path: impl Into<PathBuf>, digests: &[String]) -> Result<Context> {
        let (path, digests) = (path.into(), digests.to_vec());
        blocking(move || {
            if let Some(unknown) = digests.iter().find(|name| *name != "md5") {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("send the build context {}", path.display()),
                    format!("the provider asks for the digest {unknown:?}, which this host does not know"),
                ));
            }
            let ignore = match std::fs::read_to_string(path.join(".dockerignore")) {
                Ok(text) => Ignore::parse(&text)?,
                Err(_) => Ignore::default(),
            };
            let mut context = Context::default();
            context.walk(&path, "", &ignore, digests.contains(&"md5".to_owned()))?;
            Ok(context)
        })
        .await
    }

    /// The files as an image specification wants them.
    pub fn files(&self) -> Vec<ContextFile> {
        self.files.iter().map(|(file, _)| file.clone()).collect()
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.content.size).sum()
    }

    fn walk(&mut self, root: &Path, inside: &str, ignore: &Ignore, md5: bool) -> Result<()> {
        let directory = root.join(inside);
        let fail = |error: std::io::Error| Error::io(format!("read the build context {}", directory.display()), &error);
        let mut entries: Vec<_> =
            std::fs::read_dir(&directory).map_err(fail)?.collect::<Result<_, _>>().map_err(fail)?;
        // The order of a directory is nobody's promise; the same context must give the same image.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let Ok(name) = entry.file_name().into_string() else {
                return Err(Error::invalid(
                    format!("read the build context {}", directory.display()),
                    format!("the name {:?} is not UTF-8", entry.file_name()),
                ));
            };
            let inner = if inside.is_empty() { name } else { format!("{inside}/{name}") };
            let path = entry.path();
            let ignored = ignore.matches(&inner);
            if entry.file_type().map_err(fail)?.is_dir() {
                if !ignored || ignore.may_include_below(&inner) {
                    self.walk(root, &inner, ignore, md5)?;
                }
                continue;
            }
            let meta = match std::fs::metadata(&path) {
                Ok(meta) if meta.is_file() && !ignored => meta,
                _ => continue,
            };
            if self.files.len() >= MAX_FILES {
                return Err(Error::invalid(
                    format!("read the build context {}", root.display()),
                    format!("it has more than {MAX_FILES} files"),
                )
                .with_hint("exclude what is not needed in .dockerignore"));
            }
            let content = digest(&path, md5).map_err(|error| Error::io(format!("read {}", path.display()), &error))?;
            self.files.push((ContextFile { path: inner, mode: meta.permissions().mode() & 0o7777, content }, path));
        }
        Ok(())
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

impl Provider {
    /// Sends the files of a context that the provider does not have. Gives the number of bytes sent.
    ///
    /// # Errors
    ///
    /// As any call; [`Kind::Io`] when a file cannot be read or has changed.
    pub async fn upload_context(&self, context: &Context) -> Result<u64> {
        let paths: HashMap<_, _> =
            context.files.iter().map(|(file, path)| (file.content.sha256.clone(), (&file.content, path))).collect();
        let contents: Vec<_> = paths.values().map(|(content, _)| (*content).clone()).collect();
        let mut sent = 0;
        for digest in self.missing_content(&contents).await? {
            if let Some((content, path)) = paths.get(&digest) {
                self.upload_content(content, path).await?;
                sent += content.size;
            }
        }
        Ok(sent)
    }

    async fn upload_content(&self, content: &Content, path: &Path) -> Result<()> {
        let fail = |error: std::io::Error| Error::io(format!("read {}", path.display()), &error);
        let mut file = tokio::fs::File::open(path).await.map_err(fail)?;
        let (mut offset, mut idle) = (0, 0);
        loop {
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(fail)?;
            let mut data = Vec::new();
            (&mut file).take(PIECE as u64).read_to_end(&mut data).await.map_err(fail)?;
            let (call, content) = (Call::acting(format!("send {}", path.display())), content.clone());
            let size = content.size;
            let arrived =
                ask!(self.inner, None, call, |guest, store| guest.call_upload_content(store, &content, offset, &data))?;
            if arrived >= size {
                return Ok(());
            }
            idle = if arrived > offset { 0 } else { idle + 1 };
            if idle > ATTEMPTS {
                return Err(Error::new(
                    Kind::Internal,
                    format!("send {}", path.display()),
                    format!("the provider stays at byte {arrived}"),
                ));
            }
            offset = arrived;
        }
    }
}

/// The rules of a `.dockerignore`: patterns from the root of the context, the last one that matches wins, `!` takes
/// back in.
#[derive(Debug, Default)]
struct Ignore {
    rules: Vec<(bool, GlobMatcher)>,
}

impl Ignore {
    fn parse(text: &str) -> Result<Ignore> {
        let mut rules = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (exclude, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (false, pattern.trim()),
                None => (true, line),
            };
            let pattern = pattern.trim_start_matches('/').trim_start_matches("./").trim_end_matches('/');
            if pattern.is_empty() {
                continue;
            }
            // What is below an excluded directory is excluded with it.
            for pattern in [pattern.to_owned(), format!("{pattern}/**")] {
                let glob = GlobBuilder::new(&pattern).literal_separator(true).build().map_err(|error| {
                    Error::invalid("read .dockerignore", format!("{pattern:?} is no pattern: {error}"))
                })?;
                rules.push((exclude, glob.compile_matcher()));
            }
        }
        Ok(Ignore { rules })
    }

    fn matches(&self, path: &str) -> bool {
        self.rules.iter().rev().find(|(_, glob)| glob.is_match(path)).is_some_and(|(exclude, _)| *exclude)
    }

    /// Whether something below an excluded directory may be taken back in.
    fn may_include_below(&self, _directory: &str) -> bool {
        self.rules.iter().any(|(exclude, _)| !exclude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignore_rules_are_those_of_docker() {
        let ignore = Ignore::parse("# note\n/target\n*.log\n**/*.tmp\nnode_modules/\n!keep.log\n").unwrap();
        for path in ["target", "target/a/b", "a.log", "x/y.tmp", "y.tmp", "node_modules/x"] {
            assert!(ignore.matches(path), "{path}");
        }
        for path in ["keep.log", "sub/a.log", "src/target", "sub/node_modules/x", "main.rs"] {
            assert!(!ignore.matches(path), "{path}");
        }
    }

    #[tokio::test]
    async fn a_directory_becomes_named_files() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        std::fs::write(directory.path().join("sub/a"), b"hello").unwrap();
        std::fs::write(directory.path().join("b.log"), b"no").unwrap();
        std::fs::write(directory.path().join(".dockerignore"), b"*.log\n.dockerignore\n").unwrap();
        let context = Context::directory(directory.path(), &["md5".to_owned()]).await.unwrap();
        let files = context.files();
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].path.as_str(), files[0].content.size), ("sub/a", 5));
        assert_eq!(files[0].content.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(files[0].content.digests[0].1, "5d41402abc4b2a76b9719d911017c592");
        assert!(Context::directory(directory.path(), &["sha1".to_owned()]).await.is_err());
    }
}

//! The build context: the files that a Dockerfile may COPY.
//!
//! They are found by walking the directory with the rules of `.dockerignore` ([`crate::ignore`]), named by digest, and sent
//! once: what the provider has already is not sent again.

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use md5::Md5;
use regex::Regex;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::error::{Error, Kind, Result};
use crate::ignore::{Ignore, clean, pattern};
use crate::instance::Call;
use crate::plugin::{blocking, hex};
use crate::provider::{Provider, ask};
use crate::types::{Content, ContextFile};

/// Files of a context. A directory with more was not meant to be one.
const MAX_FILES: usize = 100_000;

/// Size of a piece of an upload.
const PIECE: usize = 4 << 20;

/// How often a content is sent from its beginning before the upload is given up.
const ATTEMPTS: u32 = 3;

/// Uploads at once, and questions at once which contents are missing.
const AT_ONCE: usize = 8;

/// Contents that one call asks for: ten of the provider's own requests.
const ASKED: usize = 640;

/// A build context on this machine.
#[derive(Clone, Debug, Default)]
pub struct Context {
    files: Vec<(ContextFile, PathBuf)>,
    skipped: Vec<String>,
}

/// What of a directory is wanted.
#[derive(Clone, Debug, Default)]
pub struct ContextFilter {
    /// The file with ignore rules; none for `.dockerignore` in the directory, if it is there.
    pub ignore_file: Option<PathBuf>,
    /// Patterns, such as the sources of COPY lines; none for everything.
    pub only: Option<Vec<String>>,
    /// Further digest algorithms that the provider asks for.
    pub digests: Vec<String>,
}

impl Context {
    /// Reads a directory, without what its `.dockerignore` excludes. `digests`: further digest algorithms that the
    /// provider asks for. See [`filtered`](Context::filtered).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn directory(path: impl Into<PathBuf>, digests: &[String]) -> Result<Context> {
        Context::filtered(path, ContextFilter { digests: digests.to_vec(), ..ContextFilter::default() }).await
    }

    /// Reads what is wanted of a directory. Links to files within it are what they point to; links to directories, links
    /// that lead out of it, and what is neither file nor directory are left out, see [`skipped`](Context::skipped).
    ///
    /// # Errors
    ///
    /// [`Kind::Io`] when something cannot be read, [`Kind::InvalidArgument`] beyond 100,000 files,
    /// [`Kind::Unsupported`] for an unknown digest.
    pub async fn filtered(path: impl Into<PathBuf>, filter: ContextFilter) -> Result<Context> {
        let path = path.into();
        blocking(move || {
            let what = format!("read the build context {}", path.display());
            if let Some(unknown) = filter.digests.iter().find(|name| *name != "md5") {
                return Err(Error::new(
                    Kind::Unsupported,
                    what,
                    format!("the provider asks for the digest {unknown:?}, which this host does not know"),
                ));
            }
            let root = path.canonicalize().map_err(|error| Error::io(&what, &error))?;
            let rules = filter.ignore_file.clone().unwrap_or_else(|| root.join(".dockerignore"));
            let ignore = match std::fs::read_to_string(&rules) {
                Ok(text) => Ignore::parse(&text)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && filter.ignore_file.is_none() => {
                    Ignore::default()
                }
                Err(error) => return Err(Error::io(format!("read {}", rules.display()), &error)),
            };
            let only = filter.only.as_deref().map(patterns).transpose()?.flatten();
            let walk = Walk { root: &root, ignore, only, md5: filter.digests.contains(&"md5".to_owned()) };
            let mut context = Context::default();
            walk.directory(&mut context, "")?;
            Ok(context)
        })
        .await
    }

    /// The files as an image specification wants them.
    pub fn files(&self) -> Vec<ContextFile> {
        self.files.iter().map(|(file, _)| file.clone()).collect()
    }

    /// What was wanted and cannot be sent, with the reason.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|(file, _)| file.content.size).sum()
    }
}

/// Patterns of what is wanted; none if one of them is the directory itself.
fn patterns(only: &[String]) -> Result<Option<Vec<Regex>>> {
    let cleaned: Vec<_> = only.iter().map(|glob| clean(glob)).collect();
    if cleaned.iter().any(String::is_empty) {
        return Ok(None);
    }
    cleaned.iter().map(|glob| pattern(glob)).collect::<Result<_>>().map(Some)
}

struct Walk<'a> {
    root: &'a Path,
    ignore: Ignore,
    only: Option<Vec<Regex>>,
    md5: bool,
}

impl Walk<'_> {
    fn directory(&self, context: &mut Context, inside: &str) -> Result<()> {
        let directory = self.root.join(inside);
        let what = || format!("read the build context {}", directory.display());
        let fail = |error: std::io::Error| Error::io(what(), &error);
        let mut entries: Vec<_> =
            std::fs::read_dir(&directory).map_err(fail)?.collect::<Result<_, _>>().map_err(fail)?;
        // The order of a directory is nobody's promise; the same context must give the same image.
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                context.skipped.push(format!("{}: its name is not UTF-8", entry.path().display()));
                continue;
            };
            let inner = if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            let excluded = self.ignore.excludes(&inner);
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                if !excluded || self.ignore.has_exceptions() {
                    self.directory(context, &inner)?;
                }
                continue;
            }
            if excluded || self.only.as_ref().is_some_and(|only| !only.iter().any(|glob| glob.is_match(&inner))) {
                continue;
            }
            self.file(context, inner, &entry.path(), kind.is_symlink())?;
        }
        Ok(())
    }

    fn file(&self, context: &mut Context, inner: String, path: &Path, link: bool) -> Result<()> {
        let fail = |error: std::io::Error| Error::io(format!("read {}", path.display()), &error);
        if link && !path.canonicalize().is_ok_and(|target| target.starts_with(self.root)) {
            context.skipped.push(format!("{inner}: a link that leads nowhere, or out of the context"));
            return Ok(());
        }
        let meta = std::fs::metadata(path).map_err(fail)?;
        if !meta.is_file() {
            let why = if meta.is_dir() { "a link to a directory" } else { "neither a file nor a directory" };
            context.skipped.push(format!("{inner}: {why}"));
            return Ok(());
        }
        if context.files.len() >= MAX_FILES {
            return Err(Error::invalid(
                format!("read the build context {}", self.root.display()),
                format!("it has more than {MAX_FILES} files"),
            )
            .with_hint("exclude what is not needed in .dockerignore"));
        }
        let content = digest(path, self.md5).map_err(fail)?;
        let mode = meta.permissions().mode() & 0o7777;
        context.files.push((ContextFile { path: inner, mode, content }, path.to_owned()));
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
    /// Which of these contents the provider does not have, by SHA-256.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        let parts: Vec<_> = contents.chunks(ASKED).map(<[Content]>::to_vec).collect();
        let asked = parts.into_iter().map(|part| async move {
            let call = Call::reading("ask which files are missing");
            ask!(self.inner, None, call, |guest, store| guest.call_missing_content(store, &part))
        });
        let missing: Vec<Vec<String>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(missing.concat())
    }

    /// Sends the files of a context that the provider does not have. Gives the number of bytes sent.
    ///
    /// # Errors
    ///
    /// As any call; [`Kind::Io`] when a file cannot be read or has changed.
    pub async fn upload_context(&self, context: &Context) -> Result<u64> {
        self.upload_context_with(context, |_, _| {}).await
    }

    /// Like [`upload_context`](Provider::upload_context), telling after each piece how many bytes have been sent, and of
    /// how many.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn upload_context_with(&self, context: &Context, progress: impl Fn(u64, u64)) -> Result<u64> {
        let paths: HashMap<_, _> =
            context.files.iter().map(|(file, path)| (file.content.sha256.clone(), (&file.content, path))).collect();
        let contents: Vec<_> = paths.values().map(|(content, _)| (*content).clone()).collect();
        let missing = self.missing_content(&contents).await?;
        let wanted: Vec<_> = missing.iter().filter_map(|digest| paths.get(digest)).collect();
        let total: u64 = wanted.iter().map(|(content, _)| content.size).sum();
        let sent = std::sync::atomic::AtomicU64::new(0);
        let count = |bytes: u64| {
            let so_far = sent.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
            progress(so_far.min(total), total);
        };
        // A loop, since the compiler cannot tell that a stream over a closure of references may change threads.
        let mut uploads = Vec::with_capacity(wanted.len());
        for (content, path) in wanted {
            uploads.push(self.upload_content(content, path, &count));
        }
        stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(total)
    }

    async fn upload_content(&self, content: &Content, path: &Path, count: &impl Fn(u64)) -> Result<()> {
        let what = || format!("send {}", path.display());
        let fail = |error: std::io::Error| Error::io(format!("read {}", path.display()), &error);
        let mut file = tokio::fs::File::open(path).await.map_err(fail)?;
        // The pieces of one content go through one instance, which has the upload open.
        let mut held = self.inner.hold(None);
        let (mut offset, mut starts) = (0, 0);
        loop {
            starts += u32::from(offset == 0);
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(fail)?;
            let mut data = Vec::new();
            (&mut file).take(PIECE as u64).read_to_end(&mut data).await.map_err(fail)?;
            if offset + data.len() as u64 > content.size || data.is_empty() && content.size > 0 {
                return Err(fail(std::io::Error::other("it has changed while it was sent")));
            }
            let (size, named) = (data.len() as u64, content.clone());
            let arrived = held
                .call(Call::acting(what()), move |bound, store| {
                    Box::pin(async move {
                        let guest = bound.guest();
                        guest.call_upload_content(store, &named, offset, &data).await
                    })
                })
                .await;
            offset = match arrived {
                Ok(arrived) if arrived >= content.size => {
                    count(size);
                    return Ok(());
                }
                Ok(arrived) if arrived > offset => {
                    count(size);
                    arrived
                }
                // Everything is to be sent again: the instance was lost, or the store let go of the upload.
                Ok(_) if starts < ATTEMPTS => 0,
                Ok(arrived) => {
                    return Err(Error::new(Kind::Internal, what(), format!("the provider stays at byte {arrived}")));
                }
                Err(error) if error.is_retryable() && starts < ATTEMPTS => 0,
                Err(error) => return Err(error),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(context: &Context) -> Vec<String> {
        context.files().into_iter().map(|file| file.path).collect()
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
        assert_eq!(paths(&context), ["sub/a"]);
        assert_eq!(files[0].content.size, 5);
        assert_eq!(files[0].content.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(files[0].content.digests[0].1, "5d41402abc4b2a76b9719d911017c592");
        assert!(Context::directory(directory.path(), &["sha1".to_owned()]).await.is_err());
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
            async move { paths(&Context::filtered(directory, only(globs)).await.unwrap()) }
        };
        assert_eq!(read(&["./src/", "Cargo.*"]).await, ["Cargo.toml", "src/a.rs", "src/deep/b.rs"]);
        assert_eq!(read(&["../src/*.rs"]).await, ["src/a.rs"]);
        assert_eq!(read(&["."]).await.len(), 4);
        assert_eq!(read(&["nothing"]).await, [""; 0]);
    }

    /// What lies outside must not be sent because a link points there.
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
        let context = Context::directory(&root, &[]).await.unwrap();
        assert_eq!(paths(&context), ["in", "sub/file"]);
        assert_eq!(context.skipped().len(), 4, "{:?}", context.skipped());
    }
}

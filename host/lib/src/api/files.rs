//! Files of a sandbox: whole files in memory, files of any size as streams, and directories as tar streams.
//!
//! A transfer consists of pieces under one transfer id, so that a repeated piece has no effect, and pieces of different
//! versions of a file are not mixed. While one piece is transferred, the next one is read or the last one is written.
//! Memory holds two pieces, whatever the size of the file.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_util::io::SyncIoBridge;

use crate::api::sandbox::{Sandbox, signal_later};
use crate::api::signal::Signal;
use crate::api::spec::fresh_id;
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::local::tree::{self, Fault, Packed, Unpacked};
use crate::runtime::call::Call;
use crate::runtime::functions::Functions;
use crate::runtime::runner::ask;
use crate::types::{self, Location, WriteOptions};

/// Size of a piece that is read, in bytes. Large enough to make the cost of a call negligible, and small enough that
/// two pieces need little memory.
const PIECE: usize = 4 << 20;

/// Size of a piece that is sent, in bytes. Larger than [`PIECE`], because no data is sent between two calls.
const SENT_PIECE: usize = 8 << 20;

/// Largest single read from the source while a piece to be sent is filled, in bytes.
const READ_STEP: usize = 256 << 10;

/// Attempts in a row to repeat a piece after an instance crashed, or after the provider accepted none of it. Errors
/// that the provider reports are not repeated: the provider has retried before it reports them.
const ATTEMPTS: u32 = 3;

/// Size of the pipe between the packing or unpacking thread and the transfer, in bytes.
const PIPE: usize = 1 << 20;

/// Most events that one call for a watch requests.
const EVENTS: u32 = 1000;

/// Most directory entries that one call requests: the limit of the interface.
const ENTRIES: u32 = 10_000;

/// Most entries of one directory, and most bytes of their texts, that are collected. The limits protect memory from a
/// provider that lists without end. Larger directories have to be processed inside the sandbox.
const MOST_ENTRIES: usize = 1_000_000;
const MOST_TEXT: usize = 256 << 20;

/// The kind of data that a transfer carries.
#[derive(Clone, Copy)]
enum Form {
    File,
    Tree,
}

impl Sandbox {
    fn on(&self, verb: &str, path: &str) -> Call {
        Call::reading(format!("{verb} {path} in {}", self.id()))
    }

    fn changing(&self, verb: &str, path: &str) -> Call {
        Call::acting(format!("{verb} {path} in {}", self.id()))
    }

    /// Reads a whole file of at most `max` bytes into memory. Follows symbolic links.
    ///
    /// ```no_run
    /// use sandbox_host::types::WriteOptions;
    ///
    /// # async fn example(sandbox: &sandbox_host::Sandbox) -> sandbox_host::Result<()> {
    /// sandbox.write_file("/etc/motd", "hello\n", WriteOptions::default().permissions(0o644)).await?;
    /// let text = sandbox.read_file("/etc/motd", 64 << 10).await?;
    /// assert_eq!(text, b"hello\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, which is [`FileFault::TooLarge`](crate::FileFault::TooLarge) for more than `max`
    /// bytes, and the kinds of every call: see [`Kind`].
    pub async fn read_file(&self, path: &str, max: u64) -> Result<Vec<u8>> {
        let mut sink = Bounded { data: Vec::new(), max };
        match self.download(path, &mut sink).await {
            Err(_) if sink.data.len() as u64 > max => Err(Error::new(
                Kind::File(crate::FileFault::TooLarge),
                format!("read {path} in {}", self.id()),
                format!("it is larger than {max} bytes"),
            )
            .with_hint("use `download`, which has no size limit")),
            result => result.map(|_| sink.data),
        }
    }

    /// Writes a whole file atomically: readers see the old content or the new content, never a part. Creates missing
    /// parent directories.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, and the kinds of every call: see [`Kind`].
    pub async fn write_file(&self, path: &str, data: impl AsRef<[u8]>, options: WriteOptions) -> Result<()> {
        self.upload(path, data.as_ref(), options).await.map(drop)
    }

    /// Copies a file of any size out of the sandbox. Returns its length in bytes. All of it comes from one opened file,
    /// even if the path gets another file meanwhile. Needs 8 MiB of memory.
    ///
    /// ```no_run
    /// # async fn example(sandbox: &sandbox_host::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = tokio::fs::File::create("core.dump").await?;
    /// let length = sandbox.download("/var/crash/core", file).await?;
    /// println!("{length} bytes");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, [`Kind::Io`] if `writer` fails, and the kinds of every call: see [`Kind`].
    pub async fn download<W: AsyncWrite + Unpin>(&self, path: &str, writer: W) -> Result<u64> {
        self.pull(Form::File, path, writer).await
    }

    /// Copies a file of any size into the sandbox. The file appears when all data has arrived. Returns its length in
    /// bytes. Needs 16 MiB of memory. If the future is dropped, the file stays as it was.
    ///
    /// ```no_run
    /// use sandbox_host::types::WriteOptions;
    ///
    /// # async fn example(sandbox: &sandbox_host::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    /// let file = tokio::fs::File::open("model.bin").await?;
    /// sandbox.upload("/data/model.bin", file, WriteOptions::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, [`Kind::Io`] if `reader` fails, and the kinds of every call: see [`Kind`].
    pub async fn upload<R: AsyncRead + Unpin>(&self, path: &str, reader: R, options: WriteOptions) -> Result<u64> {
        self.push(Form::File, path, reader, options).await
    }

    /// Reads a directory with its contents as a tar stream. Returns the length of the stream in bytes. The sandbox
    /// controls the content of the stream, so do not unpack it without checks:
    /// [`download_directory`](Self::download_directory) makes them.
    ///
    /// # Errors
    ///
    /// Those of [`download`](Self::download).
    pub async fn download_tree<W: AsyncWrite + Unpin>(&self, path: &str, writer: W) -> Result<u64> {
        self.pull(Form::Tree, path, writer).await
    }

    /// Unpacks a tar stream into a directory, which is created. Returns the length of the stream in bytes.
    ///
    /// # Errors
    ///
    /// Those of [`upload`](Self::upload).
    pub async fn upload_tree<R: AsyncRead + Unpin>(&self, path: &str, reader: R) -> Result<u64> {
        self.push(Form::Tree, path, reader, WriteOptions::default()).await
    }

    /// Copies a directory with its contents out of the sandbox into `to`, which is created. Uses one exec and one
    /// stream. Calls `told` with the length of each piece in bytes.
    ///
    /// Nothing is written outside of `to`, whatever the sandbox sends. [`Unpacked::skipped`] counts the entries that
    /// cannot exist on this machine. Existing files stay, unless an entry replaces them.
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// # async fn example(sandbox: &sandbox_host::Sandbox) -> sandbox_host::Result<()> {
    /// sandbox.upload_directory(Path::new("src"), "/srv/src", |_| {}).await?;
    /// let unpacked = sandbox.download_directory("/srv/results", Path::new("results"), |_| {}).await?;
    /// println!("{} entries could not be created here", unpacked.skipped);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`download`](Self::download), and [`Kind::Forbidden`] if an entry leads outside of `to`.
    pub async fn download_directory(&self, path: &str, to: &Path, told: impl FnMut(u64) + Unpin) -> Result<Unpacked> {
        let (writer, reader) = tokio::io::duplex(PIPE);
        let unpacking = {
            let (reader, to) = (SyncIoBridge::new(reader), to.to_owned());
            blocking(move || Ok(tree::unpack(reader, &to)))
        };
        let downloading = self.download_tree(path, Told { stream: writer, told });
        let (downloaded, unpacked) = futures_util::future::join(downloading, unpacking).await;
        let what = || format!("unpack {path} of {} into {}", self.id(), to.display());
        match (downloaded, unpacked?) {
            (Ok(_), Ok(unpacked)) => Ok(unpacked),
            // If unpacking stops, the download fails on the broken pipe. If the download stops, unpacking fails on the
            // short stream. The first cause is reported.
            (Err(error), Err(_)) if !matches!(error.kind(), Kind::Io(_)) => Err(error),
            (_, Err(Fault::Refused(why))) => Err(Error::new(Kind::Forbidden, what(), why)),
            (_, Err(Fault::Io(error))) => Err(Error::io(what(), error)),
            (Err(error), Ok(_)) => Err(error),
        }
    }

    /// Copies a directory with its contents into another sandbox as `at`, which is created. Calls `told` with the
    /// length of each piece in bytes. Returns the length of the stream that was sent to `to`.
    ///
    /// Nothing is written outside of `at`, whatever this sandbox sends.
    ///
    /// # Errors
    ///
    /// Those of [`download`](Self::download) and [`upload`](Self::upload), and [`Kind::Forbidden`] if an entry leads
    /// outside of `at`.
    pub async fn copy_directory(
        &self,
        path: &str,
        to: &Sandbox,
        at: &str,
        told: impl FnMut(u64) + Unpin,
    ) -> Result<u64> {
        let (writer, reader) = tokio::io::duplex(PIPE);
        let (passed_writer, passed_reader) = tokio::io::duplex(PIPE);
        let passing = {
            let (reader, writer) = (SyncIoBridge::new(reader), SyncIoBridge::new(passed_writer));
            blocking(move || Ok(tree::pass(reader, writer)))
        };
        // An aborted stream must not look like the end of the tree, so the end is held back until the result is known.
        let (ended, whole) = tokio::sync::oneshot::channel();
        let both = async {
            let downloading = self.download_tree(path, Told { stream: writer, told });
            let (downloaded, passed) = futures_util::future::join(downloading, passing).await;
            let _ = ended.send(downloaded.is_ok() && matches!(passed, Ok(Ok(()))));
            (downloaded, passed)
        };
        let uploading = to.upload_tree(at, Whole { stream: passed_reader, whole });
        let (uploaded, (downloaded, passed)) = futures_util::future::join(uploading, both).await;
        let what = || format!("copy {path} of {} to {}", self.id(), to.id());
        match (downloaded, passed?, uploaded) {
            // If one part fails, the pipes of the other parts break. The first cause is reported.
            (_, Err(Fault::Refused(why)), _) => Err(Error::new(Kind::Forbidden, what(), why)),
            (Err(error), ..) if !matches!(error.kind(), Kind::Io(_)) => Err(error),
            (_, _, Err(error)) if !matches!(error.kind(), Kind::Io(_)) => Err(error),
            (_, Err(Fault::Io(error)), _) => Err(Error::io(what(), error)),
            (Err(error), ..) => Err(error),
            (_, _, uploaded) => uploaded,
        }
    }

    /// Copies a directory with its contents into the sandbox as `path`, which is created. Uses one exec and one stream.
    /// Calls `told` with the length of each piece in bytes. Skips pipes, sockets and devices: see [`Packed::skipped`].
    ///
    /// # Errors
    ///
    /// Those of [`upload`](Self::upload), and [`Kind::Io`] if an entry cannot be read.
    pub async fn upload_directory(&self, from: &Path, path: &str, told: impl FnMut(u64) + Unpin) -> Result<Packed> {
        let (writer, reader) = tokio::io::duplex(PIPE);
        let packing = {
            let (writer, from) = (SyncIoBridge::new(writer), from.to_owned());
            blocking(move || Ok(tree::pack(&from, writer)))
        };
        // If packing fails, the end must not look like the end of the tree, so it is held back until the result is
        // known.
        let (failed, whole) = tokio::sync::oneshot::channel();
        let packing = async {
            let packed = packing.await;
            let good = matches!(packed, Ok(Ok(_)));
            let _ = failed.send(good);
            packed
        };
        let uploading = self.upload_tree(path, Whole { stream: Told { stream: reader, told }, whole });
        let (uploaded, packed) = futures_util::future::join(uploading, packing).await;
        match (uploaded, packed?) {
            // The error of the packing is the cause of the aborted stream, so it is reported instead.
            (Err(error), Err(reason)) if matches!(error.kind(), Kind::Io(io::ErrorKind::UnexpectedEof)) => {
                Err(Error::io(format!("read {}", from.display()), reason))
            }
            (Err(error), _) => Err(error),
            // Cannot happen: an upload whose packing failed has no end.
            (Ok(_), Err(reason)) => Err(Error::io(format!("read {}", from.display()), reason)),
            (Ok(bytes), Ok(packed)) => Ok(Packed { bytes, ..packed }),
        }
    }

    async fn pull<W: AsyncWrite + Unpin>(&self, form: Form, path: &str, mut writer: W) -> Result<u64> {
        let mut held = self.inner().hold(self.route());
        let (at, transfer) = (self.location(path), fresh_id());
        let unfinished = Unfinished { transfer: Some((self.clone(), transfer.clone())) };
        let mut ready: Vec<u8> = Vec::new();
        let (mut offset, mut end, mut failures) = (0u64, false, 0);
        loop {
            let fetch = async {
                if end {
                    return Ok(None);
                }
                let (at, transfer): (Location, String) = (at.clone(), transfer.clone());
                held.call(self.on("read", path), move |bound, store| {
                    Box::pin(async move {
                        let guest = Functions::of(bound);
                        match form {
                            Form::File => guest.call_read_file(store, &at, &transfer, offset, PIECE as u32).await,
                            Form::Tree => guest.call_read_tree(store, &at, &transfer, offset, PIECE as u32).await,
                        }
                    })
                })
                .await
                .map(Some)
            };
            let (fetched, written) = futures_util::future::join(fetch, writer.write_all(&ready)).await;
            written.map_err(|error| Error::io(format!("write the data that was read from {path}"), error))?;
            ready.clear();
            match fetched {
                Ok(None) => break,
                Ok(Some(chunk)) if chunk.data.len() > PIECE || (chunk.data.is_empty() && !chunk.end) => {
                    return Err(Error::new(
                        Kind::Internal,
                        format!("read {path} in {}", self.id()),
                        "the plugin returned more bytes than requested",
                    ));
                }
                Ok(Some(chunk)) => {
                    failures = 0;
                    offset += chunk.data.len() as u64;
                    ready = chunk.data;
                    end = chunk.end;
                }
                Err(error) if error.is_trap() && failures < ATTEMPTS => {
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
        unfinished.done();
        writer.flush().await.map_err(|error| Error::io(format!("write the data that was read from {path}"), error))?;
        Ok(offset)
    }

    async fn push<R: AsyncRead + Unpin>(
        &self,
        form: Form,
        path: &str,
        mut reader: R,
        options: WriteOptions,
    ) -> Result<u64> {
        let mut held = self.inner().hold(self.route());
        let (at, transfer) = (self.location(path), fresh_id());
        let mut piece = read_piece(&mut reader, BytesMut::new(), path).await?;
        // Two buffers are used in turn, because allocating a new buffer for each piece costs more than filling it.
        let mut spare = BytesMut::new();
        let unfinished = Unfinished { transfer: Some((self.clone(), transfer.clone())) };
        let (mut offset, mut failures) = (0u64, 0);
        loop {
            let last = piece.len() < SENT_PIECE;
            let buffer = std::mem::take(&mut spare);
            let next = async { if last { Ok(Bytes::new()) } else { read_piece(&mut reader, buffer, path).await } };
            let send = async {
                let mut done = 0;
                loop {
                    let (at, transfer): (Location, String) = (at.clone(), transfer.clone());
                    let (options, data, from) = (options.clone(), piece.slice(done..), offset + done as u64);
                    let sent = held
                        .call(self.changing("write", path), move |bound, store| {
                            Box::pin(async move {
                                let guest = Functions::of(bound);
                                match form {
                                    Form::File => {
                                        guest.call_write_file(store, &at, &transfer, &options, from, &data, last).await
                                    }
                                    Form::Tree => guest.call_write_tree(store, &at, &transfer, from, &data, last).await,
                                }
                            })
                        })
                        .await;
                    match sent {
                        Ok(position) if position >= offset + piece.len() as u64 => return Ok(()),
                        Ok(position) if position > from => {
                            failures = 0;
                            done = (position - offset) as usize;
                        }
                        Ok(position) if position == from && failures < ATTEMPTS => failures += 1,
                        Ok(position) => {
                            return Err(Error::new(
                                Kind::Internal,
                                format!("write {path} in {}", self.id()),
                                format!(
                                    "the provider requested byte {position} again, but the stream is at byte {from}"
                                ),
                            ));
                        }
                        Err(error) if error.is_trap() && failures < ATTEMPTS => {
                            failures += 1;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let (sent, following) = futures_util::future::join(send, next).await;
            sent?;
            failures = 0;
            offset += piece.len() as u64;
            if last {
                unfinished.done();
                return Ok(offset);
            }
            spare = piece.try_into_mut().unwrap_or_default();
            piece = following?;
        }
    }

    /// Describes a path. With `follow`, describes the target of a symbolic link, and otherwise the link itself.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, which is [`FileFault::NotFound`](crate::FileFault::NotFound) if the path, or with
    /// `follow` the target of the link, does not exist; and the kinds of every call: see [`Kind`].
    pub async fn stat(&self, path: &str, follow: bool) -> Result<types::FileInfo> {
        let at = self.location(path);
        ask!(self.inner(), self.route(), self.on("read the metadata of", path), |guest, store| guest
            .call_stat(store, &at, follow))
    }

    /// Returns the entries of a directory, without those of subdirectories, sorted by name. Returns at most 1,000,000
    /// entries with at most 256 MiB of names; [`directory_pages`](Self::directory_pages) has no limit.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, [`Kind::ResourceExhausted`] beyond the limits, [`Kind::Internal`] if the plugin
    /// lists without progress, and the kinds of every call: see [`Kind`].
    pub async fn list_directory(&self, path: &str) -> Result<Vec<types::FileInfo>> {
        let mut listing = Listing::default();
        loop {
            let page = self.entries_from(path, listing.next.as_deref()).await?;
            let more = listing.add(page).map_err(|fault| self.listing_fault(path, fault))?;
            if !more {
                return Ok(listing.found);
            }
        }
    }

    /// Returns the entries of a directory page by page, for directories of any size. Sends no request before the first
    /// `next`.
    ///
    /// ```no_run
    /// # async fn example(sandbox: &sandbox_host::Sandbox) -> sandbox_host::Result<()> {
    /// let mut pages = sandbox.directory_pages("/data");
    /// while let Some(entries) = pages.next().await? {
    ///     println!("{} more", entries.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn directory_pages(&self, path: &str) -> DirectoryPages {
        DirectoryPages { sandbox: self.clone(), path: path.to_owned(), next: Some(None) }
    }

    async fn entries_from(&self, path: &str, cursor: Option<&str>) -> Result<types::FilePage> {
        let (at, cursor) = (self.location(path), cursor.map(str::to_owned));
        ask!(self.inner(), self.route(), self.on("list", path), |guest, store| guest.call_list_directory(
            store,
            &at,
            cursor.as_deref(),
            ENTRIES
        ))
    }

    fn listing_fault(&self, path: &str, (kind, why): (Kind, String)) -> Error {
        let what = self.on("list", path).what;
        Error::new(kind, what, format!("the plugin {} {why}", self.provider().plugin().label()))
    }

    /// Creates a directory. With `parents`, also creates missing parents, and succeeds if the directory exists.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, and the kinds of every call: see [`Kind`].
    pub async fn make_directory(&self, path: &str, parents: bool) -> Result<()> {
        let at = self.location(path);
        ask!(self.inner(), self.route(), self.changing("make", path), |guest, store| guest
            .call_make_directory(store, &at, parents))
    }

    /// Removes a file, a symbolic link or an empty directory. With `recursive`, also removes a directory with its
    /// contents.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, and the kinds of every call: see [`Kind`].
    pub async fn remove(&self, path: &str, recursive: bool) -> Result<()> {
        let at = self.location(path);
        ask!(self.inner(), self.route(), self.changing("remove", path), |guest, store| guest
            .call_remove(store, &at, recursive))
    }

    /// Moves a file or directory within the sandbox. If `to` exists, it is replaced if `replace` is set, and the call
    /// fails otherwise.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, and the kinds of every call: see [`Kind`].
    pub async fn rename(&self, path: &str, to: &str, replace: bool) -> Result<()> {
        let (at, to) = (self.location(path), to.to_owned());
        ask!(self.inner(), self.route(), self.changing("move", path), |guest, store| guest
            .call_rename(store, &at, &to, replace))
    }

    /// Creates a symbolic link at `path` with the target `target`.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, and the kinds of every call: see [`Kind`].
    pub async fn make_symlink(&self, path: &str, target: &str) -> Result<()> {
        let (at, target) = (self.location(path), target.to_owned());
        ask!(self.inner(), self.route(), self.changing("make", path), |guest, store| guest
            .call_make_symlink(store, &at, &target))
    }

    /// Sets the low twelve mode bits of a file or directory, such as `0o755`. Follows symbolic links.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`] for further bits, [`Kind::File`] with the fault, and the kinds of every call: see
    /// [`Kind`].
    pub async fn set_permissions(&self, path: &str, permissions: u32) -> Result<()> {
        let at = self.location(path);
        ask!(self.inner(), self.route(), self.changing("change the mode of", path), |guest, store| guest
            .call_set_permissions(store, &at, permissions))
    }

    /// Returns events below a path since `position`, which is 0 at first. Waits up to `time`, at most ten minutes, for
    /// events, and returns at most 1,000. The first call with a `watch` id starts the watch. It ends with the sandbox,
    /// or by [`signal`](Self::signal) with its id.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider cannot watch, [`Kind::File`] with the fault, and the kinds of every call:
    /// see [`Kind`].
    pub async fn watch(
        &self,
        path: &str,
        watch: &str,
        recursive: bool,
        position: u64,
        time: std::time::Duration,
    ) -> Result<types::WatchPage> {
        let (at, watch, wait) = (self.location(path), watch.to_owned(), crate::api::spec::millis(time));
        ask!(self.inner(), self.route(), self.on("watch", path), |guest, store| guest
            .call_watch(store, &at, &watch, recursive, position, EVENTS, wait))
    }
}

/// The entries of a directory, page by page. Created by [`Sandbox::directory_pages`].
#[derive(Debug)]
pub struct DirectoryPages {
    sandbox: Sandbox,
    path: String,
    /// The cursor of the next page: `Some(None)` before the first page, `None` after the last.
    next: Option<Option<String>>,
}

impl DirectoryPages {
    /// Returns the next entries, sorted by name over all pages, or `None` after the last page.
    ///
    /// # Errors
    ///
    /// [`Kind::File`] with the fault, [`Kind::Internal`] if the plugin lists without progress, and the kinds of every
    /// call: see [`Kind`].
    pub async fn next(&mut self) -> Result<Option<Vec<types::FileInfo>>> {
        let Some(cursor) = &self.next else { return Ok(None) };
        let page = self.sandbox.entries_from(&self.path, cursor.as_deref()).await?;
        advances(cursor.as_ref(), &page).map_err(|fault| self.sandbox.listing_fault(&self.path, fault))?;
        self.next = page.next.map(Some);
        Ok(Some(page.items))
    }
}

/// Fails if a page makes no progress compared to the cursor of its request. The text continues "the plugin …".
fn advances(cursor: Option<&String>, page: &types::FilePage) -> Result<(), (Kind, String)> {
    if page.next.is_some() && (page.items.is_empty() || page.next.as_ref() == cursor) {
        let why = "returns pages of the directory without new entries";
        return Err((Kind::Internal, why.into()));
    }
    Ok(())
}

/// The entries of a directory that have been collected so far.
#[derive(Default)]
struct Listing {
    found: Vec<types::FileInfo>,
    /// Total length of their texts, in bytes.
    text: usize,
    /// Cursor of the next page.
    next: Option<String>,
}

impl Listing {
    /// Adds a page and returns whether more pages follow. The text of an error continues "the plugin …".
    fn add(&mut self, page: types::FilePage) -> Result<bool, (Kind, String)> {
        advances(self.next.as_ref(), &page)?;
        let text = |item: &types::FileInfo| item.name.len() + item.path.len() + item.owner.len() + item.group.len();
        self.text += page.items.iter().map(text).sum::<usize>();
        if self.found.len() + page.items.len() > MOST_ENTRIES || self.text > MOST_TEXT {
            let why =
                format!("returns more than {MOST_ENTRIES} entries, or more than {} MiB of names", MOST_TEXT >> 20);
            return Err((Kind::ResourceExhausted, why));
        }
        self.found.extend(page.items);
        self.next = page.next;
        Ok(self.next.is_some())
    }
}

/// Aborts a transfer when its caller drops it. Otherwise its program in the sandbox would wait forever for the rest.
struct Unfinished {
    transfer: Option<(Sandbox, String)>,
}

impl Unfinished {
    fn done(mut self) {
        self.transfer = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some((sandbox, transfer)) = self.transfer.take() {
            // SIGTERM and not SIGKILL, so that the program can remove its temporary file.
            signal_later(sandbox, transfer, Signal::TERM);
        }
    }
}

pin_project_lite::pin_project! {
    /// A stream that reports the number of bytes that pass through it.
    struct Told<T, F> {
        #[pin]
        stream: T,
        told: F,
    }
}

impl<T: AsyncRead, F: FnMut(u64)> AsyncRead for Told<T, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        let polled = this.stream.poll_read(cx, buf);
        (this.told)((buf.filled().len() - before) as u64);
        polled
    }
}

impl<T: AsyncWrite, F: FnMut(u64)> AsyncWrite for Told<T, F> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.stream.poll_write(cx, data))?;
        (this.told)(written as u64);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }
}

pin_project_lite::pin_project! {
    /// A stream that ends regularly only if `whole` receives true, and fails with `UnexpectedEof` otherwise.
    struct Whole<T> {
        #[pin]
        stream: T,
        #[pin]
        whole: tokio::sync::oneshot::Receiver<bool>,
    }
}

impl<T: AsyncRead> AsyncRead for Whole<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.stream.poll_read(cx, buf))?;
        if buf.filled().len() > before || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match ready!(this.whole.poll(cx)) {
            Ok(true) => Poll::Ready(Ok(())),
            _ => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

/// Reads a full piece into `buffer`, or less at the end of the source.
async fn read_piece<R: AsyncRead + Unpin>(reader: &mut R, mut buffer: BytesMut, path: &str) -> Result<Bytes> {
    buffer.clear();
    while buffer.len() < SENT_PIECE {
        // The space is not reserved at once, because most files are small.
        let room = buffer.len().clamp(16 << 10, READ_STEP).min(SENT_PIECE - buffer.len());
        buffer.reserve(room);
        let read = (&mut *reader).take(room as u64).read_buf(&mut buffer).await;
        if read.map_err(|error| Error::io(format!("read the data for {path}"), error))? == 0 {
            break;
        }
        // A reader that is always ready would block the piece that is sent at the same time by the same task.
        tokio::task::yield_now().await;
    }
    Ok(buffer.freeze())
}

/// A writer that collects up to `max` bytes and fails when it receives more.
struct Bounded {
    data: Vec<u8>,
    max: u64,
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.data.extend_from_slice(data);
        if self.data.len() as u64 > self.max {
            return std::task::Poll::Ready(Err(std::io::ErrorKind::FileTooLarge.into()));
        }
        std::task::Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(names: impl IntoIterator<Item = String>, next: Option<&str>) -> types::FilePage {
        let items = names.into_iter().map(|name| types::FileInfo {
            path: String::new(),
            kind: types::FileKind::File,
            size: 0,
            mode: 0o644,
            owner: String::new(),
            group: String::new(),
            modified: 0,
            name,
        });
        types::FilePage { items: items.collect(), skipped: 0, next: next.map(str::to_owned) }
    }

    #[test]
    fn a_listing_ends() {
        let one = || ["a".to_owned()];
        let mut listing = Listing::default();
        assert_eq!(listing.add(page(one(), Some("1"))), Ok(true));
        assert_eq!(listing.add(page(one(), Some("2"))), Ok(true));
        assert_eq!(listing.add(page(one(), Some("2"))).unwrap_err().0, Kind::Internal, "the same cursor");
        assert_eq!(listing.add(page([], Some("3"))).unwrap_err().0, Kind::Internal, "nothing, and more of it");
        assert_eq!(listing.add(page([], None)), Ok(false));
        assert_eq!(listing.found.len(), 2);
        assert_eq!(Listing::default().add(page([], None)), Ok(false), "an empty directory");
    }

    #[test]
    fn a_listing_is_bounded() {
        // Each page has another cursor and is not empty.
        let mut listing = Listing::default();
        let error = (0..)
            .find_map(|n: usize| listing.add(page((0..10_000).map(|_| String::new()), Some(&n.to_string()))).err());
        assert_eq!(error.unwrap().0, Kind::ResourceExhausted);
        assert_eq!(listing.found.len(), MOST_ENTRIES);
        let mut listing = Listing::default();
        let error = (0..).find_map(|n: usize| listing.add(page(["x".repeat(32 << 20)], Some(&n.to_string()))).err());
        assert_eq!(error.unwrap().0, Kind::ResourceExhausted);
        assert_eq!(listing.found.len(), 8);
    }
}

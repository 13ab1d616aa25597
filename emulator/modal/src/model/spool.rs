//! Stores the output of a process from its first byte and reads it by offset.
//!
//! Readers may start late or come back, and never delay the writer. Short output stays in memory, since most commands write
//! little; longer output moves to a file, so that a gigabyte of output takes disk space and no memory. The file stays open
//! until the stream is closed; after that it is opened for each read, so that stored output holds no file descriptor.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::error::Error;
use crate::model::values::now;

/// Largest piece in bytes that a reader gets. The official clients send pieces of this size.
pub const CHUNK: usize = 256 * 1024;

/// Output up to this many bytes stays in memory. A thousand execs with two streams each then take at most 32 MiB.
const IN_MEMORY: usize = 16 * 1024;

/// Number of write times that are kept per stream; when it is reached, every second one is dropped.
const MARKS: usize = 4096;

/// One output stream of one process.
#[derive(Debug)]
pub struct Spool {
    directory: PathBuf,
    store: Mutex<Store>,
    /// Write times: the start offset of each write and its time in Unix seconds, in order of offset.
    marks: Mutex<Vec<(u64, f64)>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug)]
enum Store {
    Memory(Vec<u8>),
    /// The stream is open.
    File(Kept, std::sync::Arc<File>),
    /// The stream is closed.
    Closed(Kept),
    /// The disk had no room for the file.
    Broken,
}

/// The path of an output file, which is deleted when this value is dropped.
#[derive(Debug)]
struct Kept(PathBuf);

impl Drop for Kept {
    fn drop(&mut self) {
        // A failure has no effect that matters: the whole directory is removed with the emulator.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The state of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes stored so far.
    pub len: u64,
    /// The stream is complete.
    pub closed: bool,
    /// Output was lost.
    pub broken: bool,
}

impl Spool {
    /// Returns an empty stream. Its file, if it needs one, is created in `directory`.
    pub fn new(directory: &Path) -> Spool {
        Spool {
            directory: directory.to_owned(),
            store: Mutex::new(Store::Memory(Vec::new())),
            marks: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// Appends bytes. Returns true the first time the stream moves to disk, which suggests that much more output follows.
    pub fn append(&self, data: &[u8]) -> bool {
        let mut store = self.store.lock();
        let Progress { len, broken: false, closed: false } = *self.progress.borrow() else { return false };
        let mut moved = false;
        if let Store::Memory(kept) = &mut *store {
            if kept.len() + data.len() <= IN_MEMORY {
                kept.extend_from_slice(data);
            } else {
                moved = true;
                let made = create(&self.directory);
                *store = match made.and_then(|(name, file)| file.write_all_at(kept, 0).map(|()| (name, file))) {
                    Ok((name, file)) => Store::File(name, std::sync::Arc::new(file)),
                    Err(error) => {
                        refused(&error);
                        Store::Broken
                    }
                };
            }
        }
        let lost = match &*store {
            Store::Memory(_) => false,
            // Earlier bytes stay in the file: they remain readable, and count towards the sandbox's disk usage.
            Store::File(_, file) => file.write_all_at(data, len).inspect_err(refused).is_err(),
            Store::Closed(_) | Store::Broken => true,
        };
        {
            let mut marks = self.marks.lock();
            if marks.len() == MARKS {
                let mut index = 0;
                marks.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
            }
            marks.push((len, now()));
        }
        drop(store);
        self.progress.send_modify(|p| {
            p.broken |= lost;
            p.len += if lost { 0 } else { data.len() as u64 };
        });
        moved
    }

    /// Marks the stream as complete. Idempotent.
    pub fn close(&self) {
        let mut store = self.store.lock();
        *store = match std::mem::replace(&mut *store, Store::Broken) {
            Store::Memory(mut kept) => {
                kept.shrink_to_fit();
                Store::Memory(kept)
            }
            Store::File(name, _) => Store::Closed(name),
            other => other,
        };
        self.marks.lock().shrink_to_fit();
        self.progress.send_if_modified(|p| !std::mem::replace(&mut p.closed, true));
    }

    /// Deletes the file of a closed stream. Returns its size in bytes, or 0 if there is none; readers then get an error.
    pub fn discard(&self) -> u64 {
        let mut store = self.store.lock();
        if !matches!(*store, Store::Closed(_)) {
            return 0;
        }
        *store = Store::Broken;
        self.progress.send_modify(|p| p.broken = true);
        self.progress().len
    }

    /// Returns how many bytes are stored, and whether the stream is complete.
    pub fn progress(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Returns when the byte at `offset` was written, in Unix seconds.
    pub fn written_at(&self, offset: u64) -> f64 {
        let marks = self.marks.lock();
        let next = marks.partition_point(|(start, _)| *start <= offset);
        marks.get(next.saturating_sub(1)).map_or(0.0, |(_, time)| *time)
    }

    /// Returns the range of offsets that holds everything written from `since` to `until`, in Unix seconds and inclusive.
    pub fn written_between(&self, since: f64, until: f64) -> Range<u64> {
        let marks = self.marks.lock();
        // A linear search, because the times are not sorted if the clock was set back.
        let fits = |(_, time): &(u64, f64)| (since..=until).contains(time);
        let (Some(first), Some(last)) = (marks.iter().position(fits), marks.iter().rposition(fits)) else {
            return 0..0;
        };
        let end = marks.get(last + 1).map_or_else(|| self.progress().len, |(start, _)| *start);
        marks[first].0..end
    }

    /// Returns the offset of the first byte that was written after `time`, in microseconds of Unix time.
    pub fn written_after(&self, time: u64) -> u64 {
        let marks = self.marks.lock();
        let later = marks.iter().find(|(_, at)| micros(*at) > time).map(|(start, _)| *start);
        later.unwrap_or_else(|| self.progress().len)
    }

    /// Reads up to [`CHUNK`] bytes at `offset`. Returns an empty buffer if there are none yet.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, or if output was lost because the disk was full.
    pub fn read(&self, offset: u64) -> io::Result<Bytes> {
        let len = self.progress.borrow().len;
        let wanted = len.saturating_sub(offset).min(CHUNK as u64) as usize;
        if wanted == 0 {
            return Ok(Bytes::new());
        }
        let store = self.store.lock();
        let file = match &*store {
            Store::Memory(kept) => {
                let start = offset as usize;
                return Ok(Bytes::copy_from_slice(kept.get(start..start + wanted).unwrap_or_default()));
            }
            Store::File(_, file) => file.clone(),
            Store::Closed(name) => std::sync::Arc::new(File::open(&name.0)?),
            Store::Broken => return Err(io::Error::other("output was lost: the emulator's disk is full")),
        };
        drop(store);
        let mut chunk = BytesMut::zeroed(wanted);
        file.read_exact_at(&mut chunk, offset)?;
        Ok(chunk.freeze())
    }

    /// Streams all bytes from `offset`, with the offset of each piece, until the stream is closed. Pieces are never empty. The
    /// last item is an error of `Kind::DataLoss` if output was lost.
    pub fn follow(self: std::sync::Arc<Self>, offset: u64) -> impl Stream<Item = Result<(u64, Bytes), Error>> + Send {
        let progress = self.progress.subscribe();
        futures_util::stream::unfold(Some((self, progress, offset)), |state| async move {
            let (spool, mut progress, offset) = state?;
            loop {
                let seen = *progress.borrow_and_update();
                if seen.len > offset {
                    return match spool.read(offset) {
                        Ok(chunk) => {
                            let next = offset + chunk.len() as u64;
                            Some((Ok((offset, chunk)), Some((spool, progress, next))))
                        }
                        Err(error) => Some((Err(Error::data_loss(error.to_string())), None)),
                    };
                }
                if seen.broken {
                    return Some((Err(Error::data_loss("output was lost: the emulator's disk is full")), None));
                }
                if seen.closed || progress.changed().await.is_err() {
                    return None;
                }
            }
        })
    }
}

/// Converts Unix seconds to microseconds.
pub fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

fn refused(error: &io::Error) {
    tracing::error!(%error, "cannot store the output of a command");
}

/// Creates a new file in `directory`, readable and writable only for its owner.
fn create(directory: &Path) -> io::Result<(Kept, File)> {
    let path = directory.join(crate::model::ids::id("spool"));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    Ok((Kept(path), file))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::StreamExt as _;

    use super::*;

    #[tokio::test]
    async fn any_offset_across_the_move_to_disk() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(directory.path()));
        let all: Vec<u8> = (0..600_000u32).map(|n| (n % 251) as u8).collect();
        let mut moves = 0;
        for piece in all.chunks(7001) {
            moves += u32::from(spool.append(piece));
        }
        spool.close();
        assert_eq!(moves, 1);
        for offset in [0usize, 1, 7000, 16_384, 599_999, 600_000, 700_000] {
            let pieces: Vec<_> = spool.clone().follow(offset as u64).collect().await;
            let mut read = Vec::new();
            for piece in pieces {
                let (at, bytes) = piece.unwrap();
                assert!(!bytes.is_empty() && bytes.len() <= CHUNK);
                assert_eq!(at as usize, offset + read.len());
                read.extend_from_slice(&bytes);
            }
            assert_eq!(read, all.get(offset..).unwrap_or_default());
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        drop(spool);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

//! The directory `files/ID` of one transfer: the content that moves in pieces, and how it ended.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    answer::{Answer, Failure},
    args::{Args, Data},
    base::{Base, make_dir},
    context::Context,
    json,
};

/// After which time the marker of a transfer that has ended is removed.
const DONE_AGE: Duration = Duration::from_secs(3600);
/// After which time a transfer that nothing touches is removed.
const LEFT_AGE: Duration = Duration::from_secs(24 * 3600);

/// A transfer from the sandbox or into it.
pub struct Transfer {
    id: String,
    /// Its directory.
    pub dir: PathBuf,
}

/// One piece of an upload.
pub enum Piece {
    /// More pieces follow: this many bytes are there.
    Partial(u64),
    /// Everything is there.
    Whole(Upload),
    /// The transfer ended before with this result.
    Ended(Answer<u64>),
}

/// A complete upload. Its lock makes sure that it is applied once.
pub struct Upload {
    /// The content, at its start.
    pub content: File,
    /// Its length in bytes.
    pub length: u64,
    #[expect(dead_code, reason = "it is only held")]
    lock: File,
}

impl Transfer {
    /// The transfer that the arguments name.
    ///
    /// # Errors
    ///
    /// Fails if the id is not usable as a file name.
    pub fn of(args: &Args, context: &Context) -> Answer<Self> {
        let id = args.required("transfer")?;
        Ok(Self { id: id.into(), dir: context.base.transfer(id)? })
    }

    fn failed(&self, error: io::Error) -> Failure {
        Failure::internal(&self.id, error)
    }

    /// The spooled content of a download, if there is one.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be opened.
    pub fn spooled(&self) -> Answer<Option<File>> {
        match File::open(self.dir.join("content")) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Spools a download: `fill` writes it to a file, which appears under its name when it is complete.
    ///
    /// # Errors
    ///
    /// Fails as `fill` fails.
    pub fn spool(&self, fill: impl FnOnce(&mut File) -> Answer) -> Answer<File> {
        make_dir(&self.dir).map_err(|error| self.failed(error))?;
        let draft = self.dir.join(format!(".content-{}", std::process::id()));
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let mut file = file.map_err(|error| self.failed(error))?;
        let filled = fill(&mut file);
        let named =
            filled.and_then(|()| fs::rename(&draft, self.dir.join("content")).map_err(|error| self.failed(error)));
        match named {
            Ok(()) => Ok(file),
            Err(failure) => {
                self.remove();
                Err(failure)
            }
        }
    }

    /// Removes everything of the transfer.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.dir);
    }

    /// Accepts a piece of an upload: the arguments `offset`, `data` or `file`, and `eof`.
    ///
    /// # Errors
    ///
    /// Fails if bytes before the offset are missing, or the disk is full.
    pub fn accept(&self, args: &Args, context: &Context) -> Answer<Piece> {
        let offset = args.number("offset")?.unwrap_or(0);
        let mut data = args.data(&context.base)?;
        let lock = self.lock()?;
        if let Some(result) = self.ended() {
            return Ok(Piece::Ended(result));
        }
        let path = self.dir.join("content");
        let known = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(self.failed(error)),
        };
        let skip = known.checked_sub(offset).ok_or_else(|| {
            let message = format!("The piece starts at byte {offset}, but only {known} bytes are there.");
            Failure::invalid("offset", message)
        })?;
        let length = self.append(&mut data, skip, &path, known).map_err(|error| self.failed(error))?;
        if !args.flag("eof") {
            return Ok(Piece::Partial(length));
        }
        let content = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| self.failed(error))?;
        Ok(Piece::Whole(Upload { content, length, lock }))
    }

    fn append(&self, data: &mut Data, skip: u64, path: &Path, known: u64) -> io::Result<u64> {
        if let Data::Upload(upload) = data
            && known == 0
            && upload.file.metadata()?.is_file()
        {
            // The first piece need not be copied.
            fs::rename(&upload.path, path)?;
            // An archive can set any time. `prune` goes by it.
            upload.file.set_modified(SystemTime::now())?;
            return Ok(upload.file.metadata()?.len());
        }
        let mut options = OpenOptions::new();
        let mut content = options.write(true).create(true).truncate(false).mode(0o600).open(path)?;
        data.append(skip, &mut content, known)
    }

    /// Waits until no other call uses the transfer. It is free when the result is dropped.
    fn lock(&self) -> Answer<File> {
        let path = self.dir.join("lock");
        loop {
            let open =
                || OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    make_dir(&self.dir).map_err(|error| self.failed(error))?;
                    continue;
                }
                other => other.map_err(|error| self.failed(error))?,
            };
            flock(&file, FlockOperation::LockExclusive).map_err(|error| self.failed(error.into()))?;
            return Ok(file);
        }
    }

    /// How the transfer ended, if it has.
    fn ended(&self) -> Option<Answer<u64>> {
        let text = fs::read_to_string(self.dir.join("done")).ok()?;
        Some(text.parse().map_err(|_| Failure::of_payload(&text)))
    }

    /// Records the result of an upload, for its repetitions, and frees its content.
    ///
    /// # Errors
    ///
    /// Fails with that result, or if the disk is full.
    pub fn finish(&self, upload: &Upload, result: Answer) -> Answer<u64> {
        // The space of the content is enough for the marker.
        let _ = upload.content.set_len(0);
        let text = match &result {
            Ok(()) => upload.length.to_string(),
            Err(failure) => failure.payload(),
        };
        let marker = self.dir.join("done");
        let draft = self.dir.join(".done");
        let written = fs::write(&draft, text).and_then(|()| fs::rename(&draft, &marker));
        result?;
        written.map_err(|error| self.failed(error))?;
        Ok(upload.length)
    }
}

/// Answers a piece of an upload. A complete one is applied by `apply`.
///
/// # Errors
///
/// Fails as the piece or `apply` fails.
pub fn receive(args: &Args, context: &Context, apply: impl FnOnce(&mut Upload) -> Answer) -> Answer {
    let transfer = Transfer::of(args, context)?;
    let offset = match transfer.accept(args, context)? {
        Piece::Partial(offset) => offset,
        Piece::Ended(result) => result?,
        Piece::Whole(mut upload) => {
            let result = apply(&mut upload);
            prune(&context.base);
            transfer.finish(&upload, result)?
        }
    };
    crate::answer::send_json(&json::Object::new().number("offset", offset).end())
}

/// Removes what transfers left behind, in one of sixteen calls.
fn prune(base: &Base) {
    if !std::process::id().is_multiple_of(16) {
        return;
    }
    for entry in fs::read_dir(base.file("files")).into_iter().flatten().flatten() {
        let path = entry.path();
        let age = |path: &Path| fs::metadata(path).ok()?.modified().ok()?.elapsed().ok();
        let done = age(&path.join("done")).is_some_and(|age| age > DONE_AGE);
        let left = age(&path.join("content")).is_some_and(|age| age > LEFT_AGE);
        if done || left {
            let _ = fs::remove_dir_all(path);
        }
    }
}

//! Files. Modal has no file calls: each operation is an exec of a helper that it puts into every sandbox, with one JSON
//! argument (fact sheet, section 8.1), or of the image's own programs where the helper cannot do it ([`crate::files::script`]).
//!
//! A transfer id is the exec id of the program that does the transfer. Starting an exec twice does nothing, and its output
//! can be read from any offset, so any instance can carry a transfer on, and all pieces come from one opened file.

use std::{future::poll_fn, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use modal_proto::{
    client::{SecretSource, StringMap, secret_source::Source},
    task_command_router::{TaskExecStartRequest, TaskExecStderrConfig, TaskExecStdoutConfig},
};

use crate::{
    exec::{inside, output::Follow, process::Exit, signal::MARKER},
    files::script,
    provider::Provider,
    service::id,
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::{clip, shown},
        ids,
        wit::{
            ErrorKind, ExecRef, FileChunk, FileFault, FileInfo, FileKind, FilePage, Happened, Location, WriteOptions,
        },
    },
    call::json::{Value, object},
    platform::{LocalFuture, within},
};

/// Where Modal puts the helper.
pub(crate) const TOOL: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Largest piece of one write, as for stdin.
const MAX_WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Largest answer other than file content and listings, in bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Longest entry of a listing, in bytes: a name and two paths, each character escaped.
const MAX_ENTRY_BYTES: usize = 64 * 1024;

/// Size of the entries after which a page is full, in bytes as the helper prints them.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Most that is read of what a failed program complains about, in bytes.
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// Most entries of one page; the interface documents it.
const MAX_ENTRIES: u32 = 10_000;

/// Links that are followed one after the other; as many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// How long a program may take to end once its output has.
const END_WAIT: Duration = Duration::from_secs(600);

/// When it is looked at what a file is, if its transfer has not got anywhere by then: opening a pipe, a socket or a terminal
/// may take for ever.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// How long a file may be silent while it is read.
const READ_STALL: Duration = Duration::from_secs(120);

/// How long a program that was given up may take to be killed.
const KILL_TIME: Duration = Duration::from_secs(30);

/// How long it may take to remove its draft before that, in tenths of a second.
const KILL_GRACE_TENTHS: u32 = 20;

/// Bits of a mode that are permissions, and those that say what it is.
const PERMISSION_BITS: u32 = 0o7777;
const FORMAT_BITS: u32 = 0o170_000;

/// The helper's argv for an operation on a path.
pub(crate) fn tool_argv(operation: &str, path: &str) -> Vec<String> {
    tool(operation, object([("path", path.into())]))
}

/// The helper's argv for what it is to do.
pub(crate) fn tool(operation: &str, argument: Value) -> Vec<String> {
    vec![TOOL.to_string(), object([(operation, argument)]).to_string()]
}

impl Provider {
    /// See `read-file` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        let read = self.read_transfer(at, transfer, tool_argv("ReadFile", &at.path), offset, max_bytes);
        match select(pin!(read), self.stuck(at, transfer, offset == 0, true)).await {
            Either::Left((result, _)) => result,
            Either::Right((error, _)) => Err(error),
        }
    }

    /// Ends a step of a transfer that takes too long. If it is the `first` and gets nowhere, the file is looked at, and
    /// refused if it is a pipe or a socket, or a device that is to be `read`.
    fn stuck<'a>(&'a self, at: &'a Location, transfer: &'a str, first: bool, read: bool) -> LocalFuture<'a, Error> {
        Box::pin(async move {
            self.transport().sleep(LOOK_AFTER).await;
            let found = if first { self.stat(at, true).await.ok().map(|found| found.kind) } else { None };
            let error = match found {
                Some(FileKind::Other(kind)) if read || matches!(&*kind, "pipe" | "socket") => {
                    let message = format!("{}: it is a {kind} and not a regular file", at.path);
                    Error::file(FileFault::Other(format!("a {kind}")), &at.path, message)
                }
                _ => {
                    self.transport().sleep(if read { READ_STALL } else { END_WAIT * 2 }).await;
                    late(&at.path)
                }
            };
            // Boxed: to signal is to run a script.
            let exec = exec_ref(at, transfer);
            let kill: LocalFuture<'_, Result<()>> = Box::pin(self.end(&exec, KILL_GRACE_TENTHS));
            let _ = within(self.transport(), KILL_TIME, kill).await;
            error.with_happened(Happened::Unknown)
        })
    }

    /// See `write-file` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn write_file(
        &self,
        at: &Location,
        transfer: &str,
        options: &WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        check_location(at)?;
        check::transfer(transfer)?;
        check::extra(&options.extra)?;
        options.permissions.map_or(Ok(()), check::permissions)?;
        let argv = script::writer(at, options, transfer).unwrap_or_else(|| tool_argv("WriteFile", &at.path));
        let data = Bytes::from(data);
        let write = async {
            loop {
                let id = self.script_id(at, transfer);
                let written = self.write_transfer(at, &id, argv.clone(), offset, data.clone(), eof).await;
                if !self.is_elsewhere(at, written.as_ref().err()).await {
                    return written;
                }
            }
        };
        match select(pin!(write), self.stuck(at, transfer, offset == 0, false)).await {
            Either::Left((result, _)) => result,
            Either::Right((error, _)) => Err(error),
        }
    }

    /// A piece of what a program prints.
    pub(crate) async fn read_transfer(
        &self,
        at: &Location,
        transfer: &str,
        argv: Vec<String>,
        offset: u64,
        max_bytes: u32,
    ) -> Result<FileChunk> {
        check_location(at)?;
        check::transfer(transfer)?;
        let max = check::max_bytes(max_bytes)?;
        self.begin(at, transfer, argv).await?;
        let exec = exec_ref(at, transfer);
        let mut follow = self.take_follow(&exec, 0, offset);
        poll_fn(|cx| follow.poll_fill(cx, max)).await?;
        let data = follow.take(max);
        if !follow.is_ended() {
            self.keep_follow(&exec, 0, follow);
            return Ok(FileChunk { data, end: false });
        }
        self.finish(at, transfer).await?;
        Ok(FileChunk { data, end: true })
    }

    /// A piece of what a program reads.
    pub(crate) async fn write_transfer(
        &self,
        at: &Location,
        transfer: &str,
        argv: Vec<String>,
        offset: u64,
        data: Bytes,
        eof: bool,
    ) -> Result<u64> {
        check::transfer(transfer)?;
        if data.len() > MAX_WRITE_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are too many for one piece of a file: send at most {MAX_WRITE_BYTES} at a time.",
                data.len()
            )));
        }
        self.begin(at, transfer, argv).await?;
        let end = offset + data.len() as u64;
        let state = self
            .write_much_stdin(&at.sandbox, &ids::wire_uuid(transfer), offset, data, eof)
            .await
            .map_err(|error| if eof { uncertain(error) } else { error })?;
        if !state.closed {
            return Ok(state.accepted);
        }
        // Either that was all, or the program reads no more: it has failed, or had everything already.
        self.finish(at, transfer).await.map_err(uncertain)?;
        Ok(end)
    }

    /// See `stat` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn stat(&self, at: &Location, follow: bool) -> Result<FileInfo> {
        check_location(at)?;
        let mut place = at.clone();
        for _ in 0..=MAX_LINKS {
            let info = parse(&self.answer(&place, tool_argv("Stat", &place.path)).await?, entry)?;
            let FileKind::Symlink(target) = &info.kind else {
                if place.path == at.path {
                    return Ok(info);
                }
                // The answer is about the path that was asked for, wherever it led.
                let name = at.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_string();
                return Ok(FileInfo { name, path: at.path.clone(), ..info });
            };
            if !follow {
                return Ok(info);
            }
            // The kernel resolves the rest: parents that are links, and `..` behind them.
            place.path = match place.path.trim_end_matches('/').rsplit_once('/') {
                Some((parent, _)) if !target.starts_with('/') => format!("{parent}/{target}"),
                _ => target.clone(),
            };
        }
        let fault = FileFault::Other("too many links".to_string());
        Err(Error::file(fault, &at.path, format!("{}: too many levels of symbolic links", at.path)))
    }

    /// See `list-directory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn list_directory(&self, at: &Location, cursor: Option<String>, max: u32) -> Result<FilePage> {
        if max == 0 {
            return Err(Error::invalid("max is 0: ask for at least one entry."));
        }
        check_location(at)?;
        // The helper lists once. A page is a piece of what it printed, and the cursor says where the next one begins.
        let (transfer, offset) = match cursor {
            Some(cursor) => listing_cursor(&cursor)?,
            None => {
                let transfer = self.new_uuid();
                self.begin(at, &transfer, tool_argv("ListFiles", &at.path)).await?;
                (transfer, 0)
            }
        };
        let exec = exec_ref(at, &transfer);
        let mut follow = self.take_follow(&exec, 0, offset);
        let mut elements = Elements::new(offset == 0);
        let mut items = Vec::new();
        let max = max.min(MAX_ENTRIES) as usize;
        let until = self.now() + END_WAIT;
        loop {
            let is_full = items.len() == max || elements.done() >= MAX_PAGE_BYTES;
            match elements.next(is_full) {
                Next::Element(text) => items.push(parse(text, entry)?),
                Next::Another => {
                    follow.give_back(elements.rest());
                    let next = format!("{transfer}:{}", follow.offset());
                    self.keep_follow(&exec, 0, follow);
                    return Ok(FilePage { items, next: Some(next) });
                }
                Next::End => break,
                Next::More if follow.is_ended() => {
                    // Why it stopped says its exit code, if anything does.
                    self.finish(at, &transfer).await?;
                    return Err(unreadable());
                }
                Next::More => {
                    self.fill(at, &mut follow, until).await?;
                    elements.add(&follow.take(usize::MAX));
                }
                Next::Unreadable => return Err(unreadable()),
            }
        }
        self.finish(at, &transfer).await?;
        Ok(FilePage { items, next: None })
    }

    /// See `make-directory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn make_directory(&self, at: &Location, parents: bool) -> Result<()> {
        let argument = object([("path", at.path.as_str().into()), ("parents", parents.into())]);
        self.answer(at, tool("MakeDirectory", argument)).await.map(drop)
    }

    /// See `remove` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn remove(&self, at: &Location, recursive: bool) -> Result<()> {
        let argument = object([("path", at.path.as_str().into()), ("recursive", recursive.into())]);
        self.answer(at, tool("Remove", argument)).await.map(drop).map_err(|error| {
            // A tree that could not be removed may have lost a part.
            if recursive && !matches!(error.kind, ErrorKind::File(FileFault::NotFound)) {
                return uncertain(error);
            }
            error
        })
    }

    /// Runs a program to its end and gives its output.
    pub(crate) async fn answer(&self, at: &Location, argv: Vec<String>) -> Result<Vec<u8>> {
        self.answer_in(at, argv, true).await
    }

    /// [`Provider::answer`]; the program sees the container's environment unless it is to be `clean`.
    pub(crate) async fn answer_in(&self, at: &Location, argv: Vec<String>, clean: bool) -> Result<Vec<u8>> {
        check_location(at)?;
        let transfer = self.new_uuid();
        self.begin_in(at, &transfer, argv, clean).await?;
        let exec = exec_ref(at, &transfer);
        let mut follow = self.take_follow(&exec, 0, 0);
        let mut answer = Vec::new();
        let until = self.now() + END_WAIT;
        while !follow.is_ended() {
            self.fill(at, &mut follow, until).await?;
            answer.extend(follow.take(usize::MAX));
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    format!("The answer about {} is too long.", at.path),
                )
                .about(&at.path));
            }
        }
        self.finish(at, &transfer).await?;
        Ok(answer)
    }

    /// Waits for more output of a program until then.
    fn fill<'a>(&'a self, at: &'a Location, follow: &'a mut Follow, until: Duration) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let filled = poll_fn(|cx| follow.poll_fill(cx, 1));
            match within(self.transport(), until.saturating_sub(self.now()), filled).await {
                Some(filled) => filled.map_err(uncertain),
                None => Err(late(&at.path).with_happened(Happened::Unknown)),
            }
        })
    }

    /// Starts the program of a transfer, once.
    pub(crate) async fn begin(&self, at: &Location, transfer: &str, argv: Vec<String>) -> Result<()> {
        self.begin_in(at, transfer, argv, true).await
    }

    async fn begin_in(&self, at: &Location, transfer: &str, argv: Vec<String>, clean: bool) -> Result<()> {
        let key = (at.sandbox.clone(), transfer.to_string());
        if self.inner.state.borrow().started.get(&key).is_some() {
            return Ok(());
        }
        let exec_id = ids::wire_uuid(transfer);
        let own = clean.then(inside::environment).into_iter().flatten();
        let env = StringMap { contents: own.chain([(MARKER.to_string(), exec_id.clone())]).collect() };
        let request = TaskExecStartRequest {
            exec_id,
            container_id: self.container_id(&at.sandbox, at.container.as_deref()).await?,
            command_args: self.placed(&at.sandbox, at.container.as_deref(), argv),
            stdout_config: TaskExecStdoutConfig::Pipe.into(),
            stderr_config: TaskExecStderrConfig::Pipe.into(),
            secret_sources: vec![SecretSource { source: Some(Source::Env(env)) }],
            ..Default::default()
        };
        self.start_exec(&at.sandbox, request).await?;
        self.inner.state.borrow_mut().started.insert(key, ());
        Ok(())
    }

    /// Waits for the program's end and reads what it complains about.
    pub(crate) async fn finish(&self, at: &Location, transfer: &str) -> Result<()> {
        let exit = self.wait_exit(&at.sandbox, &ids::wire_uuid(transfer), END_WAIT).await.map_err(uncertain)?;
        let code = match exit {
            Some(Exit::Code(0)) => return Ok(()),
            Some(Exit::Code(code)) => code,
            Some(Exit::Signal(signal)) => 128 + signal,
            None => return Err(late(&at.path).with_happened(Happened::Unknown)),
        };
        let exec = exec_ref(at, transfer);
        let mut follow = self.take_follow(&exec, 1, 0);
        let mut complaint = Vec::new();
        let until = self.now() + END_WAIT;
        while !follow.is_ended() && complaint.len() < MAX_COMPLAINT_BYTES {
            self.fill(at, &mut follow, until).await?;
            complaint.extend(follow.take(MAX_COMPLAINT_BYTES));
        }
        let complaint = String::from_utf8_lossy(&complaint);
        if script::is_harmless(code, &complaint) { Ok(()) } else { Err(complained(&at.path, code, &complaint)) }
    }
}

/// An operation that was not over in time.
fn late(path: &str) -> Error {
    Error::new(ErrorKind::TimedOut, format!("The file operation on {path} did not end.")).about(path)
}

/// An error after the program was started: only what the program itself said is sure.
fn uncertain(error: Error) -> Error {
    match error.happened {
        Happened::No => error.with_happened(Happened::Unknown),
        _ => error,
    }
}

/// A directory entry as the helper prints it.
fn entry(value: &Value) -> Option<FileInfo> {
    let text = |name: &str| value.get(name).text().map(str::to_string);
    let mode = value.get("mode").whole::<u32>()?;
    // The helper calls all that is neither a directory nor a link a file.
    let other = match mode & FORMAT_BITS {
        0o010_000 => Some("pipe"),
        0o020_000 => Some("character device"),
        0o060_000 => Some("block device"),
        0o140_000 => Some("socket"),
        _ => None,
    };
    Some(FileInfo {
        kind: match value.get("type").text()? {
            "file" => other.map_or(FileKind::File, |kind| FileKind::Other(kind.to_string())),
            "directory" => FileKind::Directory,
            "symlink" => FileKind::Symlink(text("symlink_target").unwrap_or_default()),
            other => FileKind::Other(other.to_string()),
        },
        name: text("name")?,
        path: text("path")?,
        size: value.get("size").whole().unwrap_or(0),
        mode: mode & PERMISSION_BITS,
        owner: text("owner")?,
        group: text("group")?,
        modified: value.get("modified_time").thousandths().unwrap_or(0),
    })
}

fn parse<T>(answer: &[u8], read: impl FnOnce(&Value) -> Option<T>) -> Result<T> {
    let value = std::str::from_utf8(answer).ok().and_then(Value::parse);
    value.and_then(|value| read(&value)).ok_or_else(unreadable)
}

fn unreadable() -> Error {
    Error::internal("The sandbox's file helper answered with something unreadable.")
}

/// The transfer that a listing is read from, and the offset of its next entry.
fn listing_cursor(cursor: &str) -> Result<(String, u64)> {
    let parts = cursor.split_once(':').and_then(|(transfer, offset)| Some((transfer, offset.parse().ok()?)));
    let Some((transfer, offset)) = parts.filter(|(_, offset)| *offset > 0) else {
        return Err(Error::invalid(format!("`{}` is not a cursor of this list.", shown(&clip(cursor)))));
    };
    check::transfer(transfer)?;
    Ok((transfer.to_string(), offset))
}

/// Takes an array of objects apart while its text comes in, so that no more than one piece of it is in memory.
struct Elements {
    text: Vec<u8>,
    /// Where the next element may begin; what is before has been given.
    given: usize,
    /// How far the text has been looked at. Within an element, it begins at `given`.
    seen: usize,
    /// Brackets that are open within the element; 0 between elements.
    depth: u32,
    quoted: bool,
    escaped: bool,
    /// The array's own bracket comes first.
    begins: bool,
    /// Bytes that were given and are not in `text` any more.
    dropped: usize,
}

enum Next<'a> {
    /// An element.
    Element(&'a [u8]),
    /// There is another element, which was not wanted.
    Another,
    /// The end of the array.
    End,
    /// The text goes on.
    More,
    /// No array of objects.
    Unreadable,
}

impl Elements {
    /// `begins`: the text is that of the array from its beginning on, or else what follows an element.
    fn new(begins: bool) -> Elements {
        Elements { text: Vec::new(), given: 0, seen: 0, depth: 0, quoted: false, escaped: false, begins, dropped: 0 }
    }

    /// More text.
    fn add(&mut self, text: &[u8]) {
        self.text.drain(..self.given);
        self.dropped += self.given;
        self.seen -= self.given;
        self.given = 0;
        self.text.extend_from_slice(text);
    }

    /// Bytes that were given so far.
    fn done(&self) -> usize {
        self.dropped + self.given
    }

    /// What was not given.
    fn rest(&mut self) -> Vec<u8> {
        self.text.split_off(self.given)
    }

    /// The next element; if it is not wanted, whether there is one.
    fn next(&mut self, is_full: bool) -> Next<'_> {
        while let Some(byte) = self.text.get(self.seen).copied() {
            if self.depth == 0 {
                match byte {
                    b'{' if !self.begins && is_full => return Next::Another,
                    b'{' if !self.begins => self.depth = 1,
                    b'[' if self.begins => self.begins = false,
                    b']' if !self.begins => return Next::End,
                    b',' if !self.begins => {}
                    b' ' | b'\t' | b'\n' | b'\r' => {}
                    _ => return Next::Unreadable,
                }
                if self.depth == 0 {
                    self.given = self.seen + 1;
                }
                self.seen += 1;
                continue;
            }
            self.seen += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quoted => self.escaped = true,
                b'"' => self.quoted = !self.quoted,
                _ if self.quoted => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                let start = std::mem::replace(&mut self.given, self.seen);
                return Next::Element(&self.text[start..self.seen]);
            }
        }
        if self.text.len() - self.given > MAX_ENTRY_BYTES { Next::Unreadable } else { Next::More }
    }
}

/// What a program's complaint means: the helper's are objects (fact sheet, section 8.1), those of others are lines.
fn complained(path: &str, code: i32, complaint: &str) -> Error {
    let object = Value::parse(complaint).unwrap_or(Value::Null);
    let (Some(kind), Some(message)) = (object.get("error_kind").text(), object.get("message").text()) else {
        let text = clip(complaint.trim());
        if matches!(code, 126 | 127) {
            return Error::unsupported(
                "files",
                format!("The sandbox has no program for this (exit code {code}). {text}"),
            );
        }
        let fault = script::fault(&text);
        let words = words(&fault);
        return Error::file(fault, path, format!("{path}: {words}: {text}"))
            .with_provider(Some(format!("exit:{code}")), None);
    };
    let detail = object.get("detail").text().filter(|detail| !detail.is_empty()).map(|detail| format!(" ({detail})"));
    let text = clip(&format!("{message}{}", detail.unwrap_or_default()));
    let fault = match kind {
        "NotFound" => FileFault::NotFound,
        "IsDirectory" => FileFault::IsADirectory,
        // The last is a parent that is a file.
        "IsFile" | "NotDirectory" | "AlreadyExists" => FileFault::NotADirectory,
        "PathAlreadyExists" => FileFault::AlreadyExists,
        "DirectoryNotEmpty" => FileFault::NotEmpty,
        "PermissionDenied" => FileFault::PermissionDenied,
        "FileTooLarge" => FileFault::TooLarge,
        _ if text.contains("No space left") || text.contains("os error 28") => FileFault::NoSpace,
        other => FileFault::Other(other.to_string()),
    };
    let words = words(&fault);
    Error::file(fault, path, format!("{path}: {words}: {text}")).with_provider(Some(format!("fs:{kind}")), Some(text))
}

fn words(fault: &FileFault) -> &'static str {
    match fault {
        FileFault::NotFound => "there is no such file or directory",
        FileFault::IsADirectory => "it is a directory",
        FileFault::NotADirectory => "it, or a parent, is not a directory",
        FileFault::AlreadyExists => "something is there already",
        FileFault::NotEmpty => "the directory is not empty",
        FileFault::PermissionDenied => "permission denied",
        FileFault::TooLarge => "the file is too large to be transferred",
        FileFault::NoSpace => "the sandbox's disk is full",
        FileFault::Other(_) => "the operation failed",
    }
}

pub(crate) fn exec_ref(at: &Location, transfer: &str) -> ExecRef {
    ExecRef { sandbox: at.sandbox.clone(), exec: transfer.to_string(), deadline: None, container: at.container.clone() }
}

pub(crate) fn check_location(at: &Location) -> Result<()> {
    id::check_sandbox(&at.sandbox)?;
    check::path(&at.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_become_faults() {
        let cases = [
            ("NotFound", FileFault::NotFound),
            ("IsDirectory", FileFault::IsADirectory),
            ("NotDirectory", FileFault::NotADirectory),
            ("PermissionDenied", FileFault::PermissionDenied),
            ("DirectoryNotEmpty", FileFault::NotEmpty),
            ("FileTooLarge", FileFault::TooLarge),
            ("Strange", FileFault::Other("Strange".into())),
        ];
        for (kind, fault) in cases {
            let complaint = format!(r#"{{"version":1,"error_kind":"{kind}","message":"m"}}"#);
            let error = complained("/x", 1, &complaint);
            let ErrorKind::File(found) = &error.kind else { panic!("{error:?}") };
            assert_eq!(format!("{found:?}"), format!("{fault:?}"));
        }
        let full = r#"{"version":1,"error_kind":"Io","message":"write: No space left on device"}"#;
        assert!(matches!(complained("/x", 1, full).kind, ErrorKind::File(FileFault::NoSpace)));
        assert!(matches!(complained("/x", 127, "sh: not found").kind, ErrorKind::Unsupported));
        assert!(matches!(complained("/x", 1, "\u{fffd}").kind, ErrorKind::File(FileFault::Other(_))));
        assert!(matches!(complained("/x", 1, "mv: /x: File exists").kind, ErrorKind::File(FileFault::AlreadyExists)));
    }

    #[test]
    fn an_array_is_taken_apart() {
        let text = br#" [ {"a":"}],{\\\""} ,{"b":[{},[1]]},{}] "#;
        let wanted = [r#"{"a":"}],{\\\""}"#, r#"{"b":[{},[1]]}"#, "{}"];
        for size in 1..text.len() {
            // Page by page, each of one element and begun anew with what is left.
            let (mut found, mut at) = (Vec::new(), 0);
            'pages: loop {
                let mut elements = Elements::new(at == 0);
                let mut pieces = text[at..].chunks(size);
                let mut of_page = 0;
                loop {
                    match elements.next(of_page == 1) {
                        Next::Element(text) => {
                            found.push(String::from_utf8(text.to_vec()).unwrap());
                            of_page += 1;
                        }
                        Next::Another => {
                            at += elements.done();
                            continue 'pages;
                        }
                        Next::More => elements.add(pieces.next().unwrap()),
                        Next::End => break 'pages,
                        Next::Unreadable => panic!("{size} {found:?}"),
                    }
                }
            }
            assert_eq!(found, wanted, "{size}");
        }
        for bad in ["{}", "[x", "x", "]", "[\"a\"", &format!("[{{{}", "a".repeat(MAX_ENTRY_BYTES))] {
            let mut elements = Elements::new(true);
            elements.add(bad.as_bytes());
            assert!(matches!(elements.next(false), Next::Unreadable), "{bad:.20}");
        }
    }

    #[test]
    fn cursors_of_listings() {
        let id = "0b0e5d1e-6f3c-4d3a-9c7e-2f1d5a7b8c9d";
        assert_eq!(listing_cursor(&format!("{id}:7")).unwrap(), (id.to_string(), 7));
        for bad in ["", "name", "main:7", &format!("{id}:"), &format!("{id}:0"), &format!("{id}:-1"), "\n:1"] {
            assert!(listing_cursor(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        let location = |path: &str| Location { sandbox: "sb-x".into(), container: None, path: path.into() };
        assert!(check_location(&location("/a b/ü")).is_ok());
        for bad in ["", "a", "./a", "/a\0b", &format!("/{}", "x".repeat(4096))] {
            assert!(check_location(&location(bad)).is_err(), "{bad:.20}");
        }
    }
}

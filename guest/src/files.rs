//! Files. Modal has no file calls: each operation is an exec of a helper that it puts into every sandbox, with one JSON
//! argument (fact sheet, section 8.1), or of the image's own programs where the helper cannot do it ([`crate::filecmd`]).
//!
//! A transfer id is the exec id of the program that does the transfer. Starting an exec twice does nothing, and its output
//! can be read from any offset, so any instance can carry a transfer on, and all pieces come from one opened file.

use std::{future::poll_fn, time::Duration};

use modal_proto::{
    client::{SecretSource, StringMap, secret_source::Source},
    task_command_router::{TaskExecStartRequest, TaskExecStderrConfig, TaskExecStdoutConfig},
};

use crate::{
    bindings::{
        ErrorKind, ExecRef, FileChunk, FileFault, FileInfo, FileKind, FilePage, Happened, Location, WriteOptions,
    },
    error::{Error, Result, clip, shown},
    execs::{Exit, check_extra, check_max},
    filecmd, ids,
    json::{Value, object},
    provider::Provider,
    signal::MARKER,
};

/// Where Modal puts the helper.
const TOOL: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Longest path, in bytes; Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Largest piece of one write, as for stdin.
const MAX_WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Largest answer other than file content, in bytes: a listing of some hundred thousand entries.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Most that is read of what a failed program complains about, in bytes.
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// Most entries of one page; the interface documents it.
const MAX_ENTRIES: u32 = 10_000;

/// Links that are followed one after the other; as many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// How long a program may take to end once its output has.
const END_WAIT: Duration = Duration::from_secs(600);

/// Bits of a mode that are permissions.
const PERMISSION_BITS: u32 = 0o7777;

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
        self.read_transfer(at, transfer, tool_argv("ReadFile", &at.path), offset, max_bytes).await
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
        check_extra(&options.extra)?;
        options.permissions.map_or(Ok(()), filecmd::check_permissions)?;
        let argv = filecmd::writer(at, options, transfer).unwrap_or_else(|| tool_argv("WriteFile", &at.path));
        self.write_transfer(at, transfer, argv, offset, data, eof).await
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
        check_transfer(transfer)?;
        let max = check_max(max_bytes)?;
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
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        check_transfer(transfer)?;
        if data.len() > MAX_WRITE_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are too many for one piece of a file: send at most {MAX_WRITE_BYTES} at a time.",
                data.len()
            )));
        }
        self.begin(at, transfer, argv).await?;
        let end = offset + data.len() as u64;
        let state = self
            .write_much_stdin(&at.sandbox, &ids::wire_uuid(transfer), offset, data.into(), eof)
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
        let answer = self.answer(at, tool_argv("ListFiles", &at.path)).await?;
        let entries = parse(&answer, |value| match value {
            Value::List(entries) => entries.iter().map(entry).collect::<Option<Vec<FileInfo>>>(),
            _ => None,
        })?;
        // The cursor is the last name given: entries are sorted by name.
        let mut rest = entries.into_iter().filter(|entry| cursor.as_ref().is_none_or(|last| entry.name > *last));
        let items: Vec<FileInfo> = rest.by_ref().take(max.min(MAX_ENTRIES) as usize).collect();
        let next = rest.next().and_then(|_| items.last().map(|entry| entry.name.clone()));
        Ok(FilePage { items, next })
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
        check_location(at)?;
        let transfer = self.new_uuid();
        self.begin(at, &transfer, argv).await?;
        let exec = exec_ref(at, &transfer);
        let mut follow = self.take_follow(&exec, 0, 0);
        let mut answer = Vec::new();
        while !follow.is_ended() {
            poll_fn(|cx| follow.poll_fill(cx, 1)).await.map_err(uncertain)?;
            answer.extend(follow.take(usize::MAX));
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    format!("{} has more entries than can be listed at once: list it by a command.", at.path),
                )
                .about(&at.path));
            }
        }
        self.finish(at, &transfer).await?;
        Ok(answer)
    }

    /// Starts the program of a transfer, once.
    pub(crate) async fn begin(&self, at: &Location, transfer: &str, argv: Vec<String>) -> Result<()> {
        let key = (at.sandbox.clone(), transfer.to_string());
        if self.inner.state.borrow().started.get(&key).is_some() {
            return Ok(());
        }
        let exec_id = ids::wire_uuid(transfer);
        let env = [(MARKER.to_string(), exec_id.clone()), ("LC_ALL".to_string(), "C".to_string())];
        let request = TaskExecStartRequest {
            exec_id,
            container_id: self.container_id(&at.sandbox, at.container.as_deref()).await?,
            command_args: argv,
            stdout_config: TaskExecStdoutConfig::Pipe.into(),
            stderr_config: TaskExecStderrConfig::Pipe.into(),
            secret_sources: vec![SecretSource { source: Some(Source::Env(StringMap { contents: env.into() })) }],
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
            None => {
                let message = format!("The file operation on {} did not end.", at.path);
                return Err(Error::new(ErrorKind::TimedOut, message).with_happened(Happened::Unknown).about(&at.path));
            }
        };
        let exec = exec_ref(at, transfer);
        let mut follow = self.take_follow(&exec, 1, 0);
        let mut complaint = Vec::new();
        while !follow.is_ended() && complaint.len() < MAX_COMPLAINT_BYTES {
            poll_fn(|cx| follow.poll_fill(cx, 1)).await.map_err(uncertain)?;
            complaint.extend(follow.take(MAX_COMPLAINT_BYTES));
        }
        let complaint = String::from_utf8_lossy(&complaint);
        if filecmd::is_harmless(code, &complaint) { Ok(()) } else { Err(complained(&at.path, code, &complaint)) }
    }
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
    Some(FileInfo {
        kind: match value.get("type").text()? {
            "file" => FileKind::File,
            "directory" => FileKind::Directory,
            "symlink" => FileKind::Symlink(text("symlink_target").unwrap_or_default()),
            other => FileKind::Other(other.to_string()),
        },
        name: text("name")?,
        path: text("path")?,
        size: value.get("size").whole().unwrap_or(0),
        mode: value.get("mode").whole::<u32>()? & PERMISSION_BITS,
        owner: text("owner")?,
        group: text("group")?,
        modified: value.get("modified_time").thousandths().unwrap_or(0),
    })
}

fn parse<T>(answer: &[u8], read: impl FnOnce(&Value) -> Option<T>) -> Result<T> {
    let value = std::str::from_utf8(answer).ok().and_then(Value::parse);
    value
        .and_then(|value| read(&value))
        .ok_or_else(|| Error::internal("The sandbox's file helper answered with something unreadable."))
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
        let fault = filecmd::fault(&text);
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

pub(crate) fn check_transfer(transfer: &str) -> Result<()> {
    ids::check_chosen("a transfer id", transfer)?;
    if transfer == ids::MAIN {
        return Err(Error::invalid("`main` is the entry-point command: choose another transfer id, such as a UUID."));
    }
    Ok(())
}

pub(crate) fn check_location(at: &Location) -> Result<()> {
    ids::check_sandbox(&at.sandbox)?;
    check_path(&at.path)
}

pub(crate) fn check_path(path: &str) -> Result<()> {
    let fault = if !path.starts_with('/') {
        "is not absolute: begin it with `/`"
    } else if path.contains('\0') {
        "contains a NUL character"
    } else if path.len() > MAX_PATH_BYTES {
        "is longer than 4096 bytes"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("The path `{}` {fault}.", shown(&clip(path)))).about(path))
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
    fn bad_paths_are_refused() {
        let location = |path: &str| Location { sandbox: "sb-x".into(), container: None, path: path.into() };
        assert!(check_location(&location("/a b/ü")).is_ok());
        for bad in ["", "a", "./a", "/a\0b", &format!("/{}", "x".repeat(4096))] {
            assert!(check_location(&location(bad)).is_err(), "{bad:.20}");
        }
    }
}

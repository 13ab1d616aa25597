//! Files. Modal has no file calls: each operation is an exec of a helper that it puts into every sandbox, with one JSON
//! argument (fact sheet, section 8.1).
//!
//! A transfer id is the exec id of the helper that does the transfer. Starting an exec twice does nothing, and its output
//! can be read from any offset, so any instance can carry a transfer on, and all pieces come from one opened file.

use std::{future::poll_fn, time::Duration};

use modal_proto::{
    client::{SecretSource, StringMap, secret_source::Source},
    task_command_router::{TaskExecStartRequest, TaskExecStderrConfig, TaskExecStdoutConfig},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    bindings::{
        ErrorKind, ExecRef, FileChunk, FileFault, FileInfo, FileKind, FilePage, Happened, Location, WriteMode,
        WriteOptions,
    },
    error::{Error, Result, clip},
    execs::{Exit, check_extra, check_max},
    ids,
    provider::Provider,
};

/// Where Modal puts the helper.
const TOOL: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Longest path, in bytes; Linux's PATH_MAX.
const MAX_PATH_BYTES: usize = 4096;

/// Largest piece of one write, as for stdin.
const MAX_WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Largest answer of the helper other than file content, in bytes: a listing of some hundred thousand entries.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// How long the helper may take to end once its output has.
const END_WAIT: Duration = Duration::from_secs(600);

/// Bits of a mode that are permissions.
const PERMISSION_BITS: u32 = 0o7777;

impl Provider {
    /// See `read-file` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        check_location(at)?;
        ids::check_chosen("a transfer id", transfer)?;
        let max = check_max(max_bytes)?;
        self.begin(at, transfer, &json!({"ReadFile": {"path": at.path}})).await?;
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
        ids::check_chosen("a transfer id", transfer)?;
        check_extra(&options.extra)?;
        if !matches!(options.mode, WriteMode::Replace) {
            return Err(Error::unsupported("files.append", "This version only replaces files as a whole."));
        }
        if options.permissions.is_some() {
            return Err(Error::unsupported("files.mode", "This version cannot set the permissions of a file."));
        }
        if data.len() > MAX_WRITE_BYTES {
            return Err(Error::invalid(format!(
                "{} bytes are too many for one piece of a file: send at most {MAX_WRITE_BYTES} at a time.",
                data.len()
            )));
        }
        self.begin(at, transfer, &json!({"WriteFile": {"path": at.path}})).await?;
        let end = offset + data.len() as u64;
        let state = self.write_stdin(&at.sandbox, &ids::wire_uuid(transfer), offset, data.into(), eof).await?;
        // A helper that does not read on has failed, or had everything already.
        if eof || state.closed {
            self.finish(at, transfer).await?;
            return Ok(end);
        }
        Ok(state.accepted)
    }

    /// See `stat` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn stat(&self, at: &Location) -> Result<FileInfo> {
        let answer = self.tool(at, &json!({"Stat": {"path": at.path}})).await?;
        let entry: Entry = parse(&answer)?;
        Ok(entry.into())
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
        let answer = self.tool(at, &json!({"ListFiles": {"path": at.path}})).await?;
        let entries: Vec<Entry> = parse(&answer)?;
        // The cursor is the last name given: entries are sorted by name.
        let mut rest = entries.into_iter().filter(|entry| cursor.as_ref().is_none_or(|last| entry.name > *last));
        let items: Vec<FileInfo> = rest.by_ref().take(max as usize).map(FileInfo::from).collect();
        let next = rest.next().and_then(|_| items.last().map(|entry| entry.name.clone()));
        Ok(FilePage { items, next })
    }

    /// See `make-directory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn make_directory(&self, at: &Location, parents: bool) -> Result<()> {
        self.tool(at, &json!({"MakeDirectory": {"path": at.path, "parents": parents}})).await.map(drop)
    }

    /// See `remove` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn remove(&self, at: &Location, recursive: bool) -> Result<()> {
        self.tool(at, &json!({"Remove": {"path": at.path, "recursive": recursive}})).await.map(drop)
    }

    /// Runs the helper and gives its output.
    async fn tool(&self, at: &Location, argument: &Value) -> Result<Vec<u8>> {
        check_location(at)?;
        let transfer = self.new_uuid();
        self.begin(at, &transfer, argument).await?;
        let exec = exec_ref(at, &transfer);
        let mut follow = self.take_follow(&exec, 0, 0);
        let mut answer = Vec::new();
        while !follow.is_ended() {
            poll_fn(|cx| follow.poll_fill(cx, 1)).await?;
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

    /// Starts the helper, once per transfer.
    async fn begin(&self, at: &Location, transfer: &str, argument: &Value) -> Result<()> {
        let key = (at.sandbox.clone(), transfer.to_string());
        if self.inner.state.borrow().started.get(&key).is_some() {
            return Ok(());
        }
        let exec_id = ids::wire_uuid(transfer);
        let request = TaskExecStartRequest {
            exec_id: exec_id.clone(),
            command_args: vec![TOOL.to_string(), argument.to_string()],
            stdout_config: TaskExecStdoutConfig::Pipe.into(),
            stderr_config: TaskExecStderrConfig::Pipe.into(),
            secret_sources: vec![SecretSource {
                source: Some(Source::Env(StringMap { contents: [("SANDBOX_EXEC_ID".to_string(), exec_id)].into() })),
            }],
            ..Default::default()
        };
        self.start_exec(&at.sandbox, request).await?;
        self.inner.state.borrow_mut().started.insert(key, ());
        Ok(())
    }

    /// Waits for the helper's end and reads what it complains about.
    async fn finish(&self, at: &Location, transfer: &str) -> Result<()> {
        let exit = self.wait_exit(&at.sandbox, &ids::wire_uuid(transfer), END_WAIT).await?;
        let code = match exit {
            Some(Exit::Code(0)) => return Ok(()),
            Some(Exit::Code(code)) => code,
            Some(Exit::Signal(signal)) => 128 + signal,
            None => {
                return Err(Error {
                    happened: Happened::Unknown,
                    ..Error::new(ErrorKind::TimedOut, format!("The file operation on {} did not end.", at.path))
                }
                .about(&at.path));
            }
        };
        let exec = exec_ref(at, transfer);
        let mut follow = self.take_follow(&exec, 1, 0);
        let mut complaint = Vec::new();
        while !follow.is_ended() && complaint.len() < 64 * 1024 {
            poll_fn(|cx| follow.poll_fill(cx, 1)).await?;
            complaint.extend(follow.take(usize::MAX));
        }
        Err(tool_error(&at.path, code, &complaint))
    }
}

/// A directory entry as the helper prints it.
#[derive(Deserialize)]
struct Entry {
    name: String,
    path: String,
    #[serde(rename = "type")]
    kind: String,
    size: i64,
    mode: u32,
    owner: String,
    group: String,
    modified_time: f64,
    symlink_target: Option<String>,
}

impl From<Entry> for FileInfo {
    fn from(entry: Entry) -> FileInfo {
        FileInfo {
            kind: match (entry.kind.as_str(), entry.symlink_target) {
                ("file", _) => FileKind::File,
                ("directory", _) => FileKind::Directory,
                ("symlink", target) => FileKind::Symlink(target.unwrap_or_default()),
                (other, _) => FileKind::Other(other.to_string()),
            },
            name: entry.name,
            path: entry.path,
            size: u64::try_from(entry.size).unwrap_or(0),
            mode: entry.mode & PERMISSION_BITS,
            owner: entry.owner,
            group: entry.group,
            modified: Duration::try_from_secs_f64(entry.modified_time).map(crate::execs::millis).unwrap_or(0),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T> {
    serde_json::from_slice(answer).map_err(|error| {
        Error::internal(format!("The sandbox's file helper answered with something unreadable: {error}."))
    })
}

/// What the helper's complaint means (fact sheet, section 8.1).
fn tool_error(path: &str, code: i32, complaint: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct Complaint {
        error_kind: String,
        message: String,
        detail: Option<String>,
    }
    let Ok(complaint) = serde_json::from_slice::<Complaint>(complaint) else {
        let text = clip(String::from_utf8_lossy(complaint).trim());
        if matches!(code, 126 | 127) {
            return Error::unsupported(
                "files",
                format!("The sandbox has no file helper at {TOOL} (exit code {code}). {text}"),
            );
        }
        return Error::internal(format!("The file operation on {path} failed with exit code {code}. {text}"))
            .about(path);
    };
    let detail = complaint.detail.filter(|detail| !detail.is_empty()).map(|detail| format!(" ({detail})"));
    let text = clip(&format!("{}{}", complaint.message, detail.unwrap_or_default()));
    let no_space = text.contains("No space left") || text.contains("os error 28");
    let (fault, words) = match complaint.error_kind.as_str() {
        "NotFound" => (FileFault::NotFound, "there is no such file or directory"),
        "IsDirectory" => (FileFault::IsADirectory, "it is a directory"),
        "IsFile" | "NotDirectory" => (FileFault::NotADirectory, "it, or a parent, is not a directory"),
        "AlreadyExists" => (FileFault::NotADirectory, "a parent is a file"),
        "PathAlreadyExists" => (FileFault::AlreadyExists, "something is there already"),
        "DirectoryNotEmpty" => (FileFault::NotEmpty, "the directory is not empty"),
        "PermissionDenied" => (FileFault::PermissionDenied, "permission denied"),
        "FileTooLarge" => (FileFault::TooLarge, "the file is too large to be transferred"),
        _ if no_space => (FileFault::NoSpace, "the sandbox's disk is full"),
        other => (FileFault::Other(other.to_string()), "the operation failed"),
    };
    Error {
        provider_code: Some(format!("fs:{}", complaint.error_kind)),
        provider_message: Some(text.clone()),
        ..Error::file(fault, path, format!("{path}: {words}: {text}"))
    }
}

fn exec_ref(at: &Location, transfer: &str) -> ExecRef {
    ExecRef { sandbox: at.sandbox.clone(), exec: transfer.to_string(), deadline: None }
}

fn check_location(at: &Location) -> Result<()> {
    ids::check_sandbox(&at.sandbox)?;
    let path = &at.path;
    let fault = if !path.starts_with('/') {
        "is not absolute: begin it with `/`"
    } else if path.contains('\0') {
        "contains a NUL character"
    } else if path.len() > MAX_PATH_BYTES {
        "is longer than 4096 bytes"
    } else {
        if at.container.is_some() {
            return Err(Error::unsupported("sidecars", "This version knows no sidecars: leave the container out."));
        }
        return Ok(());
    };
    Err(Error::invalid(format!("The path `{}` {fault}.", clip(path).escape_debug())).about(path))
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
            let error = tool_error("/x", 1, complaint.as_bytes());
            let ErrorKind::File(found) = &error.kind else { panic!("{error:?}") };
            assert_eq!(format!("{found:?}"), format!("{fault:?}"));
        }
        let full = br#"{"version":1,"error_kind":"Io","message":"write: No space left on device"}"#;
        assert!(matches!(tool_error("/x", 1, full).kind, ErrorKind::File(FileFault::NoSpace)));
        assert!(matches!(tool_error("/x", 127, b"sh: not found").kind, ErrorKind::Unsupported));
        assert!(matches!(tool_error("/x", 1, b"\xff\xfe").kind, ErrorKind::Internal));
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

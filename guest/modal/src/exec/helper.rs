//! Runs the provider's own programs in a sandbox. The most important one is Modal's helper, which Modal puts into every
//! sandbox. It does file operations, with one JSON argument each (docs/modal-protocol.md, section 8.1).
//!
//! A transfer id is the exec id of the program that does the transfer. A repeated start of an exec does nothing, and
//! its output can be read from any offset. So any instance can continue a transfer, and all its pieces come from one
//! opened file.

use std::{cell::RefCell, future::poll_fn, time::Duration};

use modal_proto::{
    client::{SecretSource, StringMap, secret_source::Source},
    task_command_router::{TaskExecStartRequest, TaskExecStderrConfig, TaskExecStdoutConfig},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::clip,
        ids,
        wit::{ErrorKind, ExecRef, FileFault, FileInfo, FileKind, Happened, Location},
    },
    call::json::{Value, object},
    inside::{files, script::environment, signal::MARKER},
    memo::Memo,
    platform::{LocalFuture, within},
};

use super::{
    output::{Follow, Outputs},
    placed::ShellPlaces,
    process::{self, Exit},
};
use crate::service::{Service, container, id};

/// The path of Modal's helper in a sandbox.
pub(crate) const TOOL: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Largest output of a program, in bytes, except file contents and listings.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// Maximum number of bytes that are read from the standard error of a failed program.
const MAX_COMPLAINT_BYTES: usize = 64 * 1024;

/// Maximum number of symbolic links in a row, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Time within which a program must end after the end of its output.
pub(crate) const END_WAIT: Duration = Duration::from_secs(600);

/// The permission bits of a mode, and the bits of the file type.
const PERMISSION_BITS: u32 = 0o7777;
const FORMAT_BITS: u32 = 0o170_000;

/// Returns the helper's argv for an operation on a path.
pub(crate) fn tool_argv(operation: &str, path: &str) -> Vec<String> {
    tool(operation, object([("path", path.into())]))
}

/// Returns the helper's argv for an operation and its argument.
pub(crate) fn tool(operation: &str, argument: Value) -> Vec<String> {
    vec![TOOL.to_string(), object([(operation, argument)]).to_string()]
}

/// Runs the provider's own programs.
pub struct Helper {
    outputs: Outputs,
    places: ShellPlaces,
    /// The transfers that this instance started, by sandbox and id.
    started: RefCell<Memo<(String, String), ()>>,
}

impl Helper {
    /// Makes a helper that reads the output of its programs from `outputs`.
    #[must_use]
    pub fn new(outputs: Outputs) -> Helper {
        Helper { outputs, places: ShellPlaces::default(), started: RefCell::default() }
    }

    pub(crate) fn service(&self) -> &Service {
        self.outputs.service()
    }

    pub(crate) fn outputs(&self) -> &Outputs {
        &self.outputs
    }

    pub(crate) fn places(&self) -> &ShellPlaces {
        &self.places
    }

    /// Implements `stat` of the interface. Describes a path.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for wrong arguments, `file` with the cause if the operation fails, `sandbox-ended` if the
    /// sandbox has ended; otherwise the error of the failed request.
    pub async fn stat(&self, at: &Location, follow: bool) -> Result<FileInfo> {
        check_location(at)?;
        let mut place = at.clone();
        for _ in 0..=MAX_LINKS {
            let info = parse(&self.answer(&place, tool_argv("Stat", &place.path)).await?, entry)?;
            let FileKind::Symlink(target) = &info.kind else {
                if place.path == at.path {
                    return Ok(info);
                }
                // The result describes the path that was asked for, wherever its links lead.
                let name = at.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_string();
                return Ok(FileInfo { name, path: at.path.clone(), ..info });
            };
            if !follow {
                return Ok(info);
            }
            // The kernel resolves the rest of the path: parents that are links, and `..` after them.
            place.path = match place.path.trim_end_matches('/').rsplit_once('/') {
                Some((parent, _)) if !target.starts_with('/') => format!("{parent}/{target}"),
                _ => target.clone(),
            };
        }
        let fault = FileFault::Other("too many links".to_string());
        Err(Error::file(fault, &at.path, format!("{}: too many levels of symbolic links", at.path)))
    }

    /// Runs a program to its end and returns its standard output.
    pub(crate) async fn answer(&self, at: &Location, argv: Vec<String>) -> Result<Vec<u8>> {
        self.answer_in(at, argv, true).await
    }

    /// Like [`Helper::answer`]. With `clean`, the program does not get variables of the container that could change its
    /// behaviour.
    pub(crate) async fn answer_in(&self, at: &Location, argv: Vec<String>, clean: bool) -> Result<Vec<u8>> {
        check_location(at)?;
        let transfer = self.service().new_uuid();
        self.begin_in(at, &transfer, argv, clean).await?;
        let exec = exec_ref(at, &transfer);
        let mut follow = self.outputs.take(&exec, 0, 0);
        let mut answer = Vec::new();
        let until = self.service().now() + END_WAIT;
        while !follow.is_ended() {
            self.fill(at, &mut follow, until).await?;
            answer.extend(follow.take(usize::MAX));
            if answer.len() > MAX_ANSWER_BYTES {
                return Err(Error::new(
                    ErrorKind::ResourceExhausted,
                    format!("The response about {} is too long.", at.path),
                )
                .about(&at.path));
            }
        }
        self.finish(at, &transfer).await?;
        Ok(answer)
    }

    /// Waits until `until` for more output of a program.
    pub(crate) fn fill<'a>(
        &'a self,
        at: &'a Location,
        follow: &'a mut Follow,
        until: Duration,
    ) -> LocalFuture<'a, Result<()>> {
        Box::pin(async move {
            let filled = poll_fn(|cx| follow.poll_fill(cx, 1));
            match within(self.service().transport(), until.saturating_sub(self.service().now()), filled).await {
                Some(filled) => filled.map_err(uncertain),
                None => Err(late(&at.path).with_happened(Happened::Unknown)),
            }
        })
    }

    /// Starts the program of a transfer, unless this instance has started it before.
    pub(crate) async fn begin(&self, at: &Location, transfer: &str, argv: Vec<String>) -> Result<()> {
        self.begin_in(at, transfer, argv, true).await
    }

    async fn begin_in(&self, at: &Location, transfer: &str, argv: Vec<String>, clean: bool) -> Result<()> {
        let key = (at.sandbox.clone(), transfer.to_string());
        if self.started.borrow().get(&key).is_some() {
            return Ok(());
        }
        let exec_id = ids::wire_uuid(transfer);
        let own = clean.then(environment).into_iter().flatten();
        let env = StringMap { contents: own.chain([(MARKER.to_string(), exec_id.clone())]).collect() };
        let request = TaskExecStartRequest {
            exec_id,
            container_id: container::id(&self.service().router, &at.sandbox, at.container.as_deref()).await?,
            command_args: self.places.placed(&at.sandbox, at.container.as_deref(), argv),
            stdout_config: TaskExecStdoutConfig::Pipe.into(),
            stderr_config: TaskExecStderrConfig::Pipe.into(),
            secret_sources: vec![SecretSource { source: Some(Source::Env(env)) }],
            ..Default::default()
        };
        process::start(self.service(), &at.sandbox, request).await?;
        self.started.borrow_mut().insert(key, ());
        Ok(())
    }

    /// Waits for the end of a program. If it failed, converts its standard error to an error.
    pub(crate) async fn finish(&self, at: &Location, transfer: &str) -> Result<()> {
        let exit = process::wait_exit(self.service(), &at.sandbox, &ids::wire_uuid(transfer), END_WAIT)
            .await
            .map_err(uncertain)?;
        let code = match exit {
            Some(Exit::Code(0)) => return Ok(()),
            Some(Exit::Code(code)) => code,
            Some(Exit::Signal(signal)) => 128 + signal,
            None => return Err(late(&at.path).with_happened(Happened::Unknown)),
        };
        let exec = exec_ref(at, transfer);
        let mut follow = self.outputs.take(&exec, 1, 0);
        let mut complaint = Vec::new();
        let until = self.service().now() + END_WAIT;
        while !follow.is_ended() && complaint.len() < MAX_COMPLAINT_BYTES {
            self.fill(at, &mut follow, until).await?;
            complaint.extend(follow.take(MAX_COMPLAINT_BYTES));
        }
        let complaint = String::from_utf8_lossy(&complaint);
        if files::is_harmless(code, &complaint) { Ok(()) } else { Err(complained(&at.path, code, &complaint)) }
    }
}

/// Makes the error for an operation that did not end in time.
pub(crate) fn late(path: &str) -> Error {
    Error::new(ErrorKind::TimedOut, format!("The file operation on {path} did not finish in time.")).about(path)
}

/// Marks an error that occurred after the start of the program: only the program itself can say whether the operation
/// was done.
pub(crate) fn uncertain(error: Error) -> Error {
    match error.happened {
        Happened::No => error.with_happened(Happened::Unknown),
        _ => error,
    }
}

/// A directory entry as the helper prints it.
pub(crate) fn entry(value: &Value) -> Option<FileInfo> {
    let text = |name: &str| value.get(name).text().map(str::to_string);
    let mode = value.get("mode").whole::<u32>()?;
    // The helper reports everything as a file that is neither a directory nor a link.
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

pub(crate) fn parse<T>(answer: &[u8], read: impl FnOnce(&Value) -> Option<T>) -> Result<T> {
    let value = std::str::from_utf8(answer).ok().and_then(Value::parse);
    value.and_then(|value| read(&value)).ok_or_else(unreadable)
}

pub(crate) fn unreadable() -> Error {
    Error::internal("The response of the sandbox's file helper is malformed.")
}

/// Converts the standard error of a failed program to an error. The helper prints objects (docs/modal-protocol.md,
/// section 8.1), other programs print lines.
fn complained(path: &str, code: i32, complaint: &str) -> Error {
    let object = Value::parse(complaint).unwrap_or(Value::Null);
    let (Some(kind), Some(message)) = (object.get("error_kind").text(), object.get("message").text()) else {
        let text = clip(complaint.trim());
        if matches!(code, 126 | 127) {
            return Error::unsupported(
                "files",
                format!("The program for this operation could not run in the sandbox (exit code {code}). {text}"),
            );
        }
        let fault = files::fault(&text);
        let message = described(path, &fault, &text);
        return Error::file(fault, path, message).with_provider(Some(format!("exit:{code}")), None);
    };
    let detail = object.get("detail").text().filter(|detail| !detail.is_empty()).map(|detail| format!(" ({detail})"));
    let text = clip(&format!("{message}{}", detail.unwrap_or_default()));
    let fault = match kind {
        "NotFound" => FileFault::NotFound,
        "IsDirectory" => FileFault::IsADirectory,
        // The last one means that a parent directory is a file.
        "IsFile" | "NotDirectory" | "AlreadyExists" => FileFault::NotADirectory,
        "PathAlreadyExists" => FileFault::AlreadyExists,
        "DirectoryNotEmpty" => FileFault::NotEmpty,
        "PermissionDenied" => FileFault::PermissionDenied,
        "FileTooLarge" => FileFault::TooLarge,
        _ if text.contains("No space left") || text.contains("os error 28") => FileFault::NoSpace,
        other => FileFault::Other(other.to_string()),
    };
    let message = described(path, &fault, &text);
    Error::file(fault, path, message).with_provider(Some(format!("fs:{kind}")), Some(text))
}

/// Joins the path, the fault and the text of a program, which often contains both.
fn described(path: &str, fault: &FileFault, text: &str) -> String {
    let words = words(fault);
    match text.strip_prefix(path).and_then(|rest| rest.strip_prefix(": ")) {
        Some(rest) => {
            let said = rest.split(" (").next().unwrap_or_default();
            let new = if words.ends_with(said) { rest[said.len()..].to_string() } else { format!(": {rest}") };
            format!("{path}: {words}{new}")
        }
        // Any text contains the path `/` or one as short.
        None if path.len() > 2 && text.contains(path) => format!("{words}: {text}"),
        None => format!("{path}: {words}: {text}"),
    }
}

fn words(fault: &FileFault) -> &'static str {
    match fault {
        FileFault::NotFound => "no such file or directory",
        FileFault::IsADirectory => "it is a directory",
        FileFault::NotADirectory => "the path or one of its parents is not a directory",
        FileFault::AlreadyExists => "it already exists",
        FileFault::NotEmpty => "the directory is not empty",
        FileFault::PermissionDenied => "permission denied",
        FileFault::TooLarge => "the file is too large to transfer",
        FileFault::NoSpace => "the sandbox's disk is full",
        FileFault::Other(_) => "the operation failed",
    }
}

/// Returns the exec of a transfer.
pub(crate) fn exec_ref(at: &Location, transfer: &str) -> ExecRef {
    ExecRef { sandbox: at.sandbox.clone(), exec: transfer.to_string(), deadline: None, container: at.container.clone() }
}

/// Checks a sandbox id and a path, and that no user is given.
pub(crate) fn check_location(at: &Location) -> Result<()> {
    id::check_sandbox(&at.sandbox)?;
    check::absent(at.user.is_some(), "files.user")?;
    check::path(&at.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_path_once() {
        let message = |path: &str, complaint: &str| complained(path, 1, complaint).message.clone();
        let said = r#"{"error_kind":"NotFound","message":"/x/y: no such file or directory","detail":"os error 2"}"#;
        assert_eq!(message("/x/y", said), "/x/y: no such file or directory (os error 2)");
        let said = r#"{"error_kind":"IsDirectory","message":"/x/y: is a directory"}"#;
        assert_eq!(message("/x/y", said), "/x/y: it is a directory");
        let said = r#"{"error_kind":"IsDirectory","message":"/x/y: cannot be read"}"#;
        assert_eq!(message("/x/y", said), "/x/y: it is a directory: cannot be read");
        assert_eq!(message("/x/y", "mv: /x/y: File exists"), "it already exists: mv: /x/y: File exists");
        assert_eq!(message("/", "rm: /a: Permission denied"), "/: permission denied: rm: /a: Permission denied");
        let said = "No such file or directory";
        assert_eq!(message("/x/y", said), format!("/x/y: no such file or directory: {said}"));
    }

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
}

//! Failures in three parts (what failed, why, and what to do), their kinds for programs, and the exit codes.

use std::fmt;

use sandbox_host::{FileFault, Kind};

/// Exit code for failures of this program itself.
pub const FAILED: i32 = 125;

/// Exit code if the time limit of the command has expired.
pub const DEADLINE: i32 = 124;

/// Exit code if the command was killed because the reader of standard output is gone: the value that a shell reports for
/// SIGPIPE.
pub const UNREAD: i32 = 128 + 13;

/// Exit code after Ctrl-C.
pub const INTERRUPTED: i32 = 130;

/// A failure of this program: what failed, why, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: String,
    hint: Option<String>,
    kind: String,
}

impl Failure {
    /// Creates a failure of the kind `usage`. `what` is a phrase that continues "cannot …".
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure { what: what.into(), why: why.into(), hint: None, kind: "usage".into() }
    }

    /// Creates a failure from a local I/O error.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let kind = Kind::Io(error.kind()).code().into_owned();
        Failure { kind, ..Failure::new(what, sandbox_host::local_reason(error)) }
    }

    /// Converts an error of the library, so that its hint can be replaced by a more specific one.
    pub fn of(error: &sandbox_host::Error) -> Self {
        let (what, why, hint) = error.parts();
        Failure {
            what: what.into(),
            why: why.into(),
            hint: hint.map(str::to_owned),
            kind: error.kind().code().into_owned(),
        }
    }

    /// Replaces the reason.
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// Sets the hint, which tells the user what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.why)
    }
}

impl std::error::Error for Failure {}

/// Returns what failed, why, and a hint if there is one.
pub fn parts(error: &anyhow::Error) -> (String, String, Option<String>) {
    if let Some(error) = error.downcast_ref::<sandbox_host::Error>() {
        let (what, why, hint) = error.parts();
        let why = match error.provider_code() {
            Some(code) => format!("{why}\n[{code}]"),
            None => why.to_owned(),
        };
        let hint = limit_advice(error).or(hint).or_else(|| advice(error));
        return (what.to_owned(), why, hint.map(str::to_owned));
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return (failure.what.clone(), failure.why.clone(), failure.hint.clone());
    }
    let mut chain = error.chain();
    let first = chain.next().map(ToString::to_string).unwrap_or_default();
    let rest: Vec<_> = chain.map(ToString::to_string).collect();
    if rest.is_empty() { ("continue".into(), first, None) } else { (first, rest.join(": "), None) }
}

/// Formats a failure in one line.
pub fn in_one_line(error: &anyhow::Error) -> String {
    // The text of the library's errors includes the text of their causes.
    match error.downcast_ref::<sandbox_host::Error>() {
        Some(error) => error.to_string(),
        None => format!("{error:#}"),
    }
}

/// Returns the kind of a failure as a word for programs. Some kinds have a second part, such as `file:not-found`.
pub fn kind(error: &anyhow::Error) -> String {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.kind.clone();
    }
    error
        .downcast_ref::<sandbox_host::Error>()
        .map_or_else(|| "internal".into(), |error| error.kind().code().into_owned())
}

/// Returns the hint for an exceeded limit of the host. The library's own hint names its setting; this one names the
/// setting in a policy file.
fn limit_advice(error: &sandbox_host::Error) -> Option<&'static str> {
    Some(match error.limit()? {
        "body_bytes" => "to permit larger bodies, raise `body_mib` in the limits of the policy",
        _ => return None,
    })
}

/// Returns a hint by the kind of the error, for errors without their own hint.
fn advice(error: &sandbox_host::Error) -> Option<&'static str> {
    Some(match error.kind() {
        Kind::NotFound if error.is_about_sandbox() => {
            "`sandbox-host list` shows the running sandboxes, `sandbox-host list --all` all of them"
        }
        // Without a code of the service: the plugin itself refused the id. The service refuses other arguments.
        Kind::InvalidArgument if error.is_about_sandbox() && error.provider_code().is_none() => {
            "`sandbox-host list` shows the ids of sandboxes"
        }
        Kind::AlreadyExists => "choose another name, or terminate the sandbox that has it",
        Kind::File(FileFault::NotFound) => "`sandbox-host ls ID:/DIRECTORY` shows the existing files",
        Kind::File(FileFault::NotEmpty) => "use -r",
        Kind::PermissionDenied => "use credentials that permit this",
        Kind::ResourceExhausted | Kind::TimedOut => "try again later",
        Kind::Unavailable => "try again; `sandbox-host doctor` checks the connection",
        Kind::Unsupported => "`sandbox-host plugin inspect` lists the capabilities of this provider",
        Kind::BuildFailed => "correct the failed line, and build again",
        Kind::Internal => "try again; -vv prints more diagnostics",
        _ => return None,
    })
}

/// Returns whether the same call may succeed later.
pub fn retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sandbox_host::Error>().is_some_and(sandbox_host::Error::is_retryable)
}

/// Returns whether the failure is that the reader of standard output is gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // An error of the library may be caused by a broken pipe elsewhere.
    error.chain().take_while(|cause| !cause.is::<sandbox_host::Error>()).any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe && error.get_ref().is_none())
    })
}

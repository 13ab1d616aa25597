//! Failures: what, why and what to do, the kind for programs, and the exit codes.

use std::fmt;

use sandbox_host::{FileFault, Kind};

/// Our own failures.
pub const FAILED: i32 = 125;

/// The command's time limit ran out.
pub const DEADLINE: i32 = 124;

/// The command was killed because our output was not read any more: what a shell says of SIGPIPE.
pub const UNREAD: i32 = 128 + 13;

/// Ctrl-C.
pub const INTERRUPTED: i32 = 130;

/// A failure of this program: what, why, and what to do.
#[derive(Debug)]
pub struct Failure {
    what: String,
    why: String,
    hint: Option<String>,
    kind: String,
}

impl Failure {
    /// `what` continues "cannot …".
    pub fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Failure { what: what.into(), why: why.into(), hint: None, kind: "usage".into() }
    }

    /// Reading or writing on this side failed.
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let kind = Kind::Io(error.kind()).code().into_owned();
        Failure { kind, ..Failure::new(what, sandbox_host::local_reason(error)) }
    }

    /// The same failure, of whose hint the program knows more than the library.
    pub fn of(error: &sandbox_host::Error) -> Self {
        let (what, why, hint) = error.parts();
        Failure {
            what: what.into(),
            why: why.into(),
            hint: hint.map(str::to_owned),
            kind: error.kind().code().into_owned(),
        }
    }

    /// A better reason.
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    /// What to do.
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
    if rest.is_empty() { ("go on".into(), first, None) } else { (first, rest.join(": "), None) }
}

/// A failure in one line.
pub fn in_one_line(error: &anyhow::Error) -> String {
    // The text of the library's errors holds that of their causes.
    match error.downcast_ref::<sandbox_host::Error>() {
        Some(error) => error.to_string(),
        None => format!("{error:#}"),
    }
}

/// A word for each kind of failure, for programs. What has a kind within it comes with a second one: `file:not-found`.
pub fn kind(error: &anyhow::Error) -> String {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.kind.clone();
    }
    error
        .downcast_ref::<sandbox_host::Error>()
        .map_or_else(|| "internal".into(), |error| error.kind().code().into_owned())
}

/// What to do about a limit of this host: the library names its own setting, and here it is one of a policy.
fn limit_advice(error: &sandbox_host::Error) -> Option<&'static str> {
    Some(match error.limit()? {
        "body_bytes" => "if the plugin may send and receive that much, raise `body_mib` of the policy's limits",
        _ => return None,
    })
}

/// What to do, where the failure itself does not say it.
fn advice(error: &sandbox_host::Error) -> Option<&'static str> {
    Some(match error.kind() {
        Kind::NotFound if error.is_about_sandbox() => {
            "`sandbox list` shows the sandboxes that run, `sandbox list --all` the others too"
        }
        Kind::InvalidArgument if error.is_about_sandbox() => "`sandbox list` shows the ids of sandboxes",
        Kind::AlreadyExists => "choose another name, or end what has it",
        Kind::File(FileFault::NotFound) => "`sandbox ls ID:/DIRECTORY` shows what is there",
        Kind::File(FileFault::NotEmpty) => "use -r",
        Kind::PermissionDenied => "use credentials that may do this",
        Kind::ResourceExhausted | Kind::TimedOut => "try again later",
        Kind::Unavailable => "try again; `sandbox doctor` looks at what is needed",
        Kind::Unsupported => "`sandbox plugin inspect` lists what this provider can do",
        Kind::BuildFailed => "correct the line, and build again",
        Kind::Internal => "try again; -vv shows more of what happens",
        _ => return None,
    })
}

pub fn retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sandbox_host::Error>().is_some_and(sandbox_host::Error::is_retryable)
}

/// Whether the failure is that the reader of our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // An error of the library may have one of another pipe as its cause.
    error.chain().take_while(|cause| !cause.is::<sandbox_host::Error>()).any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe && error.get_ref().is_none())
    })
}

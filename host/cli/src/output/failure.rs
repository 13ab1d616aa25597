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
        let kind = format!("io:{}", kebab(&format!("{:?}", error.kind())));
        Failure { kind, ..Failure::new(what, sandbox_host::local_reason(error)) }
    }

    /// The same failure, of whose hint the program knows more than the library.
    pub fn of(error: &sandbox_host::Error) -> Self {
        let (what, why, hint) = error.parts();
        Failure { what: what.into(), why: why.into(), hint: hint.map(str::to_owned), kind: kind_of(error) }
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
        return (what.to_owned(), why, hint.or_else(|| advice(error)).map(str::to_owned));
    }
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return (failure.what.clone(), failure.why.clone(), failure.hint.clone());
    }
    let mut chain = error.chain();
    let first = chain.next().map(ToString::to_string).unwrap_or_default();
    let rest: Vec<_> = chain.map(ToString::to_string).collect();
    if rest.is_empty() { ("go on".into(), first, None) } else { (first, rest.join(": "), None) }
}

/// A word for each kind of failure, for programs. What has a kind within it comes with a second one: `file:not-found`.
pub fn kind(error: &anyhow::Error) -> String {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.kind.clone();
    }
    error.downcast_ref::<sandbox_host::Error>().map_or_else(|| "internal".into(), kind_of)
}

fn kind_of(error: &sandbox_host::Error) -> String {
    let (name, within) = match error.kind() {
        Kind::Other(name) => return name.clone(),
        Kind::File(FileFault::Other(_)) => ("File".to_owned(), Some("Other".to_owned())),
        Kind::File(fault) => ("File".to_owned(), Some(format!("{fault:?}"))),
        Kind::Plugin(fault) => ("Plugin".to_owned(), Some(format!("{fault:?}"))),
        Kind::Trap(cause) => ("Trap".to_owned(), Some(format!("{cause:?}"))),
        Kind::Io(kind) => ("Io".to_owned(), Some(format!("{kind:?}"))),
        kind => (format!("{kind:?}"), None),
    };
    within.into_iter().fold(kebab(&name), |name, within| format!("{name}:{}", kebab(&within)))
}

/// `NotFound` as `not-found`.
fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars().take_while(|c| c.is_ascii_alphanumeric()) {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// What to do, where the failure itself does not say it.
fn advice(error: &sandbox_host::Error) -> Option<&'static str> {
    let (_, why, _) = error.parts();
    Some(match error.kind() {
        Kind::NotFound if why.contains("no sandbox ") => {
            "`sandbox list` shows the sandboxes that run, `sandbox list --all` the others too"
        }
        Kind::InvalidArgument if why.contains("sandbox id") => "`sandbox list` shows the ids of sandboxes",
        Kind::AlreadyExists => "choose another name, or end what has it",
        Kind::File(FileFault::NotFound) => "`sandbox ls ID:/DIRECTORY` shows what is there",
        Kind::File(FileFault::NotEmpty) => "use -r",
        Kind::PermissionDenied => "use credentials that may do this",
        Kind::ResourceExhausted | Kind::TimedOut => "try again later",
        Kind::Unavailable => "try again; `sandbox doctor` looks at what is needed",
        Kind::BuildFailed => "correct the line, and build again",
        Kind::Internal => "try again; -vv shows more of what happens",
        _ => return None,
    })
}

pub fn retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref::<sandbox_host::Error>().is_some_and(sandbox_host::Error::is_retryable)
}

/// Whether the failure is that whoever read our output has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe && error.get_ref().is_none())
    })
}

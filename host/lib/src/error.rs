//! The one error type of this crate.
//!
//! An [`Error`] says three things: what was being done, why it did not work, and, where there is something to be done,
//! what. Programs match on [`Error::kind`] or ask the predicates; people read `Display`.

use std::fmt;
use std::time::Duration;

use crate::types;

/// The result of everything here that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The request itself is wrong.
    InvalidArgument,
    /// The provider, or this sandbox, cannot do that.
    Unsupported,
    /// Credentials are missing, wrong or expired.
    Unauthenticated,
    /// The credentials are good but do not allow this.
    PermissionDenied,
    /// The named sandbox, image, exec or file does not exist (any more).
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The object's state does not allow this now.
    Conflict,
    /// A rate limit, a quota, or no capacity; at the provider or in this host.
    ResourceExhausted,
    /// The image could not be built.
    BuildFailed,
    /// The sandbox ended while the call was under way, or before it.
    SandboxEnded,
    /// A file operation failed inside the sandbox.
    File(FileFault),
    /// No answer in time.
    TimedOut,
    /// The service could not be reached, or the connection broke.
    Unavailable,
    /// The host's policy forbids it.
    Forbidden,
    /// The service or the component failed within.
    Internal,
    /// A kind of the provider's own.
    Other(String),
    /// The component cannot be loaded.
    Plugin(PluginFault),
    /// The component was stopped, or stopped itself. Only the call it was working for is lost.
    Trap(TrapCause),
    /// Settings, profile or policy of this host are unusable.
    Config,
    /// Reading or writing on this side failed.
    Io(std::io::ErrorKind),
}

/// Why a component cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginFault {
    /// There is no such file, or it cannot be read.
    Missing,
    /// The bytes are not WebAssembly.
    NotWasm,
    /// A core module, not a component.
    CoreModule,
    /// A component that does not export the interface.
    NoInterface,
    /// It exports the interface in a version that this host does not speak.
    OtherVersion,
    /// It imports something that plugins are not given.
    Imports,
    /// It does not compile, or its manifest is unusable.
    Invalid,
}

/// Why a component was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapCause {
    /// It panicked or did something that WebAssembly forbids.
    Fault,
    /// It computed for longer than [`Limits::compute_time`](crate::Limits::compute_time).
    ComputeTime,
    /// The call took longer than [`Limits::call_time`](crate::Limits::call_time).
    CallTime,
    /// It wanted more memory or table space than the limits give.
    Memory,
}

/// What is wrong with a file operation, in POSIX terms.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// No such file or directory.
    NotFound,
    /// A file was wanted, a directory is there.
    IsADirectory,
    /// A directory was wanted, something else is there.
    NotADirectory,
    /// Something is there already.
    AlreadyExists,
    /// The directory is not empty.
    NotEmpty,
    /// The user may not do this.
    PermissionDenied,
    /// Larger than the provider can transfer.
    TooLarge,
    /// The sandbox's disk is full.
    NoSpace,
    /// Something else; the text says what.
    Other(String),
}

/// Whether the thing that was asked for took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It did not.
    No,
    /// It cannot be told.
    Unknown,
    /// It did; only the answer was lost.
    Yes,
}

/// Whether the same call can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It will fail the same way.
    Never,
    /// Perhaps.
    Maybe,
    /// Not before this time has passed.
    After(Duration),
}

/// Why a call did not give its result.
///
/// `Display` is one line: what, why, and what to do. [`Error::parts`] gives the three separately.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.line())]
pub struct Error(Box<Repr>);

#[derive(Clone, Debug)]
struct Repr {
    kind: Kind,
    what: String,
    why: String,
    hint: Option<String>,
    happened: Happened,
    retry: Retry,
    provider_code: Option<String>,
    provider_message: Option<String>,
    subject: Option<String>,
    backtrace: Option<String>,
    printed: Option<String>,
}

/// Why this machine refused something. A full disk is said to be this machine's, since a sandbox has one of its own.
pub fn local_reason(error: &std::io::Error) -> String {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull => format!("this machine's disk is full: {error}"),
        K::QuotaExceeded => format!("this machine's disk quota is used up: {error}"),
        _ => error.to_string(),
    }
}

impl Error {
    /// An error of this host: `what` was being done ("load the plugin x.wasm"), `why` it failed.
    pub(crate) fn new(kind: Kind, what: impl Into<String>, why: impl Into<String>) -> Self {
        Error(Box::new(Repr {
            kind,
            what: what.into(),
            why: why.into(),
            hint: None,
            happened: Happened::No,
            retry: Retry::Never,
            provider_code: None,
            provider_message: None,
            subject: None,
            backtrace: None,
            printed: None,
        }))
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::new(Kind::InvalidArgument, what, why)
    }

    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        Error::new(Kind::Io(error.kind()), what, local_reason(error))
    }

    /// What the provider answered to `what`.
    pub(crate) fn from_provider(what: String, error: types::Error) -> Self {
        let kind = Kind::from(error.kind);
        let hint = match &kind {
            Kind::SandboxEnded => Some("create a new sandbox".to_owned()),
            Kind::Unsupported => Some("`sandbox plugin inspect` lists what this provider can do".to_owned()),
            _ => None,
        };
        Error(Box::new(Repr {
            kind,
            what,
            why: clip(error.message, 16 << 10),
            hint,
            happened: match error.happened {
                types::Happened::No => Happened::No,
                types::Happened::Unknown => Happened::Unknown,
                types::Happened::Yes => Happened::Yes,
            },
            retry: match error.retry {
                types::RetryAdvice::Never => Retry::Never,
                types::RetryAdvice::Maybe => Retry::Maybe,
                types::RetryAdvice::After(millis) => Retry::After(Duration::from_millis(millis)),
            },
            provider_code: error.provider_code.map(name),
            provider_message: error.provider_message.map(|text| clip(text, 8 << 10)),
            subject: error.subject.map(name),
            backtrace: None,
            printed: None,
        }))
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn with_happened(mut self, happened: Happened) -> Self {
        self.0.happened = happened;
        self
    }

    pub(crate) fn with_retry(mut self, retry: Retry) -> Self {
        self.0.retry = retry;
        self
    }

    /// Adds what this host knows and the component could not tell, such as the reason of a refused connection.
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        // The component may have said the same in its own words.
        let gist = note.rsplit(": ").next().unwrap_or(note);
        if !note.is_empty() && !self.0.why.contains(gist) {
            self.0.why = format!("{} ({note})", self.0.why.trim_end_matches('.'));
        }
        self
    }

    /// A limit of this host was the cause: what the component took for a broken connection will break each time.
    pub(crate) fn with_limit(mut self, cause: String) -> Self {
        self.0.kind = Kind::Forbidden;
        self.0.why = cause;
        self.0.retry = Retry::Never;
        self.with_hint("if the plugin may send and receive that much, raise `body_mib` of the policy's limits")
    }

    pub(crate) fn with_trace(mut self, backtrace: String, printed: String) -> Self {
        self.0.backtrace = Some(backtrace).filter(|text| !text.is_empty());
        self.0.printed = Some(printed).filter(|text| !text.is_empty());
        self
    }

    /// The same error once more, for each of several readers.
    pub(crate) fn duplicate(&self) -> Error {
        Error(self.0.clone())
    }

    /// What kind of error it is.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// What was being done; why it failed; what to do about it, where there is something.
    pub fn parts(&self) -> (&str, &str, Option<&str>) {
        (&self.0.what, &self.0.why, self.0.hint.as_deref())
    }

    /// Whether the requested thing took place.
    pub fn happened(&self) -> Happened {
        self.0.happened
    }

    /// Whether and when the same call can succeed.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// The provider's own name of the error.
    pub fn provider_code(&self) -> Option<&str> {
        self.0.provider_code.as_deref()
    }

    /// The provider's own text.
    pub fn provider_message(&self) -> Option<&str> {
        self.0.provider_message.as_deref()
    }

    /// What the error is about: an id, a path, the name of an option.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// Where the component was when it was stopped ([`Kind::Trap`] only).
    pub fn guest_backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// The end of what the component had printed when it was stopped (at most 64 KiB; [`Kind::Trap`] only).
    pub fn guest_output(&self) -> Option<&str> {
        self.0.printed.as_deref()
    }

    /// The sandbox, image, exec or file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.0.kind, Kind::NotFound | Kind::File(FileFault::NotFound))
    }

    /// The sandbox is over.
    pub fn is_sandbox_ended(&self) -> bool {
        self.0.kind == Kind::SandboxEnded
    }

    /// No answer in time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, Kind::TimedOut | Kind::Trap(TrapCause::CallTime))
    }

    /// Credentials are missing, wrong or expired.
    pub fn is_unauthenticated(&self) -> bool {
        self.0.kind == Kind::Unauthenticated
    }

    /// The host's policy stopped it.
    pub fn is_forbidden(&self) -> bool {
        self.0.kind == Kind::Forbidden
    }

    /// The component was stopped or stopped itself; other calls are not affected.
    pub fn is_trap(&self) -> bool {
        matches!(self.0.kind, Kind::Trap(_))
    }

    /// Whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.retry != Retry::Never
    }

    /// The file fault, for errors of file operations.
    pub fn file_fault(&self) -> Option<&FileFault> {
        match &self.0.kind {
            Kind::File(fault) => Some(fault),
            _ => None,
        }
    }

    fn line(&self) -> String {
        let Repr { what, why, hint, .. } = &*self.0;
        let mut line = format!("cannot {what}: {why}");
        if let Some(hint) = hint {
            line = format!("{}; {hint}", line.trim_end_matches('.'));
        }
        line
    }
}

impl From<types::ErrorKind> for Kind {
    fn from(kind: types::ErrorKind) -> Self {
        use types::ErrorKind as K;
        match kind {
            K::InvalidArgument => Kind::InvalidArgument,
            K::Unsupported => Kind::Unsupported,
            K::Unauthenticated => Kind::Unauthenticated,
            K::PermissionDenied => Kind::PermissionDenied,
            K::NotFound => Kind::NotFound,
            K::AlreadyExists => Kind::AlreadyExists,
            K::Conflict => Kind::Conflict,
            K::ResourceExhausted => Kind::ResourceExhausted,
            K::BuildFailed => Kind::BuildFailed,
            K::SandboxEnded => Kind::SandboxEnded,
            K::File(fault) => Kind::File(fault.into()),
            K::TimedOut => Kind::TimedOut,
            K::Unavailable => Kind::Unavailable,
            K::Forbidden => Kind::Forbidden,
            K::Internal => Kind::Internal,
            K::Other(text) => Kind::Other(name(text)),
        }
    }
}

impl From<types::FileFault> for FileFault {
    fn from(fault: types::FileFault) -> Self {
        use types::FileFault as F;
        match fault {
            F::NotFound => FileFault::NotFound,
            F::IsADirectory => FileFault::IsADirectory,
            F::NotADirectory => FileFault::NotADirectory,
            F::AlreadyExists => FileFault::AlreadyExists,
            F::NotEmpty => FileFault::NotEmpty,
            F::PermissionDenied => FileFault::PermissionDenied,
            F::TooLarge => FileFault::TooLarge,
            F::NoSpace => FileFault::NoSpace,
            F::Other(text) => FileFault::Other(name(text)),
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match error.kind() {
            Kind::NotFound | Kind::File(FileFault::NotFound) => K::NotFound,
            Kind::PermissionDenied | Kind::Forbidden | Kind::File(FileFault::PermissionDenied) => K::PermissionDenied,
            Kind::AlreadyExists | Kind::File(FileFault::AlreadyExists) => K::AlreadyExists,
            Kind::File(FileFault::IsADirectory) => K::IsADirectory,
            Kind::File(FileFault::NotADirectory) => K::NotADirectory,
            Kind::File(FileFault::NotEmpty) => K::DirectoryNotEmpty,
            Kind::File(FileFault::NoSpace) => K::StorageFull,
            Kind::InvalidArgument => K::InvalidInput,
            Kind::Unsupported => K::Unsupported,
            Kind::TimedOut => K::TimedOut,
            Kind::Unavailable => K::ConnectionAborted,
            Kind::SandboxEnded => K::BrokenPipe,
            Kind::Io(kind) => *kind,
            _ => K::Other,
        };
        std::io::Error::new(kind, error)
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileFault::NotFound => "no such file or directory",
            FileFault::IsADirectory => "is a directory",
            FileFault::NotADirectory => "not a directory",
            FileFault::AlreadyExists => "already exists",
            FileFault::NotEmpty => "directory not empty",
            FileFault::PermissionDenied => "permission denied",
            FileFault::TooLarge => "file too large",
            FileFault::NoSpace => "no space left",
            FileFault::Other(text) => text,
        })
    }
}

/// A name of foreign origin, or what should be one.
fn name(text: String) -> String {
    clip(text, 1 << 10)
}

/// Shortens a text of foreign origin to at most `max` bytes, at a character boundary.
pub(crate) fn clip(mut text: String, max: usize) -> String {
    if text.len() > max {
        let mut end = max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_provider_says_is_short() {
        let long = || "x".repeat(100 << 10);
        for kind in [types::ErrorKind::Other(long()), types::ErrorKind::File(types::FileFault::Other(long()))] {
            let error = Error::from_provider(
                "do it".into(),
                types::Error {
                    kind,
                    message: long(),
                    happened: types::Happened::No,
                    retry: types::RetryAdvice::Never,
                    provider_code: Some(long()),
                    provider_message: Some(long()),
                    subject: Some(long()),
                    extra: vec![],
                },
            );
            let (Kind::Other(name) | Kind::File(FileFault::Other(name))) = error.kind() else { panic!("{error}") };
            for text in [name.as_str(), error.provider_code().unwrap(), error.subject().unwrap()] {
                assert!((1024..1030).contains(&text.len()), "{} bytes", text.len());
            }
            assert!(format!("{error:?}").len() < 40 << 10);
        }
    }

    #[test]
    fn a_full_disk_is_said_to_be_this_machines() {
        let error = Error::io("write /x", &std::io::ErrorKind::StorageFull.into());
        assert!(error.to_string().contains("this machine's disk is full"), "{error}");
    }
}

//! The one error type of this crate.
//!
//! An [`Error`] says three things: what was being done, why it did not work, and, where there is something to be done,
//! what. Programs match on [`Error::kind`] or ask the predicates; people read `Display`.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
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
    Io(io::ErrorKind),
}

impl Kind {
    /// The kind in a word for programs, such as `not-found`. A kind that has one within it comes with that after a colon:
    /// `file:not-found`, `plugin:not-wasm`, `trap:memory`, `io:permission-denied`, `other:` and the provider's name.
    ///
    /// These words do not change. The command line prints them with `--json`, and the bindings for other languages have them
    /// in their errors.
    pub fn code(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Kind::InvalidArgument => "invalid-argument",
            Kind::Unsupported => "unsupported",
            Kind::Unauthenticated => "unauthenticated",
            Kind::PermissionDenied => "permission-denied",
            Kind::NotFound => "not-found",
            Kind::AlreadyExists => "already-exists",
            Kind::Conflict => "conflict",
            Kind::ResourceExhausted => "resource-exhausted",
            Kind::BuildFailed => "build-failed",
            Kind::SandboxEnded => "sandbox-ended",
            Kind::TimedOut => "timed-out",
            Kind::Unavailable => "unavailable",
            Kind::Forbidden => "forbidden",
            Kind::Internal => "internal",
            Kind::Config => "config",
            Kind::File(fault) => return format!("file:{}", fault.code()).into(),
            Kind::Plugin(fault) => return format!("plugin:{}", fault.code()).into(),
            Kind::Trap(cause) => return format!("trap:{}", cause.code()).into(),
            Kind::Io(kind) => return format!("io:{}", io_code(*kind)).into(),
            Kind::Other(name) => return format!("other:{name}").into(),
        })
    }
}

impl PluginFault {
    fn code(&self) -> &'static str {
        match self {
            PluginFault::Missing => "missing",
            PluginFault::NotWasm => "not-wasm",
            PluginFault::CoreModule => "core-module",
            PluginFault::NoInterface => "no-interface",
            PluginFault::OtherVersion => "other-version",
            PluginFault::Imports => "imports",
            PluginFault::Invalid => "invalid",
        }
    }
}

impl TrapCause {
    fn code(self) -> &'static str {
        match self {
            TrapCause::Fault => "fault",
            TrapCause::ComputeTime => "compute-time",
            TrapCause::CallTime => "call-time",
            TrapCause::Memory => "memory",
        }
    }
}

impl FileFault {
    fn code(&self) -> &'static str {
        match self {
            FileFault::NotFound => "not-found",
            FileFault::IsADirectory => "is-a-directory",
            FileFault::NotADirectory => "not-a-directory",
            FileFault::AlreadyExists => "already-exists",
            FileFault::NotEmpty => "not-empty",
            FileFault::PermissionDenied => "permission-denied",
            FileFault::TooLarge => "too-large",
            FileFault::NoSpace => "no-space",
            FileFault::Other(_) => "other",
        }
    }
}

fn io_code(kind: io::ErrorKind) -> &'static str {
    use io::ErrorKind as K;
    match kind {
        K::NotFound => "not-found",
        K::PermissionDenied => "permission-denied",
        K::ConnectionRefused => "connection-refused",
        K::ConnectionReset => "connection-reset",
        K::HostUnreachable => "host-unreachable",
        K::NetworkUnreachable => "network-unreachable",
        K::ConnectionAborted => "connection-aborted",
        K::NotConnected => "not-connected",
        K::AddrInUse => "addr-in-use",
        K::AddrNotAvailable => "addr-not-available",
        K::NetworkDown => "network-down",
        K::BrokenPipe => "broken-pipe",
        K::AlreadyExists => "already-exists",
        K::WouldBlock => "would-block",
        K::NotADirectory => "not-a-directory",
        K::IsADirectory => "is-a-directory",
        K::DirectoryNotEmpty => "directory-not-empty",
        K::ReadOnlyFilesystem => "read-only-filesystem",
        K::StaleNetworkFileHandle => "stale-network-file-handle",
        K::InvalidInput => "invalid-input",
        K::InvalidData => "invalid-data",
        K::TimedOut => "timed-out",
        K::WriteZero => "write-zero",
        K::StorageFull => "storage-full",
        K::NotSeekable => "not-seekable",
        K::QuotaExceeded => "quota-exceeded",
        K::FileTooLarge => "file-too-large",
        K::ResourceBusy => "resource-busy",
        K::ExecutableFileBusy => "executable-file-busy",
        K::Deadlock => "deadlock",
        K::CrossesDevices => "crosses-devices",
        K::TooManyLinks => "too-many-links",
        K::InvalidFilename => "invalid-filename",
        K::ArgumentListTooLong => "argument-list-too-long",
        K::Interrupted => "interrupted",
        K::Unsupported => "unsupported",
        K::UnexpectedEof => "unexpected-eof",
        K::OutOfMemory => "out-of-memory",
        // The standard library's list grows.
        _ => "other",
    }
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
/// `Display` is one line: what, why, and what to do. [`Error::parts`] gives the three separately, and
/// [`source`](std::error::Error::source) the error of this machine that was the cause, if there is one.
///
/// ```
/// # async fn example(sandbox: &sandbox_host::Sandbox) -> sandbox_host::Result<()> {
/// match sandbox.read_file("/etc/motd", 1 << 20).await {
///     Ok(data) => println!("{} bytes", data.len()),
///     Err(error) if error.is_not_found() => println!("there is none"),
///     Err(error) if error.is_retryable() => println!("later perhaps ({}): {error}", error.kind().code()),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Error(Box<Repr>);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

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
    /// The sandbox that the call was about.
    sandbox: Option<String>,
    /// The limit that was the cause: the name of a field of [`Limits`](crate::Limits).
    limit: Option<&'static str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Why this machine refused something. A full disk is said to be this machine's, since a sandbox has one of its own.
pub fn local_reason(error: &io::Error) -> String {
    use io::ErrorKind as K;
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
            sandbox: None,
            limit: None,
            source: None,
        }))
    }

    pub(crate) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::new(Kind::InvalidArgument, what, why)
    }

    pub(crate) fn io(what: impl Into<String>, error: io::Error) -> Self {
        Error::new(Kind::Io(error.kind()), what, local_reason(&error)).with_source(error)
    }

    /// What the provider answered to `what`.
    pub(crate) fn from_provider(what: String, error: types::Error) -> Self {
        let kind = Kind::from(error.kind);
        let hint = match &kind {
            Kind::SandboxEnded => Some("create a new sandbox".to_owned()),
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
            sandbox: None,
            limit: None,
            source: None,
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
    pub(crate) fn with_limit(mut self, limit: &'static str, cause: String) -> Self {
        self.0.kind = Kind::Forbidden;
        self.0.why = cause;
        self.0.retry = Retry::Never;
        self.0.limit = Some(limit);
        self.with_hint(format!("if the plugin may use that much, raise `Limits::{limit}`"))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Notes the sandbox that the call was about.
    pub(crate) fn with_sandbox(mut self, sandbox: Option<&str>) -> Self {
        self.0.sandbox = sandbox.map(str::to_owned);
        self
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

    /// The sandbox that the call was about; none for calls about the provider.
    pub fn sandbox(&self) -> Option<&str> {
        self.0.sandbox.as_deref()
    }

    /// Whether the error is about the sandbox of the call itself, and not about a command, a file or a setting.
    pub fn is_about_sandbox(&self) -> bool {
        self.0.subject.is_some() && self.0.subject == self.0.sandbox
    }

    /// The limit of this host that was the cause: the name of a field of [`Limits`](crate::Limits).
    pub fn limit(&self) -> Option<&'static str> {
        self.0.limit
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

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as K;
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
        io::Error::new(kind, error)
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
        let error = Error::io("write /x", io::ErrorKind::StorageFull.into());
        assert!(error.to_string().contains("this machine's disk is full"), "{error}");
        let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }

    #[test]
    fn every_kind_has_a_code() {
        use Kind as K;
        for (kind, code) in [
            (K::InvalidArgument, "invalid-argument"),
            (K::Unsupported, "unsupported"),
            (K::Unauthenticated, "unauthenticated"),
            (K::PermissionDenied, "permission-denied"),
            (K::NotFound, "not-found"),
            (K::AlreadyExists, "already-exists"),
            (K::Conflict, "conflict"),
            (K::ResourceExhausted, "resource-exhausted"),
            (K::BuildFailed, "build-failed"),
            (K::SandboxEnded, "sandbox-ended"),
            (K::TimedOut, "timed-out"),
            (K::Unavailable, "unavailable"),
            (K::Forbidden, "forbidden"),
            (K::Internal, "internal"),
            (K::Config, "config"),
            (K::Other("quota-of-its-own".into()), "other:quota-of-its-own"),
            (K::File(FileFault::NotFound), "file:not-found"),
            (K::File(FileFault::IsADirectory), "file:is-a-directory"),
            (K::File(FileFault::NotADirectory), "file:not-a-directory"),
            (K::File(FileFault::AlreadyExists), "file:already-exists"),
            (K::File(FileFault::NotEmpty), "file:not-empty"),
            (K::File(FileFault::PermissionDenied), "file:permission-denied"),
            (K::File(FileFault::TooLarge), "file:too-large"),
            (K::File(FileFault::NoSpace), "file:no-space"),
            (K::File(FileFault::Other("a pipe".into())), "file:other"),
            (K::Plugin(PluginFault::Missing), "plugin:missing"),
            (K::Plugin(PluginFault::NotWasm), "plugin:not-wasm"),
            (K::Plugin(PluginFault::CoreModule), "plugin:core-module"),
            (K::Plugin(PluginFault::NoInterface), "plugin:no-interface"),
            (K::Plugin(PluginFault::OtherVersion), "plugin:other-version"),
            (K::Plugin(PluginFault::Imports), "plugin:imports"),
            (K::Plugin(PluginFault::Invalid), "plugin:invalid"),
            (K::Trap(TrapCause::Fault), "trap:fault"),
            (K::Trap(TrapCause::ComputeTime), "trap:compute-time"),
            (K::Trap(TrapCause::CallTime), "trap:call-time"),
            (K::Trap(TrapCause::Memory), "trap:memory"),
            (K::Io(io::ErrorKind::NotFound), "io:not-found"),
            (K::Io(io::ErrorKind::StorageFull), "io:storage-full"),
            (K::Io(io::ErrorKind::Other), "io:other"),
        ] {
            assert_eq!(kind.code(), code);
        }
    }
}

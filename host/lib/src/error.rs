//! The error type of this crate.
//!
//! An [`Error`] says which operation failed, why it failed, and, if there is a remedy, what to do. Programs match on
//! [`Error::kind`] or call the `is_…` methods. Users read its `Display` text.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::types;

/// The result type of all fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`], for programs.
///
/// Every call to a provider can fail with [`Unauthenticated`](Kind::Unauthenticated),
/// [`PermissionDenied`](Kind::PermissionDenied), [`ResourceExhausted`](Kind::ResourceExhausted),
/// [`TimedOut`](Kind::TimedOut), [`Unavailable`](Kind::Unavailable), [`Forbidden`](Kind::Forbidden),
/// [`Internal`](Kind::Internal), [`Other`](Kind::Other) and [`Trap`](Kind::Trap), and with [`Conflict`](Kind::Conflict)
/// after [`Provider::shutdown`](crate::Provider::shutdown). Every call about a sandbox can also fail with
/// [`NotFound`](Kind::NotFound) if the provider does not know the sandbox, and with
/// [`SandboxEnded`](Kind::SandboxEnded). The `Errors` sections name the other kinds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The request is invalid: an unknown option, an empty command, a relative path where an absolute one is needed.
    InvalidArgument,
    /// The provider or the sandbox does not support the operation.
    Unsupported,
    /// Credentials are missing, wrong or expired.
    Unauthenticated,
    /// The credentials are valid but do not permit the operation.
    PermissionDenied,
    /// The named sandbox, image, exec, file or other object does not exist, or does not exist any more.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The state of the object does not permit the operation now.
    Conflict,
    /// A rate limit or a quota is exceeded, or there is no capacity, at the provider or in this host.
    ResourceExhausted,
    /// The image build failed.
    BuildFailed,
    /// The sandbox ended before or during the call.
    SandboxEnded,
    /// A file operation failed inside the sandbox.
    File(FileFault),
    /// The service did not answer in time.
    TimedOut,
    /// The service could not be reached, or the connection broke.
    Unavailable,
    /// The policy or a limit of this host forbids the operation.
    Forbidden,
    /// The service or the component had an internal error, or returned an invalid answer.
    Internal,
    /// A kind that only this provider has, with its name.
    Other(String),
    /// The component cannot be loaded, for this reason.
    Plugin(PluginFault),
    /// The component panicked, or the host stopped it, for this reason. Other calls are not affected.
    Trap(TrapCause),
    /// The settings, the profile or the policy of this host are unusable.
    Config,
    /// An input or output operation of this machine failed.
    Io(io::ErrorKind),
}

impl Kind {
    /// Returns a word for the kind, such as `not-found`. A kind with a detail has the detail after a colon:
    /// `file:not-found`, `plugin:not-wasm`, `trap:memory`, `io:permission-denied`, or `other:` with the name that the
    /// provider uses.
    ///
    /// These words are stable. The command line prints them with `--json`, and the errors of the bindings for other
    /// languages contain them.
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
        // Covers kinds that later versions of the standard library add.
        _ => "other",
    }
}

/// Why a component cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PluginFault {
    /// The file does not exist or cannot be read.
    Missing,
    /// The bytes are not WebAssembly.
    NotWasm,
    /// The file is a core WebAssembly module, not a component.
    CoreModule,
    /// The component does not export the interface.
    NoInterface,
    /// The component exports a version of the interface that this host does not support.
    OtherVersion,
    /// The component imports an interface that this host does not provide to plugins.
    Imports,
    /// The component does not compile, or its manifest is unusable.
    Invalid,
}

/// Why a component was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TrapCause {
    /// The component panicked or executed an operation that WebAssembly forbids.
    Fault,
    /// One call computed for longer than [`Limits::compute_time`](crate::Limits::compute_time).
    ComputeTime,
    /// One call took longer than its time limit, [`Limits::call_time`](crate::Limits::call_time) for most calls.
    CallTime,
    /// The component requested more memory or table elements than [`Limits`](crate::Limits) permits.
    Memory,
}

/// Why a file operation failed, in POSIX terms.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileFault {
    /// No such file or directory.
    NotFound,
    /// The operation needs a file, but the path is a directory.
    IsADirectory,
    /// The operation needs a directory, but the path is something else.
    NotADirectory,
    /// The path exists already.
    AlreadyExists,
    /// The directory is not empty.
    NotEmpty,
    /// The user has no permission.
    PermissionDenied,
    /// The file is larger than the provider can transfer.
    TooLarge,
    /// The disk of the sandbox is full.
    NoSpace,
    /// Another cause, which the text names.
    Other(String),
}

/// Whether the requested effect of a failed call took place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It did not take place.
    No,
    /// It may have taken place.
    Unknown,
    /// It took place; only the answer was lost.
    Yes,
}

/// Whether the same call can succeed if it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The call will fail in the same way.
    Never,
    /// The call may succeed.
    Maybe,
    /// The call may succeed after this time, not earlier.
    After(Duration),
}

/// The error of a failed operation.
///
/// `Display` writes one line: the operation, the cause, and the remedy if there is one. [`Error::parts`] returns the
/// three separately. [`source`](std::error::Error::source) returns the underlying error of this machine, if there is
/// one.
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
    /// The id of the sandbox that the call was about.
    sandbox: Option<String>,
    /// The limit that caused the error: the name of a field of [`Limits`](crate::Limits).
    limit: Option<&'static str>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Describes an I/O error of this machine. For a full disk or an exceeded quota the text says that it is this
/// machine's, because a sandbox has a disk too.
pub fn local_reason(error: &io::Error) -> String {
    use io::ErrorKind as K;
    match error.kind() {
        K::StorageFull => format!("this machine's disk is full: {error}"),
        K::QuotaExceeded => format!("this machine's disk quota is used up: {error}"),
        _ => error.to_string(),
    }
}

impl Error {
    /// Creates an error of this host. `what` is the failed operation ("load the plugin x.wasm"), `why` is the cause.
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

    /// Converts an error that the provider returned for the operation `what`.
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

    /// Adds a cause that only this host knows, such as the reason of a refused connection, to the text.
    pub(crate) fn with_note(mut self, note: &str) -> Self {
        // Skips a note whose text the component has reported already.
        let gist = note.rsplit(": ").next().unwrap_or(note);
        if !note.is_empty() && !self.0.why.contains(gist) {
            self.0.why = format!("{} ({note})", self.0.why.trim_end_matches('.'));
        }
        self
    }

    /// Marks a limit of this host as the cause. The kind becomes `Forbidden` and the error is not retryable: the
    /// component reports a broken connection, but a repeated call would exceed the limit again.
    pub(crate) fn with_limit(mut self, limit: &'static str, cause: String) -> Self {
        self.0.kind = Kind::Forbidden;
        self.0.why = cause;
        self.0.retry = Retry::Never;
        self.0.limit = Some(limit);
        self.with_hint(format!("to permit more, raise `Limits::{limit}`"))
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into().into());
        self
    }

    /// Sets the sandbox that the call was about.
    pub(crate) fn with_sandbox(mut self, sandbox: Option<&str>) -> Self {
        self.0.sandbox = sandbox.map(str::to_owned);
        self
    }

    pub(crate) fn with_trace(mut self, backtrace: String, printed: String) -> Self {
        self.0.backtrace = Some(backtrace).filter(|text| !text.is_empty());
        self.0.printed = Some(printed).filter(|text| !text.is_empty());
        self
    }

    /// Copies the error, for streams that report it to several readers.
    pub(crate) fn duplicate(&self) -> Error {
        Error(self.0.clone())
    }

    /// Returns the kind of the error.
    pub fn kind(&self) -> &Kind {
        &self.0.kind
    }

    /// Returns the operation that failed, the cause, and the remedy if there is one.
    pub fn parts(&self) -> (&str, &str, Option<&str>) {
        (&self.0.what, &self.0.why, self.0.hint.as_deref())
    }

    /// Returns whether the requested effect took place.
    pub fn happened(&self) -> Happened {
        self.0.happened
    }

    /// Returns whether, and after which time, the same call can succeed.
    pub fn retry(&self) -> Retry {
        self.0.retry
    }

    /// Returns the error code of the service, such as `grpc:5 NOT_FOUND`, if there is one. It is cut to 1 KiB.
    pub fn provider_code(&self) -> Option<&str> {
        self.0.provider_code.as_deref()
    }

    /// Returns the message of the service, if there is one. It is cut to 8 KiB.
    pub fn provider_message(&self) -> Option<&str> {
        self.0.provider_message.as_deref()
    }

    /// Returns the object that the error is about: an id, a path, or the name of an option.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// Returns the id of the sandbox that the call was about, or `None` for calls about the provider.
    pub fn sandbox(&self) -> Option<&str> {
        self.0.sandbox.as_deref()
    }

    /// Returns whether the error is about the sandbox of the call, and not about a command, a file or a setting.
    pub fn is_about_sandbox(&self) -> bool {
        self.0.subject.is_some() && self.0.subject == self.0.sandbox
    }

    /// Returns the limit of this host that caused the error, as the name of a field of [`Limits`](crate::Limits).
    pub fn limit(&self) -> Option<&'static str> {
        self.0.limit
    }

    /// Returns the stack of the component at the moment when it was stopped. Only set for [`Kind::Trap`].
    pub fn guest_backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// Returns the end of what the component had printed when it was stopped, at most 64 KiB. Only set for
    /// [`Kind::Trap`].
    pub fn guest_output(&self) -> Option<&str> {
        self.0.printed.as_deref()
    }

    /// Returns whether the sandbox, image, exec or file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self.0.kind, Kind::NotFound | Kind::File(FileFault::NotFound))
    }

    /// Returns whether the sandbox has ended.
    pub fn is_sandbox_ended(&self) -> bool {
        self.0.kind == Kind::SandboxEnded
    }

    /// Returns whether the service did not answer in time, or the call exceeded its time limit.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, Kind::TimedOut | Kind::Trap(TrapCause::CallTime))
    }

    /// Returns whether credentials are missing, wrong or expired.
    pub fn is_unauthenticated(&self) -> bool {
        self.0.kind == Kind::Unauthenticated
    }

    /// Returns whether the policy or a limit of the host forbids the operation.
    pub fn is_forbidden(&self) -> bool {
        self.0.kind == Kind::Forbidden
    }

    /// Returns whether the component panicked or was stopped. Other calls are not affected.
    pub fn is_trap(&self) -> bool {
        matches!(self.0.kind, Kind::Trap(_))
    }

    /// Returns whether the same call can succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.retry != Retry::Never
    }

    /// Returns the fault, for errors of file operations in the sandbox.
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

/// Cuts a name from the component or the service, which can have any length, to 1 KiB.
fn name(text: String) -> String {
    clip(text, 1 << 10)
}

/// Cuts a text from the component or the service after at most `max` bytes, at a character boundary, and adds `…`.
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

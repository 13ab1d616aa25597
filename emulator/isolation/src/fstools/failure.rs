//! The errors of operations, in the form that clients receive.

use std::{io, path::Path};

use serde::Serialize;

/// The kinds of errors that clients distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Kind {
    NotFound,
    IsDirectory,
    NotDirectory,
    AlreadyExists,
    PathAlreadyExists,
    DirectoryNotEmpty,
    PermissionDenied,
    FileTooLarge,
    NotSupported,
    InvalidArgument,
    Io,
}

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Told {
        kind: Kind,
        message: String,
        detail: Option<String>,
    },
    /// No process reads the output any more, so the error is not reported.
    Unheard,
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::Told { kind, message: message.into(), detail: None }
    }

    /// Converts an I/O error about `path`.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        let (kind, text) = match error.raw_os_error() {
            Some(libc::ENOENT) => (Kind::NotFound, "no such file or directory"),
            Some(libc::EISDIR) => (Kind::IsDirectory, "is a directory"),
            Some(libc::ENOTDIR) => (Kind::NotDirectory, "not a directory"),
            Some(libc::EEXIST) => (Kind::AlreadyExists, "exists already"),
            Some(libc::ENOTEMPTY) => (Kind::DirectoryNotEmpty, "directory is not empty"),
            Some(libc::EACCES | libc::EPERM) => (Kind::PermissionDenied, "permission denied"),
            Some(libc::EFBIG) => (Kind::FileTooLarge, "file is too large"),
            Some(libc::EOPNOTSUPP) => (Kind::NotSupported, "not supported here"),
            Some(libc::ENOSPC | libc::EDQUOT) => (Kind::Io, "no space left on device"),
            _ => (Kind::Io, "input or output error"),
        };
        let message = format!("{}: {text}", path.display());
        Self::Told { kind, message, detail: Some(error.to_string()) }
    }

    /// Converts an error of writing to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Unheard } else { Self::io(Path::new("output"), error) }
    }
}

/// Adds the path to an I/O error.
pub(crate) trait About<T> {
    fn about(self, path: &Path) -> Outcome<T>;
}

impl<T> About<T> for io::Result<T> {
    fn about(self, path: &Path) -> Outcome<T> {
        self.map_err(|error| Failure::io(path, &error))
    }
}

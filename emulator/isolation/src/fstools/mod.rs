//! The program inside a sandbox by which clients read and write files (fact sheet 8.1).
//!
//! Clients execute it at its fixed path with one JSON argument that names an operation; content goes through its standard
//! streams. It is this same program in another role, runs as whoever the exec runs as, and needs no more memory for large
//! files than for small ones.
//!
//! Failure: exit code 1 and one JSON object on standard error, from whose `error_kind` clients make their exceptions.

mod entries;
mod read;
mod watch;
mod write;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The program's file name, by which it knows its role.
pub const NAME: &str = "modal-sandbox-fs-tools";

/// The service's program is linked statically, so the dynamic linker's variables mean nothing to it. They are kept from this
/// one in a variable of this name, one behind the other.
pub const HIDDEN: &[u8] = b"MODAL_EMULATOR_HIDDEN=";

/// Between those.
pub const BETWEEN: u8 = 0x1f;

/// Whether a variable, with its value, is the dynamic linker's.
pub fn is_loaders(pair: &[u8]) -> bool {
    pair.starts_with(b"LD_") || pair.starts_with(b"GLIBC_TUNABLES=")
}

/// What can be asked. Keys are only ever added: unknown ones are ignored, missing ones have a default.
#[derive(Debug, Deserialize)]
enum Operation {
    ReadFile {
        path: PathBuf,
    },
    WriteFile {
        path: PathBuf,
    },
    ListFiles {
        path: PathBuf,
    },
    Stat {
        path: PathBuf,
    },
    MakeDirectory {
        path: PathBuf,
        #[serde(default = "yes")]
        parents: bool,
    },
    Remove {
        path: PathBuf,
        #[serde(default)]
        recursive: bool,
    },
    Watch(watch::Watch),
}

fn yes() -> bool {
    true
}

/// What clients tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum Kind {
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
enum Failure {
    Told {
        kind: Kind,
        message: String,
        detail: Option<String>,
    },
    /// Nobody reads our output any more: nothing is left to be told.
    Unheard,
}

type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self::Told { kind, message: message.into(), detail: None }
    }

    /// From an error of the kernel about `path`.
    fn io(path: &Path, error: &io::Error) -> Self {
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

    /// From an error while writing to standard output.
    fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Unheard } else { Self::io(Path::new("output"), error) }
    }
}

/// Adds to an error of the kernel what it was about.
trait About<T> {
    fn about(self, path: &Path) -> Outcome<T>;
}

impl<T> About<T> for io::Result<T> {
    fn about(self, path: &Path) -> Outcome<T> {
        self.map_err(|error| Failure::io(path, &error))
    }
}

/// Does what `arguments` (with the program's own name first) say; the exit code.
pub fn run(arguments: &[OsString]) -> i32 {
    // Writing to nobody shall be an error that is handled here, also where the starter has reset this.
    // Safety: no handler is involved.
    let _ =
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGPIPE, nix::sys::signal::SigHandler::SigIgn) };
    let failure = match parse(arguments).and_then(perform) {
        Ok(()) => return 0,
        Err(failure) => failure,
    };
    if let Failure::Told { kind, message, detail } = failure {
        #[derive(Serialize)]
        struct Report {
            version: u32,
            error_kind: Kind,
            message: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<String>,
        }
        let report = Report { version: 1, error_kind: kind, message, detail };
        if let Ok(report) = serde_json::to_string(&report) {
            let _ = writeln!(io::stderr(), "{report}");
        }
    }
    1
}

fn parse(arguments: &[OsString]) -> Outcome<Operation> {
    let invalid = |message: String| Failure::new(Kind::InvalidArgument, message);
    let argument = arguments.get(1).ok_or_else(|| invalid("an operation is missing: one JSON argument".into()))?;
    let argument = argument.to_str().ok_or_else(|| invalid("the argument is not UTF-8".into()))?;
    serde_json::from_str(argument).map_err(|error| invalid(format!("the argument is not an operation: {error}")))
}

fn perform(operation: Operation) -> Outcome {
    match operation {
        Operation::ReadFile { path } => read::read(&path),
        Operation::WriteFile { path } => write::write(&path),
        Operation::ListFiles { path } => entries::list(&path),
        Operation::Stat { path } => entries::stat(&path),
        Operation::MakeDirectory { path, parents } => entries::make_directory(&path, parents),
        Operation::Remove { path, recursive } => entries::remove(&path, recursive),
        Operation::Watch(watch) => watch.run(),
    }
}

/// One line of JSON on standard output.
fn say(line: &impl Serialize) -> Outcome {
    let mut text = serde_json::to_vec(line).map_err(|error| Failure::new(Kind::Io, error.to_string()))?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Prints an array, an item at a time.
fn say_each<T: Serialize>(items: impl Iterator<Item = Outcome<T>>) -> Outcome {
    let mut out = io::BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let failed = |error: io::Error| Failure::output(&error);
    let mut before: &[u8] = b"[";
    for item in items {
        out.write_all(before).map_err(failed)?;
        serde_json::to_writer(&mut out, &item?).map_err(|error| failed(error.into()))?;
        before = b",";
    }
    let end: &[u8] = if before == b"[" { b"[]\n" } else { b"]\n" };
    out.write_all(end).and_then(|()| out.flush()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Outcome<Operation> {
        parse(&["tool".into(), text.into()])
    }

    #[test]
    fn keys_may_be_unknown_or_missing() {
        let made = parsed(r#"{"MakeDirectory": {"path": "/a", "mode": 448}}"#).unwrap();
        assert!(matches!(made, Operation::MakeDirectory { parents: true, .. }));
        let removed = parsed(r#"{"Remove":{"path":"/a"}}"#).unwrap();
        assert!(matches!(removed, Operation::Remove { recursive: false, .. }));
        assert!(parsed(r#"{"Watch":{"path":"/a","recursive":true,"filter":null,"timeout_secs":null}}"#).is_ok());
    }

    #[test]
    fn what_is_no_operation_is_an_invalid_argument() {
        for text in ["", "{", "[]", r#"{"Fly":{"path":"/a"}}"#, r#"{"Stat":{}}"#] {
            let Err(Failure::Told { kind, .. }) = parsed(text) else { panic!("{text}") };
            assert_eq!(kind, Kind::InvalidArgument);
        }
        assert!(parse(&["tool".into()]).is_err());
    }
}

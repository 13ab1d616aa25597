//! The file tools: the program inside a sandbox that clients use to read and write files (docs/modal-protocol.md, section
//! 8.1).
//!
//! Clients execute it at a fixed path with one JSON argument that names an operation. File content is transferred over
//! its standard streams. It is the emulator's own program in another role, runs as the user of the exec, and its memory
//! use does not depend on the size of files.
//!
//! On failure it exits with code 1 and prints one JSON object to standard error; clients choose their exception by its
//! `error_kind`.

mod entries;
mod failure;
mod names;
mod output;
mod read;
mod watch;
mod write;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::sys;
use failure::{Failure, Kind, Outcome};
pub use names::{BETWEEN, HIDDEN, NAME, is_loaders};

/// The operations. Compatible changes only add keys: unknown keys are ignored, and missing ones have a default.
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

/// Performs the operation in `arguments`, of which the first is the program's name. Returns the exit code.
pub fn run(arguments: &[OsString]) -> i32 {
    // Makes writing to a closed pipe an error that is handled here, even if the parent process reset the signal.
    sys::ignore_sigpipe();
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

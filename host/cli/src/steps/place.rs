//! Parses paths on this machine and in sandboxes.

use std::path::PathBuf;

use anyhow::Result;
use sandbox_host::{Provider, Sandbox};

use crate::output::Failure;

/// The source or the destination of a copy.
#[derive(Debug, PartialEq)]
pub enum Place {
    Local(PathBuf),
    Remote { id: String, path: String },
    Stream,
}

impl Place {
    /// Parses `ID:/path` as a path in a sandbox, `-` as a standard stream, and anything else as a local path. A local
    /// name with a colon can be written as `./a:b`.
    pub fn parse(text: &str) -> Place {
        if text == "-" {
            return Place::Stream;
        }
        match text.split_once(':') {
            Some((id, path)) if !id.is_empty() && !id.contains('/') && path.starts_with('/') => {
                Place::Remote { id: id.to_owned(), path: path.to_owned() }
            }
            _ => Place::Local(PathBuf::from(text)),
        }
    }
}

/// Parses `ID:/path`, for commands that accept only paths in sandboxes.
pub fn remote(provider: &Provider, text: &str) -> Result<(Sandbox, String)> {
    match Place::parse(text) {
        Place::Remote { id, path } => Ok((provider.sandbox(id), path)),
        _ => Err(Failure::new(format!("use {text:?}"), "it is not a path in a sandbox")
            .hint("write SANDBOX-ID:/absolute/path")
            .into()),
    }
}

/// Converts an error so that a broken pipe of this program's standard output is recognized as such.
pub fn ours(error: sandbox_host::Error) -> anyhow::Error {
    match error.kind() {
        sandbox_host::Kind::Io(std::io::ErrorKind::BrokenPipe) => {
            std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places() {
        let remote = |id: &str, path: &str| Place::Remote { id: id.into(), path: path.into() };
        assert_eq!(Place::parse("sb-1:/a"), remote("sb-1", "/a"));
        assert_eq!(Place::parse("sb-1:/a:b"), remote("sb-1", "/a:b"));
        assert_eq!(Place::parse("-"), Place::Stream);
        for local in ["a", "./sb-1:/a", "/x:/y", "sb-1:a", ":/a", "c:"] {
            assert_eq!(Place::parse(local), Place::Local(local.into()), "{local}");
        }
    }
}

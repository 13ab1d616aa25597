//! Compiled components on disk.
//!
//! Compiling takes a fifth of a second, loading what was compiled a third of a millisecond. Loading means running it,
//! so only files that nobody else can have written are loaded: the directory belongs to this user alone (0700) and the
//! file too. An entry is named by what it was made from (SHA-256 of the component) and for whom (the engine's
//! compatibility hash), is written under another name and renamed, and is written anew when it does not load.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

/// The directory of compiled code, or none when there is no place for one.
pub(crate) fn directory(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base =
        set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    Some(base.join("sandbox-host"))
}

/// Where the code of one component for one engine lies.
pub(crate) struct Entry {
    directory: PathBuf,
    path: PathBuf,
}

impl Entry {
    /// None when the directory cannot be made or is not ours alone.
    pub(crate) fn new(directory: &Path, engine: &Engine, digest: &str) -> Option<Entry> {
        if let Err(error) = private(directory) {
            tracing::debug!(%error, directory = %directory.display(), "compiled code is not kept");
            return None;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let path = directory.join(format!("{digest}-{:016x}.cwasm", hasher.finish()));
        Some(Entry { directory: directory.to_owned(), path })
    }

    /// The compiled component, if there is one that can be trusted and used.
    pub(crate) fn load(&self, engine: &Engine) -> Option<Component> {
        let meta = std::fs::symlink_metadata(&self.path).ok()?;
        if !meta.is_file() || meta.uid() != own_uid() || meta.mode() & 0o022 != 0 {
            tracing::debug!(path = %self.path.display(), "ignored: not this user's own file");
            return None;
        }
        // SAFETY: the file was written by `store` of a process of this user: it lies in a directory that only this
        // user can write to, and is itself this user's. Whoever can forge it can run code as this user already.
        match unsafe { Component::deserialize_file(engine, &self.path) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::debug!(%error, path = %self.path.display(), "ignored: does not load");
                None
            }
        }
    }

    /// Keeps compiled code. Failing to is no error: the next start compiles again.
    pub(crate) fn store(&self, code: &[u8]) {
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            file.write_all(code)?;
            file.as_file().sync_data()?;
            file.persist(&self.path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, path = %self.path.display(), "compiled code not kept");
        }
    }
}

/// Makes the directory if need be; an error unless it is a directory of ours that nobody else can write to.
fn private(directory: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let meta = std::fs::symlink_metadata(directory)?;
    if !meta.is_dir() {
        return Err(std::io::Error::other("not a directory"));
    }
    if meta.uid() != own_uid() {
        return Err(std::io::Error::other("belongs to another user"));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(std::io::Error::other("others can write to it"));
    }
    Ok(())
}

fn own_uid() -> u32 {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("cache");
        let engine = Engine::default();
        assert!(Entry::new(&directory, &engine, "d").is_some());
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Entry::new(&directory, &engine, "d").is_none());
    }

    #[test]
    fn what_does_not_load_is_ignored_and_replaced() {
        let base = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let entry = Entry::new(base.path(), &engine, "d").unwrap();
        entry.store(b"garbage");
        assert!(entry.load(&engine).is_none());
        entry.store(&engine.precompile_component(b"(component)").unwrap_or_default());
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_directory_follows_the_environment() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(directory(env(&[("XDG_CACHE_HOME", "/c"), ("HOME", "/h")])).unwrap(), Path::new("/c/sandbox-host"));
        assert_eq!(directory(env(&[("HOME", "/h")])).unwrap(), Path::new("/h/.cache/sandbox-host"));
        assert!(directory(env(&[])).is_none());
    }
}

//! The cache of compiled code on disk.
//!
//! Compiling a component takes a fifth of a second, loading its compiled code a few milliseconds. Loaded code is
//! executed, so only files that no other user can have written are loaded:
//!
//! - The directory is opened once, component by component from the root. It belongs to this user. Only this user and
//!   root can write to it and to the directories above it, unless one of those is sticky, such as `/tmp`. Afterwards,
//!   files are opened relative to its descriptor, so that replacing the directory has no effect.
//! - A file is opened once, checked and read through its descriptor, and the data that was read is loaded.
//! - A file begins with an HMAC of its name and its code. The key belongs to this user and is stored in the same
//!   directory. The HMAC detects flipped bits and entries that were renamed.
//!
//! The name of an entry consists of the SHA-256 digest of the component and the compatibility hash of the engine. An
//! entry is written under a temporary name and then renamed. An entry that cannot be loaded is replaced.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component as Part, Path, PathBuf};

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::plugin::sys::Code;

/// The name of the file with the user's key.
const KEY: &str = "key";

/// Size of the key and of an HMAC-SHA256, in bytes.
const KEY_SIZE: usize = 32;

/// Largest entry, in bytes. Code is a few times as large as its component, which has at most 256 MiB.
const MAX_ENTRY: u64 = 2 << 30;

/// Flags for the directories above the cache. Permission to search them is enough; they need not be readable.
#[cfg(target_os = "linux")]
const SEARCH: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const SEARCH: OFlags = OFlags::RDONLY;

/// Returns the directory of the cache, or `None` if neither `XDG_CACHE_HOME` nor `HOME` is set.
pub(crate) fn directory(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base =
        set("XDG_CACHE_HOME").filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|h| h.join(".cache")))?;
    Some(base.join("sandbox-host"))
}

/// The place of the compiled code of one component for one engine.
pub(crate) struct Entry {
    directory: OwnedFd,
    key: hmac::Key,
    name: String,
}

impl Entry {
    /// Opens the cache. Returns `None` if the directory cannot be created, or if other users can write to it or above
    /// it.
    pub(crate) fn new(directory: &Path, engine: &Engine, digest: &str) -> Option<Entry> {
        let opened = open_directory(directory).and_then(|directory| Ok((key(&directory)?, directory)));
        let (key, opened) = opened
            .inspect_err(|error| {
                tracing::debug!(%error, directory = %directory.display(), "compiled code is not cached");
            })
            .ok()?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Some(Entry { directory: opened, key, name: format!("{digest}-{:016x}.cwasm", hasher.finish()) })
    }

    /// Returns the compiled component if there is a valid entry.
    pub(crate) fn load(&self, engine: &Engine) -> Option<Component> {
        let bytes = match read(&self.directory, &self.name, MAX_ENTRY) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::debug!(%error, name = %self.name, "no cached code");
                return None;
            }
        };
        let (tag, code) = bytes.split_at_checked(KEY_SIZE)?;
        let Some(code) = Code::kept(&self.key, &self.name, tag, code) else {
            tracing::debug!(name = %self.name, "cached code ignored: its checksum is wrong");
            return None;
        };
        match code.load(engine) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::debug!(%error, name = %self.name, "cached code ignored: it cannot be loaded");
                None
            }
        }
    }

    /// Stores compiled code. Failures are only logged: the next start compiles again.
    pub(super) fn store(&self, code: &Code<'_>) {
        let tag = code.tag(&self.key, &self.name);
        if let Err(error) = write(&self.directory, &self.name, &[tag.as_ref(), code.bytes()]) {
            tracing::debug!(%error, name = %self.name, "compiled code not cached");
        }
    }
}

/// Opens the directory, and creates it if necessary. Fails unless it belongs to this user, and only this user and root
/// can replace what is at its path.
fn open_directory(directory: &Path) -> io::Result<OwnedFd> {
    // Symbolic links are resolved here. Afterwards none are followed.
    let mut base = directory.to_owned();
    let mut missing = Vec::new();
    let real = loop {
        match std::fs::canonicalize(&base) {
            Ok(real) => break real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing.push(base.file_name().ok_or(error)?.to_owned());
                base.pop();
            }
            Err(error) => return Err(error),
        }
    };
    let flags = SEARCH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut opened = rustix::fs::openat(CWD, "/", flags, Mode::empty())?;
    only_ours(&opened, true)?;
    for part in real.components() {
        if let Part::Normal(name) = part {
            opened = rustix::fs::openat(&opened, name, flags, Mode::empty())?;
            only_ours(&opened, true)?;
        }
    }
    for name in missing.iter().rev() {
        match rustix::fs::mkdirat(&opened, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        opened = rustix::fs::openat(&opened, name, flags, Mode::empty())?;
        only_ours(&opened, true)?;
    }
    only_ours(&opened, false)?;
    Ok(opened)
}

/// Fails if other users can write to the directory. `above` marks a directory above the cache. It may belong to root,
/// and it may be sticky: other users cannot replace entries of this user or root in it.
fn only_ours(directory: &OwnedFd, above: bool) -> io::Result<()> {
    let stat = rustix::fs::fstat(directory)?;
    if !(is_own(stat.st_uid) || above && stat.st_uid == 0) {
        return Err(io::Error::other("the directory or one of its parents belongs to another user"));
    }
    let mode = Mode::from_raw_mode(stat.st_mode as RawMode);
    if mode.intersects(Mode::WGRP | Mode::WOTH) && !(above && mode.contains(Mode::SVTX)) {
        return Err(io::Error::other("other users can write to the directory or to one of its parents"));
    }
    Ok(())
}

fn is_own(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

/// Returns the user's key. The first use creates it.
fn key(directory: &OwnedFd) -> io::Result<hmac::Key> {
    let bytes = match read(directory, KEY, KEY_SIZE as u64) {
        Ok(bytes) if bytes.len() == KEY_SIZE => bytes,
        // There is no key, or an unusable one. Entries with a tag of that key do not load and are replaced.
        _ => {
            let mut fresh = [0; KEY_SIZE];
            SystemRandom::new()
                .fill(&mut fresh)
                .map_err(|_| io::Error::other("the operating system returned no random numbers"))?;
            write(directory, KEY, &[&fresh])?;
            // If several processes create a key at once, the last one stays.
            read(directory, KEY, KEY_SIZE as u64)?
        }
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// Reads a whole file. Fails unless it is a regular file of this user that others cannot change.
fn read(directory: &OwnedFd, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let mode = Mode::from_raw_mode(stat.st_mode as RawMode);
    let regular = FileType::from_raw_mode(stat.st_mode as RawMode) == FileType::RegularFile;
    // The key must not be readable by others either.
    let others = if name == KEY { Mode::RWXG | Mode::RWXO } else { Mode::WGRP | Mode::WOTH };
    if !regular || !is_own(stat.st_uid) || mode.intersects(others) {
        return Err(io::Error::other("the file does not belong to this user"));
    }
    let size = stat.st_size as u64;
    if size > most {
        return Err(io::Error::other("the file is too large"));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    File::from(file).take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file under a temporary name and renames it, so that no reader sees a part of it.
fn write(directory: &OwnedFd, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let temporary = format!(".{}.tmp", uuid::Uuid::new_v4());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
    let written = || -> io::Result<()> {
        let mut file = File::from(file);
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_data()?;
        rustix::fs::renameat(directory.as_fd(), &temporary, directory.as_fd(), name)?;
        Ok(())
    };
    written().inspect_err(|_| {
        let _ = rustix::fs::unlinkat(directory, OsStr::new(&temporary), AtFlags::empty());
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn code(engine: &Engine) -> Code<'static> {
        Code::of(engine.precompile_component(&wat::parse_str("(component)").unwrap()).unwrap())
    }

    fn open_to(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("above/cache");
        let above = directory.parent().unwrap();
        let engine = Engine::default();
        let usable = || Entry::new(&directory, &engine, "d").is_some();
        assert!(usable());
        assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
        for mode in [0o777, 0o770, 0o1777] {
            open_to(&directory, mode);
            assert!(!usable(), "{mode:o}");
        }
        open_to(&directory, 0o700);
        for (mode, expected) in [(0o777, false), (0o770, false), (0o1777, true), (0o755, true), (0o711, true)] {
            open_to(above, mode);
            assert_eq!(usable(), expected, "above: {mode:o}");
        }
        // A directory above that belongs to another user is refused too. Only root can change the owner of a directory.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(above, Some(12345), None).unwrap();
            assert!(!usable());
            std::os::unix::fs::chown(above, Some(0), None).unwrap();
            std::os::unix::fs::chown(&directory, Some(12345), None).unwrap();
            assert!(!usable());
        }
    }

    #[test]
    fn a_directory_is_not_looked_up_again() {
        let base = tempfile::tempdir().unwrap();
        let (directory, aside) = (base.path().join("cache"), base.path().join("aside"));
        let engine = Engine::default();
        let entry = Entry::new(&directory, &engine, "d").unwrap();
        entry.store(&code(&engine));
        std::fs::rename(&directory, &aside).unwrap();
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(&entry.name), "forged").unwrap();
        assert!(entry.load(&engine).is_some());
        std::fs::remove_file(aside.join(&entry.name)).unwrap();
        entry.store(&code(&engine));
        assert!(aside.join(&entry.name).exists());
        assert_eq!(std::fs::read(directory.join(&entry.name)).unwrap(), b"forged");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let entry = Entry::new(base.path(), &engine, "d").unwrap();
        let path = base.path().join(&entry.name);
        entry.store(&code(&engine));
        let size = std::fs::metadata(&path).unwrap().len();
        for at in (0..size).step_by(size as usize / 40).chain([size - 1]) {
            let file = File::options().read(true).write(true).open(&path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
            assert!(entry.load(&engine).is_none(), "byte {at} of {size}");
            file.write_all_at(&byte, at).unwrap();
        }
        assert!(entry.load(&engine).is_some());
        File::options().write(true).open(&path).unwrap().set_len(size - 1).unwrap();
        assert!(entry.load(&engine).is_none());
        entry.store(&code(&engine));
        assert!(entry.load(&engine).is_some());
        // The entry is not valid under another name or with another key.
        let other = Entry::new(base.path(), &engine, "e").unwrap();
        std::fs::copy(&path, base.path().join(&other.name)).unwrap();
        assert!(other.load(&engine).is_none());
        std::fs::remove_file(base.path().join(KEY)).unwrap();
        assert!(Entry::new(base.path(), &engine, "d").unwrap().load(&engine).is_none());
    }

    #[test]
    fn only_the_users_own_regular_files_are_read() {
        let base = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let entry = Entry::new(base.path(), &engine, "d").unwrap();
        let (path, other) = (base.path().join(&entry.name), base.path().join("other"));
        entry.store(&code(&engine));
        open_to(&path, 0o620);
        assert!(entry.load(&engine).is_none());
        open_to(&path, 0o600);
        std::fs::rename(&path, &other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(entry.load(&engine).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(entry.load(&engine).is_none());
        std::fs::rename(&other, &path).unwrap();
        assert!(entry.load(&engine).is_some());
        // A key that others can read is replaced.
        open_to(&base.path().join(KEY), 0o644);
        assert!(Entry::new(base.path(), &engine, "d").unwrap().load(&engine).is_none());
        assert_eq!(std::fs::metadata(base.path().join(KEY)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_does_not_load_is_ignored_and_replaced() {
        let base = tempfile::tempdir().unwrap();
        let engine = Engine::default();
        let entry = Entry::new(base.path(), &engine, "d").unwrap();
        entry.store(&Code::of(b"garbage".to_vec()));
        assert!(entry.load(&engine).is_none());
        entry.store(&code(&engine));
        assert!(entry.load(&engine).is_some());
        // The other file is the key.
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 2);
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

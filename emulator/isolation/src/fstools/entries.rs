//! The operations on directories and their entries: list, stat, create, remove.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use serde::Serialize;

use super::{
    failure::{About, Failure, Kind, Outcome},
    output::{say, say_each},
};

/// One file, directory or symbolic link, as clients receive it. Links are not followed.
#[derive(Serialize)]
struct Entry {
    name: String,
    path: String,
    r#type: &'static str,
    size: u64,
    mode: u32,
    permissions: String,
    owner: String,
    group: String,
    modified_time: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    symlink_target: Option<String>,
}

/// Maps user or group ids to names, from an account file.
struct Names(HashMap<u32, String>);

impl Names {
    fn read(path: &str) -> Self {
        let text = String::from_utf8_lossy(&crate::users::accounts(path).unwrap_or_default()).into_owned();
        let account = |line: &str| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?);
            Some((id.parse().ok()?, name.to_owned()))
        };
        // If several names have the same id, the first one is used, as by `getpwuid`.
        Self(text.lines().rev().filter_map(account).collect())
    }

    fn of(&self, id: u32) -> String {
        self.0.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }
}

/// Builds entries.
struct Describer {
    users: Names,
    groups: Names,
}

impl Describer {
    fn new() -> Self {
        Self { users: Names::read("/etc/passwd"), groups: Names::read("/etc/group") }
    }

    fn entry(&self, path: &Path, found: &Metadata) -> Entry {
        let kind = found.file_type();
        let target = if kind.is_symlink() { fs::read_link(path).ok() } else { None };
        let name = path.file_name().unwrap_or(path.as_os_str());
        Entry {
            name: name.to_string_lossy().into_owned(),
            path: path.to_string_lossy().into_owned(),
            r#type: if kind.is_symlink() {
                "symlink"
            } else if kind.is_dir() {
                "directory"
            } else {
                "file"
            },
            size: found.size(),
            mode: found.mode(),
            permissions: format!("{:04o}", found.mode() & 0o7777),
            owner: self.users.of(found.uid()),
            group: self.groups.of(found.gid()),
            modified_time: found.mtime() as f64 + found.mtime_nsec() as f64 / 1e9,
            symlink_target: target.map(|target| target.to_string_lossy().into_owned()),
        }
    }
}

/// Prints the entry of a path. Does not follow links.
pub(crate) fn stat(path: &Path) -> Outcome {
    let found = fs::symlink_metadata(path).about(path)?;
    say(&Describer::new().entry(path, &found))
}

/// Prints the entries of a directory, sorted by name.
pub(crate) fn list(path: &Path) -> Outcome {
    let describer = Describer::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(path).about(path)? {
        names.push(entry.about(path)?.file_name());
    }
    names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    // Keeps only the names in memory: the entries of a million files would exceed the memory of many sandboxes.
    let present = names.into_iter().filter_map(|name| {
        let path = path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(found) => Some(Ok(describer.entry(&path, &found))),
            // Removed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(Err(Failure::io(&path, &error))),
        }
    });
    say_each(present)
}

/// Creates a directory, and its parents if `parents` is set.
pub(crate) fn make_directory(path: &Path, parents: bool) -> Outcome {
    let exists = || Failure::new(Kind::PathAlreadyExists, format!("{}: exists already", path.display()));
    let made = if parents { fs::create_dir_all(path) } else { fs::create_dir(path) };
    match made {
        Ok(()) => Ok(()),
        // Something exists at the path. With `parents` it is not a directory, because `create_dir_all` accepts
        // directories.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && fs::symlink_metadata(path).is_ok() => {
            Err(exists())
        }
        // A dangling symbolic link or a file in the middle of the path.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::new(Kind::NotDirectory, format!("{}: a parent is not a directory", path.display())))
        }
        Err(error) => Err(Failure::io(path, &error)),
    }
}

/// Removes a file, link or directory. Removes non-empty directories only if `recursive` is set, and never the root
/// directory.
pub(crate) fn remove(path: &Path, recursive: bool) -> Outcome {
    if !fs::symlink_metadata(path).about(path)?.is_dir() {
        return fs::remove_file(path).about(path);
    }
    if path.canonicalize().about(path)? == Path::new("/") {
        return Err(Failure::new(Kind::PermissionDenied, "the root directory cannot be removed"));
    }
    if recursive { fs::remove_dir_all(path) } else { fs::remove_dir(path) }.about(path)
}

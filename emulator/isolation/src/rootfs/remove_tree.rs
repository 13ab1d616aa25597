//! Removes directory trees that containers may have written to, and provides functions to measure them.
//!
//! Files are opened relative to the descriptor of the tree's top, and no link is followed, because a running container
//! may change the tree while it is measured.
//!
//! On file systems that report freed blocks to the disk at once (`discard`), removing a directory takes milliseconds, and
//! removing sixteen concurrently takes hardly longer. A container has about twenty, so several threads are used.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, ResolveFlag, renameat},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, fstat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::open::{kind, open_directory, resolve};

/// Number of concurrent removals. The threads mostly wait for the disk.
const THREADS: usize = 16;

/// With at most this many paths, no threads are started, because that would cost more than it saves.
const FEW: usize = 4;

/// Maximum length of a path, in bytes: below the kernel's limit of 4,096, with space for a name.
const LONGEST_PATH: usize = 3_500;

/// Removes a directory tree, or a file. Succeeds if the path does not exist. Handles directories without permissions,
/// which overlays leave behind, and trees that are deeper than the maximum length of a path. Removes links without
/// following them.
///
/// # Errors
///
/// Fails with the first I/O error. A part of the tree may then have been removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return gone(fs::remove_file(path)),
        Ok(_) => {}
    }
    let held = |path: &Path| {
        nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    };
    let top = match held(path) {
        Err(Errno::ENOENT) => return Ok(()),
        top => top?,
    };
    loop {
        let mut walk = Walk { top: &top, levels: Vec::new(), moved: 0 };
        walk.enter(Path::new(""), 0)?;
        let directories: Vec<&PathBuf> = walk.levels.iter().flatten().collect();
        many(&directories, |directory| remove_files(&top, directory))?;
        for level in walk.levels.iter().skip(1).rev() {
            many(&level.iter().collect::<Vec<_>>(), |directory| remove_directory(&top, directory))?;
        }
        // The top is removed last, when no directories were moved into it.
        if walk.moved == 0 {
            return gone(fs::remove_dir(path));
        }
    }
}

/// Opens the directory at a path below the top, without following links.
pub(crate) fn open(top: &OwnedFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let how = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    resolve(top, path, flags | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, how)
}

/// The directories of a tree, grouped by depth, as paths relative to the top.
struct Walk<'a> {
    top: &'a OwnedFd,
    levels: Vec<Vec<PathBuf>>,
    moved: usize,
}

impl Walk<'_> {
    fn enter(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            return self.move_up(path);
        }
        let held = match open(self.top, path, OFlag::O_PATH) {
            // Removed, or replaced by something that is not a directory.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            held => held?,
        };
        if fstat(&held)?.st_mode & 0o700 != 0o700 {
            // The path of the descriptor refers to exactly this directory. Fails for directories of other users; the
            // later removal then reports the error.
            let by_descriptor = format!("/proc/self/fd/{}", held.as_raw_fd());
            let _ = fchmodat(AT_FDCWD, by_descriptor.as_str(), Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
        }
        if self.levels.len() <= depth {
            self.levels.push(Vec::new());
        }
        self.levels[depth].push(path.to_owned());
        let directory = open_directory(&held, c".")?;
        drop(held);
        for (name, is_directory) in entries(directory)? {
            if is_directory {
                self.enter(&path.join(std::ffi::OsStr::from_bytes(name.to_bytes())), depth + 1)?;
            }
        }
        Ok(())
    }

    /// Moves a directory to the top of the tree, where its path is short. The next round removes it.
    fn move_up(&mut self, path: &Path) -> io::Result<()> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        let parent = match open(self.top, parent, OFlag::O_PATH) {
            Err(Errno::ENOENT) => return Ok(()),
            parent => parent?,
        };
        loop {
            self.moved += 1;
            match renameat(&parent, name, self.top, format!("deep-{}", self.moved).as_str()) {
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
                other => return gone(other.map_err(io::Error::from)),
            }
        }
    }
}

fn remove_files(top: &OwnedFd, path: &Path) -> io::Result<()> {
    let directory = match open(top, path, OFlag::O_RDONLY) {
        Err(Errno::ENOENT) => return Ok(()),
        directory => directory?,
    };
    for (name, is_directory) in entries(directory.try_clone()?)? {
        if !is_directory {
            gone(unlinkat(&directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(io::Error::from))?;
        }
    }
    Ok(())
}

fn remove_directory(top: &OwnedFd, path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let removed = open(top, parent, OFlag::O_PATH).and_then(|parent| unlinkat(&parent, name, UnlinkatFlags::RemoveDir));
    gone(removed.map_err(io::Error::from))
}

/// Returns all entries and whether each is a directory. Reads them at once, because reading them one by one would keep
/// one descriptor open per level.
pub(crate) fn entries(directory: OwnedFd) -> io::Result<Vec<(CString, bool)>> {
    let held = directory.try_clone()?;
    let mut found = Vec::new();
    for entry in Dir::from_fd(directory)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let is_directory =
                entry.file_type().map_or_else(|| is_directory(&held, name), |kind| kind == Type::Directory);
            found.push((name.to_owned(), is_directory));
        }
    }
    Ok(found)
}

/// Returns whether an entry is a directory, on file systems that do not return the type with the name.
fn is_directory(parent: &OwnedFd, name: &CStr) -> bool {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|found| kind(&found) == SFlag::S_IFDIR)
}

/// Treats "not found" as success: the file was removed by another process.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Calls `act` for all paths, on several threads if there are many. Returns the first error, after all paths were tried.
fn many(paths: &[&PathBuf], act: impl Fn(&Path) -> io::Result<()> + Sync) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut result = Ok(());
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = act(path);
            result = result.and(done);
        }
        result
    };
    if paths.len() <= FEW {
        return work();
    }
    thread::scope(|scope| {
        // If a thread cannot be started, the other threads do its work; this thread is always one of them.
        let others: Vec<_> = (1..THREADS.min(paths.len()))
            .filter_map(|_| thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, work).ok())
            .collect();
        let mine = work();
        others.into_iter().fold(mine, |result, other| result.and(other.join().unwrap_or(Ok(()))))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::disk_usage::used, *};

    #[test]
    fn trees_without_permissions_and_of_any_depth_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("top");
        let shut = top.join("shut");
        fs::create_dir_all(shut.join("in")).unwrap();
        fs::write(shut.join("in/file"), "x").unwrap();
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        // A chain of directories that is deeper than any path can be, built by moving chains below new ones.
        let name = "d".repeat(200);
        let mut chain = parent.path().join("chain");
        fs::create_dir(&chain).unwrap();
        for number in 0..4 {
            let next = parent.path().join(format!("next{number}"));
            let deepest = (0..10).fold(next.clone(), |path, _| path.join(&name));
            fs::create_dir_all(&deepest).unwrap();
            fs::rename(&chain, deepest.join("x")).unwrap();
            chain = next;
        }
        fs::rename(&chain, top.join("chain")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn a_tree_takes_what_is_in_it() {
        let tree = tempfile::tempdir().unwrap();
        let before = used(tree.path(), Path::new(""));
        fs::create_dir(tree.path().join("d")).unwrap();
        fs::write(tree.path().join("d/f"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", tree.path().join("link")).unwrap();
        let grown = used(tree.path(), Path::new("")) - before;
        assert!((1 << 20..2 << 20).contains(&grown), "{grown}");
    }

    /// A link that replaces a directory while the tree is removed or measured is not followed.
    #[test]
    fn links_that_are_exchanged_for_directories_are_not_followed() {
        use std::sync::atomic::AtomicBool;
        let parent = tempfile::tempdir().unwrap();
        let (canary, top) = (parent.path().join("canary"), parent.path().join("top"));
        fs::create_dir_all(canary.join("sub")).unwrap();
        fs::write(canary.join("file"), vec![1; 1 << 20]).unwrap();
        fs::set_permissions(&canary, fs::Permissions::from_mode(0o500)).unwrap();
        for _ in 0..50 {
            fs::create_dir_all(top.join("d/sub")).unwrap();
            fs::write(top.join("d/file"), "x").unwrap();
            fs::set_permissions(top.join("d"), fs::Permissions::from_mode(0o555)).unwrap();
            std::os::unix::fs::symlink(&canary, top.join("l")).unwrap();
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (one, other) = (top.join("d"), top.join("l"));
                    let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
                    while !done.load(Ordering::Relaxed) {
                        let _ = nix::fcntl::renameat2(AT_FDCWD, &one, AT_FDCWD, &other, exchange);
                    }
                });
                let taken: u64 = (0..50).map(|_| used(&top, Path::new(""))).max().unwrap_or(0);
                // The removal may fail while the names are exchanged.
                let removed = (0..1000).any(|_| remove_tree(&top).is_ok());
                done.store(true, Ordering::Relaxed);
                assert!(taken < 1 << 20 && removed, "{taken} {removed}");
            });
            let names = fs::read_dir(&canary).unwrap().count();
            assert_eq!((names, fs::metadata(&canary).unwrap().permissions().mode() & 0o777), (2, 0o500));
        }
    }
}

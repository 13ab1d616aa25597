//! Removing directory trees, whatever containers have left in them.
//!
//! On file systems that tell their disk of every freed block at once (`discard`), removing a directory takes milliseconds
//! and sixteen at a time hardly longer; a container has about twenty. Hence the threads.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::mount::{MntFlags, umount2};

/// Removals at a time; the waiting is for the disk.
const THREADS: usize = 16;

/// From here on a thread is not worth its start.
const FEW: usize = 4;

/// Below the kernel's limit of 4,096 for a path, with room for a name.
const LONGEST_PATH: usize = 3_500;

/// Removes a tree of ours; missing is fine. Overlays leave directories without permissions behind, which only root may
/// enter as they are, and containers trees deeper than a path can be long. Links are removed, not followed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.is_dir() => return gone(fs::remove_file(path)),
        Ok(_) => {}
    }
    loop {
        let mut walk = Walk { top: path, levels: Vec::new(), moved: 0 };
        walk.enter(path, 0)?;
        let directories: Vec<&PathBuf> = walk.levels.iter().flatten().collect();
        many(&directories, remove_files)?;
        for level in walk.levels.iter().rev() {
            // The top goes last, once there is nothing left that was moved there.
            let level: Vec<&PathBuf> = level.iter().filter(|directory| walk.moved == 0 || *directory != path).collect();
            many(&level, |directory| gone(fs::remove_dir(directory)))?;
        }
        if walk.moved == 0 {
            return Ok(());
        }
    }
}

/// The directories of a tree by their depth.
struct Walk<'a> {
    top: &'a Path,
    levels: Vec<Vec<PathBuf>>,
    moved: usize,
}

impl Walk<'_> {
    fn enter(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        if path.as_os_str().as_bytes().len() > LONGEST_PATH {
            // Up to the top, where its path is short, for the next round.
            loop {
                self.moved += 1;
                match fs::rename(path, self.top.join(format!("deep-{}", self.moved))) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    other => return gone(other),
                }
            }
        }
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) => return gone(Err(error)),
        };
        if found.mode() & 0o700 != 0o700 {
            // What is not ours stays as it is; removing it then says why.
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        }
        if self.levels.len() <= depth {
            self.levels.push(Vec::new());
        }
        self.levels[depth].push(path.to_owned());
        for entry in list(path)? {
            if entry.file_type()?.is_dir() {
                self.enter(&entry.path(), depth + 1)?;
            }
        }
        Ok(())
    }
}

fn remove_files(directory: &Path) -> io::Result<()> {
    for entry in list(directory)? {
        if !entry.file_type()?.is_dir() {
            gone(fs::remove_file(entry.path()))?;
        }
    }
    Ok(())
}

/// All entries at once: reading them one by one would hold a descriptor open per level.
fn list(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory).and_then(Iterator::collect) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Somebody else's removal is as good as ours.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Does one thing to many paths, several at a time. The first error, after all have been tried.
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
        // One that cannot be started is one less; this thread does its part anyway.
        let others: Vec<_> = (1..THREADS.min(paths.len()))
            .filter_map(|_| thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, work).ok())
            .collect();
        let mine = work();
        others.into_iter().fold(mine, |result, other| result.and(other.join().unwrap_or(Ok(()))))
    })
}

/// Takes away mounts below `path` that this process can see. False if one stays: removing the tree would then remove
/// what is mounted.
pub(super) fn detach_mounts(path: &Path) -> bool {
    let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else { return false };
    // Blanks and the like are written in octal there, so a directory with one in its name would seem to have no mounts.
    if path.as_os_str().as_bytes().iter().any(|byte| byte.is_ascii_whitespace() || *byte == b'\\') {
        return false;
    }
    let below = |line: &str| {
        let target = line.split(' ').nth(4).map(Path::new)?;
        target.starts_with(path).then(|| target.to_owned())
    };
    // Later ones lie over earlier ones.
    mounts.lines().filter_map(below).rev().all(|target| umount2(&target, MntFlags::MNT_DETACH).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_without_permissions_and_of_any_depth_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("top");
        let shut = top.join("shut");
        fs::create_dir_all(shut.join("in")).unwrap();
        fs::write(shut.join("in/file"), "x").unwrap();
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o000)).unwrap();
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        // A chain deeper than any path: made by moving a chain below a new one.
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
}

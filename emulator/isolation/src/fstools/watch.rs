//! The operation that watches for changes. Prints one JSON object per line for each change, until the timeout or until
//! standard input is closed.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use serde::{Deserialize, Serialize};

use super::{
    failure::{About, Failure, Outcome},
    output::say,
};

/// How long to wait for the second half of a rename. Both halves arrive directly after each other, so if none arrives
/// within this time, there is none.
const RENAME_GRACE: Duration = Duration::from_millis(20);

/// Longest timeout that is passed to `poll`.
const LONG: Duration = Duration::from_secs(3600);

const FLAGS: AddWatchFlags = AddWatchFlags::IN_OPEN
    .union(AddWatchFlags::IN_CLOSE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE);

/// The arguments of the operation.
#[derive(Debug, Deserialize)]
pub(crate) struct Watch {
    path: PathBuf,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    filter: Option<Vec<String>>,
    #[serde(default)]
    timeout_secs: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    event_type: &'a str,
    paths: Vec<String>,
}

struct Watcher {
    inotify: Inotify,
    recursive: bool,
    filter: Option<Vec<String>>,
    watched: HashMap<WatchDescriptor, PathBuf>,
    /// The first half of a rename: its inotify cookie and the old path.
    half: Option<(u32, PathBuf)>,
}

impl Watch {
    pub(crate) fn run(self) -> Outcome {
        fs::metadata(&self.path).about(&self.path)?;
        let deadline = self.timeout_secs.and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let kernel = |error: Errno| Failure::io(&self.path, &io::Error::from(error));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(kernel)?;
        let watched = HashMap::new();
        let mut watcher =
            Watcher { inotify, recursive: self.recursive, filter: self.filter.clone(), watched, half: None };
        watcher.add(&self.path).map_err(kernel)?;
        let stdin = io::stdin();
        loop {
            let left = deadline.map_or(LONG, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(());
            }
            let wait = left.min(if watcher.half.is_some() { RENAME_GRACE } else { LONG });
            // Rounded up: rounding down would busy-wait during the last millisecond.
            let wait = PollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let mut ready = [
                PollFd::new(watcher.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            ];
            let count = match poll(&mut ready, wait) {
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(kernel(error)),
            };
            let input = ready[1].revents().is_some_and(|events| !events.is_empty());
            if count == 0 {
                watcher.complete()?;
            }
            match watcher.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        watcher.report(event)?;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(kernel(error)),
            }
            if input {
                match nix::unistd::read(stdin.as_fd(), &mut [0u8; 4096]) {
                    Ok(0) => return watcher.complete(),
                    Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
                    Err(error) => return Err(kernel(error)),
                }
            }
        }
    }
}

impl Watcher {
    /// Watches a path and, if the watch is recursive, the directories below it.
    fn add(&mut self, path: &Path) -> nix::Result<()> {
        let descriptor = self.inotify.add_watch(path, FLAGS)?;
        self.watched.insert(descriptor, path.to_owned());
        if self.recursive {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    // The directory was removed in the meantime or the user has no permission: it is not watched.
                    let _ = self.add(&entry.path());
                }
            }
        }
        Ok(())
    }

    /// Watches a new directory. If it was created (`made`) and not moved here, also reports the entries that were created
    /// in it before it was watched.
    fn arrived(&mut self, path: &Path, made: bool) -> Outcome {
        if !self.recursive || self.add(path).is_err() || !made {
            return Ok(());
        }
        let mut left = vec![path.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                self.line("Create", &[&entry.path()])?;
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    left.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// Reports an event of the kernel.
    fn report(&mut self, event: InotifyEvent) -> Outcome {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            // The queue overflowed: some events were lost, and it is unknown which.
            return self.line("Unknown", &[]);
        }
        let Some(watched) = self.watched.get(&event.wd) else { return Ok(()) };
        let path = event.name.as_ref().map_or_else(|| watched.clone(), |name| watched.join(name));
        let is_directory = mask.contains(AddWatchFlags::IN_ISDIR);
        if mask.contains(AddWatchFlags::IN_MOVED_TO)
            && let Some((_, old)) = self.half.take_if(|(cookie, _)| *cookie == event.cookie)
        {
            self.moved(&old, &path);
            return self.line("Rename", &[&old, &path]);
        }
        self.complete()?;
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            self.watched.remove(&event.wd);
            Ok(())
        } else if mask.contains(AddWatchFlags::IN_CREATE) {
            self.line("Create", &[&path])?;
            if is_directory { self.arrived(&path, true) } else { Ok(()) }
        } else if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
            self.half = Some((event.cookie, path));
            Ok(())
        } else if mask.contains(AddWatchFlags::IN_MOVED_TO) {
            self.line("RenameTo", &[&path])?;
            if is_directory { self.arrived(&path, false) } else { Ok(()) }
        } else if mask.contains(AddWatchFlags::IN_DELETE_SELF) && self.parent_is_watched(&path) {
            // The event of the parent directory reports this removal.
            Ok(())
        } else if mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF) {
            self.line("Remove", &[&path])
        } else if mask.intersects(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB) {
            self.line("Modify", &[&path])
        } else if mask.intersects(AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE) && !is_directory {
            // Not for directories, because the events would report this process reading them.
            self.line("Access", &[&path])
        } else {
            Ok(())
        }
    }

    /// Reports a rename whose second half did not arrive: the entry was moved out of the watched directories.
    fn complete(&mut self) -> Outcome {
        let Some((_, old)) = self.half.take() else { return Ok(()) };
        let inotify = &self.inotify;
        self.watched.retain(|descriptor, path| {
            let stays = !path.starts_with(&old);
            if !stays {
                let _ = inotify.rm_watch(*descriptor);
            }
            stays
        });
        self.line("RenameFrom", &[&old])
    }

    /// Updates the paths of watched directories after a rename. Their watches stay valid.
    fn moved(&mut self, old: &Path, new: &Path) {
        for path in self.watched.values_mut() {
            if let Ok(rest) = path.strip_prefix(old) {
                *path = if rest.as_os_str().is_empty() { new.to_owned() } else { new.join(rest) };
            }
        }
    }

    fn parent_is_watched(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.watched.values().any(|watched| watched == parent))
    }

    /// Prints a change if the filter permits its type.
    fn line(&self, event_type: &str, paths: &[&Path]) -> Outcome {
        if self.filter.as_ref().is_some_and(|wanted| !wanted.iter().any(|wanted| wanted == event_type)) {
            return Ok(());
        }
        let paths = paths.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        say(&Line { event_type, paths })
    }
}

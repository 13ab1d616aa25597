//! The Watch operation: one JSON object per line for each change, until the time is up or standard input ends.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use serde::{Deserialize, Serialize};

use super::{Failure, Kind, Outcome};

#[derive(Deserialize)]
pub(super) struct Watch {
    pub(super) path: String,
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
    directories: HashMap<WatchDescriptor, PathBuf>,
}

impl Watch {
    pub(super) fn run(self) -> Outcome {
        let fail = |e: nix::errno::Errno| Failure::io(&self.path, &io::Error::from(e));
        fs::metadata(&self.path).map_err(|e| Failure::io(&self.path, &e))?;
        let deadline = self.timeout_secs.map(|s| Instant::now() + Duration::from_secs(s.min(u32::MAX.into())));
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(fail)?;
        let mut watcher =
            Watcher { inotify, recursive: self.recursive, filter: self.filter.clone(), directories: HashMap::new() };
        watcher.add(Path::new(&self.path)).map_err(fail)?;
        let stdin = io::stdin();
        loop {
            let left = match deadline {
                None => PollTimeout::NONE,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(());
                    }
                    PollTimeout::try_from(left.min(Duration::from_secs(3600))).unwrap_or(PollTimeout::NONE)
                }
            };
            let mut ready = [
                PollFd::new(watcher.inotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, left) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(fail(e)),
            }
            let stdin_ready = ready[1].revents().is_some_and(|r| !r.is_empty());
            match watcher.inotify.read_events() {
                Ok(events) => {
                    if watcher.report(events).is_err() {
                        return Ok(());
                    }
                }
                Err(nix::errno::Errno::EAGAIN) => {}
                Err(e) => return Err(fail(e)),
            }
            if stdin_ready {
                let mut buffer = [0u8; 4096];
                match nix::unistd::read(stdin.as_fd(), &mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(_) | Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => {}
                    Err(e) => return Err(Failure::new(Kind::Io, e.desc())),
                }
            }
        }
    }
}

impl Watcher {
    fn add(&mut self, path: &Path) -> nix::Result<()> {
        let flags = AddWatchFlags::IN_OPEN
            | AddWatchFlags::IN_CLOSE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE;
        let descriptor = self.inotify.add_watch(path, flags)?;
        self.directories.insert(descriptor, path.to_owned());
        if self.recursive
            && let Ok(entries) = fs::read_dir(path)
        {
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|t| t.is_dir()) {
                    // Gone meanwhile, or not ours to read: not watched.
                    let _ = self.add(&entry.path());
                }
            }
        }
        Ok(())
    }

    /// Err when nobody reads any more.
    fn report(&mut self, events: Vec<InotifyEvent>) -> io::Result<()> {
        // Both halves of a rename come one after the other when both sides are watched.
        let mut from: Option<(u32, String)> = None;
        for event in events {
            let Some(directory) = self.directories.get(&event.wd).cloned() else { continue };
            let path = match &event.name {
                Some(name) => directory.join(name),
                None => directory,
            };
            let text = path.to_string_lossy().into_owned();
            let mask = event.mask;
            if let Some((cookie, old)) = from.take() {
                if mask.contains(AddWatchFlags::IN_MOVED_TO) && cookie == event.cookie {
                    self.line("Rename", vec![old, text])?;
                    continue;
                }
                self.line("RenameFrom", vec![old])?;
            }
            if mask.contains(AddWatchFlags::IN_IGNORED) {
                self.directories.remove(&event.wd);
                continue;
            }
            // The directory's own opening and closing is our reading of it.
            let own = event.name.is_none() && mask.contains(AddWatchFlags::IN_ISDIR);
            if mask.contains(AddWatchFlags::IN_CREATE) {
                self.line("Create", vec![text])?;
                if self.recursive && mask.contains(AddWatchFlags::IN_ISDIR) {
                    let _ = self.add(&path);
                }
            } else if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
                from = Some((event.cookie, text));
            } else if mask.contains(AddWatchFlags::IN_MOVED_TO) {
                self.line("RenameTo", vec![text])?;
                if self.recursive && mask.contains(AddWatchFlags::IN_ISDIR) {
                    let _ = self.add(&path);
                }
            } else if mask.intersects(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF) {
                self.line("Remove", vec![text])?;
            } else if mask.intersects(AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB) {
                self.line("Modify", vec![text])?;
            } else if mask.intersects(AddWatchFlags::IN_OPEN | AddWatchFlags::IN_CLOSE) && !own {
                self.line("Access", vec![text])?;
            } else if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                self.line("Unknown", vec![])?;
            }
        }
        if let Some((_, old)) = from {
            self.line("RenameFrom", vec![old])?;
        }
        Ok(())
    }

    fn line(&self, event_type: &str, paths: Vec<String>) -> io::Result<()> {
        if self.filter.as_ref().is_some_and(|wanted| !wanted.iter().any(|w| w == event_type)) {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let text = serde_json::to_string(&Line { event_type, paths })?;
        writeln!(out, "{text}")?;
        out.flush()
    }
}

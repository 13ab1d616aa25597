//! The process behind a watch: it turns events of the kernel into lines of JSON.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Write,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
    time::Timespec,
};

use crate::{exec::Exec, json};

/// How long to wait for the second half of a rename. Both halves come directly after each other.
const RENAME_GRACE: Duration = Duration::from_millis(20);
/// Most bytes of events that no call has fetched. Later events are dropped.
const MAX_UNREAD: u64 = 64 * 1024 * 1024;

const FLAGS: WatchFlags = WatchFlags::OPEN
    .union(WatchFlags::CLOSE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE);

/// An event of the kernel, independent of the buffer it was read into.
struct Event {
    watch: i32,
    flags: ReadFlags,
    cookie: u32,
    name: Option<Vec<u8>>,
}

/// The watched directories.
pub struct Watcher {
    inotify: OwnedFd,
    recursive: bool,
    watched: HashMap<i32, PathBuf>,
    /// The first half of a rename: its cookie and the old path.
    half: Option<(u32, PathBuf)>,
    lines: String,
    /// Whether events were dropped since the last line.
    lost: bool,
}

impl Watcher {
    /// Watches a path and, if wanted, the directories below it.
    ///
    /// # Errors
    ///
    /// Fails if the path does not exist, the user must not read it, or the kernel has no room for another watch.
    pub fn new(path: &Path, recursive: bool) -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut watcher =
            Self { inotify, recursive, watched: HashMap::new(), half: None, lines: String::new(), lost: false };
        watcher.add(path)?;
        Ok(watcher)
    }

    /// Copies events to a file until nothing is watched any more.
    pub fn run(&mut self, exec: &Exec, events: &mut File) {
        while !self.watched.is_empty() {
            let grace = Timespec { tv_sec: 0, tv_nsec: RENAME_GRACE.subsec_nanos() as _ };
            let timeout = self.half.is_some().then_some(grace);
            let ready = poll(&mut [PollFd::new(&self.inotify, PollFlags::IN)], timeout.as_ref());
            if ready == Ok(0) {
                self.complete();
            }
            for event in self.read() {
                self.report(&event);
            }
            self.flush(exec, events);
        }
    }

    fn flush(&mut self, exec: &Exec, events: &mut File) {
        let page = exec.page();
        let length = page.stdout.load(Ordering::SeqCst);
        if self.lines.is_empty() {
            return;
        }
        if length.saturating_sub(page.accepted.load(Ordering::SeqCst)) > MAX_UNREAD {
            self.lost = true;
            self.lines.clear();
            return;
        }
        if std::mem::take(&mut self.lost) {
            let later = std::mem::take(&mut self.lines);
            self.line("other", &[]);
            self.lines.push_str(&later);
        }
        if events.write_all(self.lines.as_bytes()).is_ok() {
            page.stdout.fetch_add(self.lines.len() as u64, Ordering::SeqCst);
        } else {
            // Half a line must not stay when the disk is full.
            let _ = events.set_len(length);
            self.lost = true;
        }
        self.lines.clear();
        exec.wake();
    }

    fn read(&self) -> Vec<Event> {
        let mut buffer = [const { MaybeUninit::uninit() }; 16 * 1024];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut events = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => events.push(Event {
                    watch: event.wd(),
                    flags: event.events(),
                    cookie: event.cookie(),
                    name: event.file_name().map(|name| name.to_bytes().to_vec()),
                }),
                Err(Errno::INTR) => {}
                Err(_) => return events,
            }
            if reader.is_buffer_empty() {
                return events;
            }
        }
    }

    fn add(&mut self, path: &Path) -> Result<(), Errno> {
        let descriptor = inotify::add_watch(&self.inotify, path, FLAGS)?;
        self.watched.insert(descriptor, path.to_path_buf());
        if self.recursive {
            for child in subdirectories(path) {
                // It was removed meanwhile, or the user must not read it: it is not watched.
                let _ = self.add(&child);
            }
        }
        Ok(())
    }

    /// Watches a directory that appeared. Entries that were made in it before that are reported.
    fn appeared(&mut self, path: &Path, created: bool) {
        if !self.recursive || self.add(path).is_err() || !created {
            return;
        }
        let mut rest = vec![path.to_path_buf()];
        while let Some(directory) = rest.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                self.line("created", &[&entry.path()]);
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    rest.push(entry.path());
                }
            }
        }
    }

    fn report(&mut self, event: &Event) {
        let flags = event.flags;
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            // It is unknown which events were lost.
            return self.line("other", &[]);
        }
        let Some(watched) = self.watched.get(&event.watch) else { return };
        let path = match &event.name {
            Some(name) => watched.join(std::ffi::OsStr::from_bytes(name)),
            None => watched.clone(),
        };
        let directory = flags.contains(ReadFlags::ISDIR);
        if flags.contains(ReadFlags::MOVED_TO)
            && let Some((_, old)) = self.half.take_if(|(cookie, _)| *cookie == event.cookie)
        {
            self.rename(&old, &path);
            return self.line("modified", &[&old, &path]);
        }
        self.complete();
        if flags.contains(ReadFlags::IGNORED) {
            self.watched.remove(&event.watch);
        } else if flags.contains(ReadFlags::MOVED_FROM) {
            self.half = Some((event.cookie, path));
        } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            let created = flags.contains(ReadFlags::CREATE);
            self.line(if created { "created" } else { "modified" }, &[&path]);
            if directory {
                self.appeared(&path, created);
            }
        } else if flags.contains(ReadFlags::DELETE_SELF) && self.is_below_watch(&path) {
            // The event of the parent reports it.
        } else if flags.intersects(ReadFlags::DELETE | ReadFlags::DELETE_SELF) {
            self.line("removed", &[&path]);
        } else if flags.intersects(ReadFlags::MODIFY | ReadFlags::ATTRIB) {
            self.line("modified", &[&path]);
        } else if !directory {
            // Accesses of directories would be those of this process too.
            self.line("accessed", &[&path]);
        }
    }

    /// Reports a rename whose second half did not come: the entry left the watched directories.
    fn complete(&mut self) {
        let Some((_, old)) = self.half.take() else { return };
        let inotify = &self.inotify;
        self.watched.retain(|descriptor, path| {
            let stays = !path.starts_with(&old);
            if !stays {
                let _ = inotify::remove_watch(inotify, *descriptor);
            }
            stays
        });
        self.line("modified", &[&old]);
    }

    /// Changes the paths of watched directories after a rename. Their watches stay valid.
    fn rename(&mut self, old: &Path, new: &Path) {
        for path in self.watched.values_mut() {
            if let Ok(rest) = path.strip_prefix(old) {
                *path = if rest.as_os_str().is_empty() { new.to_path_buf() } else { new.join(rest) };
            }
        }
    }

    fn is_below_watch(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.watched.values().any(|watched| watched == parent))
    }

    fn line(&mut self, kind: &str, paths: &[&Path]) {
        let paths = json::array(paths.iter().map(|path| json::string(&path.to_string_lossy())));
        self.lines.push_str(&json::Object::new().text("kind", kind).raw("paths", &paths).end());
        self.lines.push('\n');
    }
}

fn subdirectories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

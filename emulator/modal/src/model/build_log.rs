//! The log of a build: stores its lines, and lets any number of readers follow them.

use modal_proto::client::{FileDescriptor, TaskLogs};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::values::now;

/// Largest number of lines per build, because the log is in memory. Later lines are dropped; the last line says so.
const MOST: usize = 100_000;

/// The log of a build.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Vec<TaskLogs>>,
    progress: watch::Sender<(usize, bool)>,
}

impl Log {
    /// Appends a piece of text, which must contain its own line breaks.
    pub fn write(&self, fd: FileDescriptor, data: impl Into<String>) {
        let now = now();
        let line = |data: String, fd: FileDescriptor| TaskLogs {
            data,
            file_descriptor: fd as i32,
            timestamp: now,
            timestamp_ns: (now * 1e9) as u64,
            ..Default::default()
        };
        let mut lines = self.lines.lock();
        match lines.len() {
            MOST => return,
            len if len + 1 == MOST => {
                lines.push(line("[the log is full; further lines are dropped]\n".to_owned(), FileDescriptor::Info));
            }
            _ => lines.push(line(data.into(), fd)),
        }
        let len = lines.len();
        drop(lines);
        self.progress.send_modify(|progress| progress.0 = len);
    }

    /// Appends a line of the emulator.
    pub fn info(&self, text: impl AsRef<str>) {
        self.write(FileDescriptor::Info, format!("{}\n", text.as_ref()));
    }

    /// Marks the log as complete.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.1 = true);
    }

    /// Returns the number of lines so far.
    pub fn len(&self) -> usize {
        self.progress.borrow().0
    }

    /// Returns whether there are no lines.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits for the first line at index `from`, then returns up to `most` lines. Returns no lines after the end of a closed
    /// log.
    pub async fn follow(&self, from: usize, most: usize) -> Vec<TaskLogs> {
        let mut progress = self.progress.subscribe();
        let _ = progress.wait_for(|(len, closed)| *len > from || *closed).await;
        let lines = self.lines.lock();
        lines.iter().skip(from).take(most).cloned().collect()
    }
}

//! A build's log: lines that are kept, and followed by any number of readers.

use modal_proto::client::{FileDescriptor, TaskLogs};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::model::values::now;

/// Lines kept per build. Beyond it the log says so once and stays as it is: it lives in memory.
const MOST: usize = 100_000;

/// A build's log.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Vec<TaskLogs>>,
    progress: watch::Sender<(usize, bool)>,
}

impl Log {
    /// Adds a piece of text, which ends its own lines.
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
                lines.push(line("[the log is full; what follows is not kept]\n".to_owned(), FileDescriptor::Info));
            }
            _ => lines.push(line(data.into(), fd)),
        }
        let len = lines.len();
        drop(lines);
        self.progress.send_modify(|progress| progress.0 = len);
    }

    /// Adds a line of the emulator's own.
    pub fn info(&self, text: impl AsRef<str>) {
        self.write(FileDescriptor::Info, format!("{}\n", text.as_ref()));
    }

    /// Says that nothing more will come.
    pub(crate) fn close(&self) {
        self.progress.send_modify(|progress| progress.1 = true);
    }

    /// Lines so far.
    pub fn len(&self) -> usize {
        self.progress.borrow().0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Up to `most` lines from `from` on, waiting for the first; none once the log has ended.
    pub async fn follow(&self, from: usize, most: usize) -> Vec<TaskLogs> {
        let mut progress = self.progress.subscribe();
        let _ = progress.wait_for(|(len, closed)| *len > from || *closed).await;
        let lines = self.lines.lock();
        lines.iter().skip(from).take(most).cloned().collect()
    }
}

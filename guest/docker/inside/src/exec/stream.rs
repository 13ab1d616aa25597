//! One output stream: from the pipe or terminal of the command into its spool.

use std::{fs::File, io::Write, os::fd::OwnedFd, sync::atomic::AtomicU64, sync::atomic::Ordering};

use rustix::io::Errno;

use crate::exec::state::Exec;

/// Most bytes that are copied at once.
const CHUNK: usize = 64 * 1024;

/// An output stream of a command.
pub struct Stream {
    /// The reading end, as long as a process may write.
    pub pipe: Option<OwnedFd>,
    spool: File,
    copy: Option<File>,
    bit: u32,
    length: for<'a> fn(&'a Exec) -> &'a AtomicU64,
    /// Output that did not fit the disk yet.
    held: Vec<u8>,
    ended: bool,
}

impl Stream {
    /// A stream that goes to `spool`, and to `copy` too. Without a pipe it ends at once.
    pub fn new(
        pipe: Option<OwnedFd>,
        spool: File,
        copy: Option<OwnedFd>,
        bit: u32,
        length: for<'a> fn(&'a Exec) -> &'a AtomicU64,
    ) -> Self {
        Self { pipe, spool, copy: copy.map(File::from), bit, length, held: Vec::new(), ended: false }
    }

    /// Whether output waits for space on the disk.
    pub fn is_blocked(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the stream has ended for readers.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Ends the stream for readers. Later output is read and dropped, so that its writers do not fail.
    pub fn end(&mut self, exec: &Exec) {
        if !self.ended {
            self.ended = true;
            self.held = Vec::new();
            exec.set(self.bit);
        }
    }

    /// Appends bytes to the spool. What does not fit is held.
    pub fn append(&mut self, exec: &Exec, bytes: &[u8]) {
        if self.ended {
            return;
        }
        if let Some(copy) = &mut self.copy {
            let _ = copy.write_all(bytes);
        }
        self.held.extend_from_slice(bytes);
        self.flush(exec);
    }

    /// Writes what is held.
    pub fn flush(&mut self, exec: &Exec) {
        let mut written = 0;
        while written < self.held.len() {
            match self.spool.write(&self.held[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if written > 0 {
            self.held.drain(..written);
            (self.length)(exec).fetch_add(written as u64, Ordering::SeqCst);
            exec.wake();
        }
    }

    /// Copies a piece of what the command wrote. Returns whether there may be more.
    pub fn pump(&mut self, exec: &Exec, buffer: &mut Vec<u8>) -> bool {
        if self.is_blocked() {
            self.flush(exec);
            if self.is_blocked() {
                return false;
            }
        }
        let Some(pipe) = &self.pipe else { return false };
        buffer.resize(CHUNK, 0);
        match rustix::io::read(pipe, &mut buffer[..]) {
            Ok(count) if count > 0 => {
                self.append(exec, &buffer[..count]);
                true
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            // The end of a pipe, or of a terminal (EIO).
            _ => {
                self.pipe = None;
                false
            }
        }
    }

    /// Ends the stream for readers if all its writers closed it and everything is in the spool.
    pub fn settle(&mut self, exec: &Exec) {
        if self.pipe.is_none() && !self.is_blocked() {
            self.end(exec);
        }
    }
}

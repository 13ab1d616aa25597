//! The input of a command: from its spool into its pipe or terminal.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    sync::atomic::Ordering,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    termios::{LocalModes, SpecialCodeIndex, tcgetattr},
};

use crate::exec::state::{Exec, STDIN_CLOSED, STDIN_COMPLETE};

/// Most bytes that are copied at once.
const CHUNK: u64 = 64 * 1024;
/// Size of a block of the disk. Only whole blocks are given back.
const BLOCK: u64 = 4096;

/// The writing side of a command's input.
pub struct Input {
    /// The pipe or terminal, until it is closed.
    pub writer: Option<OwnedFd>,
    spool: File,
    terminal: bool,
    consumed: u64,
    freed: u64,
    last: u8,
}

impl Input {
    /// Input from `spool` to `writer`, which does not block.
    pub fn new(writer: Option<OwnedFd>, spool: File, terminal: bool) -> Self {
        Self { writer, spool, terminal, consumed: 0, freed: 0, last: b'\n' }
    }

    /// Whether there are bytes or an end to pass on.
    pub fn has_work(&self, exec: &Exec) -> bool {
        self.writer.is_some() && (exec.page().accepted.load(Ordering::SeqCst) > self.consumed)
    }

    /// Passes on what the writer takes now.
    pub fn pump(&mut self, exec: &Exec, buffer: &mut Vec<u8>) {
        loop {
            // The end is read first: no byte is accepted after it.
            let complete = exec.has(STDIN_COMPLETE);
            let accepted = exec.page().accepted.load(Ordering::SeqCst);
            let Some(writer) = &self.writer else { return };
            if self.consumed >= accepted {
                self.free();
                if complete {
                    self.finish(exec);
                }
                return;
            }
            let size = usize::try_from((accepted - self.consumed).min(CHUNK)).unwrap_or(0);
            buffer.resize(size, 0);
            if self.spool.read_exact_at(buffer, self.consumed).is_err() {
                return self.close(exec);
            }
            match rustix::io::write(writer, buffer) {
                Ok(count) => {
                    self.consumed += count as u64;
                    self.last = count.checked_sub(1).map_or(self.last, |index| buffer[index]);
                    if self.consumed - self.freed >= 16 * CHUNK {
                        self.free();
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // Nothing reads any more.
                Err(_) => return self.close(exec),
            }
        }
    }

    /// Ends the input: a pipe is closed, and a terminal gets its end-of-file character.
    fn finish(&mut self, exec: &Exec) {
        if self.terminal
            && let Some(writer) = &self.writer
            && let Ok(modes) = tcgetattr(writer)
            && modes.local_modes.contains(LocalModes::ICANON)
        {
            let end = modes.special_codes[SpecialCodeIndex::VEOF];
            // After an incomplete line, the first character only passes on the line.
            let count = if self.last == b'\n' { 1 } else { 2 };
            let _ = rustix::io::write(writer, &[end, end][..count]);
        }
        self.close(exec);
    }

    /// Closes the input and frees its spool.
    pub fn close(&mut self, exec: &Exec) {
        if self.writer.take().is_some() {
            self.consumed = self.consumed.max(exec.page().accepted.load(Ordering::SeqCst));
            self.free();
        }
        if !exec.has(STDIN_CLOSED) {
            exec.set(STDIN_CLOSED);
        }
    }

    /// Gives the blocks of consumed bytes back to the disk. Disks that cannot do it keep them.
    fn free(&mut self) {
        let end = self.consumed / BLOCK * BLOCK;
        if end > self.freed {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = fallocate(&self.spool, flags, self.freed, end - self.freed);
            self.freed = end;
        }
    }
}

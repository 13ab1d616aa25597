//! The page of shared memory that describes one command, and the futex in it.

use std::{
    fs::File,
    io,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64},
};

use rustix::mm::{MapFlags, ProtFlags};

/// Size of the file behind the page, in bytes.
pub const PAGE_BYTES: usize = 4096;

/// What supervisor and verbs know of one command together. All fields are zero at first.
#[repr(C)]
pub struct Page {
    /// Counts changes of this page. It is the futex on which readers wait.
    pub change: AtomicU32,
    /// One of the constants of `exec::state`.
    pub phase: AtomicU32,
    /// Bits of `exec::state`: which streams have ended.
    pub streams: AtomicU32,
    /// The process that prepares the command.
    pub starter: AtomicU32,
    /// The process that supervises the command. Zero before there is one.
    pub supervisor: AtomicU32,
    /// Kind of the verdict.
    pub verdict: AtomicU32,
    /// Number that belongs to the kind: exit code, signal or reason.
    pub verdict_number: AtomicU32,
    /// Bytes of `failure` in use.
    pub failure_length: AtomicU32,
    /// Start time of `starter` in clock ticks since the boot.
    pub starter_ticks: AtomicU64,
    /// Start time of `supervisor` in clock ticks since the boot.
    pub supervisor_ticks: AtomicU64,
    /// Bytes in the spool of stdout.
    pub stdout: AtomicU64,
    /// Bytes in the spool of stderr.
    pub stderr: AtomicU64,
    /// Bytes of stdin that were accepted.
    pub accepted: AtomicU64,
    /// Size of the terminal that was asked for: a counter (32 bits), rows and columns (16 bits each).
    pub size_wanted: AtomicU64,
    /// The last value of `size_wanted` that was applied.
    pub size_applied: AtomicU64,
    /// When the command was started, in milliseconds of the Unix epoch.
    pub started: AtomicU64,
    /// Why the command was not started: the payload of an error frame.
    pub failure: [AtomicU8; 2048],
}

const _: () = assert!(size_of::<Page>() <= PAGE_BYTES);

/// A shared mapping of a [`Page`].
pub struct Mapping(NonNull<Page>);

impl Mapping {
    /// Maps the start of `file`.
    ///
    /// # Errors
    ///
    /// Fails if the file has fewer than [`PAGE_BYTES`] bytes, or the kernel refuses.
    pub fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() < PAGE_BYTES as u64 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so that no memory in use is replaced.
        let start =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), PAGE_BYTES, protection, MapFlags::SHARED, file, 0) }?;
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }
}

impl Deref for Mapping {
    type Target = Page;

    fn deref(&self) -> &Page {
        // SAFETY: the mapping is PAGE_BYTES long, aligned to a page and lives as long as `self`. `Page` consists of
        // atomics, for which every bit pattern is valid and concurrent changes are permitted. The file is never
        // shortened.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `self` owns the mapping, and no reference outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.0.as_ptr().cast(), PAGE_BYTES) };
    }
}

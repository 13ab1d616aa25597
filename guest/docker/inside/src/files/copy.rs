//! Copies what a descriptor holds into a file.

use std::{
    fs::File,
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::ioctl_ficlone,
    time::Timespec,
};

/// Most bytes of something that is no regular file.
const MAX_STREAM: u64 = 1 << 30;
/// How long the end of something that is no regular file may take.
const STREAM_LIMIT: Duration = Duration::from_secs(60);
/// Most bytes that are copied at once.
const CHUNK: usize = 64 * 1024;

/// Copies a regular file. The copy shares its blocks if the file system can do that.
///
/// # Errors
///
/// Fails if the disk is full.
pub fn copy_regular(from: &mut File, to: &mut File) -> io::Result<()> {
    if ioctl_ficlone(&*to, &*from).is_ok() {
        return Ok(());
    }
    io::copy(from, to)?;
    Ok(())
}

/// Copies a pipe, a device or a file of `/proc` to its end.
///
/// # Errors
///
/// Fails if it has more than 1 GiB or does not end within a minute.
pub fn copy_stream(from: &mut File, to: &mut impl Write) -> io::Result<()> {
    let end = Instant::now() + STREAM_LIMIT;
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                total += count as u64;
                if total > MAX_STREAM {
                    return Err(io::Error::other("it has more than 1 GiB"));
                }
                to.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The file was opened without blocking, because the user may have put a pipe there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = end.saturating_duration_since(Instant::now());
                let time = Timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
                let _ = poll(&mut [PollFd::new(&*from, PollFlags::IN)], Some(&time));
            }
            Err(error) => return Err(error),
        }
        if Instant::now() >= end {
            return Err(io::Error::other("it did not end within a minute"));
        }
    }
}

/// Writes everything to a pipe or a device that was opened without blocking.
///
/// # Errors
///
/// Fails if the other end has gone or takes nothing for a minute.
pub fn write_stream(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..count];
        while !rest.is_empty() {
            match to.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let time = Timespec { tv_sec: STREAM_LIMIT.as_secs() as _, tv_nsec: 0 };
                    if poll(&mut [PollFd::new(&*to, PollFlags::OUT)], Some(&time))? == 0 {
                        return Err(io::Error::other("it takes no more data"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

//! Writes to the standard input of a process by absolute offset.
//!
//! A byte counts as accepted once it is in the pipe. Nothing is buffered here, so a process that does not read blocks the
//! writer. Offsets make retries harmless: bytes below the accepted count are skipped (docs/modal-protocol.md, section 7.4).

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use container_isolation::Exit;
use tokio::net::unix::pipe;
use tokio::sync::{Mutex, watch};

use crate::model::error::Error;

/// The write end of a process's standard input.
#[derive(Debug)]
pub struct Stdin {
    pipe: Mutex<Option<pipe::Sender>>,
    accepted: AtomicU64,
    closed: AtomicBool,
    /// Whether the input is a terminal. A terminal is not closed; the end-of-file character is written instead.
    terminal: bool,
    /// Number of the stream that may write. A newer stream or a status call increases it.
    turn: watch::Sender<u64>,
}

/// After a process has closed its input, how long to wait for its exit before reporting that it still runs.
const DYING: Duration = Duration::from_millis(500);

/// The character "end of transmission", which a terminal interprets as end of file.
const EOT: &[u8] = &[4];

impl Stdin {
    /// Takes over the write end of a pipe, which must be non-blocking.
    ///
    /// # Errors
    ///
    /// Fails if the pipe cannot be registered with the async runtime.
    pub fn new(fd: OwnedFd, terminal: bool) -> io::Result<Stdin> {
        Ok(Stdin {
            pipe: Mutex::new(Some(pipe::Sender::from_owned_fd_unchecked(fd)?)),
            accepted: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            terminal,
            turn: watch::Sender::new(0),
        })
    }

    /// Closes the descriptor after the process has ended. Otherwise an input that no client closed would stay open for as long
    /// as the sandbox lives.
    pub async fn release(&self) {
        self.pipe.lock().await.take();
    }

    /// Returns the number of accepted bytes, and whether the input has been closed.
    pub fn status(&self) -> (u64, bool) {
        (self.accepted.load(Ordering::Acquire), self.closed.load(Ordering::Acquire))
    }

    /// Takes the right to write from the current stream. Returns the number that [`Stdin::write`] needs.
    pub fn take_turn(&self) -> u64 {
        let mut mine = 0;
        self.turn.send_modify(|turn| {
            *turn += 1;
            mine = *turn;
        });
        mine
    }

    /// Writes `data`, whose first byte has position `offset` in the whole input, and closes the input if `eof` is set. Returns
    /// when all bytes are in the pipe.
    ///
    /// # Errors
    ///
    /// Fails with `Kind::Aborted` if `turn` is given and another writer has taken the turn. Fails with
    /// `Kind::FailedPrecondition` if `offset` is beyond the accepted bytes, or if the input is closed or the process has ended.
    pub async fn write(
        &self,
        offset: u64,
        data: &[u8],
        eof: bool,
        turn: Option<u64>,
        exit: &mut watch::Receiver<Option<Exit>>,
    ) -> Result<(), Error> {
        let mut turns = self.turn.subscribe();
        let lost = async move {
            match turn {
                Some(mine) => drop(turns.wait_for(|turn| *turn != mine).await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = lost => Err(Error::aborted("another writer took over standard input")),
            done = self.write_in_turn(offset, data, eof, exit) => done,
        }
    }

    async fn write_in_turn(
        &self,
        offset: u64,
        data: &[u8],
        eof: bool,
        exit: &mut watch::Receiver<Option<Exit>>,
    ) -> Result<(), Error> {
        let mut pipe = self.pipe.lock().await;
        let accepted = self.accepted.load(Ordering::Acquire);
        if !data.is_empty() {
            if offset > accepted {
                return Err(Error::failed_precondition(format!(
                    "standard input has {accepted} bytes, cannot write at {offset}"
                )));
            }
            let skip = usize::try_from(accepted - offset).unwrap_or(usize::MAX).min(data.len());
            let mut rest = &data[skip..];
            if !rest.is_empty() {
                let Some(sender) = pipe.as_ref() else {
                    return Err(if self.closed.load(Ordering::Acquire) {
                        Error::failed_precondition("standard input is closed")
                    } else {
                        ended()
                    });
                };
                while !rest.is_empty() {
                    let written = put(sender, rest, exit).await?;
                    rest = &rest[written..];
                    self.accepted.fetch_add(written as u64, Ordering::AcqRel);
                }
            }
        }
        if eof {
            if let Some(sender) = pipe.take()
                && self.terminal
                && exit.borrow().is_none()
            {
                put(&sender, EOT, exit).await?;
            }
            self.closed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

fn ended() -> Error {
    Error::failed_precondition("the process has ended")
}

/// Writes a part of `data`, and waits for room in the pipe first. Fails if the process has ended or has closed its input.
async fn put(sender: &pipe::Sender, data: &[u8], exit: &mut watch::Receiver<Option<Exit>>) -> Result<usize, Error> {
    loop {
        if exit.borrow().is_some() {
            return Err(ended());
        }
        tokio::select! {
            biased;
            ready = sender.writable() => ready.map_err(|e| Error::internal(e.to_string()))?,
            _ = exit.wait_for(Option::is_some) => return Err(ended()),
        }
        match sender.try_write(data) {
            Ok(written) => return Ok(written),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
                // A process that is being killed closes its input before its exit is known. The official clients then ask for
                // its status, and treat the error as a failure of the emulator if the process still runs.
                let dies = tokio::time::timeout(DYING, exit.wait_for(Option::is_some)).await;
                return Err(match dies {
                    Ok(_) => ended(),
                    Err(_) => Error::failed_precondition("the process has closed its standard input"),
                });
            }
            Err(_) => return Err(ended()),
        }
    }
}

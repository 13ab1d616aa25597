//! A running command: stores its output, writes its input in order, and reports its exit.
//!
//! Execs and a sandbox's entry point are both represented by [`Running`]. Output is drained whether or not a client reads it,
//! so a slow reader never blocks the process (docs/modal-protocol.md, section 7.4).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use container_isolation::{Container, Exit, ProcessSpec};
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::model::spool::Spool;
use crate::model::stdin::Stdin;

/// After a process has exited, how long its output streams stay open for child processes that still write to them.
const GRACE: Duration = Duration::from_secs(1);

/// Pipe size in bytes for commands that write much, to reduce wake-ups. The kernel refuses more to unprivileged users.
const BIG_PIPE: i32 = 1 << 20;

/// Which output streams are stored.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Store standard output; otherwise it is read and discarded.
    pub stdout: bool,
    /// Store standard error; otherwise it is read and discarded.
    pub stderr: bool,
}

impl Keep {
    /// Stores both streams.
    pub const ALL: Keep = Keep { stdout: true, stderr: true };
}

/// A started command.
#[derive(Debug)]
pub struct Running {
    /// Standard output; with a terminal, everything that the terminal shows.
    pub stdout: Arc<Spool>,
    /// Standard error; closed from the start if it is merged into standard output.
    pub stderr: Arc<Spool>,
    /// Standard input.
    pub stdin: Stdin,
    /// How the command exited; `None` while it runs.
    pub exit: watch::Receiver<Option<Exit>>,
    /// When it was started.
    pub started: Instant,
    /// Process id inside the container.
    pub pid: i32,
    /// A weak reference, because output is read long after the container is gone.
    container: Weak<Container>,
}

impl Running {
    /// Starts a command in a container. Output that is too large for memory goes to files in `spools`. The command is killed if
    /// it still runs at `due`.
    ///
    /// # Errors
    ///
    /// Fails if the process or its pipes cannot be set up.
    pub async fn start(
        container: &Arc<Container>,
        spec: ProcessSpec,
        keep: Keep,
        due: Option<Instant>,
        spools: &Path,
    ) -> anyhow::Result<Arc<Running>> {
        let terminal = spec.pty.is_some();
        let process = container.spawn(spec).await?;
        let (exit, exited) = watch::channel(None);
        let stdout = Arc::new(Spool::new(spools));
        let stderr = Arc::new(Spool::new(spools));
        let mut drains = vec![drain(process.stdout, keep.stdout.then(|| stdout.clone()), exited.clone())?];
        match process.stderr {
            Some(fd) => drains.push(drain(fd, keep.stderr.then(|| stderr.clone()), exited.clone())?),
            None => stderr.close(),
        }
        let running = Arc::new(Running {
            stdout: stdout.clone(),
            stderr: stderr.clone(),
            stdin: Stdin::new(process.stdin, terminal)?,
            exit: exited,
            started: Instant::now(),
            pid: process.pid,
            container: Arc::downgrade(container),
        });
        if let Some(due) = due {
            tokio::spawn(kill_at(running.clone(), due));
        }
        let (ends, over) = (process.exit, running.clone());
        tokio::spawn(async move {
            // The sender is dropped if the container ends first, which kills all of its processes.
            let how = ends.await.unwrap_or(Exit::Signal(libc::SIGKILL));
            exit.send_replace(Some(how));
            over.stdin.release().await;
            // All output of the command itself, however long reading it takes.
            for drained in &mut drains {
                let _ = drained.wait_for(|drained| *drained != Drained::Not).await;
            }
            // A child process may hold the pipe open for ever. It is still drained, but readers see the end of the stream.
            let deadline = Instant::now() + GRACE;
            for mut drained in drains {
                let _ = tokio::time::timeout_at(deadline, drained.wait_for(|drained| *drained == Drained::Whole)).await;
            }
            stdout.close();
            stderr.close();
        });
        Ok(running)
    }

    /// Returns how the command exited; `None` while it runs.
    pub fn ended(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits until the command exits.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(ended) => ended.unwrap_or(Exit::Signal(libc::SIGKILL)),
            Err(_) => Exit::Signal(libc::SIGKILL),
        }
    }

    /// Sends a signal to the command's process group. Has no effect after the command has exited.
    pub async fn kill(&self, signal: i32) {
        if self.ended().is_none()
            && let Some(container) = self.container.upgrade()
            && let Err(error) = container.kill(self.pid, signal).await
        {
            tracing::debug!(%error, pid = self.pid, "signal not delivered");
        }
    }
}

async fn kill_at(running: Arc<Running>, due: Instant) {
    if tokio::time::timeout_at(due, running.wait()).await.is_err() {
        running.kill(libc::SIGKILL).await;
    }
}

thread_local! {
    /// Read buffer of `drain`. One per thread instead of one per process, because most pipes are empty most of the time.
    static SCRATCH: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; 256 * 1024]);
}

/// How much of a command's output has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drained {
    /// The command may have written more.
    Not,
    /// Everything that the command itself wrote. Its children may write more.
    Own,
    /// Everything: the stream has ended.
    Whole,
}

/// Reads `fd` to its end in the background and appends to `spool`, or discards the data if `spool` is `None`. The returned
/// value says how much has been read. When the command exits, at most the capacity of the pipe is left of what it wrote. All
/// of that has been read once the pipe is empty, or once so many bytes were read.
fn drain(
    fd: OwnedFd,
    spool: Option<Arc<Spool>>,
    mut exited: watch::Receiver<Option<Exit>>,
) -> io::Result<watch::Receiver<Drained>> {
    let pipe = pipe::Receiver::from_owned_fd_unchecked(fd)?;
    let (done, drained) = watch::channel(Drained::Not);
    tokio::spawn(async move {
        let (mut rounds, mut since_exit) = (0u32, 0);
        loop {
            // The sender is dropped without an exit only when the emulator ends.
            let has_exited = exited.borrow().is_some() || exited.has_changed().is_err();
            let read = SCRATCH.with_borrow_mut(|scratch| {
                let read = pipe.try_read(scratch)?;
                if let Some(spool) = spool.as_deref().filter(|spool| read > 0 && !spool.progress().closed)
                    && spool.append(&scratch[..read])
                {
                    // If the kernel refuses, the pipe keeps its size.
                    let _ = fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(BIG_PIPE));
                }
                Ok::<_, io::Error>(read)
            });
            let is_empty = matches!(&read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            if has_exited {
                since_exit += read.as_ref().copied().unwrap_or(0);
                // "Would block" can also mean that the runtime has not learned yet of the last bytes.
                let is_read = (is_empty && !has_data(&pipe)) || since_exit >= BIG_PIPE as usize;
                if is_read && *done.borrow() == Drained::Not {
                    done.send_replace(Drained::Own);
                }
            }
            match read {
                Ok(0) => break,
                Ok(_) => {
                    rounds += 1;
                    if rounds.is_multiple_of(8) {
                        tokio::task::yield_now().await;
                    }
                }
                Err(_) if is_empty => {
                    tokio::select! {
                        readable = pipe.readable() => if readable.is_err() { break },
                        _ = exited.changed(), if !has_exited => {}
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // Reading a terminal whose other side is closed fails with EIO.
                Err(_) => break,
            }
        }
        done.send_replace(Drained::Whole);
    });
    Ok(drained)
}

/// Whether the kernel has bytes to read from `pipe`.
fn has_data(pipe: &pipe::Receiver) -> bool {
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
}

#[cfg(test)]
mod tests {
    use nix::fcntl::OFlag;
    use nix::unistd::{pipe2, write};

    use super::*;

    /// Output is closed to readers when it is [`Drained::Own`] and some time has passed, so it must be complete by then.
    #[tokio::test]
    async fn all_output_of_a_command_is_read_before_it_counts_as_drained() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::new(directory.path()));
        // The writing end stays open, as if a child process held it.
        let (reader, writer) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        let (exit, exited) = watch::channel(None);
        let mut drained = drain(reader, Some(spool.clone()), exited).unwrap();
        assert_eq!(write(&writer, &[7; 5000]).unwrap(), 5000);
        while spool.progress().len < 5000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*drained.borrow(), Drained::Not, "the command can still write");

        assert_eq!(write(&writer, &[8; 60_000]).unwrap(), 60_000);
        exit.send_replace(Some(Exit::Code(0)));
        drained.wait_for(|drained| *drained != Drained::Not).await.unwrap();
        assert_eq!((*drained.borrow(), spool.progress().len), (Drained::Own, 65_000));

        drop(writer);
        drained.wait_for(|drained| *drained == Drained::Whole).await.unwrap();
    }
}

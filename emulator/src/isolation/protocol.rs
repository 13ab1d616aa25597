//! What the emulator and a container's init say to each other, and how it is framed.
//!
//! One stream socket pair per container. A frame is an eight byte head (length of the body, number of descriptors that
//! belong to it, both little endian) and a JSON body; descriptors travel with the first byte of the head. The emulator's
//! end is asynchronous ([`super::container`]), init's end blocks (init has nothing else to do).

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The descriptor on which init finds its end of the socket.
pub(crate) const CONTROL_FD: RawFd = 3;

/// Most descriptors one frame carries: stdin, stdout, stderr.
const MAX_FDS: usize = 4;

/// Bodies are argv, environment and mount lists; far below this. A bound, so that a broken peer cannot ask for memory.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// One overlay of a container's root. Paths of layers are relative to the state directory, so that the option string
/// stays within the one page that `mount` accepts, and so that no character of the state directory needs escaping.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// Absolute path inside the container.
    pub target: String,
    /// Topmost first. Absolute paths are directories of the machine.
    pub lower: Vec<String>,
    /// Absent: read-only.
    pub upper: Option<String>,
    /// Scratch directory of the same file system as `upper`.
    pub work: Option<String>,
}

/// A directory or file of the state directory (or of the machine) made visible inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bind {
    /// Relative to the state directory, or absolute.
    pub source: String,
    /// Absolute path inside the container; made when missing.
    pub target: String,
    /// Mount it read-only.
    pub read_only: bool,
}

/// Everything init needs to build the container's root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// Absolute path of the emulator's state directory.
    pub state_dir: String,
    /// Where the root is put together, relative to the state directory.
    pub mount_point: String,
    /// The first one is the root itself.
    pub overlays: Vec<Overlay>,
    /// Mounted after the overlays, in this order.
    pub binds: Vec<Bind>,
    /// UTS name.
    pub hostname: String,
    /// Bring the container's own loopback up.
    pub own_network: bool,
    /// The whole range of ids is mapped (the emulator runs as root), so that groups can be set.
    pub all_ids: bool,
    /// The program that runs the inner roles, bound at the place of the file helper.
    pub program: String,
    /// Directory made (like a container's WORKDIR) when missing.
    pub workdir: Option<String>,
}

/// Standard streams of an exec.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Streams {
    /// Three descriptors come with the frame: stdin, stdout, stderr.
    Pipes,
    /// Init opens a terminal and sends its master back with `Started`.
    Terminal {
        /// Rows, 0 = unknown.
        rows: u16,
        /// Columns, 0 = unknown.
        cols: u16,
    },
}

/// A program to start in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Command {
    pub argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Absolute directory.
    pub cwd: String,
    /// `user[:group]` in names or numbers; None = root.
    pub user: Option<String>,
    pub streams: Streams,
}

/// From the emulator to init.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Request {
    Setup(Setup),
    Exec { id: u64, command: Command },
    /// Signal the exec's process group.
    Signal { id: u64, signal: i32 },
    /// Stop (or continue) every process of the container, so that its files hold still.
    Freeze { id: u64, frozen: bool },
    /// Mount an overlay at a directory of the running container.
    Mount { id: u64, overlay: Overlay },
    /// Take a mount away again.
    Unmount { id: u64, path: String },
}

/// From init to the emulator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The root stands.
    Ready,
    /// It could not be built; init ends.
    SetupFailed(String),
    /// The exec's process exists; with a terminal its master comes along.
    Started { id: u64 },
    /// Answer to Freeze, Mount, Unmount; also a failed Exec.
    Done { id: u64, error: Option<Refusal> },
    /// The exec's process has ended.
    Exited { id: u64, status: Ended },
}

/// Why init could not do something.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// errno, 0 when none applies.
    pub errno: i32,
    pub message: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Ended {
    /// The shell's way to say it: signals are 128 + n.
    pub fn exit_code(self) -> i32 {
        match self {
            Ended::Code(code) => code,
            Ended::Signal(signal) => 128 + signal,
        }
    }
}

/// Encodes a frame's head and body.
pub(crate) fn encode<T: Serialize>(message: &T, fds: usize) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&(fds as u32).to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// One `sendmsg`: what could be sent of `bytes`, with `fds` attached to its first byte.
pub(crate) fn send_some(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let control = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &control };
    Ok(sendmsg::<UnixAddr>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Sends a whole frame on a blocking socket.
pub(crate) fn send_blocking<T: Serialize>(socket: RawFd, message: &T, fds: &[RawFd]) -> io::Result<()> {
    let frame = encode(message, fds.len())?;
    let mut sent = 0;
    while sent < frame.len() {
        match send_some(socket, &frame[sent..], if sent == 0 { fds } else { &[] }) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Puts frames together again from what `recvmsg` returns.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// One `recvmsg`. False at the end of the stream.
    pub(crate) fn receive_some(&mut self, socket: RawFd) -> io::Result<bool> {
        let mut buffer = [0u8; 16 * 1024];
        let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
        let received = {
            let mut parts = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<UnixAddr>(socket, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(fds) = part {
                    // Safety: the kernel has just installed these descriptors for us alone.
                    self.fds.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            message.bytes
        };
        self.bytes.extend_from_slice(&buffer[..received]);
        Ok(received != 0)
    }

    /// The next complete frame, if there is one.
    pub(crate) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(head) = self.bytes.first_chunk::<8>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let fds = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_BODY || fds > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "frame out of bounds"));
        }
        if self.bytes.len() < 8 + length {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "descriptors are missing"));
        }
        let message = serde_json::from_slice(&self.bytes[8..8 + length])?;
        self.bytes.drain(..8 + length);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }

    /// Blocks for the next frame. None at the end of the stream.
    pub(crate) fn receive_blocking<T: DeserializeOwned>(
        &mut self,
        socket: &impl AsRawFd,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.receive_some(socket.as_raw_fd()) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

//! The messages between the engine and a container's init, and their framing.
//!
//! Each container has one stream socket pair. A frame is a header of eight bytes (length of the body, number of
//! descriptors, both little endian) and a body. Descriptors are sent with the first byte of the header. Bodies are in a
//! binary format, because arguments and environments are arbitrary bytes, which JSON would have to escape. Only
//! [`Setup`], which is sent once, is JSON.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::{self, IoSlice},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::PathBuf,
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde::{Deserialize, Serialize};

use crate::{
    spec::{Bind, Exit, ProcessSpec},
    sys,
};

/// Maximum number of descriptors in one frame: stdin, stdout, stderr.
const MAX_FDS: usize = 3;

/// Maximum size of a body, in bytes. Bodies contain arguments, environments and mount lists, which the kernel limits to
/// much less. The limit keeps a broken peer from causing large allocations.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// One overlay of a container's root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Overlay {
    /// Absolute mount point inside the container.
    pub target: PathBuf,
    /// Absolute lower directories on the machine, topmost first.
    pub lower: Vec<PathBuf>,
    /// The upper directory, which receives written files.
    pub upper: PathBuf,
    /// Scratch directory on the same file system as `upper`.
    pub work: PathBuf,
}

/// All parameters that init needs to build the container's root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// An empty directory of the machine on which the root is assembled.
    pub stage: PathBuf,
    /// The overlays; the first one is the root itself.
    pub overlays: Vec<Overlay>,
    /// Limit of the bytes that can be written. With a limit, they are kept in memory and not in the overlays' upper
    /// directories.
    pub disk: Option<u64>,
    /// Directories of the machine to mount.
    pub binds: Vec<Bind>,
    /// UTS name.
    pub hostname: String,
    /// Create a network device with the addresses of this number and send it with [`Reply::Ready`].
    pub device: Option<u8>,
    /// Ids other than root exist inside, so users and groups can be changed.
    pub all_ids: bool,
    /// The container has its own user namespace.
    pub user_namespace: bool,
    /// The program that runs the inner roles. It is mounted at the path of the file tools.
    pub program: PathBuf,
}

/// Messages from the engine to init.
#[derive(Debug)]
pub(crate) enum Request {
    Setup(Setup),
    /// Start a process. Without a terminal, its three stream descriptors are attached.
    Spawn {
        id: u64,
        spec: ProcessSpec,
    },
    /// Send a signal to a process's group and session.
    Kill {
        pid: i32,
        signal: i32,
    },
    /// Create a TCP socket in the container's network namespace.
    Socket {
        id: u64,
        ipv6: bool,
    },
}

/// Messages from init to the engine.
#[derive(Debug)]
pub(crate) enum Reply {
    /// The root is complete. Contains one sentence for each feature that had to be left out. The network device is
    /// attached, if requested, followed by the directory of written files if the disk is limited: that directory has no
    /// path outside.
    Ready(Vec<String>),
    /// The root could not be built; init exits.
    Failed(String),
    /// The process was created. The master side of its terminal, if it has one, is attached.
    Started { id: u64, pid: i32 },
    /// The socket is attached.
    Socket { id: u64 },
    /// The process or the socket could not be created.
    Refused { id: u64, message: String },
    /// The process has ended.
    Exited { id: u64, exit: Exit },
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed frame: {what}"))
}

/// Writes a frame.
struct Packer(Vec<u8>);

impl Packer {
    fn new(kind: u8) -> Self {
        // Space for the header, which `finish` fills in.
        Self(vec![0, 0, 0, 0, 0, 0, 0, 0, kind])
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn finish(mut self, fds: usize) -> Vec<u8> {
        let length = (self.0.len() - 8) as u32;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self.0[4..8].copy_from_slice(&(fds as u32).to_le_bytes());
        self.0
    }
}

/// Reads a body.
struct Unpacker<'a>(&'a [u8]);

impl Unpacker<'_> {
    fn number(&mut self) -> io::Result<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>().ok_or_else(|| malformed("short"))?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn int(&mut self) -> io::Result<i32> {
        Ok(self.number()? as i32)
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("short"))?;
        self.0 = rest;
        Ok(bytes.to_vec())
    }

    fn os(&mut self) -> io::Result<OsString> {
        Ok(OsString::from_vec(self.bytes()?))
    }

    fn text(&mut self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<Vec<T>> {
        let count = self.number()?;
        (0..count).map(|_| one(self)).collect()
    }
}

/// A message that can be sent in a frame.
pub(crate) trait Message: Sized {
    /// Serializes the message to a frame with header. `fds` is the number of attached descriptors.
    fn pack(&self, fds: usize) -> io::Result<Vec<u8>>;
    /// Parses a frame's body.
    fn unpack(body: &[u8]) -> io::Result<Self>;
}

impl Message for Request {
    fn pack(&self, fds: usize) -> io::Result<Vec<u8>> {
        let mut packer;
        match self {
            Self::Setup(setup) => {
                packer = Packer::new(0);
                packer.bytes(&serde_json::to_vec(setup)?);
            }
            Self::Spawn { id, spec } => {
                packer = Packer::new(1);
                packer.number(*id).number(spec.argv.len() as u64);
                for argument in &spec.argv {
                    packer.bytes(argument.as_bytes());
                }
                packer.number(spec.env.len() as u64);
                for (name, value) in &spec.env {
                    packer.bytes(name.as_bytes()).bytes(value.as_bytes());
                }
                packer.bytes(spec.cwd.as_os_str().as_bytes());
                packer.number(u64::from(spec.user.is_some()));
                packer.bytes(spec.user.as_deref().unwrap_or_default().as_bytes());
                let (rows, columns) = spec.pty.unwrap_or_default();
                packer.number(u64::from(spec.pty.is_some())).number(rows.into()).number(columns.into());
                packer.number(u64::from(spec.merge_stderr));
            }
            Self::Kill { pid, signal } => {
                packer = Packer::new(2);
                packer.number(*pid as u64).number(*signal as u64);
            }
            Self::Socket { id, ipv6 } => {
                packer = Packer::new(3);
                packer.number(*id).number(u64::from(*ipv6));
            }
        }
        Ok(packer.finish(fds))
    }

    fn unpack(body: &[u8]) -> io::Result<Self> {
        let (kind, rest) = body.split_first().ok_or_else(|| malformed("empty"))?;
        let mut from = Unpacker(rest);
        Ok(match kind {
            0 => Self::Setup(serde_json::from_slice(&from.bytes()?)?),
            1 => {
                let id = from.number()?;
                let argv = from.many(Unpacker::os)?;
                let env = from.many(|one| Ok((one.os()?, one.os()?)))?;
                let cwd = PathBuf::from(from.os()?);
                let has_user = from.number()? != 0;
                let user = from.text()?;
                let has_pty = from.number()? != 0;
                let pty = (from.number()? as u16, from.number()? as u16);
                let merge_stderr = from.number()? != 0;
                let user = has_user.then_some(user);
                let pty = has_pty.then_some(pty);
                Self::Spawn { id, spec: ProcessSpec { argv, env, cwd, user, pty, merge_stderr } }
            }
            2 => Self::Kill { pid: from.int()?, signal: from.int()? },
            3 => Self::Socket { id: from.number()?, ipv6: from.number()? != 0 },
            _ => return Err(malformed("unknown request")),
        })
    }
}

impl Message for Reply {
    fn pack(&self, fds: usize) -> io::Result<Vec<u8>> {
        let mut packer;
        match self {
            Self::Ready(missing) => {
                packer = Packer::new(0);
                packer.number(missing.len() as u64);
                for sentence in missing {
                    packer.bytes(sentence.as_bytes());
                }
            }
            Self::Failed(message) => {
                packer = Packer::new(1);
                packer.bytes(message.as_bytes());
            }
            Self::Started { id, pid } => {
                packer = Packer::new(2);
                packer.number(*id).number(*pid as u64);
            }
            Self::Refused { id, message } => {
                packer = Packer::new(3);
                packer.number(*id).bytes(message.as_bytes());
            }
            Self::Exited { id, exit } => {
                packer = Packer::new(4);
                let (signaled, value) = match exit {
                    Exit::Code(code) => (0, *code),
                    Exit::Signal(signal) => (1, *signal),
                };
                packer.number(*id).number(signaled).number(value as u64);
            }
            Self::Socket { id } => {
                packer = Packer::new(5);
                packer.number(*id);
            }
        }
        Ok(packer.finish(fds))
    }

    fn unpack(body: &[u8]) -> io::Result<Self> {
        let (kind, rest) = body.split_first().ok_or_else(|| malformed("empty"))?;
        let mut from = Unpacker(rest);
        Ok(match kind {
            0 => Self::Ready(from.many(Unpacker::text)?),
            1 => Self::Failed(from.text()?),
            2 => Self::Started { id: from.number()?, pid: from.int()? },
            3 => Self::Refused { id: from.number()?, message: from.text()? },
            4 => {
                let id = from.number()?;
                let signaled = from.number()? != 0;
                let value = from.int()?;
                Self::Exited { id, exit: if signaled { Exit::Signal(value) } else { Exit::Code(value) } }
            }
            5 => Self::Socket { id: from.number()? },
            _ => return Err(malformed("unknown reply")),
        })
    }
}

/// Calls `sendmsg` once, with `fds` attached to the first byte. Returns how many of `bytes` were sent.
pub(crate) fn send_some(socket: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let control = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage] = if fds.is_empty() { &[] } else { &control };
    Ok(sendmsg::<UnixAddr>(socket, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?)
}

/// Sends a whole frame on a blocking socket.
pub(crate) fn send_blocking(socket: RawFd, message: &impl Message, fds: &[RawFd]) -> io::Result<()> {
    let frame = message.pack(fds.len())?;
    let mut sent = 0;
    while sent < frame.len() {
        match send_some(socket, &frame[sent..], if sent == 0 { fds } else { &[] }) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reassembles frames from the data that `recvmsg` returns.
#[derive(Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Inbox {
    /// Calls `recvmsg` once. Returns `false` at the end of the stream.
    pub(crate) fn receive_some(&mut self, socket: RawFd) -> io::Result<bool> {
        let mut buffer = [0u8; 32 * 1024];
        let (received, fds) = sys::receive::<MAX_FDS>(socket, &mut buffer)?;
        self.fds.extend(fds);
        self.bytes.extend_from_slice(&buffer[..received]);
        Ok(received != 0)
    }

    /// Removes the next frame from the buffer. Returns `None` if it is not complete yet.
    pub(crate) fn take<T: Message>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(head) = self.bytes.first_chunk::<8>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let fds = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_BODY || fds > MAX_FDS {
            return Err(malformed("out of bounds"));
        }
        let Some(body) = self.bytes.get(8..8 + length) else { return Ok(None) };
        if self.fds.len() < fds {
            return Err(malformed("descriptors are missing"));
        }
        let message = T::unpack(body)?;
        self.bytes.drain(..8 + length);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }

    /// Blocks until the next frame is complete. Returns `None` at the end of the stream.
    pub(crate) fn receive_blocking<T: Message>(
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
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Returns whether a string contains a zero byte, which makes it unusable for `exec`.
pub(crate) fn has_zero(text: &OsStr) -> bool {
    text.as_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spawn_survives_the_wire_byte_for_byte() {
        let spec = ProcessSpec {
            argv: vec!["sh".into(), OsString::from_vec(vec![0xff, 0xfe]), OsString::new()],
            env: vec![("A".into(), "b=c".into())],
            cwd: "/x".into(),
            user: Some(String::new()),
            pty: Some((24, 80)),
            merge_stderr: true,
        };
        let frame = Request::Spawn { id: 7, spec: spec.clone() }.pack(0).unwrap();
        let mut inbox = Inbox { bytes: frame[..20].to_vec(), fds: VecDeque::new() };
        assert!(inbox.take::<Request>().unwrap().is_none());
        inbox.bytes.extend_from_slice(&frame[20..]);
        let Some((Request::Spawn { id, spec: got }, _)) = inbox.take::<Request>().unwrap() else { panic!() };
        assert_eq!((id, got.argv, got.env, got.cwd), (7, spec.argv, spec.env, spec.cwd));
        assert_eq!((got.user, got.pty, got.merge_stderr), (spec.user, spec.pty, true));
    }

    #[test]
    fn a_frame_out_of_bounds_is_refused() {
        let mut inbox = Inbox { bytes: vec![0xff; 16], fds: VecDeque::new() };
        assert!(inbox.take::<Reply>().is_err());
        assert!(Reply::unpack(&[2, 1, 0]).is_err());
    }
}

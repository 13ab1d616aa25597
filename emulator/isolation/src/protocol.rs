//! The messages between the engine and a container's init, and their framing.
//!
//! Each container has one stream socket pair. A frame is a header of eight bytes (length of the body, number of
//! descriptors, both little endian) and a body. Descriptors are sent with the first byte of the header. The body is one
//! message in the format of the crate `postcard`: arguments and environments are arbitrary bytes, which JSON would have
//! to escape. Both ends are the same program, so the format need not stay compatible between versions.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::spec::{Bind, Exit, ProcessSpec};

/// Size of a frame's header, in bytes.
const HEADER: usize = 8;

/// Maximum number of descriptors in one frame: stdin, stdout, stderr.
const MAX_FDS: usize = 3;

/// Maximum size of a body, in bytes. Bodies contain arguments, environments and mount lists, which the kernel limits to
/// much less. A larger message is not sent, and a header that announces one is refused, so a broken peer cannot cause
/// large allocations.
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
#[derive(Debug, Serialize, Deserialize)]
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
#[derive(Debug, PartialEq, Serialize, Deserialize)]
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

/// A message that can be sent in a frame.
pub(crate) trait Message: Serialize + DeserializeOwned {}

impl Message for Request {}

impl Message for Reply {}

/// Serializes a message to a frame with header. `fds` is the number of descriptors that the caller attaches. Fails with
/// `InvalidInput` if the message is too large or contains a path that is not UTF-8 where only UTF-8 is possible.
pub(crate) fn pack(message: &impl Message, fds: usize) -> io::Result<Vec<u8>> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
    // Space for the header, which is filled in below.
    let mut frame = postcard::to_extend(message, vec![0; HEADER])
        .map_err(|error| invalid(format!("cannot encode a message: {error}")))?;
    let length = frame.len() - HEADER;
    if length > MAX_BODY {
        return Err(invalid(format!("a message has {length} bytes, more than the limit of {MAX_BODY}")));
    }
    frame[..4].copy_from_slice(&(length as u32).to_le_bytes());
    frame[4..HEADER].copy_from_slice(&(fds as u32).to_le_bytes());
    Ok(frame)
}

/// Parses a frame's body, all of which has to be one message.
fn unpack<T: Message>(body: &[u8]) -> io::Result<T> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(malformed("bytes after the message")),
        Err(error) => Err(malformed(&error.to_string())),
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
    let frame = pack(message, fds.len())?;
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
    pub(crate) fn receive_some(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut buffer = [0u8; 32 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut attached = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut buffer)];
        let received = recvmsg(socket, parts, &mut attached, RecvFlags::CMSG_CLOEXEC)?.bytes;
        for message in attached.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        self.bytes.extend_from_slice(&buffer[..received]);
        Ok(received != 0)
    }

    /// Removes the next frame from the buffer. Returns `None` if it is not complete yet.
    pub(crate) fn take<T: Message>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(head) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let fds = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if length > MAX_BODY || fds > MAX_FDS {
            return Err(malformed("out of bounds"));
        }
        let Some(body) = self.bytes.get(HEADER..HEADER + length) else { return Ok(None) };
        if self.fds.len() < fds {
            return Err(malformed("descriptors are missing"));
        }
        let message = unpack(body)?;
        self.bytes.drain(..HEADER + length);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }

    /// Blocks until the next frame is complete. Returns `None` at the end of the stream.
    pub(crate) fn receive_blocking<T: Message>(&mut self, socket: &impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            match self.receive_some(socket) {
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
    use std::{ffi::OsString, os::unix::ffi::OsStringExt};

    use super::*;

    #[test]
    fn a_spawn_survives_the_wire_byte_for_byte() {
        let spec = ProcessSpec {
            argv: vec!["sh".into(), OsString::from_vec(vec![0xff, 0xfe]), OsString::new()],
            env: vec![("A".into(), "b=c".into()), ("B".into(), OsString::from_vec(vec![0x80]))],
            cwd: OsString::from_vec(b"/x\xff".to_vec()).into(),
            user: Some(String::new()),
            pty: Some((24, 80)),
            merge_stderr: true,
        };
        let frame = pack(&Request::Spawn { id: 7, spec: spec.clone() }, 0).unwrap();
        let mut inbox = Inbox { bytes: frame[..20].to_vec(), fds: VecDeque::new() };
        assert!(inbox.take::<Request>().unwrap().is_none());
        inbox.bytes.extend_from_slice(&frame[20..]);
        let Some((Request::Spawn { id, spec: got }, _)) = inbox.take::<Request>().unwrap() else { panic!() };
        assert_eq!((id, got.argv, got.env, got.cwd), (7, spec.argv, spec.env, spec.cwd));
        assert_eq!((got.user, got.pty, got.merge_stderr), (spec.user, spec.pty, true));
    }

    #[test]
    fn replies_follow_each_other_in_one_buffer() {
        let replies = [
            Reply::Ready(vec!["no /dev/fuse".into()]),
            Reply::Failed("no space".into()),
            Reply::Started { id: u64::MAX, pid: i32::MAX },
            Reply::Socket { id: 1 },
            Reply::Refused { id: 2, message: "EAGAIN".into() },
            Reply::Exited { id: 3, exit: Exit::Signal(9) },
            Reply::Exited { id: 4, exit: Exit::Code(-1) },
        ];
        let mut inbox = Inbox::default();
        for reply in &replies {
            inbox.bytes.extend(pack(reply, 0).unwrap());
        }
        for reply in replies {
            assert_eq!(inbox.take::<Reply>().unwrap().unwrap().0, reply);
        }
        assert!(inbox.take::<Reply>().unwrap().is_none());
    }

    #[test]
    fn a_header_out_of_bounds_is_refused() {
        let header = |length: u32, fds: u32| {
            let bytes = [length.to_le_bytes(), fds.to_le_bytes()].concat();
            Inbox { bytes, fds: VecDeque::new() }.take::<Reply>().map(|frame| frame.is_some())
        };
        let kind = |result: io::Result<bool>| result.unwrap_err().kind();
        assert!(!header(MAX_BODY as u32, MAX_FDS as u32).unwrap(), "these are the limits themselves");
        assert_eq!(kind(header(MAX_BODY as u32 + 1, 0)), io::ErrorKind::InvalidData);
        assert_eq!(kind(header(1, MAX_FDS as u32 + 1)), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_malformed_body_is_refused() {
        let body = pack(&Reply::Refused { id: 300, message: "no".into() }, 0).unwrap().split_off(HEADER);
        unpack::<Reply>(&body).unwrap();
        let mut bodies: Vec<Vec<u8>> = (0..body.len()).map(|end| body[..end].to_vec()).collect();
        // A byte too many, an unknown kind of message, and a text of four billion bytes.
        bodies.push([&body[..], &[0]].concat());
        bodies.push(vec![200, 1]);
        bodies.push(vec![1, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        for body in bodies {
            assert_eq!(unpack::<Reply>(&body).unwrap_err().kind(), io::ErrorKind::InvalidData, "{body:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_large_is_not_sent() {
        let error = pack(&Reply::Failed("x".repeat(MAX_BODY)), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

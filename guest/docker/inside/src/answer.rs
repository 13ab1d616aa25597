//! Answers: the frames on standard output, and failures.
//!
//! A frame is a tag (1 byte), the length of the payload (4 bytes, big endian) and the payload. The last frame of a complete
//! answer is `.` or `E`.

use std::{fmt::Display, io};

use rustix::io::Errno;

/// Most bytes of data in one frame.
pub const MAX_DATA: usize = 64 * 1024;

/// Why a verb failed, as it is sent in an error frame.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure it is. The module documentation of the program lists the codes.
    pub code: String,
    /// The path, the id or the argument that it is about.
    pub subject: String,
    /// One sentence for users.
    pub message: String,
}

/// The result of everything that can fail with an error frame.
pub type Answer<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with any code.
    pub fn new(code: &str, subject: impl Display, message: impl Display) -> Self {
        // The subject is one line.
        let subject = subject.to_string().replace('\n', "\u{fffd}");
        Self { code: code.into(), subject, message: message.to_string() }
    }

    /// A wrong argument.
    pub fn invalid(subject: impl Display, message: impl Display) -> Self {
        Self::new("invalid", subject, message)
    }

    /// The helper cannot do its work.
    pub fn internal(subject: impl Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        if is_no_space(&error) {
            return Self::new("file:no-space", subject, "The disk of the sandbox is full.");
        }
        Self::new("internal", subject, format_args!("The helper in the sandbox failed: {error}."))
    }

    /// The payload of the error frame.
    pub fn payload(&self) -> String {
        format!("{}\n{}\n{}", self.code, self.subject, self.message)
    }

    /// Reads what [`Failure::payload`] wrote.
    pub fn of_payload(payload: &str) -> Self {
        let mut parts = payload.splitn(3, '\n');
        let mut next = || parts.next().unwrap_or_default().to_string();
        Self { code: next(), subject: next(), message: next() }
    }
}

/// Whether the disk is full, or a quota is used up.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// Writes one frame whose payload is `head` followed by `data`.
///
/// # Errors
///
/// Fails if the reader of standard output has gone.
pub fn send_parts(tag: u8, head: &[u8], data: &[u8]) -> Answer {
    let mut bytes = Vec::with_capacity(5 + head.len() + data.len());
    frame(&mut bytes, tag, head, data)?;
    write(&bytes)
}

/// Writes one frame.
///
/// # Errors
///
/// Fails if the reader of standard output has gone.
pub fn send(tag: u8, payload: impl AsRef<[u8]>) -> Answer {
    send_parts(tag, &[], payload.as_ref())
}

/// Writes the JSON of an answer and its end, at once: the sandbox may end right afterwards.
///
/// # Errors
///
/// Fails if the reader of standard output has gone.
pub fn send_json(json: &str) -> Answer {
    let mut bytes = Vec::with_capacity(10 + json.len());
    frame(&mut bytes, b'j', &[], json.as_bytes())?;
    frame(&mut bytes, b'.', &[], &[])?;
    write(&bytes)
}

fn frame(bytes: &mut Vec<u8>, tag: u8, head: &[u8], data: &[u8]) -> Answer {
    let length =
        u32::try_from(head.len() + data.len()).map_err(|_| Failure::internal("output", io::ErrorKind::InvalidInput))?;
    bytes.push(tag);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(data);
    Ok(())
}

/// Writes everything without the buffer of the standard library, which looks for the ends of lines.
fn write(mut bytes: &[u8]) -> Answer {
    while !bytes.is_empty() {
        match rustix::io::write(io::stdout(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::internal("output", error)),
        }
    }
    Ok(())
}

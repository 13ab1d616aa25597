//! The final status of a gRPC call: its codes, and how it is read from headers or trailers.

use std::{fmt, time::Duration};

use base64ct::{Base64Unpadded, Encoding as _};
use bytes::Bytes;

use crate::{
    call::failure::Failure,
    platform::{TransportError, TransportFault},
};

/// A status code of gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// All codes in the order of their numbers.
    pub(super) const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    /// Parses a `grpc-status` header value. Values that are not known codes become `Unknown`.
    fn read(text: &[u8]) -> Code {
        let number = match text {
            [ones @ b'0'..=b'9'] => ones - b'0',
            [b'1', ones @ b'0'..=b'9'] => 10 + ones - b'0',
            _ => u8::MAX,
        };
        Code::ALL.get(usize::from(number)).copied().unwrap_or(Code::Unknown)
    }

    /// Returns whether a call that ended with this code may have had its effect.
    pub(super) fn is_unclear(self) -> bool {
        matches!(
            self,
            Code::DeadlineExceeded
                | Code::Unavailable
                | Code::Ok
                | Code::Cancelled
                | Code::Unknown
                | Code::Internal
                | Code::DataLoss
        )
    }

    /// Returns the code for a response without a gRPC status, according to gRPC's table of HTTP statuses.
    pub(super) fn of_http(status: u16) -> Code {
        match status {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        }
    }
}

/// The failure of a call. The fields are boxed, because every future here contains results.
#[derive(Debug, Clone)]
pub struct Status(Box<Parts>);

#[derive(Debug, Clone)]
struct Parts {
    code: Code,
    message: String,
    details: Bytes,
    fault: Option<TransportFault>,
    earlier: bool,
}

impl Status {
    /// Makes a status with this code and message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Status {
        Status(Box::new(Parts { code, message: message.into(), details: Bytes::new(), fault: None, earlier: false }))
    }

    /// Makes a status with the code `Internal`, for a violation of the protocol.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Status {
        Status::new(Code::Internal, message)
    }

    /// Makes a status with the code `Unavailable`, for an incomplete response.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Status {
        Status::new(Code::Unavailable, message)
    }

    /// Reads the status from headers or trailers, which `header` looks up by name. Returns `None` if they contain no
    /// status.
    pub(super) fn read(header: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Result<(), Status>> {
        let code = Code::read(&header("grpc-status")?);
        if code == Code::Ok {
            return Some(Ok(()));
        }
        let mut status = Status::new(code, unescaped(&header("grpc-message").unwrap_or_default()));
        // Details that cannot be decoded are dropped. They only add to the code and the message. Servers send them with
        // and without padding.
        let details = header("grpc-status-details-bin")
            .and_then(|bytes| Base64Unpadded::decode_vec(str::from_utf8(&bytes).ok()?.trim_end_matches('=')).ok());
        status.0.details = details.unwrap_or_default().into();
        Some(Err(status))
    }

    /// Returns the code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the encoded `google.rpc.Status`. Empty if the server sent none.
    #[must_use]
    pub fn details(&self) -> &Bytes {
        &self.0.details
    }

    /// Returns the transport failure, or `None` if the server responded.
    #[must_use]
    pub fn fault(&self) -> Option<TransportFault> {
        self.0.fault
    }
}

impl Failure for Status {
    fn timed_out(limit: Duration) -> Status {
        Status::new(Code::DeadlineExceeded, format!("no response within {} ms", limit.as_millis()))
    }

    fn is_retryable(&self) -> bool {
        self.fault() != Some(TransportFault::Forbidden)
            && matches!(
                self.code(),
                Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled | Code::Internal | Code::Unknown
            )
    }

    fn is_refused(&self) -> bool {
        self.fault() == Some(TransportFault::NotSent)
    }

    fn is_unauthenticated(&self) -> bool {
        self.code() == Code::Unauthenticated
    }

    fn is_throttled(&self) -> bool {
        self.code() == Code::ResourceExhausted
    }

    fn may_have_happened(&self) -> bool {
        let now = match self.fault() {
            Some(TransportFault::Forbidden | TransportFault::NotSent) => false,
            Some(TransportFault::Broken) => true,
            None => self.code().is_unclear(),
        };
        now || self.had_earlier()
    }

    fn had_earlier(&self) -> bool {
        self.0.earlier
    }

    fn mark_earlier(&mut self) {
        self.0.earlier = true;
    }

    fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl From<TransportError> for Status {
    fn from(error: TransportError) -> Status {
        let mut status = Status::unavailable(error.message);
        status.0.fault = Some(error.kind);
        status
    }
}

/// Decodes `%` escapes. An incomplete or invalid escape is kept.
fn unescaped(text: &[u8]) -> String {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = text.get(at) {
        let escaped = digit(at + 1).zip(digit(at + 2)).filter(|_| byte == b'%');
        bytes.push(escaped.map_or(byte, |(high, low)| (high << 4 | low) as u8));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

//! A gRPC client over the transport. It sends and receives encoded messages, so all methods share one code path; a
//! generated client per method would make a component three times as large. [`crate::call::endpoint`] adds access
//! tokens.
//!
//! The same parser reads gRPC-Web, in which the trailers are the last frame of the body. This module does not use
//! tonic, whose HTTP types made up a sixth of the component.

mod error;
mod status;

use std::{
    iter,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    stream::{self, LocalBoxStream},
};
use prost::Message;

pub use self::status::{Code, Status};
use crate::platform::{Body, Frame, Head, Headers, Method, Request, Transport, Url, is_header_text};

/// Largest message that this client sends or accepts, in bytes. Services allow messages of up to 100 MiB; the usual
/// default of 4 MiB would reject them.
pub const MAX_MESSAGE_BYTES: usize = 100 * 1024 * 1024;

/// Longest gRPC-Web trailers that are accepted, in bytes. They contain a status, its text and its details.
const MAX_TRAILER_BYTES: usize = 64 * 1024;

/// Length of the header of a frame: one byte of flags and four bytes of length.
const HEAD: usize = 5;

/// The flag of a gRPC-Web frame that contains trailers.
const TRAILERS: u8 = 0x80;

/// HTTP statuses of servers and load balancers that refuse HTTP/1.1: "Upgrade Required", an incompatible protocol version,
/// and "HTTP Version Not Supported".
const OTHER_VERSION: [u16; 3] = [426, 464, 505];

/// What a user must do on a host that speaks only HTTP/1.1. It drops trailers, or the server refuses it.
const GATEWAY_HINT: &str =
    ": a host that speaks only HTTP/1.1 needs `sandbox-host gateway`, and the plugin all variables that it prints";

/// The encoding of gRPC in HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// gRPC, for hosts that support HTTP/2.
    Grpc,
    /// gRPC-Web, whose trailers are at the end of the body. For hosts that support only HTTP/1.1 and connect to a
    /// gateway.
    GrpcWeb,
}

/// A transport and the encoding of gRPC on it.
#[derive(Clone)]
pub struct Channel {
    /// The transport that sends the requests.
    pub transport: Rc<dyn Transport>,
    /// The encoding.
    pub wire: Wire,
}

/// A call: its messages and headers.
pub struct Call {
    /// Headers with names in lower case.
    headers: Vec<(&'static str, String)>,
    message: Bytes,
    /// Further messages of a request stream.
    more: Box<dyn Iterator<Item = Framed>>,
}

impl Call {
    /// Makes a call with one message and an optional deadline, which is sent as the header `grpc-timeout`.
    #[must_use]
    pub fn new(message: Bytes, deadline: Option<Duration>) -> Call {
        let mut headers = Vec::new();
        if let Some(deadline) = deadline {
            // The value has at most eight digits. Milliseconds are used as long as they fit.
            let millis = deadline.as_millis();
            let text = if millis < 100_000_000 {
                format!("{millis}m")
            } else {
                format!("{}S", deadline.as_secs().min(99_999_999))
            };
            headers.push(("grpc-timeout", text));
        }
        Call { headers, message, more: Box::new(iter::empty()) }
    }

    /// Adds messages after the first one. Each is made when it can be sent.
    #[must_use]
    pub fn followed_by(self, more: impl Iterator<Item = Framed> + 'static) -> Call {
        Call { more: Box::new(more), ..self }
    }

    /// Adds a header. `name` is in lower case.
    ///
    /// # Errors
    ///
    /// `Internal` if the value has characters that a header cannot contain.
    pub fn header(&mut self, name: &'static str, value: impl Into<String>) -> Result<(), Status> {
        let value = value.into();
        if !is_header_text(&value) {
            return Err(Status::internal("a header value is not ASCII"));
        }
        self.headers.push((name, value));
        Ok(())
    }
}

/// Makes a call with one response message.
///
/// # Errors
///
/// The status of the server if it is not `Ok`. `Internal` if there is no message or the response is malformed,
/// `OutOfRange` if a message is larger than [`MAX_MESSAGE_BYTES`], `Unavailable` if the connection failed or the
/// response is cut off. A response without a gRPC status whose HTTP status is not 200 gets the code that gRPC assigns
/// to that HTTP status.
pub async fn unary(channel: Channel, origin: Url, path: &'static str, call: Call) -> Result<Bytes, Status> {
    let mut answers = open(channel, origin, path, call).await?;
    let answer = answers.next().await.ok_or_else(|| Status::internal("The response contains no message."))??;
    // The message is valid only if the status after it is `Ok`.
    while let Some(more) = answers.next().await {
        more?;
    }
    Ok(answer)
}

/// The response messages of a server stream.
pub type Messages = LocalBoxStream<'static, Result<Bytes, Status>>;

/// Opens a server stream and resolves when the head of the response has been received. The status of a rejected call
/// may be the first item of the stream.
///
/// # Errors
///
/// The errors of [`unary`] that occur before the first message.
pub async fn server_stream(channel: Channel, url: Url, path: &'static str, call: Call) -> Result<Messages, Status> {
    Ok(open(channel, url, path, call).await?.boxed_local())
}

/// Opens a server stream like [`server_stream`], but returns the status of a rejected call as an error if it is in the
/// head of the response.
///
/// # Errors
///
/// The errors of [`unary`] that occur before the first message.
pub async fn willing_stream(channel: Channel, url: Url, path: &'static str, call: Call) -> Result<Messages, Status> {
    let answers = open(channel, url, path, call).await?;
    answers.said_before().transpose()?;
    Ok(answers.boxed_local())
}

async fn open(channel: Channel, mut url: Url, path: &'static str, call: Call) -> Result<Answers, Status> {
    let Call { mut headers, message, more } = call;
    let web = channel.wire == Wire::GrpcWeb;
    headers.push(("te", "trailers".to_string()));
    headers.push(("content-type", if web { "application/grpc-web" } else { "application/grpc" }.to_string()));
    // The path of the address is the prefix of the service.
    let base = url.path.split('?').next().unwrap_or_default();
    url.path = format!("{}{path}", base.trim_end_matches('/'));
    let first = stream::iter([Ok(Frame::Data(framed(&message)?))]);
    let more = more.map(|Framed(message)| Ok(Frame::Data(message)));
    let body = Box::pin(first.chain(stream::iter(more)));
    let response = channel.transport.send(Request { method: Method::Post, url, headers, body }).await?;
    let answers = Answers {
        head: response.head,
        body: response.body,
        web,
        rest: Bytes::new(),
        frame: Vec::new(),
        ended: false,
        told: false,
        status: None,
    };
    if response.status != 200 && answers.said_before().transpose()?.is_none() {
        let mut message = format!("the server answered with HTTP status {}", response.status);
        if !web && OTHER_VERSION.contains(&response.status) {
            message += GATEWAY_HINT;
        }
        return Err(Status::new(Code::of_http(response.status), message));
    }
    Ok(answers)
}

/// An encoded message with its frame header.
pub struct Framed(Bytes);

impl Framed {
    /// Encodes a message, which must be well below 4 GiB: its length is not checked.
    #[must_use]
    pub fn new(message: &impl Message) -> Framed {
        let length = message.encoded_len();
        let mut bytes = Vec::with_capacity(HEAD + length);
        bytes.push(0);
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        message.encode_raw(&mut bytes);
        Framed(bytes.into())
    }
}

fn framed(message: &[u8]) -> Result<Bytes, Status> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(too_large("request", message.len()));
    }
    let mut bytes = Vec::with_capacity(HEAD + message.len());
    bytes.push(0);
    bytes.extend_from_slice(&(message.len() as u32).to_be_bytes());
    bytes.extend_from_slice(message);
    Ok(bytes.into())
}

#[cold]
fn too_large(what: &str, length: usize) -> Status {
    Status::new(
        Code::OutOfRange,
        format!("the {what} is a message of {length} bytes; the limit is {MAX_MESSAGE_BYTES}"),
    )
}

/// Decodes a message.
///
/// # Errors
///
/// `Internal` if the bytes are not an encoded message of this type.
pub fn decode<A: Message + Default>(bytes: Bytes) -> Result<A, Status> {
    A::decode(bytes).map_err(|error| strange_answer(&error))
}

#[cold]
fn strange_answer(error: &prost::DecodeError) -> Status {
    Status::internal(format!("the response is malformed: {error}"))
}

/// The messages of a response, in order.
struct Answers {
    /// The headers, which contain the status if the response has no messages.
    head: Head,
    body: Body,
    web: bool,
    /// Received bytes that are not parsed yet.
    rest: Bytes,
    /// The received part of the current frame, with its header.
    frame: Vec<u8>,
    /// The end of the body has been reached.
    ended: bool,
    /// The end or an error has been returned to the caller.
    told: bool,
    /// The final status, from its arrival until it is returned.
    status: Option<Result<(), Status>>,
}

impl Answers {
    /// Returns the next message of the received bytes. Returns `None` if more bytes are needed or the last message was
    /// returned.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        while !self.ended {
            let mut wanted = HEAD;
            if let Some((head, _)) = self.frame.split_first_chunk::<HEAD>() {
                let [flags, length @ ..] = *head;
                let length = u32::from_be_bytes(length) as usize;
                let trailers = self.web && flags & TRAILERS != 0;
                if trailers && length > MAX_TRAILER_BYTES {
                    return Err(Status::internal(format!(
                        "the trailers of the response have {length} bytes, which is too many"
                    )));
                }
                if !trailers && flags != 0 {
                    let why = if flags == 1 { "is compressed, which was not requested" } else { "is not gRPC" };
                    return Err(Status::internal(format!("the response {why}")));
                }
                if !trailers && length > MAX_MESSAGE_BYTES {
                    return Err(too_large("answer", length));
                }
                wanted += length;
                if self.frame.len() == wanted {
                    let frame = Bytes::from(std::mem::take(&mut self.frame)).slice(HEAD..);
                    if !trailers {
                        return Ok(Some(frame));
                    }
                    self.end(&parse(&frame)?);
                    break;
                }
            }
            if self.rest.is_empty() {
                break;
            }
            let piece = self.rest.split_to(self.rest.len().min(wanted - self.frame.len()));
            self.frame.extend_from_slice(&piece);
        }
        Ok(None)
    }

    /// Ends the body with these trailers.
    fn end(&mut self, trailers: &Headers) {
        self.ended = true;
        self.status = Status::read(|name| trailers.get(name).map(<[u8]>::to_vec));
    }

    /// Returns the final status if it is in the headers.
    fn said_before(&self) -> Option<Result<(), Status>> {
        Status::read(|name| self.head.get(name))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.ended {
                let whole = self.frame.is_empty();
                return Poll::Ready(match self.status.take().or_else(|| self.said_before()) {
                    Some(Err(status)) => Err(status),
                    Some(Ok(())) if whole => Ok(None),
                    // A connection that broke would have ended the body with an error.
                    None if whole && !self.web => {
                        Err(Status::unavailable(["the response has no trailers", GATEWAY_HINT].concat()))
                    }
                    _ => Err(Status::unavailable("the response is incomplete")),
                });
            }
            match ready!(self.body.as_mut().poll_next(cx)) {
                Some(Ok(Frame::Data(data))) => self.rest = data,
                Some(Ok(Frame::Trailers(trailers))) => self.end(&trailers),
                Some(Err(text)) => return Poll::Ready(Err(Status::unavailable(text))),
                None => self.ended = true,
            }
        }
    }
}

impl Stream for Answers {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.told {
            return Poll::Ready(None);
        }
        let item = ready!(self.poll(cx)).transpose();
        self.told = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

/// Parses the trailers of gRPC-Web: lines of the form `name: value`.
fn parse(block: &[u8]) -> Result<Headers, Status> {
    let mut trailers = Headers::default();
    for line in block.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii());
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty()
            || !name.iter().all(is_name)
            || value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(Status::internal("the trailers of the response are malformed"));
        }
        trailers.0.push((String::from_utf8_lossy(name).into_owned(), value.to_vec()));
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{LocalFuture, Response, Sending, TransportError, TransportFault};
    use futures_util::FutureExt as _;
    use std::cell::RefCell;

    /// A transport with one response, which records the request.
    struct Once(RefCell<Option<Result<Response, TransportError>>>, RefCell<Option<Request>>);

    impl Transport for Once {
        fn send(&self, request: Request) -> Sending {
            *self.1.borrow_mut() = Some(request);
            let answer = self.0.borrow_mut().take().expect("one request");
            Box::pin(async move { answer })
        }

        fn sleep(&self, _: Duration) -> LocalFuture<'static, ()> {
            Box::pin(std::future::pending())
        }

        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn random(&self) -> [u8; 16] {
            [0; 16]
        }

        fn env(&self, _: &str) -> Option<String> {
            None
        }

        fn tell(&self, _: &str) {}
    }

    fn headers(lines: &[(&str, &str)]) -> Headers {
        Headers(lines.iter().map(|(name, value)| ((*name).to_string(), value.as_bytes().to_vec())).collect())
    }

    fn answer(status: u16, head: &[(&str, &str)], frames: Vec<Result<Frame, String>>) -> Response {
        Response { status, head: headers(head).into(), body: Box::pin(stream::iter(frames)) }
    }

    /// Returns the request, the response messages and the final status.
    fn ask(
        wire: Wire,
        url: &str,
        call: Call,
        answer: Result<Response, TransportError>,
    ) -> (Option<Request>, Vec<Bytes>, Result<(), Status>) {
        let once = Rc::new(Once(RefCell::new(Some(answer)), RefCell::default()));
        let channel = Channel { transport: once.clone(), wire };
        let mut messages = Vec::new();
        let ended = async {
            let mut answers = server_stream(channel, Url::parse(url).expect("a URL"), "/s/m", call).await?;
            while let Some(item) = answers.next().await {
                match item {
                    Ok(message) => messages.push(message),
                    Err(status) => {
                        assert!(answers.next().await.is_none(), "an error is the last");
                        return Err(status);
                    }
                }
            }
            assert!(answers.next().await.is_none(), "the end stays the end");
            Ok(())
        };
        let ended = ended.now_or_never().expect("it is all there");
        (once.1.take(), messages, ended)
    }

    fn call() -> Call {
        Call::new(Bytes::from_static(b"question"), None)
    }

    /// Reads these bytes in pieces of `size` bytes. Returns the messages and the final status.
    fn read(wire: Wire, bytes: &[u8], size: usize, end: Option<&[(&str, &str)]>) -> (Vec<Vec<u8>>, Result<(), Status>) {
        let mut frames: Vec<_> = bytes.chunks(size).map(|piece| Ok(Frame::Data(piece.to_vec().into()))).collect();
        frames.extend(end.map(|end| Ok(Frame::Trailers(headers(end)))));
        let (_, messages, ended) = ask(wire, "http://a", call(), Ok(answer(200, &[], frames)));
        (messages.into_iter().map(|message| message.to_vec()).collect(), ended)
    }

    const MESSAGES: &[u8] = &[0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'c'];
    const BORDERS: [usize; 4] = [0, 7, 12, 18];

    fn block(text: &[u8]) -> Vec<u8> {
        [&[TRAILERS, 0, 0, 0, u8::try_from(text.len()).unwrap()][..], text].concat()
    }

    #[test]
    fn messages_are_put_together_however_they_come() {
        for size in [1, 2, 3, 7, 1000] {
            let (messages, ended) = read(Wire::Grpc, MESSAGES, size, Some(&[("grpc-status", "0")]));
            assert!(ended.is_ok());
            assert_eq!(messages, [&b"ab"[..], b"", b"c"], "{size}");
            // Without a status, or in the middle of a message, the response is cut off. Complete messages are still
            // returned.
            for end in 0..=MESSAGES.len() {
                let whole = BORDERS.iter().filter(|border| **border <= end).count() - 1;
                let (messages, ended) = read(Wire::Grpc, &MESSAGES[..end], size, None);
                assert_eq!((messages.len(), ended.unwrap_err().code()), (whole, Code::Unavailable), "{end}");
                let (messages, ended) = read(Wire::Grpc, &MESSAGES[..end], size, Some(&[("grpc-status", "0")]));
                assert_eq!((messages.len(), ended.is_ok()), (whole, BORDERS.contains(&end)), "{end}");
                let (_, ended) = read(Wire::Grpc, &MESSAGES[..end], size, Some(&[("grpc-status", "5")]));
                assert_eq!(ended.unwrap_err().code(), Code::NotFound, "{end}");
            }
        }
    }

    #[test]
    fn the_last_frame_of_grpc_web_is_the_trailers() {
        let good = [MESSAGES, &block(b"grpc-status:0\r\n")].concat();
        let bad = [MESSAGES, &block(b"grpc-status: 5\r\ngrpc-message:a:b\r\n")].concat();
        for size in [1, 2, 3, 7, 1000] {
            let (messages, ended) = read(Wire::GrpcWeb, &good, size, None);
            assert!(ended.is_ok() && messages == [&b"ab"[..], b"", b"c"], "{size}");
            let (messages, ended) = read(Wire::GrpcWeb, &bad, size, None);
            let status = ended.unwrap_err();
            assert_eq!((messages.len(), status.code(), status.message()), (3, Code::NotFound, "a:b"), "{size}");
            // Cut off at any byte, the response is an error.
            for end in 0..good.len() {
                let (_, ended) = read(Wire::GrpcWeb, &good[..end], size, None);
                assert_eq!(ended.unwrap_err().code(), Code::Unavailable, "{end}");
            }
        }
        // In gRPC the trailer frame is invalid. In gRPC-Web, bytes after it are ignored.
        assert_eq!(read(Wire::Grpc, &good, 7, None).1.unwrap_err().code(), Code::Internal);
        assert!(read(Wire::GrpcWeb, &[&good[..], b"more"].concat(), 7, None).1.is_ok());
    }

    #[test]
    fn what_is_no_trailer_is_refused() {
        for bad in [&b"no colon"[..], b"a b: c\r\n", b"x: \x01\r\n", b": c\r\n"] {
            let (_, ended) = read(Wire::GrpcWeb, &block(bad), 100, None);
            assert_eq!(ended.unwrap_err().code(), Code::Internal, "{bad:?}");
        }
        let (_, ended) = read(Wire::GrpcWeb, &[TRAILERS, 0xff, 0xff, 0xff, 0xff], 100, None);
        assert_eq!(
            ended.unwrap_err().message(),
            "the trailers of the response have 4294967295 bytes, which is too many"
        );
        let (_, ended) = read(Wire::GrpcWeb, &block(b"\r\n grpc-status :0\r\n"), 100, None);
        assert!(ended.is_err(), "a name ends at its colon");
        assert!(read(Wire::GrpcWeb, &block(b"GRPC-Status: 0\n\nx:\ty \n"), 100, None).1.is_ok());
    }

    #[test]
    fn strange_frames_are_refused_before_they_are_read() {
        let most = u32::try_from(MAX_MESSAGE_BYTES).unwrap().to_be_bytes();
        let over = u32::try_from(MAX_MESSAGE_BYTES + 1).unwrap().to_be_bytes();
        for wire in [Wire::Grpc, Wire::GrpcWeb] {
            let code = |flags: u8, length: [u8; 4]| {
                read(wire, &[&[flags][..], &length].concat(), 100, None).1.unwrap_err().code()
            };
            assert_eq!(code(0, most), Code::Unavailable, "it may come, and is cut off");
            assert_eq!(code(0, over), Code::OutOfRange);
            assert_eq!(code(1, [0; 4]), Code::Internal);
            assert_eq!(code(0x3c, [0; 4]), Code::Internal);
        }
        let large = Call::new(vec![0; MAX_MESSAGE_BYTES + 1].into(), None);
        let (asked, _, ended) = ask(Wire::Grpc, "http://a", large, Ok(answer(200, &[], Vec::new())));
        assert!(asked.is_none(), "nothing is sent");
        assert_eq!(ended.unwrap_err().code(), Code::OutOfRange);
    }

    /// A host that speaks only HTTP/1.1 drops the trailers, or the server refuses the request.
    #[test]
    fn lost_trailers_are_explained_by_the_gateway() {
        let hint = |ended: Result<(), Status>| {
            let status = ended.unwrap_err();
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            status.message().contains("`sandbox-host gateway`")
        };
        assert!(hint(read(Wire::Grpc, MESSAGES, 7, None).1));
        assert!(hint(read(Wire::Grpc, &[], 7, None).1));
        // In the middle of a message, and with a gateway, the connection broke.
        assert!(!hint(read(Wire::Grpc, &MESSAGES[..6], 7, None).1));
        assert!(!hint(read(Wire::GrpcWeb, MESSAGES, 7, None).1));
        for (http, wire, named) in [
            (426, Wire::Grpc, true),
            (464, Wire::Grpc, true),
            (505, Wire::Grpc, true),
            (426, Wire::GrpcWeb, false),
            (404, Wire::Grpc, false),
        ] {
            let status = ask(wire, "http://a", call(), Ok(answer(http, &[], Vec::new()))).2.unwrap_err();
            assert_eq!(status.message().contains("`sandbox-host gateway`"), named, "{http}: {}", status.message());
        }
    }

    #[test]
    fn the_status_may_stand_in_the_head() {
        let ended = |status: u16, head: &[(&str, &str)], frames| {
            ask(Wire::Grpc, "http://a", call(), Ok(answer(status, head, frames))).2
        };
        let status = ended(200, &[("grpc-status", "7"), ("grpc-message", "no")], Vec::new()).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no"));
        assert!(ended(200, &[("grpc-status", "0")], Vec::new()).is_ok());
        // The HTTP status is used if there is no gRPC status.
        for (http, code) in [
            (400, Code::Internal),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::Unimplemented),
            (429, Code::Unavailable),
            (500, Code::Unknown),
            (502, Code::Unavailable),
            (503, Code::Unavailable),
            (504, Code::Unavailable),
        ] {
            assert_eq!(ended(http, &[], Vec::new()).unwrap_err().code(), code, "{http}");
            let status = ended(http, &[("grpc-status", "5")], Vec::new()).unwrap_err();
            assert_eq!(status.code(), Code::NotFound, "{http}");
        }
        let broken = ended(200, &[], vec![Err("torn".to_string())]).unwrap_err();
        assert_eq!((broken.code(), broken.message(), broken.fault()), (Code::Unavailable, "torn", None));
    }

    #[test]
    fn a_status_is_read_as_it_is_meant() {
        let read = |lines: &[(&str, &str)]| Status::read(|name| headers(lines).get(name).map(<[u8]>::to_vec));
        assert!(read(&[("grpc-message", "x")]).is_none());
        for (text, code) in [
            ("1", Code::Cancelled),
            ("9", Code::FailedPrecondition),
            ("10", Code::Aborted),
            ("16", Code::Unauthenticated),
            ("17", Code::Unknown),
            ("99", Code::Unknown),
            ("016", Code::Unknown),
            ("", Code::Unknown),
            ("-1", Code::Unknown),
            ("x", Code::Unknown),
        ] {
            assert_eq!(read(&[("grpc-status", text)]).unwrap().unwrap_err().code(), code, "{text:?}");
        }
        assert!(Code::ALL.iter().zip(0..).all(|(code, number)| *code as u8 == number));
        for (text, message) in [
            ("a%20b%25", "a b%"),
            ("%C3%A4%e2%82%ac", "ä€"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%ff", "\u{fffd}"),
        ] {
            let status = read(&[("grpc-status", "2"), ("grpc-message", text)]).unwrap().unwrap_err();
            assert_eq!(status.message(), message, "{text}");
        }
        for (text, details) in [("YWI", &b"ab"[..]), ("YWI=", b"ab"), ("%%", b""), ("", b"")] {
            let status = read(&[("grpc-status", "2"), ("grpc-status-details-bin", text)]).unwrap().unwrap_err();
            assert_eq!(status.details(), details, "{text}");
        }
    }

    #[test]
    fn a_call_is_put_into_http() {
        let good = || Ok(answer(200, &[("grpc-status", "0")], Vec::new()));
        for (wire, kind) in [(Wire::Grpc, "application/grpc"), (Wire::GrpcWeb, "application/grpc-web")] {
            let mut call = Call::new(Bytes::from_static(b"question"), Some(Duration::from_millis(1500)));
            call.header("x-a", "b").unwrap();
            assert!(call.header("x-b", "ä").is_err() && call.header("x-c", "a\nb").is_err());
            let (asked, ..) = ask(wire, "https://a:1/base/?q", call, good());
            let asked = asked.expect("a request");
            assert_eq!((asked.method, asked.url.to_string()), (Method::Post, "https://a:1/base/s/m".to_string()));
            let header =
                |name: &str| asked.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| &value[..]);
            assert_eq!(header("content-type"), Some(kind));
            assert_eq!(header("te"), Some("trailers"));
            assert_eq!(header("grpc-timeout"), Some("1500m"));
            assert_eq!(header("x-a"), Some("b"));
            assert_eq!(asked.headers.len(), 4);
            let body: Vec<_> = asked.body.map(Result::unwrap).collect().now_or_never().unwrap();
            assert_eq!(body, [Frame::Data(Bytes::from_static(b"\0\0\0\0\x08question"))]);
        }
        let many = call().followed_by(["a", ""].into_iter().map(|text| Framed::new(&text.to_string())));
        let body = ask(Wire::Grpc, "http://a", many, good()).0.expect("a request").body;
        let body: Vec<_> = body.map(Result::unwrap).collect().now_or_never().unwrap();
        let frames = [&b"\0\0\0\0\x08question"[..], b"\0\0\0\0\x03\n\x01a", b"\0\0\0\0\0"];
        assert_eq!(body, frames.map(|frame| Frame::Data(Bytes::from_static(frame))));
        let long = Call::new(Bytes::new(), Some(Duration::from_secs(200_000)));
        assert_eq!(long.headers, [("grpc-timeout", "200000S".to_string())]);
    }

    #[test]
    fn a_unary_call_needs_a_message_and_a_good_end() {
        let unary = |bytes: &'static [u8], end: &[(&str, &str)]| {
            let frames = vec![Ok(Frame::Data(bytes.into())), Ok(Frame::Trailers(headers(end)))];
            let answer = Ok(answer(200, &[], frames));
            let channel =
                Channel { transport: Rc::new(Once(RefCell::new(Some(answer)), RefCell::default())), wire: Wire::Grpc };
            unary(channel, Url::parse("http://a").unwrap(), "/s/m", call()).now_or_never().expect("it is all there")
        };
        let message = b"\0\0\0\0\x01a";
        assert_eq!(unary(message, &[("grpc-status", "0")]).unwrap(), "a");
        assert_eq!(unary(message, &[("grpc-status", "8")]).unwrap_err().code(), Code::ResourceExhausted);
        assert_eq!(unary(message, &[]).unwrap_err().code(), Code::Unavailable);
        assert_eq!(unary(b"", &[("grpc-status", "0")]).unwrap_err().message(), "The response contains no message.");
    }

    #[test]
    fn a_request_that_gets_no_answer_says_why() {
        let error = TransportError { kind: TransportFault::NotSent, message: "connection refused".to_string() };
        let status = ask(Wire::Grpc, "http://a", call(), Err(error)).2.unwrap_err();
        assert_eq!((status.fault(), status.message()), (Some(TransportFault::NotSent), "connection refused"));
        assert_eq!(status.code(), Code::Unavailable);
    }
}

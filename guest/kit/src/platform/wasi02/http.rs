//! Outbound `wasi:http` as futures and bodies. Buffers at most one frame: a separate task sends the request body while
//! the response is read.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt as _, Stream, StreamExt as _};
use wasip2::{
    http::{
        outgoing_handler,
        types::{self as wasi, ErrorCode, Fields, FutureTrailers, IncomingBody, OutgoingBody, OutgoingRequest, Scheme},
    },
    io::streams::{InputStream, OutputStream, StreamError},
};

use super::reactor::{Readiness, spawn};
use crate::platform::{
    Body, Frame, Head, Headers, LocalFuture, Method, Request, Response, TransportError, TransportFault,
};

/// Largest piece of one read, in bytes: the usual read-ahead of an HTTP/2 stream in the host.
const READ_BYTES: u64 = 256 * 1024;

/// Sends a request and resolves when the head of the response has been received.
///
/// # Errors
///
/// Fails if the request has an invalid part, the host refuses it, or no response arrives.
pub async fn send(request: Request) -> Result<Response, TransportError> {
    let outgoing = outgoing_request(&request)?;
    let outgoing_body = outgoing.body().map_err(|()| local("the request has no body"))?;
    let mut body: LocalFuture<'static, ()> = Box::pin(send_body(outgoing_body, request.body));
    // A small body is written completely before the request is sent, so that the host sends both together.
    let sent = body.as_mut().now_or_never().is_some();
    let response = outgoing_handler::handle(outgoing, None).map_err(transport_error)?;
    if !sent {
        spawn(body);
    }

    let mut readiness = Readiness::default();
    let incoming = loop {
        poll_fn(|cx| readiness.poll(cx, false, &|| response.subscribe())).await;
        match response.get() {
            Some(Ok(Ok(incoming))) => break incoming,
            Some(Ok(Err(code))) => return Err(transport_error(code)),
            Some(Err(())) => return Err(local("the response was taken twice")),
            None => {}
        }
    };
    drop(readiness);

    let status = incoming.status();
    let body = incoming.consume().map_err(|()| local("the response has no body"))?;
    let stream = body.stream().map_err(|()| local("the response's body was taken twice"))?;
    let state = BodyState::Data(Data { readiness: Readiness::default(), stream, body });
    let head = Head::new(move |name| incoming.headers().get(name).into_iter().next());
    Ok(Response { status, head, body: Box::pin(ResponseBody { state }) })
}

fn outgoing_request(request: &Request) -> Result<OutgoingRequest, TransportError> {
    let bytes = |(name, value): &(&str, String)| (name.to_string(), value.as_bytes().to_vec());
    let lines: Vec<_> = request.headers.iter().map(bytes).collect();
    let fields = Fields::from_list(&lines).unwrap_or_else(|_| {
        // The host sets headers such as `content-length` itself and refuses a list that contains them. Added one by
        // one, only the refused headers are lost.
        let fields = Fields::new();
        for (name, value) in &lines {
            let _ = fields.append(name, value);
        }
        fields
    });
    let outgoing = OutgoingRequest::new(fields);
    let method = match request.method {
        Method::Get => wasi::Method::Get,
        Method::Head => wasi::Method::Head,
        Method::Post => wasi::Method::Post,
        Method::Put => wasi::Method::Put,
        Method::Patch => wasi::Method::Patch,
        Method::Delete => wasi::Method::Delete,
        Method::Options => wasi::Method::Options,
    };
    let url = &request.url;
    let scheme = if url.secure { Scheme::Https } else { Scheme::Http };
    let set = outgoing
        .set_method(&method)
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(Some(&url.authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&url.path)));
    // The message does not contain the rest of the address, which may be signed.
    set.map_err(|()| local(&format!("{} is not a valid address", url.host())))?;
    Ok(outgoing)
}

/// Reads the trailers: only `grpc-status` after a success, all of them otherwise. Reading one trailer takes a dozen
/// calls to the host.
fn trailer_lines(fields: &Fields) -> Headers {
    const STATUS: &str = "grpc-status";
    let status = fields.get(STATUS);
    if status == [b"0"] { Headers(vec![(STATUS.to_string(), b"0".to_vec())]) } else { Headers(fields.entries()) }
}

/// Writes the request body frame by frame. Errors are not reported here, because the response reports them.
async fn send_body(outgoing: OutgoingBody, mut body: Body) {
    let Ok(stream) = outgoing.write() else { return };
    while let Some(frame) = body.next().await {
        // If the body fails, it is cut off, so that the server does not take it for complete.
        let Ok(frame) = frame else { return };
        let Frame::Data(mut data) = frame else { continue };
        while !data.is_empty() {
            let Ok(room) = writable(&stream).await else { return };
            let piece = data.split_to(data.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if stream.write(&piece).is_err() {
                return;
            }
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(outgoing, None);
}

/// Resolves with the number of bytes that can be written now, which is at least one.
async fn writable(stream: &OutputStream) -> Result<u64, StreamError> {
    let mut readiness = Readiness::default();
    loop {
        match stream.check_write()? {
            0 => poll_fn(|cx| readiness.poll(cx, false, &|| stream.subscribe())).await,
            room => return Ok(room),
        }
    }
}

/// A response body with its trailers.
struct ResponseBody {
    state: BodyState,
}

enum BodyState {
    Data(Data),
    Trailers(Trailers),
    Done,
}

/// The state while data is read. WASI traps when a parent resource is dropped before its child. Rust drops fields in
/// their order, so the order here is pollable, stream, body. Only [`Data::into_trailers`] takes the struct apart.
struct Data {
    readiness: Readiness,
    stream: InputStream,
    body: IncomingBody,
}

impl Data {
    fn into_trailers(self) -> Trailers {
        let Data { readiness, stream, body } = self;
        drop(readiness);
        drop(stream);
        Trailers { readiness: Readiness::default(), trailers: IncomingBody::finish(body) }
    }
}

/// The state while trailers are awaited. The order of the fields matters for the same reason as in [`Data`].
struct Trailers {
    readiness: Readiness,
    trailers: FutureTrailers,
}

impl Stream for ResponseBody {
    type Item = Result<Frame, String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, String>>> {
        loop {
            match &mut self.state {
                BodyState::Data(data) => match data.stream.read(READ_BYTES) {
                    Ok(bytes) if bytes.is_empty() => {
                        let stream = &data.stream;
                        ready!(data.readiness.poll(cx, false, &|| stream.subscribe()));
                    }
                    Ok(bytes) => return Poll::Ready(Some(Ok(Frame::Data(bytes.into())))),
                    Err(StreamError::Closed) => {
                        if let BodyState::Data(data) = std::mem::replace(&mut self.state, BodyState::Done) {
                            self.state = BodyState::Trailers(data.into_trailers());
                        }
                    }
                    Err(StreamError::LastOperationFailed(error)) => {
                        let code = wasip2::http::types::http_error_code(&error);
                        let text = code.map_or_else(|| error.to_debug_string(), words);
                        drop(error);
                        self.state = BodyState::Done;
                        return Poll::Ready(Some(Err(broken(&text))));
                    }
                },
                BodyState::Trailers(waiting) => {
                    let trailers = &waiting.trailers;
                    ready!(waiting.readiness.poll(cx, true, &|| trailers.subscribe()));
                    let Some(result) = trailers.get() else { continue };
                    self.state = BodyState::Done;
                    return Poll::Ready(match result {
                        Ok(Ok(Some(fields))) => Some(Ok(Frame::Trailers(trailer_lines(&fields)))),
                        Ok(Err(code)) => Some(Err(broken(&words(code)))),
                        Ok(Ok(None)) | Err(()) => None,
                    });
                }
                BodyState::Done => return Poll::Ready(None),
            }
        }
    }
}

fn broken(text: &str) -> String {
    format!("the connection failed while the response was read: {text}")
}

fn local(text: &str) -> TransportError {
    TransportError { kind: TransportFault::NotSent, message: text.to_string() }
}

fn transport_error(code: ErrorCode) -> TransportError {
    let kind = match &code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => TransportFault::Forbidden,
        ErrorCode::DnsError(_)
        | ErrorCode::DnsTimeout
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_) => TransportFault::NotSent,
        _ => TransportFault::Broken,
    };
    TransportError { kind, message: words(code) }
}

/// Describes an error. Does not use `Debug`, which would add the names of forty cases and their fields to the
/// component.
fn words(code: ErrorCode) -> String {
    let words = match code {
        ErrorCode::InternalError(Some(text)) => return text,
        ErrorCode::HttpRequestDenied => "the host does not allow this address",
        ErrorCode::DestinationIpProhibited => "the host does not allow the address that this name resolves to",
        ErrorCode::DnsError(_) | ErrorCode::DnsTimeout | ErrorCode::DestinationNotFound => {
            "the name could not be resolved"
        }
        ErrorCode::ConnectionRefused => "no program listens there (connection refused)",
        ErrorCode::ConnectionTimeout => "the connection timed out",
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => "the address cannot be reached",
        ErrorCode::ConnectionLimitReached => "the host has too many connections open",
        ErrorCode::ConnectionTerminated => "the connection was closed",
        ErrorCode::ConnectionReadTimeout | ErrorCode::ConnectionWriteTimeout | ErrorCode::HttpResponseTimeout => {
            "no data arrived in time"
        }
        ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => "the TLS handshake failed",
        ErrorCode::TlsCertificateError => "the certificate is not valid",
        ErrorCode::HttpResponseIncomplete => "the response is incomplete",
        ErrorCode::HttpProtocolError => "the server violated the HTTP protocol",
        _ => "the request failed in the host",
    };
    words.to_string()
}

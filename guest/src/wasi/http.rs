//! Outbound `wasi:http` as futures and bodies. Nothing is buffered beyond the frame at hand: the request body is sent by a
//! task of its own while the response is read.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, uri};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};
use wasip2::{
    http::{
        outgoing_handler,
        types::{self as wasi, ErrorCode, Fields, FutureTrailers, IncomingBody, OutgoingBody, OutgoingRequest, Scheme},
    },
    io::streams::{InputStream, OutputStream, StreamError},
};

use super::reactor::{Readiness, spawn};
use crate::transport::{TransportError, TransportFault};

/// Read in pieces of this size at most: the size of an HTTP/2 stream's usual read-ahead on the host's side.
const READ_BYTES: u64 = 256 * 1024;

/// Sends a request; resolves when the head of the response is there.
pub async fn send(request: Request<Body>) -> Result<Response<Body>, TransportError> {
    let (head, body) = request.into_parts();
    let outgoing = outgoing_request(&head)?;
    let outgoing_body = outgoing.body().map_err(|()| local("the request has no body"))?;
    let response = outgoing_handler::handle(outgoing, None).map_err(transport_error)?;
    if body.is_end_stream() {
        let _ = OutgoingBody::finish(outgoing_body, None);
    } else {
        spawn(send_body(outgoing_body, body));
    }

    let mut readiness = Readiness::default();
    let incoming = loop {
        match response.get() {
            Some(Ok(Ok(incoming))) => break incoming,
            Some(Ok(Err(code))) => return Err(transport_error(code)),
            Some(Err(())) => return Err(local("the response was taken twice")),
            None => poll_fn(|cx| readiness.poll(cx, || response.subscribe())).await,
        }
    };
    drop(readiness);

    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::from_u16(incoming.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    *answer.headers_mut() = header_map(&incoming.headers());
    let body = incoming.consume().map_err(|()| local("the response has no body"))?;
    let stream = body.stream().map_err(|()| local("the response's body was taken twice"))?;
    *answer.body_mut() =
        Body::new(ResponseBody { state: BodyState::Data(Data { readiness: Readiness::default(), stream, body }) });
    Ok(answer)
}

fn outgoing_request(head: &http::request::Parts) -> Result<OutgoingRequest, TransportError> {
    let fields = Fields::new();
    for (name, value) in &head.headers {
        // `content-length` and the like are the host's business; it refuses what it does not want to be told.
        let _ = fields.append(name.as_str(), value.as_bytes());
    }
    let request = OutgoingRequest::new(fields);
    let method = match head.method {
        Method::GET => wasi::Method::Get,
        Method::POST => wasi::Method::Post,
        Method::PUT => wasi::Method::Put,
        ref other => wasi::Method::Other(other.to_string()),
    };
    let scheme = match head.uri.scheme() {
        Some(scheme) if *scheme == uri::Scheme::HTTP => Scheme::Http,
        _ => Scheme::Https,
    };
    let bad = |()| local(&format!("{} cannot be requested", head.uri));
    request.set_method(&method).map_err(bad)?;
    request.set_scheme(Some(&scheme)).map_err(bad)?;
    request.set_authority(head.uri.authority().map(|authority| authority.as_str())).map_err(bad)?;
    request.set_path_with_query(head.uri.path_and_query().map(|path| path.as_str())).map_err(bad)?;
    Ok(request)
}

fn header_map(fields: &Fields) -> HeaderMap {
    fields
        .entries()
        .into_iter()
        .filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?))
        })
        .collect()
}

/// Writes the request body as it comes. Errors need no report: the response tells.
async fn send_body(outgoing: OutgoingBody, mut body: Body) {
    let Ok(stream) = outgoing.write() else { return };
    while let Some(frame) = body.frame().await {
        // A body that fails is cut off, so that the server does not take it for complete.
        let Ok(frame) = frame else { return };
        let Ok(mut data) = frame.into_data() else { continue };
        while !data.is_empty() {
            let Ok(room) = writable(&stream).await else { return };
            let piece = data.split_to(data.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            if stream.write(&piece).is_err() {
                return;
            }
        }
        if stream.flush().is_err() {
            return;
        }
    }
    // The flush must be over before the body may be finished.
    if writable(&stream).await.is_ok() {
        drop(stream);
        let _ = OutgoingBody::finish(outgoing, None);
    }
}

/// Resolves with how many bytes may be written, at least one.
async fn writable(stream: &OutputStream) -> Result<u64, StreamError> {
    let mut readiness = Readiness::default();
    loop {
        match stream.check_write()? {
            0 => poll_fn(|cx| readiness.poll(cx, || stream.subscribe())).await,
            room => return Ok(room),
        }
    }
}

/// A response body, trailers included.
struct ResponseBody {
    state: BodyState,
}

enum BodyState {
    Data(Data),
    Trailers(Trailers),
    Done,
}

/// Reading. WASI traps when a parent goes before its child, so the order of these fields is their order of death:
/// pollable, stream, body. They are never taken apart other than by [`Data::into_trailers`].
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

/// Waiting for the trailers; the order of the fields matters as above.
struct Trailers {
    readiness: Readiness,
    trailers: FutureTrailers,
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            match &mut self.state {
                BodyState::Data(data) => match data.stream.read(READ_BYTES) {
                    Ok(bytes) if bytes.is_empty() => {
                        let stream = &data.stream;
                        ready!(data.readiness.poll(cx, || stream.subscribe()));
                    }
                    Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes.into())))),
                    Err(StreamError::Closed) => {
                        if let BodyState::Data(data) = std::mem::replace(&mut self.state, BodyState::Done) {
                            self.state = BodyState::Trailers(data.into_trailers());
                        }
                    }
                    Err(StreamError::LastOperationFailed(error)) => {
                        let code = wasip2::http::types::http_error_code(&error);
                        let text = code.map_or_else(|| error.to_debug_string(), |code| format!("{code:?}"));
                        drop(error);
                        self.state = BodyState::Done;
                        return Poll::Ready(Some(Err(broken(&text))));
                    }
                },
                BodyState::Trailers(waiting) => {
                    let Some(result) = waiting.trailers.get() else {
                        let trailers = &waiting.trailers;
                        ready!(waiting.readiness.poll(cx, || trailers.subscribe()));
                        continue;
                    };
                    self.state = BodyState::Done;
                    return Poll::Ready(match result {
                        Ok(Ok(Some(fields))) => Some(Ok(Frame::trailers(header_map(&fields)))),
                        Ok(Err(code)) => Some(Err(broken(&format!("{code:?}")))),
                        Ok(Ok(None)) | Err(()) => None,
                    });
                }
                BodyState::Done => return Poll::Ready(None),
            }
        }
    }
}

fn broken(text: &str) -> Status {
    Status::unavailable(format!("the connection broke while the answer was read: {text}"))
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
    let message = match code {
        ErrorCode::HttpRequestDenied => "the host does not allow this address".to_string(),
        ErrorCode::DestinationIpProhibited => "the host does not allow the address behind this name".to_string(),
        ErrorCode::DnsError(_) | ErrorCode::DnsTimeout | ErrorCode::DestinationNotFound => {
            "the name could not be resolved".to_string()
        }
        ErrorCode::ConnectionRefused => "nobody listens there (connection refused)".to_string(),
        ErrorCode::ConnectionTimeout => "no connection in time".to_string(),
        ErrorCode::InternalError(Some(text)) => text,
        other => format!("{other:?}"),
    };
    TransportError { kind, message }
}

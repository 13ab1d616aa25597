//! The gateway's own responses, which refuse a request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use wasmtime_wasi_http::Error as HttpError;

/// Most bytes of the body of a refused request that are read: enough for any call except uploads.
const UNREAD_BYTES: usize = 256 << 10;

/// How long the body of a refused request is read. Clients are on this machine or near, so a client that sends does so
/// at once; for a client that sends nothing, the refusal is only delayed.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) type Reply = http_body_util::combinators::UnsyncBoxBody<Bytes, HttpError>;

/// Refuses a request whose body has not been read. Reads the beginning of the body: closing a connection with unread
/// data resets it, and the client may see the reset before the refusal.
pub(super) async fn refuse_unread(
    request: Request<Incoming>,
    status: StatusCode,
    grpc: u8,
    why: &str,
) -> Response<Reply> {
    let mut body = Limited::new(request.into_body(), UNREAD_BYTES);
    // Each piece is discarded, so that unauthenticated clients use no memory.
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(UNREAD_TIMEOUT, read).await;
    refuse(status, grpc, why)
}

pub(super) fn refuse(status: StatusCode, grpc: u8, why: &str) -> Response<Reply> {
    let mut response =
        Response::new(Full::new(Bytes::from(format!("{why}\n"))).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let text: String = why.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    response.headers_mut().insert("grpc-status", HeaderValue::from(u16::from(grpc)));
    if let Ok(text) = HeaderValue::from_str(&text.replace('%', "%25")) {
        response.headers_mut().insert("grpc-message", text);
    }
    response
}

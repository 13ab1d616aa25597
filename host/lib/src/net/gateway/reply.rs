//! Replies of the gateway, and how it refuses.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use wasmtime_wasi_http::Error as HttpError;

/// How much of a refused request's body is read, in bytes: what a call of the interface has, but for uploads.
const UNREAD_BYTES: usize = 256 << 10;

/// How long that is waited for: who is still sending is on this machine or close to it, and who sends nothing has the refusal
/// without it.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) type Reply = http_body_util::combinators::UnsyncBoxBody<Bytes, HttpError>;

/// Refuses a request whose body has not been read. A little of it is read all the same: a connection that is closed with
/// something unread is reset, and the reset can overtake the refusal.
pub(super) async fn refuse_unread(
    request: Request<Incoming>,
    status: StatusCode,
    grpc: u8,
    why: &str,
) -> Response<Reply> {
    let mut body = Limited::new(request.into_body(), UNREAD_BYTES);
    // Piece by piece: strangers are to cost no memory.
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

//! Converts gRPC responses to gRPC-Web, in which the trailers are the last frame of the body.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HttpError;

use super::reply::Reply;

/// The flag that marks a gRPC-Web frame with trailers.
const TRAILERS: u8 = 0x80;

/// A response body whose trailers are sent as its last frame.
pub(super) struct WebBody {
    inner: Reply,
    done: bool,
}

impl WebBody {
    pub(super) fn new(inner: Reply) -> WebBody {
        WebBody { inner, done: false }
    }
}

impl Body for WebBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.done = true;
                    Poll::Ready(Some(Ok(Frame::data(trailer_frame(&trailers)))))
                }
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        }
    }
}

fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut text = BytesMut::new();
    for (name, value) in trailers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    let mut frame = BytesMut::with_capacity(text.len() + 5);
    frame.put_u8(TRAILERS);
    frame.put_u32(text.len() as u32);
    frame.extend_from_slice(&text);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn trailers_become_a_frame() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(&trailer_frame(&trailers)[..], b"\x80\0\0\0\x10grpc-status: 0\r\n");
    }
}

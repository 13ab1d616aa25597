//! Replaces the URLs in the first message of responses that name origins.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HttpError;

use super::reply::Reply;
use crate::net::learn::rewrite;
use crate::plugin::manifest::LearnWish;

/// Returns the replacement of a URL, or `None` to keep the URL.
pub(super) type Replace = Box<dyn Fn(&str) -> Option<String> + Send>;

/// Largest first message in which URLs are replaced, in bytes. Equal to the limit in `net::learn`.
const MAX_MESSAGE: usize = 1 << 20;

/// A response body with the URLs in its first message replaced.
pub(super) struct DoorBody {
    inner: Reply,
    replace: Replace,
    rules: Vec<LearnWish>,
    held: BytesMut,
    state: DoorState,
}

#[derive(PartialEq)]
enum DoorState {
    /// The first message is being collected.
    First,
    /// The rest is passed on.
    Rest,
}

impl DoorBody {
    pub(super) fn new(inner: Reply, rules: Vec<LearnWish>, replace: Replace) -> DoorBody {
        DoorBody { inner, replace, rules, held: BytesMut::new(), state: DoorState::First }
    }

    /// Returns the first message with replaced URLs when it is complete. Data that cannot be such a message is returned
    /// unchanged.
    fn first(&mut self) -> Option<Bytes> {
        let [flags, length @ ..] = *self.held.first_chunk::<5>()?;
        let length = u32::from_be_bytes(length) as usize;
        if flags != 0 || length > MAX_MESSAGE {
            return Some(self.held.split().freeze());
        }
        if self.held.len() < 5 + length {
            return None;
        }
        let mut message = self.held.split_to(5 + length).split_off(5).to_vec();
        for rule in &self.rules {
            message = rewrite(&message, &rule.field, &mut |url| (self.replace)(url)).unwrap_or(message);
        }
        let mut out = BytesMut::with_capacity(message.len() + 5 + self.held.len());
        out.put_u8(0);
        out.put_u32(message.len() as u32);
        out.extend_from_slice(&message);
        out.extend_from_slice(&self.held.split());
        Some(out.freeze())
    }
}

impl Body for DoorBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        loop {
            if self.state == DoorState::Rest {
                return Pin::new(&mut self.inner).poll_frame(cx);
            }
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.held.extend_from_slice(&data);
                        if let Some(first) = self.first() {
                            self.state = DoorState::Rest;
                            return Poll::Ready(Some(Ok(Frame::data(first))));
                        }
                    }
                    // Trailers came before the end of the first message, so the message will not be complete.
                    Err(frame) => {
                        self.state = DoorState::Rest;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                other => return other,
            }
        }
    }
}

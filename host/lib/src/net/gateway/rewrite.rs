//! Replaces the URLs in responses that name origins: in the first message of a gRPC response, and in a JSON document.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HttpError;

use super::reply::Reply;
use crate::net::learn::{MAX, rewrite};
use crate::net::pointer::visit;
use crate::plugin::origin::LearnWish;

/// Returns the replacement of a URL, or `None` to keep the URL.
pub(super) type Replace = Box<dyn Fn(&str) -> Option<String> + Send>;

/// A response body with the URLs replaced.
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
    /// The document is being collected.
    Document,
    /// The rest is passed on.
    Rest,
}

impl DoorBody {
    /// Creates the body. `rules` have either all field numbers or all pointers.
    pub(super) fn new(inner: Reply, rules: Vec<LearnWish>, replace: Replace) -> DoorBody {
        let json = rules.iter().all(|rule| rule.pointer.is_some());
        let state = if json { DoorState::Document } else { DoorState::First };
        DoorBody { inner, replace, rules, held: BytesMut::new(), state }
    }

    /// Returns the document with replaced URLs. Data that is no JSON document is returned unchanged.
    fn document(&mut self) -> Bytes {
        let held = self.held.split().freeze();
        let Ok(mut document) = serde_json::from_slice(&held) else { return held };
        for rule in &self.rules {
            visit(&mut document, rule.pointer.as_deref().unwrap_or_default(), &mut |text| {
                if let Some(door) = (self.replace)(text) {
                    *text = door;
                }
                true
            });
        }
        document.to_string().into()
    }

    /// Takes data. Returns what can be passed on.
    fn push(&mut self, data: &[u8]) -> Option<Bytes> {
        self.held.extend_from_slice(data);
        if self.state == DoorState::First {
            return self.first();
        }
        // Nothing is learned from a larger document either.
        (self.held.len() > MAX).then(|| self.held.split().freeze())
    }

    /// Returns the first message with replaced URLs when it is complete. Data that cannot be such a message is returned
    /// unchanged.
    fn first(&mut self) -> Option<Bytes> {
        let [flags, length @ ..] = *self.held.first_chunk::<5>()?;
        let length = u32::from_be_bytes(length) as usize;
        if flags != 0 || length > MAX {
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
                        if let Some(first) = self.push(&data) {
                            self.state = DoorState::Rest;
                            return Poll::Ready(Some(Ok(Frame::data(first))));
                        }
                    }
                    // A document has no trailers that matter to a client of the gateway.
                    Err(_) if self.state == DoorState::Document => {}
                    // Trailers came before the end of the first message, so the message will not be complete.
                    Err(frame) => {
                        self.state = DoorState::Rest;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
                Poll::Ready(None) if self.state == DoorState::Document && !self.held.is_empty() => {
                    self.state = DoorState::Rest;
                    return Poll::Ready(Some(Ok(Frame::data(self.document()))));
                }
                other => return other,
            }
        }
    }
}

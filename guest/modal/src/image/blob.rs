//! Uploads to the blob store: plain HTTP to addresses that the control plane hands out (fact sheet, section 9).
//!
//! One request takes one part, and stays open while its bytes arrive in several calls. A part that fails cannot be sent
//! again from here, as its bytes are gone: the caller begins anew.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt as _,
    future::{Either, poll_fn, select},
};
use modal_proto::client::{
    BlobCreateResponse, MultiPartUpload, blob_create_response::UploadTypeOneof, blob_create_response::UploadTypesOneof,
};

use crate::provider::Provider;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::clip,
        wit::{ErrorKind, RetryAdvice},
    },
    platform::{Body, Frame, Method, Request, Response, Sending, TransportError, TransportFault, Url, whole},
};

/// As much of an answer is read; there is nothing in it but an entity tag or an error.
const ANSWER_BYTES: usize = 64 * 1024;

/// A blob that is being uploaded.
pub struct Blob {
    id: String,
    md5: String,
    parts: Vec<Part>,
    completion: Option<String>,
    /// Entity tags of the parts that have been sent.
    tags: Vec<String>,
    open: Option<Put>,
}

struct Part {
    url: String,
    length: u64,
}

/// A part under way.
struct Put {
    feed: Giver,
    left: u64,
    response: Sending,
}

impl Blob {
    /// From what the control plane answered to the announcement of `size` bytes. `md5` in base64.
    ///
    /// # Errors
    ///
    /// `internal` when it named no place to send them to.
    pub fn new(answer: BlobCreateResponse, size: u64, md5: String) -> Result<Blob> {
        let single = |url: String| (vec![Part { url, length: size }], None);
        let several = |multi: MultiPartUpload| {
            let length = u64::try_from(multi.part_length).unwrap_or(0);
            let count = multi.upload_urls.len() as u64;
            let parts = multi.upload_urls.into_iter().zip(0..).map(|(url, index)| Part {
                url,
                length: length.min(size.saturating_sub(length.saturating_mul(index))),
            });
            (length.saturating_mul(count) >= size).then(|| (parts.collect::<Vec<_>>(), Some(multi.completion_url)))
        };
        // The newer form lists alternatives; the first is the one to use. The older form may be all there is.
        let target = match answer.upload_types_oneof {
            Some(UploadTypesOneof::UploadUrls(urls)) => urls.items.into_iter().next().map(single),
            Some(UploadTypesOneof::Multiparts(multi)) => multi.items.into_iter().next().and_then(several),
            None => match answer.upload_type_oneof {
                Some(UploadTypeOneof::UploadUrl(url)) => Some(single(url)),
                Some(UploadTypeOneof::Multipart(multi)) => several(multi),
                None => None,
            },
        };
        let id = answer.blob_ids.into_iter().next().unwrap_or(answer.blob_id);
        let Some((parts, completion)) = target.filter(|_| !id.is_empty()) else {
            return Err(Error::internal("Modal named no place to upload to."));
        };
        Ok(Blob { id, md5, parts, completion, tags: Vec::new(), open: None })
    }

    /// Sends the next bytes; returns when all of them are on their way.
    ///
    /// # Errors
    ///
    /// `unavailable` and the like: the upload has to begin anew.
    pub async fn write(&mut self, provider: &Provider, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let mut put = match self.open.take() {
                Some(put) => put,
                None => self.next_part(provider)?,
            };
            let piece = data.split_to(usize::try_from(put.left).unwrap_or(usize::MAX).min(data.len()));
            put.left -= piece.len() as u64;
            put.feed.0.give(piece, put.left == 0);
            if put.left > 0 {
                put.response = match select(put.response, poll_fn(|cx| put.feed.0.poll_taken(cx))).await {
                    Either::Right(((), response)) => response,
                    // An answer before the end of the part is a refusal.
                    Either::Left((answer, _)) => return Err(refusal(answer).await),
                };
                self.open = Some(put);
                continue;
            }
            match put.response.await {
                Ok(answer) if answer.is_success() => {
                    let tag = answer.head.get("etag").and_then(|tag| String::from_utf8(tag).ok());
                    self.tags.push(tag.unwrap_or_default());
                }
                answer => return Err(refusal(answer).await),
            }
        }
        Ok(())
    }

    fn next_part(&self, provider: &Provider) -> Result<Put> {
        let part = self.parts.get(self.tags.len()).filter(|part| part.length > 0);
        let part = part.ok_or_else(|| Error::internal("Modal named too few places to upload to."))?;
        let feed = Feed::default();
        let url = address(&part.url)?;
        let mut headers = vec![("content-length", part.length.to_string())];
        // The parts of a larger upload carry neither, and these are part of what the address was signed for.
        if self.completion.is_none() {
            headers.push(("content-type", "application/octet-stream".to_string()));
            let host = url.host();
            if host.ends_with(".amazonaws.com") || host.ends_with(".r2.cloudflarestorage.com") {
                headers.push(("content-md5", self.md5.clone()));
            }
        }
        let request = Request { method: Method::Put, url, headers, body: Box::pin(FeedBody(feed.clone())) };
        Ok(Put { feed: Giver(feed), left: part.length, response: provider.transport().send(request) })
    }

    /// Completes the upload; the blob's id.
    ///
    /// # Errors
    ///
    /// As [`Blob::write`].
    pub async fn finish(self, provider: &Provider) -> Result<String> {
        let Some(url) = self.completion else { return Ok(self.id) };
        let mut list = String::from("<CompleteMultipartUpload>");
        for (tag, number) in self.tags.iter().zip(1..) {
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"));
        }
        list.push_str("</CompleteMultipartUpload>");
        let body = whole(list.into());
        let request = Request { method: Method::Post, url: address(&url)?, headers: Vec::new(), body };
        match provider.transport().send(request).await {
            Ok(answer) if answer.is_success() => {
                // The store begins its answer before it knows how it ends.
                let text = text(answer.body).await.ok_or_else(|| failed("the store's answer is cut off"))?;
                if text.contains("<Error>") { Err(failed(&text)) } else { Ok(self.id) }
            }
            answer => Err(refusal(answer).await),
        }
    }
}

fn address(text: &str) -> Result<Url> {
    Url::parse(text).ok_or_else(|| Error::internal("Modal named a place to upload to that is no URL."))
}

/// A body as text; none when it breaks off or is too long.
async fn text(mut body: Body) -> Option<String> {
    let mut text = Vec::new();
    while let Some(frame) = body.next().await {
        match frame {
            Ok(Frame::Data(data)) if text.len() + data.len() <= ANSWER_BYTES => text.extend_from_slice(&data),
            Ok(Frame::Trailers(_)) => {}
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Why an upload came to nothing.
async fn refusal(answer: Result<Response, TransportError>) -> Error {
    match answer {
        Ok(answer) => failed(&format!("status {}: {}", answer.status, text(answer.body).await.unwrap_or_default())),
        Err(error) => {
            let mut mapped = failed(&error.message);
            if error.kind == TransportFault::Forbidden {
                mapped.kind = ErrorKind::Forbidden;
                mapped.retry = RetryAdvice::Never;
            }
            mapped
        }
    }
}

fn failed(why: &str) -> Error {
    let why = clip(why.trim());
    let message = format!("The blob store did not take the upload: {why}. Send it again.");
    Error::new(ErrorKind::Unavailable, message).with_retry(RetryAdvice::Maybe).with_provider(None, Some(why))
}

/// Bytes on their way from calls into a request's body.
#[derive(Clone, Default)]
struct Feed(Rc<RefCell<FeedState>>);

#[derive(Default)]
struct FeedState {
    data: Bytes,
    last: bool,
    abandoned: bool,
    giver: Option<Waker>,
    taker: Option<Waker>,
}

impl Feed {
    fn give(&self, data: Bytes, last: bool) {
        let mut state = self.0.borrow_mut();
        (state.data, state.last) = (data, last);
        if let Some(taker) = state.taker.take() {
            taker.wake();
        }
    }

    /// Ready when what was given has been taken.
    fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if state.data.is_empty() {
            return Poll::Ready(());
        }
        state.giver = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The giving side. Without it the body is cut off, so that nobody takes it for complete.
struct Giver(Feed);

impl Drop for Giver {
    fn drop(&mut self) {
        let mut state = self.0.0.borrow_mut();
        state.abandoned = true;
        if let Some(taker) = state.taker.take() {
            taker.wake();
        }
    }
}

struct FeedBody(Feed);

impl Stream for FeedBody {
    type Item = std::result::Result<Frame, String>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.0.borrow_mut();
        if state.data.is_empty() {
            if state.last {
                return Poll::Ready(None);
            }
            if state.abandoned {
                return Poll::Ready(Some(Err("the upload was given up".to_string())));
            }
            state.taker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(giver) = state.giver.take() {
            giver.wake();
        }
        Poll::Ready(Some(Ok(Frame::Data(std::mem::take(&mut state.data)))))
    }
}

//! Uploads to a blob store in parts, by plain HTTP requests to addresses from the service, in the form of the S3 API.
//!
//! One request sends one part. It stays open while the bytes of the part arrive in several calls. A failed part cannot
//! be repeated here, because its bytes are no longer available: the caller has to start the upload again.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::{
    Stream,
    future::{Either, poll_fn, select},
};

use crate::{
    api::{
        error::{Error, Result, clip},
        wit::{ErrorKind, RetryAdvice},
    },
    call::http::read,
    platform::{
        Body, Frame, Method, Request, Response, Sending, Transport, TransportError, TransportFault, Url, whole,
    },
};

/// Maximum number of bytes of a response that are read. It contains only an entity tag or an error.
const ANSWER_BYTES: usize = 64 * 1024;

/// Returns the headers of a part for its address.
type PartHeaders = Box<dyn Fn(&Url) -> Vec<(&'static str, String)>>;

/// An upload whose parts are known.
pub struct PartUpload {
    parts: Vec<Part>,
    completion: Option<String>,
    headers: PartHeaders,
    /// Entity tags of the completed parts.
    tags: Vec<String>,
    open: Option<Put>,
}

/// A part of an upload. Its bytes follow those of the previous part.
pub struct Part {
    /// The address that it is sent to.
    pub url: String,
    /// Its length in bytes.
    pub length: u64,
}

/// A part that is being sent.
struct Put {
    feed: Giver,
    left: u64,
    response: Sending,
}

impl PartUpload {
    /// Makes an upload with these parts. `completion` is the address for the request that completes the upload, for
    /// stores that need one. `headers` returns the headers of a part besides its length.
    #[must_use]
    pub fn new(
        parts: Vec<Part>,
        completion: Option<String>,
        headers: impl Fn(&Url) -> Vec<(&'static str, String)> + 'static,
    ) -> PartUpload {
        PartUpload { parts, completion, headers: Box::new(headers), tags: Vec::new(), open: None }
    }

    /// Sends the next bytes. Returns when the requests have taken all of them; at the end of a part, waits for its
    /// response.
    ///
    /// # Errors
    ///
    /// `unavailable` or `forbidden` if the store does not accept a part: the upload has to start again. `internal` if
    /// the service named too few parts or an invalid address.
    pub async fn write(&mut self, transport: &Rc<dyn Transport>, mut data: Bytes) -> Result<()> {
        while !data.is_empty() {
            let mut put = match self.open.take() {
                Some(put) => put,
                None => self.next_part(transport)?,
            };
            let piece = data.split_to(usize::try_from(put.left).unwrap_or(usize::MAX).min(data.len()));
            put.left -= piece.len() as u64;
            put.feed.0.give(piece, put.left == 0);
            if put.left > 0 {
                put.response = match select(put.response, poll_fn(|cx| put.feed.0.poll_taken(cx))).await {
                    Either::Right(((), response)) => response,
                    // A response before the end of the part is a rejection.
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

    fn next_part(&self, transport: &Rc<dyn Transport>) -> Result<Put> {
        let part = self.parts.get(self.tags.len()).filter(|part| part.length > 0);
        let part = part.ok_or_else(|| Error::internal("The service returned too few upload URLs."))?;
        let feed = Feed::default();
        let url = address(&part.url)?;
        let mut headers = vec![("content-length", part.length.to_string())];
        headers.extend((self.headers)(&url));
        let request = Request { method: Method::Put, url, headers, body: Box::pin(FeedBody(feed.clone())) };
        Ok(Put { feed: Giver(feed), left: part.length, response: transport.send(request) })
    }

    /// Completes the upload.
    ///
    /// # Errors
    ///
    /// `unavailable` or `forbidden` if the store does not complete the upload: it has to start again.
    pub async fn finish(self, transport: &Rc<dyn Transport>) -> Result<()> {
        let Some(url) = self.completion else { return Ok(()) };
        let mut list = String::from("<CompleteMultipartUpload>");
        for (tag, number) in self.tags.iter().zip(1..) {
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"));
        }
        list.push_str("</CompleteMultipartUpload>");
        let body = whole(list.into());
        let request = Request { method: Method::Post, url: address(&url)?, headers: Vec::new(), body };
        match transport.send(request).await {
            Ok(answer) if answer.is_success() => {
                // The store sends the status before it knows the result. The body contains the result.
                let text = text(answer.body).await.ok_or_else(|| failed("the response of the store is incomplete"))?;
                if text.contains("<Error>") { Err(failed(&text)) } else { Ok(()) }
            }
            answer => Err(refusal(answer).await),
        }
    }
}

fn address(text: &str) -> Result<Url> {
    Url::parse(text).ok_or_else(|| Error::internal("The service returned an invalid upload URL."))
}

/// Reads a body as text. Returns `None` if it is cut off or too long.
async fn text(body: Body) -> Option<String> {
    Some(String::from_utf8_lossy(&read(body, ANSWER_BYTES).await?).into_owned())
}

/// Converts the response to a failed request to an error.
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
    let message = format!("The upload to the blob store failed: {why}. Repeat it.");
    Error::new(ErrorKind::Unavailable, message).with_retry(RetryAdvice::Maybe).with_provider(None, Some(why))
}

/// A channel that passes bytes from calls to the body of a request.
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

    /// Is ready when the given bytes have been taken.
    fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.borrow_mut();
        if state.data.is_empty() {
            return Poll::Ready(());
        }
        state.giver = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// The sending side. When it is dropped, the body is cut off, so that the store does not take the part for complete.
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
                return Poll::Ready(Some(Err("the upload was cancelled".to_string())));
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

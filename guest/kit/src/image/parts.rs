//! Uploads to a blob store in parts: plain HTTP to addresses that a service hands out, as the stores that speak S3 take them.
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

/// As much of an answer is read; there is nothing in it but an entity tag or an error.
const ANSWER_BYTES: usize = 64 * 1024;

/// Headers that a part is sent with, by its address.
type PartHeaders = Box<dyn Fn(&Url) -> Vec<(&'static str, String)>>;

/// An upload of which the parts are known.
pub struct PartUpload {
    parts: Vec<Part>,
    completion: Option<String>,
    headers: PartHeaders,
    /// Entity tags of the parts that have been sent.
    tags: Vec<String>,
    open: Option<Put>,
}

/// A part: its bytes follow those of the part before.
pub struct Part {
    /// Where it is sent to.
    pub url: String,
    /// Its length in bytes.
    pub length: u64,
}

/// A part under way.
struct Put {
    feed: Giver,
    left: u64,
    response: Sending,
}

impl PartUpload {
    /// An upload of these parts. `completion` is the address that is told when all of them are there, if the store wants to
    /// be told. `headers` gives what a part is sent with besides its length.
    #[must_use]
    pub fn new(
        parts: Vec<Part>,
        completion: Option<String>,
        headers: impl Fn(&Url) -> Vec<(&'static str, String)> + 'static,
    ) -> PartUpload {
        PartUpload { parts, completion, headers: Box::new(headers), tags: Vec::new(), open: None }
    }

    /// Sends the next bytes; returns when all of them are on their way.
    ///
    /// # Errors
    ///
    /// `unavailable` and the like: the upload has to begin anew.
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

    fn next_part(&self, transport: &Rc<dyn Transport>) -> Result<Put> {
        let part = self.parts.get(self.tags.len()).filter(|part| part.length > 0);
        let part = part.ok_or_else(|| Error::internal("The service named too few places to upload to."))?;
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
    /// As [`PartUpload::write`].
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
                // The store begins its answer before it knows how it ends.
                let text = text(answer.body).await.ok_or_else(|| failed("the store's answer is cut off"))?;
                if text.contains("<Error>") { Err(failed(&text)) } else { Ok(()) }
            }
            answer => Err(refusal(answer).await),
        }
    }
}

fn address(text: &str) -> Result<Url> {
    Url::parse(text).ok_or_else(|| Error::internal("The service named a place to upload to that is no URL."))
}

/// A body as text; none when it breaks off or is too long.
async fn text(body: Body) -> Option<String> {
    Some(String::from_utf8_lossy(&read(body, ANSWER_BYTES).await?).into_owned())
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

/// The giving side. Without it the body is cut off, so that the store does not take it for complete.
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

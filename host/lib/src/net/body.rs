//! The bodies of requests and responses. They count, search, scrub and time the pieces while these pass through. They
//! buffer nothing, so that each side is as fast as the other permits.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

use super::counters::Counters;
use super::failure;
use super::learn::{Collector, Lesson};
use super::link::{Link, Slot};
use super::pool::Lease;
use super::scrub::Scrubber;
use crate::access::policy::{Policy, Reach};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request body, which the component sends.
pub(crate) struct RequestBody {
    inner: WasiBody,
    link: Arc<Link>,
    counters: Arc<Counters>,
    /// Keeps the stream in use until both directions have ended.
    pub(super) lease: Arc<Lease>,
    limit: Limit,
}

/// The number of bytes that a body may still have.
pub(crate) struct Limit {
    whole: u64,
    left: u64,
}

impl Limit {
    pub(super) fn new(whole: u64) -> Limit {
        Limit { whole, left: whole }
    }

    /// Subtracts bytes. Returns false if the limit is exceeded.
    fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes as u64) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

impl RequestBody {
    pub(super) fn new(
        inner: WasiBody,
        link: Arc<Link>,
        counters: Arc<Counters>,
        lease: Arc<Lease>,
        limit: Limit,
    ) -> Self {
        RequestBody { inner, link, counters, lease, limit }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            // If an instance is dropped during an upload, its body seems to end here. The peer must not see a regular
            // end, because it would accept the truncated upload. An error resets the stream.
            Poll::Ready(None) if self.link.dead.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err("the call was cancelled".into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    if !self.limit.take(data.len()) {
                        let why = format!("the plugin sent a body of more than {} bytes", self.limit.whole);
                        self.link.blame(why.clone());
                        return Poll::Ready(Some(Err(why.into())));
                    }
                    self.counters.bytes_sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestBody")
    }
}

/// A response body, which the component receives.
pub(crate) struct ResponseBody {
    pub(super) inner: Incoming,
    pub(super) link: Arc<Link>,
    pub(super) counters: Arc<Counters>,
    /// Released at the end of the stream, which can be long before the component drops the body.
    pub(super) hold: Option<(Arc<Lease>, Slot)>,
    pub(super) lessons: Option<Lessons>,
    pub(super) scrubber: Option<Scrubber>,
    pub(super) idle: Option<Idle>,
    pub(super) limit: Limit,
    /// A frame that has been read already and is returned next.
    pub(super) next: Option<Frame<Bytes>>,
}

/// The rules that find origins in this response, and the policy that learns them.
pub(super) struct Lessons {
    pub(super) collector: Collector,
    pub(super) policy: Arc<Policy>,
    pub(super) hands_out: Option<Reach>,
}

/// The limit of the time between two pieces.
pub(super) struct Idle {
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Idle {
    pub(super) fn new(limit: Duration) -> Idle {
        Idle { limit, timer: Box::pin(tokio::time::sleep(limit)) }
    }
}

impl Lessons {
    fn learn(&self, found: Vec<Lesson>) {
        for (url, rule) in found {
            self.policy.learn(&url, &rule, self.hands_out);
        }
    }
}

impl ResponseBody {
    fn data(&mut self, data: Bytes) -> Bytes {
        self.counters.bytes_received.fetch_add(data.len() as u64, Ordering::Relaxed);
        if let Some(lessons) = &mut self.lessons {
            // Learned before the component sees the data, because its next request may go to the new origin.
            let found = lessons.collector.push(&data);
            lessons.learn(found);
        }
        data
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let this = &mut *self;
        if let Some(frame) = this.next.take() {
            return Poll::Ready(Some(Ok(frame)));
        }
        loop {
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if let Some(data) = this.scrubber.as_mut().and_then(|scrubber| scrubber.poll_release(cx)) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    if let Some(idle) = &mut this.idle
                        && idle.timer.as_mut().poll(cx).is_ready()
                    {
                        this.hold = None;
                        this.link.note(format!("no data arrived for {:?}", idle.limit));
                        return Poll::Ready(Some(Err(HttpError::ConnectionReadTimeout)));
                    }
                    return Poll::Pending;
                }
            };
            if let Some(idle) = &mut this.idle {
                idle.timer.as_mut().reset(Instant::now() + idle.limit);
            }
            match frame {
                None => {
                    this.hold = None;
                    if let Some(lessons) = &mut this.lessons {
                        let found = lessons.collector.end();
                        lessons.learn(found);
                    }
                    let rest = this.scrubber.as_mut().and_then(Scrubber::finish);
                    return Poll::Ready(rest.map(|data| Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    this.hold = None;
                    let (error, why) = failure::of_exchange(&error);
                    this.link.note(why);
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !this.limit.take(data.len()) => {
                        this.hold = None;
                        this.link.blame(format!("the response has more than {} bytes", this.limit.whole));
                        return Poll::Ready(Some(Err(HttpError::HttpResponseBodySize(Some(this.limit.whole)))));
                    }
                    Ok(data) => {
                        let data = this.data(data);
                        let data = match &mut this.scrubber {
                            Some(scrubber) => scrubber.push(data),
                            None => data,
                        };
                        // Empty if all data may be the beginning of a credential.
                        if !data.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    Err(frame) => {
                        this.hold = None;
                        let frame = match (frame.into_trailers(), &this.scrubber) {
                            (Ok(mut trailers), Some(scrubber)) => {
                                scrubber.headers(&mut trailers);
                                Frame::trailers(trailers)
                            }
                            (Ok(trailers), None) => Frame::trailers(trailers),
                            (Err(frame), _) => frame,
                        };
                        if let Some(rest) = this.scrubber.as_mut().and_then(Scrubber::finish) {
                            this.next = Some(frame);
                            return Poll::Ready(Some(Ok(Frame::data(rest))));
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    }
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // The end of a body from which origins are learned has to be polled.
        self.next.is_none() && self.scrubber.is_none() && self.lessons.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

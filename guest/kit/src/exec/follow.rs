//! An output stream of a command, followed from a byte offset and resumed there whenever the connection breaks. It is polled
//! by whichever call needs it and lies open between calls.

use std::{
    collections::VecDeque,
    future::Future,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream as _, stream::LocalBoxStream};

use crate::{
    api::error::{Error, Result},
    call::{
        endpoint::{Endpoint, Renewal},
        failure::Failure as _,
        retry::Policy,
    },
    platform::LocalFuture,
};

/// A piece of output as a service sends it: where it starts, if the service says, and the bytes.
pub type Piece = (Option<u64>, Bytes);

/// The pieces of an open stream.
pub type Pieces<F> = LocalBoxStream<'static, Result<Piece, F>>;

/// An attempt to open the stream. Outer failure: the endpoint cannot be reached at all; inner: how the attempt failed.
pub type Opening<F> = LocalFuture<'static, Result<Result<Pieces<F>, F>>>;

/// One output stream of a service.
pub trait Source: Endpoint + Clone + 'static {
    /// How often and how fast it is opened again.
    const POLICY: Policy;

    /// Opens the stream from this byte on, in one attempt.
    fn open(&self, offset: u64) -> Opening<Self::Failure>;

    /// What a failure means after which nothing more is tried.
    fn explain(&self, failure: &Self::Failure) -> impl Future<Output = Error>;
}

/// Most bytes that are taken from the network before the caller has taken them: one read of the caller's, at most.
const READ_AHEAD: usize = 4 * 1024 * 1024;

/// Longest line that is put together, in bytes: two paths, escaped.
const MAX_LINE: usize = 64 * 1024;

enum State<F> {
    /// Not connected.
    Idle,
    /// Waiting before another try.
    Pausing(LocalFuture<'static, ()>),
    /// The request is out. Kept across calls: a server may answer only when there is output.
    Opening(Opening<F>),
    /// Reading.
    Open(Pieces<F>),
    /// At the end.
    Ended,
}

/// See the head of this file.
pub struct Follow<S: Source> {
    source: S,
    /// Position of the next byte to hand out.
    offset: u64,
    /// Received and not handed out.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    state: State<S::Failure>,
    failures: u32,
    /// Since when no connection could be made.
    unreachable: Option<Duration>,
    /// How long the server has made us wait since the last piece.
    throttled: Duration,
    /// A token that was refused since the last piece is renewed once.
    renewal: Renewal,
}

impl<S: Source> Follow<S> {
    /// Follows a stream from `offset`. Nothing is sent before it is polled.
    #[must_use]
    pub fn new(source: S, offset: u64) -> Follow<S> {
        Follow {
            source,
            offset,
            pending: VecDeque::new(),
            pending_bytes: 0,
            state: State::Idle,
            failures: 0,
            unreachable: None,
            throttled: Duration::ZERO,
            renewal: Renewal::default(),
        }
    }

    /// Position of the next byte that [`Follow::take`] gives.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Nothing more will come, and everything has been taken.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended) && self.pending.is_empty()
    }

    /// Bytes that [`Follow::take`] has to give.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pending_bytes
    }

    /// There is something to take.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.pending_bytes > 0
    }

    /// Takes up to `max` bytes of what has been received.
    pub fn take(&mut self, max: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(max.min(self.pending_bytes));
        while let Some(front) = self.pending.front_mut() {
            let room = max - taken.len();
            if room == 0 {
                break;
            }
            let piece = front.split_to(room.min(front.len()));
            taken.extend_from_slice(&piece);
            if front.is_empty() {
                self.pending.pop_front();
            }
        }
        self.pending_bytes -= taken.len();
        self.offset += taken.len() as u64;
        taken
    }

    /// Takes back the end of what was taken, as if it had not been.
    pub fn give_back(&mut self, data: Vec<u8>) {
        if data.is_empty() {
            return;
        }
        self.offset -= data.len() as u64;
        self.pending_bytes += data.len();
        self.pending.push_front(data.into());
    }

    /// Takes a piece of what has been received, as it came.
    pub fn take_piece(&mut self) -> Option<Bytes> {
        let piece = self.pending.pop_front()?;
        self.pending_bytes -= piece.len();
        self.offset += piece.len() as u64;
        Some(piece)
    }

    /// Takes a line with its end, if a whole one has been received.
    pub fn take_line(&mut self) -> Option<Vec<u8>> {
        let mut length = 0;
        for piece in &self.pending {
            if let Some(at) = piece.iter().position(|byte| *byte == b'\n') {
                return Some(self.take(length + at + 1));
            }
            length += piece.len();
        }
        None
    }

    /// Ready when there is a whole line to take, or the end has come. Reads ahead what is there without waiting.
    ///
    /// # Errors
    ///
    /// When resuming is of no use, or a line has no end.
    pub fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let whole = self.pending.iter().any(|piece| piece.contains(&b'\n'));
            if self.pending_bytes > MAX_LINE {
                let endless = || Error::internal("The sandbox printed a line that has no end.");
                return Poll::Ready(if whole { Ok(()) } else { Err(endless()) });
            }
            match self.poll_piece(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                _ if whole => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when there is something to take, or the end has come: true. Reads ahead what is there without waiting.
    ///
    /// # Errors
    ///
    /// When resuming is of no use.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<()>> {
        let want = want.clamp(1, READ_AHEAD);
        loop {
            if self.pending_bytes >= want {
                return Poll::Ready(Ok(()));
            }
            match self.poll_piece(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                // What was received before the failure is delivered first.
                Poll::Ready(Err(_)) | Poll::Pending if self.pending_bytes > 0 => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Advances the state machine until a piece has come (true), or the end (false).
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool>> {
        loop {
            match &mut self.state {
                State::Idle => self.state = State::Opening(self.source.open(self.offset + self.pending_bytes as u64)),
                State::Pausing(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = State::Idle;
                }
                State::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Ok(Ok(stream)) => self.state = State::Open(stream),
                    Ok(Err(status)) => self.recover(status)?,
                    Err(error) => {
                        self.state = State::Idle;
                        return Poll::Ready(Err(error));
                    }
                },
                State::Open(stream) => match ready!(std::pin::Pin::new(stream).poll_next(cx)) {
                    Some(Ok((start, data))) => {
                        if self.accept(start, data) {
                            return Poll::Ready(Ok(true));
                        }
                    }
                    Some(Err(status)) => self.recover(status)?,
                    None => self.state = State::Ended,
                },
                State::Ended => return Poll::Ready(Ok(false)),
            }
        }
    }

    /// Takes in a piece; false if it holds nothing new.
    fn accept(&mut self, start: Option<u64>, mut data: Bytes) -> bool {
        self.failures = 0;
        self.unreachable = None;
        self.throttled = Duration::ZERO;
        self.renewal = Renewal::default();
        let expected = self.offset + self.pending_bytes as u64;
        if let Some(start) = start {
            if start > expected && self.pending.is_empty() {
                // The service has dropped what lay between.
                self.offset = start;
            } else if start < expected {
                let known = usize::try_from(expected - start).unwrap_or(usize::MAX).min(data.len());
                let _ = data.split_to(known);
            }
        }
        if data.is_empty() {
            return false;
        }
        self.pending_bytes += data.len();
        self.pending.push_back(data);
        true
    }

    /// Decides how to go on after a failure.
    fn recover(&mut self, failure: S::Failure) -> Result<()> {
        if self.renewal.helps(&self.source, &failure) {
            self.state = State::Idle;
            return Ok(());
        }
        let throttle = self.source.throttle()?;
        // A wait that the server asks for uses up no retry.
        if failure.is_throttled()
            && let Some(wait) = (throttle.wait)(&failure)
            && self.throttled.saturating_add(wait) <= throttle.longest.unwrap_or(Duration::MAX)
        {
            self.throttled = self.throttled.saturating_add(wait);
            self.state = State::Pausing(self.source.transport().sleep(wait));
            return Ok(());
        }
        let transport = self.source.transport();
        if failure.is_retryable() && self.failures < S::POLICY.limit(&failure) {
            let pause = S::POLICY.pause(self.failures, &**transport);
            self.failures += 1;
            self.state = State::Pausing(transport.sleep(pause));
            return Ok(());
        }
        // Final, unless the other side is only slow to come up. Asking takes a request of its own, made by the future that
        // fails with the answer or goes on.
        let since = *self.unreachable.get_or_insert_with(|| transport.now());
        let source = self.source.clone();
        let again = source.open(self.offset + self.pending_bytes as u64);
        self.state = State::Opening(Box::pin(async move {
            if source.comes_up(&failure, since).await? {
                return again.await;
            }
            Err(source.explain(&failure).await)
        }));
        Ok(())
    }
}

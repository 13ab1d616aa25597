//! An output stream of a command. It starts at a byte offset, and resumes at the current offset when the connection
//! breaks. It stays open between calls; the call that needs output polls it.

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

/// A piece of output: its offset, if the service sends it, and its bytes.
pub type Piece = (Option<u64>, Bytes);

/// The pieces of an open stream.
pub type Pieces<F> = LocalBoxStream<'static, Result<Piece, F>>;

/// An attempt to open the stream. Outer error: the endpoint cannot be reached. Inner failure: the attempt failed.
pub type Opening<F> = LocalFuture<'static, Result<Result<Pieces<F>, F>>>;

/// An output stream of a service.
pub trait Source: Endpoint + Clone + 'static {
    /// How often and how fast the stream is opened again after a failure.
    const POLICY: Policy;

    /// Opens the stream at the byte `offset`, in one attempt.
    fn open(&self, offset: u64) -> Opening<Self::Failure>;

    /// Converts the final failure to an error.
    fn explain(&self, failure: &Self::Failure) -> impl Future<Output = Error>;
}

/// Maximum number of received bytes that the caller has not taken yet: as much as one read of the caller returns.
const READ_AHEAD: usize = 4 * 1024 * 1024;

/// Longest line, in bytes. Lines contain two escaped paths at most.
const MAX_LINE: usize = 64 * 1024;

enum State<F> {
    /// Not connected.
    Idle,
    /// Waiting before the next attempt.
    Pausing(LocalFuture<'static, ()>),
    /// The request was sent. This state is kept between calls, because a server may respond only when there is output.
    Opening(Opening<F>),
    /// Receiving output.
    Open(Pieces<F>),
    /// The stream has ended.
    Ended,
}

/// A stream that resumes; see the documentation of this module.
pub struct Follow<S: Source> {
    source: S,
    /// Offset of the next byte for the caller.
    offset: u64,
    /// Received pieces that the caller has not taken.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    state: State<S::Failure>,
    failures: u32,
    /// Time of the first failed connection in a row.
    unreachable: Option<Duration>,
    /// Total wait that the server asked for since the last piece.
    throttled: Duration,
    /// Renews a rejected token at most once between two pieces.
    renewal: Renewal,
}

impl<S: Source> Follow<S> {
    /// Makes a stream that starts at `offset`. Sends nothing before it is polled.
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

    /// Returns the offset of the next byte that [`Follow::take`] returns.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns whether the stream has ended and all its bytes have been taken.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended) && self.pending.is_empty()
    }

    /// Returns the number of bytes that [`Follow::take`] can return now.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pending_bytes
    }

    /// Returns whether there are bytes to take.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.pending_bytes > 0
    }

    /// Takes at most `max` received bytes.
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

    /// Puts back the last bytes that were taken. The next call takes them again.
    pub fn give_back(&mut self, data: Vec<u8>) {
        if data.is_empty() {
            return;
        }
        self.offset -= data.len() as u64;
        self.pending_bytes += data.len();
        self.pending.push_front(data.into());
    }

    /// Takes one received piece, or returns `None` if there is none.
    pub fn take_piece(&mut self) -> Option<Bytes> {
        let piece = self.pending.pop_front()?;
        self.pending_bytes -= piece.len();
        self.offset += piece.len() as u64;
        Some(piece)
    }

    /// Takes one line with its newline, or returns `None` if no complete line has been received.
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

    /// Is ready when there is a complete line, or the stream has ended. Also reads what can be read without waiting.
    ///
    /// # Errors
    ///
    /// The error of [`Source::explain`] if the stream failed for good; `internal` if a line is longer than 64 KiB.
    pub fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let whole = self.pending.iter().any(|piece| piece.contains(&b'\n'));
            if self.pending_bytes > MAX_LINE {
                let endless = || Error::internal("The sandbox printed a line that exceeds the size limit.");
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

    /// Is ready when there are bytes to take, or the stream has ended. Also reads what can be read without waiting, up
    /// to `want` bytes (at most 4 MiB).
    ///
    /// # Errors
    ///
    /// The error of [`Source::explain`] if the stream failed for good.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<()>> {
        let want = want.clamp(1, READ_AHEAD);
        loop {
            if self.pending_bytes >= want {
                return Poll::Ready(Ok(()));
            }
            match self.poll_piece(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(())),
                // Bytes that were received before the failure are returned first.
                Poll::Ready(Err(_)) | Poll::Pending if self.pending_bytes > 0 => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Advances the state machine until a piece has been received (`true`), or the stream has ended (`false`).
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

    /// Adds a received piece. Returns `false` if it has no new bytes.
    fn accept(&mut self, start: Option<u64>, mut data: Bytes) -> bool {
        self.failures = 0;
        self.unreachable = None;
        self.throttled = Duration::ZERO;
        self.renewal = Renewal::default();
        let expected = self.offset + self.pending_bytes as u64;
        if let Some(start) = start {
            if start > expected && self.pending.is_empty() {
                // The service has dropped the bytes in between.
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

    /// Chooses the next state after a failure.
    fn recover(&mut self, failure: S::Failure) -> Result<()> {
        if self.renewal.helps(&self.source, &failure) {
            self.state = State::Idle;
            return Ok(());
        }
        let throttle = self.source.throttle()?;
        // A wait that the server asks for does not count as a retry.
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
        // The failure is final unless the service is still starting up. This check needs a request, so a future makes
        // it, which then opens the stream again or returns the error.
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

//! An output stream of an exec, followed from a byte offset and resumed there whenever the connection breaks (fact sheet,
//! sections 1.5 and 7.4). It is polled by whichever call needs it and lies open between calls.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream as _, StreamExt as _, stream::LocalBoxStream};
use modal_proto::rpc;
use modal_proto::task_command_router::{SandboxStdioReadV2Request, TaskExecStdioReadRequest};

use crate::{
    provider::Provider,
    service::{policy, router::CONNECT_PAUSE},
};
use sandbox_provider_kit::{
    Error, Result,
    api::ids,
    call::{
        Failure as _,
        grpc::{Code, Status},
    },
    platform::LocalFuture,
};

/// A piece of output as the router sends it: where it starts, if the router says, and the bytes.
type Piece = (Option<u64>, Bytes);

/// An attempt to open the stream. Outer failure: the sandbox cannot be reached; inner: what the router answered.
type Opening = LocalFuture<'static, Result<Result<LocalBoxStream<'static, Result<Piece, Status>>, Status>>>;

/// Most bytes that are taken from the network before the caller has taken them: one read of the caller's, at most.
const READ_AHEAD: usize = 4 * 1024 * 1024;

/// Longest line that is put together, in bytes: two paths, escaped.
const MAX_LINE: usize = 64 * 1024;

enum State {
    /// Not connected.
    Idle,
    /// Waiting before another try.
    Pausing(LocalFuture<'static, ()>),
    /// The request is out. Kept across calls: a server may answer only when there is output.
    Opening(Opening),
    /// Reading.
    Open(LocalBoxStream<'static, Result<Piece, Status>>),
    /// At the end.
    Ended,
}

/// See the head of this file.
pub struct Follow {
    provider: Provider,
    sandbox: String,
    /// The exec's id on the wire; none for the entry-point command.
    exec: Option<String>,
    /// 0 stdout, 1 stderr (fact sheet, section 7.3).
    descriptor: i32,
    /// Position of the next byte to hand out.
    offset: u64,
    /// Received and not handed out.
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    state: State,
    failures: u32,
    /// Since when no connection could be made.
    unreachable: Option<Duration>,
    /// How long the server has made us wait since the last piece.
    throttled: Duration,
    /// A token was refused and renewed since the last piece.
    renewed: bool,
}

impl Follow {
    /// Follows `descriptor` of an exec from `offset`. Nothing is sent before it is polled.
    #[must_use]
    pub fn new(provider: &Provider, sandbox: &str, exec: &str, descriptor: i32, offset: u64) -> Follow {
        Follow {
            provider: provider.clone(),
            sandbox: sandbox.to_string(),
            exec: (exec != ids::MAIN).then(|| ids::wire_uuid(exec)),
            descriptor,
            offset,
            pending: VecDeque::new(),
            pending_bytes: 0,
            state: State::Idle,
            failures: 0,
            unreachable: None,
            throttled: Duration::ZERO,
            renewed: false,
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
                State::Idle => self.state = State::Opening(self.open()),
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
        self.renewed = false;
        let expected = self.offset + self.pending_bytes as u64;
        if let Some(start) = start {
            if start > expected && self.pending.is_empty() {
                // The router has dropped what lay between (entry-point output only).
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
    fn recover(&mut self, status: Status) -> Result<()> {
        if status.code() == Code::Unauthenticated && !self.renewed {
            self.renewed = true;
            self.provider.expire_access(&self.sandbox);
            self.state = State::Idle;
            return Ok(());
        }
        // A wait that the server asks for uses up no retry.
        if status.code() == Code::ResourceExhausted
            && let Some(wait) = policy::server_wait(&status)
            && self.throttled.saturating_add(wait) <= self.provider.config()?.max_throttle_wait.unwrap_or(Duration::MAX)
        {
            self.throttled = self.throttled.saturating_add(wait);
            self.state = State::Pausing(self.provider.transport().sleep(wait));
            return Ok(());
        }
        if status.is_retryable() && self.failures < policy::ROUTER.limit(&status) {
            let transport = self.provider.transport();
            let pause = policy::ROUTER.pause(self.failures, &**transport);
            self.failures += 1;
            self.state = State::Pausing(transport.sleep(pause));
            return Ok(());
        }
        // Final, unless the machine is only slow to come up. Asking takes a request of its own, made by the future that
        // fails with the answer or goes on.
        let (provider, sandbox) = (self.provider.clone(), self.sandbox.clone());
        let since = *self.unreachable.get_or_insert_with(|| provider.now());
        let again = self.open();
        self.state = State::Opening(Box::pin(async move {
            if provider.may_come_up(&sandbox, &status, since).await? {
                provider.transport().sleep(CONNECT_PAUSE).await;
                return again.await;
            }
            let error: Error = provider.explain(&sandbox, &status, "read the output").await;
            Err(error)
        }));
        Ok(())
    }

    fn open(&self) -> Opening {
        let (provider, sandbox, exec) = (self.provider.clone(), self.sandbox.clone(), self.exec.clone());
        let (descriptor, offset) = (self.descriptor, self.offset + self.pending_bytes as u64);
        Box::pin(async move {
            match exec {
                Some(exec_id) => {
                    let make = |task_id: String| TaskExecStdioReadRequest {
                        task_id,
                        exec_id,
                        offset,
                        file_descriptor: descriptor,
                    };
                    let stream = provider.router_stream(&sandbox, rpc::TASK_EXEC_STDIO_READ, make).await?;
                    Ok(stream.map(|stream| stream.map(|item| item.map(|piece| (None, piece.data))).boxed_local()))
                }
                None => {
                    let make =
                        |task_id: String| SandboxStdioReadV2Request { task_id, offset, file_descriptor: descriptor };
                    let stream = provider.router_stream(&sandbox, rpc::SANDBOX_STDIO_READ_V2, make).await?;
                    Ok(stream.map(|stream| {
                        stream.map(|item| item.map(|piece| (Some(piece.starting_offset), piece.data))).boxed_local()
                    }))
                }
            }
        })
    }
}

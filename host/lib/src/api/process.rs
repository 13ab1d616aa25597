//! A running command: its three streams, its end.
//!
//! Output lies at the provider and is read by offset, so reading is restartable and does not block the command. One
//! task per process reads both streams on one instance, into a buffer each. A stream whose reader is slow does not
//! hold up the other: what does not fit into its buffer is dropped here and read again from the provider when there
//! is room.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::api::sandbox::{Sandbox, kill_later, now_millis};
use crate::api::spec::millis;
use crate::error::{Error, Kind, Result};
use crate::runtime::call::Call;
use crate::runtime::runner::Held;
use crate::types::{self, ExecRef, Verdict};

/// What is kept here per stream for a reader that has not come yet.
const BUFFER: usize = 2 << 20;

/// Asked for at once: large enough that the cost of a call does not show, small enough to keep memory flat.
const PIECE: u32 = 1 << 20;

/// How long one call waits for output. Ended by output, so it costs nothing; bounded so that a lost connection shows.
const WAIT: u64 = 60_000;

/// How long it waits while a reader is behind: what that one wants next has to be read again as soon as it comes.
const WAIT_BEHIND: u64 = 250;

/// Bytes of input on their way.
const INPUT: usize = 1 << 20;

/// Instances in a row that may be lost to a crash before a stream is given up. What the provider reports is final: its
/// own retries came before that, and repeating them would multiply the time until the failure shows.
const ATTEMPTS: u32 = 2;

/// Between two looks whether the reader has learned the end.
const ENDING: Duration = Duration::from_millis(5);

/// A command that was started, or attached to.
///
/// The streams can be taken out and used independently. Dropping the process kills the command's whole process tree,
/// unless it has ended, was [detached](Process::detach), or was only attached to.
#[must_use = "dropping a process kills its command"]
pub struct Process {
    /// Standard input. Dropping it closes it.
    pub stdin: Option<Stdin>,
    /// Standard output. Dropping it throws away what is printed.
    pub stdout: Option<Output>,
    /// Standard error; empty with a terminal.
    pub stderr: Option<Output>,
    sandbox: Sandbox,
    exec: ExecRef,
    shared: Arc<Shared>,
    pty: bool,
    kill: bool,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("sandbox", &self.exec.sandbox).field("exec", &self.exec.exec).finish()
    }
}

impl Process {
    pub(crate) fn new(sandbox: Sandbox, exec: ExecRef, pty: bool, kill: bool) -> Process {
        let shared = Arc::new(Shared {
            sandbox: sandbox.clone(),
            exec: exec.clone(),
            output: Mutex::default(),
            room: Notify::new(),
            input: Mutex::new(InputState { unknown: !kill, ..InputState::default() }),
            more: Notify::new(),
        });
        let output = |stream| Some(Output { shared: shared.clone(), stream });
        Process {
            stdin: Some(Stdin { shared: shared.clone() }),
            stdout: output(0),
            stderr: output(1),
            sandbox,
            exec,
            shared,
            pty,
            kill,
        }
    }

    /// Its exec id: with the sandbox's id, all that [`Sandbox::attach`] needs.
    pub fn id(&self) -> &str {
        &self.exec.exec
    }

    /// Whether it runs in a terminal.
    pub fn has_pty(&self) -> bool {
        self.pty
    }

    /// Closes standard input, if it is still here, and waits for the end. Needs no reader; the output stays readable.
    ///
    /// # Errors
    ///
    /// When the provider cannot be asked.
    pub async fn wait(&mut self) -> Result<Verdict> {
        drop(self.stdin.take());
        let mut stalled = Stalled::default();
        loop {
            if let Some(verdict) = self.shared.output().verdict.clone() {
                self.kill = false;
                return Ok(verdict);
            }
            if self.shared.output().is_ending() {
                // The reader is about to learn it. Another instance may not know why a command has ended.
                tokio::time::sleep(ENDING).await;
                continue;
            }
            let call = Call::reading(format!("wait for a command in {}", self.sandbox.id())).about(&self.exec.exec);
            let (exec, wait) = (self.exec.clone(), self.shared.wait());
            let ended = self
                .sandbox
                .inner()
                .call(&self.sandbox.route(), call, move |bound, store| {
                    Box::pin(async move { bound.guest().call_wait_exec(store, &exec, wait).await })
                })
                .await?;
            stalled.answered(ended.is_some());
            if let Some(verdict) = ended {
                self.shared.output().verdict = Some(verdict);
            } else if self.shared.is_overdue() {
                kill_later(self.sandbox.clone(), self.exec.exec.clone());
                self.shared.output().give_up();
            } else {
                stalled.pause().await;
            }
        }
    }

    /// How it ended, if that is known already. Sends nothing.
    pub fn verdict(&self) -> Option<Verdict> {
        self.shared.output().verdict.clone()
    }

    /// Closes standard input, reads both streams to their ends and waits. Memory grows with the output; use
    /// [`Sandbox::run_with`] for limits.
    ///
    /// # Errors
    ///
    /// When output or verdict cannot be read.
    pub async fn output(mut self) -> Result<(Verdict, Vec<u8>, Vec<u8>)> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let read = |stream: Option<Output>| async move {
            let mut data = Vec::new();
            match stream {
                Some(mut stream) => stream.read_to_end(&mut data).await.map(|_| data),
                None => Ok(data),
            }
        };
        let (stdout, stderr) = futures_util::future::join(read(stdout), read(stderr)).await;
        let fail = |error: io::Error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::io("read the output of a command", error),
        };
        let (stdout, stderr) = (stdout.map_err(fail)?, stderr.map_err(fail)?);
        Ok((self.wait().await?, stdout, stderr))
    }

    /// Sends a signal (its Linux number) to the whole process tree.
    ///
    /// # Errors
    ///
    /// As any call; none if it has ended.
    pub async fn signal(&self, signal: u32) -> Result<()> {
        self.sandbox.signal(self.id(), signal).await
    }

    /// Kills the whole process tree.
    ///
    /// # Errors
    ///
    /// As [`signal`](Self::signal).
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(9).await?;
        self.kill = false;
        Ok(())
    }

    /// Changes the size of its terminal.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) where the provider cannot.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let exec = self.exec.clone();
        let call = Call::acting(format!("resize a terminal in {}", self.sandbox.id())).about(&exec.exec);
        let size = types::Pty { rows, columns, term: String::new() };
        self.sandbox
            .inner()
            .call(&self.sandbox.route(), call, move |bound, store| {
                Box::pin(async move { bound.guest().call_resize(store, &exec, &size).await })
            })
            .await
    }

    /// Lets it run on when this handle is gone. Gives its exec id. Input that was written is sent in the background: flush
    /// it before where the process may end first.
    pub fn detach(mut self) -> String {
        self.kill = false;
        if let Some(stdin) = self.stdin.take() {
            stdin.leave_open();
        }
        self.exec.exec.clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended = self.shared.output().verdict.is_some();
        if self.kill && !ended {
            kill_later(self.sandbox.clone(), self.exec.exec.clone());
        }
    }
}

/// What the handles of one process and its tasks share.
struct Shared {
    sandbox: Sandbox,
    exec: ExecRef,
    output: Mutex<OutputState>,
    /// A reader took something, or left.
    room: Notify,
    input: Mutex<InputState>,
    /// There is input to send.
    more: Notify,
}

#[derive(Default)]
struct OutputState {
    streams: [Stream; 2],
    verdict: Option<Verdict>,
    reader: Option<AbortHandle>,
    failed: Option<Arc<Error>>,
}

#[derive(Default)]
struct Stream {
    chunks: VecDeque<Bytes>,
    buffered: usize,
    /// Position of the first byte that is not in the buffer yet.
    wanted: u64,
    /// Position up to which the provider was read; ahead of `wanted` while the reader is behind.
    fetched: u64,
    /// Where the stream ends, once known.
    end: Option<u64>,
    waker: Option<Waker>,
    dropped: bool,
}

impl OutputState {
    /// Both streams have been read to their ends, and the reader asks for the verdict.
    fn is_ending(&self) -> bool {
        self.streams.iter().all(|stream| stream.end.is_some() && stream.is_complete())
            && self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
    }

    /// Nothing more is waited for: the time limit is over.
    fn give_up(&mut self) {
        self.verdict.get_or_insert(Verdict::Deadline);
        for stream in &mut self.streams {
            stream.end = Some(stream.wanted);
            if let Some(waker) = stream.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Stream {
    fn is_full(&self) -> bool {
        !self.dropped && self.buffered >= BUFFER
    }

    /// Everything has been put into the buffer, or its reader has gone.
    fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| self.dropped || self.wanted >= end)
    }

    /// False for a piece that cannot be.
    fn take(&mut self, chunk: types::OutputChunk) -> bool {
        let types::OutputChunk { offset, data, end } = chunk;
        let Some(next) = offset.checked_add(data.len() as u64) else { return false };
        if end {
            self.end = Some(next);
        }
        if self.dropped {
            self.fetched = next;
            self.wanted = next;
            return true;
        }
        // In step with the reader: keep it. An answer begins later than asked where the provider dropped the bytes
        // between; those are lost.
        if self.fetched == self.wanted && offset >= self.wanted && !self.is_full() {
            if !data.is_empty() {
                self.buffered += data.len();
                self.chunks.push_back(data.into());
            }
            self.wanted = next;
        }
        self.fetched = next.max(self.fetched);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    /// Where to read on.
    fn position(&mut self) -> u64 {
        if !self.is_full() {
            self.fetched = self.wanted;
        }
        self.fetched
    }
}

/// Notices answers that came at once and brought nothing. A plugin that has waited brings something or has taken its time;
/// one that does neither is asked ever less often, up to once a second.
struct Stalled {
    asked: Instant,
    empty: u32,
}

impl Default for Stalled {
    fn default() -> Self {
        Stalled { asked: Instant::now(), empty: 0 }
    }
}

impl Stalled {
    fn answered(&mut self, news: bool) {
        let early = self.asked.elapsed() < Duration::from_millis(50);
        self.empty = if early && !news { self.empty.saturating_add(1) } else { 0 };
    }

    /// Before the next question.
    async fn pause(&mut self) {
        // A few may be: a wait that ended with what it waited for.
        if self.empty > 8 {
            tokio::time::sleep(Duration::from_millis(1 << (self.empty - 8).min(10))).await;
        }
        self.asked = Instant::now();
    }
}

#[derive(Default)]
struct InputState {
    pending: VecDeque<Bytes>,
    size: usize,
    /// Bytes that the provider has taken.
    accepted: u64,
    /// Others may have written before us: ask where to go on.
    unknown: bool,
    /// No more is to come.
    eof: bool,
    /// The program takes no more.
    closed: bool,
    /// The writer has gone, and the input stays open: what is pending is sent, and nothing after it.
    left: bool,
    failed: Option<Arc<Error>>,
    writer: Option<AbortHandle>,
    waker: Option<Waker>,
}

impl Shared {
    /// When the command is given up, in Unix milliseconds: by then the plugin should have reported the end of its time limit.
    fn overdue_at(&self) -> Option<u64> {
        let grace = millis(self.sandbox.inner().limits.overdue_time);
        self.exec.deadline.map(|deadline| deadline.saturating_add(grace))
    }

    /// Whether that moment has passed.
    fn is_overdue(&self) -> bool {
        self.overdue_at().is_some_and(|overdue| now_millis() > overdue)
    }

    /// How long the next call waits, in milliseconds: until just after the command is given up, at most [`WAIT`].
    fn wait(&self) -> u64 {
        self.overdue_at().map_or(WAIT, |overdue| overdue.saturating_sub(now_millis()).saturating_add(1).min(WAIT))
    }

    fn output(&self) -> MutexGuard<'_, OutputState> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self) -> MutexGuard<'_, InputState> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the reading task at the first look at the output.
    fn start_reading(self: &Arc<Self>, state: &mut OutputState) {
        if state.reader.is_none() {
            let task = self.sandbox.inner().tasks.spawn(read(self.clone()));
            state.reader = Some(task.abort_handle());
        }
    }

    fn start_writing(self: &Arc<Self>, state: &mut InputState) {
        if state.writer.is_none() {
            let task = self.sandbox.inner().tasks.spawn(write(self.clone()));
            state.writer = Some(task.abort_handle());
        }
    }
}

/// Reads both streams until they are complete or their readers have gone.
async fn read(shared: Arc<Shared>) {
    let mut held = shared.sandbox.inner().hold(shared.sandbox.route());
    let (mut failures, mut stalled) = (0, Stalled::default());
    loop {
        let room = shared.room.notified();
        let request = {
            let mut state = shared.output();
            if state.streams.iter().all(|stream| stream.is_complete()) && state.verdict.is_some() {
                break;
            }
            let hungry = state.streams.iter().any(|stream| stream.waker.is_some());
            let full = state.streams.iter().filter(|stream| stream.is_full()).count();
            // One full stream does not stop the other while a reader waits for it.
            if full == 2 || (full == 1 && !hungry) {
                None
            } else {
                let [stdout, stderr] = &mut state.streams;
                Some(types::ReadRequest {
                    stdout_offset: stdout.position(),
                    stderr_offset: stderr.position(),
                    max_bytes: PIECE,
                    wait: if full > 0 { WAIT_BEHIND } else { shared.wait() },
                })
            }
        };
        let Some(request) = request else {
            room.await;
            continue;
        };
        match read_piece(&mut held, &shared.exec, request).await {
            Ok(output) => {
                failures = 0;
                let news = !output.stdout.data.is_empty() || !output.stderr.data.is_empty() || output.verdict.is_some();
                {
                    let mut state = shared.output();
                    let [stdout, stderr] = &mut state.streams;
                    if !(stdout.take(output.stdout) && stderr.take(output.stderr)) {
                        state.failed = Some(Arc::new(Error::new(
                            Kind::Internal,
                            "read the output of a command",
                            "the plugin returned a piece that ends beyond all numbers",
                        )));
                        break;
                    }
                    if output.verdict.is_some() {
                        state.verdict = output.verdict;
                    } else if !news && shared.is_overdue() {
                        kill_later(shared.sandbox.clone(), shared.exec.exec.clone());
                        state.give_up();
                    }
                }
                stalled.answered(news);
                stalled.pause().await;
            }
            Err(error) if error.is_trap() && failures < ATTEMPTS => {
                failures += 1;
            }
            Err(error) => {
                shared.output().failed = Some(Arc::new(error));
                break;
            }
        }
    }
    for stream in &mut shared.output().streams {
        if let Some(waker) = stream.waker.take() {
            waker.wake();
        }
    }
}

async fn read_piece(held: &mut Held, exec: &ExecRef, request: types::ReadRequest) -> Result<types::Output> {
    let call = Call::reading(format!("read the output of a command in {}", exec.sandbox)).about(&exec.exec);
    let (exec, max) = (exec.clone(), request.max_bytes as usize);
    let output = held
        .call(call, move |bound, store| {
            Box::pin(async move { bound.guest().call_read_output(store, &exec, request).await })
        })
        .await?;
    // What a plugin returns is not trusted to fit.
    if output.stdout.data.len() + output.stderr.data.len() > max {
        return Err(Error::new(
            Kind::Internal,
            "read the output of a command",
            "the plugin returned more than asked for",
        ));
    }
    Ok(output)
}

/// Standard output or error of a process.
pub struct Output {
    shared: Arc<Shared>,
    stream: usize,
}

impl AsyncRead for Output {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &self.shared;
        let mut state = shared.output();
        let failed = state.failed.clone();
        let stream = &mut state.streams[self.stream];
        let mut taken = 0;
        while buf.remaining() > 0
            && let Some(chunk) = stream.chunks.front_mut()
        {
            let size = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..size]);
            chunk.advance(size);
            taken += size;
            if chunk.is_empty() {
                stream.chunks.pop_front();
            }
        }
        if taken > 0 {
            let was_full = stream.is_full();
            stream.buffered -= taken;
            if was_full && !stream.is_full() {
                shared.room.notify_one();
            }
            return Poll::Ready(Ok(()));
        }
        if stream.is_complete() || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = failed {
            return Poll::Ready(Err(again(&error)));
        }
        stream.waker = Some(cx.waker().clone());
        shared.start_reading(&mut state);
        drop(state);
        shared.room.notify_one();
        Poll::Pending
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let mut state = self.shared.output();
        let stream = &mut state.streams[self.stream];
        stream.dropped = true;
        stream.chunks.clear();
        stream.buffered = 0;
        stream.waker = None;
        // One that has come to the ends still learns the verdict.
        let abandoned = state.streams.iter().all(|stream| stream.dropped)
            && state.streams.iter().any(|stream| stream.end.is_none());
        if abandoned && let Some(reader) = state.reader.take() {
            reader.abort();
        }
        drop(state);
        self.shared.room.notify_one();
    }
}

/// The same error once more: a stream reports it to every reader that comes.
fn again(error: &Arc<Error>) -> io::Error {
    io::Error::from(error.duplicate())
}

/// Standard input of a process.
///
/// `flush` returns when the provider has everything; `shutdown` closes the input. After the program has ended or
/// closed its input, writing fails with `BrokenPipe`.
pub struct Stdin {
    shared: Arc<Shared>,
}

impl Stdin {
    /// Drops the handle without closing the input. What was written is sent all the same.
    fn leave_open(self) {
        self.shared.input().left = true;
    }
}

/// Sends input until it is closed or its writer has gone.
async fn write(shared: Arc<Shared>) {
    let mut held = shared.sandbox.inner().hold(shared.sandbox.route());
    let (mut failures, mut stalled) = (0, Stalled::default());
    loop {
        let more = shared.more.notified();
        let piece = {
            let mut state = shared.input();
            if state.closed || (state.left && !state.eof && state.pending.is_empty()) {
                break;
            }
            if state.pending.len() > 1 {
                // Many small writes go as one.
                let mut all = BytesMut::with_capacity(state.size);
                state.pending.drain(..).for_each(|data| all.extend_from_slice(&data));
                state.pending.push_back(all.freeze());
            }
            match state.pending.front().cloned() {
                _ if state.unknown => Some((0, Bytes::new(), false)),
                Some(data) => Some((state.accepted, data, state.eof)),
                None if state.eof => Some((state.accepted, Bytes::new(), true)),
                None => {
                    state.wake();
                    None
                }
            }
        };
        let Some((offset, data, eof)) = piece else {
            more.await;
            continue;
        };
        let call = Call::acting(format!("write to a command in {}", shared.exec.sandbox)).about(&shared.exec.exec);
        let (exec, sent) = (shared.exec.clone(), data.clone());
        let written = held
            .call(call, move |bound, store| {
                Box::pin(async move { bound.guest().call_write_input(store, &exec, offset, &sent, eof).await })
            })
            .await;
        match written {
            Ok(answer) => {
                failures = 0;
                stalled.answered(shared.input().answered(&answer, offset, data.len()));
            }
            Err(error) if error.is_trap() && failures < ATTEMPTS => failures += 1,
            Err(error) => {
                let mut state = shared.input();
                state.failed = Some(Arc::new(error));
                state.closed = true;
            }
        }
        stalled.pause().await;
    }
    shared.input().wake();
}

impl InputState {
    /// Takes what was answered to a write. False when it brought nothing.
    fn answered(&mut self, answer: &types::InputState, offset: u64, sent: usize) -> bool {
        // Closed on this side meanwhile, it stays so.
        self.closed |= answer.closed;
        if std::mem::take(&mut self.unknown) {
            self.accepted = answer.accepted;
            return true;
        }
        let taken = answer.accepted.saturating_sub(offset).min(sent as u64) as usize;
        self.accepted = offset + taken as u64;
        self.size -= taken;
        if let Some(front) = self.pending.front_mut() {
            front.advance(taken);
            if front.is_empty() {
                self.pending.pop_front();
            }
        }
        self.wake();
        taken > 0 || self.closed
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.input();
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(again(error)));
        }
        if state.closed || state.eof {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.size >= INPUT {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let size = data.len().min(INPUT - state.size);
        if size > 0 {
            state.pending.push_back(Bytes::copy_from_slice(&data[..size]));
            state.size += size;
            self.shared.start_writing(&mut state);
            drop(state);
            self.shared.more.notify_one();
        }
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.input();
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(again(error)));
        }
        if state.closed && state.size > 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.size == 0 {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.input();
        if let Some(error) = &state.failed {
            return Poll::Ready(Err(again(error)));
        }
        if state.closed {
            return Poll::Ready(Ok(()));
        }
        if !state.eof {
            state.eof = true;
            self.shared.start_writing(&mut state);
            self.shared.more.notify_one();
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Stdin {
    fn drop(&mut self) {
        let ended = self.shared.output().verdict.is_some();
        let mut state = self.shared.input();
        // A command that was started elsewhere keeps its input unless something was written here.
        let idle = state.unknown && state.pending.is_empty();
        if ended {
            state.closed = true;
        } else if idle {
            state.left = true;
        } else if !state.eof && !state.closed && !state.left {
            state.eof = true;
            self.shared.start_writing(&mut state);
        }
        drop(state);
        // Whatever it is, the writer is not to wait for more.
        self.shared.more.notify_one();
    }
}

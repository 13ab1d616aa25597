//! A running command: its three streams and its end.
//!
//! The provider stores the output, and this module reads it by offset, so reads can be repeated and do not block the
//! command. One task per process reads both streams with one instance into one buffer per stream. A stream with a slow
//! reader does not block the other stream: data that does not fit into its buffer is discarded here, and read again
//! from the provider when the buffer has space.

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
use crate::api::signal::Signal;
use crate::api::spec::millis;
use crate::error::{Error, Kind, Result};
use crate::runtime::call::Call;
use crate::runtime::runner::Held;
use crate::types::{self, ExecRef, Verdict};

/// Size of the buffer of each stream, in bytes.
const BUFFER: usize = 2 << 20;

/// Most output that one call requests, in bytes. Large enough to make the cost of a call negligible, and small enough
/// to bound memory.
const PIECE: u32 = 1 << 20;

/// How long one call waits for output, in milliseconds. Output ends the wait, so a long wait costs nothing. The limit
/// makes lost connections visible.
const WAIT: u64 = 60_000;

/// How long one call waits while the buffer of a stream is full, in milliseconds. Short, because the next data for that
/// stream has to be requested as soon as its reader has made space.
const WAIT_BEHIND: u64 = 250;

/// Most input that is buffered until the provider has accepted it, in bytes.
const INPUT: usize = 1 << 20;

/// Attempts in a row to repeat a call after an instance crashed. Errors that the provider reports are not repeated: the
/// provider has retried before it reports them, and repeating them here would multiply the time until the failure shows.
const ATTEMPTS: u32 = 2;

/// Pause between two checks whether the reading task has received the verdict.
const ENDING: Duration = Duration::from_millis(5);

/// The whole output of a command and how it ended. [`Process::wait_with_output`] returns it.
#[derive(Debug, Clone)]
pub struct ProcessOutput {
    /// How the command ended.
    pub verdict: Verdict,
    /// Everything on standard output.
    pub stdout: Vec<u8>,
    /// Everything on standard error. Empty if the command has a terminal.
    pub stderr: Vec<u8>,
}

/// A command that was started or attached to.
///
/// The streams can be taken out and used independently. Dropping the process kills the whole process tree of the
/// command, unless the command has ended, was [detached](Process::detach), or was only attached to.
///
/// ```no_run
/// use sandbox_host::types::ExecSpec;
/// use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
///
/// # async fn example(sandbox: &sandbox_host::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
/// let mut process = sandbox.spawn(ExecSpec::new(["grep", "--line-buffered", "o"])).await?;
/// let mut input = process.stdin.take().expect("it was not taken before");
/// input.write_all(b"one\nthree\ntwo\n").await?;
/// input.shutdown().await?;
/// let mut lines = BufReader::new(process.stdout.take().expect("it was not taken before")).lines();
/// while let Some(line) = lines.next_line().await? {
///     println!("{line}");
/// }
/// println!("{:?}", process.wait().await?);
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a process kills its command"]
pub struct Process {
    /// Standard input. Dropping it closes the input of the command.
    pub stdin: Option<InputStream>,
    /// Standard output. Dropping it discards what the command prints.
    pub stdout: Option<OutputStream>,
    /// Standard error. Empty if the command has a terminal.
    pub stderr: Option<OutputStream>,
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
        let output = |stream| Some(OutputStream { shared: shared.clone(), stream });
        Process {
            stdin: Some(InputStream { shared: shared.clone() }),
            stdout: output(0),
            stderr: output(1),
            sandbox,
            exec,
            shared,
            pty,
            kill,
        }
    }

    /// Returns the exec id. [`Sandbox::attach`] needs it, and the id of the sandbox.
    pub fn id(&self) -> &str {
        &self.exec.exec
    }

    /// Returns whether the command was started with a terminal. False for a handle of [`Sandbox::attach`].
    pub fn has_pty(&self) -> bool {
        self.pty
    }

    /// Closes standard input if it was not taken out, waits for the end of the command and returns how it ended. Does
    /// not need a reader for the output, which can still be read afterwards. A command without a time limit is awaited
    /// without one. A command with a time limit whose end is not reported
    /// [`Limits::overdue_time`](crate::Limits::overdue_time) after it is killed, and its verdict is
    /// [`Verdict::Deadline`].
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] for an unknown exec or sandbox, and the kinds of every call: see [`Kind`].
    pub async fn wait(&mut self) -> Result<Verdict> {
        drop(self.stdin.take());
        let mut stalled = Stalled::default();
        loop {
            if let Some(verdict) = self.shared.output().verdict.clone() {
                self.kill = false;
                return Ok(verdict);
            }
            if self.shared.output().is_ending() {
                // The reading task is about to receive the verdict. A different instance may not know why the command
                // ended.
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

    /// Returns how the command ended if this is known already. Sends no request.
    pub fn verdict(&self) -> Option<Verdict> {
        self.shared.output().verdict.clone()
    }

    /// Closes standard input, reads both streams to their ends, and waits for the end of the command. Memory grows with
    /// the output; [`Sandbox::run_with`] has limits.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait), and [`Kind::Internal`] for invalid output of the plugin.
    pub async fn wait_with_output(mut self) -> Result<ProcessOutput> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let read = |stream: Option<OutputStream>| async move {
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
        Ok(ProcessOutput { verdict: self.wait().await?, stdout, stderr })
    }

    /// Sends a signal to the whole process tree. Succeeds if the command has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::signal`].
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        self.sandbox.signal(self.id(), signal).await
    }

    /// Kills the whole process tree with SIGKILL. Succeeds if the command has ended.
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::signal`].
    pub async fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL).await?;
        self.kill = false;
        Ok(())
    }

    /// Changes the size of the terminal, in characters.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the provider cannot change it, [`Kind::NotFound`] for an
    /// unknown exec or sandbox, and the kinds of every call: see [`Kind`].
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

    /// Lets the command continue when this handle is dropped, and returns its exec id. Input that was written is sent
    /// in the background. If the program may exit soon, flush the input first.
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

/// The state that the handles of one process share with its tasks.
struct Shared {
    sandbox: Sandbox,
    exec: ExecRef,
    output: Mutex<OutputState>,
    /// Notified when a reader took data or was dropped.
    room: Notify,
    input: Mutex<InputState>,
    /// Notified when there is input to send.
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
    /// Offset of the first byte that is not in the buffer yet.
    wanted: u64,
    /// Offset up to which the provider was read. It is ahead of `wanted` while the reader is slow.
    fetched: u64,
    /// Offset of the end of the stream, once known.
    end: Option<u64>,
    waker: Option<Waker>,
    dropped: bool,
}

impl OutputState {
    /// Returns whether both streams were read to their ends and the reading task still waits for the verdict.
    fn is_ending(&self) -> bool {
        self.streams.iter().all(|stream| stream.end.is_some() && stream.is_complete())
            && self.reader.as_ref().is_some_and(|reader| !reader.is_finished())
    }

    /// Ends both streams with the verdict `Deadline`, because the command is overdue.
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

    /// Returns whether all data was put into the buffer, or the reader was dropped.
    fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| self.dropped || self.wanted >= end)
    }

    /// Adds a piece to the buffer. Returns false for a piece whose end exceeds 64 bits.
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
        // The piece continues the buffer, so it is kept. It begins after the requested offset if the provider has
        // dropped the bytes between, which are lost.
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

    /// Returns the offset of the next request.
    fn position(&mut self) -> u64 {
        if !self.is_full() {
            self.fetched = self.wanted;
        }
        self.fetched
    }
}

/// Detects answers that come at once and contain nothing new. A correct plugin waits until it has news or its wait is
/// over. One that does neither is asked with growing pauses, up to one second.
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

    /// Pauses before the next request, if necessary.
    async fn pause(&mut self) {
        // Up to eight empty answers in a row are normal, for example when a wait ends together with the event.
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
    /// Bytes that the provider has accepted.
    accepted: u64,
    /// Other handles may have written before, so the provider has to be asked for the offset.
    unknown: bool,
    /// The input is closed after the pending data.
    eof: bool,
    /// The program accepts no more input.
    closed: bool,
    /// The writer was dropped and the input stays open: only pending data is sent.
    left: bool,
    failed: Option<Arc<Error>>,
    writer: Option<AbortHandle>,
    waker: Option<Waker>,
}

impl Shared {
    /// The time after which the command is given up, in Unix milliseconds. The plugin should have reported the end of
    /// the command's time limit before.
    fn overdue_at(&self) -> Option<u64> {
        let grace = millis(self.sandbox.inner().limits.overdue_time);
        self.exec.deadline.map(|deadline| deadline.saturating_add(grace))
    }

    /// Returns whether the command is given up.
    fn is_overdue(&self) -> bool {
        self.overdue_at().is_some_and(|overdue| now_millis() > overdue)
    }

    /// Returns how long the next call waits, in milliseconds: until just after the command is given up, but at most
    /// [`WAIT`].
    fn wait(&self) -> u64 {
        self.overdue_at().map_or(WAIT, |overdue| overdue.saturating_sub(now_millis()).saturating_add(1).min(WAIT))
    }

    fn output(&self) -> MutexGuard<'_, OutputState> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self) -> MutexGuard<'_, InputState> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the reading task when the output is polled for the first time.
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

/// Reads both streams until they are complete or their readers were dropped, and the verdict is known.
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
            // One full stream does not stop the requests while a reader waits for the other.
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
                            "the plugin returned an output position that overflows",
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
    // The size is checked because the plugin is not trusted.
    if output.stdout.data.len() + output.stderr.data.len() > max {
        return Err(Error::new(
            Kind::Internal,
            "read the output of a command",
            "the plugin returned more bytes than requested",
        ));
    }
    Ok(output)
}

/// Standard output or standard error of a process. Dropping it discards the output.
///
/// At most 2 MiB are buffered. A reader that is slow or absent does not block the command, because the provider stores
/// the output. A failed read returns an [`io::Error`] that contains the [`Error`] of the call
/// ([`io::Error::downcast`]), and every later read fails in the same way.
pub struct OutputStream {
    shared: Arc<Shared>,
    stream: usize,
}

impl AsyncRead for OutputStream {
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

impl Drop for OutputStream {
    fn drop(&mut self) {
        let mut state = self.shared.output();
        let stream = &mut state.streams[self.stream];
        stream.dropped = true;
        stream.chunks.clear();
        stream.buffered = 0;
        stream.waker = None;
        // A task that has reached both ends continues until it has the verdict.
        let abandoned = state.streams.iter().all(|stream| stream.dropped)
            && state.streams.iter().any(|stream| stream.end.is_none());
        if abandoned && let Some(reader) = state.reader.take() {
            reader.abort();
        }
        drop(state);
        self.shared.room.notify_one();
    }
}

/// Copies an error, because a stream reports it to every later read.
fn again(error: &Arc<Error>) -> io::Error {
    io::Error::from(error.duplicate())
}

/// Standard input of a process. Dropping it closes the input after everything that was written.
///
/// At most 1 MiB is buffered until the provider has accepted it; then writing waits. `flush` returns when the provider
/// has accepted everything. `shutdown` closes the input. After the program has ended or closed its input, writing fails
/// with `BrokenPipe`. If a call to the provider fails, the [`io::Error`] contains its [`Error`]
/// ([`io::Error::downcast`]).
pub struct InputStream {
    shared: Arc<Shared>,
}

impl InputStream {
    /// Drops the handle without closing the input. Pending data is still sent.
    fn leave_open(self) {
        self.shared.input().left = true;
    }
}

/// Sends input until the input is closed, or its writer was dropped and nothing is pending.
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
                // Small writes are combined into one piece.
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
    /// Applies the answer to a write. Returns false if the provider accepted nothing.
    fn answered(&mut self, answer: &types::InputState, offset: u64, sent: usize) -> bool {
        // An input that was closed on this side meanwhile stays closed.
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

impl AsyncWrite for InputStream {
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

impl Drop for InputStream {
    fn drop(&mut self) {
        let ended = self.shared.output().verdict.is_some();
        let mut state = self.shared.input();
        // The input of a command that was started elsewhere stays open, unless this handle has written to it.
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
        // Wakes the writing task, which must not wait for more data in any of these cases.
        self.shared.more.notify_one();
    }
}

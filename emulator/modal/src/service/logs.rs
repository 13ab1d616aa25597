//! The output and input of a sandbox in the calls of the first backend, and the stored output as logs.
//!
//! Output is sent as text in entries with a cursor. The cursor is the byte offset in the stream, so that a client can resume
//! exactly.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use modal_proto::client::*;
use modal_proto::prost_types::Timestamp;
use tonic::Status;

use crate::model::process::Running;
use crate::model::sandbox::{Phase, Sandbox};
use crate::model::spool::Spool;
use crate::model::state::State;
use crate::model::values::{now, wait};
use crate::service::app_logs::Scope;
use crate::service::caller::Caller;

/// A stream of log batches.
pub type Batches = Pin<Box<dyn Stream<Item = Result<TaskLogsBatch, Status>> + Send>>;

/// Longest log stream; clients request 55 seconds and reconnect.
pub(super) const MAX_STREAM: Duration = Duration::from_secs(600);

/// Bytes at the end of each output stream that are available as logs.
const KEPT: u64 = 16 << 20;

/// Largest number of lines of one write that become separate entries. Lines of a larger write are merged, because clients page
/// by time and cannot page through thousands of entries with the same time. Lines of a smaller write are not merged, because it
/// is chance whether two lines are in the same write, and the number of entries would vary.
const FEW: usize = 16;

/// Longest merged entry, in bytes.
const ENTRY: usize = 64 << 10;

/// Longest range of time of one request, in seconds.
const MAX_SPAN: f64 = 35.0 * 24.0 * 3600.0 + 1.0;

/// Waits for the entry point of a sandbox. Returns `None` if the sandbox ended without one.
pub async fn entry(sandbox: &Sandbox) -> Option<Arc<Running>> {
    let mut entry = sandbox.entry.subscribe();
    let mut phase = sandbox.phase.subscribe();
    tokio::select! {
        biased;
        started = entry.wait_for(Option::is_some) => started.ok().and_then(|entry| entry.clone()),
        _ = phase.wait_for(|phase| matches!(phase, Phase::Ended(_))) => sandbox.entry.borrow().clone(),
    }
}

/// Follows one output stream of a sandbox's entry point (SandboxGetLogs).
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist.
pub async fn stream(state: &Arc<State>, _: &Caller, request: SandboxGetLogsRequest) -> Result<Batches, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let fd = match request.file_descriptor() {
        FileDescriptor::Stderr => FileDescriptor::Stderr,
        _ => FileDescriptor::Stdout,
    };
    let offset = cursor(&request.last_entry_id);
    let until = tokio::time::Instant::now() + wait(request.timeout, MAX_STREAM);
    let Some(entry) = entry(&sandbox).await else {
        return Ok(stream::iter([Ok(last(&sandbox, offset))]).boxed());
    };
    let spool = if fd == FileDescriptor::Stderr { entry.stderr.clone() } else { entry.stdout.clone() };
    let mut text = Text::default();
    let following = sandbox.clone();
    let pieces = spool.follow(offset).map(move |piece| {
        let (at, bytes) = piece?;
        let end = at + bytes.len() as u64;
        let (data, held) = text.push(&bytes);
        Ok(batch(&following, fd, now(), data, end - held as u64))
    });
    let ending = stream::once(async move {
        let end = if fd == FileDescriptor::Stderr { &entry.stderr } else { &entry.stdout }.progress().len;
        Ok(last(&sandbox, end))
    });
    Ok(pieces.chain(ending).take_until(tokio::time::sleep_until(until)).boxed())
}

/// Parses an entry id to an offset; `0-0` and an empty id mean the beginning.
fn cursor(entry_id: &str) -> u64 {
    entry_id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Returns a batch with one entry. `time` is in Unix seconds, and `end` is the cursor after the entry.
pub(super) fn batch(sandbox: &Sandbox, fd: FileDescriptor, time: f64, data: String, end: u64) -> TaskLogsBatch {
    TaskLogsBatch {
        task_id: sandbox.task_id.clone(),
        items: vec![TaskLogs {
            data,
            file_descriptor: fd as i32,
            timestamp: time,
            timestamp_ns: (time * 1e9) as u64,
            ..Default::default()
        }],
        entry_id: format!("{end}-0"),
        sandbox_id: sandbox.id.clone(),
        ..Default::default()
    }
}

fn last(sandbox: &Sandbox, end: u64) -> TaskLogsBatch {
    TaskLogsBatch {
        task_id: sandbox.task_id.clone(),
        entry_id: format!("{end}-0"),
        eof: true,
        sandbox_id: sandbox.id.clone(),
        ..Default::default()
    }
}

/// Decodes bytes to text piece by piece. An incomplete character at the end of a piece is held back until the next piece.
#[derive(Debug, Default)]
pub(super) struct Text {
    held: Vec<u8>,
}

impl Text {
    /// Decodes the next piece. Returns the text, and how many bytes are held back.
    pub(super) fn push(&mut self, bytes: &[u8]) -> (String, usize) {
        self.held.extend_from_slice(bytes);
        let cut = match std::str::from_utf8(&self.held) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            _ => self.held.len(),
        };
        let rest = self.held.split_off(cut);
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        (text, self.held.len())
    }
}

/// Writes to the standard input of the entry point. Indexes count from 1; a repeated index is a retry.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist, and with FAILED_PRECONDITION if it has ended, its input is closed, or an
/// index was skipped.
pub async fn stdin(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxStdinWriteRequest,
) -> Result<SandboxStdinWriteResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    let ended = || Status::failed_precondition("The sandbox has ended");
    if !sandbox.lives() {
        return Err(ended());
    }
    let _busy = sandbox.busy();
    let entry = entry(&sandbox).await.ok_or_else(ended)?;
    // One request at a time: a retry that arrives while the first attempt waits for the pipe must not write again.
    let mut writes = sandbox.stdin_writes.lock().await;
    let done = writes.done;
    if request.index <= done && request.index != 0 {
        return Ok(SandboxStdinWriteResponse {});
    }
    if request.index > done + 1 {
        return Err(Status::failed_precondition(format!("index {} comes before index {}", request.index, done + 1)));
    }
    let offset = match writes.begun {
        // An earlier attempt was interrupted; the bytes that it wrote are not written again.
        Some((index, offset)) if index == request.index && index != 0 => offset,
        _ => entry.stdin.status().0,
    };
    writes.begun = Some((request.index, offset));
    entry.stdin.write(offset, &request.input, request.eof, None, &mut entry.exit.clone()).await?;
    writes.done = request.index.max(done);
    Ok(SandboxStdinWriteResponse {})
}

/// Returns stored output of an app, a task or a sandbox, or the log of a build (AppFetchLogs).
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the limit is above 20,000 or the range of time is too long, and with INVALID_ARGUMENT or
/// NOT_FOUND if the scope is not valid.
pub async fn fetch(
    state: &Arc<State>,
    _: &Caller,
    request: AppFetchLogsRequest,
) -> Result<AppFetchLogsResponse, Status> {
    if request.limit > 20_000 {
        return Err(Status::invalid_argument("limit must be at most 20000"));
    }
    let limit = if request.limit == 0 { 20_000 } else { request.limit as usize };
    let span = Span::new(request.since, request.until)?;
    if let Some(mut items) = crate::service::images::built_by(state, &request.task_id).await {
        items.retain(|line| span.wants(line, request.source(), &request.search_text));
        let items = items.split_off(items.len().saturating_sub(limit));
        let batch = TaskLogsBatch { task_id: request.task_id, items, ..Default::default() };
        return Ok(AppFetchLogsResponse { batches: vec![batch] });
    }
    let scope = Scope::new(state, &request.app_id, &request.task_id, &request.sandbox_id)?;
    let mut found: Vec<(Arc<Sandbox>, Line)> = Vec::new();
    for sandbox in scope.sandboxes(state) {
        let lines = lines_of(&sandbox, request.source(), &span).into_iter();
        let wanted = lines.filter(|line| span.contains(line.time) && line.text.contains(&request.search_text));
        let mut wanted: Vec<Line> = wanted.collect();
        for written in
            wanted.chunk_by_mut(|line, next| (line.fd, line.time, &line.sidecar) == (next.fd, next.time, &next.sidecar))
        {
            let longest = if written.len() > FEW { ENTRY } else { 0 };
            let first = found.len();
            for Line { sidecar, fd, time, text } in written {
                match found[first..].last_mut() {
                    Some((_, last)) if last.text.len() + text.len() <= longest => last.text.push_str(text),
                    _ => {
                        let (sidecar, text) = (sidecar.take(), std::mem::take(text));
                        found.push((sandbox.clone(), Line { sidecar, fd: *fd, time: *time, text }));
                    }
                }
            }
        }
    }
    // The newest entries, in order of time.
    found.sort_by(|(_, a), (_, b)| a.time.total_cmp(&b.time));
    let newest = found.split_off(found.len().saturating_sub(limit));
    let batches = newest.into_iter().zip(1..).map(|((sandbox, line), number)| {
        let mut batch = batch(&sandbox, line.fd, line.time, line.text, number);
        if let (Some((id, name)), Some(entry)) = (line.sidecar, batch.items.first_mut()) {
            (entry.container_id, entry.container_name) = (id, name);
        }
        batch
    });
    Ok(AppFetchLogsResponse { batches: batches.collect() })
}

/// Counts the stored lines per interval of time. Intervals without lines are omitted.
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT if the range of time is too long, and with INVALID_ARGUMENT or NOT_FOUND if the scope is not
/// valid.
pub async fn count(
    state: &Arc<State>,
    _: &Caller,
    request: AppCountLogsRequest,
) -> Result<AppCountLogsResponse, Status> {
    let span = Span::new(request.since, request.until)?;
    let width = i64::from(request.bucket_secs.max(1));
    let mut buckets = BTreeMap::new();
    let mut count = |time: f64, fd: FileDescriptor| {
        let seconds = (time as i64).div_euclid(width) * width;
        let bucket = buckets.entry(seconds).or_insert_with(|| app_count_logs_response::LogBucket {
            bucket_start_at: Some(Timestamp { seconds, nanos: 0 }),
            ..Default::default()
        });
        match fd {
            FileDescriptor::Stderr => bucket.stderr_logs += 1,
            _ => bucket.stdout_logs += 1,
        }
    };
    if let Some(mut lines) = crate::service::images::built_by(state, &request.task_id).await {
        lines.retain(|line| span.wants(line, request.source(), &request.search_text));
        lines.iter().for_each(|line| count(line.timestamp, line.file_descriptor()));
        return Ok(AppCountLogsResponse { app_id: request.app_id, buckets: buckets.into_values().collect() });
    }
    let scope = Scope::new(state, &request.app_id, &request.task_id, &request.sandbox_id)?;
    for sandbox in scope.sandboxes(state) {
        for line in lines_of(&sandbox, request.source(), &span) {
            if span.contains(line.time) && line.text.contains(&request.search_text) {
                count(line.time, line.fd);
            }
        }
    }
    Ok(AppCountLogsResponse { app_id: scope.app_id().to_owned(), buckets: buckets.into_values().collect() })
}

/// A line of a sandbox's output.
struct Line {
    /// Id and name of the sidecar that wrote it; `None` for the sandbox's own container.
    sidecar: Option<(String, String)>,
    fd: FileDescriptor,
    /// When its first byte was written, in Unix seconds.
    time: f64,
    text: String,
}

/// The requested range of time in Unix seconds; both ends are included.
struct Span {
    since: f64,
    until: f64,
}

impl Span {
    fn new(since: Option<Timestamp>, until: Option<Timestamp>) -> Result<Span, Status> {
        let seconds = |time: Timestamp| time.seconds as f64 + f64::from(time.nanos) / 1e9;
        let span = Span { since: since.map_or(0.0, seconds), until: until.map_or(f64::INFINITY, seconds) };
        if since.is_some() && until.is_some() && span.until - span.since > MAX_SPAN {
            return Err(Status::invalid_argument("The range of time must be at most 35 days"));
        }
        Ok(span)
    }

    fn contains(&self, time: f64) -> bool {
        (self.since..=self.until).contains(&time)
    }

    /// Returns whether a line matches the range of time, the stream and the search text.
    fn wants(&self, line: &TaskLogs, source: FileDescriptor, search: &str) -> bool {
        self.contains(line.timestamp)
            && (source == FileDescriptor::Unspecified || source == line.file_descriptor())
            && line.data.contains(search)
    }
}

/// Returns the stored lines of a sandbox's output. They include the lines of the span, and few others.
fn lines_of(sandbox: &Sandbox, source: FileDescriptor, span: &Span) -> Vec<Line> {
    let main = sandbox.entry.borrow().clone().map(|entry| (None, entry));
    let sidecars = sandbox.sidecars.lock().clone();
    let sidecars =
        sidecars.iter().filter_map(|one| Some((Some((one.id.clone(), one.name.clone())), one.entry.get()?.clone())));
    let mut lines = Vec::new();
    for (sidecar, entry) in main.into_iter().chain(sidecars) {
        for (fd, spool) in [(FileDescriptor::Stdout, &entry.stdout), (FileDescriptor::Stderr, &entry.stderr)] {
            if source == FileDescriptor::Unspecified || source == fd {
                let (mut offset, bytes) = kept(spool, span);
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    let text = String::from_utf8_lossy(line).into_owned();
                    lines.push(Line { sidecar: sidecar.clone(), fd, time: spool.written_at(offset), text });
                    offset += line.len() as u64;
                }
            }
        }
    }
    lines
}

/// Returns the lines that begin in the span, and the offset of the first. Reads little else, because clients repeatedly halve a
/// span that has too many lines.
fn kept(spool: &Spool, span: &Span) -> (u64, Vec<u8>) {
    let len = spool.progress().len;
    let oldest = len.saturating_sub(KEPT);
    let written = spool.written_between(span.since, span.until);
    if written.end <= oldest {
        return (oldest, Vec::new());
    }
    // Starts one byte earlier, which shows whether a line begins at the start of the span.
    let mut start = written.start.saturating_sub(1).max(oldest);
    let whole = start == oldest;
    let mut all = Vec::new();
    // Position from which to search for the end of the last line.
    let mut from = (written.end - 1 - start) as usize;
    while start + (all.len() as u64) < len {
        match spool.read(start + all.len() as u64) {
            Ok(piece) if !piece.is_empty() => all.extend_from_slice(&piece),
            _ => break,
        }
        if let Some(end) = all.iter().skip(from).position(|byte| *byte == b'\n') {
            all.truncate(from + end + 1);
            break;
        }
        from = from.max(all.len());
    }
    if !whole {
        let rest = all.iter().position(|byte| *byte == b'\n').map_or(all.len(), |end| end + 1);
        all.drain(..rest);
        start += rest as u64;
    }
    (start, all)
}

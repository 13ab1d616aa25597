//! Follows the output of an app, a task or a sandbox: sends the existing output, then new output, until the scope has ended.
//!
//! The cursor is the time of writing in microseconds, because all streams that are followed together share it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{StreamExt as _, stream};
use modal_proto::client::*;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::model::sandbox::Sandbox;
use crate::model::spool::micros;
use crate::model::state::State;
use crate::model::values::wait;
use crate::service::caller::Caller;
use crate::service::logs::{Batches, MAX_STREAM, Text, batch, entry};

/// How often the follower checks for new sandboxes and for the end of the app.
const LOOK: Duration = Duration::from_millis(50);

/// After the stream's time limit, how long existing output may still be sent.
const LATE: Duration = Duration::from_secs(5);

/// Number of batches that are queued for a slow client.
const WAITING: usize = 16;

/// Whose output is followed: all sandboxes of an app, or one sandbox.
#[derive(Debug, Clone)]
pub struct Scope {
    app_id: String,
    /// Id of the sandbox; `None` for all of the app's.
    only: Option<String>,
}

impl Scope {
    /// Returns the scope of a request, which names an app, a task or a sandbox, or a consistent combination. They may have
    /// ended.
    ///
    /// # Errors
    ///
    /// Fails with INVALID_ARGUMENT if all three ids are empty, and with NOT_FOUND if an object does not exist or does not
    /// belong to the others.
    pub fn new(state: &State, app_id: &str, task_id: &str, sandbox_id: &str) -> Result<Scope, Status> {
        if app_id.is_empty() && task_id.is_empty() && sandbox_id.is_empty() {
            return Err(Status::invalid_argument("app_id, task_id or sandbox_id is required"));
        }
        if !app_id.is_empty() && !state.tables.lock().apps.contains_key(app_id) {
            return Err(Status::not_found(format!("App with ID {app_id} not found")));
        }
        let of_task = if task_id.is_empty() { None } else { Some(state.task(task_id)?) };
        let by_id = if sandbox_id.is_empty() { None } else { Some(state.sandbox(sandbox_id)?) };
        let only = of_task.or(by_id);
        let strange = |sandbox: &Arc<Sandbox>| {
            (!app_id.is_empty() && sandbox.app_id != app_id)
                || (!task_id.is_empty() && sandbox.task_id != task_id)
                || (!sandbox_id.is_empty() && sandbox.id != sandbox_id)
        };
        if only.as_ref().is_some_and(strange) {
            return Err(Status::not_found("No such task or sandbox in this app"));
        }
        let app_id = only.as_ref().map_or_else(|| app_id.to_owned(), |sandbox| sandbox.app_id.clone());
        Ok(Scope { app_id, only: only.map(|sandbox| sandbox.id.clone()) })
    }

    /// Returns the id of the app.
    pub fn app_id(&self) -> &str {
        &self.app_id
    }

    /// Returns the sandboxes that exist now.
    pub fn sandboxes(&self, state: &State) -> Vec<Arc<Sandbox>> {
        let tables = state.tables.lock();
        match &self.only {
            Some(id) => tables.sandboxes.get(id).cloned().into_iter().collect(),
            None => tables.sandboxes.values().filter(|sandbox| sandbox.app_id == self.app_id).cloned().collect(),
        }
    }

    /// Returns whether neither new sandboxes nor new output can come.
    fn is_over(&self, state: &State) -> bool {
        let tables = state.tables.lock();
        let ended = |sandbox: &Arc<Sandbox>| sandbox.result().is_some();
        match &self.only {
            Some(id) => tables.sandboxes.get(id).is_none_or(ended),
            None => {
                tables.apps.get(&self.app_id).is_none_or(|app| app.stopped_at > 0.0)
                    && tables.sandboxes.values().filter(|sandbox| sandbox.app_id == self.app_id).all(ended)
            }
        }
    }
}

/// Follows the output of a scope (AppGetLogs).
///
/// # Errors
///
/// Fails with INVALID_ARGUMENT or NOT_FOUND if the scope is not valid.
pub async fn stream(state: &Arc<State>, _: &Caller, request: AppGetLogsRequest) -> Result<Batches, Status> {
    let scope = Scope::new(state, &request.app_id, &request.task_id, &request.sandbox_id)?;
    let since = request.last_entry_id.split('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let until = Instant::now() + wait(request.timeout, MAX_STREAM);
    let (sender, receiver) = mpsc::channel(WAITING);
    let wanted = match request.file_descriptor() {
        FileDescriptor::Unspecified => vec![FileDescriptor::Stdout, FileDescriptor::Stderr],
        one => vec![one],
    };
    tokio::spawn(follow(state.clone(), scope, wanted, since, until, sender));
    Ok(ReceiverStream::new(receiver).boxed())
}

async fn follow(
    state: Arc<State>,
    scope: Scope,
    wanted: Vec<FileDescriptor>,
    since: u64,
    until: Instant,
    sender: mpsc::Sender<Result<TaskLogsBatch, Status>>,
) {
    let (mut seen, mut streams, mut newest) = (HashSet::new(), SelectAll::new(), since);
    loop {
        // Checked before the sandboxes are listed: no sandbox is added after the end of the scope.
        let over = scope.is_over(&state);
        for sandbox in scope.sandboxes(&state) {
            if seen.insert(sandbox.id.clone()) {
                streams.extend(wanted.iter().map(|fd| output(sandbox.clone(), *fd, since)));
            }
        }
        let look = (Instant::now() + LOOK).min(until);
        loop {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                Some(batch) = streams.next(), if !streams.is_empty() => {
                    let batch: Result<(u64, TaskLogsBatch), Status> = batch;
                    let batch = batch.map(|(time, batch)| {
                        newest = newest.max(time);
                        TaskLogsBatch { entry_id: format!("{newest}-0"), ..batch }
                    });
                    if sender.send(batch).await.is_err() || Instant::now() > until + LATE {
                        return;
                    }
                }
                () = tokio::time::sleep_until(look), if !(over && streams.is_empty()) => break,
                else => break,
            }
        }
        if over && streams.is_empty() {
            let entry_id = format!("{newest}-0");
            let _ = sender.send(Ok(TaskLogsBatch { app_done: true, eof: true, entry_id, ..Default::default() })).await;
            return;
        }
        if Instant::now() >= until {
            return;
        }
    }
}

/// Streams one output stream of a sandbox from the time `since` in microseconds. Each batch comes with the time of its last
/// byte.
fn output(
    sandbox: Arc<Sandbox>,
    fd: FileDescriptor,
    since: u64,
) -> BoxStream<'static, Result<(u64, TaskLogsBatch), Status>> {
    let started = async move {
        let Some(running) = entry(&sandbox).await else { return stream::empty().boxed() };
        let spool = match fd {
            FileDescriptor::Stdout => running.stdout.clone(),
            FileDescriptor::Stderr => running.stderr.clone(),
            _ => return stream::empty().boxed(),
        };
        let mut text = Text::default();
        let from = spool.written_after(since);
        let pieces = spool.clone().follow(from).map(move |piece| {
            let (at, bytes) = piece?;
            let end = at + bytes.len() as u64;
            let time = spool.written_at(end.saturating_sub(1));
            let (data, _) = text.push(&bytes);
            Ok((micros(time), batch(&sandbox, fd, time, data, end)))
        });
        pieces.boxed()
    };
    stream::once(started).flatten().boxed()
}

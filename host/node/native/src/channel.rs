//! The calls of one JavaScript thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sandbox_bridge::Bridge;
use serde_json::json;
use tokio::task::AbortHandle;

/// The result of a call.
pub(crate) struct Completion {
    /// The number that JavaScript gave to the call.
    pub(crate) id: u64,
    /// Whether the call succeeded.
    pub(crate) succeeded: bool,
    /// The JSON text of the reply, or of the error.
    pub(crate) json: String,
    /// The bytes that belong to the reply.
    pub(crate) parts: Vec<Vec<u8>>,
}

/// A function that passes results to the JavaScript thread. It must not block.
type Sink = Box<dyn Fn(Completion) + Send + Sync>;

/// The calls of one JavaScript thread, with the objects that they opened.
pub(crate) struct Channel {
    bridge: Bridge,
    /// What cancels each call under way, by its number. `None` after [`Channel::close`].
    running: Mutex<Option<HashMap<u64, AbortHandle>>>,
    sink: Sink,
}

impl Channel {
    /// Creates a channel that passes its results to `sink`.
    pub(crate) fn new(sink: Sink) -> Arc<Channel> {
        Arc::new(Channel { bridge: Bridge::new(), running: Mutex::new(Some(HashMap::new())), sink })
    }

    fn running(&self) -> MutexGuard<'_, Option<HashMap<u64, AbortHandle>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a call. Its result, also that of a failure, goes to the sink, unless the call is cancelled.
    ///
    /// # Errors
    ///
    /// Fails with a message if the channel is closed or the threads for the calls cannot be started.
    pub(crate) fn call(
        self: &Arc<Channel>,
        id: u64,
        method: String,
        arguments: String,
        data: Bytes,
    ) -> Result<(), String> {
        let runtime = sandbox_bridge::runtime().map_err(|error| format!("cannot start threads: {error}"))?;
        // Locked until the handle is stored: the task removes it when it ends.
        let mut running = self.running();
        let Some(running) = &mut *running else {
            return Err("the thread of these objects has ended".to_owned());
        };
        let mut answer = Answer { channel: Arc::clone(self), id, given: false };
        let task = runtime.spawn(async move {
            let completion = match answer.channel.bridge.call(&method, &arguments, data).await {
                Ok(reply) => Completion { id, succeeded: true, json: reply.json, parts: reply.parts },
                Err(fault) => Completion { id, succeeded: false, json: fault.json(), parts: Vec::new() },
            };
            answer.give(completion);
        });
        running.insert(id, task.abort_handle());
        Ok(())
    }

    /// Cancels a call. Nothing happens if it has ended.
    pub(crate) fn cancel(&self, id: u64) {
        let task = self.running().as_mut().and_then(|running| running.remove(&id));
        // Outside of the lock, because the task may be dropped here, and then takes the lock.
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Cancels all calls and closes all objects. Later calls are refused.
    pub(crate) fn close(&self) {
        let running = self.running().take();
        for task in running.into_iter().flatten().map(|(_, task)| task) {
            task.abort();
        }
        self.bridge.close_all();
    }
}

/// The result that a call owes. If its task ends without one, because it panicked, this sends an error.
struct Answer {
    channel: Arc<Channel>,
    id: u64,
    given: bool,
}

impl Answer {
    fn give(&mut self, completion: Completion) {
        self.given = true;
        if let Some(running) = self.channel.running().as_mut() {
            running.remove(&self.id);
        }
        (self.channel.sink)(completion);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            // JavaScript ignores it if the call was cancelled.
            let error = json!({
                "kind": "internal", "message": "the call stopped unexpectedly", "reason": "the call stopped unexpectedly",
                "happened": "unknown", "retryable": false, "retry_after_ms": null, "subject": null,
            });
            self.give(Completion { id: self.id, succeeded: false, json: error.to_string(), parts: Vec::new() });
        }
    }
}

//! One function for all methods.

use std::sync::Arc;

use bytes::Bytes;

use crate::fault::{CLOSED, Fault};
use crate::methods;
use crate::objects::Objects;
use crate::reply::Reply;
use crate::runtime::FORKED;

/// The methods of `PROTOCOL.md` over a table of objects. Cheap to clone; all clones have the same objects.
///
/// Calls must run in a tokio runtime with time and IO, such as [`runtime`](crate::runtime()). Dropping the future of a call
/// cancels it: a running `sandbox.run` kills its command. When the last clone is dropped, all objects are closed.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
}

struct Inner {
    objects: Arc<Objects>,
    /// The process that created the bridge.
    process: u32,
}

impl Default for Bridge {
    fn default() -> Self {
        Bridge::new()
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bridge").finish_non_exhaustive()
    }
}

impl Bridge {
    /// Creates a bridge without objects.
    #[must_use]
    pub fn new() -> Bridge {
        Bridge { inner: Arc::new(Inner { objects: Arc::default(), process: std::process::id() }) }
    }

    /// Calls a method. `arguments` is the text of a JSON object; an empty text is an object without fields. `data` is empty
    /// but for the methods that take bulk data.
    ///
    /// # Errors
    ///
    /// A fault of the kind `invalid-argument` for an unknown method, for arguments that do not fit, and for data that the
    /// method does not take; `closed` after [`close_all`](Bridge::close_all), for closed objects, and in a forked process;
    /// and the errors of the method.
    pub async fn call(&self, method: &str, arguments: &str, data: Bytes) -> Result<Reply, Fault> {
        self.check()?;
        let call = methods::start(self.inner.objects.clone(), method, arguments, data)?;
        self.inner.objects.run(call).await
    }

    /// Checks that calls are possible in this process. A library that starts calls on the threads of
    /// [`runtime`](crate::runtime()) checks this before, because these threads do not exist in a forked process.
    ///
    /// # Errors
    ///
    /// A fault of the kind `closed` in a process that was forked from the one that created the bridge.
    pub fn check(&self) -> Result<(), Fault> {
        if self.is_forked() { Err(Fault::new(CLOSED, FORKED)) } else { Ok(()) }
    }

    /// Closes all objects. Calls that are under way fail with the kind `closed`, and so do all later ones. Processes that
    /// were not detached are killed; sandboxes keep running.
    pub fn close_all(&self) {
        if !self.is_forked() {
            self.inner.objects.close_all();
        }
    }

    /// Closes all objects like [`close_all`](Bridge::close_all), and waits until the commands of closed processes and of
    /// cancelled calls were killed, at most for about ten seconds. A program that ends soon afterwards waits here, because
    /// otherwise some of these commands continue.
    pub async fn shut_down(&self) {
        if !self.is_forked() {
            self.inner.objects.shut_down_all().await;
        }
    }

    fn is_forked(&self) -> bool {
        self.inner.process != std::process::id()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            self.objects.close_all();
        } else {
            // The end of an object would wait for threads that do not exist in a forked process.
            std::mem::forget(self.objects.clone());
        }
    }
}

//! The table of objects: providers, builds, processes, watches, forwarded ports.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use sandbox_host::{Build, InputStream, Keeper, OutputStream, Process, Provider, Sandbox, Signal, types};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::shapes::results::BuiltImage;

/// The objects of one bridge, by their numbers. A number is never used twice.
#[derive(Default)]
pub(crate) struct Objects {
    table: StdMutex<Table>,
    /// Cancelled when the bridge is closed.
    closed: CancellationToken,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: HashMap<u64, Entry>,
}

struct Entry {
    object: Object,
    closed: CancellationToken,
}

/// An object of any kind.
#[derive(Clone)]
pub(crate) enum Object {
    Provider(Arc<ProviderObject>),
    Build(Arc<BuildObject>),
    Process(Arc<ProcessObject>),
    Forward(#[allow(dead_code)] Arc<ForwardObject>),
    Watch(Arc<WatchObject>),
}

/// A use of an object by a call.
pub(crate) struct Use<T> {
    pub(crate) object: Arc<T>,
    what: String,
    closed: CancellationToken,
}

/// A kind of objects.
pub(crate) trait Kept: Sized {
    /// The name in errors.
    const NAME: &'static str;

    fn wrap(object: Arc<Self>) -> Object;
    fn unwrap(object: &Object) -> Option<&Arc<Self>>;
}

macro_rules! kept {
    ($($kind:ident in $case:ident: $name:literal,)*) => {$(
        impl Kept for $kind {
            const NAME: &'static str = $name;

            fn wrap(object: Arc<Self>) -> Object {
                Object::$case(object)
            }

            fn unwrap(object: &Object) -> Option<&Arc<Self>> {
                match object {
                    Object::$case(object) => Some(object),
                    _ => None,
                }
            }
        }
    )*};
}

kept! {
    ProviderObject in Provider: "provider",
    BuildObject in Build: "build",
    ProcessObject in Process: "process",
    ForwardObject in Forward: "forward",
    WatchObject in Watch: "watch",
}

impl Objects {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an object and returns its number. Fails if the bridge was closed.
    pub(crate) fn add<T: Kept>(&self, object: T) -> Result<u64, Fault> {
        let mut table = self.table();
        if self.closed.is_cancelled() {
            return Err(bridge_closed());
        }
        table.last += 1;
        let number = table.last;
        table.entries.insert(number, Entry { object: T::wrap(Arc::new(object)), closed: self.closed.child_token() });
        Ok(number)
    }

    /// Returns an object for a call.
    pub(crate) fn get<T: Kept>(&self, number: u64) -> Result<Use<T>, Fault> {
        let table = self.table();
        let what = format!("the {} {number}", T::NAME);
        match table.entries.get(&number) {
            Some(Entry { object, closed }) => match T::unwrap(object) {
                Some(object) => Ok(Use { object: object.clone(), what, closed: closed.clone() }),
                None => Err(Fault::invalid(format!("the object {number} is no {}", T::NAME))),
            },
            None if self.closed.is_cancelled() => Err(bridge_closed()),
            None if (1..=table.last).contains(&number) => Err(Fault::closed(what)),
            None => Err(Fault::invalid(format!("there is no object {number}"))),
        }
    }

    /// Removes an object. Calls on it that are under way fail. Does nothing if it was removed already.
    pub(crate) fn close(&self, number: u64) -> Result<(), Fault> {
        let mut table = self.table();
        match table.entries.remove(&number) {
            Some(entry) => {
                // The object may end here, and its end may take other locks.
                drop(table);
                entry.closed.cancel();
                Ok(())
            }
            None if (1..=table.last).contains(&number) => Ok(()),
            None => Err(Fault::invalid(format!("there is no object {number}"))),
        }
    }

    /// Removes all objects and returns the providers. All calls that are under way fail, and all later ones.
    pub(crate) fn close_all(&self) -> Vec<Provider> {
        self.closed.cancel();
        let entries = std::mem::take(&mut self.table().entries);
        let provider = |entry: Entry| match entry.object {
            Object::Provider(object) => Some(object.provider.clone()),
            _ => None,
        };
        entries.into_values().filter_map(provider).collect()
    }

    /// Runs a call until the bridge is closed.
    pub(crate) async fn run<T>(&self, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        if self.closed.is_cancelled() {
            return Err(bridge_closed());
        }
        tokio::select! {
            biased;
            result = call => result,
            () = self.closed.cancelled() => Err(Fault::interrupted("the library")),
        }
    }
}

fn bridge_closed() -> Fault {
    Fault::closed("the library")
}

impl<T> Use<T> {
    /// Waits for `work`, and fails when the object is closed before.
    pub(crate) async fn run<R, E: Into<Fault>>(&self, work: impl Future<Output = Result<R, E>>) -> Result<R, Fault> {
        tokio::select! {
            biased;
            result = work => result.map_err(Into::into),
            () = self.closed.cancelled() => Err(Fault::interrupted(&self.what)),
        }
    }
}

/// An open provider.
pub(crate) struct ProviderObject {
    pub(crate) provider: Provider,
    /// Renews the leases of the sandboxes, if the provider has an owner.
    pub(crate) keeper: Option<Keeper>,
    pub(crate) throttle: Arc<Throttle>,
}

/// The waits that the service has requested for creations.
#[derive(Default)]
pub(crate) struct Throttle {
    pub(crate) count: AtomicU64,
    /// The end of the latest wait.
    pub(crate) until: StdMutex<Option<Instant>>,
}

/// A build in progress.
pub(crate) struct BuildObject {
    pub(crate) build: Mutex<Build>,
    /// The image, after the log was read to its end.
    pub(crate) image: OnceLock<BuiltImage>,
}

/// A command.
pub(crate) struct ProcessObject {
    /// The sandbox, or the sidecar, in which it runs.
    pub(crate) place: Sandbox,
    pub(crate) exec: String,
    pub(crate) process: Mutex<Option<Process>>,
    pub(crate) stdin: Mutex<Option<InputStream>>,
    pub(crate) stdout: Mutex<OutputStream>,
    pub(crate) stderr: Mutex<OutputStream>,
    /// The command continues when this object is closed.
    detached: AtomicBool,
}

impl ProcessObject {
    /// Creates an object. `place` is the sandbox or the sidecar of the command. Returns `None` if a stream was taken out
    /// of the process.
    pub(crate) fn new(place: Sandbox, mut process: Process) -> Option<ProcessObject> {
        Some(ProcessObject {
            place,
            exec: process.id().to_owned(),
            stdin: Mutex::new(process.stdin.take()),
            stdout: Mutex::new(process.stdout.take()?),
            stderr: Mutex::new(process.stderr.take()?),
            process: Mutex::new(Some(process)),
            detached: AtomicBool::new(false),
        })
    }

    /// Lets the command and its input stay when this object is closed.
    pub(crate) fn detach(&self) {
        self.detached.store(true, Ordering::SeqCst);
    }
}

impl Drop for ProcessObject {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.get_mut().take()
            && *self.detached.get_mut()
        {
            process.stdin = self.stdin.get_mut().take();
            process.detach();
        }
    }
}

/// A local port that is forwarded to a sandbox. Its end closes the port and all connections.
pub(crate) struct ForwardObject {
    pub(crate) task: AbortHandle,
}

impl Drop for ForwardObject {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A watch for changed files. Its end stops the watch in the sandbox.
pub(crate) struct WatchObject {
    pub(crate) place: Sandbox,
    pub(crate) path: String,
    pub(crate) id: String,
    pub(crate) recursive: bool,
    pub(crate) state: Mutex<WatchState>,
}

/// What was read from a watch.
pub(crate) struct WatchState {
    pub(crate) pending: VecDeque<types::FileEvent>,
    pub(crate) position: u64,
    pub(crate) end: bool,
}

impl Drop for WatchObject {
    fn drop(&mut self) {
        if self.state.get_mut().end {
            return;
        }
        // Outside of the runtime there is no task for it. The watch then ends with the sandbox.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (place, id) = (self.place.clone(), self.id.clone());
            runtime.spawn(async move {
                if let Err(error) = place.signal(&id, Signal::TERM).await {
                    tracing::debug!(%error, "the watch could not be ended");
                }
            });
        }
    }
}

//! The table of objects: providers, and what was opened through them: builds, processes, watches, forwarded ports, transfers.
//! An object other than a provider has an owner, and is closed with it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sandbox_host::{Build, InputStream, Keeper, OutputStream, Process, Provider, Sandbox, Signal, types};
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::fault::Fault;
use crate::reply::Reply;
use crate::shapes::results::BuiltImage;

/// How long the end of a provider waits for its calls to be dropped. That needs no request, so only a future that is not polled
/// any more takes longer.
const DROPPED: Duration = Duration::from_secs(5);

/// How long a closed provider may still send what detached commands were given as input. That is at most 1 MiB, which takes
/// milliseconds. A call that was given up can go on for a minute in a plugin with a single instance, and ends after this time.
const DETACHED: Duration = Duration::from_secs(5);

/// The objects of one bridge, by their numbers. A number is never used twice.
#[derive(Default)]
pub(crate) struct Objects {
    table: StdMutex<Table>,
    /// Cancelled when the bridge is closed.
    closed: CancellationToken,
    /// The number of closed providers whose commands are being killed.
    ending: Uses,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: HashMap<u64, Entry>,
}

struct Entry {
    object: Object,
    /// The provider through which it was opened. A provider has none.
    owner: Option<u64>,
    /// Cancelled when the object is closed. For an object with an owner, also when the owner is closed.
    closed: CancellationToken,
    /// The calls on a provider, and on all objects that were opened through it.
    uses: Uses,
}

/// An object of any kind.
#[derive(Clone)]
pub(crate) enum Object {
    Provider(Arc<ProviderObject>),
    Build(Arc<BuildObject>),
    Process(Arc<ProcessObject>),
    Forward(#[allow(dead_code)] Arc<ForwardObject>),
    Watch(Arc<WatchObject>),
    Transfer(Arc<TransferObject>),
}

/// A use of an object by a call.
pub(crate) struct Use<T> {
    pub(crate) object: Arc<T>,
    number: u64,
    what: String,
    closed: CancellationToken,
    /// Dropped after the object, so that a wait for all calls includes the effects of the end of the object.
    _counted: Counted,
}

/// The number of calls on a provider and on the objects that were opened through it, or of other work under way.
#[derive(Clone, Default)]
struct Uses(watch::Sender<usize>);

/// A call, or other work, that is counted until this is dropped.
struct Counted(Uses);

impl Uses {
    fn count(&self) -> Counted {
        self.0.send_modify(|uses| *uses += 1);
        Counted(self.clone())
    }

    /// Waits until nothing is counted.
    async fn none(&self) {
        // Cannot fail: `self` holds the sender.
        let _ = self.0.subscribe().wait_for(|left| *left == 0).await;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.send_modify(|uses| *uses -= 1);
    }
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
    TransferObject in Transfer: "transfer",
}

impl Objects {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a provider and returns its number. Fails if the bridge was closed.
    pub(crate) fn add_provider(&self, provider: ProviderObject) -> Result<u64, Fault> {
        let mut table = self.table();
        if self.closed.is_cancelled() {
            return Err(bridge_closed());
        }
        let object = ProviderObject::wrap(Arc::new(provider));
        Ok(table.add(Entry { object, owner: None, closed: self.closed.child_token(), uses: Uses::default() }))
    }

    /// Adds an object that was opened through a provider, and returns its number. Fails if the provider was closed.
    pub(crate) fn add<T: Kept>(&self, provider: &Use<ProviderObject>, object: T) -> Result<u64, Fault> {
        let mut table = self.table();
        let Some(Entry { closed, uses, .. }) = table.entries.get(&provider.number) else {
            // The object ends here, and its end may take other locks.
            drop(table);
            return Err(Fault::interrupted(&provider.what));
        };
        let (closed, uses, owner) = (closed.child_token(), uses.clone(), Some(provider.number));
        Ok(table.add(Entry { object: T::wrap(Arc::new(object)), owner, closed, uses }))
    }

    /// Returns an object for a call.
    pub(crate) fn get<T: Kept>(&self, number: u64) -> Result<Use<T>, Fault> {
        let table = self.table();
        let what = format!("the {} {number}", T::NAME);
        match table.entries.get(&number) {
            Some(Entry { object, closed, uses, .. }) => match T::unwrap(object) {
                Some(object) => {
                    let (object, closed) = (object.clone(), closed.clone());
                    Ok(Use { object, number, what, closed, _counted: uses.count() })
                }
                None => Err(Fault::invalid(format!("the object {number} is no {}", T::NAME))),
            },
            None if self.closed.is_cancelled() => Err(bridge_closed()),
            None if (1..=table.last).contains(&number) => Err(Fault::closed(what)),
            None => Err(Fault::invalid(format!("there is no object {number}"))),
        }
    }

    /// Removes an object, and those that were opened through it. Calls on them that are under way fail. A provider ends in
    /// the background: its commands are killed, then what still runs in its instances is cancelled. Does nothing if the object
    /// was removed already. Must be called within a tokio runtime.
    pub(crate) fn close(&self, number: u64) -> Result<(), Fault> {
        if let Some((Object::Provider(object), uses)) = self.remove(number)? {
            let (provider, ending) = (object.provider.clone(), self.ending.count());
            tokio::spawn(async move {
                end(&provider, &uses, DETACHED).await;
                drop(ending);
            });
        }
        Ok(())
    }

    /// Removes an object like [`close`](Objects::close), and returns it with what counts the calls that were under way on it.
    fn remove(&self, number: u64) -> Result<Option<(Object, Uses)>, Fault> {
        let mut table = self.table();
        let Some(entry) = table.entries.remove(&number) else {
            return match (1..=table.last).contains(&number) {
                true => Ok(None),
                false => Err(Fault::invalid(format!("there is no object {number}"))),
            };
        };
        let owned: Vec<_> = table.entries.extract_if(|_, other| other.owner == Some(number)).collect();
        // The objects may end here, and their end may take other locks.
        drop(table);
        entry.closed.cancel();
        drop(owned);
        Ok(Some((entry.object, entry.uses)))
    }

    /// Ends a provider: waits for the calls that are under way, cancels those that take longer than `grace`, closes the
    /// provider with all objects that were opened through it, and waits until their commands were killed. Returns the
    /// number of cancelled calls.
    pub(crate) async fn shut_down(&self, number: u64, grace: Duration) -> Result<usize, Fault> {
        // Not as a use, because the end of all uses is waited for.
        let provider = self.get::<ProviderObject>(number)?.object;
        let cancelled = provider.provider.drain(grace).await;
        if let Some((_, uses)) = self.remove(number)? {
            end(&provider.provider, &uses, Duration::ZERO).await;
        }
        Ok(cancelled)
    }

    /// Removes all objects. All calls that are under way fail, and all later ones.
    pub(crate) fn close_all(&self) {
        self.remove_all();
    }

    /// Removes all objects like [`close_all`](Objects::close_all), and waits until the commands of closed processes and of
    /// cancelled calls were killed, also those of providers that were closed before.
    pub(crate) async fn shut_down_all(&self) {
        let providers = self.remove_all();
        let ends = providers.iter().map(|(provider, uses)| end(provider, uses, Duration::ZERO));
        tokio::join!(join_all(ends), self.ending.none());
    }

    fn remove_all(&self) -> Vec<(Provider, Uses)> {
        self.closed.cancel();
        let entries = std::mem::take(&mut self.table().entries);
        let provider = |entry: Entry| match entry.object {
            Object::Provider(object) => Some((object.provider.clone(), entry.uses)),
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

impl Table {
    fn add(&mut self, entry: Entry) -> u64 {
        self.last += 1;
        self.entries.insert(self.last, entry);
        self.last
    }
}

/// Waits until the commands of a closed provider were killed: those of its processes and of its calls. A process ends
/// when the last call on it is dropped, so this waits for the calls first. What continues in the background for longer than
/// `grace` is cancelled.
async fn end(provider: &Provider, uses: &Uses, grace: Duration) {
    if tokio::time::timeout(DROPPED, uses.none()).await.is_err() {
        tracing::debug!("a call on a closed provider was not dropped");
    }
    provider.shutdown(grace).await;
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
        self.place.signal_later(&self.id, Signal::TERM);
    }
}

/// A copy of a file or directory in the background. Its end cancels the copy.
pub(crate) struct TransferObject {
    pub(crate) task: AbortHandle,
    pub(crate) progress: watch::Receiver<Progress>,
    /// The result of the copy. Without a value, its task ended by a panic.
    pub(crate) result: watch::Receiver<Option<Result<Reply, Fault>>>,
    /// The bytes that `transfer.next` returned last, and when.
    pub(crate) told: Mutex<(u64, Option<Instant>)>,
}

impl Drop for TransferObject {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How far a copy is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) bytes: u64,
    pub(crate) total: Option<u64>,
}

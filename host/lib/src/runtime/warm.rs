//! Which instance serves which call.
//!
//! Calls about the same sandbox go to instances that have served it before: they know its worker and have its streams
//! open. After a call an instance is kept warm for a while. What a new instance needs to know (tokens, worker access)
//! it takes over from the cache that another one exported, so that it repeats no requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::runtime::instance::Instance;

/// Warm instances per sandbox: as many as a busy harness has calls at once on one sandbox.
const PER_ROUTE: usize = 64;

/// Warm instances in all. At a third of a MiB each, some 80 MiB.
const TOTAL: usize = 256;

/// An instance that was not used for this long is let go. Worker tokens live for minutes; idle HTTP/2 streams that it
/// holds are not worth more.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Exported caches that are kept, one per sandbox.
const CACHES: usize = 1024;

/// The largest cache that is taken; the interface's bound.
const CACHE_BYTES: usize = 1 << 20;

/// A cache older than this is exported anew after the next call.
const CACHE_AGE: Duration = Duration::from_secs(60);

/// Calls of this process that wait for an instance to become free, of whatever provider.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The warm instances of all providers of this process: they share the number that there may be.
static ALL: Mutex<Vec<Weak<Warm>>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<Weak<Warm>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A wait for an instance. While it lasts none is kept warm.
pub(crate) struct WaitForPlace(());

impl WaitForPlace {
    /// Lets go of those that are warm now, so that the waiting calls get their places.
    pub(crate) fn begin() -> WaitForPlace {
        // Before the purge: an instance that is put back is put before it, and goes with it, or finds this.
        WAITING.fetch_add(1, Ordering::SeqCst);
        let all: Vec<_> = all().iter().filter_map(Weak::upgrade).collect();
        for warm in all {
            warm.purge(Duration::ZERO);
        }
        WaitForPlace(())
    }
}

impl Drop for WaitForPlace {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a call is about: a sandbox, or the provider itself (none).
pub(crate) type Route = Option<Arc<str>>;

/// Warm instances and exported caches of one provider.
#[derive(Default)]
pub(crate) struct Warm {
    routes: Mutex<HashMap<Route, Vec<(Instance, Instant)>>>,
    caches: Mutex<HashMap<Route, (Vec<u8>, Instant)>>,
    count: AtomicUsize,
}

impl Warm {
    pub(crate) fn new() -> Arc<Warm> {
        let warm = Arc::new(Warm::default());
        let mut all = all();
        // A process may make and drop any number of providers.
        all.retain(|warm| warm.strong_count() > 0);
        all.push(Arc::downgrade(&warm));
        warm
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<Route, Vec<(Instance, Instant)>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instance used last for this route: its streams are the freshest.
    pub(crate) fn take(&self, route: &Route) -> Option<Instance> {
        let mut routes = self.routes();
        let list = routes.get_mut(route)?;
        let (instance, _) = list.pop()?;
        if list.is_empty() {
            routes.remove(route);
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(instance)
    }

    /// Keeps an instance, unless there are enough, or a call waits for its place.
    pub(crate) fn put(&self, route: Route, instance: Instance) {
        let mut routes = self.routes();
        if WAITING.load(Ordering::SeqCst) > 0 || self.count.load(Ordering::Relaxed) >= TOTAL {
            return;
        }
        let list = routes.entry(route).or_default();
        if list.len() < PER_ROUTE {
            list.push((instance, Instant::now()));
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets go of instances that have been idle for longer than `age`. True if there were any.
    pub(crate) fn purge(&self, age: Duration) -> bool {
        let mut gone = Vec::new();
        let mut routes = self.routes();
        routes.retain(|_, list| {
            // In order of use, so the old ones are in front.
            let old = list.iter().take_while(|(_, since)| since.elapsed() >= age).count();
            gone.extend(list.drain(..old));
            !list.is_empty()
        });
        drop(routes);
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
        !gone.is_empty()
    }

    /// Forgets what new instances for this route were told, which they could not bear.
    pub(crate) fn forget_cache(&self, route: &Route) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if caches.remove(route).is_none() {
            caches.remove(&None);
        }
    }

    /// Forgets a sandbox that is over.
    pub(crate) fn forget(&self, route: &Route) {
        let gone = self.routes().remove(route);
        self.count.fetch_sub(gone.map_or(0, |list| list.len()), Ordering::Relaxed);
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).remove(route);
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What a new instance for this route should know: of the sandbox itself, else of the provider.
    pub(crate) fn cache(&self, route: &Route) -> Option<Vec<u8>> {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.get(route).or_else(|| caches.get(&None)).map(|(cache, _)| cache.clone())
    }

    /// Whether this instance's cache is to be exported after a call: because there is none for the route, or an old
    /// one, or because the instance began with nothing and is just learning.
    pub(crate) fn wants_cache(&self, route: &Route, instance: &Instance) -> bool {
        if !instance.informed && instance.age <= 3 {
            return true;
        }
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.get(route).is_none_or(|(_, since)| since.elapsed() > CACHE_AGE)
    }

    /// Keeps an exported cache; also as the provider's own when that has none as fresh.
    pub(crate) fn store_cache(&self, route: &Route, cache: Vec<u8>) {
        if cache.is_empty() || cache.len() > CACHE_BYTES {
            return;
        }
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if caches.len() >= CACHES
            && let Some(oldest) = caches.iter().min_by_key(|(_, (_, since))| *since).map(|(route, _)| route.clone())
        {
            caches.remove(&oldest);
        }
        if route.is_some() && caches.get(&None).is_none_or(|(_, since)| since.elapsed() > CACHE_AGE) {
            caches.insert(None, (cache.clone(), Instant::now()));
        }
        caches.insert(route.clone(), (cache, Instant::now()));
    }
}

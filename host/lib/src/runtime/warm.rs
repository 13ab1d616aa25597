//! Warm instances, and the choice of an instance for a call.
//!
//! Calls about a sandbox use instances that have served the same sandbox, because these know its worker and have open
//! streams to it. After a call an instance is kept for a while. A new instance imports the cache (tokens, worker
//! access) that another instance exported, so that it does not repeat requests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::runtime::instance::Instance;

/// Most warm instances per sandbox: the number of concurrent calls of a busy program on one sandbox.
const PER_ROUTE: usize = 64;

/// Most warm instances of one provider. They need about a third of a MiB each, together some 80 MiB.
const TOTAL: usize = 256;

/// Idle time after which a warm instance is dropped. Worker tokens live for minutes, but the idle HTTP/2 streams of an
/// instance are not worth keeping longer.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Most exported caches that are kept, one per sandbox.
const CACHES: usize = 1024;

/// Largest cache that is kept, in bytes: the limit of the interface.
const CACHE_BYTES: usize = 1 << 20;

/// Age after which a cache is exported again after the next call.
const CACHE_AGE: Duration = Duration::from_secs(60);

/// Number of calls in this process, of all providers, that wait for an instance.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// The warm instances of all providers in this process, because they share the maximum number of instances.
static ALL: Mutex<Vec<Weak<Warm>>> = Mutex::new(Vec::new());

fn all() -> MutexGuard<'static, Vec<Weak<Warm>>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that waits for an instance. While one exists, no instance is kept warm.
pub(crate) struct WaitForPlace(());

impl WaitForPlace {
    /// Drops all warm instances, so that the waiting calls get their places.
    pub(crate) fn begin() -> WaitForPlace {
        // Incremented before the purge: an instance that is returned either comes before the purge and is dropped by
        // it, or sees this counter.
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

/// The subject of a call: a sandbox, or `None` for the provider itself.
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
        // Removes the entries of dropped providers, because a process may create any number of them.
        all.retain(|warm| warm.strong_count() > 0);
        all.push(Arc::downgrade(&warm));
        warm
    }

    fn routes(&self) -> MutexGuard<'_, HashMap<Route, Vec<(Instance, Instant)>>> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the most recently used instance of a route, because its streams are the freshest.
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

    /// Keeps an instance, unless a limit is reached or a call waits for an instance.
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

    /// Drops instances that have been idle for at least `age`. Returns whether there were any.
    pub(crate) fn purge(&self, age: Duration) -> bool {
        let mut gone = Vec::new();
        let mut routes = self.routes();
        routes.retain(|_, list| {
            // The list is in order of use, so the oldest instances are at the front.
            let old = list.iter().take_while(|(_, since)| since.elapsed() >= age).count();
            gone.extend(list.drain(..old));
            !list.is_empty()
        });
        drop(routes);
        self.count.fetch_sub(gone.len(), Ordering::Relaxed);
        !gone.is_empty()
    }

    /// Drops the cache that new instances of this route import, because one of them crashed on it.
    pub(crate) fn forget_cache(&self, route: &Route) {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if caches.remove(route).is_none() {
            caches.remove(&None);
        }
    }

    /// Drops the instances and the cache of a sandbox that has ended.
    pub(crate) fn forget(&self, route: &Route) {
        let gone = self.routes().remove(route);
        self.count.fetch_sub(gone.map_or(0, |list| list.len()), Ordering::Relaxed);
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).remove(route);
    }

    pub(crate) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the cache for a new instance of this route: that of the sandbox, or else that of the provider.
    pub(crate) fn cache(&self, route: &Route) -> Option<Vec<u8>> {
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.get(route).or_else(|| caches.get(&None)).map(|(cache, _)| cache.clone())
    }

    /// Returns whether the cache of this instance should be exported after a call: the route has none or an old one, or
    /// the instance started without a cache and has served at most three calls, in which it learns most.
    pub(crate) fn wants_cache(&self, route: &Route, instance: &Instance) -> bool {
        if !instance.informed && instance.age <= 3 {
            return true;
        }
        let caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        caches.get(route).is_none_or(|(_, since)| since.elapsed() > CACHE_AGE)
    }

    /// Keeps an exported cache. Also keeps it as the cache of the provider if that is absent or old.
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

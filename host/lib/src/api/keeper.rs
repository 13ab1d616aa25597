//! Leases of sandboxes. They ensure that the sandboxes of a killed program are terminated after a bounded time.
//!
//! A [`Keeper`] sets three tags in the create request of each sandbox: the owner, the run, and the end of the lease.
//! While it lives, it renews the lease and leaves all other tags unchanged. It stops if the tags name another owner or
//! run. [`Provider::sweep`] terminates sandboxes that have all three tags, belong to the given owner, and whose lease
//! is over. It reads the tags again just before it terminates a sandbox. It never touches sandboxes without these tags,
//! of other owners, with unparsable leases, or with leases that were renewed meanwhile.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use crate::api::provider::{Provider, SandboxWithInfo};
use crate::api::sandbox::Sandbox;
use crate::api::spec::{fresh_id, millis};
use crate::error::{Error, Result};
use crate::types::{ListFilter, SandboxSpec};

/// Tag with the owner of the sandbox.
pub const OWNER_TAG: &str = "sandbox-owner";
/// Tag with the id of the owner's run that created the sandbox.
pub const RUN_TAG: &str = "sandbox-run";
/// Tag with the end of the lease, in milliseconds since the Unix epoch.
pub const LEASE_TAG: &str = "sandbox-lease";

/// A lease counts as over this long after its end, because a renewal takes time. Leases use the time of the service if
/// its responses contain it, and the clock of this machine otherwise.
pub const GRACE: Duration = Duration::from_secs(60);

/// Shortest lease. With a shorter one, most requests would be renewals.
const SHORTEST: Duration = Duration::from_secs(30);

/// Longest time for one renewal, however long the lease is. A renewal consists of two calls, which usually take less
/// than a second.
const LONGEST_RENEWAL: Duration = Duration::from_secs(60);

/// Most renewals at a time, to avoid a burst of requests with many sandboxes.
const AT_ONCE: usize = 16;

/// Most sandboxes that one sweep checks.
const SWEEP: usize = 10_000;

type Tags = Vec<(String, String)>;

/// Renews the leases of the sandboxes of one run. Dropping it ends the renewals; a sweep terminates the sandboxes that
/// are still running when their leases are over.
///
/// ```no_run
/// use std::time::Duration;
///
/// use sandbox_host::{Keeper, types::SandboxSpec};
///
/// # async fn example(provider: &sandbox_host::Provider) -> sandbox_host::Result<()> {
/// // At the start, removes what earlier runs of this program have left because they were killed.
/// for swept in provider.sweep("nightly-evals", false).await? {
///     println!("{} of the run {} is over since {:?}", swept.id, swept.run, swept.overdue);
/// }
/// let keeper = Keeper::new(provider, "nightly-evals", Duration::from_secs(600))?;
/// let sandbox = keeper.create(SandboxSpec::default()).await?;
/// // The sandbox runs for as long as this program lives, and at most eleven minutes longer.
/// sandbox.terminate().await?;
/// keeper.release(&sandbox);
/// # Ok(())
/// # }
/// ```
pub struct Keeper {
    inner: Arc<Inner>,
}

struct Inner<W = Provider> {
    world: W,
    owner: String,
    run: String,
    lease: Duration,
    /// The sandboxes whose leases are renewed, by id. Removing an entry cancels a renewal in progress.
    kept: Mutex<HashMap<String, watch::Sender<()>>>,
}

/// The clocks and the tags that a keeper uses. Tests replace them.
trait World: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64;
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
    fn tags(&self, id: &str) -> impl Future<Output = Result<Tags>> + Send;
    fn set_tags(&self, id: &str, tags: Tags) -> impl Future<Output = Result<()>> + Send;
}

impl World for Provider {
    fn now(&self) -> u64 {
        // The local clock is used if the service reports no time, and before its first response. The first lease may
        // therefore use the local clock; its renewals use the time of the service.
        self.inner.net.service_now().unwrap_or_else(now_millis)
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    async fn tags(&self, id: &str) -> Result<Tags> {
        self.sandbox(id).tags().await
    }

    async fn set_tags(&self, id: &str, tags: Tags) -> Result<()> {
        self.sandbox(id).set_tags(tags).await
    }
}

/// A sandbox with an expired lease that a sweep found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The id of the sandbox.
    pub id: String,
    /// The id of the run that created it.
    pub run: String,
    /// The time since the [`GRACE`] period after its lease ended.
    pub overdue: Duration,
    /// Whether the sweep terminated it. False in a dry run, and if termination failed, which is logged.
    pub terminated: bool,
}

impl Keeper {
    /// Begins a run of this owner. `lease` is how long a sandbox continues after its program was killed, at least 30
    /// seconds. A lease whose end exceeds 64 bits of milliseconds is never over. A lease is renewed when a third of it
    /// has passed, with two calls. The time limit of a renewal is a sixth of the lease, at most one minute. A renewal
    /// that exceeds it is aborted and repeated in the next round.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for an empty owner or a lease below 30 seconds.
    pub fn new(provider: &Provider, owner: impl Into<String>, lease: Duration) -> Result<Keeper> {
        let owner = owner.into();
        if owner.is_empty() {
            return Err(Error::invalid("keep sandboxes", "the owner's name is empty"));
        }
        if lease < SHORTEST {
            return Err(Error::invalid("keep sandboxes", format!("the lease must be at least {SHORTEST:?}")));
        }
        let inner = Arc::new(Inner { world: provider.clone(), owner, run: fresh_id(), lease, kept: Mutex::default() });
        provider.inner.tasks.spawn(rounds(Arc::downgrade(&inner)));
        Ok(Keeper { inner })
    }

    /// Returns the id of the run, which is the value of [`RUN_TAG`].
    pub fn run_id(&self) -> &str {
        &self.inner.run
    }

    /// Adds the tags to a specification, for a sandbox that is created in another way. Its lease is not renewed.
    pub fn tag(&self, mut spec: SandboxSpec) -> SandboxSpec {
        spec.tags.retain(|(name, _)| ![OWNER_TAG, RUN_TAG, LEASE_TAG].contains(&name.as_str()));
        spec.tags.extend(self.inner.tags());
        spec
    }

    /// Creates a sandbox and renews its lease until it is [released](Self::release) or the keeper is dropped. If the
    /// create took longer than a sixth of the lease, the lease is renewed before this returns. If that renewal fails,
    /// the sandbox is returned all the same, and its lease is renewed in the next round.
    ///
    /// # Errors
    ///
    /// Those of [`Provider::create`].
    pub async fn create(&self, spec: SandboxSpec) -> Result<Sandbox> {
        Ok(self.create_with_info(spec).await?.sandbox)
    }

    /// Creates a sandbox like [`create`](Self::create), and also returns what the provider reported about it.
    ///
    /// # Errors
    ///
    /// Those of [`Provider::create`].
    pub async fn create_with_info(&self, spec: SandboxSpec) -> Result<SandboxWithInfo> {
        let begun = self.inner.world.now();
        let created = self.inner.world.create_with_info(self.tag(spec)).await?;
        self.inner.keep(created.sandbox.id(), begun).await;
        Ok(created)
    }

    /// Stops renewing the lease of a sandbox, because it has ended or has another owner. No renewal begins after this
    /// call. The service may still receive a renewal that is being sent.
    pub fn release(&self, sandbox: &Sandbox) {
        self.inner.kept().remove(sandbox.id());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Renewals in progress hold the other references to `Inner`, so the entries are removed here to cancel them.
        self.inner.kept().clear();
    }
}

impl<W: World> Inner<W> {
    fn kept(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tags(&self) -> [(String, String); 3] {
        [
            (OWNER_TAG.to_owned(), self.owner.clone()),
            (RUN_TAG.to_owned(), self.run.clone()),
            (LEASE_TAG.to_owned(), self.until().to_string()),
        ]
    }

    /// Returns the end of a lease that begins now, in milliseconds since the Unix epoch.
    fn until(&self) -> u64 {
        self.world.now().saturating_add(millis(self.lease))
    }

    /// Time between two rounds. Two rounds can fail before a lease is over.
    fn pause(&self) -> Duration {
        self.lease / 3
    }

    /// Longest time for one renewal. If a whole round hangs, there is still time for another one.
    fn patience(&self) -> Duration {
        (self.lease / 6).min(LONGEST_RENEWAL)
    }

    fn is_ours(&self, tags: &Tags) -> bool {
        let has = |wanted: &str, ours: &str| tags.iter().any(|(name, value)| name == wanted && value == ours);
        has(OWNER_TAG, &self.owner) && has(RUN_TAG, &self.run)
    }

    /// Begins to renew the lease of a sandbox whose lease began at `begun`.
    async fn keep(&self, id: &str, begun: u64) {
        let (sender, receiver) = watch::channel(());
        // A create can take half an hour. Without this renewal, a sandbox could be returned with an expired lease.
        let late = self.world.now().saturating_sub(begun) >= millis(self.lease / 6);
        // The sandbox is added after the renewal: if the caller drops the future before, the sandbox has no owner, and
        // a sweep must find it.
        if !late || self.renew(id, receiver).await {
            self.kept().insert(id.to_owned(), sender);
        }
    }

    /// Renews the lease of one sandbox, unless the sender of `kept` is dropped first. Returns false if the sandbox has
    /// ended or has another owner. Other failures are logged.
    ///
    /// The tags can only be replaced as a whole, so a change by others between the read and the write is lost.
    async fn renew(&self, id: &str, mut kept: watch::Receiver<()>) -> bool {
        let still = kept.clone();
        let attempt = async {
            let mut tags = self.world.tags(id).await?;
            if still.has_changed().is_err() {
                return Ok(false);
            }
            if !self.is_ours(&tags) {
                tracing::warn!(sandbox = id, "lease not renewed any more: the tags of the sandbox name another owner");
                return Ok(false);
            }
            tags.retain(|(name, _)| name != LEASE_TAG);
            tags.push((LEASE_TAG.to_owned(), self.until().to_string()));
            self.world.set_tags(id, tags).await.map(|()| true)
        };
        let result = tokio::select! {
            biased;
            // No value is ever sent: `changed` returns when the sender is dropped.
            _ = kept.changed() => return false,
            result = attempt => result,
            () = self.world.sleep(self.patience()) => {
                tracing::warn!(sandbox = id, time = ?self.patience(), "lease not renewed: it took too long");
                return true;
            }
        };
        match result {
            Ok(ours) => ours,
            Err(error) if error.is_sandbox_ended() || error.is_not_found() => false,
            Err(error) => {
                tracing::warn!(sandbox = id, %error, "lease not renewed");
                true
            }
        }
    }
}

/// Renews all leases in rounds while the keeper lives. Rounds begin at fixed intervals, even if the previous round has
/// not ended. A sandbox that still waits from an earlier round comes before those that were renewed since.
async fn rounds<W: World>(keeper: Weak<Inner<W>>) {
    let Some(mut tick) = keeper.upgrade().map(|inner| inner.world.sleep(inner.pause())) else { return };
    // `waiting` are sandboxes whose renewal has not begun. `due` contains these and the ones whose renewal is in
    // progress.
    let (mut waiting, mut due) = (VecDeque::new(), HashSet::new());
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = &mut tick => {
                let Some(inner) = keeper.upgrade() else { return };
                tick = inner.world.sleep(inner.pause());
                let kept = inner.kept();
                waiting.extend(kept.keys().filter(|id| due.insert(String::clone(id))).cloned());
            }
            Some(id) = under_way.next() => {
                due.remove(&id);
            }
        }
        while under_way.len() < AT_ONCE
            && let Some(id) = waiting.pop_front()
        {
            under_way.push(turn(keeper.clone(), id));
        }
    }
}

/// Renews one lease, if the sandbox was not released meanwhile. Returns the id.
async fn turn<W: World>(keeper: Weak<Inner<W>>, id: String) -> String {
    if let Some(inner) = keeper.upgrade() {
        let kept = inner.kept().get(&id).map(watch::Sender::subscribe);
        if let Some(kept) = kept
            && !inner.renew(&id, kept).await
        {
            inner.kept().remove(&id);
        }
    }
    id
}

impl Provider {
    /// Terminates the sandboxes of this owner whose leases are over, and returns them. With `dry_run`, only returns
    /// them. Checks at most 10,000 sandboxes. Uses the time of the service if it is known.
    ///
    /// # Errors
    ///
    /// Those of [`Provider::list_all_apps`]. A sandbox that cannot be terminated is not an error, but logged.
    pub async fn sweep(&self, owner: &str, dry_run: bool) -> Result<Vec<Swept>> {
        let filter = ListFilter::default().tag(OWNER_TAG, owner);
        let mut found = Vec::new();
        for info in self.list_all_apps(&filter, SWEEP).await? {
            let Some((run, overdue)) = expired(&info.tags, owner, self.now()) else { continue };
            let mut swept = Swept { id: info.id, run, overdue, terminated: false };
            if !dry_run {
                let sandbox = self.sandbox(swept.id.clone());
                // The list may be old: its owner may have moved the lease on since.
                match sandbox.tags().await {
                    Ok(tags) if expired(&tags, owner, self.now()).is_some() => match sandbox.terminate().await {
                        Ok(()) => swept.terminated = true,
                        Err(error) => tracing::warn!(sandbox = swept.id, %error, "sandbox not terminated by the sweep"),
                    },
                    Ok(_) => continue,
                    Err(error) if error.is_sandbox_ended() || error.is_not_found() => continue,
                    Err(error) => tracing::warn!(sandbox = swept.id, %error, "sandbox not terminated by the sweep"),
                }
            }
            found.push(swept);
        }
        Ok(found)
    }
}

/// Returns the run, and the time since the grace period after the lease ended. Returns `None` unless the tags prove that
/// the sandbox belongs to this owner and that its lease is over.
fn expired(tags: &[(String, String)], owner: &str, now: u64) -> Option<(String, Duration)> {
    let tag = |wanted: &str| tags.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    if owner.is_empty() || tag(OWNER_TAG)? != owner {
        return None;
    }
    let run = tag(RUN_TAG).filter(|run| !run.is_empty())?.to_owned();
    let until: u64 = tag(LEASE_TAG)?.parse().ok()?;
    let overdue = now.checked_sub(until.checked_add(millis(GRACE))?)?;
    Some((run, Duration::from_millis(overdue)))
}

fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

    use tokio::sync::oneshot;

    use super::*;
    use crate::error::Kind;

    fn tags(owner: Option<&str>, run: Option<&str>, lease: Option<&str>) -> Vec<(String, String)> {
        let pair = |name: &str, value: Option<&str>| value.map(|value| (name.to_owned(), value.to_owned()));
        [pair(OWNER_TAG, owner), pair(RUN_TAG, run), pair(LEASE_TAG, lease)].into_iter().flatten().collect()
    }

    #[test]
    fn only_what_is_provably_ours_and_over_is_swept() {
        let grace = millis(GRACE);
        let over = |tags: &[_], now| expired(tags, "me", now).map(|(run, overdue)| (run, overdue.as_millis()));
        let ours = tags(Some("me"), Some("r"), Some("1000"));
        assert_eq!(over(&ours, 1000 + grace + 5), Some(("r".into(), 5)));
        assert_eq!(over(&ours, 1000 + grace - 1), None);
        assert_eq!(over(&ours, 0), None);
        let late = 1_000_000_000;
        for not_ours in [
            tags(Some("you"), Some("r"), Some("1000")),
            tags(None, Some("r"), Some("1000")),
            tags(Some("me"), None, Some("1000")),
            tags(Some("me"), Some(""), Some("1000")),
            tags(Some("me"), Some("r"), None),
            tags(Some("me"), Some("r"), Some("soon")),
            tags(Some("me"), Some("r"), Some("-5")),
            tags(Some("me"), Some("r"), Some("18446744073709551615")),
        ] {
            assert_eq!(over(&not_ours, late), None, "{not_ours:?}");
        }
        assert_eq!(expired(&tags(Some(""), Some("r"), Some("1")), "", late), None);
    }

    /// The result of a call.
    #[derive(Clone, Copy)]
    enum Fate {
        Well,
        Hangs,
        Fails(fn() -> Error),
    }

    type Hook = dyn Fn(&str) + Send;

    /// A world whose clock advances only on request, and whose calls take no time or never end.
    #[derive(Clone)]
    struct Toy(Arc<ToyInner>);

    #[derive(Default)]
    struct ToyInner {
        now: Mutex<u64>,
        sleepers: Mutex<Vec<(u64, oneshot::Sender<()>)>>,
        tags: Mutex<HashMap<String, Tags>>,
        /// Results by the text of the call in the log. Other calls succeed.
        fates: Mutex<HashMap<String, Fate>>,
        log: Mutex<Vec<String>>,
        /// Called before each call is answered.
        on_call: Mutex<Option<Box<Hook>>>,
        under_way: Mutex<Vec<String>>,
        most: Mutex<usize>,
    }

    /// A call in progress, until it is answered or dropped.
    struct UnderWay<'a>(&'a ToyInner, String);

    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            self.0.under_way.lock().unwrap().retain(|call| *call != self.1);
        }
    }

    impl Toy {
        /// Creates a world at time 1000 seconds.
        fn new() -> Toy {
            let toy = Toy(Arc::default());
            *toy.0.now.lock().unwrap() = 1_000_000;
            toy
        }

        async fn call(&self, call: String) -> Result<()> {
            self.0.log.lock().unwrap().push(call.clone());
            let _under_way = {
                let mut under_way = self.0.under_way.lock().unwrap();
                assert!(!under_way.contains(&call), "{call} twice at a time");
                under_way.push(call.clone());
                let mut most = self.0.most.lock().unwrap();
                *most = under_way.len().max(*most);
                UnderWay(&self.0, call.clone())
            };
            if let Some(hook) = &*self.0.on_call.lock().unwrap() {
                hook(&call);
            }
            let fate = self.0.fates.lock().unwrap().get(&call).copied().unwrap_or(Fate::Well);
            match fate {
                Fate::Well => Ok(()),
                Fate::Hangs => std::future::pending().await,
                Fate::Fails(error) => Err(error()),
            }
        }

        fn fate(&self, call: impl Into<String>, fate: Fate) {
            self.0.fates.lock().unwrap().insert(call.into(), fate);
        }

        fn on_call(&self, hook: impl Fn(&str) + Send + 'static) {
            *self.0.on_call.lock().unwrap() = Some(Box::new(hook));
        }

        fn set(&self, id: &str, tags: Tags) {
            self.0.tags.lock().unwrap().insert(id.to_owned(), tags);
        }

        fn of(&self, id: &str) -> Tags {
            self.0.tags.lock().unwrap()[id].clone()
        }

        /// Returns the calls since the last time that this was called.
        fn calls(&self) -> Vec<String> {
            std::mem::take(&mut *self.0.log.lock().unwrap())
        }

        fn under_way(&self) -> Vec<String> {
            self.0.under_way.lock().unwrap().clone()
        }
    }

    impl World for Toy {
        fn now(&self) -> u64 {
            *self.0.now.lock().unwrap()
        }

        fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
            let (sender, receiver) = oneshot::channel();
            let until = self.now().saturating_add(millis(time));
            self.0.sleepers.lock().unwrap().push((until, sender));
            Box::pin(async move { receiver.await.expect("the world does not end") })
        }

        async fn tags(&self, id: &str) -> Result<Tags> {
            self.call(format!("read {id}")).await?;
            Ok(self.of(id))
        }

        async fn set_tags(&self, id: &str, tags: Tags) -> Result<()> {
            self.call(format!("write {id}")).await?;
            self.set(id, tags);
            Ok(())
        }
    }

    /// A future that is polled as long as it was woken.
    struct Running<'a, T> {
        future: Pin<Box<dyn Future<Output = T> + 'a>>,
        woken: Arc<Woken>,
        toy: Toy,
    }

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    impl<'a, T> Running<'a, T> {
        fn new(toy: &Toy, future: impl Future<Output = T> + 'a) -> Self {
            Running { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))), toy: toy.clone() }
        }

        /// Returns the value of the future, if it becomes ready without the clock advancing.
        fn value_now(&mut self) -> Option<T> {
            let waker = Waker::from(self.woken.clone());
            while self.woken.0.swap(false, Ordering::SeqCst) {
                if let std::task::Poll::Ready(value) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(value);
                }
            }
            None
        }

        /// Returns the value of the future, if it becomes ready within this number of seconds.
        fn pass(&mut self, seconds: u64) -> Option<T> {
            let end = self.toy.now() + seconds * 1000;
            loop {
                if let Some(value) = self.value_now() {
                    return Some(value);
                }
                let mut sleepers = self.toy.0.sleepers.lock().unwrap();
                sleepers.retain(|(_, sender)| !sender.is_closed());
                let next = sleepers.iter().map(|(until, _)| *until).min().filter(|until| *until <= end);
                *self.toy.0.now.lock().unwrap() = next.unwrap_or(end);
                let next = next?;
                for (_, sender) in sleepers.extract_if(.., |(until, _)| *until == next) {
                    let _ = sender.send(());
                }
            }
        }
    }

    fn inner(toy: &Toy, lease: Duration) -> Arc<Inner<Toy>> {
        let (owner, run) = ("me".to_owned(), "r".to_owned());
        Arc::new(Inner { world: toy.clone(), owner, run, lease, kept: Mutex::default() })
    }

    const LEASE: Duration = Duration::from_secs(30);

    /// Creates a keeper of these sandboxes, and the future of its rounds.
    fn keeping(ids: impl IntoIterator<Item = String>) -> (Toy, Arc<Inner<Toy>>, Running<'static, ()>) {
        let toy = Toy::new();
        let inner = inner(&toy, LEASE);
        for id in ids {
            toy.set(&id, inner.tags().into());
            assert!(Running::new(&toy, inner.keep(&id, toy.now())).value_now().is_some());
        }
        assert_eq!(toy.calls(), [""; 0], "a lease that has just begun is not renewed");
        let rounds = Running::new(&toy, rounds(Arc::downgrade(&inner)));
        (toy, inner, rounds)
    }

    fn lease(toy: &Toy, id: &str) -> u64 {
        toy.of(id).iter().find(|(name, _)| name == LEASE_TAG).unwrap().1.parse().unwrap()
    }

    #[test]
    fn leases_are_moved_on_by_the_clock() {
        let (toy, inner, mut rounds) = keeping(["a".to_owned()]);
        rounds.pass(9);
        assert_eq!(toy.calls(), [""; 0]);
        rounds.pass(1);
        assert_eq!(toy.calls(), ["read a", "write a"]);
        assert_eq!(lease(&toy, "a"), 1_040_000);
        rounds.pass(20);
        assert_eq!(lease(&toy, "a"), 1_060_000);
        toy.fate("read a", Fate::Fails(|| Error::new(Kind::Unavailable, "read", "for once")));
        rounds.pass(10);
        assert_eq!(lease(&toy, "a"), 1_060_000);
        toy.fate("read a", Fate::Well);
        rounds.pass(10);
        assert_eq!(lease(&toy, "a"), 1_080_000, "what failed is tried again in the next round");
        toy.fate("write a", Fate::Fails(|| Error::new(Kind::SandboxEnded, "write", "it is over")));
        rounds.pass(10);
        assert!(inner.kept().is_empty());
        toy.calls();
        rounds.pass(100);
        assert_eq!(toy.calls(), [""; 0]);
        drop(inner);
        assert!(rounds.pass(10).is_some(), "without a keeper there are no rounds");
    }

    #[test]
    fn what_hangs_holds_up_neither_the_others_nor_the_next_round() {
        let stuck = |n: usize| format!("stuck-{n}");
        let (toy, _inner, mut rounds) = keeping((0..AT_ONCE).map(stuck).chain(["free".to_owned()]));
        for n in 0..AT_ONCE {
            toy.fate(format!("{} {}", if n % 2 == 0 { "read" } else { "write" }, stuck(n)), Fate::Hangs);
        }
        for round in 1..=5 {
            // The last renewal has begun within a sixth of the lease after the start of the round.
            rounds.pass(if round == 1 { 15 } else { 10 });
            let begun = 1_000_000 + round * 10_000;
            assert!(lease(&toy, "free") >= begun + 30_000, "round {round}");
            assert_eq!(toy.under_way(), [""; 0], "round {round}");
        }
        assert_eq!(*toy.0.most.lock().unwrap(), AT_ONCE);
    }

    #[test]
    fn when_rounds_overlap_each_still_has_its_turn() {
        let count = AT_ONCE * 7;
        let id = |n: usize| format!("stuck-{n}");
        let (toy, _inner, mut rounds) = keeping((0..count).map(id));
        for n in 0..count {
            toy.fate(format!("read {}", id(n)), Fate::Hangs);
        }
        // Ten seconds until the first round, then seven batches of five seconds each.
        rounds.pass(10 + 7 * 5 - 1);
        let mut calls = toy.calls();
        calls.sort();
        calls.dedup();
        assert_eq!(calls.len(), count);
        assert_eq!(*toy.0.most.lock().unwrap(), AT_ONCE);
    }

    #[test]
    fn of_the_tags_only_the_lease_is_changed() {
        let (toy, _inner, mut rounds) = keeping(["a".to_owned()]);
        let mut tags = toy.of("a");
        tags.insert(1, ("colour".into(), "blue".into()));
        toy.set("a", tags.clone());
        rounds.pass(10);
        assert_eq!(lease(&toy, "a"), 1_040_000);
        let others = |tags: Tags| tags.into_iter().filter(|(name, _)| name != LEASE_TAG).collect::<Tags>();
        assert_eq!(others(toy.of("a")), others(tags));
    }

    #[test]
    fn what_is_somebody_elses_is_looked_after_no_longer() {
        for theirs in [
            tags(Some("you"), Some("r"), Some("1")),
            tags(Some("me"), Some("another"), Some("1")),
            tags(None, Some("r"), Some("1")),
            vec![],
        ] {
            let (toy, inner, mut rounds) = keeping(["a".to_owned(), "b".to_owned()]);
            toy.set("a", theirs.clone());
            rounds.pass(100);
            assert_eq!(toy.of("a"), theirs);
            assert_eq!(toy.calls().iter().filter(|call| call.ends_with('a')).count(), 1, "it is read, once");
            assert_eq!(inner.kept().keys().collect::<Vec<_>>(), ["b"]);
            assert_eq!(lease(&toy, "b"), 1_130_000);
        }
    }

    #[test]
    fn what_is_released_while_its_tags_are_read_is_not_written() {
        let (toy, inner, mut rounds) = keeping(["a".to_owned()]);
        let releases = Arc::downgrade(&inner);
        toy.on_call(move |_| drop(releases.upgrade().unwrap().kept().remove("a")));
        rounds.pass(10);
        assert_eq!(toy.calls(), ["read a"]);
        rounds.pass(100);
        assert_eq!(toy.calls(), [""; 0]);
    }

    #[test]
    fn what_waits_for_its_turn_and_is_released_has_none() {
        let (toy, inner, mut rounds) = keeping((0..=AT_ONCE).map(|n| n.to_string()));
        for n in 0..=AT_ONCE {
            toy.fate(format!("read {n}"), Fate::Hangs);
        }
        rounds.pass(10);
        assert_eq!(toy.calls().len(), AT_ONCE);
        inner.kept().clear();
        rounds.pass(100);
        assert_eq!(toy.calls(), [""; 0]);
    }

    #[test]
    fn a_write_that_waits_is_withdrawn_when_it_is_released() {
        let (toy, inner, mut rounds) = keeping(["a".to_owned()]);
        toy.fate("write a", Fate::Hangs);
        rounds.pass(10);
        assert_eq!(toy.under_way(), ["write a"]);
        inner.kept().remove("a");
        rounds.value_now();
        assert_eq!(toy.under_way(), [""; 0]);
    }

    #[test]
    fn what_took_long_to_create_is_renewed_before_it_is_given_out() {
        let keep = |begun: u64, set_up: &dyn Fn(&Toy)| {
            let toy = Toy::new();
            let inner = inner(&toy, LEASE);
            toy.set("a", inner.tags().into());
            *toy.0.now.lock().unwrap() += begun;
            set_up(&toy);
            let mut keeping = Running::new(&toy, inner.keep("a", 1_000_000));
            assert!(keeping.pass(5).is_some(), "a sixth of the lease is the longest");
            drop(keeping);
            let kept = inner.kept().contains_key("a");
            (toy.calls().len(), lease(&toy, "a") - 1_000_000, kept)
        };
        assert_eq!(keep(4_999, &|_| ()), (0, 30_000, true));
        assert_eq!(keep(5_000, &|_| ()), (2, 35_000, true));
        assert_eq!(keep(1_800_000, &|_| ()), (2, 1_830_000, true));
        let unavailable = Fate::Fails(|| Error::new(Kind::Unavailable, "set", "it is down"));
        for call in ["read a", "write a"] {
            for fate in [unavailable, Fate::Hangs] {
                let (_, lease, kept) = keep(1_800_000, &|toy| toy.fate(call, fate));
                assert_eq!((lease, kept), (30_000, true), "a failure does not lose it");
            }
        }
        let ended = Fate::Fails(|| Error::new(Kind::SandboxEnded, "set", "it is over"));
        assert_eq!(keep(1_800_000, &|toy| toy.fate("write a", ended)), (2, 30_000, false));
    }

    /// Such a sandbox has no owner, and a sweep must find it.
    #[test]
    fn what_is_given_up_before_it_is_given_out_is_not_kept() {
        let toy = Toy::new();
        let inner = inner(&toy, LEASE);
        toy.set("a", inner.tags().into());
        toy.fate("read a", Fate::Hangs);
        let mut keeping = Running::new(&toy, inner.keep("a", 0));
        assert!(keeping.value_now().is_none());
        drop(keeping);
        assert!(inner.kept().is_empty());
    }

    #[test]
    fn times_have_bounds() {
        let toy = Toy::new();
        let endless = inner(&toy, Duration::MAX);
        assert_eq!(endless.until(), u64::MAX);
        assert_eq!(endless.patience(), LONGEST_RENEWAL);
        toy.set("a", endless.tags().into());
        let (_kept, receiver) = watch::channel(());
        assert_eq!(Running::new(&toy, endless.renew("a", receiver)).value_now(), Some(true));
        assert_eq!(lease(&toy, "a"), u64::MAX);
        assert_eq!(inner(&toy, SHORTEST).patience(), SHORTEST / 6);
    }
}

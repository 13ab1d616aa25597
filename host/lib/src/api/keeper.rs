//! Whose sandbox it is, and until when: so that a harness that was killed leaves nothing for longer than its lease.
//!
//! A [`Keeper`] tags each sandbox in the create request itself with owner, run and the end of its lease, and moves that
//! end on while it lives; other tags it leaves as they are, and a sandbox whose tags say that it belongs to another owner it
//! leaves alone. [`Provider::sweep`] terminates what carries all three tags, belongs to the given owner, and
//! whose lease is over; it looks at the tags once more just before, and never touches anything else: not sandboxes
//! without tags, with other owners', with leases that do not parse, or whose lease was moved on in the meantime.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;

use crate::api::provider::Provider;
use crate::api::sandbox::Sandbox;
use crate::api::spec::{fresh_id, millis};
use crate::error::{Error, Result};
use crate::types::{ListFilter, SandboxSpec};

/// Who made it.
pub const OWNER_TAG: &str = "sandbox-owner";
/// In which run of the owner.
pub const RUN_TAG: &str = "sandbox-run";
/// Until when it is looked after: milliseconds since the Unix epoch.
pub const LEASE_TAG: &str = "sandbox-lease";

/// Leases go by the service's time, where it says that with its answers, else by the machine's. A renewal takes its time: a lease counts as over only this long after its end.
pub const GRACE: Duration = Duration::from_secs(60);

/// The shortest lease: below it, renewing would be most of what is done.
const SHORTEST: Duration = Duration::from_secs(30);

/// The longest that one renewal may take, however long the lease: two calls that usually take less than a second.
const LONGEST_RENEWAL: Duration = Duration::from_secs(60);

/// Renewals at a time: a thousand sandboxes are no reason for a thousand requests at once.
const AT_ONCE: usize = 16;

/// Sandboxes that one sweep looks at.
const SWEEP: usize = 10_000;

type Tags = Vec<(String, String)>;

/// Looks after the sandboxes of one run. Dropping it ends the renewing: what is then not terminated falls to a sweep.
pub struct Keeper {
    inner: Arc<Inner>,
}

struct Inner<W = Provider> {
    world: W,
    owner: String,
    run: String,
    lease: Duration,
    /// What is looked after. An entry that goes away ends the renewal that is under way.
    kept: Mutex<HashMap<String, watch::Sender<()>>>,
}

/// What a keeper needs of the world: clocks, and the tags of sandboxes. Tests have one of their own.
trait World: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now(&self) -> u64;
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
    fn tags(&self, id: &str) -> impl Future<Output = Result<Tags>> + Send;
    fn set_tags(&self, id: &str, tags: Tags) -> impl Future<Output = Result<()>> + Send;
}

impl World for Provider {
    fn now(&self) -> u64 {
        // The local clock where the service says no time. A sandbox that is created first of all has a lease by it; the
        // renewals go by the service's time.
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

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The sandbox.
    pub id: String,
    /// The run that made it.
    pub run: String,
    /// How long its lease has been over.
    pub overdue: Duration,
    /// Whether it was terminated: false in a dry run, and when it was not possible (see the log).
    pub terminated: bool,
}

impl Keeper {
    /// Begins a run of this owner. `lease`: how long a sandbox outlives a killed harness, at least 30 seconds; one too
    /// long for milliseconds in 64 bits is never over. A lease is renewed when a third of it has passed, which takes two
    /// calls; a renewal that takes longer than a sixth of the lease, or a minute, is given up until the next.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for an empty owner or a short lease.
    pub fn new(provider: &Provider, owner: impl Into<String>, lease: Duration) -> Result<Keeper> {
        let owner = owner.into();
        if owner.is_empty() {
            return Err(Error::invalid("keep sandboxes", "the owner's name is empty"));
        }
        if lease < SHORTEST {
            return Err(Error::invalid("keep sandboxes", format!("a lease lasts at least {SHORTEST:?}")));
        }
        let inner = Arc::new(Inner { world: provider.clone(), owner, run: fresh_id(), lease, kept: Mutex::default() });
        provider.inner.tasks.spawn(rounds(Arc::downgrade(&inner)));
        Ok(Keeper { inner })
    }

    /// The run's id, the value of [`RUN_TAG`].
    pub fn run(&self) -> &str {
        &self.inner.run
    }

    /// Adds the tags to a specification, for a sandbox that is created by other means.
    pub fn tag(&self, mut spec: SandboxSpec) -> SandboxSpec {
        spec.tags.retain(|(name, _)| ![OWNER_TAG, RUN_TAG, LEASE_TAG].contains(&name.as_str()));
        spec.tags.extend(self.inner.tags());
        spec
    }

    /// Creates a sandbox and looks after it until it is [released](Self::release) or the keeper is dropped. When creating
    /// took so long that a sixth of the lease is over, the lease is renewed first; if that fails, the sandbox is given out
    /// and looked after all the same.
    ///
    /// # Errors
    ///
    /// As [`Provider::create`].
    pub async fn create(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let begun = self.inner.world.now();
        let sandbox = self.inner.world.create(self.tag(spec)).await?;
        self.inner.keep(sandbox.id(), begun).await;
        Ok(sandbox)
    }

    /// Looks after it no longer: it is over, or another owner does. No renewal is begun after this; of one that is just
    /// being sent, the service may have heard.
    pub fn release(&self, sandbox: &Sandbox) {
        self.inner.kept().remove(sandbox.id());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // The renewals under way hold the rest.
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

    /// When a lease that begins now is over, in milliseconds since the Unix epoch.
    fn until(&self) -> u64 {
        self.world.now().saturating_add(millis(self.lease))
    }

    /// From one round to the next: two may fail before a lease is over.
    fn pause(&self) -> Duration {
        self.lease / 3
    }

    /// How long one renewal may take: a round in which each hangs still leaves room for another.
    fn patience(&self) -> Duration {
        (self.lease / 6).min(LONGEST_RENEWAL)
    }

    fn is_ours(&self, tags: &Tags) -> bool {
        let has = |wanted: &str, ours: &str| tags.iter().any(|(name, value)| name == wanted && value == ours);
        has(OWNER_TAG, &self.owner) && has(RUN_TAG, &self.run)
    }

    /// Looks after a sandbox whose lease began at `begun`.
    async fn keep(&self, id: &str, begun: u64) {
        let (sender, receiver) = watch::channel(());
        // A create may wait for half an hour: without this, the sandbox could be given out with its lease over.
        let late = self.world.now().saturating_sub(begun) >= millis(self.lease / 6);
        // Kept only then: if the caller gives up meanwhile, the sandbox has no owner, and a sweep must find it.
        if !late || self.renew(id, receiver).await {
            self.kept().insert(id.to_owned(), sender);
        }
    }

    /// Moves the lease of one sandbox on, unless `kept` ends first. False when there is nothing to look after any more:
    /// it is over, or has another owner. What else goes wrong is in the log.
    ///
    /// Tags are only set as a whole, so what others set between our reading and our writing is lost.
    async fn renew(&self, id: &str, mut kept: watch::Receiver<()>) -> bool {
        let still = kept.clone();
        let attempt = async {
            let mut tags = self.world.tags(id).await?;
            if still.has_changed().is_err() {
                return Ok(false);
            }
            if !self.is_ours(&tags) {
                tracing::warn!(sandbox = id, "looked after no longer: its tags name another owner");
                return Ok(false);
            }
            tags.retain(|(name, _)| name != LEASE_TAG);
            tags.push((LEASE_TAG.to_owned(), self.until().to_string()));
            self.world.set_tags(id, tags).await.map(|()| true)
        };
        let result = tokio::select! {
            biased;
            // Nothing is ever sent: it changes by coming to an end.
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

/// Moves the leases on for as long as the keeper lives. Rounds begin by the clock, whether or not the one before is over;
/// whatever waits for its turn has it before what was renewed since.
async fn rounds<W: World>(keeper: Weak<Inner<W>>) {
    let Some(mut tick) = keeper.upgrade().map(|inner| inner.world.sleep(inner.pause())) else { return };
    // What waits for its turn, and this together with what has it.
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

/// Renews one lease, if it is still to be renewed. Gives back the id.
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
    /// Terminates this owner's sandboxes whose lease is over by the service's time, or only finds them. Gives what was
    /// found.
    ///
    /// # Errors
    ///
    /// When the sandboxes cannot be listed.
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
                        Err(error) => tracing::warn!(sandbox = swept.id, %error, "not swept"),
                    },
                    Ok(_) => continue,
                    Err(error) if error.is_sandbox_ended() || error.is_not_found() => continue,
                    Err(error) => tracing::warn!(sandbox = swept.id, %error, "not swept"),
                }
            }
            found.push(swept);
        }
        Ok(found)
    }
}

/// The run, and how long the lease has been over; none unless it provably is this owner's and over.
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

    /// What becomes of a call.
    #[derive(Clone, Copy)]
    enum Fate {
        Well,
        Hangs,
        Fails(fn() -> Error),
    }

    type Hook = dyn Fn(&str) + Send;

    /// A world whose clock goes when it is told to, and whose calls take no time or for ever.
    #[derive(Clone)]
    struct Toy(Arc<ToyInner>);

    #[derive(Default)]
    struct ToyInner {
        now: Mutex<u64>,
        sleepers: Mutex<Vec<(u64, oneshot::Sender<()>)>>,
        tags: Mutex<HashMap<String, Tags>>,
        /// By what the call says in the log; calls that are not here go well.
        fates: Mutex<HashMap<String, Fate>>,
        log: Mutex<Vec<String>>,
        /// Is told of each call before it is answered.
        on_call: Mutex<Option<Box<Hook>>>,
        under_way: Mutex<Vec<String>>,
        most: Mutex<usize>,
    }

    /// A call that is under way, until it is answered or given up.
    struct UnderWay<'a>(&'a ToyInner, String);

    impl Drop for UnderWay<'_> {
        fn drop(&mut self) {
            self.0.under_way.lock().unwrap().retain(|call| *call != self.1);
        }
    }

    impl Toy {
        /// At a time of a thousand seconds.
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

        /// The calls since it was asked last.
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

    /// A future that goes on for as long as it has something to do, and no further.
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

        /// Its value, if it comes to one without time going by.
        fn settle(&mut self) -> Option<T> {
            let waker = Waker::from(self.woken.clone());
            while self.woken.0.swap(false, Ordering::SeqCst) {
                if let std::task::Poll::Ready(value) = self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(value);
                }
            }
            None
        }

        /// Its value, if it comes to one within so many seconds.
        fn pass(&mut self, seconds: u64) -> Option<T> {
            let end = self.toy.now() + seconds * 1000;
            loop {
                if let Some(value) = self.settle() {
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

    /// A keeper of these, and its rounds.
    fn keeping(ids: impl IntoIterator<Item = String>) -> (Toy, Arc<Inner<Toy>>, Running<'static, ()>) {
        let toy = Toy::new();
        let inner = inner(&toy, LEASE);
        for id in ids {
            toy.set(&id, inner.tags().into());
            assert!(Running::new(&toy, inner.keep(&id, toy.now())).settle().is_some());
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
            // A sixth of the lease after the round has begun, the last has had its turn, whichever it was.
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
        // Ten seconds until the first round, and then seven times five.
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
        rounds.settle();
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

    /// Then it has no owner, and a sweep must find it.
    #[test]
    fn what_is_given_up_before_it_is_given_out_is_not_kept() {
        let toy = Toy::new();
        let inner = inner(&toy, LEASE);
        toy.set("a", inner.tags().into());
        toy.fate("read a", Fate::Hangs);
        let mut keeping = Running::new(&toy, inner.keep("a", 0));
        assert!(keeping.settle().is_none());
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
        assert_eq!(Running::new(&toy, endless.renew("a", receiver)).settle(), Some(true));
        assert_eq!(lease(&toy, "a"), u64::MAX);
        assert_eq!(inner(&toy, SHORTEST).patience(), SHORTEST / 6);
    }
}

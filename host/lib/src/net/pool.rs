//! Connections, kept and shared.
//!
//! One site per origin and wire form. HTTP/2 connections carry many streams at once; the peer says how many, and a
//! request that finds all of them full opens a further connection instead of waiting for a stream to end: an exec
//! holds up to three streams for as long as it runs, so waiting could last for ever. HTTP/1.1 connections carry one.
//!
//! A connection on which a request got no answer, while nothing else came either, is suspect: it may lead nowhere, which
//! shows otherwise only when a ping is not answered. Further requests take another one, which is opened if need be. The
//! suspicion ends when something comes after all. Where no other connection can be had, suspect ones are used.
//!
//! Accounting is by [`Lease`]: a request that holds one has a stream. The last clone dropped gives it back.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::body::RequestBody;
use super::connect::{Connected, Connector, Heard, Io, Offer};
use super::counters::Counters;
use super::failure::{Code, Failure};
use super::link::Link;
use crate::access::policy::{Origin, Reach};

/// Streams per connection: what peers commonly allow, and what is assumed until the peer has said. Our own cap too,
/// since the connection's window below is sized for it.
const STREAMS: usize = 100;

/// hyper's starting value, replaced when the peer's SETTINGS arrive. No peer announces this number, so a changed
/// value tells that they have arrived.
const UNSETTLED: usize = STREAMS + 3;

/// Streams that are opened before the peer has said how many it allows. Its SETTINGS are the first thing that it sends,
/// so this lasts for a round trip; what is opened beyond the limit would wait inside the connection, perhaps for ever.
const EARLY_STREAMS: usize = 8;

/// Flow-control window of a stream: bandwidth × delay for 40 MB/s at 100 ms. It is also how much unread data a stream
/// that is not read can pile up here.
const STREAM_WINDOW: u32 = 4 << 20;

/// Window of a connection: all of its streams at once. With less, a few streams that are not read would stop all
/// others of the connection. It is a permission, not an allocation: memory is used by unread data only.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// Connections per site. 64 × 100 streams are more than the instances that there can be by default.
const MAX_CONNECTIONS: usize = 64;

/// As the official clients do, so that dead peers and lost NAT entries are noticed.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that ends without an answer makes its connection suspect if nothing has come for so long. Shorter than any
/// time-out that means something is wrong, longer than it takes to answer a request that was cancelled at once.
const SILENCE: Duration = Duration::from_secs(1);

/// A connection without streams is closed after this.
const IDLE: Duration = Duration::from_secs(90);

/// How soon it is looked whether the peer's SETTINGS have come; then less and less often. Later on the same timer sees
/// to idle connections.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const IDLE_LOOK: Duration = Duration::from_secs(15);

/// How long a request waits for a stream when no more connections may be opened.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after an attempt to connect that failed while others of the site live; twice as long after each further one. A
/// peer that is full refuses at once, and some request always waits.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Largest header section of a response, in bytes as HPACK counts them.
const MAX_HEADERS: u32 = 64 << 10;

/// The two ways to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    /// HTTP/2, whether negotiated or not: gRPC has no other form here.
    Grpc,
    /// What TLS negotiates; HTTP/1.1 without TLS.
    Any,
}

/// All connections of one provider.
#[derive(Debug)]
pub(crate) struct Pool {
    connector: Arc<Connector>,
    counters: Arc<Counters>,
    sites: Mutex<HashMap<(Origin, Wire), Arc<Site>>>,
}

#[derive(Debug)]
struct Site {
    origin: Origin,
    wire: Wire,
    /// Where its addresses may be; fixed by the policy when the site was made.
    reach: Reach,
    connector: Arc<Connector>,
    counters: Arc<Counters>,
    state: Mutex<SiteState>,
    next_id: AtomicU64,
}

#[derive(Debug)]
struct SiteState {
    connections: Vec<Arc<Connection>>,
    connecting: usize,
    /// Streams that one more HTTP/2 connection is expected to bring: what the last one did.
    expected: usize,
    waiters: VecDeque<oneshot::Sender<Result<Lease, Failure>>>,
    /// None when the last attempt brought a connection, or no request is left that knows of it.
    trouble: Option<Trouble>,
    /// Where the last one who had to wait runs. A lease can be dropped where there is no runtime.
    tasks: Option<Handle>,
}

/// The last attempt to connect failed.
#[derive(Clone, Debug)]
struct Trouble {
    failure: Failure,
    /// From then to the next attempt.
    pause: Duration,
    until: Instant,
}

impl Default for SiteState {
    fn default() -> Self {
        SiteState {
            connections: Vec::new(),
            connecting: 0,
            expected: STREAMS,
            waiters: VecDeque::new(),
            trouble: None,
            tasks: None,
        }
    }
}

#[derive(Debug)]
struct Connection {
    id: u64,
    sender: Sender,
    streams: AtomicUsize,
    limit: AtomicUsize,
    settled: AtomicBool,
    dead: AtomicBool,
    idle_since: Mutex<Instant>,
    heard: Heard,
    /// When a request on it got no answer, as `heard` counts time.
    unanswered: AtomicU64,
}

#[derive(Debug)]
pub(crate) enum Sender {
    H2(http2::SendRequest<RequestBody>),
    /// Taken while a request is on it.
    H1(Mutex<Option<http1::SendRequest<RequestBody>>>),
}

/// The right to one stream.
#[derive(Debug)]
pub(crate) struct Lease {
    site: Arc<Site>,
    connection: Arc<Connection>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, counters: Arc<Counters>) -> Pool {
        Pool { connector: Arc::new(connector), counters, sites: Mutex::default() }
    }

    /// A stream to this origin; connects if need be.
    pub(crate) async fn lease(&self, origin: &Origin, wire: Wire, reach: Reach) -> Result<Lease, Failure> {
        let site = {
            let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            // Sites of origins that are not used any more hold nothing but their name.
            if sites.len() >= 1024 {
                sites.retain(|_, site| Arc::strong_count(site) > 1 || !site.state().connections.is_empty());
            }
            let fresh = || self.site(origin, wire, reach);
            let site = sites.entry((origin.clone(), wire)).or_insert_with(fresh);
            if site.reach != reach {
                // The origin was granted anew with other rights.
                *site = fresh();
            }
            site.clone()
        };
        site.lease().await
    }

    fn site(&self, origin: &Origin, wire: Wire, reach: Reach) -> Arc<Site> {
        Arc::new(Site {
            origin: origin.clone(),
            wire,
            reach,
            connector: self.connector.clone(),
            counters: self.counters.clone(),
            state: Mutex::default(),
            next_id: AtomicU64::new(0),
        })
    }

    /// Whether HTTP/2 is spoken with this origin already, so that other requests can share it.
    pub(crate) fn speaks_grpc(&self, origin: &Origin) -> bool {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        // Looking up by reference needs an owned key; the map is small and this is not the hot path.
        sites.get(&(origin.clone(), Wire::Grpc)).is_some_and(|site| !site.state().connections.is_empty())
    }

    /// A connection of its own, for bytes that are not ours.
    pub(crate) async fn connect(&self, origin: &Origin, reach: Reach) -> Result<Box<dyn Io>, Failure> {
        self.connector.connect(origin, reach, Offer::Bytes).await.map(|connected| connected.io)
    }

    /// Open connections and the streams on them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        sites.values().fold((0, 0), |(connections, streams), site| {
            let state = site.state();
            let used: usize = state.connections.iter().map(|c| c.streams.load(Ordering::Relaxed)).sum();
            (connections + state.connections.len(), streams + used)
        })
    }
}

impl Site {
    fn state(&self) -> MutexGuard<'_, SiteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lease(self: &Arc<Self>) -> Result<Lease, Failure> {
        let receiver = {
            let mut state = self.state();
            if state.waiters.is_empty()
                && let Some(lease) = self.take(&mut state)
            {
                return Ok(lease);
            }
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(sender);
            state.tasks = Some(Handle::current());
            self.open_as_needed(&mut state);
            receiver
        };
        match tokio::time::timeout(QUEUE_TIMEOUT, receiver).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Failure::new(Code::Terminated, format!("connecting to {} was given up", self.origin))),
            Err(_) => Err(self.all_in_use()),
        }
    }

    fn all_in_use(&self) -> Failure {
        let state = self.state();
        match &state.trouble {
            Some(Trouble { failure, .. }) => Failure::new(
                failure.code,
                format!(
                    "all streams to {} are in use, and it takes no further connection: {}",
                    self.origin, failure.text
                ),
            ),
            None => Failure::new(
                Code::Limit,
                format!("all streams of {} connections to {} are in use", state.connections.len(), self.origin),
            ),
        }
    }

    /// A free stream, on the connection that has most of them free.
    fn take(self: &Arc<Self>, state: &mut SiteState) -> Option<Lease> {
        // Suspect ones only where an attempt to get another has failed.
        let last_resort = state.trouble.as_ref().is_some_and(|trouble| trouble.until > Instant::now());
        let connection = state
            .connections
            .iter()
            .filter(|connection| connection.is_usable() && (last_resort || !connection.is_suspect()))
            .filter(|connection| connection.free() > 0)
            .max_by_key(|connection| (!connection.is_suspect(), connection.free()))?
            .clone();
        connection.streams.fetch_add(1, Ordering::AcqRel);
        Some(Lease { site: self.clone(), connection })
    }

    /// Streams that one more connection is expected to bring.
    fn expected(&self, state: &SiteState) -> usize {
        let h2 = self.wire == Wire::Grpc || state.connections.iter().any(|c| matches!(c.sender, Sender::H2(_)));
        if h2 { state.expected } else { 1 }
    }

    /// Opens connections until those under way, and those whose limit is not known yet, will do for all who wait.
    fn open_as_needed(self: &Arc<Self>, state: &mut SiteState) {
        let expected = self.expected(state);
        let unsettled = state.connections.iter().filter(|c| !c.settled.load(Ordering::Acquire) && !c.is_suspect());
        let coming: usize = unsettled.map(|c| expected.saturating_sub(c.streams.load(Ordering::Acquire))).sum();
        // While attempts fail there is one at a time.
        let most = if state.trouble.is_some() { 1 } else { MAX_CONNECTIONS };
        while coming + state.connecting * expected < state.waiters.len()
            && state.connecting < most
            && state.connections.len() + state.connecting < MAX_CONNECTIONS
        {
            let Some(tasks) = Handle::try_current().ok().or_else(|| state.tasks.clone()) else { return };
            state.connecting += 1;
            // A task of its own: the connection is wanted even if the first who asked has gone.
            let (site, trouble) = (self.clone(), state.trouble.clone());
            tasks.spawn(async move {
                if let Some(trouble) = &trouble {
                    tokio::time::sleep_until(trouble.until.into()).await;
                }
                let result = site.open().await;
                site.opened(result, trouble.map_or(Duration::ZERO, |trouble| trouble.pause));
            });
        }
    }

    async fn open(self: &Arc<Self>) -> Result<Arc<Connection>, Failure> {
        let started = Instant::now();
        let offer = if self.wire == Wire::Grpc { Offer::Grpc } else { Offer::Http };
        let Connected { io, h2 } = self.connector.connect(&self.origin, self.reach, offer).await?;
        let h2 = self.wire == Wire::Grpc || h2 == Some(true);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let heard = Heard::new();
        let io = heard.on(io);
        let failed = |error: hyper::Error| Failure::new(Code::Protocol, format!("{}: {error}", self.origin));
        let connection = |sender, limit, settled| {
            Arc::new(Connection {
                id,
                sender,
                streams: AtomicUsize::new(0),
                limit: AtomicUsize::new(limit),
                settled: AtomicBool::new(settled),
                dead: AtomicBool::new(false),
                idle_since: Mutex::new(Instant::now()),
                heard: heard.clone(),
                unanswered: AtomicU64::new(0),
            })
        };
        self.counters.connections_opened.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(origin = %self.origin, id, h2, micros = started.elapsed().as_micros() as u64, "connected");
        if h2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .initial_max_send_streams(UNSETTLED)
                .max_header_list_size(MAX_HEADERS)
                .max_frame_size(64 << 10)
                .max_send_buf_size(1 << 20)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(io))
                .await
                .map_err(failed)?;
            let connection = connection(Sender::H2(sender), EARLY_STREAMS, false);
            tokio::spawn(drive_h2(Arc::downgrade(self), connection.clone(), driver));
            Ok(connection)
        } else {
            let (sender, driver) = http1::Builder::new()
                .max_buf_size(MAX_HEADERS as usize)
                .handshake(TokioIo::new(io))
                .await
                .map_err(failed)?;
            let connection = connection(Sender::H1(Mutex::new(Some(sender))), 1, true);
            tokio::spawn(drive_h1(Arc::downgrade(self), connection.clone(), driver, IDLE_LOOK));
            Ok(connection)
        }
    }

    /// What came of an attempt that was made after this pause.
    fn opened(self: &Arc<Self>, result: Result<Arc<Connection>, Failure>, paused: Duration) {
        let mut unwanted = Vec::new();
        {
            let mut state = self.state();
            state.connecting -= 1;
            let result = match result {
                // Its task has ended before it was here to be removed: it would stay for ever.
                Ok(connection) if connection.dead.load(Ordering::Acquire) => {
                    Err(Failure::new(Code::Terminated, format!("{} closed the connection at once", self.origin)))
                }
                result => result,
            };
            match result {
                Ok(connection) => {
                    state.connections.push(connection);
                    state.trouble = None;
                }
                Err(failure) => {
                    tracing::debug!(origin = %self.origin, why = %failure.text, "not connected");
                    self.counters.connections_failed.fetch_add(1, Ordering::Relaxed);
                    // Of several at once the one that was made after the longest pause counts.
                    let before = state.trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.pause);
                    let pause = (paused * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE).max(before);
                    state.trouble = Some(Trouble { failure: failure.clone(), pause, until: Instant::now() + pause });
                    // Others may still bring streams; with none left nothing will.
                    if state.connecting == 0 && state.connections.is_empty() {
                        // Each of them is told; who asks then asks anew.
                        state.trouble = None;
                        for waiter in state.waiters.drain(..) {
                            unwanted.extend(waiter.send(Err(failure.clone())).err());
                        }
                    }
                }
            }
        }
        drop(unwanted);
        self.dispatch();
    }

    /// Hands free streams to those who wait.
    fn dispatch(self: &Arc<Self>) {
        // Dropping a lease takes the lock, so those that were not taken are dropped after it.
        let mut unwanted = Vec::new();
        {
            let mut state = self.state();
            while let Some(waiter) = state.waiters.front() {
                if waiter.is_closed() {
                    state.waiters.pop_front();
                    continue;
                }
                let Some(lease) = self.take(&mut state) else { break };
                if let Some(waiter) = state.waiters.pop_front() {
                    unwanted.extend(waiter.send(Ok(lease)).err());
                }
            }
            self.open_as_needed(&mut state);
        }
        drop(unwanted);
    }

    fn remove(self: &Arc<Self>, connection: &Arc<Connection>) {
        self.state().connections.retain(|other| other.id != connection.id);
        self.dispatch();
    }
}

impl Connection {
    fn free(&self) -> usize {
        self.limit.load(Ordering::Acquire).saturating_sub(self.streams.load(Ordering::Acquire))
    }

    fn is_usable(&self) -> bool {
        !self.dead.load(Ordering::Acquire)
            && match &self.sender {
                Sender::H2(sender) => !sender.is_closed(),
                Sender::H1(sender) => {
                    sender.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|s| !s.is_closed())
                }
            }
    }

    /// Whether a request got no answer, and nothing has come since.
    fn is_suspect(&self) -> bool {
        self.unanswered.load(Ordering::Acquire) > self.heard.last()
    }

    fn is_idle(&self) -> bool {
        self.streams.load(Ordering::Acquire) == 0
            && self.idle_since.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > IDLE
    }

    fn end(self: &Arc<Self>, site: &Weak<Site>, ended: hyper::Result<()>) {
        self.dead.store(true, Ordering::Release);
        if let Some(site) = site.upgrade() {
            if let Err(error) = ended {
                tracing::debug!(origin = %site.origin, id = self.id, %error, "connection lost");
            }
            site.remove(self);
        }
    }
}

/// Runs a connection, learns how many streams the peer allows, and ends it when it has been idle.
async fn drive_h2(
    site: Weak<Site>,
    connection: Arc<Connection>,
    driver: http2::Connection<TokioIo<Box<dyn Io>>, RequestBody, TokioExecutor>,
) {
    let mut driver = pin!(driver);
    let mut seen = UNSETTLED;
    // The driver is not woken when SETTINGS arrive, so it looks: often at first, then now and then.
    let mut pause = FIRST_LOOK;
    let mut timer = pin!(tokio::time::sleep(pause));
    let ended = poll_fn(|cx| {
        let polled = driver.as_mut().poll(cx);
        let allowed = driver.current_max_send_streams();
        if allowed != seen {
            seen = allowed;
            let allowed = allowed.clamp(1, STREAMS);
            connection.limit.store(allowed, Ordering::Release);
            connection.settled.store(true, Ordering::Release);
            pause = IDLE_LOOK;
            if let Some(site) = site.upgrade() {
                site.state().expected = allowed;
                tracing::debug!(origin = %site.origin, id = connection.id, allowed, "streams allowed");
                site.dispatch();
            }
        }
        if polled.is_ready() {
            return polled;
        }
        while timer.as_mut().poll(cx).is_ready() {
            if connection.is_idle() {
                return Poll::Ready(Ok(()));
            }
            pause = (pause * 3 / 2).min(IDLE_LOOK);
            timer.as_mut().reset(tokio::time::Instant::now() + pause);
        }
        Poll::Pending
    })
    .await;
    connection.end(&site, ended);
}

/// Runs a connection and ends it when it has been idle.
async fn drive_h1(
    site: Weak<Site>,
    connection: Arc<Connection>,
    driver: http1::Connection<TokioIo<Box<dyn Io>>, RequestBody>,
    look: Duration,
) {
    let mut driver = pin!(driver);
    let ended = loop {
        match tokio::time::timeout(look, driver.as_mut()).await {
            Ok(ended) => break ended,
            Err(_) if connection.is_idle() => break Ok(()),
            Err(_) => {}
        }
    };
    connection.end(&site, ended);
}

impl Lease {
    pub(crate) fn sender(&self) -> &Sender {
        &self.connection.sender
    }

    /// Watches over a request of this instance that is about to be sent.
    pub(crate) fn asking(self: &Arc<Self>, link: &Arc<Link>) -> Unanswered {
        let sent = self.connection.heard.now();
        Unanswered { lease: Some(self.clone()), link: link.clone(), sent, silence: SILENCE }
    }

    /// The connection turned out to be closed: no other request is to get it.
    pub(crate) fn discard(&self) {
        self.connection.dead.store(true, Ordering::Release);
        self.site.remove(&self.connection);
    }
}

/// A request without an answer. Dropped without [`Unanswered::answered`], it makes the connection suspect if nothing has
/// come on it for a while.
pub(crate) struct Unanswered {
    lease: Option<Arc<Lease>>,
    link: Arc<Link>,
    sent: u64,
    silence: Duration,
}

impl Unanswered {
    /// There is an answer, or an error.
    pub(crate) fn answered(mut self) {
        self.lease = None;
    }

    /// With another measure of what is long.
    #[cfg(test)]
    pub(in crate::net) fn after(self, silence: Duration) -> Unanswered {
        Unanswered { silence, lease: self.lease.clone(), link: self.link.clone(), sent: self.sent }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        // The whole call was cancelled, perhaps while it waited for something to happen: that says nothing.
        if self.link.dead.load(Ordering::Acquire) {
            return;
        }
        let (connection, site) = (&lease.connection, &lease.site);
        let now = connection.heard.now();
        let quiet = now.saturating_sub(connection.heard.last().max(self.sent));
        if quiet < self.silence.as_micros() as u64 {
            return;
        }
        tracing::debug!(origin = %site.origin, id = connection.id, "suspect: a request got no answer");
        connection.unanswered.store(now, Ordering::Release);
        // Others may be waiting for a stream on it.
        if !site.state().waiters.is_empty() {
            site.dispatch();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.connection.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.connection.streams.fetch_sub(1, Ordering::AcqRel);
        // With no waiters this is a lock and a look.
        if !self.site.state().waiters.is_empty() {
            self.site.dispatch();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::net::connect::Trust;
    use crate::net::proxy::Proxies;

    pub(in crate::net) fn pool() -> Pool {
        Pool::new(Connector::new(Trust::default(), Proxies::default()), Arc::default())
    }

    /// The far end, and what runs this one.
    pub(in crate::net) struct Ends {
        pub(in crate::net) peer: tokio::io::DuplexStream,
        pub(in crate::net) driver: http1::Connection<TokioIo<Box<dyn Io>>, RequestBody>,
    }

    impl Pool {
        /// An HTTP/1.1 connection whose driver is not polled.
        pub(in crate::net) async fn plant(&self, origin: &Origin, reach: Reach) -> Ends {
            let (site, connection, ends) = planted(self, origin, reach).await;
            site.state().connections.push(connection);
            self.sites.lock().unwrap().insert((origin.clone(), Wire::Any), site);
            ends
        }
    }

    async fn planted(pool: &Pool, origin: &Origin, reach: Reach) -> (Arc<Site>, Arc<Connection>, Ends) {
        let (io, peer) = tokio::io::duplex(1 << 10);
        let (sender, driver) = http1::handshake(TokioIo::new(Box::new(io) as Box<dyn Io>)).await.unwrap();
        let site = pool.site(origin, Wire::Any, reach);
        let connection = Arc::new(Connection {
            id: site.next_id.fetch_add(1, Ordering::Relaxed),
            sender: Sender::H1(Mutex::new(Some(sender))),
            streams: AtomicUsize::new(0),
            limit: AtomicUsize::new(1),
            settled: AtomicBool::new(true),
            dead: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            heard: Heard::new(),
            unanswered: AtomicU64::new(0),
        });
        (site, connection, Ends { peer, driver })
    }

    fn local(port: u16) -> Origin {
        Origin { secure: false, host: "127.0.0.1".into(), port }
    }

    #[test]
    fn a_lease_can_be_dropped_where_there_is_no_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (pool, listener) = (pool(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let origin = local(listener.local_addr().unwrap().port());
        let (lease, receiver, _ends) = runtime.block_on(async {
            let ends = pool.plant(&origin, Reach::Near).await;
            let lease = pool.lease(&origin, Wire::Any, Reach::Near).await.unwrap();
            // A request waits, and the connection is not going to serve it.
            lease.connection.dead.store(true, Ordering::Release);
            let (sender, receiver) = oneshot::channel();
            let mut state = lease.site.state();
            state.waiters.push_back(sender);
            state.tasks = Some(Handle::current());
            drop(state);
            (lease, receiver, ends)
        });
        drop(lease);
        // Another connection is opened all the same.
        let lease = runtime.block_on(receiver).unwrap().unwrap();
        assert_eq!(pool.counts().1, 1);
        runtime.block_on(async { drop(lease) });
    }

    #[tokio::test]
    async fn a_connection_that_does_not_answer_is_suspect_until_something_comes() {
        use tokio::io::AsyncReadExt as _;

        let (pool, listener) = (pool(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let origin = local(listener.local_addr().unwrap().port());
        let lease = async || Arc::new(pool.lease(&origin, Wire::Grpc, Reach::Near).await.unwrap());
        let link = Arc::new(Link::default());
        // The peer takes connections and says nothing.
        let (first, (mut peer, _)) = tokio::join!(lease(), async { listener.accept().await.unwrap() });
        peer.read_u8().await.unwrap();
        // One that is cancelled at once is no sign of anything, nor is one that is answered.
        drop(first.asking(&link));
        first.asking(&link).after(Duration::ZERO).answered();
        let gone = Arc::new(Link::default());
        gone.dead.store(true, Ordering::Release);
        drop(first.asking(&gone).after(Duration::ZERO));
        assert!(!first.connection.is_suspect());
        drop(first.asking(&link).after(Duration::ZERO));
        assert!(first.connection.is_suspect());
        // The next request takes another connection, though there is room on this one.
        let (second, (_other, _)) = tokio::join!(lease(), async { listener.accept().await.unwrap() });
        assert_ne!(first.connection.id, second.connection.id);
        assert_eq!(pool.counts().0, 2);
        // Something comes after all: SETTINGS.
        tokio::io::AsyncWriteExt::write_all(&mut peer, b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while first.connection.is_suspect() {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        // Where no other can be had, a suspect one is better than none.
        for lease in [&first, &second] {
            drop(lease.asking(&link).after(Duration::ZERO));
            assert!(lease.connection.is_suspect());
        }
        drop(listener);
        lease().await;
    }

    #[tokio::test]
    async fn an_idle_http1_connection_is_closed() {
        let pool = pool();
        let (site, connection, Ends { mut peer, driver }) = planted(&pool, &local(1), Reach::Near).await;
        site.state().connections.push(connection.clone());
        assert!(!connection.is_idle());
        *connection.idle_since.lock().unwrap() = Instant::now().checked_sub(IDLE * 2).unwrap();
        connection.streams.store(1, Ordering::Release);
        assert!(!connection.is_idle(), "it is in use");
        connection.streams.store(0, Ordering::Release);
        drive_h1(Arc::downgrade(&site), connection.clone(), driver, FIRST_LOOK).await;
        assert!(site.state().connections.is_empty() && !connection.is_usable());
        let mut rest = Vec::new();
        assert_eq!(tokio::io::AsyncReadExt::read_to_end(&mut peer, &mut rest).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_at_once_is_not_kept() {
        let pool = pool();
        let (site, connection, Ends { driver, .. }) = planted(&pool, &local(1), Reach::Near).await;
        // The task that runs it may be through before the connection is among the others.
        site.state().connecting = 1;
        drop(driver);
        connection.end(&Arc::downgrade(&site), Ok(()));
        site.opened(Ok(connection), Duration::ZERO);
        assert!(site.state().connections.is_empty());
    }

    #[tokio::test]
    async fn pauses_grow_and_end_with_a_success() {
        let pool = pool();
        let (site, connection, _ends) = planted(&pool, &local(1), Reach::Near).await;
        site.state().connections.push(connection.clone());
        let mut paused = Duration::ZERO;
        let pauses = std::array::from_fn(|_| {
            // Of two that failed at once the second one makes it no longer.
            site.state().connecting = 2;
            for _ in 0..2 {
                site.opened(Err(Failure::new(Code::Refused, "full")), paused);
            }
            paused = site.state().trouble.as_ref().unwrap().pause;
            paused.as_millis()
        });
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert!(site.all_in_use().text.ends_with("no further connection: full"));
        site.state().connecting = 1;
        site.opened(Ok(connection), paused);
        assert!(site.state().trouble.is_none());
        assert_eq!(site.all_in_use().code, Code::Limit);
    }
}

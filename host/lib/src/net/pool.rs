//! The connection pool of a provider.
//!
//! There is one site per origin and wire protocol. An HTTP/2 connection carries many streams at once, up to the limit
//! of the peer. A request that finds all of them in use opens a further connection and does not wait for a stream to
//! end: an exec uses up to three streams while it runs, so the wait could be endless. An HTTP/1.1 connection carries
//! one stream.
//!
//! A connection is suspect if a request on it got no response while nothing else arrived either: it may lead nowhere,
//! which is otherwise noticed only when a ping is not answered. Further requests use another connection, which is
//! opened if necessary. The suspicion ends when something arrives. If no other connection is available, suspect ones
//! are used.
//!
//! A request holds a [`Lease`] for its stream. Dropping the last clone of the lease releases the stream.

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

/// Most streams per connection. This is the common limit of peers, and is expected of a peer that has not sent its limit.
/// A higher limit of a peer is not used, because the window of a connection is calculated from this value.
const STREAMS: usize = 100;

/// The initial stream limit that hyper is configured with. The peer's SETTINGS replace it. No peer announces this
/// number, so a different value means that the SETTINGS have arrived.
const UNKNOWN_STREAMS: usize = STREAMS + 3;

/// Streams that are opened before the peer has sent its limit. SETTINGS are the first frame of a peer, so this lasts
/// for one round trip. Streams beyond the limit would wait inside the connection, possibly forever.
const EARLY_STREAMS: usize = 8;

/// Flow-control window of a stream, in bytes: bandwidth × delay for 40 MB/s at 100 ms. It is also the most unread data
/// that a stream can buffer here.
const STREAM_WINDOW: u32 = 4 << 20;

/// Flow-control window of a connection, in bytes, for all of its streams together. With a smaller one, a few unread
/// streams would block all others of the connection. It is not allocated: only unread data uses memory.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// Most connections per site. 64 × 100 streams are enough for the default maximum of instances.
const MAX_CONNECTIONS: usize = 64;

/// HTTP/2 pings detect dead peers and lost NAT entries. The values are those of the official clients.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A request that ends without a response makes its connection suspect if nothing has arrived for this long. Shorter
/// than all timeouts that indicate an error, and longer than the response time of a request that is cancelled at once.
const SILENCE: Duration = Duration::from_secs(1);

/// Time without streams after which a connection is closed.
const IDLE: Duration = Duration::from_secs(90);

/// First interval of the check whether the peer's SETTINGS have arrived. The interval grows up to `IDLE_LOOK`, at which
/// the same timer checks for idle connections.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const IDLE_LOOK: Duration = Duration::from_secs(15);

/// How long a request waits for a stream if no more connections may be opened.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause after a failed attempt to connect while other connections of the site live. It doubles with each further
/// failure. A peer at its limit refuses at once, and there may always be a waiting request.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Largest header section of a response, in bytes as HPACK counts them.
const MAX_HEADERS: u32 = 64 << 10;

/// The wire protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wire {
    /// HTTP/2, with or without negotiation, because gRPC needs it.
    Grpc,
    /// The protocol that TLS negotiates, or HTTP/1.1 without TLS.
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
    /// The permitted addresses. The policy fixed them when the site was created.
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
    /// Streams that one more HTTP/2 connection is expected to have: as many as the last one.
    expected: usize,
    waiters: VecDeque<oneshot::Sender<Result<Lease, Failure>>>,
    /// `None` if the last attempt to connect succeeded, or if its failure was reported to all waiting requests.
    trouble: Option<Trouble>,
    /// The runtime of the last request that had to wait, because a lease can be dropped outside of any runtime.
    tasks: Option<Handle>,
}

/// The failure of the last attempt to connect.
#[derive(Clone, Debug)]
struct Trouble {
    failure: Failure,
    /// Pause between the failure and the next attempt.
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
    has_settings: AtomicBool,
    dead: AtomicBool,
    idle_since: Mutex<Instant>,
    heard: Heard,
    /// The time at which a request on the connection got no response, in the unit of `heard`.
    unanswered: AtomicU64,
}

#[derive(Debug)]
pub(crate) enum Sender {
    H2(http2::SendRequest<RequestBody>),
    /// `None` while a request uses the connection.
    H1(Mutex<Option<http1::SendRequest<RequestBody>>>),
}

/// The right to use one stream.
#[derive(Debug)]
pub(crate) struct Lease {
    site: Arc<Site>,
    connection: Arc<Connection>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, counters: Arc<Counters>) -> Pool {
        Pool { connector: Arc::new(connector), counters, sites: Mutex::default() }
    }

    /// Returns a lease for a stream to this origin. Connects if necessary.
    pub(crate) async fn lease(&self, origin: &Origin, wire: Wire, reach: Reach) -> Result<Lease, Failure> {
        let site = {
            let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            // Sites of unused origins hold no resources except their names.
            if sites.len() >= 1024 {
                sites.retain(|_, site| Arc::strong_count(site) > 1 || !site.state().connections.is_empty());
            }
            let fresh = || self.site(origin, wire, reach);
            let site = sites.entry((origin.clone(), wire)).or_insert_with(fresh);
            if site.reach != reach {
                // The policy has granted the origin anew with other permitted addresses.
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

    /// Returns whether there is an HTTP/2 connection to this origin that other requests can share.
    pub(crate) fn speaks_grpc(&self, origin: &Origin) -> bool {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        // A lookup by reference would need another key type. The map is small, and this code is rarely executed.
        sites.get(&(origin.clone(), Wire::Grpc)).is_some_and(|site| !site.state().connections.is_empty())
    }

    /// Opens a connection outside of the pool, for data that this host does not interpret.
    pub(crate) async fn connect(&self, origin: &Origin, reach: Reach) -> Result<Box<dyn Io>, Failure> {
        self.connector.connect(origin, reach, Offer::Bytes).await.map(|connected| connected.io)
    }

    /// Returns the numbers of open connections and of streams in use.
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
            Ok(Err(_)) => Err(Failure::new(Code::Terminated, format!("connecting to {} was cancelled", self.origin))),
            Err(_) => Err(self.all_in_use()),
        }
    }

    fn all_in_use(&self) -> Failure {
        let state = self.state();
        match &state.trouble {
            Some(Trouble { failure, .. }) => Failure::new(
                failure.code,
                format!(
                    "all streams to {} are in use, and it accepts no further connection: {}",
                    self.origin, failure.text
                ),
            ),
            None => Failure::new(
                Code::Limit,
                format!("all streams of {} connections to {} are in use", state.connections.len(), self.origin),
            ),
        }
    }

    /// Takes a free stream of the connection with the most free streams.
    fn take(self: &Arc<Self>, state: &mut SiteState) -> Option<Lease> {
        // Suspect connections are used only if an attempt to open another one has failed.
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

    /// Returns the number of streams that one more connection is expected to have.
    fn expected(&self, state: &SiteState) -> usize {
        let h2 = self.wire == Wire::Grpc || state.connections.iter().any(|c| matches!(c.sender, Sender::H2(_)));
        if h2 { state.expected } else { 1 }
    }

    /// Opens connections until those in progress and those without a known limit are enough for all waiting requests.
    fn open_as_needed(self: &Arc<Self>, state: &mut SiteState) {
        let expected = self.expected(state);
        let opening = state.connections.iter().filter(|c| !c.has_settings.load(Ordering::Acquire) && !c.is_suspect());
        let coming: usize = opening.map(|c| expected.saturating_sub(c.streams.load(Ordering::Acquire))).sum();
        // After a failure there is only one attempt at a time.
        let most = if state.trouble.is_some() { 1 } else { MAX_CONNECTIONS };
        while coming + state.connecting * expected < state.waiters.len()
            && state.connecting < most
            && state.connections.len() + state.connecting < MAX_CONNECTIONS
        {
            let Some(tasks) = Handle::try_current().ok().or_else(|| state.tasks.clone()) else { return };
            state.connecting += 1;
            // The connection is opened by a separate task, because it is needed even if the first waiting request is
            // cancelled.
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
        let connection = |sender, limit, has_settings| {
            Arc::new(Connection {
                id,
                sender,
                streams: AtomicUsize::new(0),
                limit: AtomicUsize::new(limit),
                has_settings: AtomicBool::new(has_settings),
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
                .initial_max_send_streams(UNKNOWN_STREAMS)
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

    /// Handles the result of an attempt to connect that was made after the pause `paused`.
    fn opened(self: &Arc<Self>, result: Result<Arc<Connection>, Failure>, paused: Duration) {
        let mut unwanted = Vec::new();
        {
            let mut state = self.state();
            state.connecting -= 1;
            let result = match result {
                // The connection's task has ended already, so it could not remove the connection, which would stay
                // forever.
                Ok(connection) if connection.dead.load(Ordering::Acquire) => {
                    Err(Failure::new(Code::Terminated, format!("{} closed the connection immediately", self.origin)))
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
                    // If several attempts fail at once, the longest pause counts.
                    let before = state.trouble.as_ref().map_or(Duration::ZERO, |trouble| trouble.pause);
                    let pause = (paused * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE).max(before);
                    state.trouble = Some(Trouble { failure: failure.clone(), pause, until: Instant::now() + pause });
                    // Other attempts or connections may still provide streams. If there are none, all waiting requests
                    // fail.
                    if state.connecting == 0 && state.connections.is_empty() {
                        // All waiting requests get the failure. A new request makes a new attempt.
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

    /// Gives free streams to waiting requests.
    fn dispatch(self: &Arc<Self>) {
        // Dropping a lease takes the lock, so leases whose requests were cancelled are dropped after the lock is
        // released.
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

    /// Returns whether a request got no response and nothing has arrived since.
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

/// Runs an HTTP/2 connection, updates its stream limit from the peer's SETTINGS, and closes it when it has been idle.
async fn drive_h2(
    site: Weak<Site>,
    connection: Arc<Connection>,
    driver: http2::Connection<TokioIo<Box<dyn Io>>, RequestBody, TokioExecutor>,
) {
    let mut driver = pin!(driver);
    let mut seen = UNKNOWN_STREAMS;
    // The arrival of SETTINGS does not wake this task, so a timer checks for it, at growing intervals.
    let mut pause = FIRST_LOOK;
    let mut timer = pin!(tokio::time::sleep(pause));
    let ended = poll_fn(|cx| {
        let polled = driver.as_mut().poll(cx);
        let allowed = driver.current_max_send_streams();
        if allowed != seen {
            seen = allowed;
            let allowed = allowed.clamp(1, STREAMS);
            connection.limit.store(allowed, Ordering::Release);
            connection.has_settings.store(true, Ordering::Release);
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

/// Runs an HTTP/1.1 connection and closes it when it has been idle.
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

    /// Returns a guard for a request of this instance that is about to be sent.
    pub(crate) fn asking(self: &Arc<Self>, link: &Arc<Link>) -> Unanswered {
        let sent = self.connection.heard.now();
        Unanswered { lease: Some(self.clone()), link: link.clone(), sent, silence: SILENCE }
    }

    /// Removes a connection that turned out to be closed, so that no other request gets it.
    pub(crate) fn discard(&self) {
        self.connection.dead.store(true, Ordering::Release);
        self.site.remove(&self.connection);
    }
}

/// A request without a response. Dropping it without [`Unanswered::answered`] makes the connection suspect if nothing
/// has arrived on it for a while.
pub(crate) struct Unanswered {
    lease: Option<Arc<Lease>>,
    link: Arc<Link>,
    sent: u64,
    silence: Duration,
}

impl Unanswered {
    /// Marks the request as answered, by a response or an error.
    pub(crate) fn answered(mut self) {
        self.lease = None;
    }

    /// Sets another limit for the silence.
    #[cfg(test)]
    pub(in crate::net) fn after(self, silence: Duration) -> Unanswered {
        Unanswered { silence, lease: self.lease.clone(), link: self.link.clone(), sent: self.sent }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        // The whole call was cancelled, perhaps while it waited for an event. This does not make the connection
        // suspect.
        if self.link.dead.load(Ordering::Acquire) {
            return;
        }
        let (connection, site) = (&lease.connection, &lease.site);
        let now = connection.heard.now();
        let quiet = now.saturating_sub(connection.heard.last().max(self.sent));
        if quiet < self.silence.as_micros() as u64 {
            return;
        }
        tracing::debug!(origin = %site.origin, id = connection.id, "connection marked as suspect: a request got no response");
        connection.unanswered.store(now, Ordering::Release);
        // Requests that wait for a stream of this connection may need another one now.
        if !site.state().waiters.is_empty() {
            site.dispatch();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.connection.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.connection.streams.fetch_sub(1, Ordering::AcqRel);
        // Without waiting requests this is only a lock and a check.
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

    /// The peer's end of a connection, and the future that runs this end.
    pub(in crate::net) struct Ends {
        pub(in crate::net) peer: tokio::io::DuplexStream,
        pub(in crate::net) driver: http1::Connection<TokioIo<Box<dyn Io>>, RequestBody>,
    }

    impl Pool {
        /// Adds an HTTP/1.1 connection whose driver is not polled.
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
            has_settings: AtomicBool::new(true),
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
            // A request waits for a connection that is dead.
            lease.connection.dead.store(true, Ordering::Release);
            let (sender, receiver) = oneshot::channel();
            let mut state = lease.site.state();
            state.waiters.push_back(sender);
            state.tasks = Some(Handle::current());
            drop(state);
            (lease, receiver, ends)
        });
        drop(lease);
        // A new connection is opened for the waiting request.
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
        // The peer accepts connections and sends nothing.
        let (first, (mut peer, _)) = tokio::join!(lease(), async { listener.accept().await.unwrap() });
        peer.read_u8().await.unwrap();
        // Requests that are cancelled at once or answered do not make a connection suspect.
        drop(first.asking(&link));
        first.asking(&link).after(Duration::ZERO).answered();
        let gone = Arc::new(Link::default());
        gone.dead.store(true, Ordering::Release);
        drop(first.asking(&gone).after(Duration::ZERO));
        assert!(!first.connection.is_suspect());
        drop(first.asking(&link).after(Duration::ZERO));
        assert!(first.connection.is_suspect());
        // The next request uses another connection, although this one has free streams.
        let (second, (_other, _)) = tokio::join!(lease(), async { listener.accept().await.unwrap() });
        assert_ne!(first.connection.id, second.connection.id);
        assert_eq!(pool.counts().0, 2);
        // SETTINGS arrive on the suspect connection.
        tokio::io::AsyncWriteExt::write_all(&mut peer, b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while first.connection.is_suspect() {
            assert!(Instant::now() < deadline);
            tokio::task::yield_now().await;
        }
        // Suspect connections are used if no other one can be opened.
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
        // The connection's task may end before the connection is added to the site.
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
            // If two attempts fail at once, the second failure does not double the pause.
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

//! The component's only door to the outside: what happens between `wasi:http/outgoing-handler` and the wire.
//!
//! This is the one place that knows the shape of wasmtime's hook. A request is held against the policy, gets the
//! credentials of its origin, goes out on a pooled connection, and its answer is learned from and scrubbed on the way
//! back. Redirects are answers like any other: nothing here follows them.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::body::{Idle, Lessons, Limit, RequestBody, ResponseBody};
use super::connect::{self, Connector, Failure};
use super::learn::Collector;
use super::pool::{Lease, Pool, Sender, Wire};
use super::scrub::Scrubber;
use crate::access::policy::{Origin, Policy, Reach};
use crate::access::secret::Secret;
use crate::error::clip;
use crate::runtime::metrics::Metrics;

/// Requests of one instance that can be under way. An instance serves one call, which holds a handful; the limit is
/// for those that mean harm.
const MAX_IN_FLIGHT: usize = 256;

/// Names and values of a request's headers together.
const MAX_REQUEST_HEADERS: usize = 64 << 10;

/// How long an answer may take to begin unless the component says otherwise. A long wait for output begins to answer
/// when there is some.
const FIRST_BYTE: Duration = Duration::from_secs(15 * 60);

/// After how long without an answer it is said that there is none, where that is unusual; then after twice as long.
const TOLD: Duration = Duration::from_secs(5);

/// Writes of at most 1 MiB each that are taken from a component before the wire has taken the first: enough to keep
/// both busy, little enough that a thousand uploads do not fill memory.
const BODY_CHUNKS: usize = 4;

/// Attempts to find a connection that is not just being closed.
const ATTEMPTS: usize = 4;

/// The network side of one provider, shared by its instances.
pub(crate) struct Net {
    pub(crate) policy: Arc<Policy>,
    pool: Pool,
    metrics: Arc<Metrics>,
    /// Everything that must not reach the component.
    secrets: Arc<[Secret]>,
    /// Headers in which the component counts its attempts.
    retry_headers: Vec<HeaderName>,
    /// Bytes of one body.
    body_bytes: u64,
    /// Is told of requests that are not answered soon.
    on_silence: Option<Arc<SilenceObserver>>,
    clock: ServiceClock,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("policy", &self.policy).field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// Is told of a request that is not answered soon.
pub(crate) type SilenceObserver = dyn Fn(&Silence) + Send + Sync;

/// A request that a service usually answers soon, and has not begun to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The service.
    pub origin: Origin,
    /// Path of the request: the name of the method, with gRPC.
    pub path: String,
    /// Since it was sent.
    pub elapsed: Duration,
}

/// The service's time, as the `date` of its answers says: what several machines agree on, whatever their own clocks say.
#[derive(Debug)]
struct ServiceClock {
    /// How far it is ahead of ours, in milliseconds; `i64::MIN` when no answer has said so yet.
    ahead: AtomicI64,
}

impl ServiceClock {
    fn new() -> ServiceClock {
        ServiceClock { ahead: AtomicI64::new(i64::MIN) }
    }

    /// Takes what an answer says that has just come.
    fn set(&self, headers: &http::HeaderMap) {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
        let ahead = i128::from(millis_of(date)) - i128::from(millis_of(SystemTime::now()));
        if let Ok(ahead) = i64::try_from(ahead) {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }

    fn now(&self) -> Option<u64> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        (ahead != i64::MIN).then(|| millis_of(SystemTime::now()).saturating_add_signed(ahead))
    }
}

/// Milliseconds since the Unix epoch.
fn millis_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// How long the requests of a call may take until their answer begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Patience {
    /// A look-up or a small change: the service answers soon, or something is wrong.
    Prompt,
    /// It can take a while, which is said.
    Told,
    /// It waits for something to happen.
    #[default]
    Held,
}

/// What one instance and its requests share.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The instance is gone: its bodies have not ended, they were cut off.
    pub(crate) dead: AtomicBool,
    in_flight: AtomicUsize,
    /// Requests that were retries.
    pub(crate) repeated: AtomicU64,
    notes: Mutex<Vec<String>>,
    blame: Mutex<Option<String>>,
    /// Of the call that runs now, and how long a prompt answer may take.
    patience: Mutex<(Patience, Duration)>,
}

impl Link {
    /// Sets what holds for the requests of the call that begins.
    pub(crate) fn expect(&self, patience: Patience, prompt: Duration) {
        *self.patience.lock().unwrap_or_else(PoisonError::into_inner) = (patience, prompt);
    }

    /// Remembers why something failed, in words that the component's error code cannot carry.
    pub(super) fn note(&self, why: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        // The last few tell the story; a component in a loop must not fill memory with them.
        if notes.len() >= 4 {
            notes.remove(0);
        }
        notes.push(clip(why, 1 << 10));
    }

    /// Remembers a cause on this side: what is noted after it is its consequence.
    pub(super) fn blame(&self, why: String) {
        self.blame.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }

    /// Takes the cause, or else the last note, and forgets the others.
    pub(crate) fn take_note(&self) -> Option<Note> {
        let last = std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner)).pop();
        let cause = self.blame.lock().unwrap_or_else(PoisonError::into_inner).take();
        cause.map(Note::Limit).or(last.map(Note::Network))
    }
}

/// What the host knows of a failure.
pub(crate) enum Note {
    /// A limit of this host was the cause; whatever the component saw is its consequence.
    Limit(String),
    /// What happened on the way.
    Network(String),
}

impl Note {
    pub(crate) fn into_text(self) -> String {
        let (Note::Limit(text) | Note::Network(text)) = self;
        text
    }
}

/// Counts a request for as long as it is under way.
pub(crate) struct Slot(Arc<Link>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a request gets the credentials of the origin that it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    Added,
    Withheld,
}

/// The hook of one instance.
pub(crate) struct Hooks {
    pub(crate) net: Arc<Net>,
    pub(crate) link: Arc<Link>,
}

type Answered = (Response<WasiBody>, Box<dyn Future<Output = Result<(), HttpError>> + Send>);

impl WasiHttpHooks for Hooks {
    // `Host` is made from the URI where HTTP/1.1 needs it; on HTTP/2 there is `:authority`.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        // The outcome of the component's reading, which nobody here waits for.
        _fut: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answered, HttpError>> + Send> {
        let (net, link) = (self.net.clone(), self.link.clone());
        Box::new(async move {
            let response = net.send(link, request, options.unwrap_or_default()).await?;
            let done: Box<dyn Future<Output = Result<(), HttpError>> + Send> = Box::new(std::future::ready(Ok(())));
            Ok((response, done))
        })
    }
}

impl Net {
    pub(crate) fn new(
        policy: Arc<Policy>,
        connector: Connector,
        metrics: Arc<Metrics>,
        secrets: Arc<[Secret]>,
        retry_headers: Vec<HeaderName>,
        body_bytes: u64,
        on_silence: Option<Arc<SilenceObserver>>,
    ) -> Net {
        let pool = Pool::new(connector, metrics.clone());
        let clock = ServiceClock::new();
        Net { policy, pool, metrics, secrets, retry_headers, body_bytes, on_silence, clock }
    }

    /// A byte stream to a place that the service named, for the user and not for the plugin. It may be where anything may be
    /// that the service hands out.
    pub(crate) async fn connect(&self, origin: &Origin) -> Result<Box<dyn connect::Io>, String> {
        self.pool.connect(origin, self.policy.handed_out()).await.map_err(|failure| failure.text)
    }

    /// Open connections and streams in use.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.pool.counts()
    }

    /// Sends one request under the policy, with the origin's credentials; the answer's body streams.
    pub(crate) async fn send(
        &self,
        link: Arc<Link>,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, HttpError> {
        self.send_with(Credentials::Added, link, request, options).await
    }

    /// As [`Net::send`], perhaps without credentials.
    pub(crate) async fn send_with(
        &self,
        credentials: Credentials,
        link: Arc<Link>,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, HttpError> {
        let result = self.try_send(credentials, link.clone(), request, options).await;
        if let Err((_, why)) = &result {
            tracing::debug!(%why, "request failed");
            self.metrics.requests_failed.fetch_add(1, Ordering::Relaxed);
            link.note(why.clone());
        }
        result.map_err(|(error, _)| error)
    }

    async fn try_send(
        &self,
        credentials: Credentials,
        link: Arc<Link>,
        mut request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, (HttpError, String)> {
        let denied = |why: String| {
            self.metrics.requests_denied.fetch_add(1, Ordering::Relaxed);
            (HttpError::HttpRequestDenied, why)
        };
        let slot = {
            let before = link.in_flight.fetch_add(1, Ordering::AcqRel);
            let slot = Slot(link.clone());
            if before >= MAX_IN_FLIGHT {
                return Err(denied(format!("the plugin has {MAX_IN_FLIGHT} requests under way and wants more")));
            }
            slot
        };
        let origin = Origin::of(request.uri())
            .ok_or_else(|| (HttpError::HttpRequestUriInvalid, "the plugin asked for no http or https URL".into()))?;
        let pass = self.policy.check(&origin).map_err(|refusal| denied(refusal.0))?;

        let headers = request.headers_mut();
        headers.remove(header::HOST);
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > MAX_REQUEST_HEADERS {
            return Err((
                HttpError::HttpRequestHeaderSectionSize(Some(size.try_into().unwrap_or(u32::MAX))),
                format!("the plugin's request has {size} bytes of headers, more than {MAX_REQUEST_HEADERS}"),
            ));
        }
        for (name, source) in &pass.headers {
            // Replaces whatever the component put there.
            headers.remove(name);
            if let Some(value) = source.value().filter(|_| credentials == Credentials::Added) {
                headers.insert(name, value);
            }
        }
        let again = |name: &HeaderName| headers.get(name).is_some_and(|count| count.as_bytes() != b"0");
        if self.retry_headers.iter().any(again) {
            self.metrics.requests_repeated.fetch_add(1, Ordering::Relaxed);
            link.repeated.fetch_add(1, Ordering::Relaxed);
        }
        let kind = media_type(headers);
        let grpc = kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with('+'));
        let wire = if grpc || (!origin.secure && self.pool.speaks_grpc(&origin)) { Wire::Grpc } else { Wire::Any };
        let path = request.uri().path().to_owned();
        self.metrics.requests.fetch_add(1, Ordering::Relaxed);

        let (patience, prompt) = *link.patience.lock().unwrap_or_else(PoisonError::into_inner);
        let (response, lease) = {
            let exchange = self.exchange(&origin, wire, pass.reach, &link, request);
            let limit = options.first_byte_timeout.unwrap_or(FIRST_BYTE);
            let limit = if patience == Patience::Prompt { limit.min(prompt) } else { limit };
            let answer = tokio::select! {
                biased;
                () = self.tell(patience, &origin, &path) => unreachable!("it does not end"),
                answer = tokio::time::timeout(limit, exchange) => answer,
            };
            answer.map_err(|_| {
                let why = format!("{origin} did not begin to answer {path} within {limit:?}");
                (HttpError::HttpResponseTimeout, why)
            })??
        };
        if self.policy.fixed().iter().any(|fixed| fixed.origin == origin) {
            self.clock.set(response.headers());
        }
        tracing::trace!(%origin, path, status = response.status().as_u16(), "answered");

        let lessons = Collector::new(&pass.learn, &path).map(|collector| Lessons {
            collector,
            policy: self.policy.clone(),
            hands_out: pass.hands_out,
        });
        // Only those who are sent credentials can echo them.
        let scrubber = if pass.headers.is_empty() { None } else { Scrubber::new(&self.secrets) };
        let (mut parts, inner) = response.into_parts();
        if let Some(scrubber) = &scrubber {
            scrubber.headers(&mut parts.headers);
        }
        let body = ResponseBody {
            inner,
            link,
            metrics: self.metrics.clone(),
            hold: Some((lease, slot)),
            lessons,
            scrubber,
            idle: options.between_bytes_timeout.map(Idle::new),
            limit: Limit::new(self.body_bytes),
            next: None,
        };
        Ok(Response::from_parts(parts, body.boxed_unsync()))
    }

    /// Says again and again that there is no answer, where that is unusual. Does not end.
    async fn tell(&self, patience: Patience, origin: &Origin, path: &str) {
        let (begun, mut pause) = (Instant::now(), TOLD);
        if let Some(observer) = self.on_silence.as_ref().filter(|_| patience != Patience::Held) {
            loop {
                tokio::time::sleep(pause).await;
                pause *= 2;
                let elapsed = begun.elapsed();
                observer(&Silence { origin: origin.clone(), path: path.to_owned(), elapsed });
            }
        }
        std::future::pending().await
    }

    /// The service's time in milliseconds since the Unix epoch, if it has answered and said it.
    pub(crate) fn service_now(&self) -> Option<u64> {
        self.clock.now()
    }

    /// Sends on some connection. One that turns out to be closed before anything was sent is replaced.
    async fn exchange(
        &self,
        origin: &Origin,
        wire: Wire,
        reach: Reach,
        link: &Arc<Link>,
        request: Request<WasiBody>,
    ) -> Result<(Response<Incoming>, Arc<Lease>), (HttpError, String)> {
        let connect_failed = |failure: Failure| (failure.error(), failure.text);
        let mut lease = Arc::new(self.pool.lease(origin, wire, reach).await.map_err(connect_failed)?);
        let limit = Limit::new(self.body_bytes);
        let mut request =
            request.map(|body| RequestBody::new(body, link.clone(), self.metrics.clone(), lease.clone(), limit));
        for _ in 0..ATTEMPTS {
            let asking = lease.asking(link);
            let sent = match lease.sender() {
                Sender::H2(sender) => {
                    *request.version_mut() = Version::HTTP_2;
                    Ok(sender.clone().try_send_request(request).await)
                }
                Sender::H1(slot) => {
                    to_http1(&mut request, origin);
                    let taken = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                    match taken {
                        Some(mut sender) => match sender.ready().await {
                            Ok(()) => {
                                let sent = sender.try_send_request(request).await;
                                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                                Ok(sent)
                            }
                            Err(_) => Err(request),
                        },
                        None => Err(request),
                    }
                }
            };
            asking.answered();
            let returned = match sent {
                Ok(Ok(response)) => return Ok((response, lease)),
                Ok(Err(mut error)) => match error.take_message() {
                    Some(returned) => returned,
                    None => {
                        let (code, why) = failure_of(error.error());
                        return Err((code, format!("{origin}: {why}")));
                    }
                },
                // Closed before anything was sent.
                Err(returned) => returned,
            };
            lease.discard();
            request = returned;
            lease = Arc::new(self.pool.lease(origin, wire, reach).await.map_err(connect_failed)?);
            request.body_mut().lease = lease.clone();
        }
        Err((HttpError::ConnectionTerminated, format!("{origin} closes every connection at once")))
    }
}

/// What a body is: the type alone, in lower case; nothing where that is not said.
pub(crate) fn media_type(headers: &http::HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// HTTP/1.1 wants the path in the request line, `Host`, and no `te: trailers`.
fn to_http1(request: &mut Request<RequestBody>, origin: &Origin) {
    *request.version_mut() = Version::HTTP_11;
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = http::Uri::from(path);
    }
    if let Ok(host) = HeaderValue::from_str(&origin.authority()) {
        request.headers_mut().insert(header::HOST, host);
    }
    request.headers_mut().remove(header::TE);
}

/// What the component and the user are told of a broken exchange.
pub(super) fn failure_of(error: &hyper::Error) -> (HttpError, String) {
    let mut why = error.to_string();
    let mut source = error.source();
    let mut io = false;
    let mut refused = false;
    while let Some(cause) = source {
        why = format!("{why}: {cause}");
        io |= cause.is::<std::io::Error>();
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            io |= h2.is_io() || h2.is_go_away();
            refused |= h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = cause.source();
    }
    let code = if error.is_timeout() {
        HttpError::ConnectionReadTimeout
    } else if refused || io || error.is_canceled() || error.is_closed() {
        HttpError::ConnectionTerminated
    } else if error.is_incomplete_message() {
        HttpError::HttpResponseIncomplete
    } else {
        HttpError::HttpProtocolError
    };
    (code, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pool;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn an_http1_connection_that_closes_before_anything_was_sent_is_replaced() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin { secure: false, host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let pool = pool::tests::pool();
        let net = Net {
            policy: Arc::new(Policy::new(vec![])),
            pool,
            metrics: Arc::default(),
            secrets: Arc::new([]),
            retry_headers: vec![],
            body_bytes: 1 << 10,
            on_silence: None,
            clock: ServiceClock::new(),
        };
        let pool::tests::Ends { mut peer, driver } = net.pool.plant(&origin, Reach::Near).await;
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(format!("{origin}/path")).body(body).unwrap();
        let link = Arc::default();
        let mut exchange = std::pin::pin!(net.exchange(&origin, Wire::Any, Reach::Near, &link, request));
        // It waits until that connection is ready, which is not to be.
        assert!(futures_util::poll!(&mut exchange).is_pending());
        drop(driver);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 17];
            stream.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"GET /path HTTP/1.");
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            Ok(stream)
        };
        let ((response, _lease), _stream) = tokio::try_join!(exchange, server).map_err(|(_, why)| why).unwrap();
        assert_eq!(response.status(), 204);
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "nothing was sent on the first one");
        assert_eq!(net.counts(), (1, 1));
    }
}

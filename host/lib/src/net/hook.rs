//! Sends the HTTP requests of components. It implements wasmtime's hook for `wasi:http/outgoing-handler`, which is the
//! only access of a component to the network.
//!
//! No other module depends on the form of that hook. A request is checked against the policy, gets the credentials of
//! its origin, and is sent on a pooled connection. The response is searched for new origins and scrubbed of
//! credentials. Redirects are passed on like other responses: nothing here follows them.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Request, Response, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use super::body::{Idle, Lessons, Limit, RequestBody, ResponseBody};
use super::clock::ServiceClock;
use super::connect::{self, Connector};
use super::counters::Counters;
use super::failure::{self, Failure};
use super::learn::Collector;
use super::link::{Link, Patience};
use super::pool::{Lease, Pool, Sender, Wire};
use super::scrub::Scrubber;
use crate::access::credentials::asked_for;
use crate::access::policy::{Origin, Pass, Policy, Reach};
use crate::access::secret::Secret;
use crate::plugin::origin::NAMED_CREDENTIAL;

/// Most concurrent requests of one instance. An instance serves one call, which has a handful. The limit protects
/// against malicious components.
const MAX_IN_FLIGHT: usize = 256;

/// Most bytes of the header names and values of a request.
const MAX_REQUEST_HEADERS: usize = 64 << 10;

/// Default limit for the time until a response begins. The response to a long wait for output begins when there is
/// output.
const FIRST_BYTE: Duration = Duration::from_secs(15 * 60);

/// Time without a response after which the embedder is informed, for requests that are usually answered soon. The next
/// pauses are each twice as long.
const TOLD: Duration = Duration::from_secs(5);

/// Most writes of at most 1 MiB each that are accepted from a component before the connection has taken the first:
/// enough to keep both busy, and few enough to bound the memory of a thousand uploads.
const BODY_CHUNKS: usize = 4;

/// Most attempts to find a connection that is not being closed.
const ATTEMPTS: usize = 4;

/// The network side of one provider, shared by its instances.
pub(crate) struct Net {
    pub(crate) policy: Arc<Policy>,
    pool: Pool,
    counters: Arc<Counters>,
    /// All credentials, which must not reach the component.
    secrets: Arc<[Secret]>,
    /// Headers in which the component counts its attempts.
    retry_headers: Vec<HeaderName>,
    /// Most bytes of one body.
    body_bytes: u64,
    /// Called for requests that are not answered soon.
    on_silence: Option<Arc<SilenceObserver>>,
    clock: ServiceClock,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("policy", &self.policy).field("pool", &self.pool).finish_non_exhaustive()
    }
}

/// A function that is called for a request that is not answered soon.
pub(crate) type SilenceObserver = dyn Fn(&Silence) + Send + Sync;

/// A request that a service usually answers soon, but has not begun to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The origin of the service.
    pub origin: Origin,
    /// The path of the request, which names the method in gRPC.
    pub path: String,
    /// The time since the request was sent.
    pub elapsed: Duration,
}

/// Whether a request gets the credentials of its origin.
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
    // The `Host` header is set from the URI for HTTP/1.1. HTTP/2 uses `:authority` instead.
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
        // The result of the component reading the response, which is not needed here.
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
        secrets: Arc<[Secret]>,
        retry_headers: Vec<HeaderName>,
        body_bytes: u64,
        on_silence: Option<Arc<SilenceObserver>>,
    ) -> Net {
        let counters = Arc::new(Counters::default());
        let pool = Pool::new(connector, counters.clone());
        let clock = ServiceClock::new();
        Net { policy, pool, counters, secrets, retry_headers, body_bytes, on_silence, clock }
    }

    /// Connects to an address that the service named, for the embedder and not for the plugin. The permitted addresses
    /// are those of origins that the service may name.
    pub(crate) async fn connect(&self, origin: &Origin) -> Result<Box<dyn connect::Io>, String> {
        self.pool.connect(origin, self.policy.handed_out()).await.map_err(|failure| failure.text)
    }

    /// Returns the counters of requests and connections.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the numbers of open connections and of streams in use.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.pool.counts()
    }

    /// Sends a request under the policy, with the credentials of its origin. The body of the response is streamed.
    pub(crate) async fn send(
        &self,
        link: Arc<Link>,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, HttpError> {
        self.send_with(Credentials::Added, link, request, options).await
    }

    /// Sends a request like [`Net::send`], with or without credentials.
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
            self.counters.requests_failed.fetch_add(1, Ordering::Relaxed);
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
            self.counters.requests_denied.fetch_add(1, Ordering::Relaxed);
            (HttpError::HttpRequestDenied, why)
        };
        let Some(slot) = link.begin(MAX_IN_FLIGHT) else {
            return Err(denied(format!("the plugin exceeds the limit of {MAX_IN_FLIGHT} concurrent requests")));
        };
        let origin = Origin::of(request.uri()).ok_or_else(|| {
            (HttpError::HttpRequestUriInvalid, "the plugin requested a URL that is neither http nor https".into())
        })?;
        let pass = self.policy.check(&origin).map_err(|refusal| denied(refusal.0))?;

        let headers = request.headers_mut();
        headers.remove(header::HOST);
        let named = take_named(headers);
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > MAX_REQUEST_HEADERS {
            return Err((
                HttpError::HttpRequestHeaderSectionSize(Some(size.try_into().unwrap_or(u32::MAX))),
                format!("the plugin's request has {size} bytes of headers, more than {MAX_REQUEST_HEADERS}"),
            ));
        }
        let again = |name: &HeaderName| headers.get(name).is_some_and(|count| count.as_bytes() != b"0");
        if self.retry_headers.iter().any(again) {
            self.counters.requests_repeated.fetch_add(1, Ordering::Relaxed);
            link.repeated.fetch_add(1, Ordering::Relaxed);
        }
        let kind = media_type(headers);
        let grpc = kind.strip_prefix("application/grpc").is_some_and(|rest| rest.is_empty() || rest.starts_with('+'));
        let wire = if grpc || (!origin.secure && self.pool.speaks_grpc(&origin)) { Wire::Grpc } else { Wire::Any };
        let path = request.uri().path().to_owned();
        let request = with_additions(request, &pass, credentials, &named, &origin).map_err(denied)?;
        self.counters.requests.fetch_add(1, Ordering::Relaxed);

        let (patience, prompt) = link.patience();
        let (response, lease) = {
            let exchange = self.exchange(&origin, wire, pass.reach, &link, request);
            let limit = options.first_byte_timeout.unwrap_or(FIRST_BYTE);
            let limit = if patience == Patience::Prompt { limit.min(prompt) } else { limit };
            let answer = tokio::select! {
                biased;
                () = self.tell(patience, &origin, &path) => unreachable!("this future never completes"),
                answer = tokio::time::timeout(limit, exchange) => answer,
            };
            answer.map_err(|_| {
                let why = format!("{origin} did not respond to {path} within {limit:?}");
                (HttpError::HttpResponseTimeout, why)
            })??
        };
        if self.policy.granting(&origin).is_some() {
            self.clock.set(response.headers());
        }
        tracing::trace!(%origin, path, status = response.status().as_u16(), "answered");

        let lessons = Collector::new(&pass.learn, &path, is_document(&response)).map(|collector| Lessons {
            collector,
            policy: self.policy.clone(),
            hands_out: pass.hands_out,
        });
        // Only origins that receive credentials can echo them.
        let echoes = pass.additions.is_some_and(|additions| !additions.is_empty());
        let scrubber = if echoes { Scrubber::new(&self.secrets) } else { None };
        let (mut parts, inner) = response.into_parts();
        if let Some(scrubber) = &scrubber {
            scrubber.headers(&mut parts.headers);
        }
        let body = ResponseBody {
            inner,
            link,
            counters: self.counters.clone(),
            hold: Some((lease, slot)),
            lessons,
            scrubber,
            idle: options.between_bytes_timeout.map(Idle::new),
            limit: Limit::new(self.body_bytes),
            next: None,
        };
        Ok(Response::from_parts(parts, body.boxed_unsync()))
    }

    /// Informs the embedder repeatedly that there is no response, for requests that are usually answered soon. Never
    /// returns.
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

    /// Returns the service's time in milliseconds since the Unix epoch, or `None` before its first response with a
    /// date.
    pub(crate) fn service_now(&self) -> Option<u64> {
        self.clock.now()
    }

    /// Sends a request on a pooled connection. Replaces a connection that is closed before anything was sent on it.
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
            request.map(|body| RequestBody::new(body, link.clone(), self.counters.clone(), lease.clone(), limit));
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
                        let (code, why) = failure::of_exchange(error.error());
                        return Err((code, format!("{origin}: {why}")));
                    }
                },
                // The connection was closed before anything was sent.
                Err(returned) => returned,
            };
            lease.discard();
            request = returned;
            lease = Arc::new(self.pool.lease(origin, wire, reach).await.map_err(connect_failed)?);
            request.body_mut().lease = lease.clone();
        }
        Err((HttpError::ConnectionTerminated, format!("{origin} closes every connection immediately")))
    }
}

/// Adds what the host adds to requests for the origin, and the credentials that the component has named. Fails with a text
/// for users if one of these cannot be added.
fn with_additions(
    request: Request<WasiBody>,
    pass: &Pass,
    credentials: Credentials,
    named: &[String],
    origin: &Origin,
) -> Result<Request<WasiBody>, String> {
    let added = credentials == Credentials::Added;
    if let Some(name) = named.first().filter(|_| !added || pass.additions.is_none()) {
        return Err(asked_for(name, &format!("the host adds no credentials to requests for {origin}")));
    }
    let Some(additions) = &pass.additions else { return Ok(request) };
    let (mut parts, body) = request.into_parts();
    additions.apply(&mut parts.headers, &mut parts.uri, added, named)?;
    Ok(Request::from_parts(parts, body))
}

/// Removes the headers by which the component names credentials for this request, and returns the names.
fn take_named(headers: &mut http::HeaderMap) -> Vec<String> {
    let values = headers.get_all(NAMED_CREDENTIAL).iter();
    let names = values.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned()).collect();
    headers.remove(NAMED_CREDENTIAL);
    names
}

/// Returns whether a response is a JSON document that reports success.
pub(crate) fn is_document<B>(response: &Response<B>) -> bool {
    let kind = media_type(response.headers());
    let json = kind == "application/json" || kind.ends_with("+json") && !kind.starts_with("application/grpc");
    json && response.status().is_success()
}

/// Returns the media type of a body in lower case without parameters, or an empty string without a `content-type`.
pub(crate) fn media_type(headers: &http::HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Converts a request to HTTP/1.1, which needs the path in the request line and `Host`, and no `te: trailers`.
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
            counters: Arc::default(),
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
        // The request waits until the first connection is ready, which will not happen.
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

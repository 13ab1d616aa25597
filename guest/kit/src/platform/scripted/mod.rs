//! A transport for tests: its clock is a number, its network a list of responses. Tests of lost responses, slow
//! services and broken streams take no time with it and always have the same result.
//!
//! The script chooses a response by the last segment of the request's path, which is called the method here.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use base64ct::{Base64Unpadded, Base64UrlUnpadded, Encoding as _};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::transport::{
    Body, Frame, Headers, LocalFuture, Request, Response, Sending, Transport, TransportError, TransportFault, whole,
};

/// A scripted response to one request.
pub enum Answer {
    /// gRPC messages, followed by this status (0 for OK).
    Stream(Vec<Vec<u8>>, i32),
    /// A gRPC status with details.
    Status(i32, Vec<u8>),
    /// gRPC messages, followed by a broken connection.
    Cut(Vec<Vec<u8>>),
    /// A refused connection.
    Refused,
    /// gRPC messages, followed by silence.
    Hang(Vec<Vec<u8>>),
    /// An HTTP response: status, entity tag, body.
    Http(u16, &'static str, &'static str),
    /// Any bytes in these pieces, each after a pause, followed by silence.
    Paced(Vec<(Duration, Vec<u8>)>),
    /// Any bytes in these pieces, with the content type of the request, followed by these trailers if there are any.
    Raw(Vec<Vec<u8>>, Option<Headers>),
}

/// Returns a gRPC response with one message and the status OK.
#[cfg(feature = "grpc")]
#[must_use]
pub fn ok(message: &impl prost::Message) -> Answer {
    Answer::Stream(vec![message.encode_to_vec()], 0)
}

/// A recorded request.
pub struct Seen {
    /// The last segment of its path.
    pub method: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body; for a gRPC request, its first message.
    pub body: Bytes,
    /// The further gRPC messages.
    pub more: Vec<Bytes>,
    /// When it was sent.
    pub at: Duration,
}

impl Seen {
    /// Returns the value of a header, or an empty string if it was not sent.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// A function that makes the responses for one method.
type Serve = Rc<dyn Fn(Bytes) -> Answer>;

/// A function that may replace the response to any method.
type Meddle = Box<dyn FnMut(&str) -> Option<Answer>>;

/// The state of a scripted network.
#[derive(Default)]
pub struct Net {
    /// Time since the Unix epoch.
    pub now: RefCell<Duration>,
    timers: RefCell<Vec<Duration>>,
    served: RefCell<HashMap<&'static str, Serve>>,
    /// The responses to the next requests of a method; each is used once.
    pub answers: RefCell<HashMap<&'static str, VecDeque<Answer>>>,
    seen: RefCell<Vec<Rc<Seen>>>,
    /// Asked for a response before all others.
    pub meddle: RefCell<Option<Meddle>>,
    /// Environment variables.
    pub env: RefCell<HashMap<&'static str, String>>,
    /// The lines of progress that were written.
    pub told: RefCell<Vec<String>>,
}

thread_local! {
    /// The network whose clock [`run`] advances.
    static CURRENT: RefCell<Option<Rc<Net>>> = const { RefCell::new(None) };
}

/// A scripted transport. Clones share one network.
#[derive(Clone)]
pub struct Script(pub Rc<Net>);

impl Default for Script {
    fn default() -> Self {
        Script::new()
    }
}

impl Script {
    /// Makes a network without responses, at time 0. [`run`] advances the clock of the newest network of its thread.
    #[must_use]
    pub fn new() -> Script {
        let script = Script(Rc::default());
        CURRENT.set(Some(script.0.clone()));
        script
    }

    /// Sets the response to the next request of a method, after the responses that were set before.
    pub fn will(&self, method: &'static str, answer: Answer) {
        self.0.answers.borrow_mut().entry(method).or_default().push_back(answer);
    }

    /// Computes the responses to all further requests of a method from the request messages.
    #[cfg(feature = "grpc")]
    pub fn serves<Q: prost::Message + Default, A: prost::Message>(
        &self,
        method: &'static str,
        answer: impl Fn(Q) -> A + 'static,
    ) {
        let serve = move |body: Bytes| ok(&answer(Q::decode(body).expect("a request")));
        self.0.served.borrow_mut().insert(method, Rc::new(serve));
    }

    /// Computes the responses to all further requests of a method from the request bodies.
    pub fn answers_by(&self, method: &'static str, answer: impl FnMut(Bytes) -> Answer + 'static) {
        let answer = RefCell::new(answer);
        self.0.served.borrow_mut().insert(method, Rc::new(move |body| (answer.borrow_mut())(body)));
    }

    /// Returns the requests of a method so far.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Rc<Seen>> {
        self.0.seen.borrow().iter().filter(|seen| seen.method == method).cloned().collect()
    }
}

/// Returns a JWT that expires at this time since the Unix epoch.
#[must_use]
pub fn jwt(expires: Duration) -> String {
    let payload = format!(r#"{{"exp":{}}}"#, expires.as_secs());
    format!("e30.{}.x", Base64UrlUnpadded::encode_string(payload.as_bytes()))
}

/// Puts the gRPC frame header in front of a message.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// Takes the first message from framed messages. Returns `None` if fewer bytes than a frame header are left.
fn unframed(bytes: &mut Bytes) -> Option<Bytes> {
    let head: [u8; 5] = bytes.get(..5)?.try_into().ok()?;
    let [0, length @ ..] = head else { panic!("a request's frame begins with {}", head[0]) };
    Some(bytes.split_to(5 + u32::from_be_bytes(length) as usize).slice(5..))
}

/// Makes headers from names and values.
#[must_use]
pub fn headers<const N: usize>(headers: [(&str, &str); N]) -> Headers {
    Headers(headers.map(|(name, value)| (name.to_string(), value.into())).into())
}

fn trailers(status: i32, details: &[u8]) -> Headers {
    let mut trailers = headers([("grpc-status", &status.to_string())]);
    if !details.is_empty() {
        let text = Base64Unpadded::encode_string(details);
        trailers.0.push(("grpc-status-details-bin".to_string(), text.into()));
    }
    trailers
}

/// Makes a body from frames.
fn body(frames: Vec<Result<Frame, String>>) -> Body {
    Box::pin(stream::iter(frames))
}

impl Transport for Script {
    fn send(&self, request: Request) -> Sending {
        let net = self.0.clone();
        Box::pin(async move {
            let Request { url, headers: sent, body: mut parts, .. } = request;
            let path = url.path.split('?').next().unwrap_or_default();
            let method = path.rsplit('/').next().unwrap_or_default().to_string();
            let kind = sent.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| value.clone());
            let grpc = kind.as_ref().is_some_and(|kind| kind.starts_with("application/grpc"));
            let mut bytes = Vec::new();
            while let Some(frame) = parts.next().await {
                match frame {
                    Ok(Frame::Data(data)) => bytes.extend(data),
                    Ok(Frame::Trailers(_)) => panic!("a request with trailers"),
                    Err(message) => return Err(TransportError { kind: TransportFault::Broken, message }),
                }
            }
            let mut sent_body = Bytes::from(bytes);
            let mut more = Vec::new();
            if grpc {
                more.extend(std::iter::from_fn(|| unframed(&mut sent_body)));
                sent_body = more.remove(0);
            }
            let at = *net.now.borrow();
            let served = net.served.borrow().get(method.as_str()).cloned();
            net.seen.borrow_mut().push(Rc::new(Seen {
                method: method.clone(),
                headers: sent,
                body: sent_body,
                more,
                at,
            }));
            let meddled = net.meddle.borrow_mut().as_mut().and_then(|meddle| meddle(&method));
            let answer = match served {
                _ if meddled.is_some() => meddled,
                Some(serve) => Some(serve(net.seen.borrow().last().expect("this request").body.clone())),
                None => net.answers.borrow_mut().get_mut(method.as_str()).and_then(VecDeque::pop_front),
            };
            let answer = answer.unwrap_or_else(|| panic!("no answer was set for {method}"));
            let (messages, end) = match answer {
                Answer::Refused => {
                    return Err(TransportError { kind: TransportFault::NotSent, message: "refused".into() });
                }
                Answer::Stream(messages, status) => (messages, Some(Ok(Frame::Trailers(trailers(status, &[]))))),
                Answer::Status(status, details) => (Vec::new(), Some(Ok(Frame::Trailers(trailers(status, &details))))),
                Answer::Cut(messages) => (messages, Some(Err("cut".to_string()))),
                Answer::Hang(messages) => (messages, None),
                Answer::Http(status, tag, text) => {
                    let head = headers([("etag", tag)]).into();
                    return Ok(Response { status, head, body: whole(Bytes::from_static(text.as_bytes())) });
                }
                Answer::Paced(pieces) => {
                    let script = Script(net);
                    let pieces = stream::iter(pieces).then(move |(pause, piece)| {
                        let sleep = script.sleep(pause);
                        sleep.map(|()| Ok(Frame::Data(Bytes::from(piece))))
                    });
                    let head = Headers::default().into();
                    return Ok(Response { status: 200, head, body: Box::pin(pieces.chain(stream::pending())) });
                }
                Answer::Raw(pieces, trailers) => {
                    let data = pieces.into_iter().map(|piece| Ok(Frame::Data(Bytes::from(piece))));
                    let frames = data.chain(trailers.map(|trailers| Ok(Frame::Trailers(trailers)))).collect();
                    let kind = kind.unwrap_or_else(|| "text/plain".to_string());
                    let head = headers([("content-type", &kind)]).into();
                    return Ok(Response { status: 200, head, body: body(frames) });
                }
            };
            let mut frames: Vec<_> = messages.iter().map(|message| Ok(Frame::Data(framed(message)))).collect();
            let hangs = end.is_none();
            frames.extend(end);
            let mut parts = body(frames);
            if hangs {
                parts = Box::pin(parts.chain(stream::pending()));
            }
            let head = headers([("content-type", "application/grpc")]).into();
            Ok(Response { status: 200, head, body: parts })
        })
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<'static, ()> {
        let net = self.0.clone();
        let end = *net.now.borrow() + duration;
        Box::pin(std::future::poll_fn(move |_| {
            if *net.now.borrow() >= end {
                return std::task::Poll::Ready(());
            }
            net.timers.borrow_mut().push(end);
            std::task::Poll::Pending
        }))
    }

    fn now(&self) -> Duration {
        *self.0.now.borrow()
    }

    fn random(&self) -> [u8; 16] {
        [0; 16]
    }

    fn env(&self, name: &str) -> Option<String> {
        self.0.env.borrow().get(name).cloned()
    }

    fn tell(&self, line: &str) {
        self.0.told.borrow_mut().push(line.to_string());
    }
}

/// Runs a future that waits only for the script of this thread. When the future cannot make progress, the clock
/// advances to the earliest timer that it waits for.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let net = CURRENT.with_borrow(|net| net.clone()).expect("a script");
    let mut future = std::pin::pin!(future);
    for _ in 0..10_000 {
        net.timers.borrow_mut().clear();
        if let Some(value) = future.as_mut().now_or_never() {
            return value;
        }
        let next = net.timers.borrow().iter().min().copied();
        *net.now.borrow_mut() = next.expect("it waits for something that never comes");
    }
    panic!("it waits for ever");
}

//! A transport for tests: time is a number, the network a list of answers. What a provider does about lost answers, slow
//! services and broken streams is tested with it in no time, and the same each time.
//!
//! Answers are chosen by a request's method: the last segment of its path.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::transport::{
    Body, Frame, Headers, LocalFuture, Request, Response, Sending, Transport, TransportError, TransportFault, whole,
};

/// What the network answers to one request.
pub enum Answer {
    /// Messages of gRPC, then this status (0 for OK).
    Stream(Vec<Vec<u8>>, i32),
    /// A status of gRPC with details.
    Status(i32, Vec<u8>),
    /// Messages, then the connection breaks.
    Cut(Vec<Vec<u8>>),
    /// No connection.
    Refused,
    /// Messages, and then nothing for ever.
    Hang(Vec<Vec<u8>>),
    /// Plain HTTP: status, entity tag, body.
    Http(u16, &'static str, &'static str),
    /// Whatever: these bytes in these pieces, and these trailers, if any, as an answer of gRPC.
    Raw(Vec<Vec<u8>>, Option<Headers>),
}

/// An answer of gRPC with one message.
#[cfg(feature = "grpc")]
#[must_use]
pub fn ok(message: &impl prost::Message) -> Answer {
    Answer::Stream(vec![message.encode_to_vec()], 0)
}

/// A request as it was seen.
pub struct Seen {
    /// The last segment of its path.
    pub method: String,
    /// Its headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body; of a request of gRPC, its first message.
    pub body: Bytes,
    /// The messages of gRPC behind the first.
    pub more: Vec<Bytes>,
    /// When it was sent.
    pub at: Duration,
}

impl Seen {
    /// The value of a header; empty if it was not sent.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        self.headers.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }
}

/// Makes the answers of one method.
type Serve = Rc<dyn Fn(Bytes) -> Answer>;

/// Makes answers of whatever method, if it wants to.
type Meddle = Box<dyn FnMut(&str) -> Option<Answer>>;

/// The state of a scripted network.
#[derive(Default)]
pub struct Net {
    /// Time since the Unix epoch.
    pub now: RefCell<Duration>,
    timers: RefCell<Vec<Duration>>,
    served: RefCell<HashMap<&'static str, Serve>>,
    /// What is answered to the next requests of a method, each once.
    pub answers: RefCell<HashMap<&'static str, VecDeque<Answer>>>,
    seen: RefCell<Vec<Rc<Seen>>>,
    /// Asked before all others.
    pub meddle: RefCell<Option<Meddle>>,
    /// Environment variables.
    pub env: RefCell<HashMap<&'static str, String>>,
    /// Lines of progress that were told.
    pub told: RefCell<Vec<String>>,
}

thread_local! {
    /// The network whose clock [`run`] turns.
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
    /// A network without answers, at time 0. [`run`] turns the clock of the newest one of its thread.
    #[must_use]
    pub fn new() -> Script {
        let script = Script(Rc::default());
        CURRENT.set(Some(script.0.clone()));
        script
    }

    /// Answers the next request to a method so, after those that were set before.
    pub fn will(&self, method: &'static str, answer: Answer) {
        self.0.answers.borrow_mut().entry(method).or_default().push_back(answer);
    }

    /// Answers all further requests to a method by what they say.
    #[cfg(feature = "grpc")]
    pub fn serves<Q: prost::Message + Default, A: prost::Message>(
        &self,
        method: &'static str,
        answer: impl Fn(Q) -> A + 'static,
    ) {
        let serve = move |body: Bytes| ok(&answer(Q::decode(body).expect("a request")));
        self.0.served.borrow_mut().insert(method, Rc::new(serve));
    }

    /// Answers all further requests to a method by what this gives.
    pub fn answers_by(&self, method: &'static str, answer: impl FnMut(Bytes) -> Answer + 'static) {
        let answer = RefCell::new(answer);
        self.0.served.borrow_mut().insert(method, Rc::new(move |body| (answer.borrow_mut())(body)));
    }

    /// The requests to a method so far.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Rc<Seen>> {
        self.0.seen.borrow().iter().filter(|seen| seen.method == method).cloned().collect()
    }
}

/// A token that says when it ends.
#[must_use]
pub fn jwt(expires: Duration) -> String {
    let payload = format!(r#"{{"exp":{}}}"#, expires.as_secs());
    format!("e30.{}.x", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload))
}

/// A message of gRPC with what stands before it.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    bytes.extend(message);
    bytes.into()
}

/// Takes the frame off the first of these messages.
fn unframed(bytes: &mut Bytes) -> Option<Bytes> {
    let head: [u8; 5] = bytes.get(..5)?.try_into().ok()?;
    let [0, length @ ..] = head else { panic!("a request's frame begins with {}", head[0]) };
    Some(bytes.split_to(5 + u32::from_be_bytes(length) as usize).slice(5..))
}

/// Headers of these names and values.
#[must_use]
pub fn headers<const N: usize>(headers: [(&str, &str); N]) -> Headers {
    Headers(headers.map(|(name, value)| (name.to_string(), value.into())).into())
}

fn trailers(status: i32, details: &[u8]) -> Headers {
    let mut trailers = headers([("grpc-status", &status.to_string())]);
    if !details.is_empty() {
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
        trailers.0.push(("grpc-status-details-bin".to_string(), text.into()));
    }
    trailers
}

/// A body in these pieces.
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

/// Runs a future whose only waits are those of this thread's script: when nothing else can happen, time passes until the
/// first timer that is waited for.
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

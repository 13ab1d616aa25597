//! The Docker Engine API over HTTP: addresses, requests, JSON answers, errors. Podman serves the same API; see
//! [`flavor`] for the differences.

pub mod flavor;
pub mod frames;

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::{clip, shown},
        wit::{ErrorKind, Happened},
    },
    call::{
        Failure as _,
        http::{Answer, Refusal, exchange, read},
        json::Value,
        retry::{self, Policy, Throttle},
    },
    platform::{Body, Method, Request, Response, Transport, Url, empty, whole},
};

use flavor::Flavor;

/// Largest JSON answer that is read, in bytes. A list of 10,000 containers has about 20 MB.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Largest error text that is read, in bytes.
const ERROR_BYTES: usize = 64 * 1024;

/// How requests are repeated that do not change anything, or that change nothing more when they are repeated. An engine is
/// usually on the same machine: a few quick retries bridge its restart.
const POLICY: Policy = Policy {
    retries: 4,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(2),
    refused: 2,
    attempt: Some(SLOW),
    throttle_any: false,
    patience: None,
};

/// A request to the engine.
#[derive(Clone)]
pub struct Call<'a> {
    method: Method,
    path: String,
    query: Vec<(&'a str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    limit: Duration,
}

/// Time limit for a request that the engine answers at once. A connection that has become silent is given up then.
const QUICK: Duration = Duration::from_secs(20);

/// Time limit for other requests, such as those that copy the files of a container.
const SLOW: Duration = Duration::from_secs(120);

impl<'a> Call<'a> {
    fn new(method: Method, path: String) -> Call<'a> {
        let (query, headers, body) = Default::default();
        Call { method, path, query, headers, body, limit: SLOW }
    }

    /// A `GET` request. `path` begins with `/`; its variable parts have to be escaped.
    pub fn get(path: impl Into<String>) -> Call<'a> {
        Call::new(Method::Get, path.into())
    }

    /// A `HEAD` request.
    pub fn head(path: impl Into<String>) -> Call<'a> {
        Call::new(Method::Head, path.into())
    }

    /// A `POST` request.
    pub fn post(path: impl Into<String>) -> Call<'a> {
        Call::new(Method::Post, path.into())
    }

    /// A `PUT` request.
    pub fn put(path: impl Into<String>) -> Call<'a> {
        Call::new(Method::Put, path.into())
    }

    /// A `DELETE` request.
    pub fn delete(path: impl Into<String>) -> Call<'a> {
        Call::new(Method::Delete, path.into())
    }

    /// Says that the engine answers at once.
    #[must_use]
    pub fn quick(mut self) -> Call<'a> {
        self.limit = QUICK;
        self
    }

    /// Adds a query parameter.
    #[must_use]
    pub fn with(mut self, name: &'a str, value: impl Into<String>) -> Call<'a> {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Call<'a> {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(mut self, value: &Value) -> Call<'a> {
        self.headers.push(("content-type", "application/json".to_string()));
        self.body = value.to_string().into();
        self
    }

    /// Sets a body that is a tar archive, plain or compressed.
    #[must_use]
    pub fn tar(mut self, archive: impl Into<Bytes>) -> Call<'a> {
        self.headers.push(("content-type", "application/x-tar".to_string()));
        self.body = archive.into();
        self
    }

    fn request(&self, base: &Url, body: Body) -> Request {
        let query: Vec<(&str, &str)> = self.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let url = base.below(&self.path, &query);
        Request { method: self.method, url, headers: self.headers.clone(), body }
    }

    fn body(&self) -> Body {
        if self.body.is_empty() { empty() } else { whole(self.body.clone()) }
    }

    /// Says how long the body is. Docker Engine takes a body of unknown length for one that is not empty.
    fn sized(mut self) -> Call<'a> {
        if !matches!(self.method, Method::Get | Method::Head) {
            self.headers.push(("content-length", self.body.len().to_string()));
        }
        self
    }
}

/// The engine.
#[derive(Clone)]
pub struct Engine(Rc<Inner>);

struct Inner {
    transport: Rc<dyn Transport>,
    flavor: RefCell<Option<Flavor>>,
}

impl Engine {
    /// Makes a client. Reads no configuration and sends nothing.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Engine {
        Engine(Rc::new(Inner { transport, flavor: RefCell::default() }))
    }

    /// Returns the transport.
    #[must_use]
    pub fn transport(&self) -> &Rc<dyn Transport> {
        &self.0.transport
    }

    /// Returns the time since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.transport.now()
    }

    /// Returns the address of the API. The host replaces a Unix socket by an address of its own before the component
    /// sees it.
    ///
    /// # Errors
    ///
    /// `invalid-argument` about the variable if it has another form.
    fn base(&self) -> Result<Url> {
        let text = self.0.transport.env("DOCKER_HOST").unwrap_or_else(|| "http://engine.localhost".to_string());
        let url = text.trim().trim_end_matches('/');
        let url = match url.strip_prefix("tcp://") {
            Some(rest) => format!("http://{rest}"),
            None => url.to_string(),
        };
        let url = match self.0.transport.env("DOCKER_API_VERSION") {
            Some(version) => format!("{url}/v{}", version.trim().trim_start_matches('v')),
            None => url,
        };
        Url::parse(&url).ok_or_else(|| {
            Error::invalid(format!(
                "DOCKER_HOST is `{}`, which is not an address: give one such as unix:///var/run/docker.sock or \
                 tcp://127.0.0.1:2375.",
                shown(&text)
            ))
            .about("DOCKER_HOST")
        })
    }

    /// Sends a request that may be repeated, and returns its answer. Inner failure: the engine refused the request.
    ///
    /// # Errors
    ///
    /// `invalid-argument` if the configuration is not valid.
    pub async fn ask(&self, call: Call<'_>) -> Result<Result<Answer, Refusal>> {
        let (base, call) = (self.base()?, call.sized());
        let throttle = Throttle { wait: Refusal::retry_after, longest: Some(Duration::from_secs(60)) };
        let transport = self.transport();
        let policy = Policy { attempt: Some(call.limit), ..POLICY };
        let result = retry::run(transport, &policy, throttle, |_| {
            let request = call.request(&base, call.body());
            async { exchange(transport, request, ANSWER_BYTES).await.map_err(final_at_once) }
        });
        Ok(result.await)
    }

    /// Sends a request once, and returns the response with its body still to be read.
    ///
    /// # Errors
    ///
    /// Outer: `invalid-argument` if the configuration is not valid. Inner: the engine refused the request.
    pub async fn open(&self, call: Call<'_>) -> Result<Result<Response, Refusal>> {
        let call = call.sized();
        let body = call.body();
        self.open_with(call, body).await
    }

    /// Like [`Engine::open`], with a body of any length.
    ///
    /// # Errors
    ///
    /// As for [`Engine::open`].
    pub async fn open_with(&self, call: Call<'_>, body: Body) -> Result<Result<Response, Refusal>> {
        let request = call.request(&self.base()?, body);
        let response = match self.transport().send(request).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(error.into())),
        };
        if response.is_success() {
            return Ok(Ok(response));
        }
        let status = response.status;
        let text = read(response.body, ERROR_BYTES).await.unwrap_or_default();
        Ok(Err(Refusal::of_status(status, String::from_utf8_lossy(&text).trim())))
    }

    /// Sends a request that may be repeated, and returns the JSON value of its answer.
    ///
    /// # Errors
    ///
    /// As for [`Engine::ask`]; `internal` if the answer is not JSON.
    pub async fn json(&self, call: Call<'_>) -> Result<Result<Value, Refusal>> {
        Ok(match self.ask(call).await? {
            Ok(answer) => Ok(parse(&answer.body)?),
            Err(refusal) => Err(refusal),
        })
    }

    /// Returns which engine it is. Asks once for each instance.
    ///
    /// # Errors
    ///
    /// The error of the failed request.
    pub async fn flavor(&self) -> Result<Flavor> {
        if let Some(flavor) = self.0.flavor.borrow().clone() {
            return Ok(flavor);
        }
        let version = self.json(Call::get("/version")).await?;
        let version = version.map_err(|refusal| failed(&refusal, "ask the engine for its version"))?;
        let flavor = Flavor::of(&version);
        if let Some(doubt) = flavor.doubt() {
            self.transport().tell(&doubt);
        }
        *self.0.flavor.borrow_mut() = Some(flavor.clone());
        Ok(flavor)
    }
}

/// Engines answer 500 for most of their own errors, also for those that no retry mends, so only gateways' answers count as
/// temporary.
fn final_at_once(refusal: Refusal) -> Refusal {
    if refusal.status() == Some(500) { refusal.without_retry() } else { refusal }
}

/// Parses an answer.
///
/// # Errors
///
/// `internal` if it is not JSON.
pub fn parse(body: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(body).ok();
    // Some engines end an answer with a line end.
    text.and_then(|text| Value::parse(text.trim())).ok_or_else(|| {
        Error::internal(format!(
            "The engine sent an answer that is not JSON: `{}`.",
            shown(&clip(&String::from_utf8_lossy(body)))
        ))
    })
}

/// Returns the text of a refusal: the member `message` of the JSON answer, or the answer.
#[must_use]
pub fn reason(refusal: &Refusal) -> String {
    let value = Value::parse(refusal.message()).unwrap_or(Value::Null);
    let text = value.get("message").text().or(value.get("cause").text());
    text.unwrap_or_else(|| refusal.message()).trim().to_string()
}

/// Converts a refusal to an error. `what` completes the sentence "Could not …".
#[must_use]
pub fn failed(refusal: &Refusal, what: &str) -> Error {
    let mut error = Error::from_refusal(refusal, what);
    if refusal.status().is_some() {
        let text = clip(&reason(refusal));
        error.message = format!("Could not {what}: {text}{}", if text.ends_with('.') { "" } else { "." });
        error.provider_message = Some(text);
        // The engine has answered, so the request has been handled. What an answer of 500 left undone is not known.
        if refusal.status() == Some(500) {
            error.happened = Happened::Unknown;
        }
    } else if matches!(error.kind, ErrorKind::Unavailable) && refusal.is_refused() {
        error.message = format!(
            "Could not {what}, because the engine cannot be reached: {}. Start it, or set DOCKER_HOST to its address.",
            refusal.message().trim_end_matches('.')
        );
    }
    error
}

/// Sorts times of creation and ids, the newest first. One copy of this code serves all lists.
#[inline(never)]
pub fn newest_first(found: &mut [(u64, String)]) {
    found.sort_unstable_by(|one, other| other.cmp(one));
}

/// Returns the cursor for what comes after a position of a sorted list: the time of creation and the id.
#[must_use]
pub fn cursor_of((created, id): &(u64, String)) -> String {
    format!("{created}-{id}")
}

/// Returns the position that a cursor stands for. What was there may have been removed since.
///
/// # Errors
///
/// `invalid-argument` for another form.
pub fn position(cursor: &str) -> Result<(u64, String)> {
    let parts = cursor.split_once('-').and_then(|(created, id)| Some((created.parse().ok()?, id.to_string())));
    parts.ok_or_else(|| Error::invalid("The cursor is unknown: give the one of the last page.").about("cursor"))
}

/// Makes a list of JSON strings.
pub fn texts<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> Value {
    Value::List(items.into_iter().map(|item| Value::Text(item.as_ref().to_string())).collect())
}

/// Makes a JSON number.
#[must_use]
pub fn number(value: impl ToString) -> Value {
    Value::Number(value.to_string())
}

/// Makes a JSON object from its members.
#[must_use]
pub fn map<N: Into<String>>(members: impl IntoIterator<Item = (N, Value)>) -> Value {
    Value::Map(members.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// Returns the members of a JSON object whose values are strings.
#[must_use]
pub fn pairs(value: &Value) -> Vec<(String, String)> {
    let Value::Map(members) = value else { return Vec::new() };
    members.iter().filter_map(|(name, value)| Some((name.clone(), value.text()?.to_string()))).collect()
}

/// Returns the elements of a JSON array, or none for other values.
#[must_use]
pub fn items(value: &Value) -> &[Value] {
    if let Value::List(items) = value { items } else { &[] }
}

/// Returns the strings of a JSON array, or none for other values.
#[must_use]
pub fn strings(value: &Value) -> Vec<String> {
    items(value).iter().filter_map(Value::text).map(str::to_string).collect()
}

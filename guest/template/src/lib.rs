//! A provider for the imaginary service Example, which runs one command per request and returns its whole output.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `POST /sandboxes` | `{"key": "…"}` | `{"id": "…"}`; the same id for the same key |
//! | `GET /sandboxes/ID` | | `{"id": "…", "state": "running"}`, or the state `"ended"` |
//! | `GET /sandboxes` | | the same for all sandboxes, newest first |
//! | `DELETE /sandboxes/ID` | | |
//! | `POST /sandboxes/ID/run` | `{"id": "…", "argv": ["…"], "stdin": "…"}` | `{"exit_code": 0, "stdout": "…", "stderr": "…"}` |

use std::{rc::Rc, time::Duration};

use sandbox_provider_kit::{
    Error, Result,
    api::{
        needs, records,
        time::{bounded_wait, millis},
        wit::*,
    },
    call::{
        http::exchange,
        json::{Value, object},
    },
    exec::Capture,
    export::SandboxProvider,
    kept::page,
    platform::{Method, Request, Transport, Url, empty, whole},
};

/// Address of the service, unless the variable `EXAMPLE_URL` names another.
const DEFAULT_URL: &str = "https://api.example.com";

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 80 << 20;

/// Pause between two requests for the state of a sandbox.
const POLL: Duration = Duration::from_secs(1);

/// The provider.
pub struct Provider {
    transport: Rc<dyn Transport>,
}

impl Provider {
    /// Makes a provider. Sends no request.
    pub fn new(transport: Rc<dyn Transport>) -> Provider {
        Provider { transport }
    }

    /// Sends a request and returns the JSON of its answer. `what` completes the sentence "Could not …". Calls that may
    /// be repeated should go through `sandbox_provider_kit::call::retry`.
    async fn call(&self, method: Method, path: &str, body: Option<Value>, what: &str) -> Result<Value> {
        let url = self.transport.env("EXAMPLE_URL").unwrap_or_else(|| DEFAULT_URL.to_string());
        let base = Url::parse(&url).ok_or_else(|| Error::invalid("EXAMPLE_URL is no address.").about("EXAMPLE_URL"))?;
        let body = body.map_or_else(empty, |body| whole(body.to_string().into()));
        let headers = vec![("content-type", "application/json".to_string())];
        let request = Request { method, url: base.below(path, &[]), headers, body };
        let answer = exchange(&self.transport, request, MAX_ANSWER_BYTES).await;
        let answer = answer.map_err(|refusal| Error::from_refusal(&refusal, what))?;
        if answer.body.is_empty() {
            return Ok(Value::Null);
        }
        let text = std::str::from_utf8(&answer.body).ok().and_then(Value::parse);
        text.ok_or_else(|| Error::internal(format!("Could not {what}: the answer is no JSON.")))
    }
}

/// Makes the information about a sandbox from the JSON of the service.
fn info(value: &Value) -> Result<SandboxInfo> {
    let id = value.get("id").text().ok_or_else(|| Error::internal("The service returned a sandbox without an id."))?;
    let state = match value.get("state").text() {
        Some("ended") => SandboxState::Ended(EndReason::Other("the service does not say why".to_string())),
        _ => SandboxState::Running,
    };
    Ok(SandboxInfo { state, ..records::sandbox_info(id) })
}

/// An id of a sandbox becomes part of a path, so it must not contain anything that changes the path.
fn path_of(sandbox: &str) -> Result<String> {
    if sandbox.is_empty() || !sandbox.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Error::not_found("sandbox", sandbox));
    }
    Ok(format!("/sandboxes/{sandbox}"))
}

impl SandboxProvider for Provider {
    fn describe(&self) -> Description {
        // Functions and settings that are not declared here are refused by the checks of `needs`.
        let capabilities = [("create.idempotent", "")];
        let environment = vec![EnvVar {
            name: "EXAMPLE_URL".to_string(),
            purpose: "Address of the service.".to_string(),
            default: Some(DEFAULT_URL.to_string()),
            secret: false,
        }];
        Description { environment, ..records::description("example", env!("CARGO_PKG_VERSION"), &capabilities) }
    }

    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        needs::check_sandbox(&self.describe(), spec)
    }

    async fn check(&self) -> Result<()> {
        self.call(Method::Get, "/sandboxes", None, "reach the service").await.map(drop)
    }

    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        self.check_spec(&spec)?;
        let key = spec.key.as_deref().map_or(Value::Null, Value::from);
        let answer = self.call(Method::Post, "/sandboxes", Some(object([("key", key)])), "create the sandbox").await?;
        info(&answer)
    }

    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        info(&self.call(Method::Get, &path_of(sandbox)?, None, "look at the sandbox").await?)
    }

    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        let Value::List(all) = self.call(Method::Get, "/sandboxes", None, "list the sandboxes").await? else {
            return Err(Error::internal("Could not list the sandboxes: the answer is no list."));
        };
        page(all.iter().map(info).collect::<Result<Vec<_>>>()?, &filter, cursor.as_deref(), max)
    }

    async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        let until = self.transport.now() + bounded_wait(wait);
        loop {
            let ended = records::end_of(&self.get(sandbox).await?);
            let left = until.saturating_sub(self.transport.now());
            if ended.is_some() || left.is_zero() {
                return Ok(ended);
            }
            self.transport.sleep(left.min(POLL)).await;
        }
    }

    async fn terminate(&self, sandbox: &str) -> Result<()> {
        let ended = self.call(Method::Delete, &path_of(sandbox)?, None, "terminate the sandbox").await;
        ended.map(drop)
    }

    async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        needs::check_exec(&self.describe(), &spec)?;
        let begun = self.transport.now();
        let argv = Value::List(spec.argv.iter().map(|word| Value::from(word.as_str())).collect());
        // The imaginary service takes text. A real one has to carry any bytes, for example as base64.
        let stdin = Value::from(&*String::from_utf8_lossy(&stdin));
        let body = object([("id", Value::from(spec.id.as_str())), ("argv", argv), ("stdin", stdin)]);
        let path = format!("{}/run", path_of(sandbox)?);
        let answer = self.call(Method::Post, &path, Some(body), "run the command").await?;
        let captured = |name: &str, max| {
            let mut capture = Capture::new(max, limits.keep);
            capture.push(answer.get(name).text().unwrap_or_default().as_bytes());
            capture.captured()
        };
        let code = answer.get("exit_code").whole();
        Ok(RunResult {
            verdict: code.map_or_else(|| Verdict::Lost("The service returned no exit code.".into()), Verdict::Exited),
            stdout: captured("stdout", limits.stdout_max),
            stderr: captured("stderr", limits.stderr_max),
            duration: millis(self.transport.now().saturating_sub(begun)),
        })
    }
}

sandbox_provider_kit::export!(Provider, Provider::new, "../manifest.toml", [exec]);

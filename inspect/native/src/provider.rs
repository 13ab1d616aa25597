//! The three objects that Python sees: a provider, a build under way, and what a command gave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use sandbox_host::types::{
    Captured, EndReason, ExecSpec, FileKind, Keep, ListFilter, LogQuery, OutputLimits, SandboxState, Verdict,
};
use sandbox_host::{FileFault, Keeper, Plugin, with_retries};
use tokio::sync::Mutex;

use crate::apart;
use crate::bridge::awaitable;
use crate::error::{invalid, raise, refused};
use crate::spec;

/// Log text asked for at once.
const LOG_BYTES: u32 = 1 << 20;

type Pairs = Vec<(String, String)>;

/// A provider in use: the component with settings and credentials, and the leases of what was created through it.
#[pyclass(frozen, module = "inspect_modal_sandbox._native")]
pub(crate) struct Provider {
    provider: sandbox_host::Provider,
    keeper: Arc<Keeper>,
    throttle: Arc<Throttle>,
}

/// How often the service has asked a creation to wait, and until when at the last time.
#[derive(Default)]
struct Throttle {
    count: AtomicU64,
    until: std::sync::Mutex<Option<Instant>>,
}

#[pymethods]
impl Provider {
    /// Loads the component and sets the provider up. `env` wins over the process's environment. Sends nothing.
    #[staticmethod]
    fn open(
        py: Python<'_>,
        component: String,
        env: Pairs,
        owner: String,
        lease_secs: u64,
    ) -> PyResult<Bound<'_, PyAny>> {
        apart::set_up(py)?;
        awaitable(py, async move {
            let opened = async {
                let plugin = Plugin::load(component).await?;
                let throttle = Arc::new(Throttle::default());
                let told = throttle.clone();
                let mut builder = sandbox_host::Provider::builder(&plugin).on_wait(move |waiting| {
                    *told.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + waiting.pause);
                    told.count.fetch_add(1, Ordering::Relaxed);
                });
                for (name, value) in env {
                    builder = builder.env(name, value);
                }
                let provider = builder.build().await?;
                let keeper = Arc::new(Keeper::new(&provider, owner, Duration::from_secs(lease_secs))?);
                Ok(Provider { provider, keeper, throttle })
            };
            opened.await.map_err(raise)
        })
    }

    /// The run's id: the value of the tag that everything created through this provider carries.
    #[getter]
    fn run_id(&self) -> &str {
        self.keeper.run()
    }

    /// How often the service has asked a creation to wait, and for how many seconds from now on at the last time.
    fn throttled(&self) -> (u64, f64) {
        let until = *self.throttle.until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        (self.throttle.count.load(Ordering::Relaxed), left.as_secs_f64())
    }

    /// One cheap request that proves address and credentials.
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move { provider.check().await.map_err(raise) })
    }

    /// Starts a build, or joins one; its context is sent first. Gives a `Build`.
    fn build<'py>(&self, py: Python<'py>, image: &str) -> PyResult<Bound<'py, PyAny>> {
        let image: spec::Image = serde_json::from_str(image).map_err(invalid)?;
        let provider = self.provider.clone();
        awaitable(py, async move {
            let started = async {
                let (spec, skipped) = image.resolve(&provider).await?;
                Ok::<_, sandbox_host::Error>((provider.build(spec).await?, skipped))
            };
            let (build, skipped) = started.await.map_err(raise)?;
            Ok(Build { build: Arc::new(Mutex::new(build)), skipped })
        })
    }

    /// Makes a sandbox and keeps its lease. Gives its id, and how many requests were retries.
    fn create<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox: spec::Sandbox = serde_json::from_str(sandbox).map_err(invalid)?;
        let keeper = self.keeper.clone();
        awaitable(py, async move {
            let (sandbox, retries) = with_retries(keeper.create(sandbox.into())).await;
            Ok((sandbox.map_err(raise)?.id().to_owned(), retries))
        })
    }

    /// Adds a container to a sandbox.
    fn add_sidecar<'py>(&self, py: Python<'py>, sandbox: &str, sidecar: &str) -> PyResult<Bound<'py, PyAny>> {
        let sidecar: spec::Sidecar = serde_json::from_str(sidecar).map_err(invalid)?;
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move { sandbox.create_sidecar(sidecar.into()).await.map(drop).map_err(raise) })
    }

    /// Waits for the end of a container; none when the time has passed first. Its exit code, or -1 and why there is none.
    fn wait_sidecar<'py>(
        &self,
        py: Python<'py>,
        sandbox: &str,
        name: String,
        secs: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        let time = Duration::try_from_secs_f64(secs).unwrap_or_default();
        awaitable(py, async move {
            let end = sandbox.wait_sidecar(&name, time).await.map_err(raise)?;
            Ok(end.map(|reason| match reason {
                EndReason::Finished(code) => (i64::from(code), end_text(&reason)),
                reason => (-1, end_text(&reason)),
            }))
        })
    }

    /// Ends a sandbox and its lease; one that has ended is no error.
    fn terminate<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let (sandbox, keeper) = (self.provider.sandbox(sandbox), self.keeper.clone());
        awaitable(py, async move {
            let ended = sandbox.terminate().await;
            if ended.is_ok() {
                keeper.release(&sandbox);
            }
            ended.map_err(raise)
        })
    }

    /// Gives up a sandbox's lease without ending it: `tags` replace those it has.
    fn leave<'py>(&self, py: Python<'py>, sandbox: &str, tags: Pairs) -> PyResult<Bound<'py, PyAny>> {
        let (sandbox, keeper) = (self.provider.sandbox(sandbox), self.keeper.clone());
        awaitable(py, async move {
            keeper.release(&sandbox);
            sandbox.set_tags(tags).await.map_err(raise)
        })
    }

    /// Live sandboxes with all of these tags, newest first, at most `max`: (id, name, created in milliseconds, tags). Those
    /// of the provider's app, or of all apps of its environment.
    #[pyo3(signature = (tags, max, *, all_apps=false))]
    fn list<'py>(&self, py: Python<'py>, tags: Pairs, max: usize, all_apps: bool) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move {
            let filter = ListFilter { tags, ..ListFilter::default() };
            let found =
                if all_apps { provider.list_all_apps(&filter, max).await } else { provider.list(&filter, max).await };
            let found = found.map_err(raise)?;
            let rows = found.into_iter().map(|info| (info.id, info.name, info.created, info.tags));
            Ok(rows.collect::<Vec<_>>())
        })
    }

    /// The end of what a sidecar has printed, at most `max` bytes, also after its end.
    fn logs<'py>(&self, py: Python<'py>, sandbox: &str, sidecar: &str, max: usize) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        let prefix = format!("{sidecar} | ");
        awaitable(py, async move {
            let (mut text, mut cursor) = (String::new(), None);
            loop {
                let query = LogQuery { since: None, until: None, stream: None, search: None };
                let page = sandbox.logs(query, cursor, LOG_BYTES).await.map_err(raise)?;
                text.extend(page.items.into_iter().map(|chunk| chunk.text));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            let said: String = text.split_inclusive('\n').filter_map(|line| line.strip_prefix(&prefix)).collect();
            Ok(said[said.ceil_char_boundary(said.len().saturating_sub(max))..].to_owned())
        })
    }

    /// Deletes a named volume; one that is not there is no error.
    fn delete_volume<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move { provider.delete_volume(&name).await.map_err(raise) })
    }

    /// A sandbox's tags.
    fn tags<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move { sandbox.tags().await.map_err(raise) })
    }

    /// Why a sandbox has ended; none while it lives.
    fn ended<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move {
            match sandbox.info().await.map_err(raise)?.state {
                SandboxState::Ended(reason) => Ok(Some(end_text(&reason))),
                _ => Ok(None),
            }
        })
    }

    /// Terminates the owner's sandboxes whose lease is over. Gives their ids.
    fn sweep<'py>(&self, py: Python<'py>, owner: String) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move {
            let swept = provider.sweep(&owner, false).await.map_err(raise)?;
            Ok(swept.into_iter().filter(|one| one.terminated).map(|one| one.id).collect::<Vec<_>>())
        })
    }

    /// Waits until the readiness probe has passed; false when the time has passed first.
    fn wait_ready<'py>(&self, py: Python<'py>, sandbox: &str, secs: f64) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        let time = Duration::try_from_secs_f64(secs).unwrap_or_default();
        awaitable(py, async move { sandbox.wait_ready(time).await.map_err(raise) })
    }

    /// Where the ports are reached: (port inside, host, port).
    fn tunnels<'py>(&self, py: Python<'py>, sandbox: &str, secs: f64) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        let time = Duration::try_from_secs_f64(secs).unwrap_or_default();
        awaitable(py, async move {
            let tunnels = sandbox.tunnels(time).await.map_err(raise)?;
            Ok(tunnels.into_iter().map(|it| (it.port, it.public_host, it.public_port)).collect::<Vec<_>>())
        })
    }

    /// Runs a command to its end. Cancelling kills it. Of each stream the last `stdout_max` and `stderr_max` bytes are
    /// kept; `timeout` is in seconds.
    #[pyo3(signature = (sandbox, argv, *, stdin, cwd, env, user, timeout, stdout_max, stderr_max, container))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of a Python function")]
    fn run<'py>(
        &self,
        py: Python<'py>,
        sandbox: &str,
        argv: Vec<String>,
        stdin: Option<PyBackedBytes>,
        cwd: Option<String>,
        env: Pairs,
        user: Option<String>,
        timeout: Option<f64>,
        stdout_max: u64,
        stderr_max: u64,
        container: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.sandbox(sandbox, container);
        let mut command = ExecSpec::new(argv);
        command.cwd = cwd;
        command.env = env;
        command.user = user;
        command.timeout = timeout.map(|secs| (secs.max(0.0) * 1000.0).round() as u64);
        let limits = OutputLimits { stdout_max, stderr_max, keep: Keep::Tail };
        awaitable(py, async move {
            let stdin = stdin.map(|data| data.to_vec()).unwrap_or_default();
            let (result, retries) = with_retries(sandbox.run_with(command, stdin, limits)).await;
            let result = result.map_err(raise)?;
            let (verdict, code, detail) = verdict(&result.verdict);
            Ok(RunResult {
                verdict,
                code,
                detail,
                stdout: Stream::new(result.stdout),
                stderr: Stream::new(result.stderr),
                duration: result.duration as f64 / 1000.0,
                retries,
            })
        })
    }

    /// A whole file of at most `max` bytes, and its mode bits.
    #[pyo3(signature = (sandbox, path, max, container=None))]
    fn read_file<'py>(
        &self,
        py: Python<'py>,
        sandbox: &str,
        path: String,
        max: u64,
        container: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.sandbox(sandbox, container);
        awaitable(py, async move {
            // Neither waits for the other; a file that is too large ends the reading of it.
            let look = async {
                let info = sandbox.stat(&path, true).await.map_err(raise)?;
                match info.kind {
                    FileKind::File if info.size > max => return Err(too_large(&path, max)),
                    // To open it might take for ever.
                    FileKind::Other(kind) => return Err(special(&path, &kind)),
                    _ => {}
                }
                Ok(info.mode)
            };
            let read = async {
                sandbox.read_file(&path, max).await.map_err(|error| match error.file_fault() {
                    Some(FileFault::TooLarge) => too_large(&path, max),
                    _ => raise(error),
                })
            };
            let (mode, data) = try_join(look, read).await?;
            Python::attach(|py| Ok((PyBytes::new(py, &data).unbind(), mode)))
        })
    }

    /// Replaces a whole file; parents are made.
    #[pyo3(signature = (sandbox, path, data, container=None))]
    fn write_file<'py>(
        &self,
        py: Python<'py>,
        sandbox: &str,
        path: String,
        data: PyBackedBytes,
        container: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.sandbox(sandbox, container);
        awaitable(py, async move { sandbox.write_file(&path, data, Default::default()).await.map_err(raise) })
    }

    /// Counters since the provider was opened.
    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let metrics = self.provider.metrics();
        let values = PyDict::new(py);
        for (name, value) in [
            ("calls", metrics.calls),
            ("calls_failed", metrics.calls_failed),
            ("traps", metrics.traps),
            ("requests", metrics.requests),
            ("requests_failed", metrics.requests_failed),
            ("bytes_sent", metrics.bytes_sent),
            ("bytes_received", metrics.bytes_received),
            ("connections_opened", metrics.connections_opened),
            ("instances_made", metrics.instances_made),
        ] {
            values.set_item(name, value)?;
        }
        Ok(values)
    }
}

impl Provider {
    fn sandbox(&self, id: &str, container: Option<&str>) -> sandbox_host::Sandbox {
        let sandbox = self.provider.sandbox(id);
        match container {
            Some(name) => sandbox.sidecar(name),
            None => sandbox,
        }
    }
}

fn special(path: &str, kind: &str) -> PyErr {
    refused("file:special", format!("{path} is a {kind}, not a regular file"), Some(path.to_owned()))
}

fn too_large(path: &str, max: u64) -> PyErr {
    refused("file:too-large", format!("{path} is larger than {max} bytes"), Some(path.to_owned()))
}

/// A build under way.
#[pyclass(frozen, module = "inspect_modal_sandbox._native")]
pub(crate) struct Build {
    build: Arc<Mutex<sandbox_host::Build>>,
    /// What of the build context could not be sent, with the reason.
    #[pyo3(get)]
    skipped: Vec<String>,
}

#[pymethods]
impl Build {
    /// The next piece of the log; none when the image is ready.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let build = self.build.clone();
        awaitable(py, async move {
            let piece = build.lock().await.next().await.map_err(raise)?;
            Ok(piece.map(|piece| piece.text))
        })
    }

    /// The image's id and working directory, once `next` has given none.
    #[getter]
    fn image(&self) -> Option<(String, Option<String>)> {
        let build = self.build.try_lock().ok()?;
        build.image().map(|image| (image.id.clone(), image.workdir.clone()))
    }
}

/// What a command gave.
#[pyclass(frozen, module = "inspect_modal_sandbox._native")]
pub(crate) struct RunResult {
    /// `exited`, `signaled`, `deadline`, `sandbox-ended` or `lost`.
    #[pyo3(get)]
    verdict: &'static str,
    /// Exit code or number of the signal; 0 otherwise.
    #[pyo3(get)]
    code: i64,
    /// Why the sandbox ended or the command was lost; empty otherwise.
    #[pyo3(get)]
    detail: String,
    stdout: Stream,
    stderr: Stream,
    /// Seconds from start to end.
    #[pyo3(get)]
    duration: f64,
    /// Requests that were retries.
    #[pyo3(get)]
    retries: u64,
}

#[pymethods]
impl RunResult {
    /// The end of standard output.
    #[getter]
    fn stdout(&self, py: Python<'_>) -> Py<PyBytes> {
        self.stdout.data.clone_ref(py)
    }

    /// The end of standard error.
    #[getter]
    fn stderr(&self, py: Python<'_>) -> Py<PyBytes> {
        self.stderr.data.clone_ref(py)
    }

    /// Bytes printed to standard output in all.
    #[getter]
    fn stdout_total(&self) -> u64 {
        self.stdout.total
    }

    /// Bytes printed to standard error in all.
    #[getter]
    fn stderr_total(&self) -> u64 {
        self.stderr.total
    }
}

struct Stream {
    data: Py<PyBytes>,
    total: u64,
}

impl Stream {
    fn new(captured: Captured) -> Stream {
        let data = Python::attach(|py| PyBytes::new(py, &captured.data).unbind());
        Stream { data, total: captured.total }
    }
}

fn verdict(verdict: &Verdict) -> (&'static str, i64, String) {
    match verdict {
        Verdict::Exited(code) => ("exited", i64::from(*code), String::new()),
        Verdict::Signaled(signal) => ("signaled", i64::from(*signal), String::new()),
        Verdict::Deadline => ("deadline", 0, String::new()),
        Verdict::SandboxEnded(reason) => ("sandbox-ended", 0, end_text(reason)),
        Verdict::Lost(why) => ("lost", 0, why.clone()),
    }
}

fn end_text(reason: &EndReason) -> String {
    match reason {
        EndReason::Finished(code) => format!("its entry-point command ended with exit code {code}"),
        EndReason::Terminated => "it was terminated".to_owned(),
        EndReason::Lifetime => "its lifetime was over".to_owned(),
        EndReason::Idle => "it was idle for too long".to_owned(),
        EndReason::OutOfMemory => "it ran out of memory".to_owned(),
        EndReason::FailedToStart(why) => format!("it did not start: {why}"),
        EndReason::Lost(why) => format!("it was lost: {why}"),
        EndReason::Other(why) => why.clone(),
    }
}

//! The three classes for Python: a provider, a running build, and the result of a command.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use sandbox_host::types::{
    Captured, EndReason, ExecSpec, FileKind, Keep, ListFilter, LogQuery, OutputLimits, SandboxState, Verdict,
};
use sandbox_host::{FileFault, Keeper, Plugin, metrics::count_retries};
use tokio::sync::Mutex;

use crate::apart;
use crate::bridge::awaitable;
use crate::error::{invalid, raise, refused};
use crate::spec;

/// Maximum number of bytes per request for a log.
const LOG_BYTES: u32 = 1 << 20;

type Pairs = Vec<(String, String)>;

/// The cost in dollars, in total and by resource, and the billed core seconds and GiB seconds.
type Cost = (Option<f64>, Vec<(String, f64)>, Option<f64>, Option<f64>);

/// An open provider: the component with settings and credentials, and the leases of the sandboxes that it created.
#[pyclass(frozen, module = "inspect_modal_sandbox._native")]
pub(crate) struct Provider {
    provider: sandbox_host::Provider,
    keeper: Arc<Keeper>,
    throttle: Arc<Throttle>,
}

/// The number of waits that the service has requested for creations, and the end of the latest wait.
#[derive(Default)]
struct Throttle {
    count: AtomicU64,
    until: std::sync::Mutex<Option<Instant>>,
}

#[pymethods]
impl Provider {
    /// Loads the component and opens the provider, without sending a request. `env` takes precedence over the environment
    /// of the process.
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

    /// The id of the run, which is the value of a tag of every sandbox that this provider creates.
    #[getter]
    fn run_id(&self) -> &str {
        self.keeper.run_id()
    }

    /// Returns the number of waits that the service has requested for creations, and the remaining seconds of the latest
    /// wait.
    fn throttled(&self) -> (u64, f64) {
        let until = *self.throttle.until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        (self.throttle.count.load(Ordering::Relaxed), left.as_secs_f64())
    }

    /// Sends one small request that checks address and credentials.
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move { provider.check().await.map_err(raise) })
    }

    /// Sends the build context, then starts a build or joins a running one. Returns a `Build`.
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

    /// Creates a sandbox and keeps its lease. Returns its id and the number of repeated requests.
    fn create<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox: spec::Sandbox = serde_json::from_str(sandbox).map_err(invalid)?;
        let keeper = self.keeper.clone();
        awaitable(py, async move {
            let (sandbox, retries) = count_retries(keeper.create(sandbox.into())).await;
            Ok((sandbox.map_err(raise)?.id().to_owned(), retries))
        })
    }

    /// Adds a sidecar to a sandbox.
    fn add_sidecar<'py>(&self, py: Python<'py>, sandbox: &str, sidecar: &str) -> PyResult<Bound<'py, PyAny>> {
        let sidecar: spec::Sidecar = serde_json::from_str(sidecar).map_err(invalid)?;
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move { sandbox.create_sidecar(sidecar.into()).await.map(drop).map_err(raise) })
    }

    /// Waits for the end of a sidecar. Returns its exit code and a description; the code is -1 if there is none. Returns
    /// `None` if the sidecar still runs after `secs`.
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

    /// Terminates a sandbox and releases its lease. Succeeds if the sandbox has already ended.
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

    /// Releases the lease of a sandbox that keeps running. `tags` replace its tags.
    fn leave<'py>(&self, py: Python<'py>, sandbox: &str, tags: Pairs) -> PyResult<Bound<'py, PyAny>> {
        let (sandbox, keeper) = (self.provider.sandbox(sandbox), self.keeper.clone());
        awaitable(py, async move {
            keeper.release(&sandbox);
            sandbox.set_tags(tags).await.map_err(raise)
        })
    }

    /// Returns live sandboxes with all of these tags, newest first, at most `max`: (id, name, creation in milliseconds
    /// since the epoch, tags). They belong to the provider's app, or with `all_apps` to any app of its environment.
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

    /// Returns the last `max` bytes of a sidecar's output, also after its end.
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

    /// Deletes a volume by name. Succeeds if there is no such volume.
    fn delete_volume<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move { provider.delete_volume(&name).await.map_err(raise) })
    }

    /// Returns the tags of a sandbox.
    fn tags<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move { sandbox.tags().await.map_err(raise) })
    }

    /// Returns why a sandbox has ended, or `None` while it runs.
    fn ended<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move {
            match sandbox.info().await.map_err(raise)?.state {
                SandboxState::Ended(reason) => Ok(Some(end_text(&reason))),
                _ => Ok(None),
            }
        })
    }

    /// Returns the cost of a sandbox so far, also after its end. `None` marks values that the service does not report, or
    /// not yet.
    fn cost<'py>(&self, py: Python<'py>, sandbox: &str) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        awaitable(py, async move {
            let report = sandbox.usage_report().await.map_err(raise)?;
            let core_secs = report.billed_cpu_core_millis.map(|millis| millis as f64 / 1000.0);
            let gib_secs = report.billed_memory_mib_millis.map(|millis| millis as f64 / 1024.0 / 1000.0);
            let cost: Cost = (report.cost, report.cost_by_resource, core_secs, gib_secs);
            Ok(cost)
        })
    }

    /// Terminates the owner's sandboxes whose leases have expired, and returns their ids.
    fn sweep<'py>(&self, py: Python<'py>, owner: String) -> PyResult<Bound<'py, PyAny>> {
        let provider = self.provider.clone();
        awaitable(py, async move {
            let swept = provider.sweep(&owner, false).await.map_err(raise)?;
            Ok(swept.into_iter().filter(|one| one.terminated).map(|one| one.id).collect::<Vec<_>>())
        })
    }

    /// Waits until the readiness probe succeeds. Returns false if it does not succeed within `secs`.
    fn wait_ready<'py>(&self, py: Python<'py>, sandbox: &str, secs: f64) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        let time = Duration::try_from_secs_f64(secs).unwrap_or_default();
        awaitable(py, async move { sandbox.wait_ready(time).await.map_err(raise) })
    }

    /// Returns the tunnels of a sandbox: (port of the container, public host, public port). Waits up to `secs` for them.
    fn tunnels<'py>(&self, py: Python<'py>, sandbox: &str, secs: f64) -> PyResult<Bound<'py, PyAny>> {
        let sandbox = self.provider.sandbox(sandbox);
        let time = Duration::try_from_secs_f64(secs).unwrap_or_default();
        awaitable(py, async move {
            let tunnels = sandbox.tunnels(time).await.map_err(raise)?;
            Ok(tunnels.into_iter().map(|it| (it.port, it.public_host, it.public_port)).collect::<Vec<_>>())
        })
    }

    /// Runs a command until it ends. Cancelling the call kills the command. Keeps the last `stdout_max` and `stderr_max`
    /// bytes of its output. `timeout` is in seconds.
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
            let (result, retries) = count_retries(sandbox.run_with(command, stdin, limits)).await;
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

    /// Returns the content of a file, and its mode bits. Fails if the file has more than `max` bytes.
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
            // Both requests are sent at the same time. An error of `stat` ends the call and is reported: it describes
            // special files and files that are too large, for which reading fails in various ways or never ends.
            let look = async {
                let info = sandbox.stat(&path, true).await.map_err(raise)?;
                match info.kind {
                    FileKind::File if info.size > max => Err(too_large(&path, max)),
                    FileKind::Other(kind) => Err(special(&path, &kind)),
                    _ => Ok(info.mode),
                }
            };
            let read = async {
                sandbox.read_file(&path, max).await.map_err(|error| match error.file_fault() {
                    Some(FileFault::TooLarge) => too_large(&path, max),
                    _ => raise(error),
                })
            };
            let (mode, data) = match select(pin!(look), pin!(read)).await {
                Either::Left((mode, read)) => (mode?, read.await?),
                Either::Right((data, look)) => (look.await?, data?),
            };
            Python::attach(|py| Ok((PyBytes::new(py, &data).unbind(), mode)))
        })
    }

    /// Replaces a file, and creates its parent directories.
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

    /// Returns the host's counters since the provider was opened.
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

/// A running build.
#[pyclass(frozen, module = "inspect_modal_sandbox._native")]
pub(crate) struct Build {
    build: Arc<Mutex<sandbox_host::Build>>,
    /// The files of the build context that cannot be sent, with the reason.
    #[pyo3(get)]
    skipped: Vec<String>,
}

#[pymethods]
impl Build {
    /// Returns the next piece of the log, or `None` when the image is ready.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let build = self.build.clone();
        awaitable(py, async move {
            let piece = build.lock().await.next().await.map_err(raise)?;
            Ok(piece.map(|piece| piece.text))
        })
    }

    /// The image's id and working directory, after `next` has returned `None`.
    #[getter]
    fn image(&self) -> Option<(String, Option<String>)> {
        let build = self.build.try_lock().ok()?;
        build.image().map(|image| (image.id.clone(), image.workdir.clone()))
    }
}

/// The result of a command.
#[pyclass(frozen, module = "inspect_modal_sandbox._native")]
pub(crate) struct RunResult {
    /// `exited`, `signaled`, `deadline`, `sandbox-ended` or `lost`.
    #[pyo3(get)]
    verdict: &'static str,
    /// The exit code or the number of the signal; otherwise 0.
    #[pyo3(get)]
    code: i64,
    /// Why the sandbox ended or the command was lost; otherwise empty.
    #[pyo3(get)]
    detail: String,
    stdout: Stream,
    stderr: Stream,
    /// The duration in seconds.
    #[pyo3(get)]
    duration: f64,
    /// The number of repeated requests.
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

    /// The number of bytes that were printed to standard output.
    #[getter]
    fn stdout_total(&self) -> u64 {
        self.stdout.total
    }

    /// The number of bytes that were printed to standard error.
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
        // The kernel kills with signal 9, which is what Inspect's other providers report.
        Verdict::OutOfMemory => ("signaled", 9, String::new()),
        Verdict::Lost(why) | Verdict::Other(why) => ("lost", 0, why.clone()),
    }
}

fn end_text(reason: &EndReason) -> String {
    match reason {
        EndReason::Finished(code) => format!("its entry-point command ended with exit code {code}"),
        EndReason::Terminated => "it was terminated".to_owned(),
        EndReason::Lifetime => "it reached the end of its lifetime".to_owned(),
        EndReason::Idle => "it was idle for too long".to_owned(),
        EndReason::OutOfMemory => "it ran out of memory".to_owned(),
        EndReason::FailedToStart(why) => format!("it did not start: {why}"),
        EndReason::Lost(why) => format!("it was lost: {why}"),
        EndReason::Other(why) => why.clone(),
    }
}

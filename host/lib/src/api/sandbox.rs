//! The handle of a sandbox: its state, network, snapshots, sidecars and commands. Its files are in `files`.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::access::policy::Origin;
use crate::api::process::{OutputStream, Process};
use crate::api::provider::Provider;
use crate::api::signal::Signal;
use crate::api::spec::{fresh_id, millis};
use crate::error::{Error, Happened, Kind, Result};
use crate::runtime::call::Call;
use crate::runtime::runner::{Runner, ask};
use crate::runtime::warm::Route;
use crate::types;

/// The longest wait of one call, in milliseconds. Longer waits consist of several calls.
const WAIT: u64 = 60_000;

/// Least time limit of a memory snapshot, because it can take minutes. Other calls end after `Limits::call_time`.
const SNAPSHOT: Duration = Duration::from_secs(3600);

/// Largest standard input that is sent in one call, in bytes. Larger input is sent in pieces, because the data of a
/// call is in the memory of the instance, in addition to the pieces that are being sent.
const STDIN: usize = 16 << 20;

/// Most output per stream that one call returns, in bytes: the limit of the interface. More is read in pieces.
const COLLECTED: u64 = 32 << 20;

/// A handle to a sandbox: its id and its provider. Cheap to clone. Dropping it has no effect on the sandbox.
///
/// Paths in a sandbox are absolute, in UTF-8, without NUL, and have at most 4096 bytes. Other paths are refused with
/// [`Kind::InvalidArgument`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use sandbox_host::types::{ExecSpec, ImageSpec, SandboxSpec, Verdict, WriteOptions};
///
/// # async fn example(provider: &sandbox_host::Provider) -> sandbox_host::Result<()> {
/// let spec = SandboxSpec::new(ImageSpec::registry("python:3.12-slim")).lifetime(Duration::from_secs(3600));
/// let sandbox = provider.create(spec).await?;
/// sandbox.write_file("/srv/task.py", "print(6 * 7)", WriteOptions::default()).await?;
/// let command = ExecSpec::new(["python3", "task.py"]).cwd("/srv").timeout(Duration::from_secs(60));
/// let result = sandbox.run(command).await?;
/// match result.verdict {
///     Verdict::Exited(0) => println!("{}", String::from_utf8_lossy(&result.stdout.data)),
///     Verdict::Deadline => println!("it took more than a minute"),
///     other => println!("{other:?}: {}", String::from_utf8_lossy(&result.stderr.data)),
/// }
/// // The id is enough to continue elsewhere, or after a restart of this program.
/// let same = provider.sandbox(sandbox.id());
/// same.terminate().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sandbox {
    provider: Provider,
    id: Arc<str>,
    /// The sidecar that commands and files of this handle refer to, or `None` for the main container.
    container: Option<Arc<str>>,
    /// The user by whose rights this handle runs commands and accesses files, or `None` for that of the sandbox.
    user: Option<Arc<str>>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sandbox").field(&self.id).finish()
    }
}

impl Sandbox {
    pub(crate) fn new(provider: Provider, id: String) -> Self {
        Sandbox { provider, id: id.into(), container: None, user: None }
    }

    /// Returns the id of the sandbox.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the provider of the sandbox.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    pub(crate) fn inner(&self) -> &Arc<Runner> {
        &self.provider.inner
    }

    pub(crate) fn route(&self) -> Route {
        Some(self.id.clone())
    }

    pub(crate) fn location(&self, path: &str) -> types::Location {
        let container = self.container.as_deref().map(str::to_owned);
        types::Location {
            sandbox: self.id.to_string(),
            container,
            path: path.to_owned(),
            user: self.user.as_deref().map(str::to_owned),
        }
    }

    fn exec_ref(&self, exec: &str) -> types::ExecRef {
        let container = self.container.as_deref().map(str::to_owned);
        types::ExecRef { sandbox: self.id.to_string(), exec: exec.to_owned(), deadline: None, container }
    }

    /// Sets the container and the user of a command to those of this handle, unless the command names others.
    fn here(&self, mut command: types::ExecSpec) -> types::ExecSpec {
        command.container = command.container.or_else(|| self.container.as_deref().map(str::to_owned));
        command.user = command.user.or_else(|| self.user.as_deref().map(str::to_owned));
        command
    }

    /// Returns a handle whose commands and files are in the sidecar `name` of the same sandbox. Sends no request: the
    /// first call with the handle shows whether the sidecar exists.
    pub fn sidecar(&self, name: &str) -> Sandbox {
        Sandbox { container: Some(name.into()), ..self.clone() }
    }

    /// Returns a handle that runs commands and accesses files as this user: a name or a number, optionally with `:group`.
    /// Sends no request. Commands need the capability `exec.user`, files need `files.user`.
    pub fn as_user(&self, user: &str) -> Sandbox {
        Sandbox { user: Some(user.into()), ..self.clone() }
    }

    fn reading(&self, verb: &str) -> Call {
        Call::reading(format!("{verb} {}", self.id))
    }

    fn acting(&self, verb: &str) -> Call {
        Call::acting(format!("{verb} {}", self.id))
    }

    /// Returns the state of the sandbox, also after its end.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) if the provider does not know the sandbox, and the kinds of every
    /// call: see [`Kind`].
    pub async fn info(&self) -> Result<types::SandboxInfo> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("inspect the sandbox").prompt(), |guest, store| guest
            .call_get(store, &id))
    }

    /// Waits for the end of the sandbox, without a time limit, and returns the reason.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] if the provider does not know the sandbox, and the kinds of every call: see [`Kind`].
    pub async fn wait(&self) -> Result<types::EndReason> {
        loop {
            if let Some(reason) = self.wait_once(WAIT).await? {
                return Ok(reason);
            }
        }
    }

    /// Waits for the end of the sandbox. Returns `None` if it is still running after `time`. With a time of zero,
    /// checks once without waiting.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub async fn wait_for(&self, time: Duration) -> Result<Option<types::EndReason>> {
        let begun = std::time::Instant::now();
        loop {
            let left = millis(time.saturating_sub(begun.elapsed()));
            let ended = self.wait_once(left.min(WAIT)).await?;
            if ended.is_some() || left == 0 {
                return Ok(ended);
            }
        }
    }

    async fn wait_once(&self, wait: u64) -> Result<Option<types::EndReason>> {
        let (id, call) = (self.id.to_string(), self.reading("wait for the sandbox"));
        let ended = ask!(self.inner(), self.route(), call, |guest, store| guest.call_wait(store, &id, wait))?;
        if ended.is_some() {
            self.inner().forget(&self.route());
        }
        Ok(ended)
    }

    /// Waits until the readiness probe succeeds. Returns false if it has not succeeded after `time`.
    ///
    /// # Errors
    ///
    /// [`Kind::Conflict`](crate::Kind::Conflict) if the sandbox has no probe, and the kinds of every call: see
    /// [`Kind`].
    pub async fn wait_ready(&self, time: Duration) -> Result<bool> {
        let begun = std::time::Instant::now();
        loop {
            let left = millis(time.saturating_sub(begun.elapsed()));
            let (id, call, wait) = (self.id.to_string(), self.reading("wait for the sandbox"), left.min(WAIT));
            let ready = ask!(self.inner(), self.route(), call, |guest, store| guest.call_wait_ready(store, &id, wait))?;
            if ready || left == 0 {
                return Ok(ready);
            }
        }
    }

    /// Waits until the sandbox runs commands. Returns false if it is still waiting for a machine after `time`.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider cannot tell, and the kinds of every call: see [`Kind`].
    pub async fn wait_running(&self, time: Duration) -> Result<bool> {
        let begun = std::time::Instant::now();
        loop {
            let left = millis(time.saturating_sub(begun.elapsed()));
            let (id, call, wait) = (self.id.to_string(), self.reading("wait for the sandbox"), left.min(WAIT));
            let runs =
                ask!(self.inner(), self.route(), call, |guest, store| guest.call_wait_running(store, &id, wait))?;
            if runs || left == 0 {
                return Ok(runs);
            }
        }
    }

    /// Freezes all processes of the sandbox and keeps its memory and files. [`resume`](Self::resume) continues them.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider cannot pause sandboxes, and the kinds of every call: see [`Kind`].
    pub async fn pause(&self) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("pause the sandbox"), |guest, store| guest.call_pause(store, &id))
    }

    /// Ends all processes of the sandbox and keeps its files. [`resume`](Self::resume) starts it again.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider cannot stop sandboxes, and the kinds of every call: see [`Kind`].
    pub async fn stop(&self) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("stop the sandbox"), |guest, store| guest.call_stop(store, &id))
    }

    /// Continues a paused sandbox, or starts a stopped one again with its entry point. Succeeds if it runs.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider can neither pause nor stop sandboxes, and the kinds of every call: see
    /// [`Kind`].
    pub async fn resume(&self) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("resume the sandbox"), |guest, store| guest
            .call_resume(store, &id))
    }

    /// Sets how long the sandbox may live from now on. Returns the time of its end, in milliseconds since the Unix epoch.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider cannot change a lifetime, and the kinds of every call: see [`Kind`].
    pub async fn extend(&self, lifetime: Duration) -> Result<u64> {
        let (id, lifetime) = (self.id.to_string(), millis(lifetime));
        ask!(self.inner(), self.route(), self.acting("prolong the sandbox"), |guest, store| guest
            .call_extend(store, &id, lifetime))
    }

    /// Returns one page of the execs that the provider still knows, newest first, without the entry point. `max` is between
    /// 1 and 1000. `cursor` is the field `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider does not list execs, and the kinds of every call: see [`Kind`].
    pub async fn execs(&self, cursor: Option<String>, max: u32) -> Result<types::ExecPage> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("list the commands of").prompt(), |guest, store| guest
            .call_list_execs(store, &id, cursor.as_deref(), max))
    }

    /// Terminates the sandbox. Returns when the provider has accepted the request. Succeeds if the sandbox has ended.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) if the provider does not know the sandbox, and the kinds of every
    /// call: see [`Kind`].
    pub async fn terminate(&self) -> Result<()> {
        let id = self.id.to_string();
        let ended =
            ask!(self.inner(), self.route(), self.acting("terminate the sandbox").prompt(), |guest, store| guest
                .call_terminate(store, &id));
        self.inner().forget(&self.route());
        ended
    }

    /// Sets the name of a sandbox without a name. Succeeds if it has this name already.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`](crate::Kind::AlreadyExists) for a name that is taken, and the kinds of every call: see
    /// [`Kind`].
    pub async fn set_name(&self, name: &str) -> Result<()> {
        let (id, name) = (self.id.to_string(), name.to_owned());
        ask!(self.inner(), self.route(), self.acting("set the name of the sandbox").prompt(), |guest, store| guest
            .call_set_name(store, &id, &name))
    }

    /// Returns the tags of the sandbox.
    ///
    /// # Errors
    ///
    /// The kinds of every call about a sandbox: see [`Kind`].
    pub async fn tags(&self) -> Result<Vec<(String, String)>> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("read the tags of").prompt(), |guest, store| guest
            .call_get_tags(store, &id))
    }

    /// Replaces all tags of the sandbox. Two programs that change tags at the same time can overwrite each other's.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`] for tags that the service does not accept, and the kinds of every call: see [`Kind`].
    pub async fn set_tags(&self, tags: Vec<(String, String)>) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("set the tags of").prompt(), |guest, store| guest
            .call_set_tags(store, &id, &tags))
    }

    /// Returns the public addresses of the ports. Waits up to `time`, at most ten minutes, for them to be assigned.
    ///
    /// # Errors
    ///
    /// [`Kind::TimedOut`](crate::Kind::TimedOut) if they are not assigned after `time`, and the kinds of every call:
    /// see [`Kind`].
    pub async fn tunnels(&self, time: Duration) -> Result<Vec<types::Tunnel>> {
        let (id, wait) = (self.id.to_string(), millis(time));
        ask!(self.inner(), self.route(), self.reading("find the tunnels of"), |guest, store| guest
            .call_tunnels(store, &id, wait))
    }

    /// Connects to a tunnel, with TLS unless it is a plain TCP tunnel. The connection carries the bytes of the program
    /// behind the port, and is not visible to the plugin. The service supplies the address. It may be an address of
    /// this machine or of a private network only if the service is there too. The same rule applies to origins that the
    /// service names. The attempt takes at most ten seconds.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`](crate::Kind::Unavailable) if the connection fails, or the address is not allowed.
    pub async fn connect(&self, tunnel: &types::Tunnel) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let origin = Origin {
            secure: tunnel.kind != types::PortKind::Tcp,
            host: tunnel.public_host.to_ascii_lowercase(),
            port: tunnel.public_port,
        };
        self.inner().net.connect(&origin).await.map_err(|why| {
            Error::new(Kind::Unavailable, format!("connect to port {} of {}", tunnel.port, self.id), why)
        })
    }

    /// Creates a token for HTTP connections to a port. The program that serves the port receives `metadata`.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the provider has no such tokens, and the kinds of every call:
    /// see [`Kind`].
    pub async fn connect_token(&self, port: u16, metadata: &str) -> Result<types::ConnectToken> {
        let (id, metadata) = (self.id.to_string(), metadata.to_owned());
        ask!(self.inner(), self.route(), self.acting("create a token for"), |guest, store| guest
            .call_create_connect_token(store, &id, port, &metadata))
    }

    /// Returns a piece of the persisted log of the sandbox, also after its end: at most `max_bytes` of text (1 to 64 MiB),
    /// starting at `cursor`, or at the beginning for `None`. The page contains the cursor of the next one.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`] for zero bytes or an unusable cursor, and the kinds of every call about a sandbox: see
    /// [`Kind`].
    pub async fn logs(&self, query: types::LogQuery, cursor: Option<String>, max_bytes: u32) -> Result<types::LogPage> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("read the log of"), |guest, store| guest.call_read_logs(
            store,
            &id,
            &query,
            cursor.as_deref(),
            max_bytes
        ))
    }

    /// Returns the resources that the sandbox has used so far and their cost, also after its end. Costs are in US
    /// dollars, and absent if the provider does not report them, or if the plugin has an interface version before
    /// 0.1.1. The last seconds or minutes may be missing in all numbers.
    ///
    /// # Errors
    ///
    /// The kinds of every call about a sandbox: see [`Kind`].
    pub async fn usage_report(&self) -> Result<types::UsageReport> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("read the usage of").prompt(), |guest, store| guest
            .call_report_usage(store, &id))
    }

    /// Replaces the network policy of the sandbox. Open connections may continue.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the policy cannot be changed, and the kinds of every call:
    /// see [`Kind`].
    pub async fn set_network(&self, policy: types::NetworkPolicy) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("change the network of"), |guest, store| guest
            .call_set_network(store, &id, &policy))
    }

    /// Makes the changes of other sandboxes to the mounted volumes visible.
    ///
    /// # Errors
    ///
    /// The kinds of every call about a sandbox: see [`Kind`].
    pub async fn reload_volumes(&self) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("reload the volumes of"), |guest, store| guest
            .call_reload_volumes(store, &id))
    }

    /// Saves the file system as an image and returns the image's id. The image is deleted after `ttl`, which is rounded
    /// down to milliseconds, or kept for `None`.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider has no such snapshots, and the kinds of every call: see [`Kind`].
    pub async fn snapshot_filesystem(&self, ttl: Option<Duration>) -> Result<String> {
        self.snapshot_filesystem_as(&fresh_id(), ttl).await
    }

    /// Saves the file system like [`snapshot_filesystem`](Self::snapshot_filesystem), with a key that the caller
    /// chooses. Repeated calls with the same key return the same image.
    ///
    /// # Errors
    ///
    /// Those of [`snapshot_filesystem`](Self::snapshot_filesystem).
    pub async fn snapshot_filesystem_as(&self, key: &str, ttl: Option<Duration>) -> Result<String> {
        let (id, key, ttl) = (self.id.to_string(), key.to_owned(), ttl.map(millis));
        ask!(self.inner(), self.route(), self.acting("take a snapshot of"), |guest, store| guest
            .call_snapshot_filesystem(store, &id, &key, ttl))
    }

    /// Saves one directory as an image that can be mounted, and returns the image's id. The image is deleted after
    /// `ttl`, or kept for `None`.
    ///
    /// # Errors
    ///
    /// Those of [`snapshot_filesystem`](Self::snapshot_filesystem).
    pub async fn snapshot_directory(&self, path: &str, ttl: Option<Duration>) -> Result<String> {
        let (at, key, ttl) = (self.location(path), fresh_id(), ttl.map(millis));
        ask!(self.inner(), self.route(), self.acting("take a snapshot of a directory of"), |guest, store| guest
            .call_snapshot_directory(store, &at, &key, ttl))
    }

    /// Saves memory and processes as well as files, and returns the id of the snapshot, for [`Provider::restore`]. Ends
    /// the sandbox with some providers. Takes at most an hour, or [`Limits::call_time`](crate::Limits::call_time) if
    /// that is longer.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) if the provider has no memory snapshots, and the kinds of every
    /// call: see [`Kind`].
    pub async fn snapshot_memory(&self) -> Result<String> {
        let (id, key) = (self.id.to_string(), fresh_id());
        let longest = self.inner().limits.call_time.max(SNAPSHOT);
        let call = self.acting("take a memory snapshot of").within(Some(longest));
        ask!(self.inner(), self.route(), call, |guest, store| guest.call_snapshot_memory(store, &id, &key))
    }

    /// Returns the image of the file system that was saved at the end of the sandbox, or `None` if there is none after
    /// `time`, which is at most ten minutes.
    ///
    /// # Errors
    ///
    /// The kinds of every call: see [`Kind`].
    pub async fn exit_snapshot(&self, time: Duration) -> Result<Option<String>> {
        let (id, wait) = (self.id.to_string(), millis(time));
        ask!(self.inner(), self.route(), self.reading("find the exit snapshot of"), |guest, store| guest
            .call_exit_snapshot(store, &id, wait))
    }

    /// Mounts an image at a path, or an empty directory for `None`. Creates the path. The mount hides what was there.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) for an unknown image, and the kinds of every call: see [`Kind`].
    pub async fn mount(&self, path: &str, image: Option<&str>) -> Result<()> {
        let (at, image) = (self.location(path), image.map(str::to_owned));
        ask!(self.inner(), self.route(), self.acting("mount an image in"), |guest, store| guest.call_mount(
            store,
            &at,
            image.as_ref()
        ))
    }

    /// Removes a mount of [`mount`](Self::mount).
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) if no image is mounted at the path, and the kinds of every call: see
    /// [`Kind`].
    pub async fn unmount(&self, path: &str) -> Result<()> {
        let at = self.location(path);
        ask!(self.inner(), self.route(), self.acting("unmount an image in"), |guest, store| guest
            .call_unmount(store, &at))
    }

    /// Adds a sidecar, which is a further container, to the running sandbox.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`](crate::Kind::AlreadyExists) for a name that is in use, and the kinds of every call: see
    /// [`Kind`].
    pub async fn create_sidecar(&self, spec: types::SidecarSpec) -> Result<types::SidecarInfo> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("add a sidecar to"), |guest, store| guest
            .call_create_sidecar(store, &id, &spec))
    }

    /// Returns all containers except the main one, including ended ones.
    ///
    /// # Errors
    ///
    /// The kinds of every call about a sandbox: see [`Kind`].
    pub async fn sidecars(&self) -> Result<Vec<types::SidecarInfo>> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("list the sidecars of").prompt(), |guest, store| guest
            .call_list_sidecars(store, &id))
    }

    /// Waits for the end of a sidecar. Returns `None` if it is still running after `time`, which is at most ten
    /// minutes.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) if there is no sidecar of that name, and the kinds of every call: see
    /// [`Kind`].
    pub async fn wait_sidecar(&self, name: &str, time: Duration) -> Result<Option<types::EndReason>> {
        let (id, name, wait) = (self.id.to_string(), name.to_owned(), millis(time));
        ask!(self.inner(), self.route(), self.reading("wait for a sidecar of"), |guest, store| guest
            .call_wait_sidecar(store, &id, &name, wait))
    }

    /// Terminates a sidecar. Returns when the provider has accepted the request. Succeeds if the sidecar has ended.
    ///
    /// # Errors
    ///
    /// The kinds of every call about a sandbox: see [`Kind`].
    pub async fn terminate_sidecar(&self, name: &str) -> Result<()> {
        let (id, name) = (self.id.to_string(), name.to_owned());
        ask!(self.inner(), self.route(), self.acting("terminate a sidecar of"), |guest, store| guest
            .call_terminate_sidecar(store, &id, &name))
    }

    /// Runs a command, waits for its end and returns its output: at most the last 10 MiB of each stream, the default of
    /// [`OutputLimits`](types::OutputLimits), and how much there was. Dropping the future kills the command. Without a
    /// time limit in `command` there is none.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`] for an empty command, and the kinds of every call: see [`Kind`]. A command that fails
    /// is not an error: the result contains its verdict.
    pub async fn run(&self, command: types::ExecSpec) -> Result<types::RunResult> {
        self.run_with(command, Vec::new(), types::OutputLimits::default()).await
    }

    /// Runs a command like [`run`](Self::run), with standard input and output limits in bytes. Both may have any size;
    /// the output up to its limit is in memory.
    ///
    /// ```no_run
    /// use sandbox_host::types::{ExecSpec, Keep, OutputLimits};
    ///
    /// # async fn example(sandbox: &sandbox_host::Sandbox) -> sandbox_host::Result<()> {
    /// let limits = OutputLimits { stdout_max: 64 << 10, stderr_max: 4 << 10, keep: Keep::Head };
    /// let sorted = sandbox.run_with(ExecSpec::new(["sort"]), "b\na\n", limits).await?;
    /// assert_eq!(sorted.stdout.data, b"a\nb\n");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run).
    pub async fn run_with(
        &self,
        command: types::ExecSpec,
        stdin: impl Into<Vec<u8>>,
        limits: types::OutputLimits,
    ) -> Result<types::RunResult> {
        check_argv(&command)?;
        let stdin = stdin.into();
        if stdin.len() > STDIN || limits.stdout_max.max(limits.stderr_max) > COLLECTED {
            return self.run_in_pieces(command, &stdin, limits).await;
        }
        // One call would occupy the only instance until the command ends, and could not be interrupted.
        if self.inner().is_single() {
            match self.run_in_pieces(command.clone(), &stdin, limits).await {
                Err(error)
                    if *error.kind() == Kind::Unsupported && matches!(error.subject(), Some("exec" | "processes")) => {}
                result => return result,
            }
        }
        let command = self.here(command);
        let sandbox = Sandbox { container: command.container.as_deref().map(Arc::from), ..self.clone() };
        let mut kill = KillOnDrop::new(sandbox, command.id.clone());
        let id = self.id.to_string();
        // The provider ends the command at its time limit. A plugin that does not report the end has `call_time` in
        // addition.
        let longest =
            command.timeout.map(|time| Duration::from_millis(time).saturating_add(self.inner().limits.call_time));
        let argv0 = command.argv.first().map_or("", String::as_str);
        let call = self.acting(&format!("run {argv0:?} in")).about(&command.id).within(longest);
        let result =
            ask!(self.inner(), self.route(), call, |guest, store| guest.call_run(store, &id, &command, &stdin, limits));
        // After a failed call the command may be running, and this is the only place that kills it.
        if result.as_ref().map_or_else(|error| error.happened() == Happened::No, |_| true) {
            kill.needed = false;
        }
        result
    }

    async fn run_in_pieces(
        &self,
        command: types::ExecSpec,
        stdin: &[u8],
        limits: types::OutputLimits,
    ) -> Result<types::RunResult> {
        let begun = std::time::Instant::now();
        let mut process = self.spawn(command).await?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let feeding = async {
            let Some(mut input) = process.stdin.take() else { return Ok(()) };
            let written = async {
                input.write_all(stdin).await?;
                input.shutdown().await
            };
            match written.await {
                // The program closed its input early, which is not an error.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe && error.get_ref().is_none() => Ok(()),
                written => written,
            }
        };
        let what = || format!("run a command in {}", self.id);
        let (fed, stdout, stderr) = futures_util::future::join3(
            feeding,
            collect(stdout, limits.stdout_max, limits.keep),
            collect(stderr, limits.stderr_max, limits.keep),
        )
        .await;
        let ours = |error: std::io::Error| match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::io(what(), error),
        };
        let verdict = process.wait().await?;
        if !matches!(verdict, types::Verdict::SandboxEnded(_) | types::Verdict::Lost(_) | types::Verdict::Other(_)) {
            fed.map_err(ours)?;
        }
        let (stdout, stderr) = (stdout.map_err(ours)?, stderr.map_err(ours)?);
        Ok(types::RunResult { verdict, stdout, stderr, duration: millis(begun.elapsed()) })
    }

    /// Starts a command and returns a handle with its three streams. Dropping the handle kills the command, unless it
    /// is [detached](Process::detach).
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`] for an empty command, and the kinds of every call: see [`Kind`]. A missing program is
    /// not an error, but the verdict `exited(127)`.
    pub async fn spawn(&self, command: types::ExecSpec) -> Result<Process> {
        check_argv(&command)?;
        let command = self.here(command);
        let sandbox = Sandbox { container: command.container.as_deref().map(Arc::from), ..self.clone() };
        let mut kill = KillOnDrop::new(sandbox.clone(), command.id.clone());
        let deadline = command.timeout.map(|time| now_millis().saturating_add(time));
        let exec = types::ExecRef { deadline, ..sandbox.exec_ref(&command.id) };
        let pty = command.pty.is_some();
        let (id, argv0) = (self.id.to_string(), command.argv.first().cloned().unwrap_or_default());
        let call = self.acting(&format!("start {argv0:?} in")).about(&command.id);
        let started = ask!(self.inner(), self.route(), call, |guest, store| guest.call_start(store, &id, &command));
        // As in `run`: kills the command if it may have started, and not if it certainly has not.
        if started.as_ref().map_or_else(|error| error.happened() == Happened::No, |()| true) {
            kill.needed = false;
        }
        started?;
        Ok(Process::new(sandbox, exec, pty, true))
    }

    /// Returns a handle to a command that was started elsewhere, by its exec id. `main` is the entry-point command.
    /// Dropping the handle does not kill the command. Sends no request: the first call with the handle shows whether the
    /// command exists. The output can be read from its beginning, whatever others have read.
    pub fn attach(&self, exec: impl Into<String>) -> Process {
        let exec = self.exec_ref(&exec.into());
        Process::new(self.clone(), exec, false, false)
    }

    /// Sends a signal to the whole process tree of an exec. Succeeds if the exec has ended.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) for an unknown exec, [`Kind::Conflict`] if none of its processes can
    /// be found, and the kinds of every call: see [`Kind`].
    pub async fn signal(&self, exec: &str, signal: Signal) -> Result<()> {
        self.send_signal(exec, signal, self.acting("signal a command in")).await
    }

    /// Sends a signal like [`signal`](Sandbox::signal), but in the background, and during a
    /// [`shutdown`](crate::Provider::shutdown) too, which waits for it. For destructors, on any thread.
    /// [`Provider::signals_sent`](crate::Provider::signals_sent) reports a failure.
    pub fn signal_later(&self, exec: &str, signal: Signal) {
        signal_later(self.clone(), exec.to_owned(), signal);
    }

    async fn send_signal(&self, exec: &str, signal: Signal, call: Call) -> Result<()> {
        let exec = self.exec_ref(exec);
        let call = call.about(&exec.exec);
        ask!(self.inner(), self.route(), call, |guest, store| guest.call_signal(store, &exec, signal.number()))
    }
}

/// Reads a stream to its end and keeps the first or last `max` bytes of it.
async fn collect(stream: Option<OutputStream>, max: u64, keep: types::Keep) -> std::io::Result<types::Captured> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let mut kept = std::collections::VecDeque::new();
    let mut total = 0;
    let mut piece = vec![0; 64 << 10];
    if let Some(mut stream) = stream {
        loop {
            let size = stream.read(&mut piece).await?;
            if size == 0 {
                break;
            }
            total += size as u64;
            match keep {
                types::Keep::Head => kept.extend(&piece[..size.min(max - kept.len())]),
                types::Keep::Tail => {
                    kept.extend(&piece[..size]);
                    kept.drain(..kept.len().saturating_sub(max));
                }
            }
        }
    }
    Ok(types::Captured { data: kept.into(), total })
}

fn check_argv(command: &types::ExecSpec) -> Result<()> {
    if command.argv.first().is_none_or(String::is_empty) {
        return Err(
            Error::invalid("run a command", "the command is empty").with_hint("give a program and its arguments")
        );
    }
    Ok(())
}

pub(crate) fn now_millis() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, millis)
}

/// Kills a command if its caller dropped the future while the command was being started or waited for. A shutdown of
/// the provider waits until this value is dropped, so that the signal is sent before the provider refuses all calls.
struct KillOnDrop {
    sandbox: Sandbox,
    exec: String,
    needed: bool,
}

impl KillOnDrop {
    fn new(sandbox: Sandbox, exec: String) -> KillOnDrop {
        sandbox.inner().gate.stay();
        KillOnDrop { sandbox, exec, needed: true }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.needed {
            kill_later(self.sandbox.clone(), std::mem::take(&mut self.exec));
        }
        self.sandbox.inner().gate.leave();
    }
}

/// Kills a command in the background, after its handle was dropped on any thread.
pub(crate) fn kill_later(sandbox: Sandbox, exec: String) {
    signal_later(sandbox, exec, Signal::KILL);
}

/// Sends a signal in the background, after a handle was dropped on any thread.
pub(crate) fn signal_later(sandbox: Sandbox, exec: String, signal: Signal) {
    let tasks = sandbox.inner().tasks.clone();
    let waiting = sandbox.inner().signals.add(format!("{exec} in {}", sandbox.id()));
    tasks.spawn(async move {
        // Bounds the time, because a slow provider must not keep this task forever.
        let call = sandbox.acting("signal a command in").signalling();
        let sent = tokio::time::timeout(Duration::from_secs(30), sandbox.send_signal(&exec, signal, call)).await;
        let error = match sent {
            Ok(Ok(())) => return tracing::debug!(exec, signal = signal.number(), "signalled"),
            // The command or the sandbox does not exist any more.
            Ok(Err(error)) if error.is_not_found() || error.is_sandbox_ended() => {
                return tracing::debug!(exec, signal = signal.number(), %error, "no process to signal");
            }
            Ok(Err(error)) => error,
            Err(_) => {
                Error::new(Kind::TimedOut, format!("signal {}", waiting.target()), "the provider did not respond")
            }
        };
        tracing::debug!(exec, signal = signal.number(), %error, "not signalled");
        waiting.failed(error);
    });
}

//! A sandbox by its id.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{Error, Happened, Kind, Result};
use crate::instance::Call;
use crate::policy::Origin;
use crate::process::Process;
use crate::provider::{Provider, ProviderInner, ask};
use crate::spec::{fresh_id, millis};
use crate::types;
use crate::warm::Route;

/// The longest wait of one call; longer ones are made of several.
const WAIT: u64 = 60_000;

/// A handle to a sandbox: its id, and the provider to ask. Cheap to clone; dropping it does nothing to the sandbox.
#[derive(Clone)]
pub struct Sandbox {
    provider: Provider,
    id: Arc<str>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Sandbox").field(&self.id).finish()
    }
}

impl Sandbox {
    pub(crate) fn new(provider: Provider, id: String) -> Self {
        Sandbox { provider, id: id.into() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The provider it belongs to.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    pub(crate) fn inner(&self) -> &Arc<ProviderInner> {
        &self.provider.inner
    }

    pub(crate) fn route(&self) -> Route {
        Some(self.id.clone())
    }

    pub(crate) fn location(&self, path: &str) -> types::Location {
        types::Location { sandbox: self.id.to_string(), container: None, path: path.to_owned() }
    }

    fn reading(&self, verb: &str) -> Call {
        Call::reading(format!("{verb} {}", self.id))
    }

    fn acting(&self, verb: &str) -> Call {
        Call::acting(format!("{verb} {}", self.id))
    }

    /// Its state, also after its end.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) when the provider knows no such sandbox.
    pub async fn info(&self) -> Result<types::SandboxInfo> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("look at the sandbox"), |guest, store| guest.call_get(store, &id))
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn wait(&self) -> Result<types::EndReason> {
        loop {
            let (id, call) = (self.id.to_string(), self.reading("wait for the sandbox"));
            let ended = ask!(self.inner(), self.route(), call, |guest, store| guest.call_wait(store, &id, WAIT))?;
            if let Some(reason) = ended {
                self.inner().forget(&self.route());
                return Ok(reason);
            }
        }
    }

    /// Waits until its readiness probe has passed; false when `time` has passed first.
    ///
    /// # Errors
    ///
    /// [`Kind::Conflict`](crate::Kind::Conflict) for a sandbox without a probe.
    pub async fn wait_ready(&self, time: Duration) -> Result<bool> {
        let deadline = std::time::Instant::now() + time;
        loop {
            let left = millis(deadline.saturating_duration_since(std::time::Instant::now()));
            let (id, call, wait) = (self.id.to_string(), self.reading("wait for the sandbox"), left.min(WAIT));
            let ready = ask!(self.inner(), self.route(), call, |guest, store| guest.call_wait_ready(store, &id, wait))?;
            if ready || left == 0 {
                return Ok(ready);
            }
        }
    }

    /// Ends it; returns when the provider has accepted that. One that has ended is no error.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) when the provider knows no such sandbox.
    pub async fn terminate(&self) -> Result<()> {
        let id = self.id.to_string();
        let ended = ask!(self.inner(), self.route(), self.acting("terminate the sandbox"), |guest, store| guest
            .call_terminate(store, &id));
        self.inner().forget(&self.route());
        ended
    }

    /// Gives a name to a sandbox that has none.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`](crate::Kind::AlreadyExists) for a name that is taken.
    pub async fn set_name(&self, name: &str) -> Result<()> {
        let (id, name) = (self.id.to_string(), name.to_owned());
        ask!(self.inner(), self.route(), self.acting("name the sandbox"), |guest, store| guest
            .call_set_name(store, &id, &name))
    }

    /// Its tags.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn tags(&self) -> Result<Vec<(String, String)>> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("read the tags of"), |guest, store| guest
            .call_get_tags(store, &id))
    }

    /// Replaces its tags as a whole.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn set_tags(&self, tags: Vec<(String, String)>) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("set the tags of"), |guest, store| guest
            .call_set_tags(store, &id, &tags))
    }

    /// Where its ports are reached; waits up to `time` for them to be assigned.
    ///
    /// # Errors
    ///
    /// [`Kind::TimedOut`](crate::Kind::TimedOut) when they are not.
    pub async fn tunnels(&self, time: Duration) -> Result<Vec<types::Tunnel>> {
        let (id, wait) = (self.id.to_string(), millis(time));
        ask!(self.inner(), self.route(), self.reading("find the tunnels of"), |guest, store| guest
            .call_tunnels(store, &id, wait))
    }

    /// Connects to a tunnel, with TLS where it has it: bytes as the program behind the port speaks them. The
    /// connection is the caller's, not the plugin's, and is not subject to its policy.
    ///
    /// # Errors
    ///
    /// [`Kind::Unavailable`](crate::Kind::Unavailable) when there is nobody.
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

    /// A token for HTTP connections to a port.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) where the provider has none.
    pub async fn connect_token(&self, port: u16, metadata: &str) -> Result<types::ConnectToken> {
        let (id, metadata) = (self.id.to_string(), metadata.to_owned());
        ask!(self.inner(), self.route(), self.acting("make a token for"), |guest, store| guest
            .call_create_connect_token(store, &id, port, &metadata))
    }

    /// A part of its persisted log: at most `max_bytes` of text, going on at `cursor`.
    ///
    /// # Errors
    ///
    /// As any call.
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

    /// What it has used so far.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn stats(&self) -> Result<types::Usage> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("read the usage of"), |guest, store| guest.call_stats(store, &id))
    }

    /// Replaces its network policy.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) where it cannot be changed.
    pub async fn set_network(&self, policy: types::NetworkPolicy) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("change the network of"), |guest, store| guest
            .call_set_network(store, &id, &policy))
    }

    /// Makes writes of others to its volumes visible.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn reload_volumes(&self) -> Result<()> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("reload the volumes of"), |guest, store| guest
            .call_reload_volumes(store, &id))
    }

    /// Freezes its file system as an image, kept for `ttl` (none for ever).
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn snapshot_filesystem(&self, ttl: Option<Duration>) -> Result<String> {
        let (id, key, ttl) = (self.id.to_string(), fresh_id(), ttl.map(millis));
        ask!(self.inner(), self.route(), self.acting("take a snapshot of"), |guest, store| guest
            .call_snapshot_filesystem(store, &id, &key, ttl))
    }

    /// Freezes one directory as an image that can be mounted.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn snapshot_directory(&self, path: &str, ttl: Option<Duration>) -> Result<String> {
        let (at, key, ttl) = (self.location(path), fresh_id(), ttl.map(millis));
        ask!(self.inner(), self.route(), self.acting("take a snapshot of a directory of"), |guest, store| guest
            .call_snapshot_directory(store, &at, &key, ttl))
    }

    /// Freezes memory and processes too. Ends the sandbox where the provider works that way.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`](crate::Kind::Unsupported) where the provider cannot.
    pub async fn snapshot_memory(&self) -> Result<String> {
        let (id, key) = (self.id.to_string(), fresh_id());
        let call = self.acting("take a memory snapshot of").unbounded();
        ask!(self.inner(), self.route(), call, |guest, store| guest.call_snapshot_memory(store, &id, &key))
    }

    /// The file-system image taken when the sandbox ended; none if it is not there within `time`.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn exit_snapshot(&self, time: Duration) -> Result<Option<String>> {
        let (id, wait) = (self.id.to_string(), millis(time));
        ask!(self.inner(), self.route(), self.reading("find the exit snapshot of"), |guest, store| guest
            .call_exit_snapshot(store, &id, wait))
    }

    /// Mounts an image at a path (an empty directory for none).
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) for an unknown image.
    pub async fn mount(&self, path: &str, image: Option<&str>) -> Result<()> {
        let (at, image) = (self.location(path), image.map(str::to_owned));
        ask!(self.inner(), self.route(), self.acting("mount an image in"), |guest, store| guest.call_mount(
            store,
            &at,
            image.as_ref()
        ))
    }

    /// Undoes [`mount`](Self::mount).
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) where nothing is mounted.
    pub async fn unmount(&self, path: &str) -> Result<()> {
        let at = self.location(path);
        ask!(self.inner(), self.route(), self.acting("unmount an image in"), |guest, store| guest
            .call_unmount(store, &at))
    }

    /// Adds a container.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`](crate::Kind::AlreadyExists) for a name in use.
    pub async fn create_sidecar(&self, spec: types::SidecarSpec) -> Result<types::SidecarInfo> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.acting("add a sidecar to"), |guest, store| guest
            .call_create_sidecar(store, &id, &spec))
    }

    /// Its containers but the main one, ended ones included.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn sidecars(&self) -> Result<Vec<types::SidecarInfo>> {
        let id = self.id.to_string();
        ask!(self.inner(), self.route(), self.reading("list the sidecars of"), |guest, store| guest
            .call_list_sidecars(store, &id))
    }

    /// Waits up to `time` for the end of a sidecar.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) when there is none of that name.
    pub async fn wait_sidecar(&self, name: &str, time: Duration) -> Result<Option<types::EndReason>> {
        let (id, name, wait) = (self.id.to_string(), name.to_owned(), millis(time));
        ask!(self.inner(), self.route(), self.reading("wait for a sidecar of"), |guest, store| guest
            .call_wait_sidecar(store, &id, &name, wait))
    }

    /// Ends a sidecar.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn terminate_sidecar(&self, name: &str) -> Result<()> {
        let (id, name) = (self.id.to_string(), name.to_owned());
        ask!(self.inner(), self.route(), self.acting("end a sidecar of"), |guest, store| guest
            .call_terminate_sidecar(store, &id, &name))
    }

    /// Runs a command to its end and gives what it printed, up to the default limits of
    /// [`OutputLimits`](types::OutputLimits). Dropping the future kills the command.
    ///
    /// # Errors
    ///
    /// Only when it could not be run or followed: a command that fails is a result.
    pub async fn run(&self, command: types::ExecSpec) -> Result<types::RunResult> {
        self.run_with(command, Vec::new(), types::OutputLimits::default()).await
    }

    /// Like [`run`](Self::run), with standard input and limits.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_with(
        &self,
        command: types::ExecSpec,
        stdin: impl Into<Vec<u8>>,
        limits: types::OutputLimits,
    ) -> Result<types::RunResult> {
        check_argv(&command)?;
        let mut kill = KillOnDrop { sandbox: Some(self.clone()), exec: command.id.clone() };
        let (id, stdin) = (self.id.to_string(), stdin.into());
        let call = self.acting(&format!("run {:?} in", command.argv.first().map_or("", String::as_str))).unbounded();
        let result =
            ask!(self.inner(), self.route(), call, |guest, store| guest.call_run(store, &id, &command, &stdin, limits));
        // A failed call may have left it running: nobody is going to look after it.
        if result.as_ref().map_or_else(|error| error.happened() == Happened::No, |_| true) {
            kill.sandbox = None;
        }
        result
    }

    /// Starts a command and gives a handle with its three streams. Dropping the handle kills it, unless it is
    /// [detached](Process::detach).
    ///
    /// # Errors
    ///
    /// When it could not be started. A missing program is no error but the verdict `exited(127)`.
    pub async fn spawn(&self, command: types::ExecSpec) -> Result<Process> {
        check_argv(&command)?;
        let mut kill = KillOnDrop { sandbox: Some(self.clone()), exec: command.id.clone() };
        let deadline = command.timeout.map(|time| now_millis().saturating_add(time));
        let exec = types::ExecRef { sandbox: self.id.to_string(), exec: command.id.clone(), deadline };
        let pty = command.pty.is_some();
        let (id, argv0) = (self.id.to_string(), command.argv.first().cloned().unwrap_or_default());
        let call = self.acting(&format!("start {argv0:?} in"));
        ask!(self.inner(), self.route(), call, |guest, store| guest.call_start(store, &id, &command))?;
        kill.sandbox = None;
        Ok(Process::new(self.clone(), exec, pty, true))
    }

    /// A handle to a command that was started elsewhere, by its exec id; `main` is the entry-point command. Dropping
    /// the handle does not kill it. Sends nothing.
    pub fn attach(&self, exec: impl Into<String>) -> Process {
        let exec = types::ExecRef { sandbox: self.id.to_string(), exec: exec.into(), deadline: None };
        Process::new(self.clone(), exec, false, false)
    }

    /// Sends a signal to an exec's whole process tree.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) for an unknown exec; none if it has ended.
    pub async fn signal(&self, exec: &str, signal: u32) -> Result<()> {
        let exec = types::ExecRef { sandbox: self.id.to_string(), exec: exec.to_owned(), deadline: None };
        ask!(self.inner(), self.route(), self.acting("signal a command in"), |guest, store| guest
            .call_signal(store, &exec, signal))
    }
}

fn check_argv(command: &types::ExecSpec) -> Result<()> {
    if command.argv.first().is_none_or(String::is_empty) {
        return Err(
            Error::invalid("run a command", "the command is empty").with_hint("give a program and its arguments")
        );
    }
    Ok(())
}

fn now_millis() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, millis)
}

/// Kills a command whose caller has gone while it was being started or waited for.
struct KillOnDrop {
    sandbox: Option<Sandbox>,
    exec: String,
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            kill_later(sandbox, std::mem::take(&mut self.exec));
        }
    }
}

/// Kills a command from wherever a handle was dropped.
pub(crate) fn kill_later(sandbox: Sandbox, exec: String) {
    let tasks = sandbox.inner().tasks.clone();
    tasks.spawn(async move {
        // A dying runtime or a slow provider must not keep this for ever.
        let killed = tokio::time::timeout(Duration::from_secs(30), sandbox.signal(&exec, 9)).await;
        match killed {
            Ok(Ok(())) => tracing::debug!(exec, "killed"),
            Ok(Err(error)) => tracing::debug!(exec, %error, "not killed"),
            Err(_) => tracing::debug!(exec, "not killed in time"),
        }
    });
}

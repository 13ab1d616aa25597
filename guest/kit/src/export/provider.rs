//! The trait that a provider implements. The `component` module calls it from the exports of the component.

use super::by_parts;
use crate::api::{
    error::{Error, Result},
    wit::{
        BuildProgress, BuiltImage, ConnectToken, Content, Description, EndReason, ExecPage, ExecRef, ExecSpec,
        FileChunk, FileInfo, FilePage, ImagePage, ImageSpec, InputState, ListFilter, Location, LogPage, LogQuery,
        NetworkPolicy, Output, OutputLimits, Pair, Pty, ReadRequest, RunResult, SandboxInfo, SandboxPage, SandboxSpec,
        SidecarInfo, SidecarSpec, Tunnel, UsageReport, Verdict, WatchPage, WriteOptions,
    },
};

/// A provider of sandboxes, with the functions of all interfaces of `harness:sandbox`. The files in `wit/`
/// document them in full; the comments here are summaries. A function that a provider does not implement fails with
/// `unsupported`; the subject of the error is the missing capability.
///
/// In addition to the kinds that a function lists, every call to a service may fail with the kinds for a failed
/// request: `unavailable`, `timed-out`, `unauthenticated`, `permission-denied`, `resource-exhausted`, `forbidden` and
/// `internal`. Wrong arguments fail with `invalid-argument`, an unknown id with `not-found`.
///
/// All futures run on one thread, one call at a time. The state that a provider keeps between calls may be lost at any
/// time.
///
/// ```
/// use sandbox_provider_kit::{
///     api::wit::{Description, ErrorKind},
///     export::SandboxProvider,
/// };
///
/// struct Nothing;
///
/// impl SandboxProvider for Nothing {
///     fn describe(&self) -> Description {
///         Description {
///             name: "nothing".to_string(),
///             version: "0.1.0".to_string(),
///             capabilities: Vec::new(),
///             options_schema: "{}".to_string(),
///             environment: Vec::new(),
///             digests: Vec::new(),
///             extra: Vec::new(),
///         }
///     }
/// }
///
/// let error = futures_util::FutureExt::now_or_never(Nothing.report_usage("a")).unwrap().unwrap_err();
/// assert!(matches!(error.kind, ErrorKind::Unsupported));
/// assert_eq!(error.subject.as_deref(), Some("stats"));
/// ```
#[allow(async_fn_in_trait, unused_variables)]
pub trait SandboxProvider {
    /// Returns the name, the capabilities and the settings of the provider. Sends no request and returns the same
    /// answer each time.
    fn describe(&self) -> Description;

    /// Returns an opaque copy of the caches, such as short-lived tokens, which saves requests in other instances. At
    /// most 1 MiB. May be empty.
    fn export_cache(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Imports the result of [`SandboxProvider::export_cache`] of another instance. Ignores content that it cannot
    /// read.
    fn import_cache(&self, cache: &[u8]) {}

    /// Checks whether [`SandboxProvider::create`] would accept a specification. Sends no request.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `create` if the provider does not implement this function; otherwise the error
    /// that [`SandboxProvider::create`] would fail with.
    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        absent("create")
    }

    // ---- the provider ---------------------------------------------------------------------------------------------------

    /// Checks the address and the credentials with one cheap request. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `check` if the provider does not implement this function; `unavailable` if the
    /// service cannot be reached, `unauthenticated` if it refuses the credentials.
    async fn check(&self) -> Result<()> {
        absent("check")
    }

    // ---- images ---------------------------------------------------------------------------------------------------------

    /// Returns the SHA-256 digests of those `contents` that the provider does not have yet. At most 10000 contents.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image.context` if the provider does not implement this function.
    async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        absent("image.context")
    }

    /// Uploads one piece of a content, beginning at the byte `offset`. Returns the offset of the next piece, in bytes;
    /// the upload is complete when that equals the content's size.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image.context` if the provider does not implement this function;
    /// `invalid-argument` if the digest does not match.
    async fn upload_content(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        absent("image.context")
    }

    /// Starts a build, joins a running one or finds the finished image, and returns its progress at once. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image` if the provider does not implement this function.
    async fn start_build(&self, spec: &ImageSpec) -> Result<BuildProgress> {
        absent("image")
    }

    /// Returns the next piece of a build's log, at most `max_bytes` bytes. Waits up to `wait` milliseconds for it.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image` if the provider does not implement this function; `build-failed` once the
    /// log of a failed build has been read to its end.
    async fn read_build(&self, cursor: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        absent("image")
    }

    /// Looks up an image by its id.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image` if the provider does not implement this function; `not-found` if there is
    /// no such image.
    async fn get_image(&self, image: &str) -> Result<BuiltImage> {
        absent("image")
    }

    /// Lists the images of the account, newest first, at most `max` (1 to 1000).
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image.list` if the provider does not implement this function; `invalid-argument` for an unusable cursor.
    async fn list_images(&self, cursor: Option<String>, max: u32) -> Result<ImagePage> {
        absent("image.list")
    }

    /// Deletes an image. Succeeds if the image does not exist. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `image.delete` if the provider does not implement this function.
    async fn delete_image(&self, image: &str) -> Result<()> {
        absent("image.delete")
    }

    // ---- sandboxes ------------------------------------------------------------------------------------------------------

    /// Creates a sandbox and returns when the service has accepted it. Idempotent if the specification has a `key`.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `create` if the provider does not implement this function; `already-exists` if
    /// the name is taken, `resource-exhausted` if there is no capacity.
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        absent("create")
    }

    /// Returns the state of a sandbox, also after its end.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `get` if the provider does not implement this function; `not-found` if there is
    /// no such sandbox.
    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        absent("get")
    }

    /// Returns the running sandbox with this name.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `find` if the provider does not implement this function; `not-found` if there is
    /// no such sandbox.
    async fn find(&self, name: &str) -> Result<SandboxInfo> {
        absent("find")
    }

    /// Lists sandboxes with their tags, newest first: one page of at most `max` (1 to 1000) sandboxes, beginning at
    /// `cursor`.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `list` if the provider does not implement this function.
    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        absent("list")
    }

    /// Waits up to `wait` milliseconds for the end of a sandbox. Returns `None` if it is still running then.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `wait` if the provider does not implement this function.
    async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        absent("wait")
    }

    /// Waits up to `wait` milliseconds until the readiness probe succeeds. Returns `false` if it has not succeeded by
    /// then.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `create.readiness` if the provider does not implement this function; `conflict`
    /// if the sandbox has no probe.
    async fn wait_ready(&self, sandbox: &str, wait: u64) -> Result<bool> {
        absent("create.readiness")
    }

    /// Waits up to `wait` milliseconds until the sandbox runs commands. Returns whether it does.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `wait-running` if the provider does not implement this function; `sandbox-ended` if it has ended.
    async fn wait_running(&self, sandbox: &str, wait: u64) -> Result<bool> {
        absent("wait-running")
    }

    /// Freezes all processes of a sandbox. Succeeds if it is paused already. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `pause` if the provider does not implement this function; `sandbox-ended` if it has ended.
    async fn pause(&self, sandbox: &str) -> Result<()> {
        absent("pause")
    }

    /// Ends all processes of a sandbox and keeps its files. Succeeds if it is stopped already. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `stop` if the provider does not implement this function; `sandbox-ended` if it has ended.
    async fn stop(&self, sandbox: &str) -> Result<()> {
        absent("stop")
    }

    /// Continues a paused sandbox, or starts a stopped one again. Succeeds if it runs. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `pause` if the provider does not implement this function; `sandbox-ended` if it has ended.
    async fn resume(&self, sandbox: &str) -> Result<()> {
        absent("pause")
    }

    /// Sets how long, in milliseconds, a sandbox may live from now on. Returns the time of its end, in milliseconds since
    /// the Unix epoch.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `lifetime.extend` if the provider does not implement this function; `sandbox-ended` if it has ended.
    async fn extend(&self, sandbox: &str, lifetime: u64) -> Result<u64> {
        absent("lifetime.extend")
    }

    /// Terminates a sandbox and returns when the service has accepted that. Succeeds if the sandbox has ended.
    /// Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `terminate` if the provider does not implement this function.
    async fn terminate(&self, sandbox: &str) -> Result<()> {
        absent("terminate")
    }

    /// Sets the name of a sandbox that has none. Succeeds if the sandbox has this name already. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `create.names` if the provider does not implement this function.
    async fn set_name(&self, sandbox: &str, name: &str) -> Result<()> {
        absent("create.names")
    }

    /// Returns the tags of a sandbox.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `create.tags` if the provider does not implement this function.
    async fn get_tags(&self, sandbox: &str) -> Result<Vec<Pair>> {
        absent("create.tags")
    }

    /// Replaces all tags of a sandbox. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `tags.update` if the provider does not implement this function.
    async fn set_tags(&self, sandbox: &str, tags: &[Pair]) -> Result<()> {
        absent("tags.update")
    }

    /// Returns the public addresses of the ports. Waits up to `wait` milliseconds until they are assigned.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `ports` if the provider does not implement this function; `timed-out` if they are
    /// not assigned by then.
    async fn tunnels(&self, sandbox: &str, wait: u64) -> Result<Vec<Tunnel>> {
        absent("ports")
    }

    /// Creates a token for HTTP connections to `port`. `metadata` is passed on to the program that serves the port.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `connect-token` if the provider does not implement this function.
    async fn create_connect_token(&self, sandbox: &str, port: u16, metadata: String) -> Result<ConnectToken> {
        absent("connect-token")
    }

    /// Reads one page of the persisted log of a sandbox, at most `max_bytes` bytes, also after the sandbox has ended.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `logs` if the provider does not implement this function.
    async fn read_logs(
        &self,
        sandbox: &str,
        query: &LogQuery,
        cursor: Option<String>,
        max_bytes: u32,
    ) -> Result<LogPage> {
        absent("logs")
    }
    /// Returns the resources that a sandbox has used so far and their cost, also after its end.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `stats` if the provider does not implement this function.
    async fn report_usage(&self, sandbox: &str) -> Result<UsageReport> {
        absent("stats")
    }

    /// Replaces the network policy of a running sandbox. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `network.update` if the provider does not implement this function.
    async fn set_network(&self, sandbox: &str, policy: &NetworkPolicy) -> Result<()> {
        absent("network.update")
    }

    /// Makes the changes of other sandboxes to the mounted volumes visible. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `volumes.reload` if the provider does not implement this function.
    async fn reload_volumes(&self, sandbox: &str) -> Result<()> {
        absent("volumes.reload")
    }

    /// Deletes a named volume and its files. Succeeds if the volume does not exist. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `volumes.delete` if the provider does not implement this function.
    async fn delete_volume(&self, volume: &str) -> Result<()> {
        absent("volumes.delete")
    }

    // ---- snapshots ------------------------------------------------------------------------------------------------------

    /// Saves the file system as an image and returns the image's id. `key` makes the call idempotent. The image is
    /// deleted after `ttl` milliseconds, or kept if `ttl` is `None`.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `snapshot.filesystem` if the provider does not implement this function.
    async fn snapshot_filesystem(&self, sandbox: &str, key: &str, ttl: Option<u64>) -> Result<String> {
        absent("snapshot.filesystem")
    }

    /// Saves one directory as an image that can be mounted. `key` and `ttl` have the same meaning as in
    /// [`SandboxProvider::snapshot_filesystem`].
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `snapshot.directory` if the provider does not implement this function.
    async fn snapshot_directory(&self, at: &Location, key: &str, ttl: Option<u64>) -> Result<String> {
        absent("snapshot.directory")
    }

    /// Mounts `image` at a path, or an empty directory if `image` is `None`. Creates the path.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `mount` if the provider does not implement this function.
    async fn mount(&self, at: &Location, image: Option<&str>) -> Result<()> {
        absent("mount")
    }

    /// Removes a mount.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `mount` if the provider does not implement this function; `not-found` if nothing
    /// is mounted at the path.
    async fn unmount(&self, at: &Location) -> Result<()> {
        absent("mount")
    }

    /// Saves memory, processes and files, and returns the snapshot's id. `key` makes the call idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `snapshot.memory` if the provider does not implement this function.
    async fn snapshot_memory(&self, sandbox: &str, key: &str) -> Result<String> {
        absent("snapshot.memory")
    }

    /// Creates a sandbox from a memory snapshot. `key` makes the call idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `snapshot.memory` if the provider does not implement this function.
    async fn restore(&self, snapshot: &str, key: &str, name: Option<String>) -> Result<SandboxInfo> {
        absent("snapshot.memory")
    }

    /// Deletes a memory snapshot. Succeeds if it does not exist. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `snapshot.memory.delete` if the provider does not implement this function; `invalid-argument` for an id that the provider never assigns.
    async fn delete_memory_snapshot(&self, snapshot: &str) -> Result<()> {
        absent("snapshot.memory.delete")
    }

    /// Returns the id of the image that was saved at the end of the sandbox, or `None` if there is none after `wait`
    /// milliseconds.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `snapshot.exit` if the provider does not implement this function.
    async fn exit_snapshot(&self, sandbox: &str, wait: u64) -> Result<Option<String>> {
        absent("snapshot.exit")
    }

    // ---- sidecars -------------------------------------------------------------------------------------------------------

    /// Adds a container to a running sandbox.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `sidecars` if the provider does not implement this function; `already-exists` if
    /// the name is in use.
    async fn create_sidecar(&self, sandbox: &str, spec: &SidecarSpec) -> Result<SidecarInfo> {
        absent("sidecars")
    }

    /// Lists all containers of a sandbox except the main one, also ended containers.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `sidecars` if the provider does not implement this function.
    async fn list_sidecars(&self, sandbox: &str) -> Result<Vec<SidecarInfo>> {
        absent("sidecars")
    }

    /// Waits up to `wait` milliseconds for the end of a sidecar. Returns `None` if it is still running then.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `sidecars` if the provider does not implement this function.
    async fn wait_sidecar(&self, sandbox: &str, name: &str, wait: u64) -> Result<Option<EndReason>> {
        absent("sidecars")
    }

    /// Terminates a sidecar. Idempotent.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `sidecars` if the provider does not implement this function.
    async fn terminate_sidecar(&self, sandbox: &str, name: &str) -> Result<()> {
        absent("sidecars")
    }

    // ---- commands -------------------------------------------------------------------------------------------------------

    /// Starts a command and returns when it has started. Idempotent by `spec.id`: a repeated call never runs the
    /// command again. A missing program is not an error but the verdict `exited(127)`.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec` if the provider does not implement this function.
    async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        absent("exec")
    }

    /// Returns output of both streams from the offsets of `request`, and the verdict. Returns when either is available.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec` if the provider does not implement this function.
    async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        absent("exec")
    }

    /// Writes `data` to standard input at the byte `offset`, and closes the input after it if `eof` is set. Skips bytes
    /// that have been accepted before. Idempotent. At most 16 MiB.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec` if the provider does not implement this function; `invalid-argument` if
    /// `offset` leaves a gap.
    async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        absent("exec")
    }

    /// Waits up to `wait` milliseconds for the end of a command. Returns `None` if it is still running then.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec` if the provider does not implement this function.
    async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        absent("exec")
    }

    /// Sends a signal (its Linux number, 1 to 64) to all processes of a command. Succeeds if the command has ended.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec.signal` if the provider does not implement this function; `conflict` if
    /// none of its processes can be found.
    async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        absent("exec.signal")
    }

    /// Changes the size of the terminal of a command.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec.resize` if the provider does not implement this function.
    async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        absent("exec.resize")
    }

    /// Lists the execs of a sandbox that the provider still knows, newest first, at most `max` (1 to 1000).
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec.list` if the provider does not implement this function; `not-found` for an unknown id.
    async fn list_execs(&self, sandbox: &str, cursor: Option<String>, max: u32) -> Result<ExecPage> {
        absent("exec.list")
    }

    /// Starts a command, writes `stdin` to it, collects its output and waits for its end. Idempotent by `spec.id`.
    ///
    /// A provider that does not implement this function gets it from [`start`](SandboxProvider::start),
    /// [`write_input`](SandboxProvider::write_input) and [`read_output`](SandboxProvider::read_output). The whole input
    /// is written before any output is read.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `exec` if the provider implements neither.
    async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        by_parts::run(self, sandbox, spec, stdin, limits).await
    }

    // ---- files ----------------------------------------------------------------------------------------------------------

    /// Reads at most `max_bytes` bytes of a file, beginning at the byte `offset`. The calls with one `transfer` id read
    /// the same opened file. Follows symbolic links.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files` if the provider does not implement this function.
    async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        absent("files")
    }

    /// Writes one piece of a file at the byte `offset` and returns the offset of the next piece. The call with `eof`
    /// creates or replaces the file. Idempotent. At most 16 MiB.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files` if the provider does not implement this function.
    async fn write_file(
        &self,
        at: &Location,
        transfer: &str,
        options: &WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        absent("files")
    }

    /// Describes a path. With `follow`, describes the target of a symbolic link; without, the link itself.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files` if the provider does not implement this function; `file(not-found)` if
    /// the path does not exist.
    async fn stat(&self, at: &Location, follow: bool) -> Result<FileInfo> {
        absent("files")
    }

    /// Lists the entries of a directory: one page of at most `max` (1 to 10000) entries, beginning at `cursor`.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files` if the provider does not implement this function.
    async fn list_directory(&self, at: &Location, cursor: Option<String>, max: u32) -> Result<FilePage> {
        absent("files")
    }

    /// Creates a directory. With `parents`, creates missing parents too and succeeds if the directory exists.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files` if the provider does not implement this function.
    async fn make_directory(&self, at: &Location, parents: bool) -> Result<()> {
        absent("files")
    }

    /// Removes a file, a symbolic link or an empty directory. With `recursive`, also removes a directory's contents.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files` if the provider does not implement this function.
    async fn remove(&self, at: &Location, recursive: bool) -> Result<()> {
        absent("files")
    }

    /// Moves a file or a directory within the sandbox. Replaces an existing `to` only if `replace` is set.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files.rename` if the provider does not implement this function.
    async fn rename(&self, at: &Location, to: &str, replace: bool) -> Result<()> {
        absent("files.rename")
    }

    /// Creates a symbolic link at `at` that points to `target`.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files.symlinks` if the provider does not implement this function.
    async fn make_symlink(&self, at: &Location, target: &str) -> Result<()> {
        absent("files.symlinks")
    }

    /// Sets the low twelve mode bits of a path. Follows symbolic links.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files.mode` if the provider does not implement this function.
    async fn set_permissions(&self, at: &Location, permissions: u32) -> Result<()> {
        absent("files.mode")
    }

    /// Reads a directory tree as a tar stream, in pieces like [`SandboxProvider::read_file`].
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files.trees` if the provider does not implement this function.
    async fn read_tree(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        absent("files.trees")
    }

    /// Unpacks a tar stream into a directory, in pieces like [`SandboxProvider::write_file`]. Creates the directory.
    /// Refuses entries outside it.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files.trees` if the provider does not implement this function.
    async fn write_tree(&self, at: &Location, transfer: &str, offset: u64, data: Vec<u8>, eof: bool) -> Result<u64> {
        absent("files.trees")
    }

    /// Returns at most `max_events` events below a path since `position`, which is 0 in the first call. Waits up to
    /// `wait` milliseconds for an event.
    ///
    /// # Errors
    ///
    /// `unsupported` with the subject `files.watch` if the provider does not implement this function.
    async fn watch(
        &self,
        at: &Location,
        watch: &str,
        recursive: bool,
        position: u64,
        max_events: u32,
        wait: u64,
    ) -> Result<WatchPage> {
        absent("files.watch")
    }
}

/// Returns the error of a function that a provider does not implement.
fn absent<T>(capability: &str) -> Result<T> {
    Err(Error::unsupported(
        capability,
        format!("This provider does not support this: it does not have the capability `{capability}`."),
    ))
}

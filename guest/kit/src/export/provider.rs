//! What a provider is to the code that exports it.

use crate::api::{
    error::{Error, Result},
    wit::{
        BuildProgress, BuiltImage, ConnectToken, Content, Description, EndReason, ExecRef, ExecSpec, FileChunk,
        FileInfo, FilePage, ImageSpec, InputState, ListFilter, Location, LogPage, LogQuery, NetworkPolicy, Output,
        OutputLimits, Pair, Pty, ReadRequest, RunResult, SandboxInfo, SandboxPage, SandboxSpec, SidecarInfo,
        SidecarSpec, Tunnel, Usage, UsageReport, Verdict, WatchPage, WriteOptions,
    },
};

/// A provider of sandboxes: the functions of the interface `harness:sandbox/sandbox-provider`, whose text documents each of
/// them. A function that is not written answers `unsupported` and names the capability that is missing.
///
/// The futures run on one thread, one call at a time; what a provider remembers between calls may be lost at any time.
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
/// let error = futures_util::FutureExt::now_or_never(Nothing.stats("a")).unwrap().unwrap_err();
/// assert!(matches!(error.kind, ErrorKind::Unsupported));
/// assert_eq!(error.subject.as_deref(), Some("stats"));
/// ```
#[allow(async_fn_in_trait, unused_variables)]
pub trait SandboxProvider {
    /// What this provider is and can do. Sends nothing, and gives the same answer each time.
    fn describe(&self) -> Description;

    /// What another instance need not ask for any more, such as short-lived tokens. Empty for nothing.
    fn export_cache(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what another instance exported. What cannot be read is ignored.
    fn import_cache(&self, cache: &[u8]) {}

    /// Refuses a specification that [`SandboxProvider::create`] would refuse, without sending anything.
    ///
    /// # Errors
    ///
    /// As documented in the interface.
    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        absent("create")
    }

    // ---- the provider ---------------------------------------------------------------------------------------------------

    /// See `check` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn check(&self) -> Result<()> {
        absent("check")
    }

    // ---- images ---------------------------------------------------------------------------------------------------------

    /// See `missing-content` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        absent("image.context")
    }

    /// See `upload-content` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn upload_content(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        absent("image.context")
    }

    /// See `start-build` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn start_build(&self, spec: &ImageSpec) -> Result<BuildProgress> {
        absent("image")
    }

    /// See `read-build` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn read_build(&self, cursor: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        absent("image")
    }

    /// See `get-image` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn get_image(&self, image: &str) -> Result<BuiltImage> {
        absent("image")
    }

    /// See `delete-image` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn delete_image(&self, image: &str) -> Result<()> {
        absent("image.delete")
    }

    // ---- sandboxes ------------------------------------------------------------------------------------------------------

    /// See `create` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        absent("create")
    }

    /// See `get` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        absent("get")
    }

    /// See `find` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn find(&self, name: &str) -> Result<SandboxInfo> {
        absent("find")
    }

    /// See `list` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        absent("list")
    }

    /// See `wait` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        absent("wait")
    }

    /// See `wait-ready` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn wait_ready(&self, sandbox: &str, wait: u64) -> Result<bool> {
        absent("create.readiness")
    }

    /// See `terminate` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn terminate(&self, sandbox: &str) -> Result<()> {
        absent("terminate")
    }

    /// See `set-name` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn set_name(&self, sandbox: &str, name: &str) -> Result<()> {
        absent("create.names")
    }

    /// See `get-tags` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn get_tags(&self, sandbox: &str) -> Result<Vec<Pair>> {
        absent("create.tags")
    }

    /// See `set-tags` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn set_tags(&self, sandbox: &str, tags: &[Pair]) -> Result<()> {
        absent("tags.update")
    }

    /// See `tunnels` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn tunnels(&self, sandbox: &str, wait: u64) -> Result<Vec<Tunnel>> {
        absent("ports")
    }

    /// See `create-connect-token` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn create_connect_token(&self, sandbox: &str, port: u16, metadata: String) -> Result<ConnectToken> {
        absent("connect-token")
    }

    /// See `read-logs` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn read_logs(
        &self,
        sandbox: &str,
        query: &LogQuery,
        cursor: Option<String>,
        max_bytes: u32,
    ) -> Result<LogPage> {
        absent("logs")
    }

    /// See `stats` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn stats(&self, sandbox: &str) -> Result<Usage> {
        absent("stats")
    }

    /// See `report-usage` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn report_usage(&self, sandbox: &str) -> Result<UsageReport> {
        absent("stats.cost")
    }

    /// See `set-network` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn set_network(&self, sandbox: &str, policy: &NetworkPolicy) -> Result<()> {
        absent("network.update")
    }

    /// See `reload-volumes` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn reload_volumes(&self, sandbox: &str) -> Result<()> {
        absent("volumes.reload")
    }

    /// See `delete-volume` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn delete_volume(&self, volume: &str) -> Result<()> {
        absent("create.volumes")
    }

    // ---- snapshots ------------------------------------------------------------------------------------------------------

    /// See `snapshot-filesystem` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn snapshot_filesystem(&self, sandbox: &str, key: &str, ttl: Option<u64>) -> Result<String> {
        absent("snapshot.filesystem")
    }

    /// See `snapshot-directory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn snapshot_directory(&self, at: &Location, key: &str, ttl: Option<u64>) -> Result<String> {
        absent("snapshot.directory")
    }

    /// See `mount` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn mount(&self, at: &Location, image: Option<&str>) -> Result<()> {
        absent("mount")
    }

    /// See `unmount` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn unmount(&self, at: &Location) -> Result<()> {
        absent("mount")
    }

    /// See `snapshot-memory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn snapshot_memory(&self, sandbox: &str, key: &str) -> Result<String> {
        absent("snapshot.memory")
    }

    /// See `restore` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn restore(&self, snapshot: &str, key: &str, name: Option<String>) -> Result<SandboxInfo> {
        absent("snapshot.memory")
    }

    /// See `exit-snapshot` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn exit_snapshot(&self, sandbox: &str, wait: u64) -> Result<Option<String>> {
        absent("snapshot.exit")
    }

    // ---- sidecars -------------------------------------------------------------------------------------------------------

    /// See `create-sidecar` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn create_sidecar(&self, sandbox: &str, spec: &SidecarSpec) -> Result<SidecarInfo> {
        absent("sidecars")
    }

    /// See `list-sidecars` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn list_sidecars(&self, sandbox: &str) -> Result<Vec<SidecarInfo>> {
        absent("sidecars")
    }

    /// See `wait-sidecar` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn wait_sidecar(&self, sandbox: &str, name: &str, wait: u64) -> Result<Option<EndReason>> {
        absent("sidecars")
    }

    /// See `terminate-sidecar` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn terminate_sidecar(&self, sandbox: &str, name: &str) -> Result<()> {
        absent("sidecars")
    }

    // ---- commands -------------------------------------------------------------------------------------------------------

    /// See `start` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        absent("exec")
    }

    /// See `read-output` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        absent("exec")
    }

    /// See `write-input` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        absent("exec")
    }

    /// See `wait-exec` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        absent("exec")
    }

    /// See `signal` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        absent("exec.signal")
    }

    /// See `resize` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        absent("exec.resize")
    }

    /// See `run` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        absent("exec")
    }

    // ---- files ----------------------------------------------------------------------------------------------------------

    /// See `read-file` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        absent("files")
    }

    /// See `write-file` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
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

    /// See `stat` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn stat(&self, at: &Location, follow: bool) -> Result<FileInfo> {
        absent("files")
    }

    /// See `list-directory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn list_directory(&self, at: &Location, cursor: Option<String>, max: u32) -> Result<FilePage> {
        absent("files")
    }

    /// See `make-directory` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn make_directory(&self, at: &Location, parents: bool) -> Result<()> {
        absent("files")
    }

    /// See `remove` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn remove(&self, at: &Location, recursive: bool) -> Result<()> {
        absent("files")
    }

    /// See `rename` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn rename(&self, at: &Location, to: &str, replace: bool) -> Result<()> {
        absent("files.rename")
    }

    /// See `make-symlink` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn make_symlink(&self, at: &Location, target: &str) -> Result<()> {
        absent("files.symlinks")
    }

    /// See `set-permissions` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn set_permissions(&self, at: &Location, permissions: u32) -> Result<()> {
        absent("files.mode")
    }

    /// See `read-tree` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn read_tree(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        absent("files.trees")
    }

    /// See `write-tree` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    async fn write_tree(&self, at: &Location, transfer: &str, offset: u64, data: Vec<u8>, eof: bool) -> Result<u64> {
        absent("files.trees")
    }

    /// See `watch` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
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

/// The answer of a function that a provider does not have.
fn absent<T>(capability: &str) -> Result<T> {
    Err(Error::unsupported(capability, format!("This provider cannot do this: it does not have `{capability}`.")))
}

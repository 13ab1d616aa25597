//! Modal as a sandbox provider: a component for `wasm32-wasip2` that exports `harness:sandbox/sandbox-provider` and
//! imports nothing but `wasi:io`, `wasi:clocks`, `wasi:random`, `wasi:cli` and `wasi:http`.
//!
//! From the outside in:
//!
//! | module | what it is for |
//! |---|---|
//! | [`describe`] | what this provider is |
//! | [`files`] | files: through Modal's helper, through the image's own programs, changes |
//! | [`exec`] | commands: step by step, in one call, their process tree |
//! | [`sandbox`] | sandboxes, their sidecars, snapshots and logs |
//! | [`image`] | images, their builds, the files that go in |
//! | [`service`] | the two endpoints, the worker's command router and the control plane; names, configuration |
//! | [`provider`] | the state that all of them share |

pub mod describe;
pub mod exec;
pub mod files;
pub mod image;
pub mod provider;
pub mod sandbox;
pub mod service;

use sandbox_provider_kit::{
    api::wit::{
        BuildProgress, BuiltImage, ConnectToken, Content, Description, EndReason, ExecRef, ExecSpec, FileChunk,
        FileInfo, FilePage, ImageSpec, InputState, ListFilter, Location, LogPage, LogQuery, NetworkPolicy, Output,
        OutputLimits, Pair, Pty, ReadRequest, RunResult, SandboxInfo, SandboxPage, SandboxSpec, SidecarInfo,
        SidecarSpec, Tunnel, Usage, Verdict, WatchPage, WriteOptions,
    },
    export::SandboxProvider,
};

pub use provider::Provider;
pub use sandbox_provider_kit::api::{Error, Result};

sandbox_provider_kit::export!(Provider, Provider::new, "../manifest.toml");

impl SandboxProvider for Provider {
    fn describe(&self) -> Description {
        describe::describe()
    }

    fn export_cache(&self) -> Vec<u8> {
        Provider::export_cache(self)
    }

    fn import_cache(&self, cache: &[u8]) {
        Provider::import_cache(self, cache);
    }

    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        Provider::check_spec(self, spec)
    }

    async fn check(&self) -> Result<()> {
        Provider::check(self).await
    }

    async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        Provider::missing_content(self, contents).await
    }

    async fn upload_content(&self, content: &Content, offset: u64, data: Vec<u8>) -> Result<u64> {
        Provider::upload_content(self, content, offset, data).await
    }

    async fn start_build(&self, spec: &ImageSpec) -> Result<BuildProgress> {
        Provider::start_build(self, spec).await
    }

    async fn read_build(&self, cursor: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        Provider::read_build(self, cursor, max_bytes, wait).await
    }

    async fn get_image(&self, image: &str) -> Result<BuiltImage> {
        Provider::get_image(self, image).await
    }

    async fn delete_image(&self, image: &str) -> Result<()> {
        Provider::delete_image(self, image).await
    }

    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        Provider::create(self, spec).await
    }

    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        Provider::get(self, sandbox).await
    }

    async fn find(&self, name: &str) -> Result<SandboxInfo> {
        Provider::find(self, name).await
    }

    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        Provider::list(self, filter, cursor, max).await
    }

    async fn wait(&self, sandbox: &str, wait: u64) -> Result<Option<EndReason>> {
        Provider::wait(self, sandbox, wait).await
    }

    async fn wait_ready(&self, sandbox: &str, wait: u64) -> Result<bool> {
        Provider::wait_ready(self, sandbox, wait).await
    }

    async fn terminate(&self, sandbox: &str) -> Result<()> {
        Provider::terminate(self, sandbox).await
    }

    async fn set_name(&self, sandbox: &str, name: &str) -> Result<()> {
        Provider::set_name(self, sandbox, name).await
    }

    async fn get_tags(&self, sandbox: &str) -> Result<Vec<Pair>> {
        Provider::get_tags(self, sandbox).await
    }

    async fn set_tags(&self, sandbox: &str, tags: &[Pair]) -> Result<()> {
        Provider::set_tags(self, sandbox, tags).await
    }

    async fn tunnels(&self, sandbox: &str, wait: u64) -> Result<Vec<Tunnel>> {
        Provider::tunnels(self, sandbox, wait).await
    }

    async fn create_connect_token(&self, sandbox: &str, port: u16, metadata: String) -> Result<ConnectToken> {
        Provider::create_connect_token(self, sandbox, port, metadata).await
    }

    async fn read_logs(
        &self,
        sandbox: &str,
        query: &LogQuery,
        cursor: Option<String>,
        max_bytes: u32,
    ) -> Result<LogPage> {
        Provider::read_logs(self, sandbox, query, cursor, max_bytes).await
    }

    async fn stats(&self, sandbox: &str) -> Result<Usage> {
        Provider::stats(self, sandbox).await
    }

    async fn set_network(&self, sandbox: &str, policy: &NetworkPolicy) -> Result<()> {
        Provider::set_network(self, sandbox, policy).await
    }

    async fn reload_volumes(&self, sandbox: &str) -> Result<()> {
        Provider::reload_volumes(self, sandbox).await
    }

    async fn delete_volume(&self, volume: &str) -> Result<()> {
        Provider::delete_volume(self, volume).await
    }

    async fn snapshot_filesystem(&self, sandbox: &str, key: &str, ttl: Option<u64>) -> Result<String> {
        Provider::snapshot_filesystem(self, sandbox, key, ttl).await
    }

    async fn snapshot_directory(&self, at: &Location, key: &str, ttl: Option<u64>) -> Result<String> {
        Provider::snapshot_directory(self, at, key, ttl).await
    }

    async fn mount(&self, at: &Location, image: Option<&str>) -> Result<()> {
        Provider::mount(self, at, image).await
    }

    async fn unmount(&self, at: &Location) -> Result<()> {
        Provider::unmount(self, at).await
    }

    async fn snapshot_memory(&self, sandbox: &str, key: &str) -> Result<String> {
        Provider::snapshot_memory(self, sandbox, key).await
    }

    async fn restore(&self, snapshot: &str, key: &str, name: Option<String>) -> Result<SandboxInfo> {
        Provider::restore(self, snapshot, key, name).await
    }

    async fn exit_snapshot(&self, sandbox: &str, wait: u64) -> Result<Option<String>> {
        Provider::exit_snapshot(self, sandbox, wait).await
    }

    async fn create_sidecar(&self, sandbox: &str, spec: &SidecarSpec) -> Result<SidecarInfo> {
        Provider::create_sidecar(self, sandbox, spec).await
    }

    async fn list_sidecars(&self, sandbox: &str) -> Result<Vec<SidecarInfo>> {
        Provider::list_sidecars(self, sandbox).await
    }

    async fn wait_sidecar(&self, sandbox: &str, name: &str, wait: u64) -> Result<Option<EndReason>> {
        Provider::wait_sidecar(self, sandbox, name, wait).await
    }

    async fn terminate_sidecar(&self, sandbox: &str, name: &str) -> Result<()> {
        Provider::terminate_sidecar(self, sandbox, name).await
    }

    async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        Provider::start(self, sandbox, spec).await
    }

    async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        Provider::read_output(self, exec, request).await
    }

    async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        Provider::write_input(self, exec, offset, data, eof).await
    }

    async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        Provider::wait_exec(self, exec, wait).await
    }

    async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        Provider::signal(self, exec, signal).await
    }

    async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        Provider::resize(self, exec, size).await
    }

    async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        Provider::run(self, sandbox, spec, stdin, limits).await
    }

    async fn read_file(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        Provider::read_file(self, at, transfer, offset, max_bytes).await
    }

    async fn write_file(
        &self,
        at: &Location,
        transfer: &str,
        options: &WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        Provider::write_file(self, at, transfer, options, offset, data, eof).await
    }

    async fn stat(&self, at: &Location, follow: bool) -> Result<FileInfo> {
        Provider::stat(self, at, follow).await
    }

    async fn list_directory(&self, at: &Location, cursor: Option<String>, max: u32) -> Result<FilePage> {
        Provider::list_directory(self, at, cursor, max).await
    }

    async fn make_directory(&self, at: &Location, parents: bool) -> Result<()> {
        Provider::make_directory(self, at, parents).await
    }

    async fn remove(&self, at: &Location, recursive: bool) -> Result<()> {
        Provider::remove(self, at, recursive).await
    }

    async fn rename(&self, at: &Location, to: &str, replace: bool) -> Result<()> {
        Provider::rename(self, at, to, replace).await
    }

    async fn make_symlink(&self, at: &Location, target: &str) -> Result<()> {
        Provider::make_symlink(self, at, target).await
    }

    async fn set_permissions(&self, at: &Location, permissions: u32) -> Result<()> {
        Provider::set_permissions(self, at, permissions).await
    }

    async fn read_tree(&self, at: &Location, transfer: &str, offset: u64, max_bytes: u32) -> Result<FileChunk> {
        Provider::read_tree(self, at, transfer, offset, max_bytes).await
    }

    async fn write_tree(&self, at: &Location, transfer: &str, offset: u64, data: Vec<u8>, eof: bool) -> Result<u64> {
        Provider::write_tree(self, at, transfer, offset, data, eof).await
    }

    async fn watch(
        &self,
        at: &Location,
        watch: &str,
        recursive: bool,
        position: u64,
        max_events: u32,
        wait: u64,
    ) -> Result<WatchPage> {
        Provider::watch(self, at, watch, recursive, position, max_events, wait).await
    }
}

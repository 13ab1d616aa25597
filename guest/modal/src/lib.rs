//! The sandbox provider for Modal: a component for `wasm32-wasip2` that exports `harness:sandbox/sandbox-provider` and
//! imports only `wasi:io`, `wasi:clocks`, `wasi:random`, `wasi:cli` and `wasi:http`. The parts that do not depend on
//! Modal are in `sandbox-provider-kit`.
//!
//! The modules, from the outermost to the innermost. A module imports only modules that are listed below it:
//!
//! | module | contents |
//! |---|---|
//! | [`describe`], [`cache`] | the description of this provider; the cache that one instance exports to another |
//! | [`files`] | files: contents, directories, changes, watches |
//! | [`exec`] | commands: in single steps and in one call, their processes, their user; the provider's own programs |
//! | [`sandbox`] | sandboxes: create, find and manage them; sidecars, snapshots, logs, usage |
//! | [`image`] | images, builds and build contexts |
//! | [`service`] | the two endpoints, which are the command router and the control plane; names, configuration |

pub mod cache;
pub mod describe;
pub mod exec;
pub mod files;
pub mod image;
pub mod sandbox;
pub mod service;

use std::rc::Rc;

use sandbox_provider_kit::{
    api::wit::{
        BuildProgress, BuiltImage, ConnectToken, Content, Description, EndReason, ExecRef, ExecSpec, FileChunk,
        FileInfo, FilePage, ImageSpec, InputState, ListFilter, Location, LogPage, LogQuery, NetworkPolicy, Output,
        OutputLimits, Pair, Pty, ReadRequest, RunResult, SandboxInfo, SandboxPage, SandboxSpec, SidecarInfo,
        SidecarSpec, Tunnel, UsageReport, Verdict, WatchPage, WriteOptions,
    },
    export::SandboxProvider,
    platform::Transport,
};

use self::{
    exec::{commands::Commands, helper::Helper, output::Outputs, script::Scripts},
    files::{change, directory, transfer, watch},
    image::{build::Builds, context::Contexts, layers},
    sandbox::{create, find, logs, manage, sidecar, snapshot, usage},
    service::Service,
};

pub use sandbox_provider_kit::api::{Error, Result};

// Modal cannot pause, stop or prolong a sandbox, and lists neither images nor commands: no `lifecycle`, no `inventory`.
sandbox_provider_kit::export!(
    Provider,
    Provider::new,
    "../manifest.toml",
    [
        exec,
        processes,
        files,
        trees,
        watches,
        images,
        snapshots,
        memory_snapshots,
        volumes,
        names,
        readiness,
        network,
        tunnels,
        sidecars,
        logs,
        usage,
        cache
    ]
);

/// The provider for Modal.
pub struct Provider {
    service: Service,
    contexts: Contexts,
    builds: Builds,
    scripts: Rc<Scripts>,
    commands: Commands,
}

impl Provider {
    /// Makes a provider that uses this transport. Does not read the configuration and sends nothing.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Provider {
        let service = Service::new(transport);
        let scripts = Rc::new(Scripts::new(Helper::new(Outputs::new(service.clone()))));
        Provider {
            contexts: Contexts::new(service.clone()),
            builds: Builds::new(service.clone()),
            commands: Commands::new(scripts.clone()),
            scripts,
            service,
        }
    }
}

/// Each function returns the future of a function in one of the modules. An `async` function that only awaits that
/// future would add a second copy of it to the component.
impl SandboxProvider for Provider {
    fn describe(&self) -> Description {
        describe::describe()
    }

    fn export_cache(&self) -> Vec<u8> {
        cache::export(&self.service)
    }

    fn import_cache(&self, cache: &[u8]) {
        cache::import(&self.service, cache);
    }

    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        create::check(&self.service, spec)
    }

    // ---- the provider ---------------------------------------------------------------------------------------------------

    fn check(&self) -> impl Future<Output = Result<()>> {
        self.service.control.check()
    }

    // ---- images ---------------------------------------------------------------------------------------------------------

    fn missing_content(&self, contents: &[Content]) -> impl Future<Output = Result<Vec<String>>> {
        self.contexts.missing(contents)
    }

    fn upload_content(&self, content: &Content, offset: u64, data: Vec<u8>) -> impl Future<Output = Result<u64>> {
        self.contexts.upload(content, offset, data)
    }

    fn start_build(&self, spec: &ImageSpec) -> impl Future<Output = Result<BuildProgress>> {
        self.builds.start_build(spec)
    }

    fn read_build(&self, cursor: &str, max_bytes: u32, wait: u64) -> impl Future<Output = Result<BuildProgress>> {
        self.builds.read_build(cursor, max_bytes, wait)
    }

    fn get_image(&self, image: &str) -> impl Future<Output = Result<BuiltImage>> {
        layers::get(&self.service, image)
    }

    fn delete_image(&self, image: &str) -> impl Future<Output = Result<()>> {
        layers::delete(&self.service, image)
    }

    // ---- sandboxes ------------------------------------------------------------------------------------------------------

    fn create(&self, spec: SandboxSpec) -> impl Future<Output = Result<SandboxInfo>> {
        create::create(&self.service, &self.builds, spec)
    }

    fn get(&self, sandbox: &str) -> impl Future<Output = Result<SandboxInfo>> {
        find::get(&self.service, sandbox)
    }

    fn find(&self, name: &str) -> impl Future<Output = Result<SandboxInfo>> {
        find::find(&self.service, name)
    }

    fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> impl Future<Output = Result<SandboxPage>> {
        find::list(&self.service, filter, cursor, max)
    }

    fn wait(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<Option<EndReason>>> {
        manage::wait(&self.service, sandbox, wait)
    }

    fn wait_ready(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<bool>> {
        manage::wait_ready(&self.service, sandbox, wait)
    }

    fn terminate(&self, sandbox: &str) -> impl Future<Output = Result<()>> {
        manage::terminate(&self.service, sandbox)
    }

    fn set_name(&self, sandbox: &str, name: &str) -> impl Future<Output = Result<()>> {
        manage::set_name(&self.service, sandbox, name)
    }

    fn get_tags(&self, sandbox: &str) -> impl Future<Output = Result<Vec<Pair>>> {
        manage::get_tags(&self.service, sandbox)
    }

    fn set_tags(&self, sandbox: &str, tags: &[Pair]) -> impl Future<Output = Result<()>> {
        manage::set_tags(&self.service, sandbox, tags)
    }

    fn tunnels(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<Vec<Tunnel>>> {
        manage::tunnels(&self.service, sandbox, wait)
    }

    fn create_connect_token(
        &self,
        sandbox: &str,
        port: u16,
        metadata: String,
    ) -> impl Future<Output = Result<ConnectToken>> {
        manage::create_connect_token(&self.service, sandbox, port, metadata)
    }

    fn read_logs(
        &self,
        sandbox: &str,
        query: &LogQuery,
        cursor: Option<String>,
        max_bytes: u32,
    ) -> impl Future<Output = Result<LogPage>> {
        logs::read(&self.service, sandbox, query, cursor, max_bytes)
    }

    fn report_usage(&self, sandbox: &str) -> impl Future<Output = Result<UsageReport>> {
        usage::report(&self.service, sandbox)
    }

    fn set_network(&self, sandbox: &str, policy: &NetworkPolicy) -> impl Future<Output = Result<()>> {
        manage::set_network(&self.service, sandbox, policy)
    }

    fn reload_volumes(&self, sandbox: &str) -> impl Future<Output = Result<()>> {
        manage::reload_volumes(&self.service, sandbox)
    }

    fn delete_volume(&self, volume: &str) -> impl Future<Output = Result<()>> {
        self.service.names.delete_volume(volume)
    }

    // ---- snapshots ------------------------------------------------------------------------------------------------------

    fn snapshot_filesystem(&self, sandbox: &str, key: &str, ttl: Option<u64>) -> impl Future<Output = Result<String>> {
        snapshot::filesystem(&self.service, sandbox, key, ttl)
    }

    fn snapshot_directory(&self, at: &Location, key: &str, ttl: Option<u64>) -> impl Future<Output = Result<String>> {
        snapshot::directory(&self.service, at, key, ttl)
    }

    fn mount(&self, at: &Location, image: Option<&str>) -> impl Future<Output = Result<()>> {
        snapshot::mount(&self.service, at, image)
    }

    fn unmount(&self, at: &Location) -> impl Future<Output = Result<()>> {
        snapshot::unmount(&self.service, at)
    }

    fn snapshot_memory(&self, sandbox: &str, key: &str) -> impl Future<Output = Result<String>> {
        snapshot::memory(&self.service, sandbox, key)
    }

    fn restore(&self, snapshot: &str, key: &str, name: Option<String>) -> impl Future<Output = Result<SandboxInfo>> {
        snapshot::restore(&self.service, snapshot, key, name)
    }

    fn exit_snapshot(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<Option<String>>> {
        snapshot::exit(&self.service, sandbox, wait)
    }

    // ---- sidecars -------------------------------------------------------------------------------------------------------

    fn create_sidecar(&self, sandbox: &str, spec: &SidecarSpec) -> impl Future<Output = Result<SidecarInfo>> {
        sidecar::create(&self.service, &self.builds, sandbox, spec)
    }

    fn list_sidecars(&self, sandbox: &str) -> impl Future<Output = Result<Vec<SidecarInfo>>> {
        sidecar::list(&self.service, sandbox)
    }

    fn wait_sidecar(&self, sandbox: &str, name: &str, wait: u64) -> impl Future<Output = Result<Option<EndReason>>> {
        sidecar::wait(&self.service, sandbox, name, wait)
    }

    fn terminate_sidecar(&self, sandbox: &str, name: &str) -> impl Future<Output = Result<()>> {
        sidecar::terminate(&self.service, sandbox, name)
    }

    // ---- commands -------------------------------------------------------------------------------------------------------

    fn start(&self, sandbox: &str, spec: ExecSpec) -> impl Future<Output = Result<()>> {
        self.commands.start(sandbox, spec)
    }

    fn read_output(&self, exec: ExecRef, request: ReadRequest) -> impl Future<Output = Result<Output>> {
        self.commands.read_output(exec, request)
    }

    fn write_input(
        &self,
        exec: ExecRef,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> impl Future<Output = Result<InputState>> {
        self.commands.write_input(exec, offset, data, eof)
    }

    fn wait_exec(&self, exec: ExecRef, wait: u64) -> impl Future<Output = Result<Option<Verdict>>> {
        self.commands.wait_exec(exec, wait)
    }

    fn signal(&self, exec: ExecRef, signal: u32) -> impl Future<Output = Result<()>> {
        self.scripts.signal(exec, signal)
    }

    fn resize(&self, exec: ExecRef, size: Pty) -> impl Future<Output = Result<()>> {
        self.scripts.resize(exec, size)
    }

    fn run(
        &self,
        sandbox: &str,
        spec: ExecSpec,
        stdin: Vec<u8>,
        limits: OutputLimits,
    ) -> impl Future<Output = Result<RunResult>> {
        self.commands.run(sandbox, spec, stdin, limits)
    }

    // ---- files ----------------------------------------------------------------------------------------------------------

    fn read_file(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        max_bytes: u32,
    ) -> impl Future<Output = Result<FileChunk>> {
        transfer::read(&self.scripts, at, transfer, offset, max_bytes)
    }

    fn write_file(
        &self,
        at: &Location,
        transfer: &str,
        options: &WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> impl Future<Output = Result<u64>> {
        transfer::write(&self.scripts, at, transfer, options, offset, data, eof)
    }

    fn stat(&self, at: &Location, follow: bool) -> impl Future<Output = Result<FileInfo>> {
        directory::stat(&self.scripts, at, follow)
    }

    fn list_directory(
        &self,
        at: &Location,
        cursor: Option<String>,
        max: u32,
    ) -> impl Future<Output = Result<FilePage>> {
        directory::list(&self.scripts, at, cursor, max)
    }

    fn make_directory(&self, at: &Location, parents: bool) -> impl Future<Output = Result<()>> {
        directory::make(&self.scripts, at, parents)
    }

    fn remove(&self, at: &Location, recursive: bool) -> impl Future<Output = Result<()>> {
        directory::remove(&self.scripts, at, recursive)
    }

    fn rename(&self, at: &Location, to: &str, replace: bool) -> impl Future<Output = Result<()>> {
        change::rename(&self.scripts, at, to, replace)
    }

    fn make_symlink(&self, at: &Location, target: &str) -> impl Future<Output = Result<()>> {
        change::make_symlink(&self.scripts, at, target)
    }

    fn set_permissions(&self, at: &Location, permissions: u32) -> impl Future<Output = Result<()>> {
        change::set_permissions(&self.scripts, at, permissions)
    }

    fn read_tree(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        max_bytes: u32,
    ) -> impl Future<Output = Result<FileChunk>> {
        change::read_tree(&self.scripts, at, transfer, offset, max_bytes)
    }

    fn write_tree(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> impl Future<Output = Result<u64>> {
        change::write_tree(&self.scripts, at, transfer, offset, data, eof)
    }

    fn watch(
        &self,
        at: &Location,
        watch: &str,
        recursive: bool,
        position: u64,
        max_events: u32,
        wait: u64,
    ) -> impl Future<Output = Result<WatchPage>> {
        watch::watch(&self.scripts, at, watch, recursive, position, max_events, wait)
    }
}

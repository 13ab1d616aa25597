//! The sandbox provider for Docker Engine and Podman: a component for `wasm32-wasip2` that exports
//! `harness:sandbox/sandbox-provider` and reaches the engine by `wasi:http`. The parts that do not depend on the engine are in
//! `sandbox-provider-kit`.
//!
//! A sandbox is a container. The Engine API has no output at byte offsets, no input without an upgraded connection, and no
//! signal for one exec. So the first process of a container is a helper program, which this provider puts into it: see
//! `guest/docker/inside`. It starts each command once, keeps its output, and reads and changes files. It needs no program of
//! the image.
//!
//! The modules, from the outermost to the innermost. A module imports only modules that are listed below it:
//!
//! | module | contents |
//! |---|---|
//! | [`files`] | files: contents, directories, trees, changes, watches |
//! | [`exec`] | commands: start, output, input, signals |
//! | [`container`] | sandboxes: create, list, end, tags, names, snapshots, logs, statistics |
//! | [`image`] | images: pull, build, build contexts |
//! | [`program`] | the helper program on the engine |
//! | [`helper`] | calls of the helper program |
//! | [`inspect`](mod@inspect) | containers as the engine reports them |
//! | [`describe`] | the description of this provider |
//! | [`options`] | provider options |
//! | [`engine`] | the Engine API over HTTP, and the differences between engines |
//! | [`notes`], [`tar`], [`time`] | notes in logs, archives, and points in time as the API has them |

pub mod container;
pub mod describe;
pub mod engine;
pub mod exec;
pub mod files;
pub mod helper;
pub mod image;
pub mod inspect;
pub mod notes;
pub mod options;
pub mod program;
pub mod tar;
pub mod time;

use std::rc::Rc;

use sandbox_provider_kit::{
    api::wit::{
        BuildProgress, BuiltImage, Content, Description, EndReason, ExecPage, ExecRef, ExecSpec, FileChunk, FileInfo,
        FilePage, ImagePage, ImageSpec, InputState, ListFilter, Location, LogPage, LogQuery, Output, OutputLimits,
        Pair, Pty, ReadRequest, RunResult, SandboxInfo, SandboxPage, SandboxSpec, Tunnel, UsageReport, Verdict,
        WatchPage, WriteOptions,
    },
    export::SandboxProvider,
    platform::Transport,
};

use self::{
    container::{create, list, logs, manage, snapshot, usage},
    engine::{Call, Engine, failed},
    exec::Commands,
    files::Files,
    helper::Helper,
    image::Images,
    program::Program,
};

pub use sandbox_provider_kit::api::{Error, Result};

sandbox_provider_kit::export!(
    Provider,
    Provider::new,
    "../manifest.toml",
    [
        exec, processes, files, trees, watches, images, snapshots, inventory, volumes, names, readiness, lifecycle,
        tunnels, logs, usage
    ]
);

/// The provider for Docker Engine and Podman.
pub struct Provider {
    helper: Helper,
    program: Program,
    images: Images,
    commands: Commands,
    files: Files,
}

impl Provider {
    /// Makes a provider that uses this transport. Does not read the configuration and sends nothing.
    #[must_use]
    pub fn new(transport: Rc<dyn Transport>) -> Provider {
        let engine = Engine::new(transport);
        let helper = Helper::new(engine.clone());
        let program = Program::new(engine.clone());
        Provider {
            images: Images::new(engine, program.clone()),
            program,
            commands: Commands::new(helper.clone()),
            files: Files::new(helper.clone()),
            helper,
        }
    }

    fn engine(&self) -> &Engine {
        self.helper.engine()
    }
}

/// Each function returns the future of a function in one of the modules.
impl SandboxProvider for Provider {
    fn describe(&self) -> Description {
        describe::describe()
    }

    fn check_spec(&self, spec: &SandboxSpec) -> Result<()> {
        create::check(spec).map(drop)
    }

    // ---- the provider ---------------------------------------------------------------------------------------------------

    async fn check(&self) -> Result<()> {
        let answer = self.engine().ask(Call::get("/_ping")).await?;
        answer.map_err(|refusal| failed(&refusal, "reach the engine"))?;
        self.engine().flavor().await.map(drop)
    }

    async fn create(&self, spec: SandboxSpec) -> Result<SandboxInfo> {
        create::create(&self.helper, &self.program, &self.images, &spec).await
    }

    async fn get(&self, sandbox: &str) -> Result<SandboxInfo> {
        let state = inspect::state(self.engine(), sandbox).await?;
        container::info(&self.helper, sandbox, &state).await
    }

    async fn list(&self, filter: ListFilter, cursor: Option<String>, max: u32) -> Result<SandboxPage> {
        list::list(&self.helper, &filter, cursor.as_deref(), max).await
    }

    fn wait(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<Option<EndReason>>> {
        manage::wait(&self.helper, sandbox, wait)
    }

    fn terminate(&self, sandbox: &str) -> impl Future<Output = Result<()>> {
        manage::terminate(&self.helper, sandbox)
    }

    fn get_tags(&self, sandbox: &str) -> impl Future<Output = Result<Vec<Pair>>> {
        manage::get_tags(&self.helper, sandbox)
    }

    async fn set_tags(&self, sandbox: &str, tags: &[Pair]) -> Result<()> {
        manage::set_tags(&self.helper, sandbox, tags).await
    }

    fn find(&self, name: &str) -> impl Future<Output = Result<SandboxInfo>> {
        manage::find(&self.helper, name)
    }

    fn set_name(&self, sandbox: &str, name: &str) -> impl Future<Output = Result<()>> {
        manage::set_name(&self.helper, sandbox, name)
    }

    fn wait_ready(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<bool>> {
        manage::wait_ready(&self.helper, sandbox, wait)
    }

    fn wait_running(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<bool>> {
        manage::wait_running(&self.helper, sandbox, wait)
    }

    fn extend(&self, sandbox: &str, lifetime: u64) -> impl Future<Output = Result<u64>> {
        manage::extend(&self.helper, sandbox, lifetime)
    }

    fn pause(&self, sandbox: &str) -> impl Future<Output = Result<()>> {
        manage::pause(&self.helper, sandbox)
    }

    fn stop(&self, sandbox: &str) -> impl Future<Output = Result<()>> {
        manage::stop(&self.helper, sandbox)
    }

    fn resume(&self, sandbox: &str) -> impl Future<Output = Result<()>> {
        manage::resume(&self.helper, sandbox)
    }

    fn tunnels(&self, sandbox: &str, wait: u64) -> impl Future<Output = Result<Vec<Tunnel>>> {
        manage::tunnels(&self.helper, sandbox, wait)
    }

    async fn read_logs(
        &self,
        sandbox: &str,
        query: &LogQuery,
        cursor: Option<String>,
        max_bytes: u32,
    ) -> Result<LogPage> {
        logs::read(&self.helper, sandbox, query, cursor.as_deref(), max_bytes).await
    }

    fn report_usage(&self, sandbox: &str) -> impl Future<Output = Result<UsageReport>> {
        usage::report(&self.helper, sandbox)
    }

    fn delete_volume(&self, volume: &str) -> impl Future<Output = Result<()>> {
        manage::delete_volume(&self.helper, volume)
    }

    fn snapshot_filesystem(&self, sandbox: &str, key: &str, ttl: Option<u64>) -> impl Future<Output = Result<String>> {
        snapshot::filesystem(&self.helper, sandbox, key, ttl)
    }

    // ---- images ---------------------------------------------------------------------------------------------------------

    fn missing_content(&self, contents: &[Content]) -> impl Future<Output = Result<Vec<String>>> {
        self.images.missing(contents)
    }

    fn upload_content(&self, content: &Content, offset: u64, data: Vec<u8>) -> impl Future<Output = Result<u64>> {
        self.images.upload(content, offset, data)
    }

    fn start_build(&self, spec: &ImageSpec) -> impl Future<Output = Result<BuildProgress>> {
        self.images.start(spec)
    }

    fn read_build(&self, cursor: &str, max_bytes: u32, wait: u64) -> impl Future<Output = Result<BuildProgress>> {
        self.images.read(cursor, max_bytes, wait)
    }

    fn get_image(&self, image: &str) -> impl Future<Output = Result<BuiltImage>> {
        self.images.get(image)
    }

    fn delete_image(&self, image: &str) -> impl Future<Output = Result<()>> {
        self.images.delete(image)
    }

    async fn list_images(&self, cursor: Option<String>, max: u32) -> Result<ImagePage> {
        self.images.list(cursor.as_deref(), max).await
    }

    // ---- commands -------------------------------------------------------------------------------------------------------

    async fn start(&self, sandbox: &str, spec: ExecSpec) -> Result<()> {
        self.commands.start(sandbox, &spec).await
    }

    async fn run(&self, sandbox: &str, spec: ExecSpec, stdin: Vec<u8>, limits: OutputLimits) -> Result<RunResult> {
        self.commands.run(sandbox, &spec, stdin, limits).await
    }

    async fn read_output(&self, exec: ExecRef, request: ReadRequest) -> Result<Output> {
        self.commands.read(&exec, request).await
    }

    async fn write_input(&self, exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState> {
        self.commands.write(&exec, offset, data, eof).await
    }

    async fn wait_exec(&self, exec: ExecRef, wait: u64) -> Result<Option<Verdict>> {
        self.commands.wait(&exec, wait).await
    }

    async fn signal(&self, exec: ExecRef, signal: u32) -> Result<()> {
        self.commands.signal(&exec, signal).await
    }

    async fn resize(&self, exec: ExecRef, size: Pty) -> Result<()> {
        self.commands.resize(&exec, &size).await
    }

    async fn list_execs(&self, sandbox: &str, cursor: Option<String>, max: u32) -> Result<ExecPage> {
        self.commands.list(sandbox, cursor.as_deref(), max).await
    }

    // ---- files ----------------------------------------------------------------------------------------------------------

    fn read_file(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        max_bytes: u32,
    ) -> impl Future<Output = Result<FileChunk>> {
        self.files.read("read-file", at, transfer, offset, max_bytes)
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
        self.files.write(at, transfer, options, offset, data, eof)
    }

    fn stat(&self, at: &Location, follow: bool) -> impl Future<Output = Result<FileInfo>> {
        self.files.stat(at, follow)
    }

    async fn list_directory(&self, at: &Location, cursor: Option<String>, max: u32) -> Result<FilePage> {
        self.files.list(at, cursor.as_deref(), max).await
    }

    fn make_directory(&self, at: &Location, parents: bool) -> impl Future<Output = Result<()>> {
        self.files.make_directory(at, parents)
    }

    fn remove(&self, at: &Location, recursive: bool) -> impl Future<Output = Result<()>> {
        self.files.remove(at, recursive)
    }

    fn rename(&self, at: &Location, to: &str, replace: bool) -> impl Future<Output = Result<()>> {
        self.files.rename(at, to, replace)
    }

    fn make_symlink(&self, at: &Location, target: &str) -> impl Future<Output = Result<()>> {
        self.files.make_symlink(at, target)
    }

    fn set_permissions(&self, at: &Location, permissions: u32) -> impl Future<Output = Result<()>> {
        self.files.set_permissions(at, permissions)
    }

    fn read_tree(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        max_bytes: u32,
    ) -> impl Future<Output = Result<FileChunk>> {
        self.files.read("read-tree", at, transfer, offset, max_bytes)
    }

    fn write_tree(
        &self,
        at: &Location,
        transfer: &str,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> impl Future<Output = Result<u64>> {
        self.files.write_tree(at, transfer, offset, data, eof)
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
        self.files.watch(at, watch, recursive, position, max_events, wait)
    }
}

//! The exports: each function of the interface, run to its end on the reactor.

use std::{cell::OnceCell, rc::Rc};

use crate::{
    Provider,
    bindings::{self as wit, Error, Guest},
    describe::describe,
    error::Result,
    wasi::{Wasi, block_on},
};

/// What the plugin wishes for, for hosts to read without running it.
#[unsafe(link_section = "harness:manifest")]
#[used]
static MANIFEST: [u8; include_bytes!("../manifest.toml").len()] = *include_bytes!("../manifest.toml");

thread_local! {
    static PROVIDER: OnceCell<Provider> = const { OnceCell::new() };
}

/// Runs one call. The provider and what it has open live as long as the instance.
fn call<T, F: Future<Output = T>>(function: impl FnOnce(Provider) -> F) -> T {
    let provider = PROVIDER.with(|cell| cell.get_or_init(|| Provider::new(Rc::new(Wasi))).clone());
    block_on(function(provider))
}

/// The answer of a function whose capability `describe` does not list.
fn absent<T>(capability: &str) -> Result<T> {
    Err(Error::unsupported(
        capability,
        format!("This provider cannot do that ({capability}); `describe` lists what it can."),
    ))
}

struct Component;

wit::export!(Component with_types_in wit);

impl Guest for Component {
    fn describe() -> Result<wit::Description> {
        Ok(describe())
    }

    fn check() -> Result<()> {
        call(|p| async move { p.check().await })
    }

    fn export_cache() -> Vec<u8> {
        call(|p| async move { p.export_cache() })
    }

    fn import_cache(cache: Vec<u8>) {
        call(|p| async move { p.import_cache(&cache) });
    }

    fn missing_content(_contents: Vec<wit::Content>) -> Result<Vec<String>> {
        absent("image.context")
    }

    fn upload_content(_content: wit::Content, _offset: u64, _data: Vec<u8>) -> Result<u64> {
        absent("image.context")
    }

    fn start_build(spec: wit::ImageSpec) -> Result<wit::BuildProgress> {
        call(|p| async move { p.start_build(&spec).await })
    }

    fn read_build(cursor: String, max_bytes: u32, wait: u64) -> Result<wit::BuildProgress> {
        call(|p| async move { p.read_build(&cursor, max_bytes, wait).await })
    }

    fn get_image(image: String) -> Result<wit::BuiltImage> {
        call(|p| async move { p.get_image(&image).await })
    }

    fn delete_image(image: String) -> Result<()> {
        call(|p| async move { p.delete_image(&image).await })
    }

    fn create(spec: wit::SandboxSpec) -> Result<wit::SandboxInfo> {
        call(|p| async move { p.create(spec).await })
    }

    fn get(sandbox: String) -> Result<wit::SandboxInfo> {
        call(|p| async move { p.get(&sandbox).await })
    }

    fn find(name: String) -> Result<wit::SandboxInfo> {
        call(|p| async move { p.find(&name).await })
    }

    fn list(filter: wit::ListFilter, cursor: Option<String>, max: u32) -> Result<wit::SandboxPage> {
        call(|p| async move { p.list(filter, cursor, max).await })
    }

    fn wait(sandbox: String, wait: u64) -> Result<Option<wit::EndReason>> {
        call(|p| async move { p.wait(&sandbox, wait).await })
    }

    fn wait_ready(sandbox: String, wait: u64) -> Result<bool> {
        call(|p| async move { p.wait_ready(&sandbox, wait).await })
    }

    fn terminate(sandbox: String) -> Result<()> {
        call(|p| async move { p.terminate(&sandbox).await })
    }

    fn set_name(sandbox: String, name: String) -> Result<()> {
        call(|p| async move { p.set_name(&sandbox, &name).await })
    }

    fn get_tags(sandbox: String) -> Result<Vec<wit::Pair>> {
        call(|p| async move { p.get_tags(&sandbox).await })
    }

    fn set_tags(sandbox: String, tags: Vec<wit::Pair>) -> Result<()> {
        call(|p| async move { p.set_tags(&sandbox, &tags).await })
    }

    fn tunnels(sandbox: String, wait: u64) -> Result<Vec<wit::Tunnel>> {
        call(|p| async move { p.tunnels(&sandbox, wait).await })
    }

    fn create_connect_token(_sandbox: String, _port: u16, _metadata: String) -> Result<wit::ConnectToken> {
        absent("connect-token")
    }

    fn read_logs(_: String, _: wit::LogQuery, _: Option<String>, _: u32) -> Result<wit::LogPage> {
        absent("logs")
    }

    fn stats(sandbox: String) -> Result<wit::Usage> {
        call(|p| async move { p.stats(&sandbox).await })
    }

    fn set_network(sandbox: String, policy: wit::NetworkPolicy) -> Result<()> {
        call(|p| async move { p.set_network(&sandbox, &policy).await })
    }

    fn reload_volumes(sandbox: String) -> Result<()> {
        call(|p| async move { p.reload_volumes(&sandbox).await })
    }

    fn snapshot_filesystem(sandbox: String, key: String, ttl: Option<u64>) -> Result<String> {
        call(|p| async move { p.snapshot_filesystem(&sandbox, &key, ttl).await })
    }

    fn snapshot_directory(_at: wit::Location, _key: String, _ttl: Option<u64>) -> Result<String> {
        absent("snapshot.directory")
    }

    fn mount(_at: wit::Location, _image: Option<String>) -> Result<()> {
        absent("mount")
    }

    fn unmount(_at: wit::Location) -> Result<()> {
        absent("mount")
    }

    fn snapshot_memory(_sandbox: String, _key: String) -> Result<String> {
        absent("snapshot.memory")
    }

    fn restore(_snapshot: String, _name: Option<String>) -> Result<wit::SandboxInfo> {
        absent("snapshot.memory")
    }

    fn exit_snapshot(_sandbox: String, _wait: u64) -> Result<Option<String>> {
        absent("snapshot.exit")
    }

    fn create_sidecar(_sandbox: String, _spec: wit::SidecarSpec) -> Result<wit::SidecarInfo> {
        absent("sidecars")
    }

    fn list_sidecars(_sandbox: String) -> Result<Vec<wit::SidecarInfo>> {
        absent("sidecars")
    }

    fn wait_sidecar(_sandbox: String, _name: String, _wait: u64) -> Result<Option<wit::EndReason>> {
        absent("sidecars")
    }

    fn terminate_sidecar(_sandbox: String, _name: String) -> Result<()> {
        absent("sidecars")
    }

    fn start(sandbox: String, spec: wit::ExecSpec) -> Result<()> {
        call(|p| async move { p.start(&sandbox, spec).await })
    }

    fn read_output(exec: wit::ExecRef, request: wit::ReadRequest) -> Result<wit::Output> {
        call(|p| async move { p.read_output(exec, request).await })
    }

    fn write_input(exec: wit::ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<wit::InputState> {
        call(|p| async move { p.write_input(exec, offset, data, eof).await })
    }

    fn wait_exec(exec: wit::ExecRef, wait: u64) -> Result<Option<wit::Verdict>> {
        call(|p| async move { p.wait_exec(exec, wait).await })
    }

    fn signal(exec: wit::ExecRef, signal: u32) -> Result<()> {
        call(|p| async move { p.signal(exec, signal).await })
    }

    fn resize(_exec: wit::ExecRef, _size: wit::Pty) -> Result<()> {
        absent("exec.resize")
    }

    fn run(sandbox: String, spec: wit::ExecSpec, stdin: Vec<u8>, limits: wit::OutputLimits) -> Result<wit::RunResult> {
        call(|p| async move { p.run(&sandbox, spec, stdin, limits).await })
    }

    fn read_file(at: wit::Location, transfer: String, offset: u64, max_bytes: u32) -> Result<wit::FileChunk> {
        call(|p| async move { p.read_file(&at, &transfer, offset, max_bytes).await })
    }

    fn write_file(
        at: wit::Location,
        transfer: String,
        options: wit::WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64> {
        call(|p| async move { p.write_file(&at, &transfer, &options, offset, data, eof).await })
    }

    fn stat(at: wit::Location) -> Result<wit::FileInfo> {
        call(|p| async move { p.stat(&at).await })
    }

    fn list_directory(at: wit::Location, cursor: Option<String>, max: u32) -> Result<wit::FilePage> {
        call(|p| async move { p.list_directory(&at, cursor, max).await })
    }

    fn make_directory(at: wit::Location, parents: bool) -> Result<()> {
        call(|p| async move { p.make_directory(&at, parents).await })
    }

    fn remove(at: wit::Location, recursive: bool) -> Result<()> {
        call(|p| async move { p.remove(&at, recursive).await })
    }

    fn rename(_at: wit::Location, _to: String, _replace: bool) -> Result<()> {
        absent("files.rename")
    }

    fn make_symlink(_at: wit::Location, _target: String) -> Result<()> {
        absent("files.symlinks")
    }

    fn set_permissions(_at: wit::Location, _permissions: u32) -> Result<()> {
        absent("files.mode")
    }

    fn read_tree(_at: wit::Location, _transfer: String, _offset: u64, _max_bytes: u32) -> Result<wit::FileChunk> {
        absent("files.trees")
    }

    fn write_tree(_at: wit::Location, _transfer: String, _offset: u64, _data: Vec<u8>, _eof: bool) -> Result<u64> {
        absent("files.trees")
    }

    fn watch(_: wit::Location, _: String, _: bool, _: u64, _: u32, _: u64) -> Result<wit::WatchPage> {
        absent("files.watch")
    }
}

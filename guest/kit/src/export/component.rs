//! The exports of a component. Each function of the interface calls the function of the same name of
//! [`SandboxProvider`] and runs its future to completion on the reactor.

use std::pin::pin;

use super::SandboxProvider;
use crate::{
    api::{
        error::{Error, Result},
        wit,
    },
    platform::wasi02::block_on,
};

/// A provider with its single instance. The macro `export!` implements this trait.
pub trait Instance: SandboxProvider + 'static {
    /// Returns the provider; the first call makes it. The provider and its open streams live as long as the component's
    /// instance.
    fn instance() -> &'static Self;
}

/// The type that implements the exports for a provider.
pub struct Component<P>(std::marker::PhantomData<P>);

/// The result of an export.
type Answer<T> = std::result::Result<T, wit::Error>;

/// Runs one asynchronous function of the provider to completion.
fn call<P: Instance, T, F: Future<Output = Result<T>>>(function: impl FnOnce(&'static P) -> F) -> Answer<T> {
    let mut answer = None;
    let future = function(P::instance());
    // `block_on` takes a pinned trait object, so that the component contains the reactor's loop once and not once per
    // function.
    block_on(pin!(async { answer = Some(future.await) }));
    match answer {
        Some(answer) => answer.map_err(Error::into_record),
        None => unanswered(),
    }
}

/// The panic of [`call`], in one function so that the component contains it once.
#[cold]
#[inline(never)]
fn unanswered() -> ! {
    panic!("block_on returned before the future had ended")
}

impl<P: Instance> wit::sandbox_provider::Guest for Component<P> {
    fn describe() -> Answer<wit::Description> {
        Ok(P::instance().describe())
    }

    fn check() -> Answer<()> {
        call(|p: &'static P| async move { p.check().await })
    }

    fn check_spec(spec: wit::SandboxSpec) -> Answer<()> {
        P::instance().check_spec(&spec).map_err(Error::into_record)
    }

    fn create(spec: wit::SandboxSpec) -> Answer<wit::SandboxInfo> {
        call(|p: &'static P| async move { p.create(spec).await })
    }

    fn get(sandbox: String) -> Answer<wit::SandboxInfo> {
        call(|p: &'static P| async move { p.get(&sandbox).await })
    }

    fn list(filter: wit::ListFilter, cursor: Option<String>, max: u32) -> Answer<wit::SandboxPage> {
        call(|p: &'static P| async move { p.list(filter, cursor, max).await })
    }

    fn wait(sandbox: String, wait: u64) -> Answer<Option<wit::EndReason>> {
        call(|p: &'static P| async move { p.wait(&sandbox, wait).await })
    }

    fn terminate(sandbox: String) -> Answer<()> {
        call(|p: &'static P| async move { p.terminate(&sandbox).await })
    }

    fn get_tags(sandbox: String) -> Answer<Vec<wit::Pair>> {
        call(|p: &'static P| async move { p.get_tags(&sandbox).await })
    }

    fn set_tags(sandbox: String, tags: Vec<wit::Pair>) -> Answer<()> {
        call(|p: &'static P| async move { p.set_tags(&sandbox, &tags).await })
    }
}

impl<P: Instance> wit::exec::Guest for Component<P> {
    fn run(sandbox: String, spec: wit::ExecSpec, stdin: Vec<u8>, limits: wit::OutputLimits) -> Answer<wit::RunResult> {
        call(|p: &'static P| async move { p.run(&sandbox, spec, stdin, limits).await })
    }
}

impl<P: Instance> wit::processes::Guest for Component<P> {
    fn start(sandbox: String, spec: wit::ExecSpec) -> Answer<()> {
        call(|p: &'static P| async move { p.start(&sandbox, spec).await })
    }

    fn read_output(exec: wit::ExecRef, request: wit::ReadRequest) -> Answer<wit::Output> {
        call(|p: &'static P| async move { p.read_output(exec, request).await })
    }

    fn write_input(exec: wit::ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Answer<wit::InputState> {
        call(|p: &'static P| async move { p.write_input(exec, offset, data, eof).await })
    }

    fn wait_exec(exec: wit::ExecRef, wait: u64) -> Answer<Option<wit::Verdict>> {
        call(|p: &'static P| async move { p.wait_exec(exec, wait).await })
    }

    fn signal(exec: wit::ExecRef, signal: u32) -> Answer<()> {
        call(|p: &'static P| async move { p.signal(exec, signal).await })
    }

    fn resize(exec: wit::ExecRef, size: wit::Pty) -> Answer<()> {
        call(|p: &'static P| async move { p.resize(exec, size).await })
    }
}

impl<P: Instance> wit::files::Guest for Component<P> {
    fn read_file(at: wit::Location, transfer: String, offset: u64, max_bytes: u32) -> Answer<wit::FileChunk> {
        call(|p: &'static P| async move { p.read_file(&at, &transfer, offset, max_bytes).await })
    }

    fn write_file(
        at: wit::Location,
        transfer: String,
        options: wit::WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Answer<u64> {
        call(|p: &'static P| async move { p.write_file(&at, &transfer, &options, offset, data, eof).await })
    }

    fn stat(at: wit::Location, follow: bool) -> Answer<wit::FileInfo> {
        call(|p: &'static P| async move { p.stat(&at, follow).await })
    }

    fn list_directory(at: wit::Location, cursor: Option<String>, max: u32) -> Answer<wit::FilePage> {
        call(|p: &'static P| async move { p.list_directory(&at, cursor, max).await })
    }

    fn make_directory(at: wit::Location, parents: bool) -> Answer<()> {
        call(|p: &'static P| async move { p.make_directory(&at, parents).await })
    }

    fn remove(at: wit::Location, recursive: bool) -> Answer<()> {
        call(|p: &'static P| async move { p.remove(&at, recursive).await })
    }

    fn rename(at: wit::Location, to: String, replace: bool) -> Answer<()> {
        call(|p: &'static P| async move { p.rename(&at, &to, replace).await })
    }

    fn make_symlink(at: wit::Location, target: String) -> Answer<()> {
        call(|p: &'static P| async move { p.make_symlink(&at, &target).await })
    }

    fn set_permissions(at: wit::Location, permissions: u32) -> Answer<()> {
        call(|p: &'static P| async move { p.set_permissions(&at, permissions).await })
    }
}

impl<P: Instance> wit::trees::Guest for Component<P> {
    fn read_tree(at: wit::Location, transfer: String, offset: u64, max_bytes: u32) -> Answer<wit::FileChunk> {
        call(|p: &'static P| async move { p.read_tree(&at, &transfer, offset, max_bytes).await })
    }

    fn write_tree(at: wit::Location, transfer: String, offset: u64, data: Vec<u8>, eof: bool) -> Answer<u64> {
        call(|p: &'static P| async move { p.write_tree(&at, &transfer, offset, data, eof).await })
    }
}

impl<P: Instance> wit::watches::Guest for Component<P> {
    fn watch(
        at: wit::Location,
        watch: String,
        recursive: bool,
        position: u64,
        max_events: u32,
        wait: u64,
    ) -> Answer<wit::WatchPage> {
        call(|p: &'static P| async move { p.watch(&at, &watch, recursive, position, max_events, wait).await })
    }
}

impl<P: Instance> wit::images::Guest for Component<P> {
    fn missing_content(contents: Vec<wit::Content>) -> Answer<Vec<String>> {
        call(|p: &'static P| async move { p.missing_content(&contents).await })
    }

    fn upload_content(content: wit::Content, offset: u64, data: Vec<u8>) -> Answer<u64> {
        call(|p: &'static P| async move { p.upload_content(&content, offset, data).await })
    }

    fn start_build(spec: wit::ImageSpec) -> Answer<wit::BuildProgress> {
        call(|p: &'static P| async move { p.start_build(&spec).await })
    }

    fn read_build(cursor: String, max_bytes: u32, wait: u64) -> Answer<wit::BuildProgress> {
        call(|p: &'static P| async move { p.read_build(&cursor, max_bytes, wait).await })
    }

    fn get_image(image: String) -> Answer<wit::BuiltImage> {
        call(|p: &'static P| async move { p.get_image(&image).await })
    }

    fn delete_image(image: String) -> Answer<()> {
        call(|p: &'static P| async move { p.delete_image(&image).await })
    }
}

impl<P: Instance> wit::snapshots::Guest for Component<P> {
    fn snapshot_filesystem(sandbox: String, key: String, ttl: Option<u64>) -> Answer<String> {
        call(|p: &'static P| async move { p.snapshot_filesystem(&sandbox, &key, ttl).await })
    }

    fn snapshot_directory(at: wit::Location, key: String, ttl: Option<u64>) -> Answer<String> {
        call(|p: &'static P| async move { p.snapshot_directory(&at, &key, ttl).await })
    }

    fn exit_snapshot(sandbox: String, wait: u64) -> Answer<Option<String>> {
        call(|p: &'static P| async move { p.exit_snapshot(&sandbox, wait).await })
    }

    fn mount(at: wit::Location, image: Option<String>) -> Answer<()> {
        call(|p: &'static P| async move { p.mount(&at, image.as_deref()).await })
    }

    fn unmount(at: wit::Location) -> Answer<()> {
        call(|p: &'static P| async move { p.unmount(&at).await })
    }
}

impl<P: Instance> wit::memory_snapshots::Guest for Component<P> {
    fn snapshot_memory(sandbox: String, key: String) -> Answer<String> {
        call(|p: &'static P| async move { p.snapshot_memory(&sandbox, &key).await })
    }

    fn restore(snapshot: String, key: String, name: Option<String>) -> Answer<wit::SandboxInfo> {
        call(|p: &'static P| async move { p.restore(&snapshot, &key, name).await })
    }
}

impl<P: Instance> wit::volumes::Guest for Component<P> {
    fn reload_volumes(sandbox: String) -> Answer<()> {
        call(|p: &'static P| async move { p.reload_volumes(&sandbox).await })
    }

    fn delete_volume(volume: String) -> Answer<()> {
        call(|p: &'static P| async move { p.delete_volume(&volume).await })
    }
}

impl<P: Instance> wit::names::Guest for Component<P> {
    fn find(name: String) -> Answer<wit::SandboxInfo> {
        call(|p: &'static P| async move { p.find(&name).await })
    }

    fn set_name(sandbox: String, name: String) -> Answer<()> {
        call(|p: &'static P| async move { p.set_name(&sandbox, &name).await })
    }
}

impl<P: Instance> wit::readiness::Guest for Component<P> {
    fn wait_ready(sandbox: String, wait: u64) -> Answer<bool> {
        call(|p: &'static P| async move { p.wait_ready(&sandbox, wait).await })
    }
}

impl<P: Instance> wit::lifecycle::Guest for Component<P> {
    fn wait_running(sandbox: String, wait: u64) -> Answer<bool> {
        call(|p: &'static P| async move { p.wait_running(&sandbox, wait).await })
    }

    fn pause(sandbox: String) -> Answer<()> {
        call(|p: &'static P| async move { p.pause(&sandbox).await })
    }

    fn stop(sandbox: String) -> Answer<()> {
        call(|p: &'static P| async move { p.stop(&sandbox).await })
    }

    fn resume(sandbox: String) -> Answer<()> {
        call(|p: &'static P| async move { p.resume(&sandbox).await })
    }

    fn extend(sandbox: String, lifetime: u64) -> Answer<u64> {
        call(|p: &'static P| async move { p.extend(&sandbox, lifetime).await })
    }
}

impl<P: Instance> wit::network::Guest for Component<P> {
    fn set_network(sandbox: String, policy: wit::NetworkPolicy) -> Answer<()> {
        call(|p: &'static P| async move { p.set_network(&sandbox, &policy).await })
    }
}

impl<P: Instance> wit::tunnels::Guest for Component<P> {
    fn tunnels(sandbox: String, wait: u64) -> Answer<Vec<wit::Tunnel>> {
        call(|p: &'static P| async move { p.tunnels(&sandbox, wait).await })
    }

    fn create_connect_token(sandbox: String, port: u16, metadata: String) -> Answer<wit::ConnectToken> {
        call(|p: &'static P| async move { p.create_connect_token(&sandbox, port, metadata).await })
    }
}

impl<P: Instance> wit::sidecars::Guest for Component<P> {
    fn create_sidecar(sandbox: String, spec: wit::SidecarSpec) -> Answer<wit::SidecarInfo> {
        call(|p: &'static P| async move { p.create_sidecar(&sandbox, &spec).await })
    }

    fn list_sidecars(sandbox: String) -> Answer<Vec<wit::SidecarInfo>> {
        call(|p: &'static P| async move { p.list_sidecars(&sandbox).await })
    }

    fn wait_sidecar(sandbox: String, name: String, wait: u64) -> Answer<Option<wit::EndReason>> {
        call(|p: &'static P| async move { p.wait_sidecar(&sandbox, &name, wait).await })
    }

    fn terminate_sidecar(sandbox: String, name: String) -> Answer<()> {
        call(|p: &'static P| async move { p.terminate_sidecar(&sandbox, &name).await })
    }
}

impl<P: Instance> wit::logs::Guest for Component<P> {
    fn read_logs(
        sandbox: String,
        query: wit::LogQuery,
        cursor: Option<String>,
        max_bytes: u32,
    ) -> Answer<wit::LogPage> {
        call(|p: &'static P| async move { p.read_logs(&sandbox, &query, cursor, max_bytes).await })
    }
}

impl<P: Instance> wit::usage::Guest for Component<P> {
    fn report_usage(sandbox: String) -> Answer<wit::UsageReport> {
        call(|p: &'static P| async move { p.report_usage(&sandbox).await })
    }
}

impl<P: Instance> wit::cache::Guest for Component<P> {
    fn export_cache() -> Vec<u8> {
        P::instance().export_cache()
    }

    fn import_cache(cache: Vec<u8>) {
        P::instance().import_cache(&cache);
    }
}

impl<P: Instance> wit::inventory::Guest for Component<P> {
    fn list_images(cursor: Option<String>, max: u32) -> Answer<wit::ImagePage> {
        call(|p: &'static P| async move { p.list_images(cursor, max).await })
    }

    fn list_execs(sandbox: String, cursor: Option<String>, max: u32) -> Answer<wit::ExecPage> {
        call(|p: &'static P| async move { p.list_execs(&sandbox, cursor, max).await })
    }

    fn delete_memory_snapshot(snapshot: String) -> Answer<()> {
        call(|p: &'static P| async move { p.delete_memory_snapshot(&snapshot).await })
    }
}

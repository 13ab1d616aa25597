//! The adapter for plugins of the versions 0.1.0 and 0.1.1: one interface with all functions, and records with fewer
//! settings. `convert` has the conversions.

mod convert;
mod v0_1_0;
mod v0_1_1;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use self::convert::{Argument as _, Downgrade as _, Missing, Upgrade};
use super::types::*;
use super::{Answer, unsupported};

/// A component with linked imports, by its interface version.
pub(crate) enum Pre<T: 'static> {
    V0_1_1(v0_1_1::PluginPre<T>),
    V0_1_0(v0_1_0::PluginPre<T>),
}

/// An instance, by its interface version.
pub(crate) enum Bound {
    V0_1_1(v0_1_1::Plugin),
    V0_1_0(v0_1_0::Plugin),
}

impl<T: Send + 'static> Pre<T> {
    /// Prepares a component. `version` is `0.1.0` or `0.1.1`.
    pub(crate) fn new(version: &str, component: InstancePre<T>) -> wasmtime::Result<Pre<T>> {
        match version {
            "0.1.0" => v0_1_0::PluginPre::new(component).map(Pre::V0_1_0),
            _ => v0_1_1::PluginPre::new(component).map(Pre::V0_1_1),
        }
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<T>) -> wasmtime::Result<Bound> {
        match self {
            Pre::V0_1_1(pre) => pre.instantiate_async(store).await.map(Bound::V0_1_1),
            Pre::V0_1_0(pre) => pre.instantiate_async(store).await.map(Bound::V0_1_0),
        }
    }
}

impl Bound {
    /// Returns the functions of the interface.
    pub(crate) fn guest(&self) -> Guest<'_> {
        match self {
            Bound::V0_1_1(plugin) => Guest::V0_1_1(plugin.harness_sandbox_sandbox_provider()),
            Bound::V0_1_0(plugin) => Guest::V0_1_0(plugin.harness_sandbox_sandbox_provider()),
        }
    }
}

/// The exported functions of a plugin.
#[derive(Clone, Copy)]
pub(crate) enum Guest<'a> {
    V0_1_1(&'a v0_1_1::exports::harness::sandbox::sandbox_provider::Guest),
    V0_1_0(&'a v0_1_0::exports::harness::sandbox::sandbox_provider::Guest),
}

/// Why a setting that 0.1 does not have is refused.
const NO_SETTING: &str = "the plugin has version 0.1 of the interface, which does not have this setting";

/// Converts an argument that is marked as `changed`. Returns the error from the surrounding function if version 0.1 cannot
/// express it.
macro_rules! converted {
    ($value:ident) => {
        $value
    };
    ($value:ident changed) => {
        match $value.downgrade() {
            Ok(value) => value,
            Err(Missing(capability)) => return Ok(Err(unsupported(capability, NO_SETTING))),
        }
    };
}

/// Passes an argument on in the form that the bindings take.
macro_rules! form {
    ($value:ident) => {
        $value
    };
    ($value:ident changed) => {
        $value.form()
    };
}

/// Converts a reply and its error.
fn answer<R: Upgrade>(reply: wasmtime::Result<Result<R, v0_1_1::harness::sandbox::types::Error>>) -> Answer<R::New> {
    Ok(reply?.map(R::upgrade).map_err(Upgrade::upgrade))
}

/// Defines the functions that both versions have. The arguments marked as `changed` are records that need a conversion.
macro_rules! in_both_versions {
    ($($function:ident($($name:ident: $kind:ty $(=> $changed:ident)?),*) -> $answer:ty;)*) => {
        // The interface determines the number of arguments.
        #[allow(clippy::too_many_arguments)]
        impl Guest<'_> {$(
            pub(crate) async fn $function<T: Send + 'static>(
                self,
                store: &mut Store<T>,
                $($name: $kind),*
            ) -> Answer<$answer> {
                $(let $name = converted!($name $($changed)?);)*
                answer(match self {
                    Guest::V0_1_1(guest) => guest.$function(store, $(form!($name $($changed)?)),*).await,
                    Guest::V0_1_0(guest) => guest.$function(store, $(form!($name $($changed)?)),*).await,
                })
            }
        )*}
    };
}

in_both_versions! {
    call_describe() -> Description;
    call_check() -> ();
    call_create(spec: &SandboxSpec => changed) -> SandboxInfo;
    call_get(sandbox: &SandboxId) -> SandboxInfo;
    call_list(filter: &ListFilter => changed, cursor: Option<&str>, max: u32) -> SandboxPage;
    call_wait(sandbox: &SandboxId, wait: u64) -> Option<EndReason>;
    call_terminate(sandbox: &SandboxId) -> ();
    call_get_tags(sandbox: &SandboxId) -> Vec<Pair>;
    call_set_tags(sandbox: &SandboxId, tags: &[Pair]) -> ();
    call_run(sandbox: &SandboxId, spec: &ExecSpec => changed, stdin: &[u8], limits: OutputLimits => changed) -> RunResult;
    call_start(sandbox: &SandboxId, spec: &ExecSpec => changed) -> ();
    call_read_output(exec: &ExecRef => changed, request: ReadRequest => changed) -> Output;
    call_write_input(exec: &ExecRef => changed, offset: u64, data: &[u8], eof: bool) -> InputState;
    call_wait_exec(exec: &ExecRef => changed, wait: u64) -> Option<Verdict>;
    call_signal(exec: &ExecRef => changed, signal: u32) -> ();
    call_resize(exec: &ExecRef => changed, size: &Pty => changed) -> ();
    call_read_file(at: &Location => changed, transfer: &ExecId, offset: u64, max_bytes: u32) -> FileChunk;
    call_write_file(at: &Location => changed, transfer: &ExecId, options: &WriteOptions => changed, offset: u64, data: &[u8], eof: bool) -> u64;
    call_stat(at: &Location => changed, follow: bool) -> FileInfo;
    call_list_directory(at: &Location => changed, cursor: Option<&str>, max: u32) -> FilePage;
    call_make_directory(at: &Location => changed, parents: bool) -> ();
    call_remove(at: &Location => changed, recursive: bool) -> ();
    call_rename(at: &Location => changed, to: &str, replace: bool) -> ();
    call_make_symlink(at: &Location => changed, target: &str) -> ();
    call_set_permissions(at: &Location => changed, permissions: u32) -> ();
    call_read_tree(at: &Location => changed, transfer: &ExecId, offset: u64, max_bytes: u32) -> FileChunk;
    call_write_tree(at: &Location => changed, transfer: &ExecId, offset: u64, data: &[u8], eof: bool) -> u64;
    call_watch(at: &Location => changed, watch: &ExecId, recursive: bool, position: u64, max_events: u32, wait: u64) -> WatchPage;
    call_missing_content(contents: &[Content] => changed) -> Vec<String>;
    call_upload_content(content: &Content => changed, offset: u64, data: &[u8]) -> u64;
    call_start_build(spec: &ImageSpec => changed) -> BuildProgress;
    call_read_build(cursor: &str, max_bytes: u32, wait: u64) -> BuildProgress;
    call_get_image(image: &ImageId) -> BuiltImage;
    call_delete_image(image: &ImageId) -> ();
    call_snapshot_filesystem(sandbox: &SandboxId, key: &str, ttl: Option<u64>) -> String;
    call_snapshot_directory(at: &Location => changed, key: &str, ttl: Option<u64>) -> String;
    call_exit_snapshot(sandbox: &SandboxId, wait: u64) -> Option<String>;
    call_snapshot_memory(sandbox: &SandboxId, key: &str) -> String;
    call_restore(snapshot: &SnapshotId, key: &str, name: Option<&str>) -> SandboxInfo;
    call_mount(at: &Location => changed, image: Option<&ImageId>) -> ();
    call_unmount(at: &Location => changed) -> ();
    call_reload_volumes(sandbox: &SandboxId) -> ();
    call_find(name: &str) -> SandboxInfo;
    call_set_name(sandbox: &SandboxId, name: &str) -> ();
    call_wait_ready(sandbox: &SandboxId, wait: u64) -> bool;
    call_set_network(sandbox: &SandboxId, policy: &NetworkPolicy => changed) -> ();
    call_tunnels(sandbox: &SandboxId, wait: u64) -> Vec<Tunnel>;
    call_create_connect_token(sandbox: &SandboxId, port: u16, metadata: &str) -> ConnectToken;
    call_create_sidecar(sandbox: &SandboxId, spec: &SidecarSpec => changed) -> SidecarInfo;
    call_list_sidecars(sandbox: &SandboxId) -> Vec<SidecarInfo>;
    call_wait_sidecar(sandbox: &SandboxId, name: &str, wait: u64) -> Option<EndReason>;
    call_terminate_sidecar(sandbox: &SandboxId, name: &str) -> ();
    call_read_logs(sandbox: &SandboxId, query: &LogQuery => changed, cursor: Option<&str>, max_bytes: u32) -> LogPage;
    call_stats(sandbox: &SandboxId) -> Usage;
}

/// Defines the functions that are new in 0.2, which fail with `unsupported`.
macro_rules! new_in_0_2 {
    ($($function:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        impl Guest<'_> {$(
            pub(crate) async fn $function<T: Send + 'static>(
                self,
                _store: &mut Store<T>,
                $($name: $kind),*
            ) -> Answer<$answer> {
                $(let _ = $name;)*
                Ok(Err(newer(stringify!($function), "0.2.0")))
            }
        )*}
    };
}

new_in_0_2! {
    call_list_execs(sandbox: &SandboxId, cursor: Option<&str>, max: u32) -> ExecPage;
    call_list_images(cursor: Option<&str>, max: u32) -> ImagePage;
    call_delete_memory_snapshot(snapshot: &SnapshotId) -> ();
    call_wait_running(sandbox: &SandboxId, wait: u64) -> bool;
    call_pause(sandbox: &SandboxId) -> ();
    call_stop(sandbox: &SandboxId) -> ();
    call_resume(sandbox: &SandboxId) -> ();
    call_extend(sandbox: &SandboxId, lifetime: u64) -> u64;
}

impl Guest<'_> {
    pub(crate) async fn call_export_cache<T: Send + 'static>(self, store: &mut Store<T>) -> wasmtime::Result<Vec<u8>> {
        match self {
            Guest::V0_1_1(guest) => guest.call_export_cache(store).await,
            Guest::V0_1_0(guest) => guest.call_export_cache(store).await,
        }
    }

    pub(crate) async fn call_import_cache<T: Send + 'static>(
        self,
        store: &mut Store<T>,
        cache: &[u8],
    ) -> wasmtime::Result<()> {
        match self {
            Guest::V0_1_1(guest) => guest.call_import_cache(store, cache).await,
            Guest::V0_1_0(guest) => guest.call_import_cache(store, cache).await,
        }
    }

    /// New in 0.1.1. Fails with `unsupported` for older plugins.
    pub(crate) async fn call_check_spec<T: Send + 'static>(
        self,
        store: &mut Store<T>,
        spec: &SandboxSpec,
    ) -> Answer<()> {
        let spec = converted!(spec changed);
        match self {
            Guest::V0_1_1(guest) => answer(guest.call_check_spec(store, &spec).await),
            Guest::V0_1_0(_) => Ok(Err(newer("call_check_spec", "0.1.1"))),
        }
    }

    /// New in 0.1.1. Fails with `unsupported` for older plugins.
    pub(crate) async fn call_delete_volume<T: Send + 'static>(self, store: &mut Store<T>, volume: &str) -> Answer<()> {
        match self {
            Guest::V0_1_1(guest) => answer(guest.call_delete_volume(store, volume).await),
            Guest::V0_1_0(_) => Ok(Err(newer("call_delete_volume", "0.1.1"))),
        }
    }

    /// New in 0.1.1. Returns only the totals for older plugins.
    pub(crate) async fn call_report_usage<T: Send + 'static>(
        self,
        store: &mut Store<T>,
        sandbox: &SandboxId,
    ) -> Answer<UsageReport> {
        match self {
            Guest::V0_1_1(guest) => answer(guest.call_report_usage(store, sandbox).await),
            Guest::V0_1_0(_) => Ok(self.call_stats(store, sandbox).await?.map(only_totals)),
        }
    }
}

fn only_totals(totals: Usage) -> UsageReport {
    UsageReport {
        totals,
        cost: None,
        cost_by_resource: Vec::new(),
        billed_cpu_core_millis: None,
        billed_memory_mib_millis: None,
        running: None,
        distributions: Vec::new(),
        extra: Vec::new(),
    }
}

/// The error for a function that is newer than the plugin. `function` is its name in the bindings.
fn newer(function: &str, since: &str) -> Error {
    let function = function.trim_start_matches("call_").replace('_', "-");
    let why =
        format!("the plugin implements a version before {} {since}, which introduced `{function}`", super::PACKAGE);
    unsupported(&function, &why)
}

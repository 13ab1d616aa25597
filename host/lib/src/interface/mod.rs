//! The interface `harness:sandbox` in Rust, with one module for each version that a plugin may have.
//!
//! The rest of the host uses only the newest version: its records are [`types`], and [`Guest`] has a method for each of
//! its functions. The module of an older version is generated from the text of that version (`wit/old`). It shares
//! records that are unchanged and converts those that have changed. Functions that an old plugin does not have are
//! answered in this file. Old plugins therefore keep working, and only this folder knows about old versions. A new
//! version of the interface needs: its text in `wit/`, the previous text in `wit/old/`, a module here, and an entry in
//! [`INTERFACE_VERSIONS`].

mod v0_1_0;
mod v0_1_1;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use self::types::*;
pub use self::v0_1_1::harness::sandbox::types;

/// The package, and the interface in it, that a provider exports.
pub(crate) const PACKAGE: &str = "harness:sandbox";
pub(crate) const INTERFACE: &str = "harness:sandbox/sandbox-provider";

/// The newest version of the interface that this host supports.
pub const INTERFACE_VERSION: &str = "0.1.1";

/// All versions of the interface that this host supports, newest first.
pub const INTERFACE_VERSIONS: [&str; 2] = [INTERFACE_VERSION, "0.1.0"];

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
    /// Prepares a component. `version` is one of [`INTERFACE_VERSIONS`].
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

/// The exported functions of a plugin, with the signatures of the newest version.
#[derive(Clone, Copy)]
pub(crate) enum Guest<'a> {
    V0_1_1(&'a v0_1_1::exports::harness::sandbox::sandbox_provider::Guest),
    V0_1_0(&'a v0_1_0::exports::harness::sandbox::sandbox_provider::Guest),
}

/// The result of a function of the interface, or the error with which the plugin was stopped.
type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// Defines the functions that are equal in all versions.
macro_rules! in_all_versions {
    ($($function:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*) => {
        // The interface determines the number of arguments.
        #[allow(clippy::too_many_arguments)]
        impl Guest<'_> {$(
            pub(crate) async fn $function<T: Send + 'static>(
                self,
                store: &mut Store<T>,
                $($name: $kind),*
            ) -> Answer<$answer> {
                match self {
                    Guest::V0_1_1(guest) => guest.$function(store, $($name),*).await,
                    Guest::V0_1_0(guest) => guest.$function(store, $($name),*).await,
                }
            }
        )*}
    };
}

in_all_versions! {
    call_describe() -> Description;
    call_check() -> ();
    call_missing_content(contents: &[Content]) -> Vec<String>;
    call_upload_content(content: &Content, offset: u64, data: &[u8]) -> u64;
    call_start_build(spec: &ImageSpec) -> BuildProgress;
    call_read_build(cursor: &str, max_bytes: u32, wait: u64) -> BuildProgress;
    call_get_image(image: &ImageId) -> BuiltImage;
    call_delete_image(image: &ImageId) -> ();
    call_create(spec: &SandboxSpec) -> SandboxInfo;
    call_get(sandbox: &SandboxId) -> SandboxInfo;
    call_find(name: &str) -> SandboxInfo;
    call_list(filter: &ListFilter, cursor: Option<&str>, max: u32) -> SandboxPage;
    call_wait(sandbox: &SandboxId, wait: u64) -> Option<EndReason>;
    call_wait_ready(sandbox: &SandboxId, wait: u64) -> bool;
    call_terminate(sandbox: &SandboxId) -> ();
    call_set_name(sandbox: &SandboxId, name: &str) -> ();
    call_get_tags(sandbox: &SandboxId) -> Vec<Pair>;
    call_set_tags(sandbox: &SandboxId, tags: &[Pair]) -> ();
    call_tunnels(sandbox: &SandboxId, wait: u64) -> Vec<Tunnel>;
    call_create_connect_token(sandbox: &SandboxId, port: u16, metadata: &str) -> ConnectToken;
    call_read_logs(sandbox: &SandboxId, query: &LogQuery, cursor: Option<&str>, max_bytes: u32) -> LogPage;
    call_stats(sandbox: &SandboxId) -> Usage;
    call_set_network(sandbox: &SandboxId, policy: &NetworkPolicy) -> ();
    call_reload_volumes(sandbox: &SandboxId) -> ();
    call_snapshot_filesystem(sandbox: &SandboxId, key: &str, ttl: Option<u64>) -> String;
    call_snapshot_directory(at: &Location, key: &str, ttl: Option<u64>) -> String;
    call_mount(at: &Location, image: Option<&ImageId>) -> ();
    call_unmount(at: &Location) -> ();
    call_snapshot_memory(sandbox: &SandboxId, key: &str) -> String;
    call_restore(snapshot: &SnapshotId, key: &str, name: Option<&str>) -> SandboxInfo;
    call_exit_snapshot(sandbox: &SandboxId, wait: u64) -> Option<String>;
    call_create_sidecar(sandbox: &SandboxId, spec: &SidecarSpec) -> SidecarInfo;
    call_list_sidecars(sandbox: &SandboxId) -> Vec<SidecarInfo>;
    call_wait_sidecar(sandbox: &SandboxId, name: &str, wait: u64) -> Option<EndReason>;
    call_terminate_sidecar(sandbox: &SandboxId, name: &str) -> ();
    call_start(sandbox: &SandboxId, spec: &ExecSpec) -> ();
    call_read_output(exec: &ExecRef, request: ReadRequest) -> Output;
    call_write_input(exec: &ExecRef, offset: u64, data: &[u8], eof: bool) -> InputState;
    call_wait_exec(exec: &ExecRef, wait: u64) -> Option<Verdict>;
    call_signal(exec: &ExecRef, signal: u32) -> ();
    call_resize(exec: &ExecRef, size: &Pty) -> ();
    call_run(sandbox: &SandboxId, spec: &ExecSpec, stdin: &[u8], limits: OutputLimits) -> RunResult;
    call_read_file(at: &Location, transfer: &ExecId, offset: u64, max_bytes: u32) -> FileChunk;
    call_write_file(at: &Location, transfer: &ExecId, options: &WriteOptions, offset: u64, data: &[u8], eof: bool) -> u64;
    call_stat(at: &Location, follow: bool) -> FileInfo;
    call_list_directory(at: &Location, cursor: Option<&str>, max: u32) -> FilePage;
    call_make_directory(at: &Location, parents: bool) -> ();
    call_remove(at: &Location, recursive: bool) -> ();
    call_rename(at: &Location, to: &str, replace: bool) -> ();
    call_make_symlink(at: &Location, target: &str) -> ();
    call_set_permissions(at: &Location, permissions: u32) -> ();
    call_read_tree(at: &Location, transfer: &ExecId, offset: u64, max_bytes: u32) -> FileChunk;
    call_write_tree(at: &Location, transfer: &ExecId, offset: u64, data: &[u8], eof: bool) -> u64;
    call_watch(at: &Location, watch: &ExecId, recursive: bool, position: u64, max_events: u32, wait: u64) -> WatchPage;
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
        match self {
            Guest::V0_1_1(guest) => guest.call_check_spec(store, spec).await,
            Guest::V0_1_0(_) => Ok(Err(missing("check-spec", "0.1.1"))),
        }
    }

    /// New in 0.1.1. Fails with `unsupported` for older plugins.
    pub(crate) async fn call_delete_volume<T: Send + 'static>(self, store: &mut Store<T>, volume: &str) -> Answer<()> {
        match self {
            Guest::V0_1_1(guest) => guest.call_delete_volume(store, volume).await,
            Guest::V0_1_0(_) => Ok(Err(missing("delete-volume", "0.1.1"))),
        }
    }

    /// New in 0.1.1. Returns only the totals for older plugins.
    pub(crate) async fn call_report_usage<T: Send + 'static>(
        self,
        store: &mut Store<T>,
        sandbox: &SandboxId,
    ) -> Answer<UsageReport> {
        match self {
            Guest::V0_1_1(guest) => guest.call_report_usage(store, sandbox).await,
            Guest::V0_1_0(guest) => Ok(guest.call_stats(store, sandbox).await?.map(only_totals)),
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

/// The error for a function that the plugin's older version does not have.
fn missing(function: &str, since: &str) -> Error {
    Error {
        kind: ErrorKind::Unsupported,
        message: format!("The plugin implements a version before {PACKAGE} {since}, which introduced `{function}`."),
        happened: Happened::No,
        retry: RetryAdvice::Never,
        provider_code: None,
        provider_message: None,
        subject: Some(function.to_owned()),
        extra: Vec::new(),
    }
}

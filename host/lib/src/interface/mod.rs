//! The interfaces of `harness:sandbox` in Rust, with one module for each version that a plugin may have.
//!
//! The rest of the host uses only the newest version: its records are [`types`], and [`Guest`] has a method for each of
//! its functions. A function of an interface that a plugin does not export fails with `unsupported`. Plugins of version 0.1
//! keep working by the adapter `v0_1`, which converts requests and replies, and only this folder knows about old versions.
//! A new version of the interface needs: its text in `wit/`, the previous text in `wit/old/`, a module here, and an entry
//! in [`INTERFACE_VERSIONS`].

mod v0_1;
mod v0_2_0;

use wasmtime::Store;
use wasmtime::component::InstancePre;

use self::types::*;
pub use self::v0_2_0::harness::sandbox::types;

/// The package, and the interface in it, that every provider exports.
pub(crate) const PACKAGE: &str = "harness:sandbox";
pub(crate) const INTERFACE: &str = "harness:sandbox/sandbox-provider";

/// The newest version of the interface that this host supports.
pub const INTERFACE_VERSION: &str = "0.2.0";

/// All versions of the interface that this host supports, newest first.
pub const INTERFACE_VERSIONS: [&str; 3] = [INTERFACE_VERSION, "0.1.1", "0.1.0"];

/// A component with linked imports, by its interface version.
pub(crate) enum Pre<T: 'static> {
    V0_2(v0_2_0::Pre<T>),
    V0_1(v0_1::Pre<T>),
}

/// An instance, by its interface version.
pub(crate) enum Bound {
    V0_2(Box<v0_2_0::Exports>),
    V0_1(Box<v0_1::Bound>),
}

impl<T: Send + 'static> Pre<T> {
    /// Prepares a component. `version` is one of [`INTERFACE_VERSIONS`].
    pub(crate) fn new(version: &str, component: InstancePre<T>) -> wasmtime::Result<Pre<T>> {
        match version {
            INTERFACE_VERSION => v0_2_0::Pre::new(component).map(Pre::V0_2),
            older => v0_1::Pre::new(older, component).map(Pre::V0_1),
        }
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<T>) -> wasmtime::Result<Bound> {
        match self {
            Pre::V0_2(pre) => pre.instantiate(store).await.map(|exports| Bound::V0_2(Box::new(exports))),
            Pre::V0_1(pre) => pre.instantiate(store).await.map(|bound| Bound::V0_1(Box::new(bound))),
        }
    }
}

impl Bound {
    /// Returns the functions of the interface.
    pub(crate) fn guest(&self) -> Guest<'_> {
        match self {
            Bound::V0_2(exports) => Guest::V0_2(exports),
            Bound::V0_1(bound) => Guest::V0_1(bound.guest()),
        }
    }
}

/// The exported functions of a plugin, with the signatures of the newest version.
#[derive(Clone, Copy)]
pub(crate) enum Guest<'a> {
    V0_2(&'a v0_2_0::Exports),
    V0_1(v0_1::Guest<'a>),
}

/// The result of a function of the interface, or the error with which the plugin was stopped.
type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// Defines the functions of all interfaces.
macro_rules! functions {
    ($($interface:ident {
        $($function:ident($($name:ident: $kind:ty),*) -> $answer:ty;)*
    })*) => {
        // The interface determines the number of arguments.
        #[allow(clippy::too_many_arguments)]
        impl Guest<'_> {$($(
            pub(crate) async fn $function<T: Send + 'static>(
                self,
                store: &mut Store<T>,
                $($name: $kind),*
            ) -> Answer<$answer> {
                match self {
                    Guest::V0_2(exports) => match &exports.$interface {
                        Some(guest) => guest.$function(store, $($name),*).await,
                        None => Ok(Err(not_exported(stringify!($interface)))),
                    },
                    Guest::V0_1(guest) => guest.$function(store, $($name),*).await,
                }
            }
        )*)*}
    };
}

functions! {
    sandbox_provider {
        call_describe() -> Description;
        call_check() -> ();
        call_check_spec(spec: &SandboxSpec) -> ();
        call_create(spec: &SandboxSpec) -> SandboxInfo;
        call_get(sandbox: &SandboxId) -> SandboxInfo;
        call_list(filter: &ListFilter, cursor: Option<&str>, max: u32) -> SandboxPage;
        call_wait(sandbox: &SandboxId, wait: u64) -> Option<EndReason>;
        call_terminate(sandbox: &SandboxId) -> ();
        call_get_tags(sandbox: &SandboxId) -> Vec<Pair>;
        call_set_tags(sandbox: &SandboxId, tags: &[Pair]) -> ();
    }
    exec {
        call_run(sandbox: &SandboxId, spec: &ExecSpec, stdin: &[u8], limits: OutputLimits) -> RunResult;
    }
    processes {
        call_start(sandbox: &SandboxId, spec: &ExecSpec) -> ();
        call_read_output(exec: &ExecRef, request: ReadRequest) -> Output;
        call_write_input(exec: &ExecRef, offset: u64, data: &[u8], eof: bool) -> InputState;
        call_wait_exec(exec: &ExecRef, wait: u64) -> Option<Verdict>;
        call_signal(exec: &ExecRef, signal: u32) -> ();
        call_resize(exec: &ExecRef, size: &Pty) -> ();
    }
    files {
        call_read_file(at: &Location, transfer: &ExecId, offset: u64, max_bytes: u32) -> FileChunk;
        call_write_file(at: &Location, transfer: &ExecId, options: &WriteOptions, offset: u64, data: &[u8], eof: bool) -> u64;
        call_stat(at: &Location, follow: bool) -> FileInfo;
        call_list_directory(at: &Location, cursor: Option<&str>, max: u32) -> FilePage;
        call_make_directory(at: &Location, parents: bool) -> ();
        call_remove(at: &Location, recursive: bool) -> ();
        call_rename(at: &Location, to: &str, replace: bool) -> ();
        call_make_symlink(at: &Location, target: &str) -> ();
        call_set_permissions(at: &Location, permissions: u32) -> ();
    }
    trees {
        call_read_tree(at: &Location, transfer: &ExecId, offset: u64, max_bytes: u32) -> FileChunk;
        call_write_tree(at: &Location, transfer: &ExecId, offset: u64, data: &[u8], eof: bool) -> u64;
    }
    watches {
        call_watch(at: &Location, watch: &ExecId, recursive: bool, position: u64, max_events: u32, wait: u64) -> WatchPage;
    }
    images {
        call_missing_content(contents: &[Content]) -> Vec<String>;
        call_upload_content(content: &Content, offset: u64, data: &[u8]) -> u64;
        call_start_build(spec: &ImageSpec) -> BuildProgress;
        call_read_build(cursor: &str, max_bytes: u32, wait: u64) -> BuildProgress;
        call_get_image(image: &ImageId) -> BuiltImage;
        call_delete_image(image: &ImageId) -> ();
    }
    snapshots {
        call_snapshot_filesystem(sandbox: &SandboxId, key: &str, ttl: Option<u64>) -> String;
        call_snapshot_directory(at: &Location, key: &str, ttl: Option<u64>) -> String;
        call_exit_snapshot(sandbox: &SandboxId, wait: u64) -> Option<String>;
        call_mount(at: &Location, image: Option<&ImageId>) -> ();
        call_unmount(at: &Location) -> ();
    }
    memory_snapshots {
        call_snapshot_memory(sandbox: &SandboxId, key: &str) -> String;
        call_restore(snapshot: &SnapshotId, key: &str, name: Option<&str>) -> SandboxInfo;
    }
    inventory {
        call_list_images(cursor: Option<&str>, max: u32) -> ImagePage;
        call_list_execs(sandbox: &SandboxId, cursor: Option<&str>, max: u32) -> ExecPage;
        call_delete_memory_snapshot(snapshot: &SnapshotId) -> ();
    }
    volumes {
        call_reload_volumes(sandbox: &SandboxId) -> ();
        call_delete_volume(volume: &str) -> ();
    }
    names {
        call_find(name: &str) -> SandboxInfo;
        call_set_name(sandbox: &SandboxId, name: &str) -> ();
    }
    readiness {
        call_wait_ready(sandbox: &SandboxId, wait: u64) -> bool;
    }
    lifecycle {
        call_wait_running(sandbox: &SandboxId, wait: u64) -> bool;
        call_pause(sandbox: &SandboxId) -> ();
        call_stop(sandbox: &SandboxId) -> ();
        call_resume(sandbox: &SandboxId) -> ();
        call_extend(sandbox: &SandboxId, lifetime: u64) -> u64;
    }
    network {
        call_set_network(sandbox: &SandboxId, policy: &NetworkPolicy) -> ();
    }
    tunnels {
        call_tunnels(sandbox: &SandboxId, wait: u64) -> Vec<Tunnel>;
        call_create_connect_token(sandbox: &SandboxId, port: u16, metadata: &str) -> ConnectToken;
    }
    sidecars {
        call_create_sidecar(sandbox: &SandboxId, spec: &SidecarSpec) -> SidecarInfo;
        call_list_sidecars(sandbox: &SandboxId) -> Vec<SidecarInfo>;
        call_wait_sidecar(sandbox: &SandboxId, name: &str, wait: u64) -> Option<EndReason>;
        call_terminate_sidecar(sandbox: &SandboxId, name: &str) -> ();
    }
    logs {
        call_read_logs(sandbox: &SandboxId, query: &LogQuery, cursor: Option<&str>, max_bytes: u32) -> LogPage;
    }
    usage {
        call_report_usage(sandbox: &SandboxId) -> UsageReport;
    }
}

impl Guest<'_> {
    /// Returns an empty cache if the plugin does not export the interface `cache`.
    pub(crate) async fn call_export_cache<T: Send + 'static>(self, store: &mut Store<T>) -> wasmtime::Result<Vec<u8>> {
        match self {
            Guest::V0_2(exports) => match &exports.cache {
                Some(guest) => guest.call_export_cache(store).await,
                None => Ok(Vec::new()),
            },
            Guest::V0_1(guest) => guest.call_export_cache(store).await,
        }
    }

    /// Does nothing if the plugin does not export the interface `cache`.
    pub(crate) async fn call_import_cache<T: Send + 'static>(
        self,
        store: &mut Store<T>,
        cache: &[u8],
    ) -> wasmtime::Result<()> {
        match self {
            Guest::V0_2(exports) => match &exports.cache {
                Some(guest) => guest.call_import_cache(store, cache).await,
                None => Ok(()),
            },
            Guest::V0_1(guest) => guest.call_import_cache(store, cache).await,
        }
    }
}

/// Returns the error for a function of an interface that the plugin does not export. `interface` is a name in Rust.
fn not_exported(interface: &str) -> Error {
    let interface = interface.replace('_', "-");
    let why = format!("the plugin does not export the interface `{interface}`");
    unsupported(&interface, &why)
}

/// Returns an `unsupported` error of the host itself. `subject` is the capability, the interface or the function that the
/// plugin does not have. `why` is a sentence without capital and full stop.
fn unsupported(subject: &str, why: &str) -> Error {
    let mut message = why.to_owned();
    message[..1].make_ascii_uppercase();
    message.push('.');
    Error {
        kind: ErrorKind::Unsupported,
        message,
        happened: Happened::No,
        retry: RetryAdvice::Never,
        provider_code: None,
        provider_message: None,
        subject: Some(subject.to_owned()),
        extra: Vec::new(),
    }
}

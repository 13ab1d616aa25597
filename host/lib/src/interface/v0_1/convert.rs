//! Conversions between the records of version 0.1 and those of the newest version.
//!
//! Requests are converted from new to old. A setting that 0.1 cannot express is an error (`unsupported`), so that no
//! setting is lost. Replies are converted from old to new. They lose nothing, because 0.2 has everything that 0.1 has.

use super::v0_1_1::harness::sandbox::types as old;
use crate::interface::types as new;

/// A reply of version 0.1.
pub(super) trait Upgrade {
    type New;

    fn upgrade(self) -> Self::New;
}

/// A capability that a request needs and that version 0.1 does not have.
pub(super) struct Missing(pub(super) &'static str);

/// A part of a request of the newest version. Fails if version 0.1 cannot express it.
pub(super) trait Downgrade {
    type Old;

    fn downgrade(&self) -> Result<Self::Old, Missing>;
}

/// Implements both conversions for types that are the same in all versions.
macro_rules! same {
    ($($kind:ty),*) => {$(
        impl Upgrade for $kind {
            type New = $kind;

            fn upgrade(self) -> $kind {
                self
            }
        }

        impl Downgrade for $kind {
            type Old = $kind;

            fn downgrade(&self) -> Result<$kind, Missing> {
                Ok(self.clone())
            }
        }
    )*};
}

same!((), bool, u16, u32, u64, i32, f64, String);

// Output and files: moved as a whole.
impl Upgrade for Vec<u8> {
    type New = Vec<u8>;

    fn upgrade(self) -> Vec<u8> {
        self
    }
}

/// Implements both conversions for lists of these types. A general implementation would include `Vec<u8>`.
macro_rules! lists {
    ($($up:ty),*; $($down:ty),*) => {
        $(impl Upgrade for Vec<$up> {
            type New = Vec<<$up as Upgrade>::New>;

            fn upgrade(self) -> Self::New {
                self.into_iter().map(Upgrade::upgrade).collect()
            }
        })*
        $(impl Downgrade for [$down] {
            type Old = Vec<<$down as Downgrade>::Old>;

            fn downgrade(&self) -> Result<Self::Old, Missing> {
                self.iter().map(Downgrade::downgrade).collect()
            }
        }

        impl Downgrade for Vec<$down> {
            type Old = Vec<<$down as Downgrade>::Old>;

            fn downgrade(&self) -> Result<Self::Old, Missing> {
                self.as_slice().downgrade()
            }
        })*
    };
}

lists! {
    String, (String, String), (String, f64), (f64, f64), old::Capability, old::EnvVar, old::LogChunk, old::Tunnel, old::SandboxInfo,
    old::Distribution, old::SidecarInfo, old::FileInfo, old::FileEvent;
    String, (String, String), new::Content, new::ContextFile, new::Port, new::VolumeMount, new::BucketMount, new::SidecarSpec
}

impl<T: Upgrade> Upgrade for Option<T> {
    type New = Option<T::New>;

    fn upgrade(self) -> Self::New {
        self.map(Upgrade::upgrade)
    }
}

impl<T: Downgrade> Downgrade for Option<T> {
    type Old = Option<T::Old>;

    fn downgrade(&self) -> Result<Self::Old, Missing> {
        self.as_ref().map(Downgrade::downgrade).transpose()
    }
}

impl<A: Upgrade, B: Upgrade> Upgrade for (A, B) {
    type New = (A::New, B::New);

    fn upgrade(self) -> Self::New {
        (self.0.upgrade(), self.1.upgrade())
    }
}

impl<A: Downgrade, B: Downgrade> Downgrade for (A, B) {
    type Old = (A::Old, B::Old);

    fn downgrade(&self) -> Result<Self::Old, Missing> {
        Ok((self.0.downgrade()?, self.1.downgrade()?))
    }
}

/// Implements [`Upgrade`] for records whose fields have the same names in both versions.
macro_rules! upgraded_records {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Upgrade for old::$name {
            type New = new::$name;

            fn upgrade(self) -> new::$name {
                new::$name { $($field: self.$field.upgrade()),* }
            }
        }
    )*};
}

/// Implements [`Upgrade`] for variants whose cases exist in both versions.
macro_rules! upgraded_variants {
    ($($name:ident { $($case:ident $(($value:ident))?),* })*) => {$(
        impl Upgrade for old::$name {
            type New = new::$name;

            fn upgrade(self) -> new::$name {
                match self {
                    $(old::$name::$case $(($value))? => new::$name::$case $(($value.upgrade()))?),*
                }
            }
        }
    )*};
}

/// Implements [`Downgrade`] for records whose fields have the same names in both versions.
macro_rules! downgraded_records {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl Downgrade for new::$name {
            type Old = old::$name;

            fn downgrade(&self) -> Result<old::$name, Missing> {
                Ok(old::$name { $($field: self.$field.downgrade()?),* })
            }
        }
    )*};
}

/// Implements [`Downgrade`] for variants. The cases after the semicolon are new, so that they are errors; the text is the
/// capability that the error names.
macro_rules! downgraded_variants {
    ($($name:ident { $($case:ident $(($value:ident))?),* $(; $new:ident => $capability:literal)? })*) => {$(
        impl Downgrade for new::$name {
            type Old = old::$name;

            fn downgrade(&self) -> Result<old::$name, Missing> {
                match self {
                    $(new::$name::$case $(($value))? => Ok(old::$name::$case $(($value.downgrade()?))?),)*
                    $(new::$name::$new(_) => Err(Missing($capability)),)?
                }
            }
        }
    )*};
}

upgraded_records! {
    Error { kind, message, happened, retry, provider_code, provider_message, subject, extra }
    Capability { name, support, note }
    EnvVar { name, purpose, default, secret }
    LogChunk { stream, text, at }
    BuiltImage { id, workdir, extra }
    BuildProgress { log, cursor, image }
    Tunnel { port, kind, public_host, public_port }
    SandboxInfo { id, name, state, image, created, tags, tunnels, extra }
    SandboxPage { items, next }
    LogPage { items, next }
    Usage { cpu_core_millis, memory_mib_millis, gpu_millis, extra }
    Distribution { name, unit, mean, max, percentiles }
    UsageReport { totals, cost, cost_by_resource, billed_cpu_core_millis, billed_memory_mib_millis, running, distributions, extra }
    SidecarInfo { id, name, state }
    OutputChunk { offset, data, end }
    Output { stdout, stderr, verdict }
    InputState { accepted, closed }
    Captured { data, total }
    RunResult { verdict, stdout, stderr, duration }
    FileInfo { name, path, kind, size, mode, owner, group, modified }
    FileChunk { data, end }
    FileEvent { kind, paths }
    WatchPage { events, next, end }
}

upgraded_variants! {
    Happened { No, Unknown, Yes }
    RetryAdvice { Never, Maybe, After(value) }
    FileFault { NotFound, IsADirectory, NotADirectory, AlreadyExists, NotEmpty, PermissionDenied, TooLarge, NoSpace, Other(value) }
    ErrorKind { InvalidArgument, Unsupported, Unauthenticated, PermissionDenied, NotFound, AlreadyExists, Conflict, ResourceExhausted, BuildFailed, SandboxEnded, File(value), TimedOut, Unavailable, Forbidden, Internal, Other(value) }
    Support { Absent, Emulated, Native }
    OutputStream { Stdout, Stderr }
    PortKind { Tls, H2, Tcp }
    EndReason { Finished(value), Terminated, Lifetime, Idle, OutOfMemory, FailedToStart(value), Lost(value), Other(value) }
    SandboxState { Pending, Running, Ended(value), Unknown }
    Verdict { Exited(value), Signaled(value), Deadline, SandboxEnded(value), Lost(value) }
    FileKind { File, Directory, Symlink(value), Other(value) }
    FileEventKind { Created, Modified, Removed, Accessed, Other(value) }
}

downgraded_records! {
    RegistryImage { reference, login }
    Content { sha256, size, digests }
    ContextFile { path, mode, content }
    Dockerfile { text, context, build_args, target, login }
    Gpu { model, count }
    Resources { cpu_request_millicores, cpu_limit_millicores, memory_request_mib, memory_limit_mib, disk_mib, gpu }
    AllowList { cidrs, domains }
    NetworkPolicy { outbound, inbound_cidrs }
    Port { number, kind }
    VolumeMount { volume, path, read_only, sub_path, create }
    BucketMount { bucket, path, endpoint, prefix, secret, read_only, extra }
    Probe { check, interval }
    Pty { rows, columns, term }
    ListFilter { tags, include_ended, extra }
    LogQuery { since, until, stream, search }
    ExecRef { sandbox, exec, deadline, container }
    ExecSpec { id, argv, env, secrets, cwd, user, timeout, pty, stdout, stderr, merge_stderr, container, extra }
    ReadRequest { stdout_offset, stderr_offset, max_bytes, wait }
    OutputLimits { stdout_max, stderr_max, keep }
    WriteOptions { mode, permissions, extra }
}

downgraded_variants! {
    RegistryLogin { StaticSecret(value), AwsSecret(value), GcpSecret(value), AnySecret(value), Other(value); Credential => "image.registry-credentials" }
    ImageSource { ProviderDefault, Id(value), Named(value), Registry(value), Dockerfile(value); Other => "image" }
    OutputStream { Stdout, Stderr }
    Outbound { Open, Blocked, Allowed(value); Other => "network" }
    PortKind { Tls, H2, Tcp }
    Readiness { Tcp(value), Exec(value); Other => "create.readiness" }
    OutputMode { Keep, Discard }
    Keep { Head, Tail }
    WriteMode { Replace, Append, CreateNew }
}

/// Fails if a setting that 0.1 does not have is set.
fn unset<T>(setting: Option<&T>, capability: &'static str) -> Result<(), Missing> {
    setting.map_or(Ok(()), |_| Err(Missing(capability)))
}

/// In 0.1, an empty command is the image's own, and an image without one is kept alive. So `keep-alive` does that too,
/// which is right for images without a command only.
fn words(entry_point: &new::EntryPoint) -> Vec<String> {
    match entry_point {
        new::EntryPoint::KeepAlive | new::EntryPoint::Image => Vec::new(),
        new::EntryPoint::Command(argv) => argv.clone(),
    }
}

impl Downgrade for new::ImageSpec {
    type Old = old::ImageSpec;

    fn downgrade(&self) -> Result<old::ImageSpec, Missing> {
        unset(self.platform.as_ref(), "create.platform")?;
        Ok(old::ImageSpec {
            source: self.source.downgrade()?,
            commands: self.commands.downgrade()?,
            secrets: self.secrets.downgrade()?,
            force: self.force.downgrade()?,
            builder_version: self.builder_version.downgrade()?,
            gpu: self.gpu.downgrade()?,
            extra: self.extra.downgrade()?,
        })
    }
}

impl Downgrade for new::SandboxSpec {
    type Old = old::SandboxSpec;

    fn downgrade(&self) -> Result<old::SandboxSpec, Missing> {
        unset(self.user.as_ref(), "create.user")?;
        Ok(old::SandboxSpec {
            image: self.image.downgrade()?,
            env: self.env.downgrade()?,
            secrets: self.secrets.downgrade()?,
            workdir: self.workdir.downgrade()?,
            resources: self.resources.downgrade()?,
            lifetime: self.lifetime.downgrade()?,
            idle_timeout: self.idle_timeout.downgrade()?,
            regions: self.regions.downgrade()?,
            network: self.network.downgrade()?,
            ports: self.ports.downgrade()?,
            volumes: self.volumes.downgrade()?,
            buckets: self.buckets.downgrade()?,
            name: self.name.downgrade()?,
            tags: self.tags.downgrade()?,
            readiness: self.readiness.downgrade()?,
            sidecars: self.sidecars.downgrade()?,
            pty: self.pty.downgrade()?,
            proxy: self.proxy.downgrade()?,
            key: self.key.downgrade()?,
            options: self.options.downgrade()?,
            extra: self.extra.downgrade()?,
            command: words(&self.entry_point),
        })
    }
}

impl Downgrade for new::SidecarSpec {
    type Old = old::SidecarSpec;

    fn downgrade(&self) -> Result<old::SidecarSpec, Missing> {
        Ok(old::SidecarSpec {
            name: self.name.downgrade()?,
            image: self.image.downgrade()?,
            env: self.env.downgrade()?,
            secrets: self.secrets.downgrade()?,
            workdir: self.workdir.downgrade()?,
            volumes: self.volumes.downgrade()?,
            outbound: self.outbound.downgrade()?,
            extra: self.extra.downgrade()?,
            command: words(&self.entry_point),
        })
    }
}

impl Downgrade for new::Location {
    type Old = old::Location;

    fn downgrade(&self) -> Result<old::Location, Missing> {
        unset(self.user.as_ref(), "files.user")?;
        Ok(old::Location {
            sandbox: self.sandbox.downgrade()?,
            container: self.container.downgrade()?,
            path: self.path.downgrade()?,
        })
    }
}

impl Upgrade for old::FilePage {
    type New = new::FilePage;

    fn upgrade(self) -> new::FilePage {
        new::FilePage { items: self.items.upgrade(), skipped: 0, next: self.next }
    }
}

impl Upgrade for old::ConnectToken {
    type New = new::ConnectToken;

    fn upgrade(self) -> new::ConnectToken {
        let headers = vec![("authorization".to_owned(), format!("Bearer {}", self.token))];
        new::ConnectToken { url: self.url, headers, expires: None }
    }
}

/// The capabilities that every plugin of 0.1 has, because in 0.1 they were not optional.
const ALWAYS: [&str; 2] = ["create.command", "exec.idempotent"];

impl Upgrade for old::Description {
    type New = new::Description;

    fn upgrade(self) -> new::Description {
        let mut capabilities = self.capabilities.upgrade();
        let native =
            |name: &str| new::Capability { name: name.to_owned(), support: new::Support::Native, note: String::new() };
        capabilities.extend(ALWAYS.iter().map(|name| native(name)));
        new::Description {
            name: self.name,
            version: self.version,
            capabilities,
            options_schema: self.options_schema,
            environment: self.environment.upgrade(),
            digests: self.digests,
            extra: self.extra,
        }
    }
}

/// A converted argument in the form that the bindings take: small records by value, others by reference.
pub(super) trait Argument {
    type Form<'b>
    where
        Self: 'b;

    fn form(&self) -> Self::Form<'_>;
}

impl Argument for old::ReadRequest {
    type Form<'b> = old::ReadRequest;

    fn form(&self) -> old::ReadRequest {
        *self
    }
}

impl Argument for old::OutputLimits {
    type Form<'b> = old::OutputLimits;

    fn form(&self) -> old::OutputLimits {
        *self
    }
}

macro_rules! by_reference {
    ($($kind:ty),*) => {$(
        impl Argument for $kind {
            type Form<'b> = &'b $kind;

            fn form(&self) -> &$kind {
                self
            }
        }
    )*};
}

by_reference!(
    old::Content,
    old::ImageSpec,
    old::SandboxSpec,
    old::ListFilter,
    old::LogQuery,
    old::NetworkPolicy,
    old::Location,
    old::SidecarSpec,
    old::ExecSpec,
    old::ExecRef,
    old::Pty,
    old::WriteOptions
);

impl Argument for Vec<old::Content> {
    type Form<'b> = &'b [old::Content];

    fn form(&self) -> &[old::Content] {
        self
    }
}

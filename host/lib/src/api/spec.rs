//! Builder methods for the specifications of sandboxes, commands and images.
//!
//! The types are the records of the interface, with public fields. The methods here set the common fields. Fields that
//! are not set have the provider's defaults.

use std::time::Duration;

use crate::types;
use crate::types::{
    AllowList, BucketMount, Dockerfile, EntryPoint, ExecSpec, Gpu, ImageSource, ImageSpec, ListFilter, LogQuery,
    NetworkPolicy, Outbound, OutputLimits, OutputMode, Port, PortKind, Probe, Pty, Readiness, RegistryImage,
    RegistryLogin, Resources, SandboxSpec, SidecarSpec, VolumeMount, WriteMode, WriteOptions,
};

pub(crate) fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

impl Default for ImageSpec {
    /// The provider's default image.
    fn default() -> Self {
        ImageSpec {
            source: ImageSource::ProviderDefault,
            commands: vec![],
            secrets: vec![],
            force: false,
            builder_version: None,
            gpu: None,
            platform: None,
            extra: vec![],
        }
    }
}

impl ImageSpec {
    /// Returns an image by its name in a registry, such as `python:3.12-slim`.
    pub fn registry(reference: impl Into<String>) -> Self {
        let source = ImageSource::Registry(RegistryImage { reference: reference.into(), login: None });
        ImageSpec { source, ..Self::default() }
    }

    /// Returns an image of the provider by its id.
    pub fn id(id: impl Into<String>) -> Self {
        ImageSpec { source: ImageSource::Id(id.into()), ..Self::default() }
    }

    /// Returns an image that was published under a name at the provider.
    pub fn named(name: impl Into<String>) -> Self {
        ImageSpec { source: ImageSource::Named(name.into()), ..Self::default() }
    }

    /// Returns an image that is built from the text of a Dockerfile. If its COPY lines need local files, use
    /// [`crate::LocalDockerfile`].
    pub fn dockerfile(text: impl Into<String>) -> Self {
        let dockerfile =
            Dockerfile { text: text.into(), context: vec![], build_args: vec![], target: None, login: None };
        ImageSpec { source: ImageSource::Dockerfile(dockerfile), ..Self::default() }
    }

    /// Adds a Dockerfile line after those of the image, such as `RUN apt-get install -y git`.
    pub fn command(mut self, line: impl Into<String>) -> Self {
        self.commands.push(line.into());
        self
    }

    /// Sets the provider's secret for the login to the registry. The entries of the secret determine the kind of login.
    /// Has no effect on an image that is neither from a registry nor from a Dockerfile.
    pub fn registry_secret(self, secret: impl Into<String>) -> Self {
        self.registry_login(RegistryLogin::AnySecret(secret.into()))
    }

    /// Sets a credential of the plugin's manifest for the login to the registry, by the name that the manifest gives it
    /// in `on_request`. The host adds it to the requests of the plugin, which does not see it. Has no effect on an image
    /// that is neither from a registry nor from a Dockerfile.
    pub fn registry_credential(self, name: impl Into<String>) -> Self {
        self.registry_login(RegistryLogin::Credential(name.into()))
    }

    fn registry_login(mut self, login: RegistryLogin) -> Self {
        match &mut self.source {
            ImageSource::Registry(image) => image.login = Some(login),
            ImageSource::Dockerfile(dockerfile) => dockerfile.login = Some(login),
            ImageSource::ProviderDefault | ImageSource::Id(_) | ImageSource::Named(_) | ImageSource::Other(_) => {}
        }
        self
    }

    /// Adds a secret of the provider, whose entries are environment variables of the RUN lines.
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.push(name.into());
        self
    }

    /// Sets the accelerators that the build uses.
    pub fn gpu(mut self, model: impl Into<String>, count: u32) -> Self {
        self.gpu = Some(Gpu { model: model.into(), count });
        self
    }

    /// Sets the platform, such as `linux/arm64`.
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// Sets the version of the provider's builder.
    pub fn builder_version(mut self, version: impl Into<String>) -> Self {
        self.builder_version = Some(version.into());
        self
    }

    /// Sets whether to build the image even if the provider has it.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}

impl Default for SandboxSpec {
    /// The provider's default image and resources, an open network, and no name. The sandbox is kept alive until it is
    /// terminated or its lifetime has passed; the image's own command is not run.
    fn default() -> Self {
        SandboxSpec {
            image: ImageSpec::default(),
            entry_point: EntryPoint::KeepAlive,
            user: None,
            env: vec![],
            secrets: vec![],
            workdir: None,
            resources: Resources {
                cpu_request_millicores: None,
                cpu_limit_millicores: None,
                memory_request_mib: None,
                memory_limit_mib: None,
                disk_mib: None,
                gpu: None,
            },
            lifetime: None,
            idle_timeout: None,
            regions: vec![],
            network: NetworkPolicy { outbound: Outbound::Open, inbound_cidrs: vec![] },
            ports: vec![],
            volumes: vec![],
            buckets: vec![],
            name: None,
            tags: vec![],
            readiness: None,
            sidecars: vec![],
            pty: None,
            proxy: None,
            key: None,
            options: vec![],
            extra: vec![],
        }
    }
}

impl SandboxSpec {
    /// Returns a specification with this image and default values.
    pub fn new(image: ImageSpec) -> Self {
        SandboxSpec { image, ..Self::default() }
    }

    /// Sets the entry-point command. The sandbox ends with it. If the image has an ENTRYPOINT, the words follow it.
    pub fn command<I: IntoIterator<Item = S>, S: Into<String>>(mut self, argv: I) -> Self {
        self.entry_point = EntryPoint::Command(argv.into_iter().map(Into::into).collect());
        self
    }

    /// Runs the image's own command (ENTRYPOINT and CMD). The sandbox ends with it. An image without one is kept alive.
    pub fn image_command(mut self) -> Self {
        self.entry_point = EntryPoint::Image;
        self
    }

    /// Sets the user of the entry point and of all commands, by name or number, optionally with `:group`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Adds an environment variable for all commands.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds a secret of the provider, whose entries are environment variables of all commands.
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.push(name.into());
        self
    }

    /// Sets the absolute path of the directory in which commands start.
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// Sets the time after which the sandbox is ended, rounded down to milliseconds. The provider may have a maximum.
    pub fn lifetime(mut self, time: Duration) -> Self {
        self.lifetime = Some(millis(time));
        self
    }

    /// Sets the time without a command or a connection after which the sandbox ends, rounded down to milliseconds.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(millis(time));
        self
    }

    /// Reserves this number of cores, rounded to thousandths.
    pub fn cpu(mut self, cores: f64) -> Self {
        self.resources.cpu_request_millicores = Some((cores * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32);
        self
    }

    /// Reserves this amount of memory, in MiB.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.resources.memory_request_mib = Some(mib);
        self
    }

    /// Sets the maximum number of cores, rounded to thousandths.
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.resources.cpu_limit_millicores = Some((cores * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32);
        self
    }

    /// Sets the maximum amount of memory, in MiB. The kernel kills processes that exceed it.
    pub fn memory_limit_mib(mut self, mib: u32) -> Self {
        self.resources.memory_limit_mib = Some(mib);
        self
    }

    /// Sets the accelerators of the sandbox.
    pub fn gpu(mut self, model: impl Into<String>, count: u32) -> Self {
        self.resources.gpu = Some(Gpu { model: model.into(), count });
        self
    }

    /// Adds a region in which the sandbox may run.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.regions.push(region.into());
        self
    }

    /// Blocks all outbound connections of the sandbox.
    pub fn block_network(mut self) -> Self {
        self.network = NetworkPolicy { inbound_cidrs: self.network.inbound_cidrs, ..NetworkPolicy::blocked() };
        self
    }

    /// Restricts outbound connections to these address ranges and domains.
    pub fn allow_only<C, D>(mut self, cidrs: C, domains: D) -> Self
    where
        C: IntoIterator<Item: Into<String>>,
        D: IntoIterator<Item: Into<String>>,
    {
        let inbound_cidrs = self.network.inbound_cidrs;
        self.network = NetworkPolicy { inbound_cidrs, ..NetworkPolicy::allowing(cidrs, domains) };
        self
    }

    /// Adds an address range that may connect to the ports of the sandbox. By default all may.
    pub fn inbound_from(mut self, cidr: impl Into<String>) -> Self {
        self.network.inbound_cidrs.push(cidr.into());
        self
    }

    /// Sets the proxy of the provider that outbound traffic uses.
    pub fn proxy(mut self, name: impl Into<String>) -> Self {
        self.proxy = Some(name.into());
        self
    }

    /// Makes a port reachable from outside with TLS.
    pub fn port(self, number: u16) -> Self {
        self.port_of(PortKind::Tls, number)
    }

    /// Makes a port reachable from outside with a tunnel of this kind.
    pub fn port_of(mut self, kind: PortKind, number: u16) -> Self {
        self.ports.push(Port { number, kind });
        self
    }

    /// Mounts a bucket. See the fields of [`BucketMount`] for its options.
    pub fn bucket(mut self, bucket: BucketMount) -> Self {
        self.buckets.push(bucket);
        self
    }

    /// Adds a sidecar, which is a further container in the sandbox.
    pub fn sidecar(mut self, sidecar: SidecarSpec) -> Self {
        self.sidecars.push(sidecar);
        self
    }

    /// Sets the key of the create request: two requests with the same key return the same sandbox. If no key is set,
    /// [`crate::Provider::create`] generates one.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Mounts a volume of the provider at a path, with write access.
    pub fn volume(mut self, volume: impl Into<String>, path: impl Into<String>) -> Self {
        let (volume, path) = (volume.into(), path.into());
        self.volumes.push(VolumeMount { volume, path, read_only: false, sub_path: None, create: false });
        self
    }

    /// Sets the name, which is unique among the running sandboxes.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// Sets a readiness probe that succeeds when this port accepts a connection.
    pub fn ready_when_listening(mut self, port: u16) -> Self {
        self.readiness = Some(Probe { check: Readiness::Tcp(port), interval: None });
        self
    }

    /// Sets a readiness probe that succeeds when this command exits with 0.
    pub fn ready_when<I: IntoIterator<Item = S>, S: Into<String>>(mut self, argv: I) -> Self {
        let check = Readiness::Exec(argv.into_iter().map(Into::into).collect());
        self.readiness = Some(Probe { check, interval: None });
        self
    }

    /// Sets an option of the provider. `value` is JSON text.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }
}

impl NetworkPolicy {
    /// Returns a policy that permits all outbound connections.
    pub fn open() -> Self {
        NetworkPolicy { outbound: Outbound::Open, inbound_cidrs: vec![] }
    }

    /// Returns a policy that blocks all outbound connections.
    pub fn blocked() -> Self {
        NetworkPolicy { outbound: Outbound::Blocked, inbound_cidrs: vec![] }
    }

    /// Returns a policy that permits outbound connections only to these address ranges and domains.
    pub fn allowing<C, D>(cidrs: C, domains: D) -> Self
    where
        C: IntoIterator<Item: Into<String>>,
        D: IntoIterator<Item: Into<String>>,
    {
        let cidrs = cidrs.into_iter().map(Into::into).collect();
        let domains = domains.into_iter().map(Into::into).collect();
        let outbound = Outbound::Allowed(AllowList { cidrs, domains });
        NetworkPolicy { outbound, inbound_cidrs: vec![] }
    }
}

impl BucketMount {
    /// Returns a mount of a bucket at a path, with write access and without credentials.
    pub fn new(bucket: impl Into<String>, path: impl Into<String>) -> Self {
        BucketMount {
            bucket: bucket.into(),
            path: path.into(),
            endpoint: None,
            prefix: None,
            secret: None,
            read_only: false,
            extra: vec![],
        }
    }
}

impl SidecarSpec {
    /// Returns a sidecar with this name and image. It runs the command of the image and has an open network.
    pub fn new(name: impl Into<String>, image: ImageSpec) -> Self {
        SidecarSpec {
            name: name.into(),
            image,
            entry_point: EntryPoint::Image,
            env: vec![],
            secrets: vec![],
            workdir: None,
            volumes: vec![],
            outbound: Outbound::Open,
            extra: vec![],
        }
    }

    /// Sets the command of the sidecar.
    pub fn command<I: IntoIterator<Item = S>, S: Into<String>>(mut self, argv: I) -> Self {
        self.entry_point = EntryPoint::Command(argv.into_iter().map(Into::into).collect());
        self
    }
}

impl Default for LogQuery {
    /// Selects the whole log.
    fn default() -> Self {
        LogQuery { since: None, until: None, stream: None, search: None }
    }
}

impl ExecSpec {
    /// Returns a command by its argument vector, without a shell. Its id is generated here, so that starting it is
    /// idempotent.
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(argv: I) -> Self {
        ExecSpec {
            id: fresh_id(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: vec![],
            secrets: vec![],
            cwd: None,
            user: None,
            timeout: None,
            pty: None,
            stdout: OutputMode::Keep,
            stderr: OutputMode::Keep,
            merge_stderr: false,
            container: None,
            extra: vec![],
        }
    }

    /// Returns a command that runs a line with `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        ExecSpec::new(["/bin/sh".to_owned(), "-c".to_owned(), line.into()])
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the directory in which the command starts.
    pub fn cwd(mut self, path: impl Into<String>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    /// Sets the user of the command.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the time limit, rounded down to milliseconds, after which the provider kills the command with its whole
    /// process tree. The verdict is then [`Verdict::Deadline`](types::Verdict::Deadline).
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(millis(time));
        self
    }

    /// Runs the command in a terminal of this size, in characters. `term` is the value of `TERM`.
    pub fn pty(mut self, rows: u16, columns: u16, term: impl Into<String>) -> Self {
        self.pty = Some(Pty { rows, columns, term: term.into() });
        self
    }

    /// Redirects stderr to stdout.
    pub fn merge_stderr(mut self) -> Self {
        self.merge_stderr = true;
        self
    }
}

impl<S: Into<String>> FromIterator<S> for ExecSpec {
    fn from_iter<I: IntoIterator<Item = S>>(argv: I) -> Self {
        ExecSpec::new(argv)
    }
}

impl Default for OutputLimits {
    /// The last 10 MiB of each stream, which is more than agents usually show to a model.
    fn default() -> Self {
        OutputLimits { stdout_max: 10 << 20, stderr_max: 10 << 20, keep: types::Keep::Tail }
    }
}

impl Default for ListFilter {
    /// Selects all running sandboxes.
    fn default() -> Self {
        ListFilter { tags: vec![], include_ended: false, extra: vec![] }
    }
}

impl ListFilter {
    /// Selects only sandboxes with this tag. Several tags must all match.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }
}

impl Default for WriteOptions {
    /// Replaces an existing file and keeps its mode.
    fn default() -> Self {
        WriteOptions { mode: WriteMode::Replace, permissions: None, extra: vec![] }
    }
}

impl WriteOptions {
    /// Sets the mode bits of the file.
    pub fn permissions(mut self, bits: u32) -> Self {
        self.permissions = Some(bits);
        self
    }
}

/// Returns a new random id (UUID version 4) for an exec, a transfer or an idempotent request.
pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

//! What a sandbox, a command or an image is to be, step by step.
//!
//! The records are those of the interface, with all fields open; the methods here set the common ones and leave the
//! rest at what the provider takes when nothing is said.

use std::time::Duration;

use crate::types;
use crate::types::{
    AllowList, BucketMount, Dockerfile, ExecSpec, Gpu, ImageSource, ImageSpec, ListFilter, LogQuery, NetworkPolicy,
    Outbound, OutputLimits, OutputMode, Port, PortKind, Probe, Pty, Readiness, RegistryImage, RegistryLogin, Resources,
    SandboxSpec, SidecarSpec, VolumeMount, WriteMode, WriteOptions,
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
            extra: vec![],
        }
    }
}

impl ImageSpec {
    /// An image by its name in a registry, such as `python:3.12-slim`.
    pub fn registry(reference: impl Into<String>) -> Self {
        let source = ImageSource::Registry(RegistryImage { reference: reference.into(), login: None });
        ImageSpec { source, ..Self::default() }
    }

    /// An image of the provider by its id.
    pub fn id(id: impl Into<String>) -> Self {
        ImageSpec { source: ImageSource::Id(id.into()), ..Self::default() }
    }

    /// An image published under a name at the provider.
    pub fn named(name: impl Into<String>) -> Self {
        ImageSpec { source: ImageSource::Named(name.into()), ..Self::default() }
    }

    /// An image built from a Dockerfile's text. One with files for its COPY lines: see [`crate::LocalDockerfile`].
    pub fn dockerfile(text: impl Into<String>) -> Self {
        let dockerfile =
            Dockerfile { text: text.into(), context: vec![], build_args: vec![], target: None, login: None };
        ImageSpec { source: ImageSource::Dockerfile(dockerfile), ..Self::default() }
    }

    /// Adds a Dockerfile line on top, such as `RUN apt-get install -y git`.
    pub fn command(mut self, line: impl Into<String>) -> Self {
        self.commands.push(line.into());
        self
    }

    /// Signs in to the registry with one of the provider's secrets, whose entries tell which kind it is.
    pub fn registry_secret(mut self, secret: impl Into<String>) -> Self {
        let login = Some(RegistryLogin::AnySecret(secret.into()));
        match &mut self.source {
            ImageSource::Registry(image) => image.login = login,
            ImageSource::Dockerfile(dockerfile) => dockerfile.login = login,
            ImageSource::ProviderDefault | ImageSource::Id(_) | ImageSource::Named(_) => {}
        }
        self
    }

    /// Shows the entries of one of the provider's secrets to RUN lines, as environment variables.
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.push(name.into());
        self
    }

    /// Builds with accelerators.
    pub fn gpu(mut self, model: impl Into<String>, count: u32) -> Self {
        self.gpu = Some(Gpu { model: model.into(), count });
        self
    }

    /// Sets the version of the provider's builder.
    pub fn builder_version(mut self, version: impl Into<String>) -> Self {
        self.builder_version = Some(version.into());
        self
    }

    /// Builds again even when the provider has it.
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}

impl Default for SandboxSpec {
    /// The provider's default image and resources, an open network, no name.
    fn default() -> Self {
        SandboxSpec {
            image: ImageSpec::default(),
            command: vec![],
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
    /// A sandbox with this image.
    pub fn new(image: ImageSpec) -> Self {
        SandboxSpec { image, ..Self::default() }
    }

    /// Sets the entry-point command. Without one the sandbox lives until it is terminated or its time is up.
    pub fn command<I: IntoIterator<Item = S>, S: Into<String>>(mut self, argv: I) -> Self {
        self.command = argv.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an environment variable for every command.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Adds the entries of one of the provider's secrets to the environment.
    pub fn secret(mut self, name: impl Into<String>) -> Self {
        self.secrets.push(name.into());
        self
    }

    /// Sets the directory that commands start in; absolute.
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// Sets how long it lives at most.
    pub fn lifetime(mut self, time: Duration) -> Self {
        self.lifetime = Some(millis(time));
        self
    }

    /// Sets how long it lives without a command or a connection.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(millis(time));
        self
    }

    /// Sets aside this many cores.
    pub fn cpu(mut self, cores: f64) -> Self {
        self.resources.cpu_request_millicores = Some((cores * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32);
        self
    }

    /// Sets aside this much memory, in MiB.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.resources.memory_request_mib = Some(mib);
        self
    }

    /// Does not let it have more cores than this.
    pub fn cpu_limit(mut self, cores: f64) -> Self {
        self.resources.cpu_limit_millicores = Some((cores * 1000.0).round().clamp(0.0, f64::from(u32::MAX)) as u32);
        self
    }

    /// Does not let it have more memory than this, in MiB.
    pub fn memory_limit_mib(mut self, mib: u32) -> Self {
        self.resources.memory_limit_mib = Some(mib);
        self
    }

    /// Gives it accelerators.
    pub fn gpu(mut self, model: impl Into<String>, count: u32) -> Self {
        self.resources.gpu = Some(Gpu { model: model.into(), count });
        self
    }

    /// Lets it run there; several calls give a choice.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.regions.push(region.into());
        self
    }

    /// Cuts it off from the network.
    pub fn block_network(mut self) -> Self {
        self.network = NetworkPolicy { inbound_cidrs: self.network.inbound_cidrs, ..NetworkPolicy::blocked() };
        self
    }

    /// Lets it connect to these address ranges and domains only.
    pub fn allow_only<C, D>(mut self, cidrs: C, domains: D) -> Self
    where
        C: IntoIterator<Item: Into<String>>,
        D: IntoIterator<Item: Into<String>>,
    {
        let inbound_cidrs = self.network.inbound_cidrs;
        self.network = NetworkPolicy { inbound_cidrs, ..NetworkPolicy::allowing(cidrs, domains) };
        self
    }

    /// Lets only these address ranges connect to its ports.
    pub fn inbound_from(mut self, cidr: impl Into<String>) -> Self {
        self.network.inbound_cidrs.push(cidr.into());
        self
    }

    /// Sends its outbound traffic through a proxy of the provider.
    pub fn proxy(mut self, name: impl Into<String>) -> Self {
        self.proxy = Some(name.into());
        self
    }

    /// Makes a port reachable from outside by TLS.
    pub fn port(self, number: u16) -> Self {
        self.port_of(PortKind::Tls, number)
    }

    /// Makes a port reachable from outside.
    pub fn port_of(mut self, kind: PortKind, number: u16) -> Self {
        self.ports.push(Port { number, kind });
        self
    }

    /// Mounts a bucket. Its other fields are open, see [`BucketMount`].
    pub fn bucket(mut self, bucket: BucketMount) -> Self {
        self.buckets.push(bucket);
        self
    }

    /// Puts a further container beside it.
    pub fn sidecar(mut self, sidecar: SidecarSpec) -> Self {
        self.sidecars.push(sidecar);
        self
    }

    /// Names this create: two with the same key give the same sandbox. Without it a new one is made.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Mounts a volume of the provider.
    pub fn volume(mut self, volume: impl Into<String>, path: impl Into<String>) -> Self {
        let (volume, path) = (volume.into(), path.into());
        self.volumes.push(VolumeMount { volume, path, read_only: false, sub_path: None, create: false });
        self
    }

    /// Gives it a name, unique among the live ones.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }

    /// Ready when this port accepts a connection.
    pub fn ready_when_listening(mut self, port: u16) -> Self {
        self.readiness = Some(Probe { check: Readiness::Tcp(port), interval: None });
        self
    }

    /// Ready when this command exits 0.
    pub fn ready_when<I: IntoIterator<Item = S>, S: Into<String>>(mut self, argv: I) -> Self {
        let check = Readiness::Exec(argv.into_iter().map(Into::into).collect());
        self.readiness = Some(Probe { check, interval: None });
        self
    }

    /// Sets an option of the provider; `value` is JSON text.
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.push((name.into(), value.into()));
        self
    }
}

impl NetworkPolicy {
    /// Anywhere.
    pub fn open() -> Self {
        NetworkPolicy { outbound: Outbound::Open, inbound_cidrs: vec![] }
    }

    /// Nowhere.
    pub fn blocked() -> Self {
        NetworkPolicy { outbound: Outbound::Blocked, inbound_cidrs: vec![] }
    }

    /// To these address ranges and domains only.
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
    /// A bucket at a path, to be read and written, without credentials.
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
    /// A container of this name and image that runs the image's own command, with an open network.
    pub fn new(name: impl Into<String>, image: ImageSpec) -> Self {
        SidecarSpec {
            name: name.into(),
            image,
            command: vec![],
            env: vec![],
            secrets: vec![],
            workdir: None,
            volumes: vec![],
            outbound: Outbound::Open,
            extra: vec![],
        }
    }

    /// Sets its command.
    pub fn command<I: IntoIterator<Item = S>, S: Into<String>>(mut self, argv: I) -> Self {
        self.command = argv.into_iter().map(Into::into).collect();
        self
    }
}

impl Default for LogQuery {
    /// All there is.
    fn default() -> Self {
        LogQuery { since: None, until: None, stream: None, search: None }
    }
}

impl ExecSpec {
    /// A command by its argv, no shell. Its id is made here, so that starting it is idempotent.
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

    /// A line for `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        ExecSpec::new(["/bin/sh".to_owned(), "-c".to_owned(), line.into()])
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the directory to start in.
    pub fn cwd(mut self, path: impl Into<String>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    /// Sets the user to run as.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Kills it after this time.
    pub fn timeout(mut self, time: Duration) -> Self {
        self.timeout = Some(millis(time));
        self
    }

    /// Runs it in a terminal of this size.
    pub fn pty(mut self, rows: u16, columns: u16, term: impl Into<String>) -> Self {
        self.pty = Some(Pty { rows, columns, term: term.into() });
        self
    }

    /// Sends stderr to stdout.
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
    /// The last 10 MiB of each stream: what harnesses commonly show to a model, with room.
    fn default() -> Self {
        OutputLimits { stdout_max: 10 << 20, stderr_max: 10 << 20, keep: types::Keep::Tail }
    }
}

impl Default for ListFilter {
    /// All live sandboxes.
    fn default() -> Self {
        ListFilter { tags: vec![], include_ended: false, extra: vec![] }
    }
}

impl ListFilter {
    /// Only those with this tag.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push((name.into(), value.into()));
        self
    }
}

impl Default for WriteOptions {
    /// Replaces what is there, keeps its mode.
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

/// A new id for an exec, a transfer or an idempotent request.
pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

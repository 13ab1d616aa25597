//! Reads specifications of images and sandboxes from JSON. Fields have the names of the interface (`wit/types.wit`). A missing
//! field has the provider's default; an unknown field is an error.

use std::path::PathBuf;

use sandbox_host::types::{
    self, AllowList, EntryPoint, Gpu, ImageSource, ImageSpec, NetworkPolicy, Outbound, Port, PortKind, Probe,
    Readiness, RegistryImage, RegistryLogin, Resources, SandboxSpec, SidecarSpec, VolumeMount,
};
use sandbox_host::{LocalDockerfile, Provider, Result};
use serde::Deserialize;

/// An image to build.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Image {
    source: Source,
    #[serde(default)]
    commands: Vec<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Source {
    Default,
    Id(String),
    Named(String),
    Registry {
        reference: String,
        login_secret: Option<String>,
    },
    Dockerfile {
        text: String,
        /// The file that the text was read from, if any.
        path: Option<PathBuf>,
        /// The directory that `COPY` instructions read from.
        context: PathBuf,
        #[serde(default)]
        build_args: Vec<(String, String)>,
        target: Option<String>,
        login_secret: Option<String>,
    },
}

impl Image {
    /// Converts the image to the type of the host library, with the build context that a Dockerfile copies from. Also returns
    /// the files that cannot be sent, with the reason.
    pub(crate) async fn resolve(self, provider: &Provider) -> Result<(ImageSpec, Vec<String>)> {
        let mut skipped = Vec::new();
        let login = |secret: Option<String>| secret.map(RegistryLogin::AnySecret);
        let source = match self.source {
            Source::Default => ImageSource::ProviderDefault,
            Source::Id(id) => ImageSource::Id(id),
            Source::Named(name) => ImageSource::Named(name),
            Source::Registry { reference, login_secret } => {
                ImageSource::Registry(RegistryImage { reference, login: login(login_secret) })
            }
            Source::Dockerfile { text, path, context, build_args, target, login_secret } => {
                let mut dockerfile = match path {
                    Some(path) => LocalDockerfile::read(path).await?,
                    None => LocalDockerfile::new(text),
                }
                .context(context);
                for (name, value) in build_args {
                    dockerfile = dockerfile.build_arg(name, value);
                }
                if let Some(stage) = target {
                    dockerfile = dockerfile.target(stage);
                }
                if let Some(login) = login(login_secret) {
                    dockerfile = dockerfile.login(login);
                }
                let (spec, sent) = provider.dockerfile(dockerfile, |_, _| {}).await?;
                skipped = sent.skipped;
                spec.source
            }
        };
        let spec = ImageSpec {
            source,
            commands: self.commands,
            secrets: self.secrets,
            force: self.force,
            ..Default::default()
        };
        Ok((spec, skipped))
    }
}

/// A sandbox to create from built images.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sandbox {
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: Vec<(String, String)>,
    #[serde(default)]
    secrets: Vec<String>,
    workdir: Option<String>,
    cpu_request_millicores: Option<u32>,
    cpu_limit_millicores: Option<u32>,
    memory_request_mib: Option<u32>,
    memory_limit_mib: Option<u32>,
    gpu: Option<(String, u32)>,
    lifetime_secs: Option<u64>,
    idle_timeout_secs: Option<u64>,
    #[serde(default)]
    regions: Vec<String>,
    #[serde(default)]
    outbound: Network,
    #[serde(default)]
    inbound_cidrs: Vec<String>,
    #[serde(default)]
    ports: Vec<(u16, PortForm)>,
    #[serde(default)]
    volumes: Vec<Volume>,
    name: Option<String>,
    #[serde(default)]
    tags: Vec<(String, String)>,
    /// A command that exits with 0 when the sandbox is ready, and the time between attempts in milliseconds.
    readiness: Option<(Vec<String>, Option<u64>)>,
    #[serde(default)]
    sidecars: Vec<Sidecar>,
    #[serde(default)]
    pty: bool,
    proxy: Option<String>,
    /// Names and JSON values.
    #[serde(default)]
    options: Vec<(String, serde_json::Value)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sidecar {
    name: String,
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    env: Vec<(String, String)>,
    #[serde(default)]
    secrets: Vec<String>,
    workdir: Option<String>,
    #[serde(default)]
    volumes: Vec<Volume>,
    #[serde(default)]
    outbound: Network,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Network {
    #[default]
    Open,
    Blocked,
    Allowed {
        #[serde(default)]
        cidrs: Vec<String>,
        #[serde(default)]
        domains: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum PortForm {
    Tls,
    H2,
    Tcp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Volume {
    volume: String,
    path: String,
    #[serde(default)]
    read_only: bool,
    sub_path: Option<String>,
    #[serde(default)]
    create: bool,
}

impl From<Network> for Outbound {
    fn from(network: Network) -> Self {
        match network {
            Network::Open => Outbound::Open,
            Network::Blocked => Outbound::Blocked,
            Network::Allowed { cidrs, domains } => Outbound::Allowed(AllowList { cidrs, domains }),
        }
    }
}

impl From<Volume> for VolumeMount {
    fn from(volume: Volume) -> Self {
        let Volume { volume, path, read_only, sub_path, create } = volume;
        VolumeMount { volume, path, read_only, sub_path, create }
    }
}

/// Converts a command. An empty one is the image's own.
fn entry_point(command: Vec<String>) -> EntryPoint {
    if command.is_empty() { EntryPoint::Image } else { EntryPoint::Command(command) }
}

impl From<Sidecar> for SidecarSpec {
    fn from(sidecar: Sidecar) -> Self {
        SidecarSpec {
            name: sidecar.name,
            image: ImageSpec::id(sidecar.image),
            entry_point: entry_point(sidecar.command),
            env: sidecar.env,
            secrets: sidecar.secrets,
            workdir: sidecar.workdir,
            volumes: sidecar.volumes.into_iter().map(Into::into).collect(),
            outbound: sidecar.outbound.into(),
            extra: vec![],
        }
    }
}

impl From<Sandbox> for SandboxSpec {
    fn from(sandbox: Sandbox) -> Self {
        SandboxSpec {
            entry_point: entry_point(sandbox.command),
            env: sandbox.env,
            secrets: sandbox.secrets,
            workdir: sandbox.workdir,
            resources: Resources {
                cpu_request_millicores: sandbox.cpu_request_millicores,
                cpu_limit_millicores: sandbox.cpu_limit_millicores,
                memory_request_mib: sandbox.memory_request_mib,
                memory_limit_mib: sandbox.memory_limit_mib,
                disk_mib: None,
                gpu: sandbox.gpu.map(|(model, count)| Gpu { model, count }),
            },
            lifetime: sandbox.lifetime_secs.map(|secs| secs.saturating_mul(1000)),
            idle_timeout: sandbox.idle_timeout_secs.map(|secs| secs.saturating_mul(1000)),
            regions: sandbox.regions,
            network: NetworkPolicy { outbound: sandbox.outbound.into(), inbound_cidrs: sandbox.inbound_cidrs },
            ports: sandbox
                .ports
                .into_iter()
                .map(|(number, form)| {
                    let kind = match form {
                        PortForm::Tls => PortKind::Tls,
                        PortForm::H2 => PortKind::H2,
                        PortForm::Tcp => PortKind::Tcp,
                    };
                    Port { number, kind }
                })
                .collect(),
            volumes: sandbox.volumes.into_iter().map(Into::into).collect(),
            name: sandbox.name,
            tags: sandbox.tags,
            readiness: sandbox.readiness.map(|(command, interval)| Probe { check: Readiness::Exec(command), interval }),
            sidecars: sandbox.sidecars.into_iter().map(Into::into).collect(),
            pty: sandbox.pty.then(|| types::Pty { rows: 24, columns: 80, term: "xterm-256color".to_owned() }),
            proxy: sandbox.proxy,
            options: sandbox.options.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
            ..SandboxSpec::new(ImageSpec::id(sandbox.image))
        }
    }
}

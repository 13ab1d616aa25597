//! Sandboxes, sidecars, and what they are made of.

use sandbox_host::{Provider, types};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};

use super::basic::{Extra, Extras, Pairs, Shape, object, shorthand};
use super::image::{Gpu, Image};

variant! {
    PortKind { Tls, H2, Tcp }
    Outbound { Open, Blocked, Allowed(list: AllowList), Other(extra: Extra) }
    Readiness { Tcp(port: u16), Exec(argv: Vec<String>), Other(extra: Extra) }
    EntryPoint { KeepAlive, Image, Command(argv: Vec<String>) }
}

record! {
    #[derive(Default)]
    Resources {
        cpu_request_millicores: Option<u32>,
        cpu_limit_millicores: Option<u32>,
        memory_request_mib: Option<u32>,
        memory_limit_mib: Option<u32>,
        disk_mib: Option<u32>,
        gpu: Option<Gpu>,
    }
    AllowList { #[serde(default)] cidrs: Vec<String>, #[serde(default)] domains: Vec<String> }
    #[derive(Default)]
    NetworkPolicy {
        #[serde(default)]
        outbound: Outbound,
        #[serde(default)]
        inbound_cidrs: Vec<String>,
    }
    Port { number: u16, #[serde(default = "tls")] kind: PortKind }
    VolumeMount {
        volume: String,
        path: String,
        #[serde(default)]
        read_only: bool,
        sub_path: Option<String>,
        #[serde(default)]
        create: bool,
    }
    BucketMount {
        bucket: String,
        path: String,
        endpoint: Option<String>,
        prefix: Option<String>,
        secret: Option<String>,
        #[serde(default)]
        read_only: bool,
        #[serde(default)]
        extra: Extras,
    }
    Probe { check: Readiness, interval: Option<u64> }
    Pty {
        #[serde(default = "rows")]
        rows: u16,
        #[serde(default = "columns")]
        columns: u16,
        #[serde(default = "term")]
        term: String,
    }
    SidecarSpec {
        name: String,
        #[serde(default)]
        image: Image,
        #[serde(default = "image_command")]
        entry_point: EntryPoint,
        #[serde(default)]
        env: Pairs,
        #[serde(default)]
        secrets: Vec<String>,
        workdir: Option<String>,
        #[serde(default)]
        volumes: Vec<VolumeMount>,
        #[serde(default)]
        outbound: Outbound,
        #[serde(default)]
        extra: Extras,
    }
    SandboxSpec {
        #[serde(default)]
        image: Image,
        #[serde(default = "keep_alive")]
        entry_point: EntryPoint,
        user: Option<String>,
        #[serde(default)]
        env: Pairs,
        #[serde(default)]
        secrets: Vec<String>,
        workdir: Option<String>,
        #[serde(default)]
        resources: Resources,
        lifetime: Option<u64>,
        idle_timeout: Option<u64>,
        #[serde(default)]
        regions: Vec<String>,
        #[serde(default)]
        network: NetworkPolicy,
        #[serde(default)]
        ports: Vec<Port>,
        #[serde(default)]
        volumes: Vec<VolumeMount>,
        #[serde(default)]
        buckets: Vec<BucketMount>,
        name: Option<String>,
        #[serde(default)]
        tags: Pairs,
        readiness: Option<Probe>,
        #[serde(default)]
        sidecars: Vec<Sidecar>,
        pty: Option<Pty>,
        proxy: Option<String>,
        key: Option<String>,
        #[serde(default)]
        options: Extras,
        #[serde(default)]
        extra: Extras,
    }
}

#[allow(clippy::derivable_impls)]
impl Default for Outbound {
    fn default() -> Self {
        Outbound::Open
    }
}

fn tls() -> PortKind {
    PortKind::Tls
}

fn keep_alive() -> EntryPoint {
    EntryPoint::KeepAlive
}

fn image_command() -> EntryPoint {
    EntryPoint::Image
}

fn rows() -> u16 {
    24
}

fn columns() -> u16 {
    80
}

fn term() -> String {
    "xterm-256color".to_owned()
}

/// Replaces the shorthand `command: [...]` of an entry point.
fn command<E: serde::de::Error>(map: &mut Map<String, Value>) -> Result<(), E> {
    shorthand(map, "command", "entry_point", |argv| Ok(json!({ "command": argv })))
}

/// A sidecar. `command` is a shorthand for `entry_point`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sidecar(pub(crate) SidecarSpec);

impl<'de> Deserialize<'de> for Sidecar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut map = object(Value::deserialize(from)?, "a sidecar")?;
        command(&mut map)?;
        serde_json::from_value(Value::Object(map)).map(Sidecar).map_err(D::Error::custom)
    }
}

impl Shape for Sidecar {
    type Wit = types::SidecarSpec;

    fn from_wit(wit: Self::Wit) -> Self {
        Sidecar(Shape::from_wit(wit))
    }

    fn into_wit(self) -> Self::Wit {
        self.0.into_wit()
    }
}

/// A sandbox to create. `command` is a shorthand for `entry_point`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sandbox {
    spec: SandboxSpec,
    /// Whether the keeper of the provider keeps its lease.
    pub(crate) lease: bool,
}

impl<'de> Deserialize<'de> for Sandbox {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut map = object(Value::deserialize(from)?, "a sandbox")?;
        command(&mut map)?;
        let lease = match map.remove("lease") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(lease)) => lease,
            Some(_) => return Err(D::Error::custom("`lease` must be a boolean")),
        };
        let spec = serde_json::from_value(Value::Object(map)).map_err(D::Error::custom)?;
        Ok(Sandbox { spec, lease })
    }
}

impl Default for Sandbox {
    /// The provider's default image and resources.
    fn default() -> Self {
        Sandbox { spec: SandboxSpec::from_wit(types::SandboxSpec::default()), lease: true }
    }
}

impl Sandbox {
    /// Returns the specification with images that the provider knows: builds those that are not built yet.
    pub(crate) async fn resolve(self, provider: &Provider) -> sandbox_host::Result<types::SandboxSpec> {
        let images: Vec<_> = self.spec.sidecars.iter().map(|sidecar| sidecar.0.image.clone()).collect();
        let image = built(provider, self.spec.image.clone()).await?;
        let mut spec = self.spec.into_wit();
        spec.image = image;
        for (sidecar, image) in spec.sidecars.iter_mut().zip(images) {
            sidecar.image = built(provider, image).await?;
        }
        Ok(spec)
    }

    /// Returns the specification for a check that sends no request.
    pub(crate) fn unsent(self) -> types::SandboxSpec {
        let images: Vec<_> = self.spec.sidecars.iter().map(|sidecar| sidecar.0.image.clone()).collect();
        let image = self.spec.image.clone().unsent();
        let mut spec = self.spec.into_wit();
        spec.image = image;
        for (sidecar, image) in spec.sidecars.iter_mut().zip(images) {
            sidecar.image = image.unsent();
        }
        spec
    }
}

impl Sidecar {
    /// Returns the specification with an image that the provider knows: builds it if it is not built yet.
    pub(crate) async fn resolve(self, provider: &Provider) -> sandbox_host::Result<types::SidecarSpec> {
        let image = built(provider, self.0.image.clone()).await?;
        Ok(types::SidecarSpec { image, ..self.into_wit() })
    }
}

/// Builds an image, unless it is the provider's own or has an id. The log is dropped. If the provider builds no images,
/// returns the specification, which a create may accept.
async fn built(provider: &Provider, image: Image) -> sandbox_host::Result<types::ImageSpec> {
    let (spec, _) = image.resolve(provider).await?;
    let known = matches!(spec.source, types::ImageSource::Id(_) | types::ImageSource::ProviderDefault);
    if known && spec.commands.is_empty() && !spec.force {
        return Ok(spec);
    }
    match provider.build(spec.clone()).await {
        Ok(build) => Ok(types::ImageSpec::id(build.finish(drop).await?.id)),
        Err(error) if *error.kind() == sandbox_host::Kind::Unsupported && error.subject() == Some("images") => Ok(spec),
        Err(error) => Err(error),
    }
}

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

#[cfg(test)]
mod tests {
    use sandbox_host::types::{EntryPoint, ImageSource, Outbound, Readiness, RegistryLogin};

    use super::*;

    fn read(value: Value) -> Result<types::SandboxSpec, String> {
        serde_json::from_value::<Sandbox>(value).map(Sandbox::unsent).map_err(|error| error.to_string())
    }

    #[test]
    fn a_sandbox_has_the_defaults_of_the_library() {
        assert_eq!(read(json!({})), Ok(types::SandboxSpec::default()));
        assert!(serde_json::from_value::<Sandbox>(json!({})).expect("unusable").lease);
        assert!(!serde_json::from_value::<Sandbox>(json!({ "lease": false })).expect("unusable").lease);
    }

    #[test]
    fn shorthands_are_expanded() {
        let spec = read(json!({
            "image": "debian",
            "command": ["sleep", "5"],
            "env": { "A": "b" },
            "tags": [["c", "d"]],
            "options": { "x": { "y": [1] }, "z": "text" },
            "ports": [{ "number": 80 }],
            "network": { "outbound": { "allowed": { "domains": ["example.org"] } } },
            "readiness": { "check": { "tcp": 80 } },
            "pty": {},
            "sidecars": [{ "name": "db", "image": { "id": "im-1" }, "command": ["serve"] }],
        }));
        let spec = spec.expect("unusable");
        assert_eq!(spec.image, types::ImageSpec::registry("debian"));
        assert_eq!(spec.entry_point, EntryPoint::Command(vec!["sleep".into(), "5".into()]));
        assert_eq!(spec.env, [("A".to_owned(), "b".to_owned())]);
        assert_eq!(spec.tags, [("c".to_owned(), "d".to_owned())]);
        let options = [("x".to_owned(), r#"{"y":[1]}"#.to_owned()), ("z".to_owned(), r#""text""#.to_owned())];
        assert_eq!(spec.options, options);
        assert_eq!(spec.ports, [types::Port { number: 80, kind: types::PortKind::Tls }]);
        assert_eq!(spec.network, types::NetworkPolicy::allowing(Vec::<String>::new(), ["example.org"]));
        assert_eq!(spec.readiness, Some(types::Probe { check: Readiness::Tcp(80), interval: None }));
        assert_eq!(spec.pty, Some(types::Pty { rows: 24, columns: 80, term: "xterm-256color".into() }));
        assert_eq!(spec.sidecars[0].image, types::ImageSpec::id("im-1"));
        assert_eq!(spec.sidecars[0].outbound, Outbound::Open);
        assert_eq!(spec.sidecars[0].entry_point, EntryPoint::Command(vec!["serve".into()]));
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = [
            (json!({ "nmae": "x" }), "`nmae`"),
            (json!({ "command": ["a"], "entry_point": "image" }), "exclude each other"),
            (json!({ "image": { "id": "a", "named": "b" } }), "exclude each other"),
            (json!({ "image": { "id": "a", "login": { "any-secret": "b" } } }), "`registry`"),
            (json!({ "image": { "dockerfile": {} } }), "`text` or `path`"),
            (json!({ "image": { "dockerfile": { "text": "FROM x", "conttext": "." } } }), "`conttext`"),
            (json!({ "image": 3 }), "an object, and not a number"),
            (json!({ "lease": 1 }), "`lease`"),
            (json!({ "network": { "outbound": "closed" } }), "`closed`"),
            (json!({ "resources": { "cpu": 1 } }), "`cpu`"),
            (json!([]), "an object, and not an array"),
        ];
        for (value, expected) in mistakes {
            let error = read(value.clone()).expect_err("it was accepted");
            assert!(error.contains(expected), "{value}: {error}");
        }
    }

    #[test]
    fn images_have_all_forms() {
        let read = |value: Value| serde_json::from_value::<Image>(value).expect("unusable").unsent();
        assert_eq!(read(json!({})), types::ImageSpec::default());
        assert_eq!(read(json!({ "named": "x" })), types::ImageSpec::named("x"));
        let login = json!({ "registry": "a/b", "login": { "static-secret": "s" } });
        let ImageSource::Registry(image) = read(login).source else { panic!("another source") };
        assert_eq!(image.login, Some(RegistryLogin::StaticSecret("s".into())));
        let dockerfile = read(json!({ "dockerfile": { "text": "FROM x", "build_args": { "A": "1" } }, "force": true }));
        let ImageSource::Dockerfile(text) = dockerfile.source else { panic!("another source") };
        assert_eq!((text.text.as_str(), text.build_args.len(), dockerfile.force), ("FROM x", 1, true));
        let source = read(json!({ "source": { "registry": { "reference": "r" } }, "gpu": { "model": "T4" } }));
        assert_eq!(source, types::ImageSpec::registry("r").gpu("T4", 1));
    }

    /// What is written can be read again. Only the values of `extra` change, because output has them as text.
    #[test]
    fn a_specification_survives_a_round_trip() {
        let spec = types::SandboxSpec::new(types::ImageSpec::registry("r").command("RUN x").registry_secret("s"))
            .command(["a"])
            .user("u")
            .env("A", "b")
            .cpu(1.5)
            .gpu("T4", 2)
            .allow_only(["10.0.0.0/8"], ["example.org"])
            .port_of(types::PortKind::H2, 443)
            .volume("v", "/v")
            .bucket(types::BucketMount::new("b", "/b"))
            .ready_when(["true"])
            .sidecar(types::SidecarSpec::new("s", types::ImageSpec::id("i")))
            .name("n");
        let written = serde_json::to_value(SandboxSpec::from_wit(spec.clone())).expect("cannot be written");
        assert_eq!(read(written), Ok(spec));
    }
}

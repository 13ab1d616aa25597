//! Images, with their shorthands, and Dockerfiles of this machine.

use std::path::PathBuf;

use sandbox_host::types::{self, ImageSource as Source};
use sandbox_host::{LocalDockerfile, Provider, Result};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::basic::{Extra, Extras, Pairs, Shape, object};

variant! {
    RegistryLogin {
        StaticSecret(name: String), AwsSecret(name: String), GcpSecret(name: String), AnySecret(name: String),
        Credential(name: String), Other(extra: Extra),
    }
    ImageSource {
        ProviderDefault, Id(id: String), Named(name: String), Registry(image: RegistryImage),
        Dockerfile(dockerfile: Dockerfile), Other(extra: Extra),
    }
}

record! {
    RegistryImage { reference: String, login: Option<RegistryLogin> }
    Content { sha256: String, size: u64, #[serde(default)] digests: Pairs }
    ContextFile { path: String, mode: u32, content: Content }
    Dockerfile {
        text: String,
        #[serde(default)]
        context: Vec<ContextFile>,
        #[serde(default)]
        build_args: Pairs,
        target: Option<String>,
        login: Option<RegistryLogin>,
    }
    Gpu { model: String, #[serde(default = "one")] count: u32 }
    ImageSpec {
        source: ImageSource,
        commands: Vec<String>,
        secrets: Vec<String>,
        force: bool,
        builder_version: Option<String>,
        gpu: Option<Gpu>,
        platform: Option<String>,
        extra: Extras,
    }
}

fn one() -> u32 {
    1
}

/// An image as callers write it. If it is a Dockerfile of this machine, its context was not read yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Image {
    spec: types::ImageSpec,
    local: Option<Local>,
}

/// An image as an object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    source: Option<ImageSource>,
    registry: Option<String>,
    id: Option<String>,
    named: Option<String>,
    dockerfile: Option<Local>,
    login: Option<RegistryLogin>,
    #[serde(default)]
    commands: Vec<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default)]
    force: bool,
    builder_version: Option<String>,
    gpu: Option<Gpu>,
    platform: Option<String>,
    #[serde(default)]
    extra: Extras,
}

/// A Dockerfile of this machine.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self", expecting = "an object")]
struct Local {
    text: Option<String>,
    /// The file with the text, if there is no `text`.
    path: Option<PathBuf>,
    /// The directory that COPY lines read from.
    context: Option<PathBuf>,
    #[serde(default)]
    build_args: Pairs,
    target: Option<String>,
    login: Option<RegistryLogin>,
}

from_object!(Local);

impl<'de> Deserialize<'de> for Image {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(reference) => Ok(Image { spec: types::ImageSpec::registry(reference), local: None }),
            value => {
                let map = object(value, "an image that is no string")?;
                let form: Form = serde_json::from_value(Value::Object(map)).map_err(D::Error::custom)?;
                form.read().map_err(D::Error::custom)
            }
        }
    }
}

impl Serialize for Image {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        ImageSpec::from_wit(self.spec.clone()).serialize(to)
    }
}

impl Shape for Image {
    type Wit = types::ImageSpec;

    fn from_wit(spec: types::ImageSpec) -> Self {
        Image { spec, local: None }
    }

    /// Returns the image without a Dockerfile of this machine. [`Image::resolve`] reads it.
    fn into_wit(self) -> types::ImageSpec {
        self.spec
    }
}

impl Form {
    fn read(self) -> Result<Image, &'static str> {
        let Form { source, registry, id, named, dockerfile: local, login, commands, secrets, force, .. } = self;
        let keys = [source.is_some(), registry.is_some(), id.is_some(), named.is_some(), local.is_some()];
        if keys.into_iter().filter(|given| *given).count() > 1 {
            return Err("`source`, `registry`, `id`, `named` and `dockerfile` exclude each other");
        }
        if login.is_some() && registry.is_none() {
            return Err("`login` of an image needs `registry`");
        }
        if let Some(Local { text, path, .. }) = &local
            && text.is_some() == path.is_some()
        {
            return Err("a Dockerfile needs either `text` or `path`");
        }
        let source = match (source, registry, id, named) {
            (Some(source), ..) => source.into_wit(),
            (_, Some(reference), ..) => {
                Source::Registry(types::RegistryImage { reference, login: login.map(Shape::into_wit) })
            }
            (_, _, Some(id), _) => Source::Id(id),
            (.., Some(name)) => Source::Named(name),
            _ => Source::ProviderDefault,
        };
        let spec = types::ImageSpec {
            source,
            commands,
            secrets,
            force,
            builder_version: self.builder_version,
            gpu: self.gpu.into_wit(),
            platform: self.platform,
            extra: self.extra.into_wit(),
        };
        Ok(Image { spec, local })
    }
}

impl Image {
    /// Returns the specification of the image, and the files that cannot be sent. Reads a Dockerfile of this machine and
    /// sends the files of its context that the provider does not have.
    pub(crate) async fn resolve(self, provider: &Provider) -> Result<(types::ImageSpec, Vec<String>)> {
        let Image { mut spec, local } = self;
        let Some(local) = local else { return Ok((spec, vec![])) };
        let mut dockerfile = match (local.text, &local.path) {
            (None, Some(path)) => LocalDockerfile::read(path).await?,
            (text, _) => LocalDockerfile::new(text.unwrap_or_default()),
        };
        if let Some(context) = local.context {
            dockerfile = dockerfile.context(context);
        }
        for (name, value) in local.build_args.0 {
            dockerfile = dockerfile.build_arg(name, value);
        }
        if let Some(stage) = local.target {
            dockerfile = dockerfile.target(stage);
        }
        if let Some(login) = local.login {
            dockerfile = dockerfile.login(login.into_wit());
        }
        let (resolved, sent) = provider.dockerfile(dockerfile, |_, _| {}).await?;
        spec.source = resolved.source;
        Ok((spec, sent.skipped))
    }

    /// Returns the specification for a check that sends no request: a Dockerfile of this machine has no files.
    pub(crate) fn unsent(self) -> types::ImageSpec {
        let Image { mut spec, local } = self;
        if let Some(local) = local {
            spec.source = Source::Dockerfile(types::Dockerfile {
                text: local.text.unwrap_or_else(|| "FROM scratch\n".to_owned()),
                context: vec![],
                build_args: local.build_args.0,
                target: local.target,
                login: local.login.into_wit(),
            });
        }
        spec
    }
}

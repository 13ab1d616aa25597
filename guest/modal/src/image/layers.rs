//! Images: what the layers of a wanted image are, and what is known of finished ones (fact sheet, section 3).
//!
//! An image is one or two layers: where it comes from, and the further commands on top.

use dockerfile_text::Instruction;
use modal_proto::client::{
    BaseImage, DeploymentNamespace, Image, ImageDeleteRequest, ImageFromIdRequest, ImageGetByTagRequest,
    ImageGetOrCreateRequest, ImageMetadata, ImageRegistryConfig, RegistryAuthType,
};
use modal_proto::rpc;

use crate::{image::context::check_files, provider::Provider, sandbox::create::gpu_config};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        wit::{BuiltImage, Dockerfile, ErrorKind, ImageSource, ImageSpec, RegistryLogin},
    },
    call::grpc::{Code, Status},
};

/// The name that a layer's FROM gives to the layer below.
const BASE: &str = "base";

impl Provider {
    /// See `get-image` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn get_image(&self, image: &str) -> Result<BuiltImage> {
        check_image_id(image)?;
        let request = ImageFromIdRequest { image_id: image.to_string() };
        let result = self.control_keyed(&self.new_uuid(), rpc::IMAGE_FROM_ID, &request).await?;
        match result {
            Ok(answer) => Ok(built(answer.image_id, answer.metadata.as_ref())),
            Err(status) => Err(self.image_error(image, &status)),
        }
    }

    /// See `delete-image` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn delete_image(&self, image: &str) -> Result<()> {
        check_image_id(image)?;
        let request = ImageDeleteRequest { image_id: image.to_string() };
        let result = self.control_keyed(&self.new_uuid(), rpc::IMAGE_DELETE, &request).await?;
        match result {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(self.image_error(image, &status)),
        }
    }

    /// An unknown id gives either of two codes (fact sheet, section 3.1).
    pub(crate) fn image_error(&self, image: &str, status: &Status) -> Error {
        let unknown = status.code() == Code::NotFound
            || status.code() == Code::FailedPrecondition && status.message().contains("Could not find image");
        let mut error = self.control_error(status, "look up the image").about(image);
        if unknown {
            error.kind = ErrorKind::NotFound;
            error.message =
                format!("Modal knows no image {image}. It may have expired or belong to another workspace.");
        }
        error
    }

    /// The layers of a spec, bottom first.
    pub(crate) async fn layers(&self, spec: &ImageSpec) -> Result<Vec<ImageGetOrCreateRequest>> {
        let config = self.config()?;
        let app_id = self.app_id().await?;
        let builder_version = match &spec.builder_version {
            Some(version) => version.clone(),
            None => self.builder_version().await?,
        };
        let secret_ids = self.secret_ids(&spec.secrets).await?;
        let request = |image: Image| ImageGetOrCreateRequest {
            image: Some(image),
            app_id: app_id.clone(),
            builder_version: builder_version.clone(),
            force_build: spec.force || config.force_build,
            ..Default::default()
        };
        let mut layers = Vec::new();
        let mut base = None;
        match &spec.source {
            ImageSource::ProviderDefault => layers.push(ImageGetOrCreateRequest {
                // The default image is one for all workspaces (fact sheet, section 3.2).
                namespace: DeploymentNamespace::Global.into(),
                ..request(Image { dockerfile_commands: default_image(&builder_version), ..Default::default() })
            }),
            ImageSource::Registry(image) => {
                layers.push(request(Image {
                    dockerfile_commands: vec![format!("FROM {}", image.reference)],
                    image_registry_config: self.registry_config(image.login.as_ref()).await?,
                    ..Default::default()
                }));
            }
            ImageSource::Dockerfile(dockerfile) => {
                layers.push(request(Image {
                    // The service is not known to pass over a byte order mark.
                    dockerfile_commands: stage(dockerfile)?
                        .trim_start_matches('\u{feff}')
                        .lines()
                        .map(str::to_string)
                        .collect(),
                    context_mount_id: self.context_mount(&dockerfile.context).await?,
                    image_registry_config: self.registry_config(dockerfile.login.as_ref()).await?,
                    build_args: dockerfile.build_args.iter().cloned().collect(),
                    secret_ids: secret_ids.clone(),
                    gpu_config: spec.gpu.as_ref().map(gpu_config),
                    ..Default::default()
                }));
            }
            ImageSource::Id(id) => base = Some(id.clone()),
            ImageSource::Named(name) => base = Some(self.named_image(name).await?),
        }
        if !spec.commands.is_empty() || layers.is_empty() {
            let mut lines = vec![format!("FROM {BASE}")];
            lines.extend(spec.commands.iter().cloned());
            let base_images = base.into_iter().map(base_image).collect();
            let gpu_config = spec.gpu.as_ref().map(gpu_config);
            layers.push(request(Image {
                dockerfile_commands: lines,
                base_images,
                secret_ids,
                gpu_config,
                ..Default::default()
            }));
        }
        Ok(layers)
    }

    pub(crate) async fn named_image(&self, name: &str) -> Result<String> {
        let config = self.config()?;
        let tag = if name.contains(':') { name.to_string() } else { format!("{name}:latest") };
        let environment_name = if name.contains('/') { String::new() } else { config.environment.clone() };
        let request = ImageGetByTagRequest { tag, environment_name };
        let answer = self
            .control("look up the named image", rpc::IMAGE_GET_BY_TAG, &request)
            .await
            .map_err(|error| error.about(name))?;
        Ok(answer.image_id)
    }

    async fn registry_config(&self, login: Option<&RegistryLogin>) -> Result<Option<ImageRegistryConfig>> {
        let (kind, secret) = match login {
            None => return Ok(None),
            Some(RegistryLogin::StaticSecret(secret)) => (Some(RegistryAuthType::StaticCreds), secret),
            Some(RegistryLogin::AwsSecret(secret)) => (Some(RegistryAuthType::Aws), secret),
            Some(RegistryLogin::GcpSecret(secret)) => (Some(RegistryAuthType::Gcp), secret),
            Some(RegistryLogin::AnySecret(secret)) => (None, secret),
            Some(RegistryLogin::Other((kind, _))) => {
                return Err(Error::unsupported(
                    "image.registry-credentials",
                    format!("Modal signs in to registries by static, aws and gcp secrets, not by `{}`.", shown(kind)),
                ));
            }
        };
        let found = self.secret(secret).await?;
        let kind = match kind {
            Some(kind) => kind,
            None => login_kind(&found.keys).ok_or_else(|| {
                Error::invalid(format!(
                    "The secret `{}` is not for one kind of registry: it needs REGISTRY_USERNAME and REGISTRY_PASSWORD, \
                     or AWS_REGION with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or with AWS_ROLE_ARN, or \
                     SERVICE_ACCOUNT_JSON.",
                    shown(secret)
                ))
                .about(secret)
            })?,
        };
        Ok(Some(ImageRegistryConfig { registry_auth_type: kind.into(), secret_id: found.id }))
    }
}

/// What kind of registry a secret with these entries is for; none if that is not clear (fact sheet, section 3.2).
fn login_kind(keys: &[String]) -> Option<RegistryAuthType> {
    let has = |wanted: &[&str]| wanted.iter().all(|name| keys.iter().any(|key| key == name));
    let aws =
        has(&["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"]) || has(&["AWS_ROLE_ARN", "AWS_REGION"]);
    match (has(&["REGISTRY_USERNAME", "REGISTRY_PASSWORD"]), aws, has(&["SERVICE_ACCOUNT_JSON"])) {
        (true, false, false) => Some(RegistryAuthType::StaticCreds),
        (false, true, false) => Some(RegistryAuthType::Aws),
        (false, false, true) => Some(RegistryAuthType::Gcp),
        _ => None,
    }
}

/// What has to be built of a Dockerfile.
fn stage(dockerfile: &Dockerfile) -> Result<&str> {
    match &dockerfile.target {
        Some(target) => dockerfile_text::up_to_stage(&dockerfile.text, target).map_err(|named| {
            Error::invalid(format!(
                "The Dockerfile has no stage `{}`; its named stages are: {}.",
                shown(target),
                if named.is_empty() { "none".to_string() } else { named.join(", ") }
            ))
            .about("target")
        }),
        None => Ok(&dockerfile.text),
    }
}

fn built(id: String, metadata: Option<&ImageMetadata>) -> BuiltImage {
    BuiltImage { id, workdir: metadata.and_then(|metadata| metadata.workdir.clone()), extra: Vec::new() }
}

pub(crate) fn base_image(image_id: String) -> BaseImage {
    BaseImage { image_id, docker_tag: BASE.to_string() }
}

/// The lines of the service's default image, by builder version: the very lines that the official client sends, so that
/// the image is there already (fact sheet, section 3.2). Builders up to 2024.10 add pinned requirements, which are not
/// ours to copy; there the same Python image is taken as it comes.
fn default_image(builder: &str) -> Vec<String> {
    let (python, codename) = match builder {
        "2023.12" => ("3.12.1", "bullseye"),
        "2024.04" => ("3.12.2", "bookworm"),
        "2024.10" => ("3.12.6", "bookworm"),
        "2025.06" => ("3.12.10", "bookworm"),
        _ => ("3.12", "trixie"),
    };
    let from = format!("FROM python:{python}-slim-{codename}");
    if matches!(builder, "2023.12" | "2024.04" | "2024.10") {
        return vec![from, r#"CMD ["sleep", "172800"]"#.to_string()];
    }
    [
        from.as_str(),
        "RUN apt-get update",
        "RUN apt-get install -y gcc gfortran build-essential",
        "RUN pip install --upgrade pip wheel uv",
        "RUN echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections",
        r#"CMD ["sleep", "172800"]"#,
    ]
    .map(str::to_string)
    .into()
}

pub(crate) fn check_image_id(id: &str) -> Result<()> {
    let good = id.strip_prefix("im-").is_some_and(|rest| !rest.is_empty())
        && id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!("`{}` is not an image id: Modal's begin with `im-`.", shown(id))).about(id))
}

pub(crate) fn check_image(spec: &ImageSpec) -> Result<()> {
    check::extra(&spec.extra)?;
    match &spec.source {
        ImageSource::ProviderDefault | ImageSource::Named(_) => {}
        ImageSource::Id(id) => check_image_id(id)?,
        ImageSource::Registry(image) => {
            let reference = &image.reference;
            if reference.is_empty() || reference.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(Error::invalid(format!(
                    "`{}` is not an image name: give one such as `debian:12` or `ghcr.io/org/image:tag`.",
                    shown(reference)
                ))
                .about("image"));
            }
        }
        ImageSource::Dockerfile(dockerfile) => check_dockerfile(dockerfile)?,
    }
    for command in &spec.commands {
        if command.contains(['\0', '\n', '\r']) {
            return Err(Error::invalid(format!(
                "The command `{}` is more than one line: give one Dockerfile line each.",
                shown(command)
            ))
            .about("commands"));
        }
        if dockerfile_text::parse(command).instructions.iter().any(Instruction::reads_context) {
            return Err(Error::invalid(format!(
                "`{}` copies files, but further commands have no build context: use a Dockerfile.",
                shown(command)
            ))
            .about("commands"));
        }
    }
    if let Some(gpu) = &spec.gpu {
        check::gpu(gpu)?;
    }
    Ok(())
}

fn check_dockerfile(dockerfile: &Dockerfile) -> Result<()> {
    if dockerfile.text.contains('\0') {
        return Err(Error::invalid("The Dockerfile contains a NUL character: it is not text."));
    }
    let instructions = dockerfile_text::parse(stage(dockerfile)?).instructions;
    match instructions.iter().find(|instruction| instruction.word != "ARG") {
        Some(first) if first.word == "FROM" => {}
        _ => {
            return Err(Error::invalid(
                "The Dockerfile does not begin with a FROM line: give one such as `FROM debian:12`.",
            ));
        }
    }
    if dockerfile.context.is_empty()
        && let Some(copy) = instructions.iter().find(|instruction| instruction.reads_context())
    {
        return Err(Error::invalid(format!(
            "`{} {}` copies from the build context, which has no files: send them with the Dockerfile.",
            copy.word,
            shown(&copy.rest)
        ))
        .about("context"));
    }
    check_files(&dockerfile.context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_a_registry_secret() {
        let kind = |keys: &[&str]| login_kind(&keys.iter().map(|key| (*key).to_string()).collect::<Vec<_>>());
        assert_eq!(kind(&["REGISTRY_USERNAME", "REGISTRY_PASSWORD", "X"]), Some(RegistryAuthType::StaticCreds));
        assert_eq!(kind(&["AWS_ROLE_ARN", "AWS_REGION"]), Some(RegistryAuthType::Aws));
        assert_eq!(kind(&["SERVICE_ACCOUNT_JSON"]), Some(RegistryAuthType::Gcp));
        assert_eq!(kind(&["REGISTRY_USERNAME"]), None);
        assert_eq!(kind(&["SERVICE_ACCOUNT_JSON", "AWS_ROLE_ARN", "AWS_REGION"]), None);
    }
}

//! Images: the layers of an image specification, and finished images (docs/modal-protocol.md, section 3).
//!
//! An image has one or two layers: its source, and the further commands on top.

use modal_proto::client::{
    BaseImage, DeploymentNamespace, Image, ImageDeleteRequest, ImageFromIdRequest, ImageGetByTagRequest,
    ImageGetOrCreateRequest, ImageMetadata, ImageRegistryConfig, RegistryAuthType,
};
use modal_proto::rpc;

use crate::{
    image::context::context_mount,
    service::{Service, wire::gpu_config},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::shown,
        wit::{BuiltImage, ErrorKind, ImageSource, ImageSpec, RegistryLogin},
    },
    call::grpc::{Code, Status},
    image::spec,
};

/// The name of the layer below in the `FROM` line of a layer.
const BASE: &str = "base";

/// Implements `get-image` of the interface. Looks up an image by its id.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown image; otherwise the error of the failed request.
pub async fn get(service: &Service, image: &str) -> Result<BuiltImage> {
    check_image_id(image)?;
    let request = ImageFromIdRequest { image_id: image.to_string() };
    let result = service.control.keyed(&service.new_uuid(), rpc::IMAGE_FROM_ID, &request).await?;
    match result {
        Ok(answer) => Ok(built(answer.image_id, answer.metadata.as_ref())),
        Err(status) => Err(image_error(service, image, &status)),
    }
}

/// Implements `delete-image` of the interface. Deletes an image.
///
/// # Errors
///
/// `invalid-argument` for an invalid id; otherwise the error of the failed request.
pub async fn delete(service: &Service, image: &str) -> Result<()> {
    check_image_id(image)?;
    let request = ImageDeleteRequest { image_id: image.to_string() };
    let result = service.control.keyed(&service.new_uuid(), rpc::IMAGE_DELETE, &request).await?;
    match result {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(image_error(service, image, &status)),
    }
}

/// Converts a status to an error. Modal reports an unknown id with one of two codes (docs/modal-protocol.md, section
/// 3.1). FAILED_PRECONDITION can have other causes, and its text is the only known sign of this one. If Modal changes
/// the text, the error has the kind `conflict` instead of `not-found`.
pub(crate) fn image_error(service: &Service, image: &str, status: &Status) -> Error {
    let unknown = status.code() == Code::NotFound
        || status.code() == Code::FailedPrecondition && status.message().contains("Could not find image");
    let mut error = service.control.error(status, "look up the image").about(image);
    if unknown {
        error.kind = ErrorKind::NotFound;
        error.message = format!("Modal has no image {image}. It may have expired, or belong to another workspace.");
    }
    error
}

/// Returns the requests for the layers of a spec, the lowest first.
pub(crate) async fn layers(service: &Service, spec: &ImageSpec) -> Result<Vec<ImageGetOrCreateRequest>> {
    let config = service.config()?;
    let app_id = service.app.id().await?;
    let builder_version = match &spec.builder_version {
        Some(version) => version.clone(),
        None => service.app.builder_version().await?,
    };
    let secret_ids = service.names.secret_ids(&spec.secrets).await?;
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
            // The default image is the same for all workspaces (docs/modal-protocol.md, section 3.2).
            namespace: DeploymentNamespace::Global.into(),
            ..request(Image { dockerfile_commands: default_image(&builder_version), ..Default::default() })
        }),
        ImageSource::Registry(image) => {
            layers.push(request(Image {
                dockerfile_commands: vec![format!("FROM {}", image.reference)],
                image_registry_config: registry_config(service, image.login.as_ref()).await?,
                ..Default::default()
            }));
        }
        ImageSource::Dockerfile(dockerfile) => {
            layers.push(request(Image {
                // It is not known whether the service skips a byte order mark.
                dockerfile_commands: spec::stage(dockerfile)?
                    .trim_start_matches('\u{feff}')
                    .lines()
                    .map(str::to_string)
                    .collect(),
                context_mount_id: context_mount(service, &dockerfile.context).await?,
                image_registry_config: registry_config(service, dockerfile.login.as_ref()).await?,
                build_args: dockerfile.build_args.iter().cloned().collect(),
                secret_ids: secret_ids.clone(),
                gpu_config: spec.gpu.as_ref().map(gpu_config),
                ..Default::default()
            }));
        }
        ImageSource::Id(id) => base = Some(id.clone()),
        ImageSource::Named(name) => base = Some(named_image(service, name).await?),
        ImageSource::Other((name, _)) => return Err(check::unknown_case("image source", name)),
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

/// The platform of all machines of the service.
const PLATFORM: &str = "linux/amd64";

pub(crate) async fn named_image(service: &Service, name: &str) -> Result<String> {
    let config = service.config()?;
    let tag = if name.contains(':') { name.to_string() } else { format!("{name}:latest") };
    let environment_name = if name.contains('/') { String::new() } else { config.environment.clone() };
    let request = ImageGetByTagRequest { tag, environment_name };
    let answer = service
        .control
        .call("look up the named image", rpc::IMAGE_GET_BY_TAG, &request)
        .await
        .map_err(|error| error.about(name))?;
    Ok(answer.image_id)
}

async fn registry_config(service: &Service, login: Option<&RegistryLogin>) -> Result<Option<ImageRegistryConfig>> {
    let (kind, secret) = match login {
        None => return Ok(None),
        Some(RegistryLogin::StaticSecret(secret)) => (Some(RegistryAuthType::StaticCreds), secret),
        Some(RegistryLogin::AwsSecret(secret)) => (Some(RegistryAuthType::Aws), secret),
        Some(RegistryLogin::GcpSecret(secret)) => (Some(RegistryAuthType::Gcp), secret),
        Some(RegistryLogin::AnySecret(secret)) => (None, secret),
        Some(RegistryLogin::Credential(_)) => {
            return Err(Error::unsupported(
                "image.registry-credentials",
                "Modal pulls images itself, so it needs a secret of Modal and not a credential of the host.",
            ));
        }
        Some(RegistryLogin::Other((kind, _))) => {
            return Err(Error::unsupported(
                "image.registry-credentials",
                format!(
                    "The kind of registry credentials `{}` is not supported: Modal supports static, aws and gcp.",
                    shown(kind)
                ),
            ));
        }
    };
    let found = service.names.secret(secret).await?;
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

/// Returns the kind of registry that a secret with these entries is for, or `None` if that is not clear
/// (docs/modal-protocol.md, section 3.2).
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

fn built(id: String, metadata: Option<&ImageMetadata>) -> BuiltImage {
    BuiltImage { id, workdir: metadata.and_then(|metadata| metadata.workdir.clone()), extra: Vec::new() }
}

pub(crate) fn base_image(image_id: String) -> BaseImage {
    BaseImage { image_id, docker_tag: BASE.to_string() }
}

/// Returns the lines of the service's default image for a builder version. They are the same lines that the official
/// client sends, so that the image exists already (docs/modal-protocol.md, section 3.2). Builders up to 2024.10 add a
/// list of pinned requirements that is not copied here; for these, the image is the plain Python image.
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

/// Checks the specification of an image.
pub(crate) fn check_image(spec: &ImageSpec) -> Result<()> {
    if let Some(platform) = spec.platform.as_deref().filter(|platform| *platform != PLATFORM) {
        return Err(Error::unsupported(
            "create.platform",
            format!("Modal runs {PLATFORM} only, not `{}`.", shown(platform)),
        ));
    }
    spec::check(spec, check_image_id)
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

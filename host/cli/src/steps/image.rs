//! Builds the image that the options describe.

use anyhow::Result;
use sandbox_host::types::{ImageSource, ImageSpec};
use sandbox_host::{Kind, Provider};

use crate::args::ImageArgs;
use crate::output::Failure;
use crate::session::Session;
use crate::steps::dockerfile::dockerfile;

/// The Dockerfile instruction for images whose `ENTRYPOINT` does not run the given command.
pub const NO_ENTRYPOINT: &str = "ENTRYPOINT []";

/// Returns the image that the user names: an image of the provider by its id, or an image of a registry.
pub fn named_image(text: &str) -> ImageSpec {
    image_id(text).map_or_else(|| ImageSpec::registry(text), ImageSpec::id)
}

/// Returns the id of an image of the provider: `im-…`, `sha256:` and 64 hexadecimal digits, or what follows `id:`. No
/// registry has names of the first two forms. The third one is for providers whose ids look like names of a registry.
fn image_id(text: &str) -> Option<&str> {
    let digest =
        text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()));
    if digest || text.starts_with("im-") { Some(text) } else { text.strip_prefix("id:") }
}

/// Builds the image, with its log on standard error, and returns its id.
///
/// # Errors
///
/// Fails if the provider builds no images.
pub async fn build_image(session: &Session, provider: &Provider, args: &ImageArgs) -> Result<String> {
    let spec = image_spec(session, provider, args).await?;
    build(session, provider, args, spec).await
}

/// Builds the image like [`build_image`], and returns the specification of the built image. If the provider builds no
/// images, returns the specification of the options, from which `create` makes what it can. With `stays`, removes the
/// `ENTRYPOINT` of a Dockerfile, because its program may end before the commands in the sandbox do.
pub async fn prepare_image(session: &Session, provider: &Provider, args: &ImageArgs, stays: bool) -> Result<ImageSpec> {
    let mut spec = image_spec(session, provider, args).await?;
    if let ImageSource::Dockerfile(dockerfile) = &spec.source
        && stays
        && dockerfile_text::has_entry_point(&dockerfile.text, dockerfile.target.as_deref())
    {
        spec.commands.push(NO_ENTRYPOINT.to_owned());
    }
    match build(session, provider, args, spec.clone()).await {
        Ok(id) => Ok(ImageSpec::id(id)),
        Err(error) if error.downcast_ref::<sandbox_host::Error>().is_some_and(has_no_images) => Ok(spec),
        Err(error) => Err(error),
    }
}

/// Returns whether an error of `build` says that the provider builds no images.
fn has_no_images(error: &sandbox_host::Error) -> bool {
    *error.kind() == Kind::Unsupported && matches!(error.subject(), Some("image" | "images"))
}

async fn build(session: &Session, provider: &Provider, args: &ImageArgs, spec: ImageSpec) -> Result<String> {
    if let (ImageSource::Id(id), true) = (&spec.source, spec.commands.is_empty()) {
        return Ok(id.clone());
    }
    let build = provider.build(spec).await.map_err(|error| {
        let from_stdin = args.dockerfile.as_deref() == Some(std::path::Path::new("-"));
        let lacks_context = *error.kind() == Kind::InvalidArgument && error.subject() == Some("context");
        if !lacks_context || !from_stdin || args.context.is_some() {
            return anyhow::Error::from(error);
        }
        Failure::of(&error).hint("a Dockerfile from standard input can copy files only with --context DIR").into()
    })?;
    follow(session, build).await
}

/// Waits for a build, with its log on standard error, and returns the image's id.
pub async fn follow(session: &Session, build: sandbox_host::Build) -> Result<String> {
    let mut step = Some(session.voice.step("building the image"));
    let mut unfinished = false;
    let image = build
        .finish(|chunk| {
            step.take();
            unfinished = !chunk.text.ends_with('\n');
            session.voice.log(&chunk.text);
        })
        .await;
    if unfinished {
        session.voice.log("\n");
    }
    Ok(image?.id)
}

/// Builds the image specification that the options describe.
async fn image_spec(session: &Session, provider: &Provider, args: &ImageArgs) -> Result<ImageSpec> {
    let mut spec = match (&args.image, &args.dockerfile, &args.published) {
        (Some(reference), ..) if image_id(reference).unwrap_or(reference).trim().is_empty() => {
            return Err(Failure::new("use the image", "its name is empty").hint("give a name such as debian").into());
        }
        (Some(reference), ..) => named_image(reference),
        (None, Some(path), _) => dockerfile(session, provider, args, path).await?,
        (None, None, Some(name)) => ImageSpec::named(name),
        (None, None, None) => ImageSpec::default(),
    };
    let (secret, credential) = (&args.registry_secret, &args.registry_credential);
    if (secret.is_some() || credential.is_some())
        && !matches!(spec.source, ImageSource::Registry(_) | ImageSource::Dockerfile(_))
    {
        let option = if secret.is_some() { "--registry-secret" } else { "--registry-credential" };
        return Err(Failure::new(format!("use {option}"), "the image does not come from a registry")
            .hint("omit the option, or give an image of a registry with --image")
            .into());
    }
    if let Some(secret) = secret {
        spec = spec.registry_secret(secret);
    }
    if let Some(credential) = credential {
        spec = spec.registry_credential(credential);
    }
    if let Some((model, count)) = &args.build_gpu {
        spec = spec.gpu(model, *count);
    }
    spec.secrets = args.build_secret.clone();
    spec.builder_version = args.builder_version.clone();
    spec.commands = args.lines.clone();
    spec.force = args.force_build;
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::image_id;

    #[test]
    fn ids_and_names_of_registries_are_told_apart() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, id) in [("im-1", "im-1"), (digest.as_str(), digest.as_str()), ("id:debian", "debian"), ("id:", "")] {
            assert_eq!(image_id(text), Some(id), "{text}");
        }
        for name in ["debian", "debian:12", "sha256:0a", "host/im-1", &digest[..70], &format!("debian@{digest}")] {
            assert_eq!(image_id(name), None, "{name}");
        }
    }
}

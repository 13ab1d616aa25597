//! Builds the image that the options describe, and returns its id.

use anyhow::Result;
use sandbox_host::types::{ImageSource, ImageSpec};
use sandbox_host::{Kind, Provider};

use crate::args::ImageArgs;
use crate::output::Failure;
use crate::session::Session;
use crate::steps::dockerfile::dockerfile;

/// The Dockerfile instruction for images whose `ENTRYPOINT` does not run the given command.
pub const NO_ENTRYPOINT: &str = "ENTRYPOINT []";

/// Builds the image, with its log on standard error, and returns its id.
pub async fn build_image(session: &Session, provider: &Provider, args: &ImageArgs) -> Result<String> {
    build_for(session, provider, args, false).await
}

/// Builds the image for a new sandbox and returns it by its id. A provider that does not export the interface `images`
/// builds it when it creates the sandbox; then this returns the specification. With `stays`, removes the `ENTRYPOINT` of a
/// Dockerfile, because its program may end before the commands in the sandbox do.
pub async fn image_for(session: &Session, provider: &Provider, args: &ImageArgs, stays: bool) -> Result<ImageSpec> {
    match build_for(session, provider, args, stays).await {
        Ok(id) => Ok(ImageSpec::id(id)),
        Err(error) => match error.downcast_ref::<sandbox_host::Error>() {
            Some(cause) if *cause.kind() == Kind::Unsupported && cause.subject() == Some("images") => {
                image_spec(session, provider, args).await
            }
            _ => Err(error),
        },
    }
}

async fn build_for(session: &Session, provider: &Provider, args: &ImageArgs, stays: bool) -> Result<String> {
    let mut spec = image_spec(session, provider, args).await?;
    if let (ImageSource::Id(id), true) = (&spec.source, spec.commands.is_empty()) {
        return Ok(id.clone());
    }
    if let ImageSource::Dockerfile(dockerfile) = &spec.source
        && stays
        && dockerfile_text::has_entry_point(&dockerfile.text, dockerfile.target.as_deref())
    {
        spec.commands.push(NO_ENTRYPOINT.to_owned());
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
        (Some(reference), ..) if reference.starts_with("im-") => ImageSpec::id(reference),
        (Some(reference), ..) if reference.trim().is_empty() => {
            return Err(Failure::new("use the image", "its name is empty").hint("give a name such as debian").into());
        }
        (Some(reference), ..) => ImageSpec::registry(reference),
        (None, Some(path), _) => dockerfile(session, provider, args, path).await?,
        (None, None, Some(name)) => ImageSpec::named(name),
        (None, None, None) => ImageSpec::default(),
    };
    if let Some(secret) = &args.registry_secret {
        if !matches!(spec.source, ImageSource::Registry(_) | ImageSource::Dockerfile(_)) {
            return Err(Failure::new("use --registry-secret", "the image does not come from a registry")
                .hint("omit the option, or give an image of a registry with --image")
                .into());
        }
        spec = spec.registry_secret(secret);
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

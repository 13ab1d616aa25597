//! Checks of image specifications that are the same for every service, and the part of a Dockerfile that is built.

use dockerfile_text::Instruction;

use super::context::check_files;
use crate::api::{
    check,
    error::{Error, Result, shown},
    wit::{Dockerfile, ImageSource, ImageSpec},
};

/// Checks the specification of an image. `check_id` checks the id of an image of the service.
///
/// # Errors
///
/// `invalid-argument`, with the field that is at fault as its subject where there is one; any error of `check_id`.
pub fn check(spec: &ImageSpec, check_id: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    check::extra(&spec.extra)?;
    match &spec.source {
        ImageSource::ProviderDefault | ImageSource::Named(_) => {}
        ImageSource::Id(id) => check_id(id)?,
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
        ImageSource::Other((name, _)) => return Err(check::unknown_case("image source", name)),
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

/// Returns the part of a Dockerfile that has to be built: all of it, or everything up to the end of the target stage.
///
/// # Errors
///
/// `invalid-argument` with the subject `target` if there is no such stage.
pub fn stage(dockerfile: &Dockerfile) -> Result<&str> {
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

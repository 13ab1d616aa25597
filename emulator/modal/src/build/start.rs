//! Starts builds, or returns the image that an earlier request with the same definition has built.

use std::collections::BTreeMap;
use std::sync::Arc;

use modal_proto::client as proto;
use sha2::{Digest as _, Sha256};

use crate::build::steps;
use crate::model::error::Error;
use crate::model::image::{Image, Outcome};
use crate::model::state::State;
use crate::model::storage;
use crate::model::values::hex;

/// Returns the image of a request, and whether its build was started now. An image of an equal earlier request is returned if
/// its build is running or has succeeded, unless the request forces a build.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if the definition is not valid, with `Kind::NotFound` if an object that it names does not
/// exist, and with `Kind::Unimplemented` if it has Python functions as steps.
pub fn get_or_start(state: &Arc<State>, request: proto::ImageGetOrCreateRequest) -> Result<(Arc<Image>, bool), Error> {
    let definition = request.image.clone().ok_or_else(|| Error::invalid_argument("image is required"))?;
    check(state, &definition)?;
    let hash = request_hash(state, &request)?;
    let mut tables = state.tables.lock();
    if !request.force_build && !request.ignore_cache {
        let known = tables.image_cache.get(&hash).and_then(|id| tables.images.get(id));
        if let Some(image) = known
            && !matches!(image.outcome(), Some(Outcome::Failed(_)))
        {
            return Ok((image.clone(), false));
        }
    }
    let image = Arc::new(Image::building());
    tables.images.insert(image.id.clone(), image.clone());
    if !request.ignore_cache {
        tables.image_cache.insert(hash, image.id.clone());
    }
    drop(tables);
    tracing::info!(image = image.id, lines = definition.dockerfile_commands.len(), "build starts");
    let (state, building) = (state.clone(), image.clone());
    tokio::spawn(async move {
        // The build runs in a task of its own, so that its outcome is recorded even if it panics.
        let built = tokio::spawn(steps::build(state, building.clone(), definition)).await;
        building.end(match built {
            Ok(Ok(built)) => Outcome::Built(Arc::new(built)),
            Ok(Err(text)) => Outcome::Failed(text),
            Err(error) => Outcome::Failed(format!("the build was aborted: {error}")),
        });
    });
    Ok((image, true))
}

fn check(state: &State, definition: &proto::Image) -> Result<(), Error> {
    if definition.build_function.is_some() || !definition.build_function_def.is_empty() {
        return Err(Error::unimplemented("The emulator does not run Python functions as build steps"));
    }
    if definition.dockerfile_commands.is_empty() {
        return Err(Error::invalid_argument("dockerfile_commands is required"));
    }
    for base in &definition.base_images {
        state.image(&base.image_id)?;
    }
    for id in &definition.secret_ids {
        state.secret_values(id)?;
    }
    if !definition.context_mount_id.is_empty() {
        state.mount(&definition.context_mount_id)?;
    }
    storage::check(state, &definition.volume_mounts, &[])
}

/// Returns a hash of a request. Mounts and secrets count by content, not by id.
fn request_hash(state: &State, request: &proto::ImageGetOrCreateRequest) -> Result<String, Error> {
    let definition = request.image.clone().unwrap_or_default();
    let mut hash = Sha256::new();
    let mut add = |kind: &str, value: &[u8]| {
        hash.update(kind);
        hash.update(value.len().to_le_bytes());
        hash.update(value);
    };
    add("builder", request.builder_version.as_bytes());
    for line in &definition.dockerfile_commands {
        add("line", line.as_bytes());
    }
    for base in &definition.base_images {
        add("base", base.docker_tag.as_bytes());
        add("id", base.image_id.as_bytes());
    }
    for file in &definition.context_files {
        add("file", file.filename.as_bytes());
        add("data", &file.data);
    }
    for (key, value) in definition.build_args.iter().collect::<BTreeMap<_, _>>() {
        add("arg", format!("{key}={value}").as_bytes());
    }
    if !definition.context_mount_id.is_empty() {
        add("context", state.mount(&definition.context_mount_id)?.checksum.as_bytes());
    }
    for id in &definition.secret_ids {
        for (key, value) in state.secret_values(id)? {
            add("secret", format!("{key}={value}").as_bytes());
        }
    }
    for volume in &definition.volume_mounts {
        add("volume", format!("{}:{}", volume.volume_id, volume.mount_path).as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

//! Takes snapshots of containers' files, and mounts images in running containers.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use container_isolation::{DirectoryError, MountSpec};

use crate::build;
use crate::model::error::Error;
use crate::model::ids;
use crate::model::image::{Built, Image, Lifetime};
use crate::model::sandbox::Sandbox;
use crate::model::state::State;
use crate::model::unit::Unit;

/// How an image of a snapshot is kept.
#[derive(Debug)]
pub struct Keep {
    /// How long.
    pub lifetime: Lifetime,
    /// The key without which it cannot be used.
    pub key: Option<Bytes>,
}

impl Keep {
    /// As long as the emulator, for everybody.
    pub const ALWAYS: Keep = Keep { lifetime: Lifetime::Unlimited, key: None };
}

/// Makes an image of all files of a container as they are now. What is mounted in it stays out.
pub async fn filesystem(state: &Arc<State>, unit: &Unit, keep: Keep) -> Result<Arc<Image>, Error> {
    let id = ids::id("im");
    let layer = state.layers().join(&id);
    let copied = unit.container.snapshot(&layer).await;
    if let Err(error) = copied {
        build::remove_in_background(layer);
        return Err(Error::internal(format!("cannot take a snapshot: {error:#}")));
    }
    let mut layers = unit.layers.clone();
    layers.push(layer);
    let built = Built { layers, from_scratch: unit.image.from_scratch, config: unit.image.config.clone() };
    Ok(put(state, &id, built, keep))
}

/// Makes an image of a directory as processes in a container see it, without what is mounted below it.
pub async fn directory(state: &Arc<State>, unit: &Unit, path: &str, keep: Keep) -> Result<Arc<Image>, Error> {
    if path.trim_matches('/').is_empty() {
        return filesystem(state, unit, keep).await;
    }
    let id = ids::id("im");
    let layer = state.layers().join(&id);
    let copied = unit.container.snapshot_directory(Path::new(path), &layer).await;
    if let Err(error) = copied {
        build::remove_in_background(layer);
        return Err(refusal("take a snapshot of", path, error));
    }
    let built = Built { layers: vec![layer], from_scratch: true, config: Default::default() };
    Ok(put(state, &id, built, keep))
}

fn put(state: &State, id: &str, built: Built, keep: Keep) -> Arc<Image> {
    let image = Arc::new(Image::snapshot(id, built, keep.lifetime, keep.key.as_deref()));
    tracing::info!(image = id, lifetime = ?image.lifetime(), encrypted = keep.key.is_some(), "snapshot taken");
    state.tables.lock().images.insert(id.to_owned(), image.clone());
    image
}

/// Takes a snapshot once for each snapshot id, and gives its image's id.
pub async fn once<F>(sandbox: &Sandbox, snapshot_id: &str, take: F) -> Result<String, Error>
where
    F: Future<Output = Result<Arc<Image>, Error>>,
{
    if snapshot_id.is_empty() {
        return take.await.map(|image| image.id.clone());
    }
    let cell = sandbox.snapshots.lock().entry(snapshot_id.to_owned()).or_default().clone();
    let id = cell.get_or_try_init(|| async { take.await.map(|image| image.id.clone()) }).await?;
    Ok(id.clone())
}

/// Mounts an image, or without an id an empty directory, in a running container.
pub async fn mount(state: &State, unit: &Unit, path: &str, image_id: &str, key: Option<&[u8]>) -> Result<(), Error> {
    if path.trim_matches('/').is_empty() {
        return Err(Error::invalid_argument("An image cannot be mounted at /"));
    }
    let image = match image_id {
        "" => Arc::new(Built { from_scratch: true, ..Default::default() }),
        id => state.image(id)?.unsealed(key)?,
    };
    let spec = MountSpec {
        target: path.into(),
        layers: image.layers.clone(),
        from_scratch: image.from_scratch,
        ..MountSpec::default()
    };
    unit.container.mount(spec).await.map_err(|error| refusal("mount an image at", path, error))?;
    tracing::info!(container = unit.container.id(), path, image = image_id, "image mounted");
    Ok(())
}

/// Takes a mounted image away.
pub async fn unmount(unit: &Unit, path: &str) -> Result<(), Error> {
    let unmounted = unit.container.unmount(Path::new(path)).await;
    unmounted.map_err(|error| refusal("unmount an image from", path, error))?;
    tracing::info!(container = unit.container.id(), path, "image unmounted");
    Ok(())
}

fn refusal(what: &str, path: &str, error: DirectoryError) -> Error {
    let text = format!("Cannot {what} '{path}': {error}");
    match error {
        DirectoryError::Missing | DirectoryError::NoSource => Error::not_found(text),
        DirectoryError::NotADirectory | DirectoryError::Reserved => Error::invalid_argument(text),
        DirectoryError::NotMounted => Error::failed_precondition(text),
        DirectoryError::Failed(error) => Error::internal(format!("Cannot {what} '{path}': {error:#}")),
    }
}

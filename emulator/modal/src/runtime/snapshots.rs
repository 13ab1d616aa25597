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

/// Lifetime and encryption of a snapshot's image.
#[derive(Debug)]
pub struct Keep {
    /// How long the image can be used.
    pub lifetime: Lifetime,
    /// Encryption key that mounting the image then requires.
    pub key: Option<Bytes>,
}

impl Keep {
    /// No expiry and no key.
    pub const ALWAYS: Keep = Keep { lifetime: Lifetime::Unlimited, key: None };
}

/// Makes an image of all files of a container in their current state. Files of mounts are not included.
///
/// # Errors
///
/// Fails with `Kind::Internal` if the files cannot be copied.
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

/// Makes an image of a directory as processes in a container see it, without the mounts below it. The root directory is handled
/// like [`filesystem`].
///
/// # Errors
///
/// Fails with `Kind::NotFound` if there is no such directory, with `Kind::InvalidArgument` if the path is not a directory or is
/// reserved, and with `Kind::Internal` if the files cannot be copied.
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

/// Takes a snapshot once per snapshot id, and returns the id of its image. An empty snapshot id always takes one.
///
/// # Errors
///
/// Returns the error of `take`. A later call with the same id tries again.
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

/// Mounts an image in a running container, or an empty directory if `image_id` is empty.
///
/// # Errors
///
/// Fails with `Kind::InvalidArgument` if the path cannot be mounted on or the key does not match, with `Kind::NotFound` if
/// there is no such image or directory, with `Kind::FailedPrecondition` if the image cannot be used, and with `Kind::Internal`
/// if the mount fails.
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

/// Unmounts an image from a running container.
///
/// # Errors
///
/// Fails with `Kind::FailedPrecondition` if no image is mounted at the path, with `Kind::NotFound` or `Kind::InvalidArgument`
/// if the path is not valid, and with `Kind::Internal` if unmounting fails.
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

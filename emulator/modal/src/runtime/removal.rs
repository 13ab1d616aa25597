//! Removes the files that ended containers have written.

use std::sync::Arc;

use container_isolation::Container;

/// Removes the files of an ended container in a background task.
pub fn remove_in_background(container: Arc<Container>) {
    tokio::spawn(async move { remove(&container).await });
}

/// Ends a container and removes the files that it has written.
pub async fn remove(container: &Container) {
    if let Err(error) = container.remove().await {
        tracing::warn!(%error, "cannot remove the files of a container");
    }
}

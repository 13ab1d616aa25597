//! Removes what ended containers have written.

use std::sync::Arc;

use container_isolation::Container;

/// Removes what an ended container has written.
pub fn remove_in_background(container: Arc<Container>) {
    tokio::spawn(async move { remove(&container).await });
}

/// Ends a container and removes what it has written.
pub async fn remove(container: &Container) {
    if let Err(error) = container.remove().await {
        tracing::warn!(%error, "cannot remove what a container left");
    }
}

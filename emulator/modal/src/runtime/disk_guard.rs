//! Keeps containers from filling the machine's disk. Not every machine has disk quotas, so the container that has written most
//! is ended when the free space falls below a limit. Workers of the service end sandboxes the same way when they run out of
//! disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use container_isolation::Space;
use tokio::sync::watch;

use crate::model::state::State;

/// How often the free space is checked. A disk writes a few gigabytes per second at most, so the limit is passed only slightly.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long to wait for the end of one container and the removal of its files before another one is ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest space that is kept free by default, in bytes: enough for the machine to keep working.
const MOST: u64 = 1 << 30;

/// Returns the bytes to keep free on a file system by default: at most 1 GiB, a twentieth of its size, and half of what is free
/// now.
pub fn reserve(space: Space) -> u64 {
    MOST.min(space.total / 20).min(space.free / 2)
}

/// Keeps `keep` bytes free until the emulator ends.
pub async fn guard(state: Arc<State>, keep: u64, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if free(&state).is_some_and(|free| free < keep) {
            make_room(&state, keep).await;
        }
    }
}

fn free(state: &State) -> Option<u64> {
    Space::of(&state.dir).ok().map(|space| space.free)
}

async fn make_room(state: &Arc<State>, keep: u64) {
    // Ended containers free their space. No other container is ended while that is in progress.
    wait_while(|| state.engine.clearing()).await;
    let Some(free) = free(state).filter(|free| *free < keep) else { return };
    let all: Vec<_> = state.tables.lock().sandboxes.values().cloned().collect();
    let discarded: u64 = all.iter().map(|sandbox| sandbox.discard_output()).sum();
    if discarded > 0 {
        tracing::warn!(discarded, free, keep, "the disk is nearly full: the output of ended sandboxes is deleted");
        return;
    }
    let engine = state.engine.clone();
    let mut used: HashMap<String, u64> =
        tokio::task::spawn_blocking(move || engine.usage().into_iter().collect()).await.unwrap_or_default();
    // The stored output of a sandbox's processes counts as written by the sandbox.
    for sandbox in all.iter().filter(|sandbox| sandbox.lives()) {
        *used.entry(sandbox.id.clone()).or_default() += sandbox.output();
    }
    match used.into_iter().max_by_key(|(_, bytes)| *bytes) {
        Some((id, bytes)) if state.engine.evict(&id) => {
            tracing::warn!(
                container = id,
                written = bytes,
                free,
                keep,
                "container ended: the disk is nearly full, and this container has written most"
            );
            wait_while(|| state.engine.runs(&id)).await;
        }
        _ => {
            tracing::warn!(free, keep, "the disk is nearly full, and no container has written anything");
            tokio::time::sleep(PATIENCE).await;
        }
    }
}

async fn wait_while(busy: impl Fn() -> bool) {
    let quiet = async {
        while busy() {
            tokio::time::sleep(INTERVAL).await
        }
    };
    let _ = tokio::time::timeout(PATIENCE, quiet).await;
}

//! Keeps containers from filling the machine's disk. There is no quota that every machine has, so what has written most is
//! ended when less is left than must be: as a worker does that runs out of disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use container_isolation::Space;
use tokio::sync::watch;

use crate::model::state::State;

/// How often is looked. A disk takes a few gigabytes a second at most, so what must be left is not passed by much.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long the end of one container, and the removal of what it wrote, are waited for before another one is chosen.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most that is kept free by default: enough for the machine to go on with.
const MOST: u64 = 1 << 30;

/// What is to be left on a file system: no more than a twentieth of it, nor than half of what is free now.
pub fn reserve(space: Space) -> u64 {
    MOST.min(space.total / 20).min(space.free / 2)
}

/// Watches until the emulator ends. `keep` bytes are to be left.
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
    // What has ended gives its room back; until it has, no other container is ended for it.
    wait_while(|| state.engine.clearing()).await;
    let Some(free) = free(state).filter(|free| *free < keep) else { return };
    let all: Vec<_> = state.tables.lock().sandboxes.values().cloned().collect();
    let discarded: u64 = all.iter().map(|sandbox| sandbox.discard_output()).sum();
    if discarded > 0 {
        tracing::warn!(discarded, free, keep, "the disk is nearly full: the output of ended sandboxes is given up");
        return;
    }
    let engine = state.engine.clone();
    let mut used: HashMap<String, u64> =
        tokio::task::spawn_blocking(move || engine.usage().into_iter().collect()).await.unwrap_or_default();
    // What its processes have said is kept for it as well.
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
                "ended: the disk is nearly full, and it has written most"
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

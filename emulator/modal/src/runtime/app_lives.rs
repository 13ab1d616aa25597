//! Stops apps: when their client disconnects or vanishes, after their last sandbox has ended, or on request.

use std::sync::Arc;
use std::time::Duration;

use modal_proto::client::AppState;
use tokio::sync::watch;

use crate::model::state::{App, State, Tables};
use crate::model::values::now;

/// After the last heartbeat of an app's client, how long to wait before the client counts as gone. Clients send one every 15
/// seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often heartbeats are checked.
const LOOK: Duration = Duration::from_secs(5);

/// Stops an app and ends its sandboxes. The app stays in lists.
pub fn end(tables: &mut Tables, id: &str) {
    if let Some(app) = tables.apps.get_mut(id)
        && app.stopped_at == 0.0
    {
        tracing::info!(app = id, "app stopped");
        app.state = AppState::Stopped as i32;
        app.stopped_at = now();
    }
    for sandbox in tables.sandboxes.values().filter(|sandbox| sandbox.app_id == id) {
        sandbox.terminate();
    }
}

/// Handles that an app's client has left: an ephemeral app stops, a detached one stops when its last sandbox has ended.
pub fn leave(tables: &mut Tables, id: &str) {
    let Some(app) = tables.apps.get_mut(id) else { return };
    app.heartbeat = None;
    match AppState::try_from(app.state) {
        Ok(AppState::Ephemeral | AppState::Initializing) => end(tables, id),
        Ok(AppState::Detached) => {
            app.state = AppState::DetachedDisconnected as i32;
            end_if_abandoned(tables, id);
        }
        _ => {}
    }
}

/// Stops a detached app whose client has left, if none of its sandboxes is alive.
pub fn end_if_abandoned(tables: &mut Tables, id: &str) {
    let alone = tables.apps.get(id).is_some_and(|app| app.state == AppState::DetachedDisconnected as i32);
    if alone && !tables.sandboxes.values().any(|sandbox| sandbox.app_id == id && sandbox.result().is_none()) {
        end(tables, id);
    }
}

/// Watches for clients whose heartbeats stop, until the emulator ends.
pub async fn watch(state: Arc<State>, mut stopped: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let mut tables = state.tables.lock();
        let silent = |app: &&App| app.heartbeat.is_some_and(|heard| heard.elapsed() > PATIENCE);
        let gone: Vec<String> = tables.apps.values().filter(silent).map(|app| app.id.clone()).collect();
        for id in gone {
            tracing::info!(app = id, "no heartbeat of its client for {PATIENCE:?}");
            leave(&mut tables, &id);
        }
    }
}

//! Takes samples of what sandboxes use.

use std::sync::Arc;
use std::time::Duration;

use crate::model::sandbox::Sandbox;
use crate::model::unit::Unit;

/// How often a sandbox's usage is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Looks at a sandbox's usage once.
pub fn look(sandbox: &Sandbox, unit: &Unit) {
    let (used, memory) = unit.container.usage();
    sandbox.samples.lock().add(used, memory);
}

/// Looks at a sandbox's usage for as long as this is polled.
pub async fn sample(sandbox: Arc<Sandbox>, unit: Arc<Unit>) {
    loop {
        look(&sandbox, &unit);
        tokio::time::sleep(INTERVAL).await;
    }
}

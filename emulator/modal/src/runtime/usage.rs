//! Samples the resource usage of sandboxes.

use std::sync::Arc;
use std::time::Duration;

use crate::model::sandbox::Sandbox;
use crate::model::unit::Unit;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Takes one sample of a sandbox's usage.
pub fn look(sandbox: &Sandbox, unit: &Unit) {
    let (used, memory) = unit.container.usage();
    sandbox.samples.lock().add(used, memory);
}

/// Takes samples of a sandbox's usage until this future is dropped.
pub async fn sample(sandbox: Arc<Sandbox>, unit: Arc<Unit>) {
    loop {
        look(&sandbox, &unit);
        tokio::time::sleep(INTERVAL).await;
    }
}

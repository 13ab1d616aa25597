//! What a sandbox uses, from the engine's statistics.

use sandbox_provider_kit::{
    Error, Result,
    api::wit::{Usage, UsageReport},
};

use super::state;
use crate::{
    engine::{Call, failed},
    helper::Helper,
    time,
};

/// Implements `report-usage`. The engine knows the processor time of a running container, and no sum over time of its
/// memory: the report multiplies what is used now by the time since the start.
///
/// # Errors
///
/// `sandbox-ended` if the sandbox has ended: the engine forgets its numbers; `not-found`, or the error of the failed request.
pub async fn report(helper: &Helper, id: &str) -> Result<UsageReport> {
    let engine = helper.engine();
    let found = state(engine, id).await?;
    let details = found.value().get("State");
    let started = details.get("StartedAt").text().and_then(time::parse);
    if found.is_over() {
        return Err(Error::ended(id));
    }
    let call = Call::get(format!("/containers/{id}/stats")).with("stream", "0").with("one-shot", "1");
    let stats = engine.json(call).await?.map_err(|refusal| failed(&refusal, "read the statistics").about(id))?;
    let nanos: u64 = stats.get("cpu_stats").get("cpu_usage").get("total_usage").whole().unwrap_or_default();
    let memory: u64 = stats.get("memory_stats").get("usage").whole().unwrap_or_default();
    let now = u64::try_from(engine.now().as_millis()).unwrap_or(u64::MAX);
    let running = started.map(|started| now.saturating_sub(started));
    Ok(UsageReport {
        totals: Usage {
            cpu_core_millis: nanos / 1_000_000,
            memory_mib_millis: (memory >> 20).saturating_mul(running.unwrap_or_default()),
            gpu_millis: 0,
            extra: Vec::new(),
        },
        cost: None,
        cost_by_resource: Vec::new(),
        billed_cpu_core_millis: None,
        billed_memory_mib_millis: None,
        running,
        distributions: Vec::new(),
        extra: Vec::new(),
    })
}

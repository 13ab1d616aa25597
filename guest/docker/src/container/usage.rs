//! What a sandbox uses, from the engine's statistics.

use sandbox_provider_kit::{
    Result,
    api::{
        time::millis,
        wit::{Usage, UsageReport},
    },
};

use crate::{
    engine::{Call, Engine, failed},
    helper::Helper,
    inspect::{State, state},
    time,
};

/// The note with the numbers of a sandbox that was terminated.
const NOTE: &str = "usage";

/// What the engine reports, in its own units.
struct Numbers {
    cpu_nanos: u64,
    memory_bytes: u64,
}

/// Implements `report-usage`. The engine knows the processor time of a running container, and no sum over time of its
/// memory: the report multiplies what is used by the time since the start. The engine forgets its numbers when the container
/// ends; those of a sandbox that was terminated are kept.
///
/// # Errors
///
/// `not-found`, or the error of the failed request.
pub async fn report(helper: &Helper, id: &str) -> Result<UsageReport> {
    let engine = helper.engine();
    let found = state(engine, id).await?;
    let details = found.value().get("State");
    let time = |name: &str| details.get(name).text().and_then(time::parse);
    let (numbers, until) = if found.is_over() {
        (kept(helper, id, &found).await?, time("FinishedAt"))
    } else {
        (Some(now(engine, id).await?), Some(millis(engine.now())))
    };
    let running = time("StartedAt").zip(until).map(|(started, until)| until.saturating_sub(started));
    let Numbers { cpu_nanos, memory_bytes } = numbers.unwrap_or(Numbers { cpu_nanos: 0, memory_bytes: 0 });
    Ok(UsageReport {
        totals: Usage {
            cpu_core_millis: cpu_nanos / 1_000_000,
            memory_mib_millis: (memory_bytes >> 20).saturating_mul(running.unwrap_or_default()),
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

async fn now(engine: &Engine, id: &str) -> Result<Numbers> {
    let call = Call::get(format!("/containers/{id}/stats")).with("stream", "0").with("one-shot", "1");
    let stats = engine.json(call).await?.map_err(|refusal| failed(&refusal, "read the statistics").about(id))?;
    Ok(Numbers {
        cpu_nanos: stats.get("cpu_stats").get("cpu_usage").get("total_usage").whole().unwrap_or_default(),
        memory_bytes: stats.get("memory_stats").get("usage").whole().unwrap_or_default(),
    })
}

/// Keeps the numbers of a sandbox that is about to be terminated. A failure is none of the termination.
pub async fn keep(helper: &Helper, id: &str) {
    if let Ok(numbers) = now(helper.engine(), id).await {
        let text = format!("{} {}", numbers.cpu_nanos, numbers.memory_bytes);
        let _ = helper.note(id, NOTE, &text).await;
    }
}

async fn kept(helper: &Helper, id: &str, state: &State) -> Result<Option<Numbers>> {
    let text = helper.notes(id, state).await?.get(NOTE).unwrap_or_default();
    let mut words = text.split(' ').map(|word| word.parse::<u64>().ok());
    let numbers = words.next().flatten().zip(words.next().flatten());
    Ok(numbers.map(|(cpu_nanos, memory_bytes)| Numbers { cpu_nanos, memory_bytes }))
}

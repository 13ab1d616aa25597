//! The usage and the cost of a sandbox. `SandboxGetResourceUsage` returns the totals; `SandboxGetStats` and
//! `SandboxGetStatsV2` return costs, billed amounts and percentiles. All of them also answer after the end of the
//! sandbox.

use futures_util::future::join;
use modal_proto::{
    client::{
        SandboxGetStatsRequest, SandboxGetStatsResponse, StatsPercentile, sandbox_get_stats_response::ResourceStats,
    },
    rpc,
};

use sandbox_provider_kit::{
    Result,
    api::wit::{Distribution, ErrorKind, UsageReport},
};

use crate::{
    sandbox::manage,
    service::{Service, ended, error::unreadable, id},
};

/// The action in the error message "Could not …".
const READ_COST: &str = "read what the sandbox has cost";

/// The names in `percentile_stats` that repeat `cpu_cores` and `memory_gib`.
const REPEATED: [&str; 2] = ["CPU Usage (cores)", "Memory Usage (GiB)"];

/// Implements `report-usage` of the interface. Returns the resources that a sandbox has used so far and their cost,
/// also after its end. If the server does not implement the statistics, the report has the totals alone.
///
/// # Errors
///
/// `invalid-argument` for an invalid id, `not-found` for an unknown sandbox, `internal` if a cost is not a number;
/// otherwise the error of the failed request.
pub async fn report(service: &Service, sandbox: &str) -> Result<UsageReport> {
    id::check_sandbox(sandbox)?;
    let request = SandboxGetStatsRequest { sandbox_id: sandbox.to_string(), since: None, until: None };
    let method = if id::is_v1(sandbox) { rpc::SANDBOX_GET_STATS } else { rpc::SANDBOX_GET_STATS_V2 };
    // Sent at the same time, since neither depends on the other.
    let (totals, stats) =
        join(manage::stats(service, sandbox), service.control.call(READ_COST, method, &request)).await;
    let totals = totals?;
    let stats = match stats {
        Ok(stats) => stats,
        // UNIMPLEMENTED: the service, or a server of its protocol, is older than these calls.
        Err(error) if matches!(error.kind, ErrorKind::Unsupported) => SandboxGetStatsResponse::default(),
        Err(error) => return Err(ended::unknown(sandbox, error)),
    };
    // Without a sample the billed amounts are zero because nothing was recorded yet.
    let recorded = stats.num_datapoints > 0;
    let billed = |seconds: f64, factor: f64| recorded.then(|| (seconds * factor * 1000.0).round() as u64);
    let mut cost_by_resource = Vec::new();
    for (name, cost) in &stats.cost_by_resource {
        cost_by_resource.push((name.clone(), dollars(cost)?));
    }
    cost_by_resource.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(UsageReport {
        totals,
        cost: stats.cost.as_deref().map(dollars).transpose()?,
        cost_by_resource,
        billed_cpu_core_millis: billed(stats.billed_cpu_core_seconds, 1.0),
        billed_memory_mib_millis: billed(stats.billed_memory_gib_seconds, 1024.0),
        running: (stats.duration_hours > 0.0).then(|| (stats.duration_hours * 3_600_000.0).round() as u64),
        distributions: distributions(stats),
        extra: Vec::new(),
    })
}

/// Parses a decimal number of dollars.
fn dollars(text: &str) -> Result<f64> {
    text.trim().parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| unreadable(READ_COST))
}

fn distributions(stats: SandboxGetStatsResponse) -> Vec<Distribution> {
    let measured = |name: &str, unit: &str, stats: ResourceStats| Distribution {
        name: name.to_string(),
        unit: unit.to_string(),
        mean: Some(stats.mean),
        max: Some(stats.max),
        percentiles: percentiles(&stats.percentiles),
    };
    let mut found = Vec::new();
    found.extend(stats.cpu_cores.map(|stats| measured("cpu", "cores", stats)));
    found.extend(stats.memory_gib.map(|stats| measured("memory", "GiB", stats)));
    let mut others: Vec<_> = stats.percentile_stats.into_iter().collect();
    others.retain(|(name, _)| !REPEATED.contains(&name.as_str()));
    others.sort_by(|(a, _), (b, _)| a.cmp(b));
    found.extend(others.into_iter().map(|(name, other)| Distribution {
        name,
        unit: other.unit,
        mean: None,
        max: None,
        percentiles: percentiles(&other.percentiles),
    }));
    found
}

fn percentiles(points: &[StatsPercentile]) -> Vec<(f64, f64)> {
    points.iter().map(|point| (f64::from(point.percentile_basis_points) / 100.0, point.value)).collect()
}

//! The resource usage and the cost of sandboxes, also after their end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use modal_proto::client::sandbox_get_stats_response::ResourceStats;
use modal_proto::client::*;
use modal_proto::prost_types::Timestamp;
use tonic::Status;

use crate::model::samples::Sample;
use crate::model::sandbox::Phase;
use crate::model::state::State;
use crate::model::values::now;
use crate::runtime::usage;
use crate::service::caller::Caller;

/// The service's defaults for a sandbox that requests nothing: thousandths of a core, and MiB.
const LEAST: (u32, u32) = (125, 128);

/// Dollars per second for a core and for a GiB of memory. Invented, of the same order as the service's prices.
const CPU_PRICE: f64 = 0.000_039_42;
const MEMORY_PRICE: f64 = 0.000_006_72;

/// Dollars per second for a GPU. Also invented.
const GPU_PRICES: [(&str, f64); 9] = [
    ("B200", 0.001_736),
    ("H200", 0.001_261),
    ("H100", 0.001_097),
    ("A100-80GB", 0.000_694),
    ("A100-40GB", 0.000_583),
    ("L40S", 0.000_542),
    ("A10G", 0.000_306),
    ("L4", 0.000_222),
    ("T4", 0.000_164),
];

/// Parts of a dollar in which costs are counted, so that sums are exact.
const PICO: f64 = 1e12;

/// The reported percentiles, in hundredths of a percent.
const PERCENTILES: [u32; 3] = [5000, 9000, 9900];

/// Returns the usage and the cost of a sandbox in a range of time.
///
/// # Errors
///
/// Fails with NOT_FOUND if the sandbox does not exist, and with INVALID_ARGUMENT if the range is empty.
pub async fn get(
    state: &Arc<State>,
    _: &Caller,
    request: SandboxGetStatsRequest,
) -> Result<SandboxGetStatsResponse, Status> {
    let sandbox = state.sandbox(&request.sandbox_id)?;
    if let Phase::Running(unit) = &*sandbox.phase.borrow() {
        usage::look(&sandbox, unit);
    }
    let seconds = |time: Timestamp| time.seconds as f64 + f64::from(time.nanos) / 1e9;
    let since = request.since.map_or(sandbox.created_at, seconds);
    let until = request.until.map_or_else(now, seconds);
    if since >= until {
        return Err(Status::invalid_argument("since must be before until"));
    }
    let changing = sandbox.changing.lock().clone();
    let ended = if changing.finished_at > 0.0 { changing.finished_at } else { now() };
    let ran = if changing.started_at > 0.0 { overlap(changing.started_at, ended, since, until) } else { 0.0 };
    let samples: Vec<(Sample, f64)> = {
        let samples = sandbox.samples.lock();
        let part = |s: &Sample| (*s, overlap(s.end - s.seconds, s.end, since, until));
        samples.all.iter().map(part).filter(|(_, seconds)| *seconds > 0.0).collect()
    };
    let resources = sandbox.definition.resources.clone().unwrap_or_default();
    let asked = |value: u32, least: u32| f64::from(if value == 0 { least } else { value });
    let cores = asked(resources.milli_cpu, LEAST.0) / 1000.0;
    let gib = asked(resources.memory_mb, LEAST.1) / 1024.0;
    let sampled: f64 = samples.iter().map(|(_, seconds)| seconds).sum();
    // The time since the last sample. Nothing is billed before the first one.
    let unsampled = if samples.is_empty() { 0.0 } else { (ran - sampled).max(0.0) };
    let billed = |value: fn(&Sample) -> f64, asked: f64| -> f64 {
        let used: f64 = samples.iter().map(|(sample, seconds)| value(sample).max(asked) * seconds).sum();
        used + asked * unsampled
    };
    let (cpu_seconds, memory_seconds) = (billed(|s| s.cores, cores), billed(|s| s.gib, gib));
    let mut costs: Vec<(String, u64)> = Vec::new();
    if !samples.is_empty() {
        costs.push(("CPU".to_owned(), (cpu_seconds * CPU_PRICE * PICO).round() as u64));
        costs.push(("Memory".to_owned(), (memory_seconds * MEMORY_PRICE * PICO).round() as u64));
        let gpu = resources.gpu_config.unwrap_or_default();
        let price = GPU_PRICES.iter().find(|(name, _)| name.eq_ignore_ascii_case(&gpu.gpu_type));
        if let Some((name, price)) = price {
            let time = (sampled + unsampled) * f64::from(gpu.count);
            costs.push(((*name).to_owned(), (time * price * PICO).round() as u64));
        }
    }
    let sum: u64 = costs.iter().map(|(_, cost)| cost).sum();
    let distribution = |unit: &str, value: fn(&Sample) -> f64| StatsPercentileDistribution {
        unit: unit.to_owned(),
        percentiles: percentiles(&samples, value),
    };
    let mut percentile_stats = HashMap::new();
    if !samples.is_empty() {
        percentile_stats.insert("CPU Usage (cores)".to_owned(), distribution("cores", |s| s.cores));
        percentile_stats.insert("Memory Usage (GiB)".to_owned(), distribution("GiB", |s| s.gib));
    }
    Ok(SandboxGetStatsResponse {
        cost: (!samples.is_empty()).then(|| dollars(sum)),
        cost_by_resource: costs.into_iter().map(|(name, cost)| (name, dollars(cost))).collect(),
        num_datapoints: samples.len() as u64,
        cpu_cores: summary(&samples, |s| s.cores),
        memory_gib: summary(&samples, |s| s.gib),
        duration_hours: ran / 3600.0,
        billed_cpu_core_seconds: cpu_seconds,
        billed_memory_gib_seconds: memory_seconds,
        since: Some(timestamp(since)),
        until: Some(timestamp(until)),
        percentile_stats,
    })
}

/// Returns the seconds that two ranges of time have in common.
fn overlap(from: f64, to: f64, since: f64, until: f64) -> f64 {
    (to.min(until) - from.max(since)).max(0.0)
}

fn percentiles(samples: &[(Sample, f64)], value: fn(&Sample) -> f64) -> Vec<StatsPercentile> {
    let mut values: Vec<f64> = samples.iter().map(|(sample, _)| value(sample)).collect();
    values.sort_by(f64::total_cmp);
    let at = |points: u32| {
        let rank = (values.len() * points as usize).div_ceil(10_000).max(1);
        values.get(rank - 1).copied().unwrap_or(0.0)
    };
    PERCENTILES.map(|points| StatsPercentile { percentile_basis_points: points, value: at(points) }).to_vec()
}

fn summary(samples: &[(Sample, f64)], value: fn(&Sample) -> f64) -> Option<ResourceStats> {
    let time: f64 = samples.iter().map(|(_, seconds)| seconds).sum();
    (time > 0.0).then(|| ResourceStats {
        percentiles: percentiles(samples, value),
        mean: samples.iter().map(|(sample, seconds)| value(sample) * seconds).sum::<f64>() / time,
        max: samples.iter().map(|(sample, _)| value(sample)).fold(0.0, f64::max),
    })
}

/// Formats a sum in picodollars as a decimal number of dollars.
fn dollars(pico: u64) -> String {
    let whole = PICO as u64;
    let text = format!("{}.{:012}", pico / whole, pico % whole);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

fn timestamp(seconds: f64) -> Timestamp {
    (UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_exact() {
        assert_eq!(dollars(0), "0");
        assert_eq!(dollars(1), "0.000000000001");
        assert_eq!(dollars(2_500_000_000_000), "2.5");
    }

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let sample = |cores| (Sample { end: 0.0, seconds: 1.0, cores, gib: 0.0 }, 1.0);
        let samples: Vec<_> = (1..=100).map(|n| sample(f64::from(n))).collect();
        let values: Vec<f64> = percentiles(&samples, |s| s.cores).iter().map(|p| p.value).collect();
        assert_eq!(values, [50.0, 90.0, 99.0]);
    }
}

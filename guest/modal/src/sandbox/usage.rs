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
    sandbox::{manage, sort::insertion_sort},
    service::{Service, ended, error::unreadable, id},
};

/// The action in the error message "Could not …".
const READ_COST: &str = "read the cost of the sandbox";

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
    insertion_sort(&mut cost_by_resource, |(a, _), (b, _)| a < b);
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

/// Parses a decimal number of dollars, such as `0.0031` or `3.1E-3`.
fn dollars(text: &str) -> Result<f64> {
    decimal(text.trim()).ok_or_else(|| unreadable(READ_COST))
}

/// Parses a decimal number that is not negative. The parser of the standard library would add 20 kB to the component. This one is
/// exact up to 15 digits; digits after the 18th are ignored.
fn decimal(text: &str) -> Option<f64> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut scale: i32 = exponent.parse().ok()?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || scale.abs() > 99 {
        return None;
    }
    let (mut value, mut seen) = (0u64, 0);
    for (digit, is_fraction) in
        whole.bytes().map(|digit| (digit, false)).chain(fraction.bytes().map(|digit| (digit, true)))
    {
        if !digit.is_ascii_digit() {
            return None;
        }
        if seen < 18 {
            value = value * 10 + u64::from(digit - b'0');
            seen += i32::from(value > 0);
            scale -= i32::from(is_fraction);
        } else {
            scale += i32::from(!is_fraction);
        }
    }
    let power = (0..scale.abs().min(300)).fold(1.0, |power, _| power * 10.0);
    Some(if scale < 0 { value as f64 / power } else { value as f64 * power })
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
    insertion_sort(&mut others, |(a, _), (b, _)| a < b);
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

#[cfg(test)]
mod tests {
    use super::decimal;

    #[test]
    fn decimal_numbers_are_parsed_exactly() {
        for text in [
            "0",
            "1",
            "0.0031",
            "12.5",
            "3.1E-3",
            "1e-7",
            "0.000000000123456",
            ".5",
            "7.",
            "1e2",
            "0.1",
            "123456.789012",
        ] {
            assert_eq!(decimal(text), text.parse().ok(), "{text}");
        }
        let long = "0.12345678901234567890123456789";
        assert!((decimal(long).unwrap() - long.parse::<f64>().unwrap()).abs() < 1e-16);
        for text in ["", ".", "a lot", "-1", "1,5", "1e", "1e100", "NaN", "inf", "0x1", "1.2.3"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}

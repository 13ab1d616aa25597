//! `sandbox-host stats`: prints the resource usage and the cost of a sandbox.

use anyhow::Result;
use sandbox_host::types::UsageReport;

use crate::args::Id;
use crate::output::results::Usage;
use crate::session::Session;

/// Runs `sandbox-host stats`. Returns the exit code.
pub async fn stats(session: &Session, args: Id) -> Result<i32> {
    let report = session.provider().await?.sandbox(args.id).usage_report().await?;
    session.voice.show(&Usage::from(&report), lines(&report))?;
    Ok(0)
}

/// Formats a report as lines of text. Values that the provider does not report are omitted.
fn lines(report: &UsageReport) -> Vec<String> {
    let hours = |millis: u64| millis as f64 / 3_600_000.0;
    let used = &report.totals;
    let mut lines = vec![
        format!("processor    {:.6} core hours", hours(used.cpu_core_millis)),
        format!("memory       {:.6} GiB hours", hours(used.memory_mib_millis) / 1024.0),
        format!("accelerator  {:.6} hours", hours(used.gpu_millis)),
    ];
    if let Some(running) = report.running {
        lines.push(format!("running      {:.6} hours", hours(running)));
    }
    if let Some(cores) = report.billed_cpu_core_millis {
        lines.push(format!("billed       {:.6} core seconds", cores as f64 / 1000.0));
    }
    if let Some(memory) = report.billed_memory_mib_millis {
        lines.push(format!("billed       {:.6} GiB seconds", memory as f64 / 1024.0 / 1000.0));
    }
    if let Some(cost) = report.cost {
        lines.push(format!("cost         {cost:.6} USD"));
        lines.extend(report.cost_by_resource.iter().map(|(name, cost)| format!("  {name:<10} {cost:.6} USD")));
    }
    for one in &report.distributions {
        let mean = one.mean.map(|value| ("mean".to_owned(), value));
        let points = one.percentiles.iter().map(|(percent, value)| (format!("p{percent}"), *value));
        let max = one.max.map(|value| ("max".to_owned(), value));
        let values = mean.into_iter().chain(points).chain(max).map(|(name, value)| format!("{name} {value:.6}"));
        lines.push(format!("{:<12} {} ({})", one.name, values.collect::<Vec<_>>().join(", "), one.unit));
    }
    lines
}

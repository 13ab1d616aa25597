//! Group `usage`: what a sandbox has used and cost.

use std::sync::Arc;

use sandbox_host::Kind;

use crate::check::{Outcome, ensure, refused};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "usage.grows" ["stats"] "usage: the totals never decrease" => grows;
    "usage.of-ended" ["stats"] "report-usage: works after the end of the sandbox" => of_ended;
    "usage.costs-add-up" ["stats", "stats.cost"] "usage-report: the costs of the resources add up to the cost" => add_up;
    "usage.unknown-sandbox" ["stats"] "report-usage: fails with `not-found` if the provider does not know the sandbox" => unknown;
}

async fn grows(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let first = sandbox.usage_report().await?.totals;
    let later = case.other().await?.sandbox(sandbox.id()).usage_report().await?.totals;
    let grown = later.cpu_core_millis >= first.cpu_core_millis && later.memory_mib_millis >= first.memory_mib_millis;
    ensure!(grown, "the totals went from {first:?} to {later:?}");
    Ok(())
}

async fn of_ended(case: Arc<Case>) -> Outcome {
    let report = case.ended().await?.usage_report().await?;
    ensure!(report.cost.is_none_or(|cost| cost >= 0.0 && cost.is_finite()), "the cost is {:?}", report.cost);
    Ok(())
}

async fn add_up(case: Arc<Case>) -> Outcome {
    let report = case.ended().await?.usage_report().await?;
    let Some(cost) = report.cost else { return Ok(()) };
    if report.cost_by_resource.is_empty() {
        return Ok(());
    }
    let sum: f64 = report.cost_by_resource.iter().map(|(_, cost)| cost).sum();
    // Allows for the rounding of sums of decimal numbers.
    let apart = (cost - sum).abs();
    ensure!(apart <= cost.abs() * 1e-3, "the cost is {cost}, and those of the resources add up to {sum}");
    Ok(())
}

async fn unknown(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`report-usage` of an unknown sandbox", unknown.usage_report().await, &Kind::NotFound)?;
    Ok(())
}

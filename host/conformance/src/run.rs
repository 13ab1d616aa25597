//! Runs the checks: several at a time, each with a time limit, and removes what they made however they end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use sandbox_host::{Error, Provider, ProviderBuilder};

use crate::check::{Outcome, State, Stop};
use crate::groups::ALL;
use crate::options::Options;
use crate::table::Check;
use crate::world::{Case, Observer, World};

/// The result of one check.
#[derive(Clone, Debug)]
pub struct CheckResult {
    /// The check.
    pub check: &'static Check,
    /// How it ended.
    pub state: State,
    /// What was seen, if it failed. The missing capability, if it is not declared. The reason, if it was skipped.
    pub text: String,
    /// How long it ran.
    pub time: Duration,
}

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The name of the provider.
    pub provider: String,
    /// The version of the component.
    pub version: String,
    /// The results, in the order of [`checks`](crate::checks).
    pub results: Vec<CheckResult>,
    /// What the run made and could not remove.
    pub left: Vec<String>,
}

impl Report {
    /// Returns whether no check failed and nothing was left behind.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.left.is_empty() && self.count(|_| true, State::Failed) == 0
    }

    /// Returns the number of checks with this state among those that `wanted` selects.
    pub fn count(&self, wanted: impl Fn(&Check) -> bool, state: State) -> usize {
        self.results.iter().filter(|result| wanted(result.check) && result.state == state).count()
    }
}

/// Returns all checks, in the order in which they begin.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    ALL.iter().copied().flatten()
}

/// Returns the names of all groups, in their order.
#[must_use]
pub fn groups() -> Vec<&'static str> {
    let mut seen = HashSet::new();
    checks().map(Check::group).filter(|group| seen.insert(*group)).collect()
}

/// Runs the checks on a provider. `another` returns a builder with the same settings, for further providers of the same
/// service. If the future is dropped, the sandboxes that exist at that moment stay; `observer` knows them.
///
/// # Errors
///
/// Fails if the provider cannot describe itself. Everything else is a result of a check.
pub async fn run(
    provider: Provider,
    another: impl Fn() -> ProviderBuilder + Send + Sync + 'static,
    options: &Options,
    observer: Arc<dyn Observer>,
) -> Result<Report, Error> {
    let world = Arc::new(World::new(provider, Box::new(another), options, observer.clone()).await?);
    let running = checks().filter(|check| check.is_among(&options.only)).enumerate().map(|(index, check)| {
        let (world, observer) = (world.clone(), observer.clone());
        async move {
            let result = run_one(world, check).await;
            observer.finished(result.check.id, result.state, result.time);
            (index, result)
        }
    });
    let mut ended: Vec<_> = futures_util::stream::iter(running).buffer_unordered(options.jobs.max(1)).collect().await;
    ended.sort_unstable_by_key(|(index, _)| *index);
    let results = ended.into_iter().map(|(_, result)| result).collect();
    let left = world.end().await;
    let description = &world.description;
    Ok(Report { provider: description.name.clone(), version: description.version.clone(), results, left })
}

async fn run_one(world: Arc<World>, check: &'static Check) -> CheckResult {
    let begun = Instant::now();
    let result = |state, text| CheckResult { check, state, text, time: begun.elapsed() };
    if let Some(missing) = world.undeclared(check.needs) {
        return result(State::NotDeclared, missing.to_owned());
    }
    let case = Arc::new(Case::new(world));
    let outcome = apply(case.clone(), check).await;
    case.clean().await;
    match outcome {
        Ok(()) => result(State::Passed, String::new()),
        Err(Stop::Failed(text)) => result(State::Failed, text),
        Err(Stop::Skipped(text)) => result(State::Skipped, text),
    }
}

/// Runs a check in a task of its own, so that a panic ends only this check.
async fn apply(case: Arc<Case>, check: &'static Check) -> Outcome {
    let limit = check.time_limit() * case.slowness();
    let work = async move {
        if let Some(program) = case.missing_program(check.needs).await? {
            return Err(Stop::Skipped(format!("the sandbox has no program `{program}`")));
        }
        (check.run)(case).await
    };
    let mut task = Cancelled(tokio::spawn(work));
    match tokio::time::timeout(limit, &mut task.0).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(Stop::Failed(format!("the check itself failed: {error}"))),
        Err(_) => Err(Stop::Failed(format!("no end after {limit:?}"))),
    }
}

/// A task that is cancelled when this value is dropped.
struct Cancelled(tokio::task::JoinHandle<Outcome>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        self.0.abort();
    }
}

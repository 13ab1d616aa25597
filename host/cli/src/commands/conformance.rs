//! `sandbox-host conformance`: runs the checks of the interface on a provider, and prints their results.

use std::collections::HashMap;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use sandbox_conformance::{Check, Observer, Options, Report, State};
use sandbox_host::{InstancesWish, Provider, Sandbox};

use crate::args::Conformance;
use crate::output::junit::junit;
use crate::output::results::{self, ConformanceCheck, ConformanceResult};
use crate::output::{self, Failure};
use crate::session::Session;
use crate::session::undo::CleanupEntry;
use crate::steps::image::named_image;

/// Exit code if a check failed. It differs from that of a failure of this program.
const NOT_CONFORMING: i32 = 1;

/// Runs `sandbox-host conformance`. Returns the exit code.
pub async fn conformance(session: &Session, args: Conformance) -> Result<i32> {
    let unknown = |name: &&String| !sandbox_conformance::checks().any(|check| check.is_among(slice::from_ref(*name)));
    if let Some(name) = args.only.iter().find(unknown) {
        let groups = sandbox_conformance::groups().join(", ");
        return Err(Failure::new(format!("run the checks of {name}"), "there is no such group or check")
            .hint(format!("the groups are {groups}; `sandbox-host conformance --list` prints the checks"))
            .into());
    }
    if args.list {
        return list(session, &args.only);
    }
    let builders = session.builders(&args.env).await?;
    let provider = session.build(builders()).await?;
    let interface = provider.plugin().interface_version();
    let mut options = Options::default();
    if let Some(image) = &args.image {
        options.image = named_image(image);
    }
    options.alone = provider.plugin().manifest().instances == InstancesWish::One;
    (options.only, options.jobs, options.seed) = (args.only, usize::from(args.jobs), args.seed);
    let witness = Arc::new(Witness { session: session.clone(), tag: Mutex::default(), cleanups: Mutex::default() });
    let report = sandbox_conformance::run(provider, builders, &options, witness.clone()).await?;
    if report.left.is_empty() {
        witness.nothing_is_left();
    }
    if let Some(path) = &args.junit {
        let what = format!("write the results to {}", path.display());
        std::fs::write(path, junit(&report)).map_err(|error| Failure::io(&what, &error))?;
    }
    show(session, &report, interface)?;
    Ok(if report.holds() { 0 } else { NOT_CONFORMING })
}

/// Records in the session what exists, so that it is removed if this program is stopped, and prints progress.
struct Witness {
    session: Session,
    tag: Mutex<Option<CleanupEntry>>,
    cleanups: Mutex<HashMap<String, CleanupEntry>>,
}

impl Witness {
    fn nothing_is_left(&self) {
        if let Some(tag) = self.tag.lock().unwrap_or_else(PoisonError::into_inner).take() {
            tag.done();
        }
    }
}

impl Observer for Witness {
    fn tagged(&self, provider: &Provider, name: &str, value: &str) {
        let cleanup = self.session.register_creation(provider, (name.to_owned(), value.to_owned()));
        *self.tag.lock().unwrap_or_else(PoisonError::into_inner) = Some(cleanup);
    }

    fn created(&self, sandbox: &Sandbox) {
        let mut cleanups = self.cleanups.lock().unwrap_or_else(PoisonError::into_inner);
        // A repeated create returns the same sandbox.
        cleanups.entry(sandbox.id().to_owned()).or_insert_with(|| self.session.register_sandbox(sandbox));
    }

    fn terminated(&self, sandbox: &Sandbox) {
        if let Some(cleanup) = self.cleanups.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox.id()) {
            cleanup.done();
        }
    }

    fn finished(&self, id: &'static str, state: State, time: Duration) {
        if !self.session.voice.json {
            let (state, time) = (state.name(), time.as_secs_f64());
            self.session.voice.say(format_args!("{state:12}  {id}  {time:.1} s"));
        }
    }
}

/// Prints the checks without running them.
fn list(session: &Session, only: &[String]) -> Result<i32> {
    let checks: Vec<_> = sandbox_conformance::checks().filter(|check| check.is_among(only)).collect();
    if session.voice.json {
        let all: Vec<_> = checks
            .iter()
            .map(|check| ConformanceCheck {
                id: check.id,
                group: check.group(),
                needs: check.needs,
                clause: check.clause,
            })
            .collect();
        output::print_json(&all)?;
    } else {
        let heading = ["CHECK", "NEEDS", "CLAUSE"].map(str::to_owned).to_vec();
        let rows = checks.iter().map(|check| vec![check.id.to_owned(), check.needs.join(" "), check.clause.to_owned()]);
        output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())?;
    }
    Ok(0)
}

/// Prints the failed checks and a table of the groups.
fn show(session: &Session, report: &Report, interface: &str) -> Result<()> {
    let count = |state| report.count(|_| true, state);
    if session.voice.json {
        let result = results::Conformance {
            ok: report.holds(),
            provider: &report.provider,
            version: &report.version,
            interface,
            passed: count(State::Passed),
            failed: count(State::Failed),
            not_declared: count(State::NotDeclared),
            skipped: count(State::Skipped),
            checks: report
                .results
                .iter()
                .map(|result| ConformanceResult {
                    id: result.check.id,
                    clause: result.check.clause,
                    state: result.state.name(),
                    text: &result.text,
                    time_ms: result.time.as_millis() as u64,
                })
                .collect(),
            left_behind: &report.left,
        };
        return output::print_json(&result);
    }
    for result in report.results.iter().filter(|result| result.state == State::Failed) {
        output::print(format_args!("failed  {}", result.check.id))?;
        output::print_text("  clause  ", result.check.clause)?;
        output::print_text("  seen    ", &result.text)?;
    }
    for left in &report.left {
        output::print_text("left behind  ", left)?;
    }
    let states = [State::Passed, State::Failed, State::NotDeclared, State::Skipped];
    let row = |name: &str, group: Option<&str>| {
        let wanted = |check: &Check| group.is_none_or(|group| group == check.group());
        let counts = states.map(|state| report.count(wanted, state).to_string());
        std::iter::once(name.to_owned()).chain(counts).collect::<Vec<_>>()
    };
    let mut rows = vec![["GROUP", "PASSED", "FAILED", "NOT DECLARED", "SKIPPED"].map(str::to_owned).to_vec()];
    let ran = |group: &&str| report.results.iter().any(|result| result.check.group() == *group);
    rows.extend(sandbox_conformance::groups().into_iter().filter(ran).map(|group| row(group, Some(group))));
    rows.push(row("all", None));
    output::table(&rows)
}

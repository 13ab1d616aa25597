//! `cargo xtask conformance`: runs `sandbox-host conformance` on every provider in this tree, and compares the results with the
//! table in `docs/conformance.md`, or writes the table.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::{build, engines, report::Report, tools};

/// A provider, or a provider with a service.
struct Column {
    /// The name in the table.
    name: &'static str,
    /// The arguments that select it.
    arguments: &'static [&'static str],
    /// The engine that it needs, by the name that the program `engines` has for it.
    engine: Option<&'static str>,
}

const DOCKER: &[&str] = &["--plugin", "docker", "--image", "tools:latest"];

/// The columns of the table, in the order of their names.
const COLUMNS: &[Column] = &[
    Column { name: "docker", arguments: DOCKER, engine: Some("dockerd") },
    Column { name: "memory", arguments: &["--plugin", "memory"], engine: None },
    Column { name: "modal", arguments: &["--emulator"], engine: None },
    Column { name: "podman", arguments: DOCKER, engine: Some("podman") },
];

/// The name of the step of `cargo xtask test`.
pub const STEP: &str = "conformance";

/// The document with the table.
const DOCUMENT: &str = "docs/conformance.md";

/// The part of the document before the table.
const INTRODUCTION: &str = "\
# Conformance of the providers

Made by `cargo xtask conformance --write`, which runs `sandbox-host conformance` on every provider in this tree. The step
`conformance` of `cargo xtask test` compares this page with a new run. The provider `modal` is tested with the
emulator. The columns `docker` and `podman` are the provider for Docker with Docker Engine and with Podman.

- **yes**: the provider behaves as the interface says.
- **no**: it does not.
- **–**: the provider does not declare the capability. A check of the group `capabilities` tests that it is refused.
- **n/a**: the check does not apply, for example because the sandbox lacks a program.

A clause names a function or a type of `wit/`, and what is documented there.

The checks use what the image of the sandboxes has: `/bin/sh`, `echo`, `cat` and `sleep`, in a few cases further programs, the
user `nobody`, and a directory `/tmp` in which every user may write. Images with busybox have all of it. A check that needs what
the image lacks is **n/a**. Dockerfiles of the checks begin with the image of `--image` if that is a registry name, and
otherwise with `debian`. Sandboxes may have no network: no check requires that a destination outside of them is reached. The
time limits of the checks, two minutes and for damaged connections ten, grow up to five times with the time that commands take.

A plugin that runs all calls in one instance (`instances` of the manifest) and has `exec` without `processes` can do nothing else while a
command runs. The checks that end the sandbox or give the call up in the meantime are **n/a** for it.
";

/// A word for the state of each check, by its name.
type States = BTreeMap<String, &'static str>;

/// The results of the checks on one provider.
struct Results {
    /// For a check that was run again, the state is that of the second run.
    states: States,
    /// The checks that failed, with what was seen, and with what was seen in a second run if they failed again.
    failed: Vec<(String, String, Option<String>)>,
}

/// `cargo xtask conformance`: as [`test()`] without a filter. With `write`, writes the table.
///
/// # Errors
///
/// As for [`test()`]; also if the table cannot be written.
pub fn run(write: bool) -> Result<()> {
    let mut report = Report::default();
    report.begin(STEP);
    let begun = Instant::now();
    let result = compare(&mut report, None, write);
    report.end(result, begun.elapsed());
    report.finish(None, usize::MAX)
}

/// Builds the program and the components, runs the checks on all providers, and those that failed a second time, and
/// compares the results with the table. With a filter, runs only the checks whose names contain it, such as
/// `podman:core.tags`, and compares nothing.
///
/// # Errors
///
/// Fails if a check failed twice, the program could not run it, or the document differs from the results.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    compare(report, filter, false)
}

fn compare(report: &mut Report, filter: Option<&str>, write: bool) -> Result<()> {
    let program = build::dist()?.program;
    let list = output(Command::new(&program).args(["conformance", "--list", "--json"]))?.1;
    let list = list.as_array().context("the list of the checks is no array")?;
    let ids: Vec<_> = list.iter().filter_map(|check| check["id"].as_str()).collect();
    let mut columns = Vec::new();
    for column in COLUMNS {
        let wanted = wanted(column.name, &ids, filter);
        if !wanted.is_empty() && (column.engine.is_none() || engines::fetch()?.is_some()) {
            columns.push((column, wanted));
        }
    }
    // The checks mostly wait, for a service or for time to pass, so all providers are checked at the same time.
    let checked = thread::scope(|scope| {
        let threads: Vec<_> = columns
            .into_iter()
            .map(|(column, wanted)| {
                eprintln!("Checking the provider {}", column.name);
                let program = &program;
                let work = move || {
                    check(program, column, &wanted).with_context(|| format!("in the checks of {}", column.name))
                };
                (column.name, scope.spawn(work))
            })
            .collect();
        let results = threads.into_iter().map(|(name, thread)| {
            let results = thread.join().map_err(|_| anyhow!("the checks of {name} panicked"))??;
            Ok((name, results))
        });
        results.collect::<Result<Vec<_>>>()
    })?;
    let mut failures = 0;
    for (name, Results { states, failed }) in &checked {
        let first = |id: &String| !failed.iter().any(|(failed, ..)| failed == id);
        report.passed(states.iter().filter(|(id, state)| **state == "yes" && first(id)).count());
        for (id, seen, again) in failed {
            let second = again.as_ref().map_or(Ok(()), |seen| Err(anyhow!("{seen}")));
            failures += usize::from(!report.attempted(&full_name(name, id), Err(anyhow!("{seen}")), || second));
        }
    }
    let results: BTreeMap<_, _> = checked.into_iter().map(|(name, results)| (name, results.states)).collect();
    if filter.is_none() && results.len() == COLUMNS.len() {
        let text = document(list, &results);
        let path = tools::root().join(DOCUMENT);
        if write {
            fs::write(&path, &text)?;
        }
        let same = fs::read_to_string(&path).is_ok_and(|there| there == text);
        ensure!(
            same || failures > 0,
            "{DOCUMENT} differs from the results; `cargo xtask conformance --write` writes it"
        );
    } else {
        eprintln!("{DOCUMENT} is not compared, because checks or columns are missing");
    }
    ensure!(failures == 0, "{failures} checks failed twice");
    Ok(())
}

/// Returns the name of a check on a provider.
fn full_name(column: &str, id: &str) -> String {
    format!("{column}:{id}")
}

/// Returns the checks on a provider whose names contain the filter.
fn wanted<'a>(column: &str, ids: &[&'a str], filter: Option<&str>) -> Vec<&'a str> {
    let wanted = |id: &&&str| filter.is_none_or(|text| full_name(column, id).contains(text));
    ids.iter().filter(wanted).copied().collect()
}

/// Runs a command with standard error shown, and returns whether it succeeded and the JSON that it printed.
fn output(command: &mut Command) -> Result<(bool, Value)> {
    let output = command.stderr(Stdio::inherit()).output()?;
    let value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`{}` printed no JSON and ended with {}", tools::line(command), output.status))?;
    Ok((output.status.success(), value))
}

/// Runs these checks on a provider, and those that failed a second time.
fn check(program: &Path, column: &Column, ids: &[&str]) -> Result<Results> {
    let engine = column.engine.map(engines::start).transpose()?;
    let run = |ids: &[&str]| -> Result<_> {
        let mut command = Command::new(program);
        command.args(["conformance", "--json"]).args(column.arguments);
        command.args(ids.iter().flat_map(|id| ["--only", id]));
        if let Some(engine) = &engine {
            command.env("DOCKER_HOST", engine.address());
        }
        let (holds, report) = output(&mut command)?;
        results(holds, &report)
    };
    let (mut states, failures) = run(ids)?;
    if failures.is_empty() {
        return Ok(Results { states, failed: Vec::new() });
    }
    let failed: Vec<_> = failures.keys().map(String::as_str).collect();
    eprintln!("Running failed checks of {} again: {}", column.name, failed.join(", "));
    let (states_again, mut failures_again) = run(&failed)?;
    states.extend(states_again);
    let failed = failures.into_iter().map(|(id, seen)| {
        let again = failures_again.remove(&id);
        (id, seen, again)
    });
    Ok(Results { states, failed: failed.collect() })
}

/// Reads the report of a run: a word for the state of each check, and what was seen in those that failed.
fn results(holds: bool, report: &Value) -> Result<(States, BTreeMap<String, String>)> {
    ensure!(report["error"].is_null(), "{}", report["error"]);
    let (mut states, mut failures) = (States::new(), BTreeMap::new());
    for result in report["checks"].as_array().into_iter().flatten() {
        let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
        let state = match &*text("state") {
            "passed" => "yes",
            "not declared" => "–",
            "skipped" => "n/a",
            _ => "no",
        };
        if state == "no" {
            failures.insert(text("id"), format!("{} (clause: {})", text("text"), text("clause")));
        }
        states.insert(text("id"), state);
    }
    let left = &report["left_behind"];
    ensure!(left.as_array().is_some_and(Vec::is_empty), "left behind: {left}; failed checks: {failures:?}");
    ensure!(holds || !failures.is_empty(), "the program failed without naming a check");
    Ok((states, failures))
}

/// Returns the whole document.
fn document(list: &[Value], results: &BTreeMap<&str, States>) -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut group = "";
    for check in list {
        let field = |name: &str| check[name].as_str().unwrap_or_default();
        if field("group") != group {
            group = field("group");
            let names: Vec<_> = results.keys().copied().collect();
            text.push_str(&format!("\n## {group}\n\n| check | clause | {} |\n", names.join(" | ")));
            text.push_str(&format!("|---|---|{}\n", "---|".repeat(names.len())));
        }
        let states = results.values().map(|states| states.get(field("id")).copied().unwrap_or("n/a"));
        let states: Vec<_> = states.collect();
        let clause = field("clause").replace('|', "\\|");
        text.push_str(&format!("| `{}` | {clause} | {} |\n", field("id"), states.join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_chooses_checks_by_provider_and_name() {
        let ids = ["core.tags", "exec.sh"];
        assert_eq!(wanted("docker", &ids, None), ids);
        assert_eq!(wanted("docker", &ids, Some("docker:core")), ["core.tags"]);
        assert_eq!(wanted("podman", &ids, Some("docker:core")), [""; 0]);
    }

    #[test]
    fn results_are_read_from_a_report() {
        let check = |id, state, text| serde_json::json!({ "id": id, "state": state, "text": text, "clause": "run: x" });
        let report = |left: &[&str]| {
            let checks = [check("a.x", "passed", ""), check("a.y", "skipped", "why"), check("a.z", "failed", "seen")];
            serde_json::json!({ "checks": checks, "left_behind": left })
        };
        let (states, failures) = results(false, &report(&[])).expect("no results");
        assert_eq!(
            states,
            BTreeMap::from([("a.x", "yes"), ("a.y", "n/a"), ("a.z", "no")].map(|(id, state)| (id.to_owned(), state)))
        );
        assert_eq!(failures, BTreeMap::from([("a.z".to_owned(), "seen (clause: run: x)".to_owned())]));
        let error = results(false, &report(&["sandbox 1"])).expect_err("something was left").to_string();
        assert!(error.contains("sandbox 1") && error.contains("a.z"), "{error}");
        assert!(results(false, &serde_json::json!({ "checks": [], "left_behind": [] })).is_err());
    }

    #[test]
    fn the_table_has_a_column_for_each_provider() {
        let list = [
            serde_json::json!({ "id": "a.x", "group": "a", "clause": "run: x | y" }),
            serde_json::json!({ "id": "b.y", "group": "b", "clause": "start: y" }),
        ];
        let states = |state| BTreeMap::from([("a.x".to_owned(), "yes"), ("b.y".to_owned(), state)]);
        let text = document(&list, &BTreeMap::from([("one", states("no")), ("two", states("–"))]));
        assert!(text.contains("| check | clause | one | two |\n|---|---|---|---|\n"), "{text}");
        assert!(text.contains("| `a.x` | run: x \\| y | yes | yes |\n"), "{text}");
        assert!(text.ends_with("| `b.y` | start: y | no | – |\n"), "{text}");
    }
}

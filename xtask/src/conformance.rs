//! `cargo xtask conformance`: runs `sandbox-host conformance` on every provider in this tree, and compares the results with the
//! table in `docs/conformance.md`, or writes the table.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::{build, engines, tools};

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

/// Builds the program and the components, and runs all checks on all providers. With `write`, writes the table.
///
/// # Errors
///
/// Fails if a check failed, the program could not run it, or the document differs from the results.
pub fn run(write: bool) -> Result<()> {
    let program = build::dist()?.program;
    let engines = engines::fetch()?;
    let mut results = BTreeMap::new();
    let mut failed = Vec::new();
    // The checks mostly wait, for a service or for time to pass, so all providers are checked at the same time.
    let checked = thread::scope(|scope| {
        let columns = COLUMNS.iter().filter(|column| column.engine.is_none() || engines.is_some());
        let threads: Vec<_> = columns
            .map(|Column { name, arguments, engine }| {
                eprintln!("Checking the provider {name}");
                let program = &program;
                let work =
                    move || check(program, arguments, *engine).with_context(|| format!("in the checks of {name}"));
                (*name, scope.spawn(work))
            })
            .collect();
        let results = threads.into_iter().map(|(name, thread)| {
            let states = thread.join().map_err(|_| anyhow!("the checks of {name} panicked"))??;
            Ok((name, states))
        });
        results.collect::<Result<Vec<_>>>()
    })?;
    for (name, states) in checked {
        failed.extend(states.iter().filter(|(_, state)| **state == "no").map(|(id, _)| format!("{name}: {id}")));
        results.insert(name, states);
    }
    let list = output(Command::new(&program).args(["conformance", "--list", "--json"]))?.1;
    let text = document(&list, &results)?;
    let path = tools::root().join(DOCUMENT);
    if results.len() < COLUMNS.len() {
        ensure!(failed.is_empty(), "these checks failed: {}", failed.join(", "));
        eprintln!("{DOCUMENT} is not compared, because columns are missing");
        return Ok(());
    }
    if write {
        fs::write(&path, &text)?;
    }
    ensure!(failed.is_empty(), "these checks failed: {}", failed.join(", "));
    let same = fs::read_to_string(&path).is_ok_and(|there| there == text);
    ensure!(same, "{DOCUMENT} differs from the results; `cargo xtask conformance --write` writes it");
    Ok(())
}

/// Runs a command with standard error shown, and returns whether it succeeded and the JSON that it printed.
fn output(command: &mut Command) -> Result<(bool, Value)> {
    let output = command.stderr(Stdio::inherit()).output()?;
    let value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`{}` printed no JSON and ended with {}", tools::line(command), output.status))?;
    Ok((output.status.success(), value))
}

/// Runs the checks on a provider, prints the failed ones, and returns a word for the state of each check.
fn check(program: &Path, arguments: &[&str], engine: Option<&str>) -> Result<BTreeMap<String, &'static str>> {
    let engine = engine.map(engines::start).transpose()?;
    let mut command = Command::new(program);
    command.args(["conformance", "--json"]).args(arguments);
    if let Some(engine) = &engine {
        command.env("DOCKER_HOST", engine.address());
    }
    let (holds, report) = output(&mut command)?;
    ensure!(report["error"].is_null(), "{}", report["error"]);
    let mut states = BTreeMap::new();
    for result in report["checks"].as_array().into_iter().flatten() {
        let text = |name: &str| result[name].as_str().unwrap_or_default();
        let state = match text("state") {
            "passed" => "yes",
            "not declared" => "–",
            "skipped" => "n/a",
            _ => "no",
        };
        if state == "no" {
            eprintln!("failed: {}\n  clause: {}\n  seen: {}", text("id"), text("clause"), text("text"));
        }
        states.insert(text("id").to_owned(), state);
    }
    let left = &report["left_behind"];
    ensure!(left.as_array().is_some_and(Vec::is_empty), "left behind: {left}");
    ensure!(holds || states.values().any(|state| *state == "no"), "the program failed without naming a check");
    Ok(states)
}

/// Returns the whole document.
fn document(list: &Value, results: &BTreeMap<&str, BTreeMap<String, &'static str>>) -> Result<String> {
    let mut text = INTRODUCTION.to_owned();
    let mut group = "";
    for check in list.as_array().context("the list of the checks is no array")? {
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
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_column_for_each_provider() {
        let list = serde_json::json!([
            { "id": "a.x", "group": "a", "clause": "run: x | y" },
            { "id": "b.y", "group": "b", "clause": "start: y" },
        ]);
        let states = |state| BTreeMap::from([("a.x".to_owned(), "yes"), ("b.y".to_owned(), state)]);
        let text = document(&list, &BTreeMap::from([("one", states("no")), ("two", states("–"))])).expect("a document");
        assert!(text.contains("| check | clause | one | two |\n|---|---|---|---|\n"), "{text}");
        assert!(text.contains("| `a.x` | run: x \\| y | yes | yes |\n"), "{text}");
        assert!(text.ends_with("| `b.y` | start: y | no | – |\n"), "{text}");
    }
}

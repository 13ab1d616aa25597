//! Checks the conformance kit with providers that are wrong: `sandbox-host conformance` has to find each fault of
//! `tests/guests/faulty`, and nothing in the memory provider.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::Value;
use system_tests::{faulty, feed, sandbox, stderr};

/// The faults, and the checks of the kit that fail with them. At least one check whose name begins with one of the texts
/// has to fail.
const FAULTS: [(&str, &[&str]); 17] = [
    ("runs-twice", &["exec.repeated", "processes.start-again"]),
    ("loses-byte", &["data.process-sizes", "processes.large-output"]),
    ("ignores-offset", &["processes.start-and-read", "processes.large-output", "processes.dialogue"]),
    ("ignores-max", &["core.list-pages", "data.", "files."]),
    ("forgets-verdict", &["exec.repeated-verdict", "processes.start-again-after-end", "processes.read-after-end"]),
    ("wrong-happened", &["limits."]),
    ("wrong-kind", &["core.get-unknown", "core.terminate-unknown"]),
    ("accepts-options", &["limits.unknown-option"]),
    ("ignores-key", &["core.create-with-one-key"]),
    ("loses-tags", &["core.tags", "core.list-by-tags"]),
    ("lists-twice", &["core.list-pages", "core.list-by-tags"]),
    ("terminates-once", &["core.terminate-again"]),
    ("denies", &["capabilities."]),
    ("repeats-input", &["callers.repeated-input"]),
    ("limits-input", &["data.run-large"]),
    ("late-deadline", &["processes.time-limit-not-reached"]),
    ("reverses-lists", &["core.list-pages"]),
];

fn conformance(arguments: &[&str]) -> (Output, Value) {
    let output = feed(sandbox().args(["conformance", "--json"]).args(arguments), b"");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {}", stderr(&output)));
    (output, report)
}

/// Returns the names of the failed checks, each with what was seen.
fn failed(report: &Value) -> Vec<(String, String)> {
    let text = |check: &Value, name: &str| check[name].as_str().expect("no text").to_string();
    let checks = report["checks"].as_array().expect("no checks").iter();
    let failed = checks.filter(|check| check["state"] == "failed");
    failed.map(|check| (text(check, "id"), text(check, "text"))).collect()
}

#[test]
fn the_memory_provider_conforms() {
    let (output, report) = conformance(&["--plugin", "memory"]);
    assert_eq!(failed(&report), []);
    assert!(output.status.success() && report["ok"] == true, "{report}");
}

#[test]
fn the_kit_finds_each_fault() {
    let component = faulty();
    let component = component.to_str().expect("not UTF-8");
    // Only the groups of the expected checks run, because a faulty provider makes some checks wait for their time limits.
    let run = |fault: &str, names: &[&str]| {
        let fault = format!("FAULT={fault}");
        let mut arguments = vec!["--plugin", component, "--grant", "--env", &fault];
        let groups: BTreeSet<_> = names.iter().filter_map(|name| name.split('.').next()).collect();
        arguments.extend(groups.iter().flat_map(|group| ["--only", group]));
        conformance(&arguments)
    };
    let (output, report) = run("", &[]);
    assert!(output.status.success() && failed(&report).is_empty(), "without a fault: {:?}", failed(&report));
    let mut missed = Vec::new();
    for (fault, names) in FAULTS {
        let (output, report) = run(fault, names);
        let failed = failed(&report);
        let found = failed.iter().any(|(id, _)| names.iter().any(|name| id.starts_with(name)));
        if !found || output.status.code() != Some(1) {
            missed.push(format!("{fault}: exit code {:?}, failed checks {failed:?}", output.status.code()));
        }
    }
    assert!(missed.is_empty(), "the kit does not find these faults:\n{}", missed.join("\n"));
}

#[test]
fn groups_and_checks_are_selected_by_name() {
    let (output, report) = conformance(&["--plugin", "memory", "--only", "exec.exit-codes", "--only", "describe"]);
    let checks = report["checks"].as_array().expect("no checks");
    let ids: Vec<_> = checks.iter().filter_map(|check| check["id"].as_str()).collect();
    assert!(output.status.success() && ids.len() > 1, "{report}");
    let (of_group, others): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| id.starts_with("describe."));
    assert!(!of_group.is_empty() && others == ["exec.exit-codes"], "{of_group:?} {others:?}");

    for unknown in ["exec.exit-code", "exe", ""] {
        let (output, report) = conformance(&["--plugin", "memory", "--only", unknown]);
        assert_eq!(output.status.code(), Some(125), "{report}");
        let error = report["error"].to_string();
        assert!(error.contains("no such group or check") && error.contains("describe, "), "{error}");
    }
}

#[test]
fn the_faults_are_those_of_the_component() {
    let source = include_str!("../guests/faulty/src/lib.rs");
    let list = source.split_once("const FAULTS").and_then(|(_, rest)| rest.split_once("];")).expect("no list").0;
    let names: Vec<_> = list.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next()).collect();
    assert_eq!(names, FAULTS.map(|(name, _)| name));
}

//! `cargo xtask test`: format, lints, documentation, unit and whole-system tests, in the order in which they fail fastest.
//! `.ci/run` is this and nothing else.

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    build, inspect,
    tools::{self, WASM_TARGET, cargo, run},
};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("fmt", || run(cargo().args(["fmt", "--all", "--check"]))),
    ("build", || build::dist().map(drop)),
    ("clippy", clippy),
    ("doc", || run(cargo().args(["doc", "--workspace", "--no-deps", "--release"]).env("RUSTDOCFLAGS", "-D warnings"))),
    ("python", python),
    ("test", test),
    ("inspect", inspect::test),
];

/// What failed tests printed. Shown once more at the end, where somebody who reads only the end of a long log finds it.
static FAILURES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Lines of one test program's failures that are shown again.
const FAILURE_LINES: usize = 200;

/// Runs the steps; all of them even when one fails, so that one run shows everything.
pub fn all(only: Option<&str>) -> Result<()> {
    tools::prepare()?;
    tools::check_namespaces()?;
    let mut failed = Vec::new();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        eprintln!("── {name} ──");
        let begun = Instant::now();
        if let Err(error) = step() {
            eprintln!("{name}: {error:#}");
            failed.push(*name);
        }
        times.push((name, begun.elapsed()));
    }
    for (name, time) in &times {
        eprintln!("{name:>10} {:>5} s", time.as_secs());
    }
    for line in FAILURES.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("{line}");
    }
    println!("{} passed, {} failed", times.len() - failed.len(), failed.len());
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

/// Random faults; the program is one of `tests/`.
pub fn soak(runs: u64, seed: Option<u64>) -> Result<()> {
    let dist = build::dist()?;
    let mut command = cargo();
    command.args(["run", "--package", "system-tests", "--bin", "soak", "--release", "--", "--runs", &runs.to_string()]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    let component = dist.program.with_file_name("modal-provider.wasm");
    run(command.env("SANDBOX_PROGRAM", &dist.program).env("SANDBOX_COMPONENT", component))
}

fn clippy() -> Result<()> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"]))?;
    // The parts of the guest that exist only in the component.
    run(cargo().args([
        "clippy",
        "--package",
        "modal-provider",
        "--lib",
        "--target",
        WASM_TARGET,
        "--profile",
        "component",
        "--",
        "-D",
        "warnings",
    ]))
}

fn python() -> Result<()> {
    let python = tools::python()?;
    let tree = tools::root().join("tests");
    run(Command::new(&python).args(["-m", "ruff", "check"]).arg(&tree))?;
    run(Command::new(&python).args(["-m", "mypy", "--strict"]).arg(&tree))
}

fn test() -> Result<()> {
    tools::python()?;
    tools::npm()?;
    let dist = tools::target().join("dist");
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--release", "--no-fail-fast"])
        .env("SANDBOX_PROGRAM", dist.join("sandbox"))
        .env("SANDBOX_COMPONENT", dist.join("modal-provider.wasm"));
    let mut failures = FAILURES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut listing = 0;
    tools::run_watched(&mut command, |line| {
        // What a test program prints between its `failures:` and its result: each failed test's output.
        match line {
            "failures:" => listing = FAILURE_LINES,
            _ if line.starts_with("test result:") => listing = 0,
            _ => {}
        }
        if listing > 0 {
            listing -= 1;
            failures.push(line.to_string());
        }
    })
}

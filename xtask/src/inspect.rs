//! `cargo xtask wheel` and the test step `inspect`: builds the Inspect AI plugin as a wheel that contains the
//! components, and tests it in an environment that contains no other part of this repository. The step `evals` runs its
//! tests in the same way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build, engines,
    report::Report,
    tools::{self, run},
};

/// The search path of the tests: system folders only, without the Rust toolchain and the user's own programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The providers of the plugin's sandbox types.
const SANDBOX_TYPES: [&str; 2] = ["modal", "docker"];

/// Returns the folder of the plugin.
pub fn tree() -> PathBuf {
    tools::root().join("inspect")
}

/// Returns a command that runs a Python module in the folder of the plugin.
pub fn module(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg("-m").args(arguments).current_dir(tree());
    command
}

/// Returns the Python interpreter for builds and checks. Fails if its packages cannot be installed.
fn builder() -> Result<PathBuf> {
    tools::environment("inspect-build-venv", &tree().join("requirements-build.txt"))
}

/// Builds the wheel into `target/wheels` and returns its path. The wheel contains the program `sandbox` with
/// components of its own, as a script that is installed next to Python. Fails if a part cannot be built.
pub fn wheel() -> Result<PathBuf> {
    let component = build::components(&build::PROVIDERS, false)?;
    let program = build::program()?;
    let python = builder()?;
    let scripts = tree().join("inspect_modal_sandbox.data/scripts");
    fs::create_dir_all(&scripts)?;
    build::replace(&program, &scripts.join("sandbox"))?;
    // The program looks for its components in this place.
    for provider in build::PROVIDERS {
        let name = build::file_name(provider);
        build::replace(&component.with_file_name(&name), &scripts.join(&name))?;
    }
    for provider in SANDBOX_TYPES {
        let name = build::file_name(provider);
        build::replace(&component.with_file_name(&name), &tree().join("python/inspect_modal_sandbox").join(&name))?;
    }
    let folder = tools::target().join("wheels");
    // A wheel of an earlier version must not be mistaken for the new one.
    let _ = fs::remove_dir_all(&folder);
    eprintln!("Building the wheel");
    let mut command =
        module(&python, &["maturin", "build", "--release", "--quiet", "--compatibility", "linux", "--out"]);
    command.arg(&folder).arg("--manifest-path").arg(tree().join("native/Cargo.toml"));
    command.env("CARGO_TARGET_DIR", tools::target());
    tools::forget_package(&mut command);
    run(&mut command)?;
    let wheel = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("maturin built no wheel")?;
    eprintln!("Built {}", wheel.display());
    Ok(wheel)
}

/// Runs lints, type checks and all tests with the wheel in an environment of its own. With a filter, runs only the
/// tests whose names contain it.
///
/// # Errors
///
/// Fails if a check fails or a test fails twice.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let builder = builder()?;
    let python = tools::environment("inspect-venv", &tree().join("requirements.txt"))?;
    if filter.is_none() {
        run(&mut module(&builder, &["ruff", "check", "."]))?;
        run(&mut module(&builder, &["ruff", "format", "--check", "."]))?;
        run(module(&builder, &["mypy", "python", "tests", "examples", "--python-executable"]).arg(&python))?;
    }
    install(&python)?;
    // The plugin's tests are skipped by themselves where no engine can run.
    let engines = engines::fetch()?.map(|_| engines::program()).transpose()?;
    pytest(report, filter, || {
        // `-rs` prints why tests are skipped.
        let mut command = module(&python, &["pytest", "tests", "--ignore", "tests/outside", "-rs"]);
        command.envs(engines.as_ref().map(|program| ("ENGINES_PROGRAM", program)));
        command
    })
}

/// Builds the wheel and installs it into the environment of this Python, which must contain its dependencies.
///
/// # Errors
///
/// Fails if the wheel cannot be built or a dependency is missing.
pub fn install(python: &Path) -> Result<()> {
    let install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(module(python, &install).arg(wheel()?))?;
    // Checks that the declared dependencies of the wheel are installed.
    run(&mut module(python, &["pip", "--disable-pip-version-check", "check"]))
}

/// Runs `command`, which runs pytest, and runs failed tests a second time. With a filter, runs only the tests whose
/// names contain it.
///
/// # Errors
///
/// Fails if a test failed twice.
pub fn pytest(report: &mut Report, filter: Option<&str>, command: impl Fn() -> Command) -> Result<()> {
    let program = build::program()?;
    let cache = tools::target().join("pytest-cache");
    let pytest = |more: &[&str]| {
        let mut command = command();
        // The tests of one file share sandboxes.
        command.args(["--quiet", "--numprocesses", "2", "--dist", "loadfile", "-o"]);
        command.arg(format!("cache_dir={}", cache.display()));
        command.args(filter.map(|text| ["-k", text]).into_iter().flatten()).args(more);
        command.env("SANDBOX_PROGRAM", &program).env("PATH", PATH);
        command
    };
    let _ = fs::remove_dir_all(&cache);
    let mut lines = Vec::new();
    let status = tools::run_watched(&mut pytest(&[]), |line| lines.push(line.to_string()))?;
    report.passed(lines.iter().rev().find_map(|line| passed(line)).unwrap_or(0));
    // Exit code 5 of pytest means that no test was selected.
    if status.success() || (filter.is_some() && status.code() == Some(5)) {
        return Ok(());
    }
    let failed = failed(&cache);
    ensure!(!failed.is_empty(), "pytest failed ({status})");
    report.output(&lines);
    println!("\nRunning failed tests again: {}", failed.join(", "));
    let again = run(&mut pytest(&["--last-failed"]));
    let failed_again = if again.is_ok() { Vec::new() } else { self::failed(&cache) };
    for name in failed {
        if failed_again.contains(&name) {
            // `tests/test_files.py::test_name[case]`: filters match the name only.
            report.failed(name.rsplit("::").next().and_then(|name| name.split('[').next()).unwrap_or(&name));
        } else {
            report.flaky(name);
        }
    }
    again
}

/// Returns the number of passed tests from the last line of pytest: `2 failed, 40 passed in 3.21s`.
fn passed(line: &str) -> Option<usize> {
    let words: Vec<_> = line.split_whitespace().collect();
    words.windows(2).find(|pair| pair[1].trim_end_matches(',') == "passed")?[0].parse().ok()
}

/// Returns the tests that failed in the last run of pytest, from its cache.
fn failed(cache: &Path) -> Vec<String> {
    let record = fs::read(cache.join("v/cache/lastfailed")).unwrap_or_default();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
    record.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_passed_tests_is_read_from_the_last_line() {
        assert_eq!(passed("2 failed, 40 passed, 1 skipped in 3.21s"), Some(40));
        assert_eq!(passed("40 passed in 3.21s (0:00:03)"), Some(40));
        assert_eq!(passed("no tests ran in 0.01s"), None);
    }
}

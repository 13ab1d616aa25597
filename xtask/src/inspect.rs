//! `cargo xtask wheel` and the step `inspect` of the tests: the Inspect AI plugin as a wheel with the component inside, and
//! its tests in an environment where that wheel is all there is of us. The step `evals` beside it runs its tests in the same way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build,
    test::Report,
    tools::{self, run},
};

/// What the tests find programs by: nothing of Rust's, and nothing of this machine's user.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The plugin's directory.
pub fn tree() -> PathBuf {
    tools::root().join("inspect")
}

/// A Python module, run in the plugin's directory.
pub fn module(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg("-m").args(arguments).current_dir(tree());
    command
}

/// The Python that builds and checks.
fn builder() -> Result<PathBuf> {
    tools::environment("inspect-build-venv", &tree().join("requirements-build.txt"))
}

/// Builds the wheel into `target/wheels` and gives its file. The program `sandbox` is in it, with a component of its own, as a
/// script that is installed beside Python.
pub fn wheel() -> Result<PathBuf> {
    let component = build::component()?;
    let program = build::program()?;
    let python = builder()?;
    let scripts = tree().join("inspect_modal_sandbox.data/scripts");
    fs::create_dir_all(&scripts)?;
    build::replace(&program, &scripts.join("sandbox"))?;
    // The program looks for it there, and trusts it.
    build::replace(&component, &scripts.join("modal-provider.wasm"))?;
    build::replace(&component, &tree().join("python/inspect_modal_sandbox/modal-provider.wasm"))?;
    let folder = tools::target().join("wheels");
    // What an earlier version left must not be taken for this one's.
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
        .context("maturin made no wheel")?;
    eprintln!("Built {}", wheel.display());
    Ok(wheel)
}

/// Lints, types, and all tests against the emulator, with the wheel in an environment of its own. With a filter, only the
/// tests whose names contain it.
///
/// # Errors
///
/// If a check failed, or a test twice.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let builder = builder()?;
    let python = tools::environment("inspect-venv", &tree().join("requirements.txt"))?;
    if filter.is_none() {
        run(&mut module(&builder, &["ruff", "check", "."]))?;
        run(&mut module(&builder, &["ruff", "format", "--check", "."]))?;
        run(module(&builder, &["mypy", "python", "tests", "examples", "--python-executable"]).arg(&python))?;
    }
    install(&python)?;
    pytest(report, filter, || module(&python, &["pytest", "tests", "--ignore", "tests/outside"]))
}

/// Builds the wheel and puts it into the environment of this Python, which holds all that it needs.
///
/// # Errors
///
/// If it cannot be built, or needs what is not there.
pub fn install(python: &Path) -> Result<()> {
    let install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(module(python, &install).arg(wheel()?))?;
    // What the wheel says it needs is there.
    run(&mut module(python, &["pip", "--disable-pip-version-check", "check"]))
}

/// Runs pytest by `command`, which names the tests, and those that failed a second time. With a filter, only the tests whose
/// names contain it.
///
/// # Errors
///
/// If a test failed twice.
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
    // pytest's code for "no test was selected".
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
            // `tests/test_files.py::test_name[case]`: the name alone is what a filter takes.
            report.failed(name.rsplit("::").next().and_then(|name| name.split('[').next()).unwrap_or(&name));
        } else {
            report.flaky(name);
        }
    }
    again
}

/// How many tests passed, from pytest's last line: `2 failed, 40 passed in 3.21s`.
fn passed(line: &str) -> Option<usize> {
    let words: Vec<_> = line.split_whitespace().collect();
    words.windows(2).find(|pair| pair[1].trim_end_matches(',') == "passed")?[0].parse().ok()
}

/// The tests that failed in pytest's last run, as its cache records them.
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

//! The Python package `sandbox-host`: `cargo xtask wheel` builds it, and the test step `python-host` tests it in an
//! environment that contains no other part of this repository. The step `harbor` tests its environment for Harbor. What
//! the package has in common with the Inspect AI plugin is here too.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build, engines,
    report::Report,
    tools::{self, Version, run},
};

/// The search path of the tests: system folders only, without the Rust toolchain and the user's own programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The script `sandbox` of the wheel, which runs the program `sandbox-host` beside it.
const SHORT_NAME: &str = "#!/bin/sh\nexec \"$(dirname -- \"$(readlink -f -- \"$0\")\")/sandbox-host\" \"$@\"\n";

/// Returns the folder of the package.
pub fn tree() -> PathBuf {
    tools::root().join("host/python")
}

/// Returns a command that runs a Python module in the folder of the package.
fn module(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg("-m").args(arguments).current_dir(tree());
    command
}

/// Returns the Python interpreter for builds and checks. Fails if its packages cannot be installed.
fn builder() -> Result<PathBuf> {
    tools::environment("python-build-venv", &tree().join("requirements-build.txt"))
}

/// Builds the wheel into `target/wheels` and returns its path. The wheel contains the components, and the program `sandbox`
/// with components of its own, as a script that is installed next to Python. It is built once per run. Fails if a part cannot
/// be built.
pub fn wheel() -> Result<PathBuf> {
    static BUILT: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(wheel) = &*built {
        return Ok(wheel.clone());
    }
    let wheel = build_wheel()?;
    *built = Some(wheel.clone());
    Ok(wheel)
}

fn build_wheel() -> Result<PathBuf> {
    let component = build::components(&build::PROVIDERS, false)?;
    let program = build::program()?;
    let scripts = tree().join("sandbox_host.data/scripts");
    fs::create_dir_all(&scripts)?;
    build::replace(&program, &scripts.join(build::SECOND_NAME))?;
    let short = scripts.join("sandbox");
    fs::write(&short, SHORT_NAME)?;
    fs::set_permissions(&short, fs::Permissions::from_mode(0o755))?;
    for provider in build::PROVIDERS {
        let name = build::file_name(provider);
        // The program looks for its components in the first place, the package in the second.
        for folder in [&scripts, &tree().join("python/sandbox_host")] {
            build::replace(&component.with_file_name(&name), &folder.join(&name))?;
        }
    }
    let python = builder()?;
    into_wheels("sandbox_host-", |folder| {
        let mut command = module(&python, &["maturin", "build", "--release", "--quiet", "--compatibility", "linux"]);
        command.arg("--out").arg(folder).args(["--manifest-path", "native/Cargo.toml"]);
        command.env("CARGO_TARGET_DIR", tools::target());
        tools::forget_package(&mut command);
        command
    })
}

/// Runs a command that builds a wheel into `target/wheels`, and returns its path. `prefix` is the beginning of its name. Fails
/// if it cannot be built.
pub fn into_wheels(prefix: &str, command: impl FnOnce(&Path) -> Command) -> Result<PathBuf> {
    let folder = tools::target().join("wheels");
    let wheels = || {
        let entries = fs::read_dir(&folder).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(prefix) && name.ends_with(".whl")
        })
    };
    // A wheel of an earlier version must not be mistaken for the new one.
    for old in wheels() {
        fs::remove_file(old)?;
    }
    eprintln!("Building the wheel");
    run(&mut command(&folder))?;
    let wheel = wheels().next().with_context(|| format!("there is no wheel {prefix}… in {}", folder.display()))?;
    eprintln!("Built {}", wheel.display());
    Ok(wheel)
}

/// Builds the wheel and installs it into the environment of this Python.
///
/// # Errors
///
/// Fails if the wheel cannot be built or installed.
pub fn install(python: &Path) -> Result<()> {
    let install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(module(python, &install).arg(wheel()?))
}

/// Builds the wheel, installs it into the environment of the tests, and returns the Python interpreter of that environment.
///
/// # Errors
///
/// Fails if the wheel cannot be built or installed.
pub fn installed() -> Result<PathBuf> {
    let python = tools::environment("python-venv", &tree().join("requirements.txt"))?;
    install(&python)?;
    Ok(python)
}

/// Runs lints, type checks and all tests with the wheel in an environment of its own. With a filter, runs only the tests
/// whose names contain it.
///
/// # Errors
///
/// Fails if a check fails or a test fails twice.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let builder = builder()?;
    let python = tools::environment("python-venv", &tree().join("requirements.txt"))?;
    if filter.is_none() {
        run(Command::new(&builder).arg("make_sync.py").arg("--check").current_dir(tree()))?;
        run(&mut module(&builder, &["ruff", "check", "."]))?;
        run(&mut module(&builder, &["ruff", "format", "--check", "."]))?;
        run(module(&builder, &["mypy", "python", "tests", "make_sync.py", "--python-executable"]).arg(&python))?;
    }
    install(&python)?;
    pytest(report, filter, || module(&python, &["pytest", "tests", "-rs"]))
}

/// The oldest Python that Harbor runs on.
const HARBOR_PYTHON: Version = Version(3, 12);

/// Runs lints, type checks and the tests of the environment for Harbor, in an environment with the wheel and Harbor. They are
/// skipped if this machine has no Python that is new enough.
///
/// # Errors
///
/// Fails if a check fails, a test fails twice, or a package cannot be installed.
pub fn harbor(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let Some((interpreter, _)) = tools::newest_python(HARBOR_PYTHON) else {
        eprintln!("Skipped: Harbor needs Python {HARBOR_PYTHON} with its venv module, and this machine has none.");
        return Ok(());
    };
    let python = tools::environment_of(&interpreter, "harbor-venv", &tree().join("requirements-harbor.txt"))?;
    install(&python)?;
    if filter.is_none() {
        run(&mut module(&python, &["ruff", "check", "tests_harbor"]))?;
        run(&mut module(&python, &["ruff", "format", "--check", "tests_harbor"]))?;
        run(&mut module(&python, &["mypy", "--config-file", "tests_harbor/mypy.ini", "tests_harbor"]))?;
    }
    // The tests with an engine are skipped by themselves where none can run.
    let engines = engines::fetch()?.map(|_| engines::program()).transpose()?;
    pytest(report, filter, || {
        // The suppressed warnings come from Harbor and its packages.
        let mut command = module(&python, &["pytest", "tests_harbor", "-rs", "--disable-warnings"]);
        command.envs(engines.as_ref().map(|program| ("ENGINES_PROGRAM", program)));
        command
    })
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

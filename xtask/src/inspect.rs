//! `cargo xtask wheel` and the test step `inspect`: builds the Inspect AI plugin as a wheel, and tests it in an environment
//! that contains no other part of this repository but the Python package `sandbox-host`. The step `evals` runs its tests in
//! the same way.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    engines, python,
    report::Report,
    tools::{self, run},
};

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

/// Builds the wheel into `target/wheels` and returns its path. It contains Python alone, and needs the wheel of
/// [`python::wheel`]. Fails if it cannot be built.
pub fn wheel() -> Result<PathBuf> {
    let python = builder()?;
    python::into_wheels("inspect_modal_sandbox-", |folder| {
        let mut command = module(&python, &["hatchling", "build", "--target", "wheel", "--directory"]);
        command.arg(folder);
        command
    })
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
    // Type checks read the types of `sandbox-host`.
    install(&python)?;
    if filter.is_none() {
        run(&mut module(&builder, &["ruff", "check", "."]))?;
        run(&mut module(&builder, &["ruff", "format", "--check", "."]))?;
        run(module(&builder, &["mypy", "python", "tests", "examples", "--python-executable"]).arg(&python))?;
    }
    // The plugin's tests are skipped by themselves where no engine can run.
    let engines = engines::fetch()?.map(|_| engines::program()).transpose()?;
    python::pytest(report, filter, || {
        // `-rs` prints why tests are skipped.
        let mut command = module(&python, &["pytest", "tests", "--ignore", "tests/outside", "-rs"]);
        command.envs(engines.as_ref().map(|program| ("ENGINES_PROGRAM", program)));
        command
    })
}

/// Builds the wheels of the plugin and of `sandbox-host`, and installs them into the environment of this Python, which must
/// contain the other dependencies.
///
/// # Errors
///
/// Fails if a wheel cannot be built or a dependency is missing.
pub fn install(python: &Path) -> Result<()> {
    let install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(module(python, &install).arg(python::wheel()?).arg(wheel()?))?;
    // Checks that the declared dependencies of the wheels are installed.
    run(&mut module(python, &["pip", "--disable-pip-version-check", "check"]))
}

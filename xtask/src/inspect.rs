//! `cargo xtask wheel` and the test step `inspect`: builds the Inspect AI plugin as a wheel that contains the
//! components, and tests it in an environment that contains no other part of this repository. The step `evals` runs its
//! tests in the same way.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    build, engines, python,
    report::Report,
    tools::{self, run},
};

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
    python::maturin(&python, &tree(), "inspect_modal_sandbox-")
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
    python::pytest(report, filter, || {
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

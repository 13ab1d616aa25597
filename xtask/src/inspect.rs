//! `cargo xtask wheel` and the step `inspect` of the tests: the Inspect AI plugin as a wheel with the component inside, and
//! its tests in an environment where that wheel is all there is of us.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{
    build,
    tools::{self, run},
};

/// What the tests find programs by: nothing of Rust's, and nothing of this machine's user.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn tree() -> PathBuf {
    tools::root().join("inspect")
}

/// A Python module, run in the plugin's directory.
fn module(python: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg("-m").args(arguments).current_dir(tree());
    command
}

/// The Python that builds and checks.
fn builder() -> Result<PathBuf> {
    tools::environment("inspect-build-venv", &tree().join("requirements-build.txt"))
}

/// Builds the wheel into `target/wheels` and gives its file.
pub fn wheel() -> Result<PathBuf> {
    let component = build::component()?;
    let python = builder()?;
    build::place(&component, &tree().join("python/inspect_modal_sandbox/modal-provider.wasm"))?;
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

/// Lints, types, and all tests against the emulator, with the wheel in an environment of its own.
pub fn test() -> Result<()> {
    let builder = builder()?;
    run(&mut module(&builder, &["ruff", "check", "."]))?;
    run(&mut module(&builder, &["ruff", "format", "--check", "."]))?;
    let python = tools::environment("inspect-venv", &tree().join("requirements.txt"))?;
    run(module(&builder, &["mypy", "python", "tests", "examples", "--python-executable"]).arg(&python))?;

    let wheel = wheel()?;
    let program = build::program()?;
    let install = ["pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--force-reinstall"];
    run(module(&python, &install).arg(&wheel))?;
    // What the wheel says it needs is there.
    run(&mut module(&python, &["pip", "--disable-pip-version-check", "check"]))?;
    // The tests of one file share sandboxes.
    run(module(&python, &["pytest", "--quiet", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "loadfile"])
        .arg("tests")
        .env("SANDBOX_PROGRAM", program)
        .env("PATH", PATH))
}

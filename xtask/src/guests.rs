//! The test step `guests`: builds the example providers in Python and JavaScript (`guest/examples`) into
//! `target/examples`, and runs commands with them.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build,
    report::Report,
    tools::{self, run},
};

/// An example: the name of its folder, and how a component is made of it.
struct Example {
    name: &'static str,
    componentize: fn(folder: &Path, wit: &Path, component: &Path) -> Result<()>,
}

const EXAMPLES: [Example; 2] = [
    Example { name: "python", componentize: componentize_python },
    Example { name: "javascript", componentize: componentize_javascript },
];

/// A call of the program `sandbox` with an example as its plugin.
struct Check {
    name: &'static str,
    arguments: &'static [&'static str],
    input: &'static str,
    /// The expected output, or `None` if any output is right.
    output: Option<&'static str>,
    /// The expected exit code.
    code: i32,
}

/// A command that is run in a new sandbox.
macro_rules! command {
    ($name:literal, [$($word:literal),*], $input:literal, $output:literal, $code:literal) => {
        Check {
            name: $name,
            arguments: &["run", "--quiet", "--interactive", "--", $($word),*],
            input: $input,
            output: Some($output),
            code: $code,
        }
    };
}

const CHECKS: [Check; 6] = [
    command!("echo", ["echo", "hello", "world"], "", "hello world\n", 0),
    command!("cat", ["cat"], "from the input\n", "from the input\n", 0),
    command!("sleep", ["sleep", "0.1"], "", "", 0),
    command!("exit", ["exit", "7"], "", "", 7),
    command!("missing_program", ["no-such-program"], "", "", 127),
    Check { name: "all_checks_of_the_kit", arguments: &["--quiet", "conformance"], input: "", output: None, code: 0 },
];

/// Builds the examples and runs the checks whose names contain the filter.
///
/// # Errors
///
/// Fails if an example cannot be built or a check fails twice.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let mut failures = 0;
    for example in &EXAMPLES {
        let name = |check: &Check| format!("{}_{}", example.name, check.name);
        let checks: Vec<_> =
            CHECKS.iter().filter(|check| filter.is_none_or(|text| name(check).contains(text))).collect();
        if checks.is_empty() {
            continue;
        }
        let program = build::program()?;
        let component = component(example, &program)?;
        for check in checks {
            failures += usize::from(!report.attempt(&name(check), || run_check(&program, &component, check)));
        }
    }
    ensure!(failures == 0, "{failures} checks failed twice");
    Ok(())
}

/// Builds the component of an example, puts its manifest into it with `program`, and returns its path.
fn component(example: &Example, program: &Path) -> Result<PathBuf> {
    let folder = tools::root().join("guest/examples").join(example.name);
    let built = tools::target().join("examples");
    let wit = built.join("wit").join(example.name);
    put_wit(&folder, &wit)?;
    let component = built.join(format!("{}.wasm", example.name));
    eprintln!("Building {}", component.display());
    (example.componentize)(&folder, &wit, &component)?;
    let mut pack = Command::new(program);
    pack.args(["--quiet", "plugin", "pack"]).arg(&component).arg("--manifest").arg(folder.join("manifest.toml"));
    run(pack.arg("--output").arg(&component))?;
    Ok(component)
}

/// Puts the world of an example and the packages that it uses into a folder, in the form that the toolchains expect.
fn put_wit(example: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    let interface = to.join("deps/harness-sandbox");
    fs::create_dir_all(&interface)?;
    fs::copy(example.join("world.wit"), to.join("world.wit"))?;
    for (from, to) in [(tools::root().join("wit"), interface), (tools::root().join("wit/deps"), to.join("deps"))] {
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if let (Some(name), true) = (path.file_name(), path.extension().is_some_and(|kind| kind == "wit")) {
                fs::copy(&path, to.join(name))?;
            }
        }
    }
    Ok(())
}

fn componentize_python(folder: &Path, wit: &Path, component: &Path) -> Result<()> {
    let python = tools::environment("componentize-venv", &folder.join("requirements.txt"))?;
    let program = python.with_file_name("componentize-py");
    let mut command = Command::new(program);
    command.arg("--quiet").arg("--wit-path").arg(wit).args(["--world", "provider", "componentize", "app"]);
    command.arg("--output").arg(component).current_dir(folder);
    run(&mut command)
}

fn componentize_javascript(folder: &Path, wit: &Path, component: &Path) -> Result<()> {
    let npm = tools::npm()?;
    let mut command = Command::new(npm.join("node"));
    command.arg(npm.join("node_modules/@bytecodealliance/jco/dist/jco.js"));
    // Without the second option the component would use WASI 0.3, which the host does not have.
    command.args(["componentize", "app.js", "--backend", "quickjs", "--backend-qjs-disable-async"]);
    command.args(["--world-name", "provider", "--wit"]).arg(wit);
    run(command.arg("--out").arg(component).current_dir(folder))
}

/// Runs one check and compares the output and the exit code.
fn run_check(program: &Path, component: &Path, check: &Check) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("--plugin").arg(component).args(check.arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("the input is not piped")?.write_all(check.input.as_bytes())?;
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    ensure!(
        check.output.is_none_or(|output| stdout == output) && status.code() == Some(check.code),
        "{status}, expected exit code {}; printed {stdout:?}, expected {:?}; {stderr}",
        check.code,
        check.output.unwrap_or("anything")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wit_of_an_example_is_complete() {
        let folder = tempfile::tempdir().expect("cannot create a folder");
        put_wit(&tools::root().join("guest/examples/python"), folder.path()).expect("cannot copy");
        for file in ["world.wit", "deps/clocks.wit", "deps/harness-sandbox/types.wit"] {
            assert!(folder.path().join(file).is_file(), "{file}");
        }
    }
}

//! `cargo xtask npm` and the test step `node`: builds the npm package with the native module and the components inside, and
//! tests it in a folder that contains no other part of this repository.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build, progress,
    report::Report,
    tools::{self, run},
};

/// The name of the native module in the package: that of Node for this platform.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "linux-arm64.node" } else { "linux-x64.node" };

/// Time limit of one test, in milliseconds.
const TEST_MILLIS: u32 = 300_000;

/// Returns the folder of the package.
fn tree() -> PathBuf {
    tools::root().join("host/node")
}

/// Builds the package, packs it into `target/dist`, and returns the path of the archive.
///
/// # Errors
///
/// Fails if a part cannot be built.
pub fn package() -> Result<PathBuf> {
    let component = build::components(&build::PROVIDERS, false)?;
    progress::cargo("native module", "build", &["--package", "sandbox-host-node", "--release"], &[])?;
    let npm = tools::npm()?;
    let folder = tools::target().join("npm-package");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("native"))?;
    fs::create_dir_all(folder.join("components"))?;
    run(typescript(&npm).arg("--project").arg(tree()).arg("--outDir").arg(&folder))?;
    fs::copy(tools::target().join("release/libsandbox_host_node.so"), folder.join("native").join(NATIVE))?;
    for provider in build::PROVIDERS {
        let name = build::file_name(provider);
        fs::copy(component.with_file_name(&name), folder.join("components").join(name))?;
    }
    fs::write(folder.join("package.json"), description()?)?;
    fs::copy(tree().join("README.md"), folder.join("README.md"))?;
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        fs::copy(tools::root().join(name), folder.join(name))?;
    }
    let dist = tools::target().join("dist");
    let mut pack = npm_program(&npm)?;
    // Prints the name of the archive on the last line.
    let output = pack.args(["pack", "--silent", "--pack-destination"]).arg(&dist).current_dir(&folder).output()?;
    ensure!(output.status.success(), "npm pack failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let output = String::from_utf8(output.stdout)?;
    let archive = dist.join(output.lines().last().context("npm pack named no archive")?);
    eprintln!("Built {}", archive.display());
    Ok(archive)
}

/// Returns `package.json` with the processor of the native module, so that npm refuses the package for other ones.
fn description() -> Result<String> {
    let text = fs::read_to_string(tree().join("package.json"))?;
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    ensure!(text.contains(&version), "host/node/package.json has another version than the workspace");
    let os = "\"os\": [\"linux\"],\n";
    ensure!(text.contains(os), "host/node/package.json does not name the system");
    let processor = NATIVE.trim_start_matches("linux-").trim_end_matches(".node");
    Ok(text.replace(os, &format!("{os}  \"cpu\": [\"{processor}\"],\n")))
}

/// Returns the compiler of TypeScript, with the types of Node.
fn typescript(npm: &Path) -> Command {
    let mut command = Command::new(npm.join("node"));
    command.arg(npm.join("node_modules/typescript/bin/tsc"));
    command.arg("--typeRoots").arg(npm.join("node_modules/@types"));
    command
}

/// Returns npm, which lies beside Node and finds it by the search path.
fn npm_program(npm: &Path) -> Result<Command> {
    let node = fs::read_link(npm.join("node"))?;
    let folder = node.parent().context("the path of Node has no folder")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path)))?;
    let mut command = Command::new(folder.join("npm"));
    command.env("PATH", path);
    Ok(command)
}

/// Builds the package, installs it into an empty folder below `target/`, and returns that folder. It has a link `node` to the
/// Node.js program, as the folder of [`tools::npm`] has.
///
/// # Errors
///
/// Fails if the package cannot be built or installed.
pub fn installed() -> Result<PathBuf> {
    let archive = package()?;
    let npm = tools::npm()?;
    let folder = tools::target().join("npm-test");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("package.json"), "{ \"private\": true, \"type\": \"module\" }\n")?;
    let install = ["install", "--offline", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
    run(npm_program(&npm)?.args(install).arg(&archive).current_dir(&folder))?;
    symlink(fs::read_link(npm.join("node"))?, folder.join("node"))?;
    Ok(folder)
}

/// Installs the package into an empty folder, checks its types, and runs its tests there. With a filter, runs only the
/// tests whose names contain it.
///
/// # Errors
///
/// Fails if the package cannot be installed or a test fails twice.
pub fn test(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let program = build::program()?;
    let npm = tools::npm()?;
    let folder = installed()?;
    let files = copy_tests(&folder.join("tests"))?;
    let types = "the_types_are_exact";
    if filter.is_none_or(|text| types.contains(text)) {
        check_types(&npm, &folder).inspect_err(|_| report.failed(types))?;
        report.passed(1);
    }
    let node = |pattern: Option<&str>| {
        let mut command = Command::new(npm.join("node"));
        command.args(["--test", "--test-reporter=tap", "--test-concurrency=2"]);
        command.arg(format!("--test-timeout={TEST_MILLIS}"));
        command.args(pattern.map(|text| format!("--test-name-pattern={text}")));
        command.args(&files).current_dir(&folder).env("SANDBOX_PROGRAM", &program);
        command
    };
    let (passed, failed) = attempt(&mut node(filter.map(escaped).as_deref()), report)?;
    report.passed(passed);
    if failed.is_empty() {
        return Ok(());
    }
    println!("\nRunning failed tests again: {}", failed.join(", "));
    let pattern = failed.iter().map(|name| format!("^{}$", escaped(name))).collect::<Vec<_>>().join("|");
    let (_, failed_again) = attempt(&mut node(Some(&pattern)), report)?;
    for name in failed {
        if failed_again.contains(&name) { report.failed(name) } else { report.flaky(name) }
    }
    ensure!(failed_again.is_empty(), "{} tests failed", failed_again.len());
    Ok(())
}

/// Copies the tests into a folder and returns the names of those that Node runs, relative to the folder above it.
fn copy_tests(to: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    fs::create_dir_all(to.join("children"))?;
    for folder in ["", "children"] {
        for entry in fs::read_dir(tree().join("tests").join(folder))? {
            let path = entry?.path();
            let Some(name) = path.file_name().filter(|_| path.is_file()) else { continue };
            fs::copy(&path, to.join(folder).join(name))?;
            if folder.is_empty() && path.extension().is_some_and(|kind| kind == "mjs") && name != "support.mjs" {
                files.push(Path::new("tests").join(name));
            }
        }
    }
    // The tests run its programs.
    fs::copy(tools::root().join("docs/embedding/node.md"), to.join("embedding.md"))?;
    files.sort();
    Ok(files)
}

/// Compiles `types.ts` against the installed package, as a strict program does.
fn check_types(npm: &Path, folder: &Path) -> Result<()> {
    let mut command = typescript(npm);
    command.args(["--noEmit", "--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022"]);
    run(command.args(["--types", "node", "tests/types.ts"]).current_dir(folder))
}

/// Runs tests. Returns the number of passed tests and the names of failed ones.
fn attempt(command: &mut Command, report: &mut Report) -> Result<(usize, Vec<String>)> {
    let mut lines = Vec::new();
    let status = tools::run_watched(command, |line| lines.push(line.to_owned()))?;
    let (passed, failed) = (passed(&lines), failed(&lines));
    ensure!(status.success() || !failed.is_empty(), "node failed ({status})");
    if !failed.is_empty() {
        report.output(&failures(&lines));
    }
    Ok((passed, failed))
}

/// Returns the number of passed tests from the last lines of node: `# pass 40`.
fn passed(lines: &[String]) -> usize {
    lines.iter().rev().find_map(|line| line.strip_prefix("# pass ")?.parse().ok()).unwrap_or(0)
}

/// Returns the names of failed tests: `not ok 3 - name`.
fn failed(lines: &[String]) -> Vec<String> {
    let name = |line: &String| Some(line.strip_prefix("not ok ")?.split_once(" - ")?.1.to_owned());
    lines.iter().filter_map(name).collect()
}

/// Returns the lines that describe failed tests: from `not ok` to the next test.
fn failures(lines: &[String]) -> Vec<String> {
    let mut inside = false;
    let mut described = |line: &&String| {
        if line.starts_with("not ok ") {
            inside = true;
        } else if line.starts_with("ok ") || line.starts_with("# ") {
            inside = false;
        }
        inside
    };
    lines.iter().filter(|line| described(line)).cloned().collect()
}

/// Returns a regular expression that matches a text.
fn escaped(text: &str) -> String {
    let escape = |c: char| if c.is_alphanumeric() || c == ' ' || c == '_' { vec![c] } else { vec!['\\', c] };
    text.chars().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_output_of_node() {
        let text = "TAP version 13\n# Subtest: works\nok 1 - works\n  ---\n  ...\n# Subtest: a test - fails\nnot ok 2 - a test - fails\n  error: x\n# Subtest: b\nok 3 - b\n1..3\n# tests 3\n# pass 2\n# fail 1\n";
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        assert_eq!(passed(&lines), 2);
        assert_eq!(failed(&lines), ["a test - fails"]);
        assert_eq!(failures(&lines), ["not ok 2 - a test - fails", "  error: x"]);
    }

    #[test]
    fn names_become_patterns() {
        assert_eq!(escaped("a name (of it)"), "a name \\(of it\\)");
    }
}

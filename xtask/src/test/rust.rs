//! Test programs of Rust packages: builds them together, runs them one after another, and runs failed tests again.
//!
//! The programs are run directly instead of by `cargo test`, so that a failed test can be run again alone, and so that
//! a program that hangs is killed and its unfinished tests are named.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    progress::{self, Executable},
    report::Report,
    tools,
};

/// The packages whose tests are built separately.
const GUEST: [&str; 5] =
    ["sandbox-provider-kit", "modal-provider", "memory-provider", "docker-provider", "docker-inside"];

/// Time limit of one test program. The slowest takes a few minutes, and four times as long on a busy machine.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Number of tests of the package `system-tests` that run at the same time, per core. They wait half of their time, for services
/// and for programs that they start.
const WAITING_TESTS: usize = 2;

/// Time limit for the rest of the output of a program that has ended. A process that it left may keep the pipe open.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);

/// The test programs of the selected packages.
pub struct Programs {
    /// The packages in two groups, each of which is built by one cargo process. All crates of one build get the features
    /// that any of its packages needs, and with those of the guest the WebAssembly runtime would be compiled again for the
    /// other tests.
    groups: [Vec<&'static str>; 2],
    built: [Option<Vec<Executable>>; 2],
}

impl Programs {
    /// Selects these packages. Nothing is built yet.
    pub fn new(packages: Vec<&'static str>) -> Programs {
        let (apart, together) = packages.into_iter().partition(|package| GUEST.contains(package));
        Programs { groups: [apart, together], built: [None, None] }
    }

    /// Builds all test programs.
    ///
    /// # Errors
    ///
    /// Fails if one cannot be built.
    pub fn build(&mut self) -> Result<()> {
        for package in self.groups.concat() {
            self.of(package)?;
        }
        Ok(())
    }

    /// Runs each program of these packages `times` times and prints a line for each: the number of runs and of failed
    /// runs, and the failed tests with the number of their failures. Failed tests are not run again.
    ///
    /// # Errors
    ///
    /// Fails if a test failed in any run.
    pub fn repeat(&mut self, packages: &[&'static str], filter: Option<&str>, times: u32) -> Result<()> {
        let (mut record, mut failures) = (Vec::new(), 0);
        for package in packages {
            for program in self.of(package)? {
                let names = tests_of(program, filter)?;
                if names.is_empty() {
                    continue;
                }
                let (line, failed) = record_of(program, filter, &names, times)?;
                record.push(format!("{package} ({}, {}): {line}", program.target, program.kind));
                failures += failed;
            }
        }
        println!("\n{}", record.join("\n"));
        ensure!(failures == 0, "{} failed", count(failures, "test run"));
        Ok(())
    }

    /// Returns the programs of a package. The first call builds all programs of its group.
    fn of(&mut self, package: &str) -> Result<Vec<&Executable>> {
        let group = usize::from(!GUEST.contains(&package));
        if self.built[group].is_none() {
            let settings = settings();
            let mut arguments = vec!["--no-run", "--release", "--config", &settings];
            for package in &self.groups[group] {
                arguments.extend(["--package", package]);
            }
            self.built[group] = Some(progress::cargo("tests", "test", &arguments, &[])?);
        }
        let directory = directory(package)?;
        let built = self.built[group].iter().flatten();
        Ok(built.filter(|program| program.test && program.package == directory).collect())
    }

    /// Runs the tests of these packages.
    ///
    /// # Errors
    ///
    /// Fails if the programs cannot be built, or a test failed twice.
    pub fn run(&mut self, packages: &[&str], filter: Option<&str>, report: &mut Report) -> Result<()> {
        let mut failed = Vec::new();
        for package in packages {
            let programs = self.of(package)?;
            ensure!(!programs.is_empty(), "cargo built no test program of the package {package}");
            for program in programs {
                failed.extend(run_program(program, filter, report)?);
            }
        }
        ensure!(failed.is_empty(), "{} failed twice: {}", count(failed.len(), "test"), failed.join(", "));
        Ok(())
    }

    /// Prints the tests of a package.
    ///
    /// # Errors
    ///
    /// Fails if the programs cannot be built or listed.
    pub fn list(&mut self, package: &str, filter: Option<&str>) -> Result<()> {
        for program in self.of(package)? {
            for name in tests_of(program, filter)? {
                println!("{package} ({}): {name}", program.target);
            }
        }
        Ok(())
    }
}

/// Returns the file with the settings of cargo for tests.
fn settings() -> String {
    tools::root().join("xtask/tests.toml").display().to_string()
}

fn directory(package: &str) -> Result<std::path::PathBuf> {
    let output = tools::cargo().args(["pkgid", "--package", package]).output().context("could not start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // cargo prints `path+file:///DIRECTORY#NAME@VERSION`.
    let path = text.trim().strip_prefix("path+file://").and_then(|rest| rest.split('#').next());
    Ok(Path::new(path.with_context(|| format!("cargo knows no package {package}"))?).to_path_buf())
}

/// Runs the tests of a program, and failed ones a second time. Returns the names of tests that failed twice.
fn run_program(program: &Executable, filter: Option<&str>, report: &mut Report) -> Result<Vec<String>> {
    let names = tests_of(program, filter)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    println!("\n{} ({}): {}", program.target, program.kind, count(names.len(), "test"));
    let arguments: Vec<&str> = filter.into_iter().collect();
    let first = attempt(program, &arguments, &names)?;
    report.passed(first.passed.len());
    let failed = first.not_passed(&names);
    if failed.is_empty() {
        return Ok(Vec::new());
    }
    report.output(&first.failures);
    println!("\nRunning {} again: {}", count(failed.len(), "failed test"), failed.join(", "));
    let mut arguments = vec!["--exact"];
    arguments.extend(failed.iter().map(String::as_str));
    let second = attempt(program, &arguments, &failed)?;
    let failed_again = second.not_passed(&failed);
    for name in &failed {
        if failed_again.contains(name) {
            report.failed(name);
        } else {
            report.flaky(format!("{} ({})", name, program.target));
        }
    }
    report.output(&second.failures);
    Ok(failed_again)
}

/// Runs a program `times` times. Returns a summary line and the number of failed runs.
fn record_of(program: &Executable, filter: Option<&str>, names: &[String], times: u32) -> Result<(String, usize)> {
    let arguments: Vec<&str> = filter.into_iter().collect();
    let (begun, mut failed_runs, mut failed) = (Instant::now(), 0, BTreeMap::<String, u32>::new());
    for run in 1..=times {
        println!("\n{} ({}), run {run} of {times}", program.target, program.kind);
        let attempt = attempt(program, &arguments, names)?;
        let not_passed = attempt.not_passed(names);
        failed_runs += usize::from(!not_passed.is_empty());
        for name in not_passed {
            *failed.entry(name).or_default() += 1;
        }
    }
    let each = begun.elapsed() / times;
    let tests = count(names.len(), "test");
    let mut line = format!("{times} runs of {tests}, {} each: {failed_runs} failed", progress::clock(each));
    for (name, number) in failed {
        line.push_str(&format!("\n    {name}: {number}"));
    }
    Ok((line, failed_runs))
}

/// The result of one run of a program.
#[derive(Default)]
struct Attempt {
    passed: BTreeSet<String>,
    /// Tests that the program reports as ignored.
    ignored: BTreeSet<String>,
    /// The output about failures.
    failures: Vec<String>,
}

impl Attempt {
    /// Returns those of `names` that failed or did not run.
    fn not_passed(&self, names: &[String]) -> Vec<String> {
        names.iter().filter(|name| !self.passed.contains(*name) && !self.ignored.contains(*name)).cloned().collect()
    }

    /// Handles a line of output. `failed` collects the failed tests that the program lists at its end.
    fn line(&mut self, line: &str, names: &[String], in_failures: &mut bool, failed: &mut BTreeSet<String>) {
        if let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) {
            let name = name.strip_suffix(" - should panic").unwrap_or(name);
            if let Some(name) = names.iter().find(|known| *known == name) {
                match result {
                    "ok" => drop(self.passed.insert(name.clone())),
                    _ if result.starts_with("ignored") => drop(self.ignored.insert(name.clone())),
                    _ => {}
                }
            }
        }
        match line {
            "failures:" => *in_failures = true,
            _ if line.starts_with("test result:") => *in_failures = false,
            _ => {}
        }
        if *in_failures {
            self.failures.push(line.to_string());
            failed.extend(
                line.strip_prefix("    ").filter(|name| names.iter().any(|known| known == name)).map(str::to_string),
            );
        }
    }
}

/// Runs a program once with these arguments, which select the tests `names`.
fn attempt(program: &Executable, arguments: &[&str], names: &[String]) -> Result<Attempt> {
    let mut child = command(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", program.file.display()))?;
    let output = child.stdout.take().context("no pipe")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            println!("{line}");
            let _ = sender.send(line);
        }
    });
    let status = wait(&mut child)?;
    let mut attempt = Attempt::default();
    let (mut in_failures, mut failed) = (false, BTreeSet::new());
    let drained = Instant::now();
    while let Ok(line) = lines.recv_timeout(OUTPUT_TIMEOUT.saturating_sub(drained.elapsed())) {
        attempt.line(&line, names, &mut in_failures, &mut failed);
    }
    // Results and the output of child processes can share a line, so the parsed results may be incomplete. The exit
    // status decides.
    if status.is_some_and(|status| status.success()) {
        attempt.passed.extend(names.iter().filter(|name| !attempt.ignored.contains(*name)).cloned());
    } else if !failed.is_empty() {
        let others = names.iter().filter(|name| !failed.contains(*name) && !attempt.ignored.contains(*name));
        attempt.passed.extend(others.cloned());
    } else {
        let how = status.map_or_else(
            || format!("did not end within {}", progress::clock(PROGRAM_TIMEOUT)),
            |status| format!("ended early ({status})"),
        );
        let text = format!("{}: the test program {how}", program.target);
        println!("{text}");
        attempt.failures.push(text);
    }
    Ok(attempt)
}

/// Waits for the program. Returns `None` if it had to be killed.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > PROGRAM_TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the command with which cargo would start a test program.
fn command(program: &Executable) -> Command {
    let mut command = Command::new(&program.file);
    let dist = tools::target().join("dist");
    command
        .current_dir(&program.package)
        .env("CARGO_MANIFEST_DIR", &program.package)
        .env("SANDBOX_PROGRAM", dist.join("sandbox"))
        .env("SANDBOX_COMPONENT", dist.join("modal-provider.wasm"));
    if program.package == tools::root().join("tests") {
        command.env("RUST_TEST_THREADS", (WAITING_TESTS * cores()).to_string());
    }
    command
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the names of the program's tests that contain the filter.
fn tests_of(program: &Executable, filter: Option<&str>) -> Result<Vec<String>> {
    let output = command(program).args(filter).args(["--list", "--format", "terse"]).output()?;
    ensure!(output.status.success(), "{} cannot list its tests ({})", program.file.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_string).collect())
}

/// Runs the examples in the documentation of these packages, and failed ones again. Like the test programs, those of the
/// guest are built separately, with the crates that are compiled already.
///
/// # Errors
///
/// Fails if an example failed twice, or the examples cannot be built.
pub fn examples(report: &mut Report, packages: &[&'static str], filter: Option<&str>) -> Result<()> {
    let (guest, others): (Vec<_>, Vec<_>) = packages.iter().copied().partition(|package| GUEST.contains(package));
    examples_of(report, &others, filter).and(examples_of(report, &guest, filter))
}

fn examples_of(report: &mut Report, packages: &[&str], filter: Option<&str>) -> Result<()> {
    let first = run_examples(packages, filter)?;
    report.passed(first.passed);
    if first.status.success() {
        return Ok(());
    }
    if first.failed.is_empty() {
        bail!("`cargo test --doc` failed ({})", first.status);
    }
    report.output(&first.failures);
    println!("\nRunning {} again", count(first.failed.len(), "failed example"));
    let second = run_examples(packages, filter)?;
    for name in &first.failed {
        if second.failed.contains(name) {
            report.failed(name);
        } else {
            report.flaky(name);
        }
    }
    ensure!(second.status.success(), "examples failed twice");
    Ok(())
}

struct Examples {
    status: ExitStatus,
    passed: usize,
    failed: BTreeSet<String>,
    failures: Vec<String>,
}

fn run_examples(packages: &[&str], filter: Option<&str>) -> Result<Examples> {
    let mut command = tools::cargo();
    command.args(["test", "--quiet", "--doc", "--release", "--no-fail-fast", "--config", &settings()]);
    command.args(packages.iter().flat_map(|package| ["--package", package])).arg("--").args(filter);
    let mut examples =
        Examples { status: ExitStatus::default(), passed: 0, failed: BTreeSet::new(), failures: Vec::new() };
    let mut in_failures = false;
    examples.status = tools::run_watched(&mut command, |line| {
        if let Some(rest) = line.strip_prefix("test result:") {
            in_failures = false;
            let words: Vec<_> = rest.split_whitespace().collect();
            let count =
                words.windows(2).find(|pair| pair[1].starts_with("passed")).and_then(|pair| pair[0].parse().ok());
            examples.passed += count.unwrap_or(0_usize);
        }
        in_failures |= line == "failures:";
        if in_failures {
            examples.failures.push(line.to_string());
            examples
                .failed
                .extend(line.strip_prefix("    ").filter(|name| name.contains(" (line ")).map(str::to_string));
        }
    })?;
    Ok(examples)
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a test program from a shell script.
    fn script(directory: &Path, body: &str) -> Executable {
        let file = directory.join("program");
        std::fs::write(&file, format!("#!/bin/sh\n{body}")).expect("cannot write the file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("cannot set the permissions");
        let package = directory.to_path_buf();
        Executable { package, target: "program".into(), kind: "test".into(), test: true, file }
    }

    const LIST: &str = "case \"$*\" in *--list*) printf 'a: test\\nb: test\\nc: test\\n'; exit 0;; esac\n";

    #[test]
    fn a_test_that_passes_the_second_time_is_flaky() {
        let directory = tempfile::tempdir().expect("cannot create a directory");
        let body = format!(
            "{LIST}if [ \"$1\" = --exact ]; then echo 'test b ... ok'; exit 0; fi
            echo 'test a ... ok'; echo 'test b ... FAILED'; echo 'test c ... ignored'
            printf 'failures:\\n\\n---- b stdout ----\\nwhy\\n\\nfailures:\\n    b\\n\\n'
            echo 'test result: FAILED. 1 passed; 1 failed'; exit 101"
        );
        let mut report = Report::default();
        report.begin("step");
        let failed = run_program(&script(directory.path(), &body), None, &mut report).expect("cannot run the program");
        assert_eq!(failed, [""; 0]);
        report.end(Ok(()), Duration::ZERO);
        report.finish(None, 1).expect("one flaky test should be tolerated");
        report.finish(None, 0).expect_err("it is counted");
    }

    #[test]
    fn a_test_that_fails_twice_has_failed() {
        let directory = tempfile::tempdir().expect("cannot create a directory");
        let body = format!("{LIST}printf 'failures:\\n    b\\n\\n'; exit 101");
        let mut report = Report::default();
        report.begin("step");
        let failed = run_program(&script(directory.path(), &body), None, &mut report).expect("cannot run the program");
        assert_eq!(failed, ["b"]);
    }

    #[test]
    fn failures_of_repeated_runs_are_counted() {
        let directory = tempfile::tempdir().expect("cannot create a directory");
        let body = "if [ -e failed ]; then exit 0; fi; touch failed; printf 'failures:\\n    b\\n\\n'; exit 101";
        let names = ["a", "b"].map(str::to_string);
        let (line, failed) =
            record_of(&script(directory.path(), body), None, &names, 3).expect("cannot run the program");
        assert_eq!(failed, 1);
        assert!(line.starts_with("3 runs of 2 tests") && line.ends_with("1 failed\n    b: 1"), "{line}");
    }

    /// Other tests may have been aborted by the crash, so all unfinished ones run again.
    #[test]
    fn a_program_that_crashes_is_run_again_for_what_it_did_not_finish() {
        let directory = tempfile::tempdir().expect("cannot create a directory");
        let body = format!(
            "{LIST}if [ \"$1\" = --exact ]; then shift; echo $* > again; exit 0; fi\necho 'test a ... ok'; kill -9 $$"
        );
        let mut report = Report::default();
        report.begin("step");
        let failed = run_program(&script(directory.path(), &body), None, &mut report).expect("cannot run the program");
        assert_eq!(failed, [""; 0]);
        assert_eq!(std::fs::read_to_string(directory.path().join("again")).expect("cannot read the file"), "b c\n");
    }
}

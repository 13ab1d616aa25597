//! Test programs of Rust packages: built together, run one after the other, and what failed once more.
//!
//! The programs are run directly instead of by `cargo test`, so that a failed test can be run again by itself, and so that a
//! program that hangs is ended with the names of the tests that it had not finished.

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

use super::Report;
use crate::{
    progress::{self, Executable},
    tools,
};

/// The packages whose tests are built apart.
const GUEST: [&str; 2] = ["sandbox-provider-kit", "modal-provider"];

/// How long one test program may run. The slowest takes a few minutes, and four times that on a busy machine.
const PROGRAM_LIMIT: Duration = Duration::from_secs(40 * 60);

/// How long to wait for the rest of the output of a program that has ended. A process that it left behind may hold the pipe.
const OUTPUT_LIMIT: Duration = Duration::from_secs(10);

/// The test programs of the chosen packages.
pub struct Programs {
    /// Packages that are built by one cargo each. cargo gives every crate of one build the features that any of its packages
    /// asks for, and those of the guest would have the runtime compiled once more for the tests of the others.
    groups: [Vec<&'static str>; 2],
    built: [Option<Vec<Executable>>; 2],
}

impl Programs {
    /// Of these packages. Nothing is built yet.
    pub fn new(packages: Vec<&'static str>) -> Programs {
        let (apart, together) = packages.into_iter().partition(|package| GUEST.contains(package));
        Programs { groups: [apart, together], built: [None, None] }
    }

    /// Builds all of them.
    ///
    /// # Errors
    ///
    /// If one cannot be built.
    pub fn build(&mut self) -> Result<()> {
        for package in self.groups.concat() {
            self.of(package)?;
        }
        Ok(())
    }

    /// Runs each program of these packages `times` times, and prints a line for each: runs, failed runs, and the names of
    /// the tests that failed with how often. A failed test is not run again by itself.
    ///
    /// # Errors
    ///
    /// If a test failed in any run.
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

    /// The programs of one package; the first call builds those of its whole group.
    fn of(&mut self, package: &str) -> Result<Vec<&Executable>> {
        let group = usize::from(!GUEST.contains(&package));
        if self.built[group].is_none() {
            let mut arguments = vec!["--no-run", "--release"];
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
    /// If the programs cannot be built, or a test failed twice.
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
    /// If the programs cannot be built or listed.
    pub fn list(&mut self, package: &str, filter: Option<&str>) -> Result<()> {
        for program in self.of(package)? {
            for name in tests_of(program, filter)? {
                println!("{package} ({}): {name}", program.target);
            }
        }
        Ok(())
    }
}

fn directory(package: &str) -> Result<std::path::PathBuf> {
    let output = tools::cargo().args(["pkgid", "--package", package]).output().context("could not start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `path+file:///DIRECTORY#NAME@VERSION`
    let path = text.trim().strip_prefix("path+file://").and_then(|rest| rest.split('#').next());
    Ok(Path::new(path.with_context(|| format!("cargo knows no package {package}"))?).to_path_buf())
}

/// Runs a program's tests, and those that failed a second time. Returns the names of those that failed again.
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

/// Runs a program a number of times. Returns the line that sums it up, and how many of the runs failed.
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

/// What one run of a program came to.
#[derive(Default)]
struct Attempt {
    passed: BTreeSet<String>,
    /// Tests that the program reports as ignored; there is none in the tree today.
    ignored: BTreeSet<String>,
    /// What it printed of its failures.
    failures: Vec<String>,
}

impl Attempt {
    /// Those of these tests that failed, or that the program did not come to.
    fn not_passed(&self, names: &[String]) -> Vec<String> {
        names.iter().filter(|name| !self.passed.contains(*name) && !self.ignored.contains(*name)).cloned().collect()
    }

    /// Takes one line of output. `failed` collects the list at the end.
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

/// Runs a program once with these arguments, which select these tests.
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
    while let Ok(line) = lines.recv_timeout(OUTPUT_LIMIT.saturating_sub(drained.elapsed())) {
        attempt.line(&line, names, &mut in_failures, &mut failed);
    }
    // A test program prints a test's result at once; what a child of a test prints may come before it on the same line.
    if status.is_some_and(|status| status.success()) {
        attempt.passed.extend(names.iter().filter(|name| !attempt.ignored.contains(*name)).cloned());
    } else if !failed.is_empty() {
        let others = names.iter().filter(|name| !failed.contains(*name) && !attempt.ignored.contains(*name));
        attempt.passed.extend(others.cloned());
    } else {
        let how = status.map_or_else(
            || format!("did not end within {}", progress::clock(PROGRAM_LIMIT)),
            |status| format!("ended early ({status})"),
        );
        let text = format!("{}: the test program {how}", program.target);
        println!("{text}");
        attempt.failures.push(text);
    }
    Ok(attempt)
}

/// Waits for the program; `None` if it had to be killed.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() > PROGRAM_LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A test program as cargo would start it.
fn command(program: &Executable) -> Command {
    let mut command = Command::new(&program.file);
    let dist = tools::target().join("dist");
    command
        .current_dir(&program.package)
        .env("CARGO_MANIFEST_DIR", &program.package)
        .env("SANDBOX_PROGRAM", dist.join("sandbox"))
        .env("SANDBOX_COMPONENT", dist.join("modal-provider.wasm"));
    command
}

/// The names of a program's tests that contain the filter's text.
fn tests_of(program: &Executable, filter: Option<&str>) -> Result<Vec<String>> {
    let output = command(program).args(filter).args(["--list", "--format", "terse"]).output()?;
    ensure!(output.status.success(), "{} cannot list its tests ({})", program.file.display(), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_string).collect())
}

/// Runs the examples in the documentation of all packages, and those that failed once more.
///
/// # Errors
///
/// If one failed twice, or they cannot be built.
pub fn examples(report: &mut Report, filter: Option<&str>) -> Result<()> {
    let first = run_examples(filter)?;
    report.passed(first.passed);
    if first.status.success() {
        return Ok(());
    }
    if first.failed.is_empty() {
        bail!("`cargo test --doc` failed ({})", first.status);
    }
    report.output(&first.failures);
    println!("\nRunning {} again", count(first.failed.len(), "failed example"));
    let second = run_examples(filter)?;
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

fn run_examples(filter: Option<&str>) -> Result<Examples> {
    let mut command = tools::cargo();
    command.args(["test", "--quiet", "--doc", "--workspace", "--release", "--no-fail-fast", "--"]).args(filter);
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

    /// A test program made of a shell script: fails the named tests the first time, and what `always` names every time.
    fn script(directory: &Path, body: &str) -> Executable {
        let file = directory.join("program");
        std::fs::write(&file, format!("#!/bin/sh\n{body}")).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&file, mode).expect("its mode");
        let package = directory.to_path_buf();
        Executable { package, target: "program".into(), kind: "test".into(), test: true, file }
    }

    const LIST: &str = "case \"$*\" in *--list*) printf 'a: test\\nb: test\\nc: test\\n'; exit 0;; esac\n";

    #[test]
    fn a_test_that_passes_the_second_time_is_flaky() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = format!(
            "{LIST}if [ \"$1\" = --exact ]; then echo 'test b ... ok'; exit 0; fi
            echo 'test a ... ok'; echo 'test b ... FAILED'; echo 'test c ... ignored'
            printf 'failures:\\n\\n---- b stdout ----\\nwhy\\n\\nfailures:\\n    b\\n\\n'
            echo 'test result: FAILED. 1 passed; 1 failed'; exit 101"
        );
        let mut report = Report::default();
        report.begin("step");
        let failed = run_program(&script(directory.path(), &body), None, &mut report).expect("it runs");
        assert_eq!(failed, [""; 0]);
        report.end(Ok(()), Duration::ZERO);
        report.finish(None, 1).expect("one is tolerated");
        report.finish(None, 0).expect_err("it is counted");
    }

    #[test]
    fn a_test_that_fails_twice_has_failed() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = format!("{LIST}printf 'failures:\\n    b\\n\\n'; exit 101");
        let mut report = Report::default();
        report.begin("step");
        let failed = run_program(&script(directory.path(), &body), None, &mut report).expect("it runs");
        assert_eq!(failed, ["b"]);
    }

    #[test]
    fn failures_of_repeated_runs_are_counted() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = "if [ -e failed ]; then exit 0; fi; touch failed; printf 'failures:\\n    b\\n\\n'; exit 101";
        let names = ["a", "b"].map(str::to_string);
        let (line, failed) = record_of(&script(directory.path(), body), None, &names, 3).expect("it runs");
        assert_eq!(failed, 1);
        assert!(line.starts_with("3 runs of 2 tests") && line.ends_with("1 failed\n    b: 1"), "{line}");
    }

    /// Its other tests may have been cut off with it, so that all of them run again.
    #[test]
    fn a_program_that_crashes_is_run_again_for_what_it_did_not_finish() {
        let directory = tempfile::tempdir().expect("a directory");
        let body = format!(
            "{LIST}if [ \"$1\" = --exact ]; then shift; echo $* > again; exit 0; fi\necho 'test a ... ok'; kill -9 $$"
        );
        let mut report = Report::default();
        report.begin("step");
        let failed = run_program(&script(directory.path(), &body), None, &mut report).expect("it runs");
        assert_eq!(failed, [""; 0]);
        assert_eq!(std::fs::read_to_string(directory.path().join("again")).expect("a file"), "b c\n");
    }
}

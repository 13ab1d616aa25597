//! The result of a test run: the steps with their times, the failed tests, and the tests that passed only at the second
//! attempt.

use std::time::Duration;

use anyhow::{Result, bail};

/// Largest number of lines of one program's failures that are printed again at the end.
const MAX_FAILURE_LINES: usize = 200;

/// The results so far. [`Report::finish`] prints them.
#[derive(Default)]
pub struct Report {
    steps: Vec<Outcome>,
    /// Number of passed tests in all steps.
    passed: usize,
    /// Names of tests that failed and then passed.
    flaky: Vec<String>,
    /// Output of failed tests. It is repeated at the end, because readers of a long log look there.
    failures: Vec<String>,
}

struct Outcome {
    step: &'static str,
    time: Duration,
    error: Option<String>,
    /// Names of tests that failed twice.
    failed: Vec<String>,
}

impl Report {
    /// Records the start of a step.
    pub fn begin(&mut self, step: &'static str) {
        self.steps.push(Outcome { step, time: Duration::ZERO, error: None, failed: Vec::new() });
    }

    /// Records the end of a step with its result and its duration.
    pub fn end(&mut self, result: Result<()>, time: Duration) {
        if let Some(outcome) = self.steps.last_mut() {
            outcome.time = time;
            if let Err(error) = result {
                eprintln!("{}: {error:#}", outcome.step);
                outcome.error = Some(format!("{error:#}"));
            }
        }
    }

    /// Adds to the number of passed tests.
    pub fn passed(&mut self, count: usize) {
        self.passed += count;
    }

    /// Records a test that failed and passed when it was run again.
    pub fn flaky(&mut self, name: impl Into<String>) {
        self.flaky.push(name.into());
        self.passed += 1;
    }

    /// Records a test that failed twice.
    pub fn failed(&mut self, name: impl Into<String>) {
        if let Some(outcome) = self.steps.last_mut() {
            outcome.failed.push(name.into());
        }
    }

    /// Runs a test, and once more if it fails. Prints the errors, records the result, and returns whether the test passed
    /// at last.
    pub fn attempt(&mut self, name: &str, mut test: impl FnMut() -> Result<()>) -> bool {
        let first = test();
        self.attempted(name, first, test)
    }

    /// Records a test whose first attempt has ended. Runs it again if it failed, as [`Report::attempt`] does.
    pub fn attempted(&mut self, name: &str, first: Result<()>, again: impl FnOnce() -> Result<()>) -> bool {
        let Err(first) = first else {
            self.passed(1);
            return true;
        };
        self.output(&[format!("{name} failed: {first:#}")]);
        println!("{name} failed: {first:#}\nRunning it again");
        let Err(second) = again() else {
            self.flaky(name);
            return true;
        };
        println!("{name} failed again: {second:#}");
        self.failed(name);
        false
    }

    /// Records the output of failed tests, to be printed again at the end.
    pub fn output(&mut self, lines: &[String]) {
        self.failures.extend(lines.iter().take(MAX_FAILURE_LINES).cloned());
    }

    /// Prints the report. Its last line is `N passed, N failed`; it counts tests, and steps that are a single check.
    ///
    /// # Errors
    ///
    /// Fails if a step failed, more than `max_flaky` tests passed only at the second attempt, or no test matched the
    /// filter.
    pub fn finish(&self, filter: Option<&str>, max_flaky: usize) -> Result<()> {
        for line in &self.failures {
            println!("{line}");
        }
        for outcome in &self.steps {
            let mark = if outcome.is_failed() { "  failed" } else { "" };
            println!("{:>10} {:>5} s{mark}", outcome.step, outcome.time.as_secs());
        }
        for name in &self.flaky {
            println!("flaky: {name}");
        }
        for outcome in self.steps.iter().filter(|outcome| outcome.is_failed()) {
            for name in &outcome.failed {
                println!("failed: {name}");
            }
            if let (true, Some(error)) = (outcome.failed.is_empty(), &outcome.error) {
                println!("failed: {}: {error}", outcome.step);
            }
            println!("        run this again: {}", outcome.again(filter));
        }
        let failed: usize = self.steps.iter().map(Outcome::failures).sum();
        println!(
            "{} passed, {failed} failed",
            self.passed + self.steps.iter().filter(|step| !step.is_failed()).count()
        );
        if failed > 0 {
            let steps: Vec<_> = self.steps.iter().filter(|step| step.is_failed()).map(|step| step.step).collect();
            bail!("failed: {}", steps.join(", "));
        }
        if self.flaky.len() > max_flaky {
            bail!("{} tests passed only at the second attempt, but at most {max_flaky} may", self.flaky.len());
        }
        if let (Some(filter), 0) = (filter, self.passed) {
            bail!(
                "no test has a name that contains `{filter}`; `cargo xtask test --list STEP` lists the tests of a step"
            );
        }
        Ok(())
    }
}

impl Outcome {
    fn is_failed(&self) -> bool {
        self.failures() > 0
    }

    fn failures(&self) -> usize {
        self.failed.len().max(usize::from(self.error.is_some()))
    }

    /// Returns the command that runs the failed tests and as little else as possible.
    fn again(&self, filter: Option<&str>) -> String {
        let filter = match &self.failed[..] {
            [one] => Some(one.as_str()),
            _ => filter,
        };
        let filter = filter.map(|text| format!(" --filter '{text}'")).unwrap_or_default();
        format!("cargo xtask test {}{filter}", self.step)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn flaky_tests_are_tolerated_up_to_a_number() {
        let mut report = Report::default();
        report.begin("host");
        report.passed(10);
        (0..3).for_each(|n| report.flaky(format!("test-{n}")));
        report.end(Ok(()), Duration::ZERO);
        report.finish(None, 3).expect("three flaky tests should be tolerated");
        report.flaky("one more");
        let error = report.finish(None, 3).expect_err("four flaky tests should fail the run").to_string();
        assert!(error.contains("4 tests") && error.contains("at most 3"), "{error}");
    }

    #[test]
    fn a_failed_test_is_run_once_more() {
        let mut report = Report::default();
        report.begin("guests");
        let mut runs = Vec::new();
        let mut attempt = |name: &'static str, failures: usize| {
            report.attempt(name, || {
                runs.push(name);
                let failed = runs.iter().filter(|run| **run == name).count();
                if failed > failures { Ok(()) } else { Err(anyhow!("failure {failed}")) }
            })
        };
        assert_eq!([attempt("good", 0), attempt("chance", 1), attempt("bad", 2)], [true, true, false]);
        assert_eq!(runs, ["good", "chance", "chance", "bad", "bad"]);
        assert_eq!((report.passed, &report.flaky[..]), (2, &["chance".to_string()][..]));
        assert_eq!(report.steps[0].failed, ["bad"]);
        assert_eq!(report.failures, ["chance failed: failure 1", "bad failed: failure 1"]);
    }

    #[test]
    fn a_failed_step_says_how_to_run_it_again() {
        let mut report = Report::default();
        report.begin("host");
        report.failed("wire::one_of_them");
        report.end(Err(anyhow!("a test failed")), Duration::ZERO);
        report.begin("clippy");
        report.end(Err(anyhow!("a lint")), Duration::ZERO);
        assert_eq!(report.steps[0].again(None), "cargo xtask test host --filter 'wire::one_of_them'");
        assert_eq!(report.steps[1].again(None), "cargo xtask test clippy");
        assert_eq!(report.finish(None, 3).expect_err("the run should have failed").to_string(), "failed: host, clippy");
    }

    #[test]
    fn a_filter_that_fits_no_test_is_an_error() {
        let mut report = Report::default();
        report.begin("host");
        report.end(Ok(()), Duration::ZERO);
        assert!(report.finish(Some("no-such-test"), 3).is_err());
        report.finish(None, 3).expect("a run without a filter needs no tests");
    }
}

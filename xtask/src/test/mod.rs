//! `cargo xtask test`: formatting, lints, documentation and all tests, as steps that can be run separately. `.ci/run`
//! runs all of them.
//!
//! A failed test is run a second time alone. If it passes then, it is listed as `flaky` and the run continues; more
//! than [`MAX_FLAKY`] of them fail the run. A test that fails twice fails its step. The other steps still run, so that
//! one run shows all failures.

mod busy;
mod rust;

use std::{process::Command, time::Instant};

use anyhow::{Result, ensure};

use crate::{
    build, c, c_api, conformance, engines, evals, go, guests, inspect, node, progress, python as python_host,
    report::Report,
    tools::{self, WASM_TARGET, cargo, run},
};

/// Largest number of tests that may pass only at the second attempt. Chance does not explain more of them.
const MAX_FLAKY: usize = 3;

/// One part of the run.
struct Step {
    name: &'static str,
    about: &'static str,
    run: Action,
}

enum Action {
    /// A check that passes or fails as a whole.
    Check(fn() -> Result<()>),
    /// The test programs of these packages.
    Packages(&'static [&'static str]),
    /// Tests that are run in another way and report their own failures.
    Tests(fn(&mut Report, Option<&str>) -> Result<()>),
}

/// All steps, ordered so that failures appear early.
const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        about: "formatting of the Rust sources",
        run: Action::Check(|| run(cargo().args(["fmt", "--all", "--check"]))),
    },
    Step {
        name: "generated",
        about: "the sources generated from proto/proto are up to date",
        run: Action::Check(|| tools::generate(&["--check"])),
    },
    Step {
        name: "build",
        about: "the program and the components, into target/dist",
        run: Action::Check(|| build::dist().map(drop)),
    },
    Step { name: "clippy", about: "lints of the Rust sources", run: Action::Check(clippy) },
    Step { name: "doc", about: "the documentation builds without warnings", run: Action::Check(doc) },
    Step { name: "python", about: "lints and types of the Python sources in tests/", run: Action::Check(python) },
    Step {
        name: "layout",
        about: "imports follow docs/architecture.md, unsafe code and names stay in their modules",
        run: Action::Packages(&["xtask-layout"]),
    },
    Step { name: "xtask", about: "tests of this program", run: Action::Packages(&["xtask"]) },
    Step { name: "classes", about: "classification of IP addresses", run: Action::Packages(&["net-classes"]) },
    Step { name: "dockerfile", about: "the Dockerfile parser", run: Action::Packages(&["dockerfile-text"]) },
    Step { name: "proto", about: "the messages of Modal's protocol", run: Action::Packages(&["modal-proto"]) },
    Step {
        name: "guest",
        about: "what providers share and the providers, natively, with a scripted service",
        run: Action::Packages(&[
            "sandbox-provider-kit",
            "modal-provider",
            "memory-provider",
            "docker-provider",
            "docker-inside",
        ]),
    },
    Step {
        name: "host",
        about: "the host library, its bridge to other languages, and the program, with components for tests",
        run: Action::Packages(&["sandbox-host", "sandbox-bridge", "sandbox-conformance", "sandbox-cli"]),
    },
    Step {
        name: "emulator",
        about: "the emulator: isolation, RPCs, fuzzing",
        run: Action::Packages(&["container-network", "container-isolation", "modal-emulator"]),
    },
    Step {
        name: "system",
        about: "the whole system, with the official SDKs and stock hosts",
        run: Action::Packages(&["system-tests"]),
    },
    Step {
        name: "engines",
        about: "starts real container engines of Debian packages",
        run: Action::Packages(&["engines"]),
    },
    Step { name: "c", about: "the C library: checks, and programs in four languages", run: Action::Tests(c::test) },
    Step { name: "guests", about: "the example providers in Python and JavaScript", run: Action::Tests(guests::test) },
    Step {
        name: conformance::STEP,
        about: "the checks of `sandbox-host conformance` on every provider, and the table in docs/conformance.md",
        run: Action::Tests(conformance::test),
    },
    Step {
        name: "examples",
        about: "the examples in the documentation of the Rust sources",
        run: Action::Tests(|report, filter| {
            let packages: Vec<_> = STEPS.iter().flat_map(|step| step.packages()).copied().collect();
            rust::examples(report, &packages, filter)
        }),
    },
    Step {
        name: "python-host",
        about: "the Python package: lints, types, tests of the built wheel",
        run: Action::Tests(python_host::test),
    },
    Step {
        name: "harbor",
        about: "the environment for Harbor: lints, types, its contract, and trials with scripted agents",
        run: Action::Tests(python_host::harbor),
    },
    Step {
        name: "inspect",
        about: "the Inspect AI plugin: lints, types, tests of the built wheel",
        run: Action::Tests(inspect::test),
    },
    Step {
        name: "node",
        about: "the npm package: types, tests of the installed package",
        run: Action::Tests(node::test),
    },
    Step {
        name: "evals",
        about: "evals of other packages with the Inspect AI plugin and scripted models",
        run: Action::Tests(evals::test),
    },
];

/// The selected part of the run.
#[derive(Default, clap::Args)]
pub struct Selection {
    /// Steps to run, such as `host` or `clippy`; all by default
    steps: Vec<String>,
    /// Run only the tests whose name contains this text
    #[arg(long, short, value_name = "TEXT")]
    filter: Option<String>,
    /// List the steps, or the tests of the given steps, without running them
    #[arg(long)]
    list: bool,
    /// Run each test program this many times, count failures, and do not run failed tests again
    #[arg(long, value_name = "N", conflicts_with = "list", value_parser = clap::value_parser!(u32).range(1..))]
    times: Option<u32>,
    /// Keep this many processor cores busy during the tests, to find tests that depend on the speed of the machine
    #[arg(long, value_name = "N", default_value_t = 0)]
    busy: usize,
}

impl Selection {
    /// Returns the selected steps in their usual order. With a filter and no names, these are the steps that consist of
    /// tests.
    fn steps(&self) -> Result<Vec<&'static Step>> {
        for name in &self.steps {
            let known = STEPS.iter().any(|step| step.name == name);
            let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
            ensure!(known, "There is no step `{name}`. The steps are: {}.", names.join(", "));
        }
        let wanted = |step: &&Step| match (self.steps.is_empty(), &self.filter) {
            (true, None) => true,
            (true, Some(_)) => !matches!(step.run, Action::Check(_)),
            (false, _) => self.steps.iter().any(|name| name == step.name),
        };
        Ok(STEPS.iter().filter(wanted).collect())
    }
}

/// Runs the selected steps, or lists them.
///
/// # Errors
///
/// Fails if a step failed, or too many tests passed only at the second attempt. All failures have been printed by then.
pub fn all(selection: &Selection) -> Result<()> {
    let steps = selection.steps()?;
    tools::prepare()?;
    if selection.list {
        return list(selection, &steps);
    }
    tools::check_namespaces()?;
    let filter = selection.filter.as_deref();
    let packages: Vec<_> = steps.iter().flat_map(|step| step.packages()).copied().collect();
    let mut programs = rust::Programs::new(packages.clone());
    let mut report = Report::default();
    if let Some(times) = selection.times {
        ensure!(!packages.is_empty(), "--times is for steps with test programs, such as `host`");
        for step in steps.iter().filter(|step| !step.packages().is_empty()) {
            needs(step.name)?;
        }
        programs.build()?;
        let _busy = busy::Loops::start(selection.busy);
        return programs.repeat(&packages, filter, times);
    }
    let _busy = busy::Loops::start(selection.busy);
    for step in steps {
        eprintln!("── {} ──", step.name);
        let begun = Instant::now();
        report.begin(step.name);
        let result = match step.run {
            Action::Check(check) => check(),
            Action::Packages(packages) => needs(step.name).and_then(|()| programs.run(packages, filter, &mut report)),
            Action::Tests(tests) => tests(&mut report, filter),
        };
        report.end(result, begun.elapsed());
    }
    report.finish(filter, MAX_FLAKY)
}

impl Step {
    fn packages(&self) -> &'static [&'static str] {
        match self.run {
            Action::Packages(packages) => packages,
            _ => &[],
        }
    }
}

fn list(selection: &Selection, steps: &[&Step]) -> Result<()> {
    if selection.steps.is_empty() {
        for step in steps {
            println!("{:>10}  {}", step.name, step.about);
        }
        println!(
            "\n`cargo xtask test --list STEP` lists the tests of a step, `cargo xtask test STEP --filter TEXT` runs some."
        );
        return Ok(());
    }
    let mut programs = rust::Programs::new(steps.iter().flat_map(|step| step.packages()).copied().collect());
    for step in steps {
        if step.packages().is_empty() {
            println!("{}: {}", step.name, step.about);
        }
        for package in step.packages() {
            programs.list(package, selection.filter.as_deref())?;
        }
    }
    Ok(())
}

/// Builds and installs the requirements of the tests of a step. In a full run they exist already.
fn needs(step: &str) -> Result<()> {
    match step {
        "proto" => tools::python().map(drop),
        "host" => build::components(&["memory"], false).map(drop),
        // Without the packages, the tests with an engine are left out by themselves.
        "engines" => engines::fetch().map(drop),
        "system" => {
            engines::fetch()?;
            build::dist()?;
            build::test_components()?;
            tools::python()?;
            c_api::c_api()?;
            // Without it, the tests with Go are left out by themselves.
            go::go()?;
            tools::npm().map(drop)
        }
        _ => Ok(()),
    }
}

/// Builds the programs and runs random faults with the program `soak` of `tests/`.
///
/// # Errors
///
/// Fails if a case violated a rule, or a program cannot be built.
pub fn soak(runs: u64, seed: Option<u64>, proxy: bool) -> Result<()> {
    let dist = build::dist()?;
    let mut command = cargo();
    command.args(["run", "--package", "system-tests", "--bin", "soak", "--release", "--", "--runs", &runs.to_string()]);
    if let Some(seed) = seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if proxy {
        command.arg("--proxy");
    }
    let component = dist.program.with_file_name("modal-provider.wasm");
    run(command.env("SANDBOX_PROGRAM", &dist.program).env("SANDBOX_COMPONENT", component))
}

fn clippy() -> Result<()> {
    let all = [
        "--workspace",
        "--all-targets",
        "--features",
        "system-tests/docker-bench",
        "--release",
        "--",
        "-D",
        "warnings",
    ];
    progress::cargo("clippy", "clippy", &all, &[])?;
    // Parts of the guest exist only in the component, so they are checked for its target.
    let components = [
        "--package",
        "sandbox-provider-kit",
        "--package",
        "modal-provider",
        "--package",
        "memory-provider",
        "--package",
        "docker-provider",
        "--lib",
        "--target",
        WASM_TARGET,
        "--profile",
        "component",
        "--",
        "-D",
        "warnings",
    ];
    let archives = build::inside(false)?.display().to_string();
    let variables = [("DOCKER_INSIDE_ARCHIVES".to_owned(), archives)];
    progress::cargo("clippy of the components", "clippy", &components, &variables).map(drop)
}

fn doc() -> Result<()> {
    let deny = [("RUSTDOCFLAGS".to_string(), "-D warnings".to_string())];
    progress::cargo("documentation", "doc", &["--workspace", "--no-deps", "--release"], &deny).map(drop)
}

fn python() -> Result<()> {
    let python = tools::python()?;
    let tree = tools::root().join("tests");
    run(Command::new(&python).args(["-m", "ruff", "check"]).arg(&tree))?;
    run(Command::new(&python).args(["-m", "mypy", "--strict"]).arg(&tree))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(steps: &[&str], filter: Option<&str>) -> Vec<&'static str> {
        let steps = steps.iter().map(|name| (*name).to_string()).collect();
        let selection = Selection { steps, filter: filter.map(str::to_string), ..Selection::default() };
        selection.steps().expect("unknown steps").iter().map(|step| step.name).collect()
    }

    #[test]
    fn steps_are_chosen_by_name_and_run_in_their_order() {
        assert_eq!(names(&[], None).len(), STEPS.len());
        assert_eq!(names(&["inspect", "fmt"], None), ["fmt", "inspect"]);
        assert_eq!(names(&["host"], Some("x")), ["host"]);
        assert!(!names(&[], Some("x")).contains(&"clippy"));
        let unknown = Selection { steps: vec!["hots".into()], ..Selection::default() };
        let error = unknown.steps().err().expect("no error").to_string();
        assert!(error.contains("`hots`") && error.contains("host"), "{error}");
    }
}

//! `cargo xtask bench`: builds the measured programs and the benchmark program (`tests/benches`) with optimisation, and
//! runs it.

use anyhow::{Result, ensure};
use clap::Subcommand;

use crate::{
    bench_hosts, build, engines,
    tools::{self, cargo},
};

/// The benchmarks.
#[derive(Clone, Copy, Subcommand)]
pub enum What {
    /// The provider for Docker on real engines, compared with the program `docker` and a native client
    Docker,
    /// The emulator alone: sandboxes, commands, large transfers, memory
    Emulator,
    /// Host and component, compared with a native client and the official Python SDK
    Host,
    /// The packages for Python, Node and C, compared with the official SDKs and inspect_sandboxes
    Hosts,
}

/// Builds and runs a benchmark. Fails if the machine has no namespaces, a build fails, or the benchmark reports an
/// error.
pub fn run(what: What) -> Result<()> {
    tools::check_namespaces()?;
    let (name, provider) = match what {
        What::Docker => {
            ensure!(engines::fetch()?.is_some(), "this benchmark needs the container engines");
            ("docker", "docker")
        }
        What::Emulator => ("emulator", "modal"),
        What::Host => {
            tools::python()?;
            ("host", "modal")
        }
        What::Hosts => return bench_hosts::run_all(),
    };
    let program = build::dist()?.program;
    let component = program.with_file_name(build::file_name(provider));
    let bench = || {
        let mut command = cargo();
        command.args(["bench", "--package", "system-tests", "--bench", "bench"]);
        command.args((name == "docker").then_some("--features=docker-bench"));
        command
    };
    tools::run(bench().arg("--no-run"))?;
    let mut bench = bench();
    let mut running = Vec::new();
    if name == "docker" {
        for (variable, kind) in [("DOCKER_HOST", "dockerd"), ("PODMAN_HOST", "podman")] {
            let engine = engines::start(kind)?;
            bench.env(variable, engine.address());
            running.push(engine);
        }
    }
    tools::run(bench.args(["--", name]).env("SANDBOX_PROGRAM", program).env("SANDBOX_COMPONENT", component))
}

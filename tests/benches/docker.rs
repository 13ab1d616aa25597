//! Measures the provider for Docker, through the host library, against the program `docker` and against the crate `bollard`
//! as a native client. All use one engine in one run, and the figures are ratios. The engine is a process of its own, so the
//! CPU time is that of the clients.
//!
//! The provider promises more than the other clients: each of its commands is started exactly once, and its output is kept in
//! the container, so that a broken connection loses nothing. The others stream the output, and have only that one chance.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions};
use bollard::{ClientVersion, Docker};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use nix::sys::resource::{UsageWho, getrusage};
use sandbox_host::types::{ExecSpec, ImageSpec, SandboxSpec, Verdict};
use sandbox_host::{Plugin, Provider, Sandbox};
use system_tests::component;
use tokio::io::AsyncReadExt as _;

use crate::emulator::{BIG, MIB};
use crate::report::{Report, Target, median};

/// Time limit of the run with one engine. It takes about two minutes on a machine with two cores.
const RUN_TIMEOUT: Duration = Duration::from_secs(900);

/// The image of all containers.
const IMAGE: &str = "tools:latest";

/// Number of commands after each other, per client.
const SMALL: usize = 50;

/// Number of containers, per client.
const CONTAINERS: usize = 10;

/// Numbers of commands in flight, and of all commands for each.
const IN_FLIGHT: [(usize, usize); 2] = [(64, 320), (500, 500)];

/// What a shell can do in place of the helper program of the provider: a command that is started once, however often this is
/// run with the same number, with standard input from a FIFO and with its output in files, which are printed while they grow.
const SHELL: &str = r#"
d=/tmp/exec-$1; shift; at=0
if mkdir "$d" 2>/dev/null; then
  mkfifo "$d/in"
  { "$@" <"$d/in" >"$d/out" 2>"$d/err"; echo $? >"$d/new"; mv "$d/new" "$d/code"; } &
  : >"$d/in"
fi
while :; do
  [ ! -e "$d/code" ] || ended=1
  size=$(stat -c %s "$d/out" 2>/dev/null || echo 0)
  if [ "$size" -gt "$at" ]; then
    tail -c +$((at + 1)) "$d/out" | head -c $((size - at)); at=$size
  elif [ -n "$ended" ]; then
    exit "$(cat "$d/code")"
  else
    sleep 0.01
  fi
done"#;

/// The newest version of the API that both engines have.
const VERSION: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// Measures the engines that `DOCKER_HOST` and `PODMAN_HOST` name. Podman runs few commands per second, because it starts two
/// programs for each, so many at the same time are left out there.
pub fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for (engine, variable, in_flight) in
        [("Docker Engine", "DOCKER_HOST", &IN_FLIGHT[..]), ("Podman", "PODMAN_HOST", &[])]
    {
        let Ok(host) = std::env::var(variable) else { continue };
        // The measurement runs in a task, as in a real program.
        let measured =
            runtime.spawn(async move { tokio::time::timeout(RUN_TIMEOUT, measure(engine, &host, in_flight)).await });
        let measured = runtime.block_on(measured)?;
        measured.with_context(|| format!("not finished after {} s", RUN_TIMEOUT.as_secs()))??;
    }
    Ok(())
}

async fn measure(engine: &str, host: &str, in_flight: &[(usize, usize)]) -> Result<()> {
    let plugin = Plugin::load(component()).await?;
    let provider =
        Provider::builder(&plugin).inherit_env(false).env("DOCKER_HOST", host).anonymous(true).build().await?;
    // The first container of a provider also puts the helper program on the engine.
    let sandbox = Client::create(&provider).await?;
    let native = Native { docker: Docker::connect_with_http(host, 600, &VERSION)? };
    let container = native.create().await?;
    let program = Program::new(host)?;
    let clients = [
        Client::Ours(&sandbox),
        Client::Native(&native, container.clone()),
        Client::Program(&program, container.clone()),
    ];
    let mut table =
        Table(Report::new(&format!("Provider for Docker on {engine}, beside `docker` and a native client")));
    one_by_one(&clients, &mut table).await?;
    containers(&provider, &native, &program, &mut table).await?;
    for (width, count) in in_flight {
        at_once(&clients, *width, *count, &mut table).await?;
    }
    big_output(&clients, &mut table).await?;
    by_shell(&native, &container, &mut table.0).await?;
    sandbox.terminate().await?;
    native.remove(&container).await?;
    provider.shutdown(Duration::from_secs(1)).await;
    Ok(())
}

/// Runs commands after each other. The clients alternate, so that all see the same load of the machine.
async fn one_by_one(clients: &[Client<'_>; 3], table: &mut Table) -> Result<()> {
    let mut times = [(); 3].map(|()| Vec::new());
    let mut costs = [0.0; 3];
    for round in 0..SMALL + 3 {
        for ((client, times), cost) in clients.iter().zip(&mut times).zip(&mut costs) {
            let (before, begun) = (cpu()?, Instant::now());
            client.run(&["true"]).await?;
            let (time, used) = (begun.elapsed(), cpu()? - before);
            // The first rounds warm the caches.
            if round >= 3 {
                times.push(time);
                *cost += used * 1000.0 / SMALL as f64;
            }
        }
    }
    table.rows("exec of `true`", times.each_mut().map(|times| median(times) * 1000.0), "ms");
    table.rows("CPU of the client per exec", costs, "ms");
    Ok(())
}

/// Measures the time from the request for a container to the end of a first command in it.
async fn containers(provider: &Provider, native: &Native, program: &Program, table: &mut Table) -> Result<()> {
    let mut times = [(); 3].map(|()| Vec::new());
    for _ in 0..CONTAINERS {
        let begun = Instant::now();
        let sandbox = Client::create(provider).await?;
        Client::Ours(&sandbox).run(&["true"]).await?;
        times[0].push(begun.elapsed());
        sandbox.terminate().await?;

        let begun = Instant::now();
        let container = native.create().await?;
        Client::Native(native, container.clone()).run(&["true"]).await?;
        times[1].push(begun.elapsed());
        native.remove(&container).await?;

        let begun = Instant::now();
        let container = program.call(&["run", "--detach", IMAGE, "sleep", "86400"]).await?;
        let container = String::from_utf8(container)?.trim().to_owned();
        Client::Program(program, container.clone()).run(&["true"]).await?;
        times[2].push(begun.elapsed());
        native.remove(&container).await?;
    }
    table.rows("create to first exec", times.each_mut().map(|times| median(times) * 1000.0), "ms");
    Ok(())
}

/// Runs `count` commands, of which `width` are in flight.
async fn at_once(clients: &[Client<'_>; 3], width: usize, count: usize, table: &mut Table) -> Result<()> {
    let (mut rates, mut costs) = ([0.0; 3], [0.0; 3]);
    for ((client, rate), cost) in clients.iter().zip(&mut rates).zip(&mut costs) {
        let (before, begun) = (cpu()?, Instant::now());
        let one = |number: usize| async move {
            let text = number.to_string();
            let printed = client.run(&["echo", &text]).await?;
            ensure!(printed == format!("{text}\n").as_bytes(), "command {number} printed {printed:?}");
            Ok(())
        };
        stream::iter(0..count).map(one).buffer_unordered(width).try_collect::<()>().await?;
        *rate = count as f64 / begun.elapsed().as_secs_f64();
        *cost = (cpu()? - before) * 1000.0 / count as f64;
    }
    table.rows(&format!("execs, {width} in flight"), rates, "/s");
    table.rows(&format!("CPU per exec, {width} in flight"), costs, "ms");
    Ok(())
}

/// Measures 1 GiB of output.
async fn big_output(clients: &[Client<'_>; 3], table: &mut Table) -> Result<()> {
    let (mut rates, mut costs) = ([0.0; 3], [0.0; 3]);
    for ((client, rate), cost) in clients.iter().zip(&mut rates).zip(&mut costs) {
        let (before, begun) = (cpu()?, Instant::now());
        client.count(&["head", "-c", &BIG.to_string(), "/dev/zero"]).await?;
        *rate = BIG as f64 / MIB / begun.elapsed().as_secs_f64();
        *cost = cpu()? - before;
    }
    table.rows("stdout of 1 GiB", rates, "MiB/s");
    table.rows("CPU of the client for 1 GiB", costs, "s");
    Ok(())
}

/// Measures commands by [`SHELL`] beside plain ones, both with the native client: this is what the provider would cost if its
/// helper were a script.
async fn by_shell(native: &Native, container: &str, report: &mut Report) -> Result<()> {
    let (mut plain, mut script) = (Vec::new(), Vec::new());
    for round in 0..SMALL + 3 {
        let begun = Instant::now();
        native.exec(container, &["true"], |_| ()).await?;
        let between = Instant::now();
        native.exec(container, &["/bin/sh", "-c", SHELL, "sh", &round.to_string(), "true"], |_| ()).await?;
        if round >= 3 {
            plain.push(between - begun);
            script.push(between.elapsed());
        }
    }
    let time = median(&mut script) * 1000.0;
    report.row("exec of `true`: by a shell script", Target::None, time, "ms");
    report.row("ratio to the native client", Target::None, time / (median(&mut plain) * 1000.0), "×");
    let size = BIG.to_string();
    let print = ["head", "-c", &size, "/dev/zero"];
    let mut rates = [0.0; 2];
    for (before, rate) in [&[][..], &["/bin/sh", "-c", SHELL, "sh", "big"]].into_iter().zip(&mut rates) {
        let (begun, mut received) = (Instant::now(), 0);
        native.exec(container, &[before, &print].concat(), |piece| received += piece.len() as u64).await?;
        ensure!(received == BIG, "{received} bytes instead of {BIG}");
        *rate = BIG as f64 / MIB / begun.elapsed().as_secs_f64();
    }
    report.row("stdout of 1 GiB: by a shell script", Target::None, rates[1], "MiB/s");
    report.row("ratio to the native client", Target::None, rates[1] / rates[0], "×");
    Ok(())
}

/// One of the compared clients, with a container of its own kind.
enum Client<'a> {
    Ours(&'a Sandbox),
    Native(&'a Native, String),
    Program(&'a Program, String),
}

impl Client<'_> {
    async fn create(provider: &Provider) -> Result<Sandbox> {
        Ok(provider.create(SandboxSpec::new(ImageSpec::registry(IMAGE))).await?)
    }

    /// Runs a command, which must succeed, and returns its standard output.
    async fn run(&self, command: &[&str]) -> Result<Vec<u8>> {
        match self {
            Client::Ours(sandbox) => {
                let result = sandbox.run(ExecSpec::new(command.iter().copied())).await?;
                ensure!(matches!(result.verdict, Verdict::Exited(0)), "{command:?} ended as {:?}", result.verdict);
                Ok(result.stdout.data)
            }
            Client::Native(native, container) => {
                let mut printed = Vec::new();
                native.exec(container, command, |piece| printed.extend_from_slice(piece)).await?;
                Ok(printed)
            }
            Client::Program(program, container) => program.call(&[&["exec", container], command].concat()).await,
        }
    }

    /// Runs a command that prints [`BIG`] bytes, and drops them.
    async fn count(&self, command: &[&str]) -> Result<()> {
        let mut received = 0;
        match self {
            Client::Ours(sandbox) => {
                let mut process = sandbox.spawn(ExecSpec::new(command.iter().copied())).await?;
                let mut stdout = process.stdout.take().context("the process has no standard output")?;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    match stdout.read(&mut buffer).await? {
                        0 => break,
                        count => received += count as u64,
                    }
                }
                ensure!(matches!(process.wait().await?, Verdict::Exited(0)), "{command:?} failed");
            }
            Client::Native(native, container) => {
                native.exec(container, command, |piece| received += piece.len() as u64).await?;
            }
            Client::Program(program, container) => {
                let mut child = program.command(&[&["exec", container], command].concat()).spawn()?;
                let mut stdout = child.stdout.take().context("the program has no standard output")?;
                let mut buffer = vec![0; 256 << 10];
                loop {
                    match stdout.read(&mut buffer).await? {
                        0 => break,
                        count => received += count as u64,
                    }
                }
                ensure!(child.wait().await?.success(), "{command:?} failed");
            }
        }
        ensure!(received == BIG, "{received} bytes instead of {BIG}");
        Ok(())
    }
}

/// The native client.
struct Native {
    docker: Docker,
}

impl Native {
    /// Creates a container and starts it.
    async fn create(&self) -> Result<String> {
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(["sleep", "86400"].map(str::to_owned).into()),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::new().build();
        let created = self.docker.create_container(Some(options), body).await?;
        self.docker.start_container(&created.id, None::<StartContainerOptions>).await?;
        Ok(created.id)
    }

    /// Runs a command, which must succeed, and passes on its standard output.
    async fn exec(&self, container: &str, command: &[&str], mut take: impl FnMut(&[u8])) -> Result<()> {
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command.iter().map(|word| (*word).to_owned()).collect()),
            ..Default::default()
        };
        let created = self.docker.create_exec(container, config).await?;
        // As much as the others read at a time.
        let options = StartExecOptions { output_capacity: Some(256 << 10), ..Default::default() };
        let StartExecResults::Attached { mut output, .. } = self.docker.start_exec(&created.id, Some(options)).await?
        else {
            bail!("the exec was detached");
        };
        while let Some(piece) = output.next().await {
            take(&piece?.into_bytes());
        }
        // The end of the output is no verdict.
        let code = self.docker.inspect_exec(&created.id).await?.exit_code;
        ensure!(code == Some(0), "{command:?} ended with {code:?}");
        Ok(())
    }

    async fn remove(&self, container: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        Ok(self.docker.remove_container(container, Some(options)).await?)
    }
}

/// The program `docker`.
struct Program {
    path: PathBuf,
    host: String,
}

impl Program {
    fn new(host: &str) -> Result<Program> {
        let path = engines::packages()?.join("usr/bin/docker");
        ensure!(Path::new(&path).is_file(), "{} is missing", path.display());
        Ok(Program { path, host: host.to_owned() })
    }

    fn command(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).env("DOCKER_HOST", &self.host).env("DOCKER_API_VERSION", "1.41");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.into()
    }

    /// Runs the program, which must succeed, and returns its standard output.
    async fn call(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = self.command(arguments).output().await?;
        ensure!(output.status.success(), "docker {arguments:?} ended with {}", output.status);
        Ok(output.stdout)
    }
}

/// The printed rows: three clients, and how ours compares with the other two.
struct Table(Report);

impl Table {
    fn rows(&mut self, what: &str, [ours, native, program]: [f64; 3], unit: &str) {
        self.0.row(&format!("{what}: docker"), Target::None, program, unit);
        self.0.row(&format!("{what}: native client"), Target::None, native, unit);
        self.0.row(&format!("{what}: provider"), Target::None, ours, unit);
        self.0.row("ratio to docker", Target::None, ours / program, "×");
        self.0.row("ratio to the native client", Target::None, ours / native, "×");
    }
}

/// Returns the CPU time of this process and of the programs that it ran, in seconds.
fn cpu() -> Result<f64> {
    let mut sum = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            sum += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        }
    }
    Ok(sum)
}

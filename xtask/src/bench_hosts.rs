//! `cargo xtask bench hosts`: compares the packages for other languages with the official SDKs of Modal and with
//! inspect_sandboxes. All of them run `true` in a sandbox of the same emulator, in turns. The clients are the programs in
//! `tests/benches/clients`, which print commands per second and CPU time per command.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    build, c,
    emulator::Emulator,
    node, python,
    tools::{self, Version, run},
};

/// Numbers of commands under way at the same time.
const IN_FLIGHT: [&str; 2] = ["16", "64"];

/// Number of commands of each measurement.
const COMMANDS: &str = "1000";

/// Number of turns. The table has the median of each figure.
const ROUNDS: usize = 3;

/// The oldest Python for which inspect_sandboxes exists.
const INSPECT_SANDBOXES_PYTHON: Version = Version(3, 12);

/// A measured client: what it is, and its command without the arguments that all clients take.
struct Client {
    name: &'static str,
    command: Box<dyn Fn() -> Command>,
}

/// Commands per second and CPU milliseconds per command, of each round.
#[derive(Default)]
struct Figures {
    rates: Vec<f64>,
    costs: Vec<f64>,
}

/// Builds the packages, installs them, measures all clients, and prints the table.
///
/// # Errors
///
/// Fails if a package cannot be built or installed, or a client fails.
pub fn run_all() -> Result<()> {
    let program = build::dist()?.program;
    let clients = clients(&program)?;
    let mut command = Emulator::command(&program);
    command.stderr(Stdio::null());
    let emulator = Emulator::start(command)?;
    let mut measured: BTreeMap<(usize, &str), Figures> = BTreeMap::new();
    for round in 1..=ROUNDS {
        for (at, client) in clients.iter().enumerate() {
            eprintln!("Round {round} of {ROUNDS}: {}", client.name);
            for (in_flight, rate, cost) in measure(client, emulator.url())? {
                let figures = measured.entry((at, in_flight)).or_default();
                figures.rates.push(rate);
                figures.costs.push(cost);
            }
        }
    }
    print(&clients, measured);
    Ok(())
}

/// Returns all clients, with their packages installed below `target/`.
fn clients(program: &Path) -> Result<Vec<Client>> {
    let folder = tools::root().join("tests/benches/clients");
    let script = |interpreter: PathBuf, name: &'static str| {
        let file = folder.join(name);
        Box::new(move || {
            let mut command = Command::new(&interpreter);
            command.arg(&file);
            command
        }) as Box<dyn Fn() -> Command>
    };
    let component = program.with_file_name(build::file_name(build::PROVIDERS[0]));
    let library = compile(&folder)?;
    let mut clients = vec![
        Client { name: "sandbox-host for Python", command: script(python::installed()?, "sandbox_host_python.py") },
        Client {
            name: "sandbox-host for Node",
            command: node_client(&folder, node::installed()?, "sandbox_host_node.mjs"),
        },
        Client {
            name: "sandbox-host for C",
            command: Box::new(move || {
                let mut command = Command::new(&library);
                command.arg(&component);
                command
            }),
        },
        Client { name: "Modal's SDK for Python", command: script(tools::python()?, "modal_sdk.py") },
        Client { name: "Modal's SDK for JavaScript", command: node_client(&folder, tools::npm()?, "modal_sdk.mjs") },
    ];
    match tools::newest_python(INSPECT_SANDBOXES_PYTHON) {
        Some((interpreter, _)) => {
            let requirements = folder.join("requirements-inspect-sandboxes.txt");
            let python = tools::environment_of(&interpreter, "inspect-sandboxes-venv", &requirements)?;
            clients.push(Client { name: "inspect_sandboxes", command: script(python, "inspect_sandboxes_modal.py") });
        }
        None => eprintln!("Skipped: inspect_sandboxes, which needs Python {INSPECT_SANDBOXES_PYTHON}."),
    }
    Ok(clients)
}

/// Returns the command of a program for Node. It is copied beside the installed packages, because imports are resolved
/// from the folder of the program.
fn node_client(folder: &Path, packages: PathBuf, name: &'static str) -> Box<dyn Fn() -> Command> {
    let sources = [folder.join("measure.mjs"), folder.join(name)];
    Box::new(move || {
        for source in &sources {
            if let Some(file) = source.file_name() {
                // A failure shows when Node does not find the file.
                let _ = std::fs::copy(source, packages.join(file));
            }
        }
        let mut command = Command::new(packages.join("node"));
        command.arg(packages.join(name));
        command
    })
}

/// Compiles the client in C and returns its path.
fn compile(folder: &Path) -> Result<PathBuf> {
    let library = c::library()?;
    let program = tools::target().join("bench-client-c");
    let mut command = Command::new("cc");
    command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(folder.join("sandbox_host_c.c"));
    command.arg(format!("-I{0}", library.display())).arg(format!("-L{0}", library.display()));
    command.arg(format!("-Wl,-rpath,{0}", library.display())).arg("-lsandbox_host");
    run(&mut command)?;
    Ok(program)
}

/// Runs a client and returns for each number in flight: the number, commands per second, CPU milliseconds per command.
fn measure(client: &Client, url: &str) -> Result<Vec<(&'static str, f64, f64)>> {
    let mut command = (client.command)();
    command.arg(COMMANDS).args(IN_FLIGHT);
    command.env("MODAL_SERVER_URL", url).env("MODAL_TOKEN_ID", "ak-bench").env("MODAL_TOKEN_SECRET", "as-bench");
    let output =
        command.stderr(Stdio::inherit()).output().with_context(|| format!("could not start {}", client.name))?;
    ensure!(output.status.success(), "{} failed ({})", client.name, output.status);
    let text = String::from_utf8(output.stdout)?;
    IN_FLIGHT
        .into_iter()
        .map(|in_flight| {
            let line = text.lines().find(|line| line.split(' ').next() == Some(in_flight));
            let line = line.with_context(|| format!("{} printed no figures for {in_flight}", client.name))?;
            let numbers = line.split(' ').skip(1).map(str::parse).collect::<Result<Vec<f64>, _>>()?;
            let [rate, cost] = numbers[..] else { anyhow::bail!("{} printed `{line}`", client.name) };
            Ok((in_flight, rate, cost))
        })
        .collect()
}

/// Prints the medians as a table in Markdown.
fn print(clients: &[Client], mut measured: BTreeMap<(usize, &str), Figures>) {
    println!("\n| client | in flight | commands per second | CPU per command |\n|---|---:|---:|---:|");
    for (at, client) in clients.iter().enumerate() {
        for in_flight in IN_FLIGHT {
            if let Some(figures) = measured.get_mut(&(at, in_flight)) {
                let (rate, cost) = (median(&mut figures.rates), median(&mut figures.costs));
                println!("| {} | {in_flight} | {rate:.0} | {cost:.2} ms |", client.name);
            }
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

//! `engines start dockerd|podman|registry [--dir DIR] [--tls] [--login] [--reach PORT]…`: starts one engine, prints a line
//! of JSON, and serves until standard input ends or SIGTERM or SIGINT arrives. `DIR` is where the engine gets its folder.
//! `--reach` opens a port of the machine's 127.0.0.1 in the network of the engine.

use std::{
    io::{self, Read as _, Write as _},
    process::ExitCode,
    sync::mpsc::{self, Sender},
    thread,
};

use engines::{Engine, Error, Kind, Options, USER};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

const USAGE: &str = "usage: engines start dockerd|podman|registry [--dir DIR] [--tls] [--login] [--reach PORT]...";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    // All threads inherit the blocked signals; the programs that are started do not.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(io::Error::from)?;
    let (kind, options, reach) = parse(std::env::args().skip(1)).ok_or_else(|| io::Error::other(USAGE))?;
    let (ended, end) = mpsc::channel();
    watch(signals, &ended);
    let engine = Engine::start(kind, &options)?;
    for port in reach {
        engine.reach(port)?;
    }
    let mut output = io::stdout();
    writeln!(output, "{}", describe(&engine, &options)?)?;
    output.flush()?;
    let _ = end.recv();
    engine.end()
}

/// Sends a message when standard input ends or a signal arrives.
fn watch(signals: SigSet, ended: &Sender<()>) {
    let ended_input = ended.clone();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
        let _ = ended_input.send(());
    });
    let ended_signal = ended.clone();
    thread::spawn(move || {
        let _ = signals.wait();
        let _ = ended_signal.send(());
    });
}

fn parse(arguments: impl Iterator<Item = String>) -> Option<(Kind, Options, Vec<u16>)> {
    let mut arguments = arguments;
    if arguments.next()? != "start" {
        return None;
    }
    let name = arguments.next()?;
    let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name)?;
    let (mut options, mut reach) = (Options::default(), Vec::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--dir" => options.folder = Some(arguments.next()?.into()),
            "--tls" => options.tls = true,
            "--login" => options.login = true,
            "--reach" => reach.push(arguments.next()?.parse().ok()?),
            _ => return None,
        }
    }
    Some((kind, options, reach))
}

fn describe(engine: &Engine, options: &Options) -> Result<Value, Error> {
    let mut line = json!({"host": engine.host(), "kind": engine.kind().name(), "folder": engine.folder()});
    if engine.kind() == Kind::Registry {
        if options.login {
            line["user"] = json!({"name": USER.0, "password": USER.1});
        }
        return Ok(line);
    }
    line["version"] = engine.request("GET", "/version", None)?.1["Version"].take();
    match engine.certificates() {
        Some(folder) => line["certificates"] = json!(folder),
        None => line["socket"] = json!(engine.socket()),
    }
    Ok(line)
}

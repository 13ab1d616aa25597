//! The program `sandbox`: what was typed becomes calls of the library, what comes back becomes output and an exit code.

// Everything is printed by `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// Modules import from those below them only:
//
//   commands   a file for each subcommand
//   steps      what several commands do: image, sandbox, command, terminal
//   session    plugin, provider, policy, private emulator, and what to undo
//   pull       plugins from elsewhere
//   output     everything printed      args   everything typed
mod args;
mod commands;
mod output;
mod pull;
mod session;
mod steps;

use std::future::pending;
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing::Instrument as _;

use crate::args::{Cli, Command};
use crate::commands::emulator;
use crate::output::{FAILED, INTERRUPTED};
use crate::session::{Session, telemetry};

/// The argument that has this program compile a component and end. Not for users.
const COMPILE: &str = "compile-component";

/// Files that are open at once when next to nothing is done, and some to spare: the runtime, the plugin, a connection.
const NEEDED_FILES: usize = 32;

/// How long undoing everything may take when we were stopped.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same when the service was not to be reached a moment ago: one more try, no more.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// What is said when a signal has ended the command.
const CLEANING_UP: &str = "interrupted, cleaning up (again to stop at once)";

/// Signals within this time of the first are the same wish to stop: `timeout` signals the program and then its group, and a
/// terminal's key may be held down. One that comes later means to stop at once.
const SAME_STOP: Duration = Duration::from_secs(1);

fn main() {
    emulator::child_entry();
    if std::env::args_os().nth(1).is_some_and(|argument| argument == COMPILE) {
        std::process::exit(sandbox_host::compile_child());
    }
    sandbox_host::compile_apart(|| {
        // The very program that runs, even if its file has been replaced meanwhile.
        let program = Path::new("/proc/self/exe");
        let own = if program.exists() { Ok(program.to_owned()) } else { std::env::current_exe() };
        let mut command = std::process::Command::new(own.as_deref().unwrap_or(Path::new("sandbox")));
        command.arg(COMPILE).env_clear();
        command
    });
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            std::process::exit(0);
        }
        Err(error) => {
            // What asked for JSON gets it here too.
            let ours = std::env::args_os().take_while(|argument| argument != "--");
            if ours.into_iter().any(|argument| argument == "--json") {
                output::fail_usage(&error);
            } else {
                let _ = error.print();
            }
            std::process::exit(FAILED);
        }
    };
    // Below, what cannot be opened ends in a panic here and there.
    if let Err(error) = files_can_be_opened() {
        let why = format!("{NEEDED_FILES} more files cannot be opened: {error}");
        let failure = output::Failure::new("start", why).hint("raise the limit with `ulimit -n`");
        output::Voice::new(cli.global.json, cli.global.quiet, cli.global.no_color).fail(&failure.into());
        std::process::exit(FAILED);
    }
    // The emulator sets up its own log and runtime, and looks after its own end.
    if let Command::Emulator(args) = cli.command {
        let ended = emulator::foreground(args);
        std::process::exit(ended.unwrap_or_else(|error| {
            output::Voice::new(cli.global.json, cli.global.quiet, cli.global.no_color).fail(&error);
            FAILED
        }));
    }
    let voice = output::Voice::new(cli.global.json, cli.global.quiet, cli.global.no_color);
    let code = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let telemetry = {
                let _inside = runtime.enter();
                telemetry::start(cli.global.verbose, cli.global.no_color).unwrap_or_else(|why| {
                    let hint = "unset the variable to send nothing";
                    voice.fail(&output::Failure::new("report what goes on", why).hint(hint).into());
                    std::process::exit(FAILED);
                })
            };
            let code = runtime.block_on(supervise(cli));
            if let Err(why) = telemetry.end() {
                voice.warn(format_args!("warning: {why}"));
            }
            // Neither waited for nor dropped: a thread may be reading standard input for ever, and a runtime that ends its
            // tasks in any order makes those panic that wait for one another. The process's end takes all of them at once.
            std::mem::forget(runtime);
            code
        }
        Err(error) => {
            voice.fail(&output::Failure::new("start", error.to_string()).into());
            FAILED
        }
    };
    std::process::exit(code);
}

/// Whether this process may open as many files as it needs to begin with.
fn files_can_be_opened() -> std::io::Result<()> {
    let opened: std::io::Result<Vec<_>> = (0..NEEDED_FILES).map(|_| std::fs::File::open("/dev/null")).collect();
    opened.map(drop)
}

/// Runs the command, and sees to it that nothing is left behind however it ends.
async fn supervise(cli: Cli) -> i32 {
    let session = Session::new(cli.global);
    let mut stops = Stops::new();
    let mut patience = PATIENCE;
    let mut stopped = None;
    let mut code = tokio::select! {
        // The command first: when it has ended there is nothing to be stopped.
        biased;
        result = commands::dispatch(&session, cli.command).instrument(tracing::info_span!("command")) => match result {
            Ok(code) => code,
            Err(error) if output::is_broken_pipe(&error) => 0,
            Err(error) => {
                session.voice.fail(&error);
                let cause = error.downcast_ref::<sandbox_host::Error>();
                if cause.is_some_and(|error| *error.kind() == sandbox_host::Kind::Unavailable) {
                    patience = UNREACHABLE;
                }
                FAILED
            }
        },
        code = stops.next() => {
            stopped = Some(Instant::now());
            session.voice.say(CLEANING_UP);
            code
        }
    };
    let mut settled = pin!(async {
        session.settle(patience).await;
        session.close().await
    });
    loop {
        tokio::select! {
            biased;
            () = &mut settled => return code,
            signal = stops.next() => {
                code = signal;
                match stopped {
                    None => {
                        stopped = Some(Instant::now());
                        session.voice.say(CLEANING_UP);
                    }
                    Some(first) if first.elapsed() < SAME_STOP => {}
                    Some(_) => {
                        for left in session.left_behind().await {
                            session.voice.warn(format_args!("left behind: {left}"));
                        }
                        return code;
                    }
                }
            }
        }
    }
}

/// The signals that ask us to stop.
struct Stops {
    interrupt: Option<tokio::signal::unix::Signal>,
    terminate: Option<tokio::signal::unix::Signal>,
    hangup: Option<tokio::signal::unix::Signal>,
}

impl Stops {
    fn new() -> Stops {
        Stops {
            interrupt: signal(SignalKind::interrupt()).ok(),
            terminate: signal(SignalKind::terminate()).ok(),
            hangup: signal(SignalKind::hangup()).ok(),
        }
    }

    /// The exit code that fits the signal that comes next.
    async fn next(&mut self) -> i32 {
        async fn wait(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => {
                    signal.recv().await;
                }
                None => pending().await,
            }
        }
        tokio::select! {
            () = wait(&mut self.interrupt) => INTERRUPTED,
            () = wait(&mut self.terminate) => 128 + 15,
            () = wait(&mut self.hangup) => 128 + 1,
        }
    }
}

//! The program `sandbox`: translates a command line to calls of `sandbox-host`, and their results to output and an exit
//! code.

// Only `output` prints.
#![deny(clippy::print_stdout, clippy::print_stderr)]

// Each module imports only modules further down this list:
//
//   commands   one file per subcommand
//   steps      steps shared by several commands: image, sandbox, command, terminal
//   session    plugin, provider, policy, private emulator, and the list of what must be undone
//   pull       downloads plugins
//   output     prints everything      args   the command line
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

/// The argument that makes this program compile a component and exit. Internal.
const COMPILE: &str = "compile-component";

/// Number of files that even a short command has open (runtime, plugin, connection), with a reserve.
const NEEDED_FILES: usize = 32;

/// Timeout for undoing everything after the command has ended or was stopped.
const PATIENCE: Duration = Duration::from_secs(20);

/// The same timeout if the service was unreachable: enough for one more attempt.
const UNREACHABLE: Duration = Duration::from_secs(2);

/// The message after a signal has stopped the command.
const CLEANING_UP: &str = "interrupted, cleaning up (interrupt again to stop at once)";

/// Further signals within this time of the first one are ignored: `timeout` signals the program and then its process
/// group, and a key of the terminal may be held down. A later signal makes the program exit immediately.
const SAME_STOP: Duration = Duration::from_secs(1);

fn main() {
    emulator::child_entry();
    if std::env::args_os().nth(1).is_some_and(|argument| argument == COMPILE) {
        std::process::exit(sandbox_host::compile_child());
    }
    sandbox_host::compile_apart(|| {
        // The running program, even if its file has been replaced in the meantime.
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
            // Reports errors as JSON if the command line contains `--json`.
            let ours = std::env::args_os().take_while(|argument| argument != "--");
            if ours.into_iter().any(|argument| argument == "--json") {
                output::fail_usage(&error);
            } else {
                let _ = error.print();
            }
            std::process::exit(FAILED);
        }
    };
    // The libraries used below panic in some places if they cannot open a file.
    if let Err(error) = files_can_be_opened() {
        let why = format!("the process cannot open {NEEDED_FILES} more files: {error}");
        let failure = output::Failure::new("start", why).hint("raise the limit with `ulimit -n`");
        output::Voice::new(cli.global.json, cli.global.quiet, cli.global.no_color).fail(&failure.into());
        std::process::exit(FAILED);
    }
    // The emulator sets up its own logging and runtime, and handles signals itself.
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
                    let hint = "unset the variable to turn telemetry off";
                    voice.fail(&output::Failure::new("send telemetry", why).hint(hint).into());
                    std::process::exit(FAILED);
                })
            };
            let code = runtime.block_on(supervise(cli));
            if let Err(why) = telemetry.end() {
                voice.warn(format_args!("warning: {why}"));
            }
            // Forgotten instead of dropped: a thread may block on standard input for ever, and a runtime that is dropped
            // ends its tasks in any order, which makes tasks panic that wait for one another. The end of the process ends
            // all of them at once.
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

/// Checks that this process may open [`NEEDED_FILES`] files.
fn files_can_be_opened() -> std::io::Result<()> {
    let opened: std::io::Result<Vec<_>> = (0..NEEDED_FILES).map(|_| std::fs::File::open("/dev/null")).collect();
    opened.map(drop)
}

/// Runs the command, and undoes what it left behind however it ends. Returns the exit code.
async fn supervise(cli: Cli) -> i32 {
    let session = Session::new(cli.global);
    let mut stops = Stops::new();
    let mut patience = PATIENCE;
    let mut stopped = None;
    let mut code = tokio::select! {
        // The command is polled first: once it has ended, a signal no longer stops it.
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
    let mut undone = pin!(async {
        session.undo_all(patience).await;
        session.close().await
    });
    loop {
        tokio::select! {
            biased;
            () = &mut undone => return code,
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

/// The signals that stop the program: SIGINT, SIGTERM and SIGHUP.
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

    /// Waits for the next signal. Returns the exit code for it.
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

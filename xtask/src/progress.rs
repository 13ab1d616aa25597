//! Runs cargo and shows its progress: one line that counts crates, instead of one `Compiling` line per crate.
//!
//! Data flow: cargo writes one JSON message for each finished crate to its standard output, and warnings, errors and
//! status lines to its standard error. One thread reads each of them. Finished crates advance a counter, and status
//! lines name the current crate and are not shown. All other lines are printed unchanged. On a terminal the progress
//! line is rewritten in place; elsewhere it is repeated every [`INTERVAL`]. Builds that run at the same time (as in
//! `build::dist`) share the line.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{BufRead as _, BufReader, IsTerminal as _, Read, Write as _},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::tools;

/// Interval between progress lines where they cannot be rewritten. It is long, so that they do not fill the log of a
/// test run.
const INTERVAL: Duration = Duration::from_secs(15);

/// First words of the status lines of cargo (`Shell::status` in its sources).
const STATUS: [&str; 12] = [
    "Adding",
    "Checking",
    "Compiling",
    "Documenting",
    "Downloaded",
    "Downloading",
    "Dirty",
    "Finished",
    "Fresh",
    "Generated",
    "Locking",
    "Updating",
];

/// A program that cargo has built.
#[derive(Debug)]
pub struct Executable {
    /// The folder of its package.
    pub package: PathBuf,
    /// The name of its target: the library, program or test that it was built from.
    pub target: String,
    /// The kind of the target: `lib`, `bin`, `test`, …
    pub kind: String,
    /// Whether it is a test program.
    pub test: bool,
    /// The path of the file.
    pub file: PathBuf,
}

/// The state of a running build.
struct Build {
    what: String,
    begun: Instant,
    done: usize,
    total: usize,
    crate_name: String,
}

/// The running builds, and the time at which their line was last printed.
struct Board {
    builds: Vec<Build>,
    printed: Option<Instant>,
}

static BOARD: Mutex<Board> = Mutex::new(Board { builds: Vec::new(), printed: None });

enum Event {
    /// A line of standard output.
    Message(String),
    /// A line of standard error.
    Text(String),
}

/// Runs `cargo SUBCOMMAND ARGUMENTS` with the environment `env`, shows its progress as `what`, and returns the programs
/// that it built.
///
/// # Errors
///
/// Fails if cargo cannot be started or fails. Its messages have been printed by then.
pub fn cargo(what: &str, subcommand: &str, arguments: &[&str], env: &[(String, String)]) -> Result<Vec<Executable>> {
    let total = crates(arguments);
    let mut command = tools::cargo();
    command.arg(subcommand);
    // Options of cargo must be inserted before the dashes, as in `cargo clippy … -- -D warnings`.
    let dashes = arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len());
    command.args(&arguments[..dashes]).arg("--message-format=json-render-diagnostics").args(&arguments[dashes..]);
    command.envs(env.iter().map(|(name, value)| (name, value)));
    if std::io::stderr().is_terminal() && std::env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let line = tools::line(&command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start `{line}`"))?;
    let (sender, events) = mpsc::channel();
    let readers = [
        child.stdout.take().map(|output| forward(output, sender.clone(), Event::Message)),
        child.stderr.take().map(|output| forward(output, sender, Event::Text)),
    ];
    board().builds.push(Build {
        what: what.to_string(),
        begun: Instant::now(),
        done: 0,
        total,
        crate_name: String::new(),
    });
    let executables = follow(what, &events);
    for reader in readers.into_iter().flatten() {
        let _ = reader.join();
    }
    let status = child.wait()?;
    let mut board = board();
    board.erase();
    if let Some(at) = board.builds.iter().position(|build| build.what == what) {
        let build = board.builds.remove(at);
        if status.success() {
            eprintln!("  {what}: {} crates, {}", build.done, clock(build.begun.elapsed()));
        }
    }
    if !status.success() {
        bail!("`{line}` failed ({status})");
    }
    Ok(executables)
}

/// Handles the events of a build until both outputs have ended, and returns the programs that were built.
fn follow(what: &str, events: &mpsc::Receiver<Event>) -> Vec<Executable> {
    let mut finished = HashSet::new();
    let mut executables = Vec::new();
    loop {
        let event = match events.recv_timeout(Duration::from_secs(1)) {
            Ok(event) => Some(event),
            Err(mpsc::RecvTimeoutError::Timeout) => None,
            Err(mpsc::RecvTimeoutError::Disconnected) => return executables,
        };
        let mut board = board();
        match event {
            Some(Event::Message(line)) => {
                if let Some(message) = artifact(&line) {
                    finished.insert(message["package_id"].to_string());
                    executables.extend(executable(&message));
                }
            }
            Some(Event::Text(line)) => match status(&line) {
                Some(crate_name) => board.set(what, |build| build.crate_name = crate_name),
                None => {
                    board.erase();
                    eprintln!("{line}");
                }
            },
            None => {}
        }
        board.set(what, |build| {
            build.done = finished.len();
            build.total = build.total.max(build.done);
        });
        board.print();
    }
}

fn board() -> MutexGuard<'static, Board> {
    BOARD.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    fn set(&mut self, what: &str, change: impl FnOnce(&mut Build)) {
        if let Some(build) = self.builds.iter_mut().find(|build| build.what == what) {
            change(build);
        }
    }

    /// Prints the progress line if the interval has passed.
    fn print(&mut self) {
        let terminal = std::io::stderr().is_terminal();
        let pause = if terminal { Duration::from_millis(100) } else { INTERVAL };
        let begun = self.builds.iter().map(|build| build.begun).min();
        // The first line appears after one interval, so that a build without work prints none.
        if self.printed.or(begun).is_some_and(|last| last.elapsed() < pause) {
            return;
        }
        self.printed = Some(Instant::now());
        let mut text = String::new();
        for build in &self.builds {
            let separator = if text.is_empty() { "  " } else { "; " };
            let _ = write!(text, "{separator}{}: {} of {} crates", build.what, build.done, build.total.max(build.done));
            if !build.crate_name.is_empty() && build.done < build.total {
                let _ = write!(text, " ({})", build.crate_name);
            }
        }
        if let Some(begun) = begun {
            let _ = write!(text, ", {}", clock(begun.elapsed()));
        }
        let mut stderr = std::io::stderr().lock();
        let _ = if terminal {
            // A line longer than one row of the terminal could not be erased.
            let text: String = text.chars().take(79).collect();
            write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{text}")
        };
    }

    /// Erases the progress line on a terminal, before other text is printed.
    fn erase(&mut self) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
    }
}

fn forward(
    output: impl Read + Send + 'static,
    events: mpsc::Sender<Event>,
    kind: fn(String) -> Event,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let _ = events.send(kind(String::from_utf8_lossy(&line).into_owned()));
        }
    })
}

/// Returns the number of crates of the build according to `cargo tree`, or 0 if it is unknown.
fn crates(arguments: &[&str]) -> usize {
    let mut command = tools::cargo();
    let edges = if arguments.contains(&"--no-run") || arguments.contains(&"--all-targets") {
        "normal,build,dev"
    } else {
        "normal,build"
    };
    command.args(["tree", "--quiet", "--prefix", "none", "--format", "{p}", "--edges", edges]);
    let mut words = arguments.iter().take_while(|word| **word != "--");
    while let Some(word) = words.next() {
        match *word {
            "--workspace" => drop(command.arg(word)),
            "--package" | "--target" => drop(command.args(std::iter::once(word).chain(words.next()))),
            _ => {}
        }
    }
    let Ok(output) = command.stderr(Stdio::null()).output() else { return 0 };
    let text = String::from_utf8_lossy(&output.stdout);
    // Each line has the form `NAME vVERSION (proc-macro) (*)`.
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    text.lines().filter(|line| !line.is_empty()).map(name).collect::<HashSet<_>>().len()
}

/// Returns the message if it reports a finished target.
fn artifact(line: &str) -> Option<Value> {
    let message: Value = serde_json::from_str(line).ok()?;
    (message["reason"] == "compiler-artifact").then_some(message)
}

fn executable(message: &Value) -> Option<Executable> {
    let text = |value: &Value| value.as_str().map(str::to_string);
    Some(Executable {
        file: PathBuf::from(text(&message["executable"])?),
        package: PathBuf::from(text(&message["manifest_path"])?).parent()?.to_path_buf(),
        target: text(&message["target"]["name"])?,
        kind: text(&message["target"]["kind"][0])?,
        test: message["profile"]["test"] == true,
    })
}

/// Returns the crate of a status line, an empty text if the line names none, or `None` for other lines.
fn status(line: &str) -> Option<String> {
    let plain = without_colours(line);
    // Two builds at the same time wait for each other while they resolve sources.
    if plain.contains("waiting for file lock on package cache") {
        return Some(String::new());
    }
    let mut words = plain.strip_prefix(' ').unwrap_or(&plain).split_whitespace();
    let verb = words.next()?;
    if !STATUS.contains(&verb) {
        return None;
    }
    let name = words.next().filter(|_| matches!(verb, "Checking" | "Compiling" | "Documenting"));
    Some(name.unwrap_or_default().to_string())
}

/// Returns the line without escape sequences for colours.
fn without_colours(line: &str) -> String {
    let mut parts = line.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_string();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

/// Formats a time as `M:SS min`.
pub fn clock(time: Duration) -> String {
    format!("{}:{:02} min", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_told_from_other_text() {
        assert_eq!(status("   Compiling serde v1.0.1").as_deref(), Some("serde"));
        assert_eq!(status("\u{1b}[1m\u{1b}[92m   Compiling\u{1b}[0m libc v0.2.1").as_deref(), Some("libc"));
        assert_eq!(status(" Downloading crates ...").as_deref(), Some(""));
        assert_eq!(status("warning: unused variable"), None);
        assert_eq!(status("    Blocking waiting for file lock on build directory"), None);
        assert_eq!(status(""), None);
    }

    #[test]
    fn programs_are_found_in_messages() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/host/lib#sandbox-host@0.1.0",
            "manifest_path":"/w/host/lib/Cargo.toml","target":{"kind":["test"],"name":"host"},
            "profile":{"test":true},"executable":"/w/target/release/deps/host-1","fresh":false}"#;
        let found = artifact(line).as_ref().and_then(executable).expect("no program in the message");
        assert_eq!((found.target.as_str(), found.kind.as_str(), found.test), ("host", "test", true));
        assert_eq!(found.package, PathBuf::from("/w/host/lib"));
        assert!(artifact(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}

//! What the whole-system tests share: the programs under test, and emulators that end with the test.
//!
//! `cargo xtask test` builds the programs into `target/dist` first; `SANDBOX_PROGRAM`, `SANDBOX_COMPONENT`,
//! `SANDBOX_PYTHON` and `SANDBOX_NPM` name others.

pub mod faults;
pub mod internet;
pub mod own_process;
pub mod proxy;
mod world;

pub use world::{World, refused, sh, told};

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

fn from_env(variable: &str, default: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(default), PathBuf::from);
    assert!(path.exists(), "{} is not there: run `cargo xtask build` (or set {variable})", path.display());
    path
}

/// The command line.
#[must_use]
pub fn program() -> PathBuf {
    from_env("SANDBOX_PROGRAM", "dist/sandbox")
}

/// The Modal provider.
#[must_use]
pub fn component() -> PathBuf {
    from_env("SANDBOX_COMPONENT", "dist/modal-provider.wasm")
}

/// A Python with what `tests/requirements.txt` pins.
#[must_use]
pub fn python() -> PathBuf {
    from_env("SANDBOX_PYTHON", "venv/bin/python")
}

/// A folder with the npm packages that `xtask/package.json` pins, and a link `node` to what runs them.
#[must_use]
pub fn npm() -> PathBuf {
    from_env("SANDBOX_NPM", "npm")
}

/// Node with these options, to run a script of `tests/FOLDER` with the packages of [`npm`].
///
/// # Panics
///
/// When no link can be made there.
#[must_use]
pub fn node(folder: &str, script: &str, options: &[&str]) -> Command {
    // Packages are found from where a script is named, not from where it really lies.
    let link = npm().join(folder);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if !std::fs::read_link(&link).is_ok_and(|target| target == scripts) {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&scripts, &link).expect("a link");
    }
    let mut command = Command::new(npm().join("node"));
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).args(options).arg(link.join(script));
    command
}

/// The checks of the official Python SDK whose names contain `filter`. `pytest` fails if there is none.
#[must_use]
pub fn python_checks(filter: &str) -> Command {
    let mut command = Command::new(python());
    command.args(["-m", "pytest"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk-python"));
    // The folder of the sources stays clean.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    if !filter.is_empty() {
        command.args(["-k", filter]);
    }
    command
}

/// The checks of the official JavaScript SDK whose names contain `filter`. See [`javascript_checks_passed`].
#[must_use]
pub fn javascript_checks(filter: &str) -> Command {
    // The client keeps its connections open, and with them the process.
    let pattern = format!("--test-name-pattern={filter}");
    let mut command = node("sdk-js", "run.mjs", &["--test-reporter=tap", "--test-force-exit", &pattern]);
    command.stdin(Stdio::null());
    command
}

/// Whether the output of [`javascript_checks`] says that at least one check passed and none failed. Node succeeds without any.
#[must_use]
pub fn javascript_checks_passed(output: &str) -> bool {
    let count = |name: &str| -> Option<u32> {
        output.lines().rev().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    count("# pass ").is_some_and(|passed| passed > 0) && count("# fail ") == Some(0) && count("# cancelled ") == Some(0)
}

/// The command line without anything of this machine's user: no credentials, no profile.
#[must_use]
pub fn sandbox() -> Command {
    let mut command = Command::new(program());
    for name in ["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_SERVER_URL", "MODAL_PROFILE", "MODAL_ENVIRONMENT"] {
        command.env_remove(name);
    }
    command.env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml").stdin(Stdio::null());
    command
}

/// Runs to its end with this on its standard input.
///
/// # Panics
///
/// When it cannot be started.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    // A program that does not read all of it is no failure of the test.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends");
    output
}

/// Standard error as text, for messages of failed assertions.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An emulator of the test's own.
pub struct Emulator {
    child: Child,
    url: String,
}

impl Emulator {
    /// Starts one with further arguments; ready when this returns.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn with<S: AsRef<OsStr>>(arguments: &[S]) -> Emulator {
        let mut command = sandbox();
        command.args(["emulator", "--listen", "127.0.0.1:0", "--exit-with-stdin"]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the emulator starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("one line");
        let url = line.trim().strip_prefix("MODAL_SERVER_URL=");
        let url = url.unwrap_or_else(|| panic!("instead of its address the emulator printed `{line}`")).to_string();
        Emulator { child, url }
    }

    /// Starts one.
    #[must_use]
    pub fn start() -> Emulator {
        Emulator::with::<&str>(&[])
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command line, talking to it.
    #[must_use]
    pub fn sandbox(&self) -> Command {
        let mut command = sandbox();
        command.args(["--emulator-url", &self.url]);
        command
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // Its end of input is its end; it cleans up before it goes.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

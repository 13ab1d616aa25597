//! `cargo xtask engines`: fetches container engines for tests from the package archive of a Debian machine and unpacks
//! them below `target/engines/root`. Nothing is installed on the machine.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use serde_json::Value;

use crate::{debian::Set, tools};

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
    let about = "container engines";
    Set { folder: "engines", about, packages: PACKAGES, layout: 1, arrange: merge }.fetch()
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

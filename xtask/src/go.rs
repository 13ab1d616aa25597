//! The Go compiler for tests: a package of Debian, unpacked below `target/go/root`.

use std::{path::PathBuf, process::Command};

use anyhow::{Result, ensure};

use crate::{
    debian::{self, Packages},
    tools,
};

const PACKAGES: Packages = Packages {
    folder: "go",
    what: "the Go compiler",
    names: &["golang-go", "golang-src"],
    layout: 1,
    finish: |_| Ok(()),
};

/// Returns the program `go`, and fetches it if it is missing. It finds its standard library by its own place. Returns
/// `None` after a printed reason if this machine cannot have it.
///
/// # Errors
///
/// Fails under `CI` instead of returning `None`.
pub fn go() -> Result<Option<PathBuf>> {
    debian::or_left_out("the Go compiler", attempt())
}

fn attempt() -> Result<PathBuf> {
    let unpacked = PACKAGES.unpack()?.join("usr/lib/go/bin/go");
    // A package that is installed on the machine is not unpacked.
    let go = if unpacked.exists() { unpacked } else { PathBuf::from("go") };
    ensure!(tools::works(Command::new(&go).arg("version")), "{} does not start", go.display());
    Ok(go)
}

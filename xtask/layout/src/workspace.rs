//! Lists the crates of the workspace, from `cargo metadata`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// One crate of the workspace.
pub struct Package {
    pub name: String,
    /// The workspace crates that the crate depends on, without those that only its tests need.
    pub dependencies: Vec<String>,
    /// The root files of its library and programs, relative to the root of the workspace, without tests and benchmarks.
    pub targets: Vec<PathBuf>,
}

/// Returns all crates of the workspace at `root`.
///
/// # Errors
///
/// Fails if cargo cannot be started or cannot read the workspace.
pub fn packages(root: &Path) -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("could not start cargo")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = list(&metadata["packages"]);
    let names: Vec<_> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    packages.iter().map(|package| read(root, package, &names)).collect()
}

fn read(root: &Path, package: &Value, members: &[&str]) -> Result<Package> {
    let relative = |value: &Value| -> Result<PathBuf> {
        let path = Path::new(value.as_str().context("cargo metadata names no path")?);
        Ok(path.strip_prefix(root).unwrap_or(path).to_path_buf())
    };
    let dependencies = list(&package["dependencies"])
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["name"].as_str())
        .filter(|name| members.contains(name))
        .map(str::to_owned)
        .collect();
    let kinds = ["lib", "rlib", "cdylib", "proc-macro", "bin"];
    let targets = list(&package["targets"])
        .iter()
        .filter(|target| list(&target["kind"]).iter().any(|kind| kinds.iter().any(|known| kind == known)))
        .map(|target| relative(&target["src_path"]))
        .collect::<Result<_>>()?;
    Ok(Package {
        name: package["name"].as_str().context("cargo metadata names no package")?.to_owned(),
        dependencies,
        targets,
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

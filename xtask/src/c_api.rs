//! wasmtime's C API for tests, in `target/c-api`: the headers from the crate that implements it, and the library from the
//! Python package of the same version.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use crate::tools;

/// The crate with the headers. Only its files are used; it is not compiled.
const CRATE: &str = "wasmtime-c-api-impl";

/// A Python program that prints the version of the package `wasmtime` and the path of its library.
const FIND: &str = "import importlib.metadata, pathlib, wasmtime
print(importlib.metadata.version('wasmtime'))
print(next(pathlib.Path(wasmtime.__file__).parent.glob('linux-*/_libwasmtime.so')))";

/// Features of the C API that the library of the Python package lacks. The headers declare no functions for them.
const ABSENT: [&str; 2] = ["WASMTIME_FEATURE_DISABLE_LOGGING", "WASMTIME_FEATURE_ALL_ARCH"];

/// Returns the folder with the folders `include` and `lib`, and makes it if it is missing.
///
/// # Errors
///
/// Fails if the crate or the Python package cannot be fetched.
pub fn c_api() -> Result<PathBuf> {
    let mut find = Command::new(tools::python()?);
    let found = find.args(["-c", FIND]).output().context("could not start Python")?;
    let text = String::from_utf8(found.stdout)?;
    let (version, library) = text.trim().split_once('\n').context("the Python package wasmtime has no library")?;
    let (folder, stamp) = (tools::target().join("c-api"), tools::target().join("c-api/version.txt"));
    let library_link = folder.join("lib/libwasmtime.so");
    if fs::read_to_string(&stamp).is_ok_and(|have| have == version) && library_link.exists() {
        return Ok(folder);
    }
    let headers = sources(version)?.join("include");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("lib"))?;
    tools::run(Command::new("cp").arg("-r").arg(&headers).arg(&folder))?;
    let template = folder.join("include/wasmtime/conf.h.in");
    fs::write(folder.join("include/wasmtime/conf.h"), configured(&fs::read_to_string(template)?))?;
    symlink(library, &library_link)?;
    fs::write(stamp, version)?;
    Ok(folder)
}

/// Returns the folder with the sources of the crate, and downloads them if they are missing.
fn sources(version: &str) -> Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    let registry = home.context("there is no home directory")?.join("registry/src");
    let find = || {
        let registries = fs::read_dir(&registry).ok()?.flatten();
        registries
            .map(|one| one.path().join(format!("{CRATE}-{version}")))
            .find(|crate_| crate_.join("include").is_dir())
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    eprintln!("Downloading the headers of wasmtime's C API");
    // It downloads this crate and none of its dependencies, in order to describe it.
    let mut info = tools::cargo();
    info.args(["info", "--quiet", &format!("{CRATE}@{version}")]).stdout(Stdio::null());
    tools::run(&mut info)?;
    find().with_context(|| format!("cargo did not unpack {CRATE} {version} below {}", registry.display()))
}

/// Fills in the template of the header that tells which features the library has.
fn configured(template: &str) -> String {
    let lines = template.lines().filter_map(|line| match line.strip_prefix("#cmakedefine ") {
        Some(name) if ABSENT.contains(&name.trim()) => None,
        Some(name) => Some(format!("#define {name}")),
        None => Some(line.to_owned()),
    });
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn present_features_are_defined() {
        let template =
            "#ifndef A\n#cmakedefine WASMTIME_FEATURE_WASI\n#cmakedefine WASMTIME_FEATURE_ALL_ARCH\n#endif\n";
        assert_eq!(configured(template), "#ifndef A\n#define WASMTIME_FEATURE_WASI\n#endif\n");
    }
}

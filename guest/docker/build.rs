//! Puts the archives with the helper program (`guest/docker/inside`) where the sources include them. `cargo xtask build`
//! builds the archives and names their directory in `DOCKER_INSIDE_ARCHIVES`. Builds for other targets than wasm, such as
//! tests of this crate, do not use the archives: they get empty ones if the variable is not set. An architecture without an
//! archive gets an empty one too.

use std::{env, fs, io::ErrorKind, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DOCKER_INSIDE_ARCHIVES");
    let folder = env::var_os("DOCKER_INSIDE_ARCHIVES").map(PathBuf::from);
    let wasm = env::var("CARGO_CFG_TARGET_FAMILY").is_ok_and(|family| family == "wasm");
    if wasm && folder.is_none() {
        println!("cargo::error=the variable DOCKER_INSIDE_ARCHIVES is not set: build with `cargo xtask build`");
        return ExitCode::FAILURE;
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return ExitCode::FAILURE };
    for name in ["x86_64.tar.gz", "aarch64.tar.gz"] {
        let mut bytes = Vec::new();
        if let Some(folder) = &folder {
            let path = folder.join(name);
            println!("cargo::rerun-if-changed={}", path.display());
            // An architecture may be left out.
            match fs::read(&path) {
                Ok(archive) => bytes = archive,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    println!("cargo::error=cannot read {}: {error}", path.display());
                    return ExitCode::FAILURE;
                }
            }
        }
        if let Err(error) = fs::write(out.join(name), bytes) {
            println!("cargo::error=cannot write {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

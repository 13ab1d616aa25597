//! `cargo xtask build`: the program and the component, side by side in `target/dist`.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    progress,
    tools::{self, WASM_TARGET},
};

/// What was built.
pub struct Dist {
    /// The command line.
    pub program: PathBuf,
}

/// Builds both, optimised: compiling wasm with an unoptimised compiler takes longer than building it optimised. At the same
/// time, since the last part of the component's build has work for one core only.
///
/// # Errors
///
/// If one of them cannot be built. What the compiler said has been printed by then.
pub fn dist() -> Result<Dist> {
    tools::prepare()?;
    eprintln!("Building the program and the component (from nothing: about 5 minutes on two cores)");
    let program = thread::scope(|scope| {
        let component = scope.spawn(component);
        let program = program();
        component.join().map_err(|_| anyhow!("building the component panicked"))??;
        program
    })?;
    eprintln!("Built {} and modal-provider.wasm beside it", program.display());
    Ok(Dist { program })
}

/// Has the linker write addresses and indices in as few bytes as they take, instead of five each. The component is a tenth
/// smaller by it.
const SHORT_NUMBERS: &str = "-C link-arg=--compress-relocations";

/// Builds the component alone.
///
/// # Errors
///
/// If it cannot be built.
pub fn component() -> Result<PathBuf> {
    tools::prepare()?;
    let name = format!("CARGO_TARGET_{}_RUSTFLAGS", WASM_TARGET.replace('-', "_").to_uppercase());
    let flags = (name, format!("{} {SHORT_NUMBERS}", remap()));
    let arguments = ["--package", "modal-provider", "--lib", "--target", WASM_TARGET, "--profile", "component"];
    progress::cargo("component", "build", &arguments, &[flags])?;
    place(&tools::target().join(WASM_TARGET).join("component/modal_provider.wasm"), "modal-provider.wasm")
}

/// Builds the program alone, optimised.
///
/// # Errors
///
/// If it cannot be built.
pub fn program() -> Result<PathBuf> {
    progress::cargo("program", "build", &["--package", "sandbox-cli", "--bin", "sandbox", "--release"], &[])?;
    place(&tools::target().join("release/sandbox"), "sandbox")
}

/// Panic messages name source files; the folders of the machine that builds do not belong into them.
fn remap() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    [(Some(tools::root()), "."), (home, "cargo")]
        .into_iter()
        .filter_map(|(folder, name)| Some(format!("--remap-path-prefix={}={name}", folder?.display())))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Copies a file that was built into `target/dist` under this name.
fn place(from: &Path, name: &str) -> Result<PathBuf> {
    let dist = tools::target().join("dist");
    fs::create_dir_all(&dist)?;
    let to = dist.join(name);
    replace(from, &to)?;
    Ok(to)
}

/// Replaces `to` by a copy of `from` in one step, so that a running program is not written over.
///
/// # Errors
///
/// If it cannot be written.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("could not copy {}", from.display()))?;
    fs::rename(&partial, to)?;
    Ok(())
}

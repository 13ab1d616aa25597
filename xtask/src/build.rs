//! `cargo xtask build`: the program and the component, side by side in `target/dist`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    shrink::shrink,
    tools::{self, WASM_TARGET, cargo, run},
};

/// What was built.
pub struct Dist {
    /// The command line.
    pub program: PathBuf,
}

/// Builds both, optimised: compiling wasm with an unoptimised compiler takes longer than building it optimised.
pub fn dist() -> Result<Dist> {
    component()?;
    let program = program()?;
    eprintln!("Built {} and modal-provider.wasm beside it", program.display());
    Ok(Dist { program })
}

/// Builds the component alone.
pub fn component() -> Result<PathBuf> {
    tools::prepare()?;
    let dist = tools::target().join("dist");
    fs::create_dir_all(&dist)?;
    eprintln!("Building the component");
    run(cargo()
        .args(["build", "--package", "modal-provider", "--lib", "--target", WASM_TARGET, "--profile", "component"])
        .env(format!("CARGO_TARGET_{}_RUSTFLAGS", WASM_TARGET.replace('-', "_").to_uppercase()), remap()))?;
    let built = tools::target().join(WASM_TARGET).join("component/modal_provider.wasm");
    let small = built.with_file_name("modal_provider.small.wasm");
    if !newer(&small, &built) {
        eprintln!("Shrinking the component");
        shrink(&built, &small)?;
    }
    let component = dist.join("modal-provider.wasm");
    place(&small, &component)?;
    Ok(component)
}

/// Builds the program alone, optimised.
pub fn program() -> Result<PathBuf> {
    let dist = tools::target().join("dist");
    fs::create_dir_all(&dist)?;
    eprintln!("Building the program");
    run(cargo().args(["build", "--package", "sandbox-host", "--bin", "sandbox", "--release"]))?;
    let program = dist.join("sandbox");
    place(&tools::target().join("release/sandbox"), &program)?;
    Ok(program)
}

/// Panic messages name source files; the folders of whoever builds are nobody else's business.
fn remap() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    [(Some(tools::root()), "."), (home, "cargo")]
        .into_iter()
        .filter_map(|(folder, name)| Some(format!("--remap-path-prefix={}={name}", folder?.display())))
        .collect::<Vec<_>>()
        .join(" ")
}

fn newer(file: &Path, than: &Path) -> bool {
    let time = |file: &Path| fs::metadata(file).and_then(|meta| meta.modified());
    time(file).is_ok_and(|file| time(than).is_ok_and(|than| file > than))
}

/// Replaces `to` in one step, so that a running program is not written over.
pub fn place(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("could not copy {}", from.display()))?;
    fs::rename(&partial, to)?;
    Ok(())
}

//! `cargo xtask build`: the program and the component, side by side in `target/dist`.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::tools::{self, WASM_TARGET, cargo, run};

/// What was built.
pub struct Dist {
    /// The command line.
    pub program: PathBuf,
}

/// Builds both, optimised: compiling wasm with an unoptimised compiler takes longer than building it optimised.
pub fn dist() -> Result<Dist> {
    tools::prepare()?;
    let dist = tools::target().join("dist");
    fs::create_dir_all(&dist)?;

    eprintln!("Building the component");
    run(cargo().args([
        "build",
        "--package",
        "modal-provider",
        "--lib",
        "--target",
        WASM_TARGET,
        "--profile",
        "component",
    ]))?;
    let built = tools::target().join(WASM_TARGET).join("component/modal_provider.wasm");
    place(&built, &dist.join("modal-provider.wasm"))?;

    eprintln!("Building the program");
    run(cargo().args(["build", "--package", "sandbox-host", "--bin", "sandbox", "--release"]))?;
    let program = dist.join("sandbox");
    place(&tools::target().join("release/sandbox"), &program)?;
    eprintln!("Built {} and modal-provider.wasm beside it", program.display());
    Ok(Dist { program })
}

/// Replaces `to` in one step, so that a running program is not written over.
fn place(from: &PathBuf, to: &PathBuf) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("could not copy {}", from.display()))?;
    fs::rename(&partial, to)?;
    Ok(())
}

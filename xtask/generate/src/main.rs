//! `cargo xtask generate`: generates Rust sources from `proto/proto/*.proto`. With `--check` it only reports which of
//! them are out of date.
//!
//! The generated files are in the repository, because the generator needs about 60 crates, which would otherwise be
//! built before everything else, once per profile. `cargo xtask test generated` compares them.

mod proto;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// A generated file, relative to the root of the workspace, and its content.
struct Generated {
    path: PathBuf,
    content: Vec<u8>,
}

fn main() -> Result<()> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("unknown argument `{other}`: the only one is --check"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let mut outdated = Vec::new();
    for Generated { path, content } in proto::generate(&root)? {
        let file = root.join(&path);
        if fs::read(&file).is_ok_and(|have| have == content) {
            continue;
        }
        if !check {
            fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
            fs::write(&file, content).with_context(|| format!("could not write {}", path.display()))?;
            println!("wrote {}", path.display());
        }
        outdated.push(path.display().to_string());
    }
    if check && !outdated.is_empty() {
        bail!("out of date: {}. Run `cargo xtask generate`.", outdated.join(", "));
    }
    Ok(())
}

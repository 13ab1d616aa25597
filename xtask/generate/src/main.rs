//! `cargo xtask generate`: writes the Rust sources that are made from `proto/proto/*.proto`, or with `--check` says which of
//! them are out of date.
//!
//! They are kept in the repository because their compiler, some 60 crates, would otherwise be built before anything else, once
//! for each profile. `cargo xtask test generated` compares them.

mod proto;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// A file below the workspace's root, and what has to be in it.
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
        bail!("out of date: {}. `cargo xtask generate` writes them.", outdated.join(", "));
    }
    Ok(())
}

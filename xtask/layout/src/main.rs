//! `cargo xtask layout`: reads the Rust sources of the workspace and prints the places that do not follow
//! `docs/architecture.md`.
//!
//! | module | what it does |
//! |---|---|
//!  [`workspace`] | lists the crates and targets that cargo knows |
//!  [`source`] | parses the files of a target: modules, paths, unsafe code, long functions |
//!  [`resolve`] | finds the file that a path names, through re-exports |
//!  [`graph`] | finds circles of files and of folders |
//!  [`rules`] | reads the allowed directions from the document and compares them |
//!
//! A file imports another file if it names one of its items by a path. A re-export of a module's own children (`pub use
//! child::X`) is not an import, because paths through it are resolved to the child.

mod graph;
mod resolve;
mod rules;
mod source;
mod workspace;

#[cfg(test)]
mod tests;

use std::{path::Path, process::ExitCode};

use anyhow::{Context as _, Result};

/// Checks the workspace at `root` and returns one line for each violation. Fails if a file cannot be read or parsed.
fn check(root: &Path) -> Result<Vec<String>> {
    let document = root.join("docs/architecture.md");
    let text = std::fs::read_to_string(&document).with_context(|| format!("could not read {}", document.display()))?;
    let rules = rules::Rules::parse(&text)?;
    let mut found = Vec::new();
    for package in workspace::packages(root)? {
        rules.check_package(&package, &mut found);
        for target in &package.targets {
            let target = source::Target::read(root, target)?;
            rules.check_target(&target, &mut found);
        }
    }
    rules.check_texts(root, &mut found)?;
    Ok(found)
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match root.canonicalize().map_err(anyhow::Error::from).and_then(|root| check(&root)) {
        Ok(found) if found.is_empty() => {
            println!("The sources follow docs/architecture.md.");
            ExitCode::SUCCESS
        }
        Ok(found) => {
            for line in &found {
                println!("{line}");
            }
            eprintln!("error: {} places do not follow docs/architecture.md", found.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

//! Copies the source of the memory provider without its exports, because this crate exports a provider that wraps it.

use std::{env, fs, path::Path};

fn main() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../guest/memory/src/lib.rs");
    println!("cargo::rerun-if-changed={}", source.display());
    let text = fs::read_to_string(source).expect("cannot read the memory provider");
    let kept = |line: &&str| !line.starts_with("//!") && !line.starts_with("sandbox_provider_kit::export!");
    let copy: String = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
    let folder = env::var_os("OUT_DIR").expect("cargo sets the folder");
    fs::write(Path::new(&folder).join("memory.rs"), copy).expect("cannot write the copy");
}

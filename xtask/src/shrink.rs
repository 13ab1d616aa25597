//! Makes a component smaller: its largest core module goes through binaryen's `wasm-opt -Oz`, which takes a sixth of it away,
//! and the names that only a debugger reads are dropped.
//!
//! `wasm-opt` knows core modules, not components. A component is a row of sections, each with an id and a length, and its
//! core modules are sections like others: one is taken out, optimised, and put back in its place.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::tools;

/// Section ids and the preamble of a component (component model, binary format).
const PREAMBLE: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];
const CUSTOM: u8 = 0;
const CORE_MODULE: u8 = 1;

/// What the compiler may have used: the features that the target has by default.
const FEATURES: [&str; 6] = [
    "--enable-bulk-memory",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-sign-ext",
];

struct Section<'a> {
    id: u8,
    content: &'a [u8],
}

/// Shrinks the component at `from` into `to`; files in between are put beside `to`.
pub fn shrink(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("could not read {}", from.display()))?;
    let sections = sections(&bytes).context("the built component cannot be read")?;
    let largest =
        sections.iter().filter(|section| section.id == CORE_MODULE).map(|section| section.content.len()).max();
    let mut small = PREAMBLE.to_vec();
    for Section { id, content } in &sections {
        if *id == CORE_MODULE && Some(content.len()) == largest {
            let (before, after) = (to.with_extension("core.wasm"), to.with_extension("core.opt.wasm"));
            fs::write(&before, content)?;
            let npm = tools::npm()?;
            tools::run(
                Command::new(npm.join("node"))
                    .arg(npm.join("node_modules/binaryen/bin/wasm-opt"))
                    .args(FEATURES)
                    .arg("-Oz")
                    .args([&before, Path::new("-o"), &after].map(|path: &Path| path.as_os_str())),
            )?;
            append(&mut small, *id, &fs::read(&after)?);
        } else if *id != CUSTOM || name(content) != Some(b"component-name") {
            append(&mut small, *id, content);
        }
    }
    fs::write(to, small).with_context(|| format!("could not write {}", to.display()))
}

fn sections(bytes: &[u8]) -> Result<Vec<Section<'_>>> {
    let mut rest = bytes.strip_prefix(&PREAMBLE).context("not a component")?;
    let mut sections = Vec::new();
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        ensure!(length <= after.len(), "section {id} is cut off");
        let (content, after) = after.split_at(length);
        sections.push(Section { id, content });
        rest = after;
    }
    Ok(sections)
}

/// A custom section's name.
fn name(content: &[u8]) -> Option<&[u8]> {
    let (length, rest) = number(content).ok()?;
    rest.get(..length)
}

/// An unsigned LEB128 number of at most 32 bits, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let mut value = 0_usize;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[index + 1..]));
        }
    }
    anyhow::bail!("a number is cut off")
}

fn append(to: &mut Vec<u8>, id: u8, content: &[u8]) {
    to.push(id);
    let mut length = content.len();
    while length > 0x7f {
        to.push(length as u8 | 0x80);
        length >>= 7;
    }
    to.push(length as u8);
    to.extend_from_slice(content);
}

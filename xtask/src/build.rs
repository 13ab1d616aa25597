//! `cargo xtask build`: builds the program and the components into `target/dist`.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    progress,
    tools::{self, WASM_TARGET},
};

/// The result of [`dist`].
pub struct Dist {
    /// The path of the command-line program `sandbox`.
    pub program: PathBuf,
}

/// Builds the program and the components at the same time, because the last part of a component's build uses only one
/// core. Both are optimised: an unoptimised compiler takes longer to compile wasm than an optimised one takes to build.
///
/// # Errors
///
/// Fails if one of them cannot be built. The compiler's messages have been printed by then.
pub fn dist() -> Result<Dist> {
    build(&PROVIDERS, false)
}

/// Like [`dist`], with the provider for Docker for all architectures.
///
/// # Errors
///
/// As for [`dist`].
pub fn for_all_architectures() -> Result<Dist> {
    build(&PROVIDERS, true)
}

/// Like [`dist`], with the provider for Modal only.
///
/// # Errors
///
/// As for [`dist`].
pub fn for_modal() -> Result<Dist> {
    build(&PROVIDERS[..1], false)
}

fn build(providers: &[&str], all_architectures: bool) -> Result<Dist> {
    tools::prepare()?;
    eprintln!("Building the program and the components (the first build takes about 5 minutes on two cores)");
    let program = thread::scope(|scope| {
        let components = scope.spawn(|| components(providers, all_architectures));
        let program = program();
        components.join().map_err(|_| anyhow!("the build of the components panicked"))??;
        program
    })?;
    let files: Vec<_> = providers.iter().map(|provider| file_name(provider)).collect();
    eprintln!("Built {} and next to it {}", program.display(), files.join(" and "));
    Ok(Dist { program })
}

/// Linker flag that writes addresses and indices with as few bytes as needed instead of five each. It makes the
/// component about 10 % smaller.
const COMPRESS_RELOCATIONS_FLAG: &str = "-C link-arg=--compress-relocations";

/// The providers, by the names of their packages without `-provider`. The program finds a component that lies beside it
/// by this name: `--plugin memory`.
pub const PROVIDERS: [&str; 3] = ["modal", "memory", DOCKER];

/// The provider for Docker. Its component contains a program of its own.
const DOCKER: &str = "docker";

/// Returns the file name of a provider's component.
pub fn file_name(provider: &str) -> String {
    format!("{provider}-provider.wasm")
}

/// Builds only the components, with one run of cargo, and returns the path of the Modal provider in `target/dist`.
///
/// # Errors
///
/// Fails if one of them cannot be built.
pub fn components(providers: &[&str], all_architectures: bool) -> Result<PathBuf> {
    tools::prepare()?;
    let packages: Vec<_> = providers.iter().map(|provider| format!("{provider}-provider")).collect();
    let mut variables = vec![component_flags()];
    if providers.contains(&DOCKER) {
        let archives = inside(all_architectures)?;
        variables.push(("DOCKER_INSIDE_ARCHIVES".to_owned(), archives.display().to_string()));
    }
    let mut arguments = vec!["--lib", "--target", WASM_TARGET, "--profile", "component"];
    for package in &packages {
        arguments.extend(["--package", package]);
    }
    progress::cargo("components", "build", &arguments, &variables)?;
    let built = tools::target().join(WASM_TARGET).join("component");
    for provider in providers {
        let component = built.join(format!("{provider}_provider.wasm"));
        let small = component.with_extension("small");
        fs::write(&small, without_names(&fs::read(&component)?)?)?;
        place(&small, &file_name(provider))?;
    }
    Ok(tools::target().join("dist").join(file_name(PROVIDERS[0])))
}

/// The architectures of the machines on whose engines the provider for Docker works.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Builds the program that the provider for Docker puts into containers, and returns the folder with an archive for each
/// architecture. The component contains these archives, and the engine unpacks them. Without `all`, there is one for the
/// architecture of this machine only.
pub fn inside(all: bool) -> Result<PathBuf> {
    let own = std::env::consts::ARCH;
    let wanted: Vec<_> = ARCHITECTURES.into_iter().filter(|arch| all || *arch == own).collect();
    ensure!(!wanted.is_empty(), "the provider for Docker cannot be built for {own}: give `--all-architectures`");
    let mut arguments = vec!["--package", "docker-inside", "--bin", "inside", "--profile", "inside"];
    let targets: Vec<_> = wanted.iter().map(|arch| format!("{arch}-unknown-linux-musl")).collect();
    for target in &targets {
        tools::add_target(target)?;
        arguments.extend(["--target", target]);
    }
    progress::cargo("helper", "build", &arguments, &[])?;
    let folder = tools::target().join("helper");
    fs::create_dir_all(&folder)?;
    for arch in ARCHITECTURES {
        let name = folder.join(format!("{arch}.tar.gz"));
        let Some(target) = targets.iter().find(|target| target.starts_with(arch)) else {
            let _ = fs::remove_file(name);
            continue;
        };
        let built = tools::target().join(target).join("inside");
        let small = folder.join(arch);
        fs::create_dir_all(&small)?;
        let mut program = fs::read(built.join("inside"))?;
        clear_sections(&mut program, &UNWINDING).context("the helper is no program for Linux")?;
        fs::write(small.join("inside"), program)?;
        let bytes = archive(&small, "inside")?;
        // An archive that did not change keeps its time, so that the component is not built again.
        if fs::read(&name).is_ok_and(|there| there == bytes) {
            continue;
        }
        fs::write(&name, bytes)?;
    }
    Ok(folder)
}

/// The sections of a program that describe its stack frames. The standard library brings them, but a helper that aborts when it
/// panics does not use them. Zeros make the archive a tenth smaller. Removed sections would move the others.
const UNWINDING: [&str; 3] = [".eh_frame", ".eh_frame_hdr", ".gcc_except_table"];

/// Fills sections of a program (ELF, 64 bits, little endian) with zeros. Returns `None` if it is none.
fn clear_sections(program: &mut [u8], names: &[&str]) -> Option<()> {
    fn number<const N: usize>(program: &[u8], at: usize) -> Option<usize> {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(program.get(at..at.checked_add(N)?)?);
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }
    if !program.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // The header of the file, and those of the sections: name, place and size.
    let (headers, size) = (number::<8>(program, 0x28)?, number::<2>(program, 0x3a)?);
    let (count, of_names) = (number::<2>(program, 0x3c)?, number::<2>(program, 0x3e)?);
    let texts = number::<8>(program, headers + of_names * size + 0x18)?;
    for section in (0..count).map(|index| headers + index * size) {
        let name = program.get(texts + number::<4>(program, section)?..)?;
        if names.iter().any(|wanted| name.starts_with(wanted.as_bytes()) && name.get(wanted.len()) == Some(&0)) {
            let (from, length) = (number::<8>(program, section + 0x18)?, number::<8>(program, section + 0x20)?);
            program.get_mut(from..from.checked_add(length)?)?.fill(0);
        }
    }
    Some(())
}

/// Returns a compressed tar archive with one program of a folder, always with the same bytes for the same program.
fn archive(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let mut tar = Command::new("tar");
    tar.args([
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--mode=755",
        "--use-compress-program=gzip -9n",
    ]);
    tar.args(["-cf", "-", "-C"]).arg(folder).arg(name);
    let output = tar.output().context("could not start tar")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}

/// Builds the components that only tests load, into `target/guests`.
///
/// # Errors
///
/// Fails if one of them cannot be built.
pub fn test_components() -> Result<()> {
    let arguments = ["--lib", "--target", WASM_TARGET, "--profile", "component", "--package", "faulty-provider"];
    progress::cargo("components for tests", "build", &arguments, &[component_flags()])?;
    let folder = tools::target().join("guests");
    fs::create_dir_all(&folder)?;
    let built = tools::target().join(WASM_TARGET).join("component/faulty_provider.wasm");
    replace(&built, &folder.join("faulty-provider.wasm"))
}

/// Returns the variable with the compiler flags for components.
fn component_flags() -> (String, String) {
    let name = format!("CARGO_TARGET_{}_RUSTFLAGS", WASM_TARGET.replace('-', "_").to_uppercase());
    (name, format!("{} {COMPRESS_RELOCATIONS_FLAG}", remap()))
}

/// The second name of the program. Another vendor has a program `sandbox` too.
pub const SECOND_NAME: &str = "sandbox-host";

/// Builds only the program, optimised, and returns its path in `target/dist`.
///
/// # Errors
///
/// Fails if it cannot be built.
pub fn program() -> Result<PathBuf> {
    progress::cargo("program", "build", &["--package", "sandbox-cli", "--bin", "sandbox", "--release"], &[])?;
    let program = place(&tools::target().join("release/sandbox"), "sandbox")?;
    // Its second name, which is that of the documents.
    let second = program.with_file_name(SECOND_NAME);
    let _ = fs::remove_file(&second);
    symlink("sandbox", second)?;
    Ok(program)
}

/// Returns compiler flags that remove the folders of the build machine from panic messages, which name source files.
fn remap() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".cargo")));
    [(Some(tools::root()), "."), (home, "cargo")]
        .into_iter()
        .filter_map(|(folder, name)| Some(format!("--remap-path-prefix={}={name}", folder?.display())))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The name of the custom section with the names of a component's parts, which only debuggers use.
const NAMES: &[u8] = b"component-name";

/// Returns a component without its section [`NAMES`], which the linker always adds. A component is a header of 8 bytes and
/// a list of sections: a byte for the kind, which is 0 for custom sections, the size as LEB128, and the content. The content
/// of a custom section begins with the size of its name, which is one byte here, and the name.
fn without_names(component: &[u8]) -> Result<Vec<u8>> {
    let (header, mut rest) = component.split_at_checked(8).context("the component is shorter than its header")?;
    let mut kept = header.to_vec();
    while !rest.is_empty() {
        let (mut size, mut end) = (0_usize, 1);
        loop {
            let byte = *rest.get(end).context("the component ends within a section")?;
            size |= usize::from(byte & 0x7f) << (7 * (end - 1));
            end += 1;
            if byte < 0x80 {
                break;
            }
        }
        let (section, after) = rest.split_at_checked(end + size).context("the component ends within a section")?;
        if section[0] != 0 || section.get(end + 1..).is_none_or(|content| !content.starts_with(NAMES)) {
            kept.extend_from_slice(section);
        }
        rest = after;
    }
    Ok(kept)
}

/// Copies a built file into `target/dist` under this name and returns the new path.
fn place(from: &Path, name: &str) -> Result<PathBuf> {
    let dist = tools::target().join("dist");
    fs::create_dir_all(&dist)?;
    let to = dist.join(name);
    replace(from, &to)?;
    Ok(to)
}

/// Replaces `to` by a copy of `from` atomically, because `to` may be a running program.
///
/// # Errors
///
/// Fails if a file cannot be written.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("could not copy {}", from.display()))?;
    fs::rename(&partial, to)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_filled_with_zeros() {
        const NAMES: &[u8] = b"\0.eh_frame\0.eh_frame_hdr\0.text\0";
        let mut program = b"\x7fELF\x02\x01".to_vec();
        program.resize(64, 0);
        program.extend([7; 12]);
        let names = program.len() as u64;
        program.extend(NAMES);
        let headers = program.len() as u64;
        // Names, places and sizes of the sections; the last one holds the names.
        for (name, from, length) in [(1_u32, 64_u64, 4_u64), (25, 68, 4), (11, 72, 3), (0, names, NAMES.len() as u64)] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&from.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&length.to_le_bytes());
            program.extend(header);
        }
        program[0x28..0x30].copy_from_slice(&headers.to_le_bytes());
        program[0x3a..0x40].copy_from_slice(&[64, 0, 4, 0, 3, 0]);
        let before = program.clone();
        clear_sections(&mut program, &UNWINDING).expect("a program");
        assert_eq!(program[64..76], [0, 0, 0, 0, 7, 7, 7, 7, 0, 0, 0, 7]);
        assert_eq!(program[76..], before[76..]);
        assert!(clear_sections(&mut program[..200], &UNWINDING).is_none(), "it is cut off");
        assert!(clear_sections(&mut b"#!/bin/sh".to_vec(), &UNWINDING).is_none());
    }
}

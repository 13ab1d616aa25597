//! Loads components: reads and compiles them, and finds their interface version and manifest. [`crate::runtime`] links
//! them.

use std::io::Read as _;
use std::path::Path;

use wasmparser::Payload;
use wasmtime::component::Component;

use crate::digest::digest;
use crate::error::{Error, Kind, PluginFault, Result};
use crate::interface::{INTERFACE, INTERFACE_VERSIONS, PACKAGE};
use crate::plugin::cache;
use crate::plugin::compile;
use crate::plugin::engine;
use crate::plugin::manifest::Manifest;
use crate::plugin::sys::Code;

/// Largest component, in bytes. Real ones have less than 1 MiB, those with an interpreter some tens of MiB.
pub(crate) const MAX_SIZE: u64 = 256 << 20;

/// A compiled component with its manifest, version, imports and exports.
pub(crate) struct Loaded {
    pub(crate) component: Component,
    pub(crate) manifest: Manifest,
    /// The interface version of the plugin, one of [`INTERFACE_VERSIONS`].
    pub(crate) version: &'static str,
    /// The path of the component, or another name of its source, for messages.
    pub(crate) label: String,
    /// SHA-256 digest of the component.
    pub(crate) digest: String,
    /// Size of the component in bytes.
    pub(crate) size: u64,
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
    /// Number of memories of an instance, at least 1.
    pub(crate) memories: u32,
    /// Whether the compiled code came from the cache.
    pub(crate) cached: bool,
}

impl Loaded {
    /// Reads a component from a file and compiles it.
    pub(crate) fn from_file(path: &Path) -> Result<Loaded> {
        let label = path.display().to_string();
        let bytes = read(path).map_err(|error| {
            Error::new(Kind::Plugin(PluginFault::Missing), load_what(&label), error.to_string()).with_source(error)
        })?;
        Loaded::from_bytes(&bytes, label)
    }

    /// Creates an error about loading this component.
    pub(crate) fn fault(&self, fault: PluginFault, why: String) -> Error {
        Error::new(Kind::Plugin(fault), load_what(&self.label), why)
    }
}

fn load_what(label: &str) -> String {
    format!("load the plugin {label}")
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(std::io::Error::other("it is a directory"));
    }
    // The file may be a pipe, whose metadata does not contain a size.
    let mut bytes = Vec::with_capacity(meta.len().min(MAX_SIZE) as usize);
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(std::io::Error::other(format!("it has more than {MAX_SIZE} bytes, which is the limit")));
    }
    Ok(bytes)
}

impl Loaded {
    /// Compiles a component, or loads its compiled code from the cache.
    pub(crate) fn from_bytes(bytes: &[u8], label: String) -> Result<Loaded> {
        let fault = |fault, why: String| Error::new(Kind::Plugin(fault), load_what(&label), why);
        check_header(bytes).map_err(|(kind, why, hint)| fault(kind, why).with_hint(hint))?;
        let shared = engine::shared()?;
        let digest = digest(bytes);
        let entry = cache::directory(|name| std::env::var_os(name))
            .and_then(|directory| cache::Entry::new(&directory, &shared.engine, &digest));
        let loaded = entry.as_ref().and_then(|entry| entry.load(&shared.engine));
        let cached = loaded.is_some();
        let component = match loaded {
            Some(component) => component,
            None => {
                let invalid = |why| fault(PluginFault::Invalid, why);
                compile::check(bytes).map_err(invalid)?;
                let code = Code::compile(shared, bytes).map_err(invalid)?;
                if let Some(entry) = &entry {
                    entry.store(&code);
                }
                code.load(&shared.engine).map_err(|error| invalid(format!("{error:#}")))?
            }
        };
        let kind = component.component_type();
        let imports: Vec<String> = kind.imports(&shared.engine).map(|(name, _)| name.to_owned()).collect();
        let exports: Vec<String> = kind.exports(&shared.engine).map(|(name, _)| name.to_owned()).collect();
        let version = spoken(&exports).map_err(|(kind, why, hint)| fault(kind, why).with_hint(hint))?;
        let manifest = Manifest::find(bytes)?.unwrap_or_default();
        let size = bytes.len() as u64;
        let memories = component.resources_required().map_or(1, |needs| needs.num_memories.max(1));
        Ok(Loaded { component, manifest, version, label, digest, size, imports, exports, memories, cached })
    }
}

/// Checks that the bytes begin like a component. Fails with the fault, the cause and a hint.
pub(crate) fn check_header(bytes: &[u8]) -> Result<(), (PluginFault, String, &'static str)> {
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 0x01, 0x00, 0x00, 0x00]) => Err((
            PluginFault::CoreModule,
            "it is a core WebAssembly module, not a component".to_owned(),
            "build it for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        )),
        Some([0, b'a', b's', b'm', _, _, 0x01, 0x00]) => Ok(()),
        _ => Err((
            PluginFault::NotWasm,
            "it is not a WebAssembly file".to_owned(),
            "give the .wasm file of a provider component",
        )),
    }
}

/// Returns the names of the imports and exports of a component, without those of the parts inside it. Ends early in a
/// malformed component.
pub(crate) fn surface(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in wasmparser::Parser::new(0).parse_all(bytes).map_while(Result::ok) {
        match payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                imports.extend(section.into_iter().flatten().map(|import| import.name.name.to_owned()));
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                exports.extend(section.into_iter().flatten().map(|export| export.name.name.to_owned()));
            }
            _ => {}
        }
    }
    (imports, exports)
}

/// Returns the newest interface version that both the exports and this host have. Fails with the fault, the cause and a
/// hint.
pub(crate) fn spoken(exports: &[String]) -> Result<&'static str, (PluginFault, String, &'static str)> {
    let versions: Vec<_> = exports
        .iter()
        .filter_map(|name| name.strip_prefix(INTERFACE))
        .filter_map(|rest| if rest.is_empty() { Some("(none)") } else { rest.strip_prefix('@') })
        .collect();
    if let Some(known) = INTERFACE_VERSIONS.into_iter().find(|known| versions.contains(known)) {
        return Ok(known);
    }
    let ours = INTERFACE_VERSIONS.join(", ").replacen(", 0.1.0", " and 0.1.0", 1);
    if !versions.is_empty() {
        return Err((
            PluginFault::OtherVersion,
            format!("it implements {PACKAGE} {}, but this host supports {ours}", versions.join(", ")),
            "use a plugin and a host with a common version",
        ));
    }
    let list = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    Err((
        PluginFault::NoInterface,
        format!("it does not export {INTERFACE} in version {ours}; its exports: {list}"),
        "give the .wasm file of a provider component",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::engine::{CORE_INSTANCES_PER_COMPONENT, TABLES_PER_COMPONENT, tests::component};

    #[test]
    fn a_component_that_is_larger_is_refused_when_it_is_loaded() {
        for (parts, tables, found, most) in [
            (CORE_INSTANCES_PER_COMPONENT + 1, 0, "129 core module instances", "maximum of 128"),
            (TABLES_PER_COMPONENT + 1, TABLES_PER_COMPONENT + 1, "21 tables", "20"),
        ] {
            let loaded = Loaded::from_bytes(&component(parts, tables), "(a test's)".into());
            let error = loaded.err().unwrap();
            assert_eq!(error.kind(), &Kind::Plugin(PluginFault::Invalid));
            let text = error.to_string();
            assert!(text.contains(found) && text.contains(most), "{text}");
        }
    }

    #[test]
    fn versions_and_exports_are_named() {
        let check = |names: &[&str]| spoken(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(check(&["harness:sandbox/sandbox-provider@0.1.0"]).unwrap(), "0.1.0");
        let both = ["harness:sandbox/sandbox-provider@0.1.0", "harness:sandbox/sandbox-provider@0.2.0"];
        assert_eq!(check(&both).unwrap(), "0.2.0");
        for other in ["0.9.3", "0.1.10", "1.0.0"] {
            let (fault, why, _) = check(&[&format!("harness:sandbox/sandbox-provider@{other}")]).unwrap_err();
            assert_eq!(fault, PluginFault::OtherVersion);
            assert!(why.contains(other) && why.contains("0.2.0, 0.1.1 and 0.1.0"), "{why}");
        }
        assert_eq!(check(&["harness:sandbox/sandbox-provider"]).unwrap_err().0, PluginFault::OtherVersion);
        let unlike = check(&["harness:sandbox/sandbox-provider-x@0.1.0"]).unwrap_err();
        assert_eq!(unlike.0, PluginFault::NoInterface);
        let (fault, why, _) = check(&["wasi:cli/run@0.2.3"]).unwrap_err();
        assert_eq!(fault, PluginFault::NoInterface);
        assert!(why.contains("wasi:cli/run@0.2.3"));
    }
}

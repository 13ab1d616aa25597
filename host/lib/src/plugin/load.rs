//! Loading a component and telling what it is.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::error::{Error, Kind, PluginFault, Result};
use crate::interface::{INTERFACE, INTERFACE_VERSIONS, PACKAGE, Pre};
use crate::plugin::cache;
use crate::plugin::compile;
use crate::plugin::engine;
use crate::plugin::manifest::Manifest;

/// The largest component that is loaded. Real ones are below 1 MiB; one with an interpreter inside has some tens.
const MAX_SIZE: u64 = 256 << 20;

/// A loaded provider component: compiled code and manifest. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) inner: Arc<PluginInner>,
}

pub(crate) struct PluginInner {
    pub(crate) pre: Pre,
    pub(crate) manifest: Manifest,
    version: &'static str,
    label: String,
    digest: String,
    size: u64,
    imports: Vec<String>,
    exports: Vec<String>,
    cached: bool,
}

impl Plugin {
    /// Loads a component from a file. Compiled code is kept in `$XDG_CACHE_HOME/sandbox-host` (or
    /// `~/.cache/sandbox-host`), so that only the first load of a component takes time.
    ///
    /// # Errors
    ///
    /// [`Kind::Plugin`] with the [`PluginFault`] that says what is wrong with it.
    pub async fn load(path: impl AsRef<Path>) -> Result<Plugin> {
        let path = path.as_ref().to_owned();
        blocking(move || {
            let label = path.display().to_string();
            let bytes = read(&path).map_err(|error| {
                Error::new(Kind::Plugin(PluginFault::Missing), load_what(&label), error.to_string())
            })?;
            load(&bytes, label)
        })
        .await
    }

    /// Loads a component from memory.
    ///
    /// # Errors
    ///
    /// As [`Plugin::load`].
    pub async fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Plugin> {
        let bytes = bytes.into();
        blocking(move || load(&bytes, "(from memory)".into())).await
    }

    /// What it wishes for; empty when it has no manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.manifest
    }

    /// SHA-256 of the component, 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// Size of the component in bytes.
    pub fn size(&self) -> u64 {
        self.inner.size
    }

    /// The version of the interface that it speaks, one of [`INTERFACE_VERSIONS`](crate::INTERFACE_VERSIONS).
    pub fn interface_version(&self) -> &'static str {
        self.inner.version
    }

    /// Where it came from, for messages.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.inner.imports
    }

    /// The interfaces that it exports.
    pub fn exports(&self) -> &[String] {
        &self.inner.exports
    }

    /// Whether its code came from the cache of compiled code.
    pub fn from_cache(&self) -> bool {
        self.inner.cached
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("label", &self.inner.label).field("digest", &self.inner.digest).finish()
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
    // A pipe does not say how much comes.
    let mut bytes = Vec::with_capacity(meta.len().min(MAX_SIZE) as usize);
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(std::io::Error::other(format!("it has more than {MAX_SIZE} bytes, more than any plugin")));
    }
    Ok(bytes)
}

fn load(bytes: &[u8], label: String) -> Result<Plugin> {
    let fault = |fault, why: String| Error::new(Kind::Plugin(fault), load_what(&label), why);
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 0x01, 0x00, 0x00, 0x00]) => {
            return Err(fault(PluginFault::CoreModule, "it is a core WebAssembly module, not a component".into())
                .with_hint("build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"));
        }
        Some([0, b'a', b's', b'm', _, _, 0x01, 0x00]) => {}
        _ => {
            return Err(fault(PluginFault::NotWasm, "it is not a WebAssembly file".into())
                .with_hint("give the .wasm file of a provider component"));
        }
    }
    let runtime = engine::runtime()?;
    let digest = digest(bytes);
    let entry = cache::directory(|name| std::env::var_os(name))
        .and_then(|directory| cache::Entry::new(&directory, &runtime.engine, &digest));
    let loaded = entry.as_ref().and_then(|entry| entry.load(&runtime.engine));
    let cached = loaded.is_some();
    let component = match loaded {
        Some(component) => component,
        None => {
            let invalid = |why| fault(PluginFault::Invalid, why);
            compile::check(bytes).map_err(invalid)?;
            let code = compile::compile(runtime, bytes).map_err(invalid)?;
            if let Some(entry) = &entry {
                entry.store(&code);
            }
            // SAFETY: these bytes were made above by an engine of the same settings, here or in another process of this
            // program.
            unsafe { Component::deserialize(&runtime.engine, &code) }.map_err(|error| invalid(format!("{error:#}")))?
        }
    };
    let kind = component.component_type();
    let imports: Vec<String> = kind.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = kind.exports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    let version = spoken(&exports).map_err(|(kind, why, hint)| fault(kind, why).with_hint(hint))?;
    let strangers: Vec<_> = imports.iter().filter(|name| !crate::runtime::instance::is_linked(name)).cloned().collect();
    if !strangers.is_empty() {
        return Err(fault(
            PluginFault::Imports,
            format!("it imports {}, which plugins are not given", strangers.join(", ")),
        )
        .with_hint("a provider reaches the outside by wasi:http alone: no files, no sockets"));
    }
    let pre = runtime
        .linker
        .instantiate_pre(&component)
        .and_then(|component| Pre::new(version, component))
        .map_err(|error| fault(PluginFault::NoInterface, format!("{error:#}")))?;
    let manifest = Manifest::find(bytes)?.unwrap_or_default();
    let size = bytes.len() as u64;
    Ok(Plugin {
        inner: Arc::new(PluginInner { pre, manifest, version, label, digest, size, imports, exports, cached }),
    })
}

/// The newest version of the interface that the exports hold and this host speaks; if there is none, the fault, why, and
/// what to do.
fn spoken(exports: &[String]) -> Result<&'static str, (PluginFault, String, &'static str)> {
    let versions: Vec<_> = exports
        .iter()
        .filter_map(|name| name.strip_prefix(INTERFACE))
        .filter_map(|rest| if rest.is_empty() { Some("(none)") } else { rest.strip_prefix('@') })
        .collect();
    if let Some(known) = INTERFACE_VERSIONS.into_iter().find(|known| versions.contains(known)) {
        return Ok(known);
    }
    let ours = INTERFACE_VERSIONS.join(" and ");
    if !versions.is_empty() {
        return Err((
            PluginFault::OtherVersion,
            format!("it speaks {PACKAGE} {}, and this host speaks {ours}", versions.join(", ")),
            "use a plugin and a host whose versions meet",
        ));
    }
    let list = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    Err((
        PluginFault::NoInterface,
        format!("it does not export {INTERFACE} in version {ours}; its exports: {list}"),
        "give the .wasm file of a provider component",
    ))
}

/// SHA-256 of a component's bytes, as [`Plugin::digest`] gives it.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs something that takes its time without holding up the executor.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(Kind::Internal, "finish the work of a thread", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_exports_are_named() {
        let check = |names: &[&str]| spoken(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert_eq!(check(&["harness:sandbox/sandbox-provider@0.1.0"]).unwrap(), "0.1.0");
        let both = ["harness:sandbox/sandbox-provider@0.1.0", "harness:sandbox/sandbox-provider@0.1.1"];
        assert_eq!(check(&both).unwrap(), "0.1.1");
        for other in ["0.9.3", "0.1.10", "1.0.0"] {
            let (fault, why, _) = check(&[&format!("harness:sandbox/sandbox-provider@{other}")]).unwrap_err();
            assert_eq!(fault, PluginFault::OtherVersion);
            assert!(why.contains(other) && why.contains("0.1.1 and 0.1.0"), "{why}");
        }
        assert_eq!(check(&["harness:sandbox/sandbox-provider"]).unwrap_err().0, PluginFault::OtherVersion);
        let unlike = check(&["harness:sandbox/sandbox-provider-x@0.1.0"]).unwrap_err();
        assert_eq!(unlike.0, PluginFault::NoInterface);
        let (fault, why, _) = check(&["wasi:cli/run@0.2.3"]).unwrap_err();
        assert_eq!(fault, PluginFault::NoInterface);
        assert!(why.contains("wasi:cli/run@0.2.3"));
    }
}

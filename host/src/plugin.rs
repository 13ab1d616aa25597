//! Loading a component and telling what it is.

use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::bindings::PluginPre;
use crate::cache;
use crate::engine;
use crate::error::{Error, Kind, PluginFault, Result};
use crate::instance::State;
use crate::manifest::Manifest;

/// The package and the interface that a provider exports.
const PACKAGE: &str = "harness:sandbox";
const INTERFACE: &str = "harness:sandbox/sandbox-provider";

/// The version of the interface that this host speaks.
pub const INTERFACE_VERSION: &str = "0.1.0";

/// The largest component that is loaded. Real ones are below 1 MiB; one with an interpreter inside has some tens.
const MAX_SIZE: u64 = 256 << 20;

/// A loaded provider component: compiled code and manifest. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    pub(crate) inner: Arc<PluginInner>,
}

pub(crate) struct PluginInner {
    pub(crate) pre: PluginPre<State>,
    pub(crate) manifest: Manifest,
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
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(std::io::Error::other("it is a directory"));
    }
    if meta.len() > MAX_SIZE {
        return Err(std::io::Error::other(format!("it has {} bytes, more than any plugin", meta.len())));
    }
    std::fs::read(path)
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
            let invalid = |error: wasmtime::Error| fault(PluginFault::Invalid, format!("{error:#}"));
            let code = runtime.engine.precompile_component(bytes).map_err(invalid)?;
            if let Some(entry) = &entry {
                entry.store(&code);
            }
            // SAFETY: these bytes were made by this engine a line above.
            unsafe { Component::deserialize(&runtime.engine, &code) }.map_err(invalid)?
        }
    };
    let kind = component.component_type();
    let imports: Vec<String> = kind.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = kind.exports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    check_exports(&exports).map_err(|(kind, why, hint)| fault(kind, why).with_hint(hint))?;
    let strangers: Vec<_> = imports.iter().filter(|name| !crate::instance::is_linked(name)).cloned().collect();
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
        .and_then(PluginPre::new)
        .map_err(|error| fault(PluginFault::NoInterface, format!("{error:#}")))?;
    let manifest = Manifest::find(bytes)?.unwrap_or_default();
    let size = bytes.len() as u64;
    Ok(Plugin { inner: Arc::new(PluginInner { pre, manifest, label, digest, size, imports, exports, cached }) })
}

/// Whether the exports hold the interface in our version; if not, the fault, why, and what to do.
fn check_exports(exports: &[String]) -> Result<(), (PluginFault, String, &'static str)> {
    let ours = format!("{INTERFACE}@{INTERFACE_VERSION}");
    if exports.contains(&ours) {
        return Ok(());
    }
    let version = |name: &str| name.split_once('@').map_or("(none)".to_owned(), |(_, version)| version.to_owned());
    if let Some(other) = exports.iter().find(|name| name.split('@').next() == Some(INTERFACE)) {
        return Err((
            PluginFault::OtherVersion,
            format!("it speaks {PACKAGE} {}, and this host speaks {INTERFACE_VERSION}", version(other)),
            "use a plugin and a host of the same version",
        ));
    }
    let list = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
    Err((
        PluginFault::NoInterface,
        format!("it does not export {ours}; its exports: {list}"),
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
        let check = |names: &[&str]| check_exports(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert!(check(&["harness:sandbox/sandbox-provider@0.1.0"]).is_ok());
        let (fault, why, _) = check(&["harness:sandbox/sandbox-provider@0.9.3"]).unwrap_err();
        assert_eq!(fault, PluginFault::OtherVersion);
        assert!(why.contains("0.9.3") && why.contains(INTERFACE_VERSION));
        let (fault, why, _) = check(&["wasi:cli/run@0.2.3"]).unwrap_err();
        assert_eq!(fault, PluginFault::NoInterface);
        assert!(why.contains("wasi:cli/run@0.2.3"));
    }
}

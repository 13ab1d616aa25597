//! A loaded plugin.

use std::path::Path;
use std::sync::Arc;

use crate::blocking::blocking;
use crate::error::Result;
use crate::plugin::load::Loaded;
use crate::plugin::manifest::Manifest;
use crate::runtime::link::Linked;

/// A loaded provider component: compiled code and manifest. Cheap to clone.
///
/// ```no_run
/// # async fn example() -> sandbox_host::Result<()> {
/// let plugin = sandbox_host::Plugin::load("modal-provider.wasm").await?;
/// println!("{} speaks version {}", plugin.manifest().name, plugin.interface_version());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Linked>,
}

impl Plugin {
    /// Loads a component from a file. Compiled code is kept in `$XDG_CACHE_HOME/sandbox-host` (or
    /// `~/.cache/sandbox-host`), so that only the first load of a component takes time.
    ///
    /// # Errors
    ///
    /// [`Kind::Plugin`](crate::Kind::Plugin) with the [`PluginFault`](crate::PluginFault) that says what is wrong with it.
    pub async fn load(path: impl AsRef<Path>) -> Result<Plugin> {
        let path = path.as_ref().to_owned();
        blocking(move || Plugin::link(Loaded::from_file(&path)?)).await
    }

    /// Loads a component from memory.
    ///
    /// # Errors
    ///
    /// As [`Plugin::load`].
    pub async fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Plugin> {
        let bytes = bytes.into();
        blocking(move || Plugin::link(Loaded::from_bytes(&bytes, "(from memory)".into())?)).await
    }

    fn link(loaded: Loaded) -> Result<Plugin> {
        Ok(Plugin { inner: Arc::new(Linked::new(loaded)?) })
    }

    pub(super) fn linked(&self) -> &Arc<Linked> {
        &self.inner
    }

    /// What it wishes for; empty when it has no manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.loaded.manifest
    }

    /// SHA-256 of the component, 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.inner.loaded.digest
    }

    /// Size of the component in bytes.
    pub fn size(&self) -> u64 {
        self.inner.loaded.size
    }

    /// The version of the interface that it speaks, one of [`INTERFACE_VERSIONS`](crate::INTERFACE_VERSIONS).
    pub fn interface_version(&self) -> &'static str {
        self.inner.loaded.version
    }

    /// Where it came from, for messages.
    pub fn label(&self) -> &str {
        &self.inner.loaded.label
    }

    /// The interfaces that it imports.
    pub fn imports(&self) -> &[String] {
        &self.inner.loaded.imports
    }

    /// The interfaces that it exports.
    pub fn exports(&self) -> &[String] {
        &self.inner.loaded.exports
    }

    /// Whether its code came from the cache of compiled code.
    pub fn from_cache(&self) -> bool {
        self.inner.loaded.cached
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("label", &self.label()).field("digest", &self.digest()).finish()
    }
}

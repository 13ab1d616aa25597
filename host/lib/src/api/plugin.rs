//! The handle of a loaded plugin. The `plugin` layer loads and compiles it.

use std::path::Path;
use std::sync::Arc;

use crate::blocking::blocking;
use crate::error::Result;
use crate::plugin::load::Loaded;
use crate::plugin::manifest::Manifest;
use crate::runtime::link::Linked;

/// A loaded plugin: the compiled code of a component and its manifest. Cheap to clone.
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
    /// Loads a component from a file. Compiled code is cached in `$XDG_CACHE_HOME/sandbox-host` (or
    /// `~/.cache/sandbox-host`), so that only the first load of a component takes long.
    ///
    /// # Errors
    ///
    /// [`Kind::Plugin`](crate::Kind::Plugin) with the [`PluginFault`](crate::PluginFault) that names the cause.
    pub async fn load(path: impl AsRef<Path>) -> Result<Plugin> {
        let path = path.as_ref().to_owned();
        blocking(move || Plugin::link(Loaded::from_file(&path)?)).await
    }

    /// Loads a component from memory.
    ///
    /// # Errors
    ///
    /// Those of [`Plugin::load`].
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

    /// Returns the manifest, which names the origins, credentials and variables that the plugin asks for. Empty if the
    /// component has none.
    pub fn manifest(&self) -> &Manifest {
        &self.inner.loaded.manifest
    }

    /// Returns the SHA-256 digest of the component as 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.inner.loaded.digest
    }

    /// Returns the size of the component in bytes.
    pub fn size(&self) -> u64 {
        self.inner.loaded.size
    }

    /// Returns the interface version of the plugin, one of [`INTERFACE_VERSIONS`](crate::INTERFACE_VERSIONS).
    pub fn interface_version(&self) -> &'static str {
        self.inner.loaded.version
    }

    /// Returns the path of the component, or another name of its source, for messages.
    pub fn label(&self) -> &str {
        &self.inner.loaded.label
    }

    /// Returns the names of the interfaces that the component imports.
    pub fn imports(&self) -> &[String] {
        &self.inner.loaded.imports
    }

    /// Returns the names of the interfaces that the component exports.
    pub fn exports(&self) -> &[String] {
        &self.inner.loaded.exports
    }

    /// Returns whether the compiled code came from the cache.
    pub fn from_cache(&self) -> bool {
        self.inner.loaded.cached
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("label", &self.label()).field("digest", &self.digest()).finish()
    }
}

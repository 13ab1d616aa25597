//! What one instance can tell another so that it need not ask: the short-lived tokens and the app's id.

use serde::{Deserialize, Serialize};

use crate::{auth::AuthToken, provider::Provider, router::Access};

/// Largest cache that is looked at, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Cache {
    /// The server that the rest holds for.
    server: String,
    environment: String,
    app: String,
    auth: Option<AuthToken>,
    app_id: Option<String>,
    builder_version: Option<String>,
    routers: Vec<(String, Access)>,
}

impl Provider {
    /// See `export-cache` in the interface.
    #[must_use]
    pub fn export_cache(&self) -> Vec<u8> {
        let Ok(config) = self.config() else { return Vec::new() };
        let state = self.inner.state.borrow();
        let cache = Cache {
            server: config.server.to_string(),
            environment: config.environment.clone(),
            app: config.app.clone(),
            auth: state.auth.clone(),
            app_id: state.app_id.clone(),
            builder_version: state.builder_version.clone(),
            routers: state.routers.iter().map(|(sandbox, access)| (sandbox.clone(), access.clone())).collect(),
        };
        serde_json::to_vec(&cache).unwrap_or_default()
    }

    /// See `import-cache` in the interface. A cache of another server or app is ignored.
    pub fn import_cache(&self, bytes: &[u8]) {
        let Ok(config) = self.config() else { return };
        if bytes.len() > MAX_BYTES {
            return;
        }
        let Ok(cache) = serde_json::from_slice::<Cache>(bytes) else { return };
        let same = cache.server == config.server.to_string()
            && cache.environment == config.environment
            && cache.app == config.app;
        if !same {
            return;
        }
        let now = self.now();
        let mut state = self.inner.state.borrow_mut();
        if let Some(auth) = cache.auth.filter(|auth| auth.is_usable(now)) {
            state.auth = Some(auth);
        }
        if cache.app_id.is_some() {
            state.app_id = cache.app_id;
        }
        if cache.builder_version.is_some() {
            state.builder_version = cache.builder_version;
        }
        for (sandbox, access) in cache.routers {
            state.routers.insert(sandbox, access);
        }
    }
}

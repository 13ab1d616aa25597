//! The cache that one instance exports and another imports to save requests: short-lived tokens, the app's id and the
//! builder version. Encoded as protobuf, for which the component contains the code anyway.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::service::{Service, access::Access};
use sandbox_provider_kit::{api::time::millis, call::token::Token, platform::Url};

/// Largest cache that is imported, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

#[derive(Message)]
struct Cache {
    /// The server that the other fields come from.
    #[prost(string, tag = "1")]
    server: String,
    #[prost(string, tag = "2")]
    environment: String,
    #[prost(string, tag = "3")]
    app: String,
    #[prost(message, optional, tag = "4")]
    auth: Option<Auth>,
    #[prost(string, optional, tag = "5")]
    app_id: Option<String>,
    #[prost(string, optional, tag = "6")]
    builder_version: Option<String>,
    #[prost(message, repeated, tag = "7")]
    routers: Vec<Router>,
}

/// A [`Token`]. Times are in milliseconds since the Unix epoch.
#[derive(Message)]
struct Auth {
    #[prost(string, tag = "1")]
    token: String,
    #[prost(uint64, tag = "2")]
    expires: u64,
    #[prost(uint64, tag = "3")]
    refresh: u64,
}

/// The [`Access`] of a sandbox.
#[derive(Message)]
struct Router {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(string, tag = "2")]
    task_id: String,
    #[prost(string, tag = "3")]
    url: String,
    #[prost(string, tag = "4")]
    jwt: String,
    #[prost(uint64, optional, tag = "5")]
    expires: Option<u64>,
}

/// Implements `export-cache` of the interface. Returns an empty cache if the configuration is not valid.
#[must_use]
pub fn export(service: &Service) -> Vec<u8> {
    let Ok(config) = service.config() else { return Vec::new() };
    let (app_id, builder_version) = service.app.known();
    let cache = Cache {
        server: config.server.to_string(),
        environment: config.environment.clone(),
        app: config.app.clone(),
        auth: service.control.token().map(|auth| Auth {
            expires: millis(auth.expires),
            refresh: millis(auth.refresh),
            token: auth.token,
        }),
        app_id,
        builder_version,
        routers: service
            .router
            .accesses()
            .known()
            .into_iter()
            .map(|(sandbox, access)| Router {
                sandbox,
                task_id: access.task_id,
                url: access.origin.to_string(),
                jwt: access.jwt,
                expires: access.expires.map(millis),
            })
            .collect(),
    };
    cache.encode_to_vec()
}

/// Implements `import-cache` of the interface. Ignores a cache of another server, environment or app, and one that it
/// cannot read.
pub fn import(service: &Service, bytes: &[u8]) {
    let Ok(config) = service.config() else { return };
    if bytes.len() > MAX_BYTES {
        return;
    }
    let Ok(cache) = Cache::decode(Bytes::copy_from_slice(bytes)) else { return };
    let same =
        cache.server == config.server.to_string() && cache.environment == config.environment && cache.app == config.app;
    if !same {
        return;
    }
    let now = service.now();
    let auth = cache.auth.map(|auth| Token {
        token: auth.token,
        expires: Duration::from_millis(auth.expires),
        refresh: Duration::from_millis(auth.refresh),
        failures: 0,
    });
    if let Some(auth) = auth.filter(|auth| auth.is_usable(now)) {
        service.control.set_token(auth);
    }
    service.app.learn(cache.app_id, cache.builder_version);
    for Router { sandbox, task_id, url, jwt, expires } in cache.routers {
        if let Some(origin) = Url::parse(&url) {
            let expires = expires.map(Duration::from_millis);
            service.router.accesses().learn(sandbox, Access { task_id, origin, jwt, expires });
        }
    }
}

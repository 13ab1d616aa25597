//! The builder of a [`Provider`]: it chooses the settings, credentials and grants that a plugin gets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderName;

use crate::access::credentials::{self, Additions, Values};
use crate::access::identity::Identity;
use crate::access::places::{self, Places, Unusable};
use crate::access::policy::{Fixed, Policy};
use crate::access::profile;
use crate::access::secret::Secret;
use crate::api::plugin::Plugin;
use crate::api::provider::{CreateWaits, Provider, WaitObserver, Waiting};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::net::connect::{Connector, Trust};
use crate::net::hook::{Net, Silence, SilenceObserver};
use crate::net::proxy::{Proxies, Proxy};
use crate::plugin::manifest::{CredentialWish, EnvWish, Manifest, Settings};
use crate::plugin::origin::OriginWish;
use crate::runtime::limits::Limits;
use crate::runtime::runner::Runner;

/// Default time for which a create is repeated while the service asks to wait. See
/// [`ProviderBuilder::create_patience`].
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Asks the embedder for a credential. Returns `Ok(None)` if the embedder has none.
type CredentialSource = dyn Fn(&CredentialWish) -> BoxFuture<'static, Result<Option<Secret>>> + Send + Sync;

impl Provider {
    /// Returns a builder for a provider that uses this plugin. By default, settings and credentials come from the
    /// environment and from the profile file that the manifest names.
    pub fn builder(plugin: &Plugin) -> ProviderBuilder {
        ProviderBuilder {
            plugin: plugin.clone(),
            env: BTreeMap::new(),
            inherit: true,
            profile: None,
            read_profiles: true,
            secrets: BTreeMap::new(),
            source: None,
            anonymous: false,
            limits: Limits::default(),
            trust: Trust::default(),
            granted: None,
            shown: None,
            proxy: Proxy::default(),
            patience: PATIENCE,
            on_wait: None,
            on_silence: None,
        }
    }
}

/// Builds a [`Provider`]. Created by [`Provider::builder`].
#[must_use]
pub struct ProviderBuilder {
    plugin: Plugin,
    env: BTreeMap<String, String>,
    inherit: bool,
    profile: Option<String>,
    read_profiles: bool,
    secrets: BTreeMap<String, Secret>,
    source: Option<Arc<CredentialSource>>,
    anonymous: bool,
    limits: Limits,
    trust: Trust,
    granted: Option<Vec<String>>,
    shown: Option<Vec<String>>,
    proxy: Proxy,
    patience: Duration,
    on_wait: Option<Box<WaitObserver>>,
    on_silence: Option<Arc<SilenceObserver>>,
}

impl ProviderBuilder {
    /// Sets an environment variable for the plugin and for the settings of the manifest. It takes precedence over the
    /// environment of the process. A variable that the manifest declares as a credential is used as a credential and is
    /// never shown to the component.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Sets whether the variables that the manifest names are read from the environment of the process. Default true.
    pub fn inherit_env(mut self, inherit: bool) -> Self {
        self.inherit = inherit;
        self
    }

    /// Chooses a profile from the manifest's profile file by its name.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// Sets whether the profile file that the manifest names is read. Default true. The manifest chooses the path of
    /// the file, so set this to false for an untrusted plugin.
    pub fn read_profiles(mut self, read: bool) -> Self {
        self.read_profiles = read;
        self
    }

    /// Sets a credential by its name in the manifest, such as `token-id`. It takes precedence over all other sources.
    pub fn credential(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// Sets a function that supplies credentials. It is asked for credentials that [`credential`](Self::credential) did
    /// not set, before the environment and the profile.
    pub fn credentials_from<F>(mut self, source: F) -> Self
    where
        F: Fn(&CredentialWish) -> BoxFuture<'static, Result<Option<Secret>>> + Send + Sync + 'static,
    {
        self.source = Some(Arc::new(source));
        self
    }

    /// Sets whether missing credentials are accepted. If false, [`build`](Self::build) fails without them. Default
    /// false.
    pub fn anonymous(mut self, anonymous: bool) -> Self {
        self.anonymous = anonymous;
        self
    }

    /// Sets the limits of instances and calls. Default: `Limits::default()`.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Trusts the certificate authorities in this PEM file, in addition to the built-in ones and those of the system.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust.extra = Some(path.into());
        self
    }

    /// Grants only these origins of the manifest, by their names in it. By default all origins are granted.
    pub fn grant_only<I: IntoIterator<Item = S>, S: Into<String>>(mut self, names: I) -> Self {
        self.granted = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Shows the component only these environment variables of the manifest, in addition to those that
    /// [`env`](Self::env) sets. By default all are shown. If the URL of an origin comes from a variable of the process
    /// that is not shown, the origin has the restrictions of a URL from the manifest: https only, and public addresses
    /// only.
    pub fn show_only<I: IntoIterator<Item = S>, S: Into<String>>(mut self, variables: I) -> Self {
        self.shown = Some(variables.into_iter().map(Into::into).collect());
        self
    }

    /// Chooses the proxy for connections. Default: the proxy that the environment names.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// Sets how long [`Provider::create`] repeats the request while the service asks to wait. Default 30 minutes. With
    /// zero, it fails at the first such response.
    pub fn create_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets a function that is called each time a create waits because the service asked to wait.
    pub fn on_wait(mut self, observer: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Box::new(observer));
        self
    }

    /// Sets a function that is called if a service has not begun to answer a request after five seconds, and again
    /// while the silence lasts. It is not called for requests that wait for an event, such as the end of a command.
    pub fn on_silence(mut self, observer: impl Fn(&Silence) + Send + Sync + 'static) -> Self {
        self.on_silence = Some(Arc::new(observer));
        self
    }

    /// Resolves settings, credentials and policy, and creates the provider. Sends no request. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] for unusable profiles, URLs and proxies, [`Kind::Unauthenticated`] for missing credentials.
    pub async fn build(self) -> Result<Provider> {
        let plugin = self.plugin.clone();
        let manifest = plugin.manifest();
        let what = format!("use the provider {}", if manifest.name.is_empty() { "plugin" } else { &manifest.name });
        let sources = Sources { variables: self.variables(), settings: self.settings(manifest, &what).await? };
        let secrets = credentials::choose(manifest, self.secrets(manifest, &sources).await?, self.anonymous, &what)?;
        let declared = declared(manifest, &sources);
        let mut env = self.environment(&declared);
        let values = Values { secrets: &secrets, variables: &declared };
        let fixed = self.origins(manifest, &sources, values, &mut env, &what).await?;
        for grant in &fixed {
            tracing::debug!(origin = %grant.origin, name = %grant.name, explicit = grant.explicit, "granted");
        }
        let encoded = fixed.iter().flat_map(|fixed| fixed.additions.encoded()).cloned();
        let secrets: Vec<Secret> = secrets.into_values().chain(encoded).collect();
        self.hide_credentials(manifest, &sources, &secrets, &mut env);

        let lookup = |name: &str| sources.variables.get(name);
        let switch = manifest.proxy.off.as_deref().and_then(lookup);
        let off = switch.is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false" | "False"));
        let proxy = if off && matches!(self.proxy, Proxy::Environment) { Proxy::Off } else { self.proxy };
        let proxies = Proxies::new(&proxy, lookup).map_err(|why| {
            Error::new(Kind::Config, what, why).with_hint("correct the URL, or add the host to NO_PROXY")
        })?;
        let retry_headers = manifest.retry_headers.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
        let mut connector = Connector::new(self.trust, proxies);
        for fixed in &fixed {
            if let Some(path) = &fixed.socket {
                connector.by_socket(fixed.origin.clone(), path.clone(), fixed.variable.clone());
            } else if let Some(identity) = &fixed.identity {
                connector.with_identity(fixed.origin.clone(), identity.clone());
            }
        }
        let net = Net::new(
            Arc::new(Policy::new(fixed)),
            connector,
            secrets.into(),
            retry_headers.collect(),
            self.limits.body_bytes,
            self.on_silence,
        );
        let runner = Runner::new(plugin.linked().clone(), net, env.into_iter().collect(), self.limits);
        let waits = CreateWaits { patience: self.patience, observer: self.on_wait };
        Ok(Provider::new(runner, plugin, waits))
    }

    fn variables(&self) -> Variables {
        Variables { set: self.env.clone(), inherit: self.inherit }
    }

    /// Reads the profile file that the manifest names.
    async fn settings(&self, manifest: &Manifest, what: &str) -> Result<Settings> {
        // With no granted origin and no shown variable, nothing from the profile would be used. The file is not read
        // then, because the manifest chooses its path.
        let none = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        let idle = self.anonymous && self.profile.is_none() && none(&self.granted) && none(&self.shown);
        match manifest.profiles.clone().filter(|_| self.read_profiles && !idle) {
            Some(profiles) => {
                let (variables, chosen) = (self.variables(), self.profile.clone());
                blocking(move || profile::read(&profiles, chosen.as_deref(), &|name| variables.get(name))).await
            }
            None if self.profile.is_some() => {
                let why = if self.read_profiles {
                    "the plugin does not use profiles"
                } else {
                    "reading of profiles is turned off"
                };
                Err(Error::new(Kind::Config, what, why))
            }
            None => Ok(Settings::new()),
        }
    }

    /// Finds the credentials of the manifest. The result maps their names in the manifest to their values.
    async fn secrets(&self, manifest: &Manifest, sources: &Sources) -> Result<BTreeMap<String, Secret>> {
        let mut secrets = BTreeMap::new();
        for wish in &manifest.credential {
            let mut found = self.secrets.get(&wish.name).cloned();
            if let (None, Some(source)) = (&found, &self.source) {
                found = source(wish).await?;
            }
            let found = found.or_else(|| {
                let value = sources.variables.get(&wish.env).filter(|text| !text.is_empty());
                value
                    .or_else(|| sources.setting(wish.setting.as_deref()).filter(|text| !text.is_empty()))
                    .map(Secret::new)
            });
            if let Some(secret) = found {
                secrets.insert(wish.name.clone(), secret);
            }
        }
        Ok(secrets)
    }

    /// Returns whether a variable of the manifest is shown to the component.
    fn shows(&self, variable: &String) -> bool {
        self.shown.as_ref().is_none_or(|shown| shown.contains(variable))
    }

    /// Returns the environment variables that the component sees.
    fn environment(&self, declared: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let shown = declared.iter().filter(|(name, _)| self.shows(name));
        let mut env: BTreeMap<_, _> = shown.map(|(name, value)| (name.clone(), value.clone())).collect();
        // Variables that the embedder sets are always shown, whether or not the manifest names them.
        env.extend(self.env.clone());
        env
    }

    /// Returns whether the user granted an origin of the manifest.
    fn grants(&self, wish: &OriginWish) -> bool {
        self.granted.as_ref().is_none_or(|granted| granted.contains(&wish.name))
    }

    /// Reads the certificates for one origin. Returns `None` if there are none.
    async fn identity(&self, wish: &OriginWish, what: &str) -> Result<Option<Arc<Identity>>> {
        let Some(tls) = wish.tls.clone() else { return Ok(None) };
        let (variables, what) = (self.variables(), what.to_owned());
        blocking(move || Ok(Identity::read(&tls, &|name| variables.get(name), &what)?.map(Arc::new))).await
    }

    /// Returns the granted origins. Sets the variables in `env` from which the component reads their addresses.
    async fn origins(
        &self,
        manifest: &Manifest,
        sources: &Sources,
        values: Values<'_>,
        env: &mut BTreeMap<String, String>,
        what: &str,
    ) -> Result<Vec<Fixed>> {
        let mut fixed: Vec<Fixed> = Vec::new();
        for wish in manifest.origin.iter().filter(|wish| self.grants(wish)) {
            let Some(chosen) = self.chosen(wish, sources) else { continue };
            let (places, identity) = self.places(&chosen.urls, wish, sources, what).await?;
            let collides = |other: &&Fixed| {
                places.socket != other.socket && places.origins.iter().any(|origin| other.origin.covers(origin))
            };
            if let Some(other) = fixed.iter().find(collides) {
                let why = format!("{} stands for a Unix socket and for {:?}", other.origin, other.name);
                return Err(Error::new(Kind::Config, what, why).with_hint("rename the file of one of the sockets"));
            }
            if let Some(variable) = wish.url.env.as_ref().filter(|_| chosen.told) {
                env.insert(variable.clone(), places.shown);
            }
            let additions = Arc::new(Additions::new(wish, manifest, values, what)?);
            fixed.extend(places.origins.into_iter().map(|origin| Fixed {
                name: wish.name.clone(),
                origin,
                explicit: chosen.explicit,
                socket: places.socket.clone(),
                variable: wish.url.env.clone(),
                identity: identity.clone(),
                additions: additions.clone(),
                learn: wish.learn.clone().into(),
            }));
        }
        Ok(fixed)
    }

    /// Chooses the address of an origin. Returns `None` if it has none.
    fn chosen(&self, wish: &OriginWish, sources: &Sources) -> Option<Chosen> {
        let of_variable =
            wish.url.env.as_deref().and_then(|name| sources.variables.get(name)).filter(|text| !text.is_empty());
        let set = of_variable.or_else(|| sources.setting(wish.url.setting.as_deref()).filter(|text| !text.is_empty()));
        // A manifest can name any variable of the process. Its value counts as the user's choice of an address
        // (`explicit`) only if the variable is shown to the plugin. Without that, the origin is granted with the
        // restrictions of a URL from the manifest. A variable that the embedder sets always counts as a choice.
        let told = match &wish.url.env {
            Some(variable) => self.env.contains_key(variable) || self.shows(variable),
            None => self.shown.is_none(),
        };
        let explicit = set.is_some() && told;
        Some(Chosen { urls: set.or_else(|| wish.url.default.clone())?, explicit, told })
    }

    /// Reads the address of an origin, and the certificates for TLS connections to it. Without TLS, no file is read.
    async fn places(
        &self,
        urls: &str,
        wish: &OriginWish,
        sources: &Sources,
        what: &str,
    ) -> Result<(Places, Option<Arc<Identity>>)> {
        let on = wish.switch().map(|name| sources.variables.get(name).is_some_and(|value| !value.is_empty()));
        let mut identity = None;
        if places::is_tcp(urls, wish) && on != Some(false) {
            identity = self.identity(wish, what).await?;
        }
        let tls = on.unwrap_or(identity.is_some());
        let places = Places::read(urls, wish, tls)
            .map_err(|Unusable { why, hint }| Error::new(Kind::Config, what, why).with_hint(hint))?;
        if identity.is_none() && places.is_secure() {
            identity = self.identity(wish, what).await?;
        }
        Ok((places, identity))
    }

    /// Removes all variables from `env` that contain a credential in any form, whether or not the credential is in use.
    fn hide_credentials(
        &self,
        manifest: &Manifest,
        sources: &Sources,
        secrets: &[Secret],
        env: &mut BTreeMap<String, String>,
    ) {
        let elsewhere = manifest.credential.iter().flat_map(|wish| {
            let setting = sources.setting(wish.setting.as_deref());
            sources.variables.get(&wish.env).into_iter().chain(setting).map(Secret::new)
        });
        let hidden: Vec<_> = elsewhere.chain(self.secrets.values().cloned()).chain(secrets.iter().cloned()).collect();
        for variable in manifest.credential_variables() {
            env.remove(variable);
        }
        env.retain(|name, value| {
            let held = hidden.iter().any(|secret| secret.is_in(value));
            if held {
                tracing::warn!(variable = %name, "not shown to the plugin, because its value contains a credential");
            }
            !held
        });
    }
}

/// Returns the values of the variables that the manifest declares for the component.
fn declared(manifest: &Manifest, sources: &Sources) -> BTreeMap<String, String> {
    let value = |wish: &EnvWish| {
        let set = sources.variables.get(&wish.name).or_else(|| sources.setting(wish.setting.as_deref()));
        Some((wish.name.clone(), set.or_else(|| wish.default.clone())?))
    };
    manifest.env.iter().filter_map(value).collect()
}

/// The address that was chosen for an origin.
struct Chosen {
    urls: String,
    /// Whether the user chose it, so that it is not the default of the manifest.
    explicit: bool,
    /// Whether the component sees it.
    told: bool,
}

/// Environment variables: those that the embedder set, and those of the process if `inherit` is set.
#[derive(Clone)]
struct Variables {
    set: BTreeMap<String, String>,
    inherit: bool,
}

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.set.get(name).cloned().or_else(|| self.inherit.then(|| std::env::var(name).ok()).flatten())
    }
}

/// The sources of the values that the manifest asks for.
struct Sources {
    variables: Variables,
    /// Settings of the chosen profile.
    settings: Settings,
}

impl Sources {
    fn setting(&self, name: Option<&str>) -> Option<String> {
        name.and_then(|name| self.settings.get(name)).cloned()
    }
}

//! Setting up a provider: which settings, credentials and grants a plugin gets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::HeaderName;

use crate::access::credentials::{self, HeaderSource};
use crate::access::policy::{Fixed, Origin, Policy};
use crate::access::profile;
use crate::access::secret::Secret;
use crate::api::plugin::Plugin;
use crate::api::provider::{CreateWaits, Provider, WaitObserver, Waiting};
use crate::blocking::blocking;
use crate::error::{Error, Kind, Result};
use crate::net::connect::{Connector, Trust};
use crate::net::hook::{Net, Silence, SilenceObserver};
use crate::net::proxy::{Proxies, Proxy};
use crate::plugin::manifest::{CredentialWish, Manifest, Settings};
use crate::runtime::limits::Limits;
use crate::runtime::runner::Runner;

/// How long a create is repeated while the service asks to wait, unless [`ProviderBuilder::create_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Asks the embedder for a credential; `Ok(None)` when it has none.
type CredentialSource = dyn Fn(&CredentialWish) -> BoxFuture<'static, Result<Option<Secret>>> + Send + Sync;

impl Provider {
    /// Starts to set up a provider from a plugin. By default settings and credentials come from the environment and
    /// the profile file that the manifest names.
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

/// Settings of a [`Provider`]; made by [`Provider::builder`].
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
    /// Sets an environment variable as the plugin and the manifest's settings see it. Wins over the process's own. A
    /// variable that the manifest declares as a credential is taken as one and never shown to the component.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Whether the process's environment is looked at for the variables that the manifest names. Default true.
    pub fn inherit_env(mut self, inherit: bool) -> Self {
        self.inherit = inherit;
        self
    }

    /// Chooses a profile of the manifest's profile file by name.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.profile = Some(name.into());
        self
    }

    /// Whether the profile file that the manifest names is read. Default true. The manifest chooses the path, so this is
    /// for plugins that are not trusted.
    pub fn read_profiles(mut self, read: bool) -> Self {
        self.read_profiles = read;
        self
    }

    /// Gives a credential by its name in the manifest, such as `token-id`. Wins over all other sources.
    pub fn credential(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// Asks this function for credentials that were not given by [`credential`](Self::credential), before environment
    /// and profile are looked at.
    pub fn credentials_from<F>(mut self, source: F) -> Self
    where
        F: Fn(&CredentialWish) -> BoxFuture<'static, Result<Option<Secret>>> + Send + Sync + 'static,
    {
        self.source = Some(Arc::new(source));
        self
    }

    /// Does without credentials that are not to be had, instead of failing in [`build`](Self::build).
    pub fn anonymous(mut self, anonymous: bool) -> Self {
        self.anonymous = anonymous;
        self
    }

    /// Sets the limits of instances and calls.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Trusts the certificate authorities in this PEM file too, besides the built-in ones and the system's.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust.extra = Some(path.into());
        self
    }

    /// Grants only these of the manifest's origins, by their names there. Without it all are granted.
    pub fn grant_only<I: IntoIterator<Item = S>, S: Into<String>>(mut self, names: I) -> Self {
        self.granted = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Shows the component only these of the manifest's environment variables, besides what [`env`](Self::env) sets.
    /// Without it all are shown. A place that a variable of the process names, and that is not shown, is granted as one of
    /// the manifest's own would be: https, and public addresses.
    pub fn show_only<I: IntoIterator<Item = S>, S: Into<String>>(mut self, variables: I) -> Self {
        self.shown = Some(variables.into_iter().map(Into::into).collect());
        self
    }

    /// Chooses the proxy that connections go through. Default: what the environment says.
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = proxy;
        self
    }

    /// How long [`Provider::create`] goes on while the service asks to wait. Default half an hour; zero to fail at once.
    pub fn create_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Is called each time that a create waits because the service asks to.
    pub fn on_wait(mut self, observer: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        self.on_wait = Some(Box::new(observer));
        self
    }

    /// Is called when a service has not begun to answer a request after five seconds, and again while that lasts, for calls
    /// that are usually answered soon. Not for those that wait for something to happen.
    pub fn on_silence(mut self, observer: impl Fn(&Silence) + Send + Sync + 'static) -> Self {
        self.on_silence = Some(Arc::new(observer));
        self
    }

    /// Resolves settings, credentials and policy. Sends nothing.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`] for unusable profiles and URLs, [`Kind::Unauthenticated`] for missing credentials.
    pub async fn build(self) -> Result<Provider> {
        let plugin = self.plugin.clone();
        let manifest = plugin.manifest();
        let what = format!("use the provider {}", if manifest.name.is_empty() { "plugin" } else { &manifest.name });
        let sources = Sources { variables: self.variables(), settings: self.settings(manifest, &what).await? };
        let secrets = credentials::choose(manifest, self.secrets(manifest, &sources).await?, self.anonymous, &what)?;
        let mut env = self.environment(manifest, &sources);
        let fixed = self.origins(manifest, &sources, &secrets, &mut env, &what)?;
        self.hide_credentials(manifest, &sources, &secrets, &mut env);
        for grant in &fixed {
            tracing::debug!(origin = %grant.origin, name = %grant.name, explicit = grant.explicit, "granted");
        }

        let lookup = |name: &str| sources.variables.get(name);
        let switch = manifest.proxy.off.as_deref().and_then(lookup);
        let off = switch.is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false" | "False"));
        let proxy = if off && matches!(self.proxy, Proxy::Environment) { Proxy::Off } else { self.proxy };
        let proxies = Proxies::new(&proxy, lookup)
            .map_err(|why| Error::new(Kind::Config, what, why).with_hint("correct it, or name the host in NO_PROXY"))?;
        let retry_headers = manifest.retry_headers.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
        let net = Net::new(
            Arc::new(Policy::new(fixed)),
            Connector::new(self.trust, proxies),
            secrets.into_values().collect(),
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
        // Who is granted nothing and shown nothing gets nothing out of a profile, and its path is the manifest's wish.
        let none = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        let idle = self.anonymous && self.profile.is_none() && none(&self.granted) && none(&self.shown);
        match manifest.profiles.clone().filter(|_| self.read_profiles && !idle) {
            Some(profiles) => {
                let (variables, chosen) = (self.variables(), self.profile.clone());
                blocking(move || profile::read(&profiles, chosen.as_deref(), &|name| variables.get(name))).await
            }
            None if self.profile.is_some() => {
                let why = if self.read_profiles { "the plugin knows no profiles" } else { "no profile is read for it" };
                Err(Error::new(Kind::Config, what, why))
            }
            None => Ok(Settings::new()),
        }
    }

    /// The credentials that are found, by their names in the manifest.
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

    /// Whether the component is shown a variable of the manifest.
    fn shows(&self, variable: &String) -> bool {
        self.shown.as_ref().is_none_or(|shown| shown.contains(variable))
    }

    /// What the component sees of the environment.
    fn environment(&self, manifest: &Manifest, sources: &Sources) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for wish in manifest.env.iter().filter(|wish| self.shows(&wish.name)) {
            let value = sources.variables.get(&wish.name).or_else(|| sources.setting(wish.setting.as_deref()));
            if let Some(value) = value.or(wish.default.clone()) {
                env.insert(wish.name.clone(), value);
            }
        }
        // What the embedder sets by name it means to show, wished for or not.
        env.extend(self.env.clone());
        env
    }

    /// The origins that are granted. The component is told of each where it is, in `env`.
    fn origins(
        &self,
        manifest: &Manifest,
        sources: &Sources,
        secrets: &BTreeMap<String, Secret>,
        env: &mut BTreeMap<String, String>,
        what: &str,
    ) -> Result<Vec<Fixed>> {
        let mut fixed = Vec::new();
        for wish in &manifest.origin {
            if self.granted.as_ref().is_some_and(|granted| !granted.contains(&wish.name)) {
                continue;
            }
            let of_variable =
                wish.url.env.as_deref().and_then(|name| sources.variables.get(name)).filter(|text| !text.is_empty());
            let set =
                of_variable.or_else(|| sources.setting(wish.url.setting.as_deref()).filter(|text| !text.is_empty()));
            // A manifest can name any variable, so one of the process is the user's choice of a place only where the user
            // lets the plugin have it; the origin is granted in any case. What the embedder sets it means.
            let told = match &wish.url.env {
                Some(variable) => self.env.contains_key(variable) || self.shows(variable),
                None => self.shown.is_none(),
            };
            let explicit = set.is_some() && told;
            let Some(urls) = set.or(wish.url.default.clone()) else { continue };
            // The official clients allow a list of alternatives.
            let origins = Origin::list(&urls).map_err(|why| {
                let variable = wish.url.env.as_deref().unwrap_or("the plugin's manifest");
                Error::new(Kind::Config, what, why).with_hint(format!("correct {variable}"))
            })?;
            if let Some(variable) = wish.url.env.as_ref().filter(|_| told) {
                env.insert(variable.clone(), address(&urls, &origins));
            }
            let mut headers = Vec::new();
            for header in &wish.headers {
                let source = HeaderSource::new(header, manifest, secrets, what)?;
                if let (Ok(name), Some(source)) = (HeaderName::try_from(header.name.as_str()), source) {
                    headers.push((name, source));
                }
            }
            for origin in origins {
                fixed.push(Fixed {
                    name: wish.name.clone(),
                    origin,
                    explicit,
                    headers: headers.clone(),
                    learn: wish.learn.clone().into(),
                });
            }
        }
        Ok(fixed)
    }

    /// Takes out of `env` whatever holds a credential, in use or not: none of it is for the component.
    fn hide_credentials(
        &self,
        manifest: &Manifest,
        sources: &Sources,
        secrets: &BTreeMap<String, Secret>,
        env: &mut BTreeMap<String, String>,
    ) {
        let elsewhere = manifest.credential.iter().flat_map(|wish| {
            let setting = sources.setting(wish.setting.as_deref());
            sources.variables.get(&wish.env).into_iter().chain(setting).map(Secret::new)
        });
        let hidden: Vec<_> = elsewhere.chain(self.secrets.values().cloned()).chain(secrets.values().cloned()).collect();
        for variable in manifest.credential_variables() {
            env.remove(variable);
        }
        env.retain(|name, value| {
            let held = hidden.iter().any(|secret| secret.is_in(value));
            if held {
                tracing::warn!(variable = %name, "not shown to the plugin: its value holds a credential");
            }
            !held
        });
    }
}

/// Environment variables: those that the embedder sets, and those of the process if they are inherited.
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

/// Where values come from that the manifest wishes for.
struct Sources {
    variables: Variables,
    /// Of the profile.
    settings: Settings,
}

impl Sources {
    fn setting(&self, name: Option<&str>) -> Option<String> {
        name.and_then(|name| self.settings.get(name)).cloned()
    }
}

/// What the component is told of where a service is. A path belongs to that; what else a URL can carry may be meant for
/// others, and then the origins alone are told.
fn address(urls: &str, origins: &[Origin]) -> String {
    if urls.contains(['@', '?', '#']) {
        return origins.iter().map(Origin::to_string).collect::<Vec<_>>().join(",");
    }
    urls.to_owned()
}

//! A provider in use: a plugin with its settings, credentials and policy, and the instances that serve its calls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use http::HeaderName;
use tracing::Instrument;

use crate::access::credentials::{self, HeaderSource};
use crate::access::policy::{Fixed, Grant, Origin, Policy};
use crate::access::profile;
use crate::access::secret::Secret;
use crate::api::sandbox::{Sandbox, Signals};
use crate::api::spec::fresh_id;
use crate::error::{Error, Happened, Kind, Result, Retry};
use crate::net::connect::{Connector, Trust};
use crate::net::hook::{Net, Patience, Silence, SilenceObserver};
use crate::net::proxy::{Proxies, Proxy};
use crate::plugin::engine::runtime;
use crate::plugin::load::{Plugin, blocking};
use crate::plugin::manifest::{CredentialWish, Settings};
use crate::runtime::gate::Gate;
use crate::runtime::instance::{Body, Call, Instance, Limits, Outcome};
use crate::runtime::metrics::{Metrics, Snapshot};
use crate::runtime::warm::{self, Route, WaitForPlace, Warm};
use crate::types;

/// The further field of a list filter that asks for the sandboxes of all apps.
const ALL_APPS: &str = "all-apps";

/// How long a call waits for an instance when the process has as many as it may have.
const INSTANCE_WAIT: Duration = Duration::from_secs(60);

/// How long a create is repeated while the service asks to wait, unless [`ProviderBuilder::create_patience`] says otherwise.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// How long a provider that is shut down waits until commands that were given up are signalled. A signal takes
/// milliseconds; a service that does not answer must not hold up an exit for long.
const SIGNALLED: Duration = Duration::from_secs(10);

/// Shortest pause between two attempts at a create: a plugin that asks for none must not make a loop of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Longest single pause between two attempts at a create, whatever the service asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Is told that a create waits.
type WaitObserver = dyn Fn(&Waiting) + Send + Sync;

/// A create that waits because the service asked it to: a rate limit, or no capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Until the next attempt.
    pub pause: Duration,
    /// Since the first attempt.
    pub elapsed: Duration,
    /// What the service said.
    pub reason: String,
}

/// Asks the embedder for a credential; `Ok(None)` when it has none.
type CredentialSource = dyn Fn(&CredentialWish) -> BoxFuture<'static, Result<Option<Secret>>> + Send + Sync;

/// Calls one function of the interface: `ask!(provider, route, call, |guest, store| guest.call_x(store, &a))`.
macro_rules! ask {
    ($provider:expr, $route:expr, $call:expr, |$guest:ident, $store:ident| $body:expr) => {
        $provider
            .call(&$route, $call, move |bound, $store| {
                Box::pin(async move {
                    let $guest = bound.guest();
                    $body.await
                })
            })
            .await
    };
}
pub(crate) use ask;

impl Call {
    /// A call that changes nothing.
    pub(crate) fn reading(what: impl Into<String>) -> Call {
        Call {
            what: what.into(),
            time: Some(Duration::MAX),
            effect: false,
            exec: None,
            patience: Patience::Held,
            signal: false,
        }
    }

    /// A call that changes something.
    pub(crate) fn acting(what: impl Into<String>) -> Call {
        Call {
            what: what.into(),
            time: Some(Duration::MAX),
            effect: true,
            exec: None,
            patience: Patience::Held,
            signal: false,
        }
    }

    /// The call is about this exec.
    pub(crate) fn about(self, exec: &str) -> Call {
        Call { exec: Some(exec.to_owned()), ..self }
    }

    /// The service answers it at once, or something is wrong.
    pub(crate) fn prompt(self) -> Call {
        Call { patience: Patience::Prompt, ..self }
    }

    /// The service may take a while for it, which the user is told of.
    pub(crate) fn told(self) -> Call {
        Call { patience: Patience::Told, ..self }
    }

    /// The call waits for something that takes its time: so long at most, or as long as it takes.
    pub(crate) fn within(self, time: Option<Duration>) -> Call {
        Call { time, ..self }
    }

    /// The call signals a command that was given up.
    pub(crate) fn signalling(self) -> Call {
        Call { signal: true, ..self }
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
    on_wait: Option<Arc<WaitObserver>>,
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
        self.on_wait = Some(Arc::new(observer));
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
        let manifest = self.plugin.manifest().clone();
        let what = || format!("use the provider {}", if manifest.name.is_empty() { "plugin" } else { &manifest.name });
        let (overrides, inherit) = (self.env.clone(), self.inherit);
        let lookup = move |name: &str| {
            overrides.get(name).cloned().or_else(|| inherit.then(|| std::env::var(name).ok()).flatten())
        };
        // Who is granted nothing and shown nothing gets nothing out of a profile, and its path is the manifest's wish.
        let none = |list: &Option<Vec<String>>| list.as_ref().is_some_and(Vec::is_empty);
        let idle = self.anonymous && self.profile.is_none() && none(&self.granted) && none(&self.shown);
        let settings = match manifest.profiles.clone().filter(|_| self.read_profiles && !idle) {
            Some(profiles) => {
                let (lookup, chosen) = (lookup.clone(), self.profile.clone());
                blocking(move || profile::read(&profiles, chosen.as_deref(), &lookup)).await?
            }
            None if self.profile.is_some() => {
                let why = if self.read_profiles { "the plugin knows no profiles" } else { "no profile is read for it" };
                return Err(Error::new(Kind::Config, what(), why));
            }
            None => Settings::new(),
        };
        let setting = |name: Option<&str>| name.and_then(|name| settings.get(name)).cloned();
        let present = |text: &String| !text.is_empty();

        let mut secrets = BTreeMap::new();
        for wish in &manifest.credential {
            let mut found = self.secrets.get(&wish.name).cloned();
            if let (None, Some(source)) = (&found, &self.source) {
                found = source(wish).await?;
            }
            let found = found.or_else(|| {
                let value =
                    lookup(&wish.env).filter(present).or_else(|| setting(wish.setting.as_deref()).filter(present));
                value.map(Secret::new)
            });
            if let Some(secret) = found {
                secrets.insert(wish.name.clone(), secret);
            }
        }
        let secrets = credentials::choose(&manifest, secrets, self.anonymous, &what())?;
        // Whatever holds a credential, in use or not: none of it is for the component.
        let elsewhere = manifest
            .credential
            .iter()
            .flat_map(|wish| lookup(&wish.env).into_iter().chain(setting(wish.setting.as_deref())).map(Secret::new));
        let hidden: Vec<_> = elsewhere.chain(self.secrets.values().cloned()).chain(secrets.values().cloned()).collect();

        let shows = |name: &String| self.shown.as_ref().is_none_or(|shown| shown.contains(name));
        let mut env = BTreeMap::new();
        for wish in manifest.env.iter().filter(|wish| shows(&wish.name)) {
            let value = lookup(&wish.name).or_else(|| setting(wish.setting.as_deref())).or(wish.default.clone());
            if let Some(value) = value {
                env.insert(wish.name.clone(), value);
            }
        }
        // What the embedder sets by name it means to show, wished for or not.
        env.extend(self.env.clone());

        let mut fixed = Vec::new();
        for wish in &manifest.origin {
            if self.granted.as_ref().is_some_and(|granted| !granted.contains(&wish.name)) {
                continue;
            }
            let set = wish
                .url
                .env
                .as_deref()
                .and_then(&lookup)
                .filter(present)
                .or_else(|| setting(wish.url.setting.as_deref()).filter(present));
            // A manifest can name any variable, so one of the process is the user's choice of a place only where the user
            // lets the plugin have it; the origin is granted in any case. What the embedder sets it means.
            let told = match &wish.url.env {
                Some(variable) => self.env.contains_key(variable) || shows(variable),
                None => self.shown.is_none(),
            };
            let explicit = set.is_some() && told;
            let Some(urls) = set.or(wish.url.default.clone()) else { continue };
            // The official clients allow a list of alternatives.
            let origins = Origin::list(&urls).map_err(|why| {
                let variable = wish.url.env.as_deref().unwrap_or("the plugin's manifest");
                Error::new(Kind::Config, what(), why).with_hint(format!("correct {variable}"))
            })?;
            if let Some(variable) = wish.url.env.as_ref().filter(|_| told) {
                env.insert(variable.clone(), address(&urls, &origins));
            }
            let mut headers = Vec::new();
            for header in &wish.headers {
                let source = HeaderSource::new(header, &manifest, &secrets, &what())?;
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
        for grant in &fixed {
            tracing::debug!(origin = %grant.origin, name = %grant.name, explicit = grant.explicit, "granted");
        }

        let metrics = Arc::new(Metrics::default());
        let secrets: Arc<[Secret]> = secrets.into_values().collect();
        let switch = manifest.proxy.off.as_deref().and_then(&lookup);
        let off = switch.is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false" | "False"));
        let proxy = if off && matches!(self.proxy, Proxy::Environment) { Proxy::Off } else { self.proxy };
        let proxies = Proxies::new(&proxy, &lookup).map_err(|why| {
            Error::new(Kind::Config, what(), why).with_hint("correct it, or name the host in NO_PROXY")
        })?;
        let connector = Connector::new(self.trust, proxies);
        let retry_headers = manifest.retry_headers.iter().filter_map(|name| HeaderName::try_from(name.as_str()).ok());
        let policy = Arc::new(Policy::new(fixed));
        let net = Net::new(
            policy,
            connector,
            metrics.clone(),
            secrets,
            retry_headers.collect(),
            self.limits.body_bytes,
            self.on_silence,
        );
        let inner = Arc::new(ProviderInner {
            plugin: self.plugin,
            net: Arc::new(net),
            env: env.into_iter().collect(),
            limits: self.limits,
            warm: Warm::new(),
            gate: Gate::default(),
            metrics,
            patience: self.patience,
            on_wait: self.on_wait,
            tasks: tokio::runtime::Handle::current(),
            signals: tokio::sync::watch::Sender::default(),
        });
        let weak = Arc::downgrade(&inner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(warm::IDLE / 4).await;
                let Some(inner) = weak.upgrade() else { break };
                inner.warm.purge(warm::IDLE);
            }
        });
        Ok(Provider { inner })
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

/// A provider of sandboxes. Cheap to clone; all handles of one provider share its instances and connections.
#[derive(Clone)]
pub struct Provider {
    pub(crate) inner: Arc<ProviderInner>,
}

pub(crate) struct ProviderInner {
    plugin: Plugin,
    pub(crate) net: Arc<Net>,
    env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    warm: Arc<Warm>,
    pub(crate) gate: Gate,
    metrics: Arc<Metrics>,
    patience: Duration,
    on_wait: Option<Arc<WaitObserver>>,
    /// For what has to be done after a handle was dropped, wherever that happens.
    pub(crate) tasks: tokio::runtime::Handle,
    /// What is still to be sent for handles that were dropped.
    pub(crate) signals: tokio::sync::watch::Sender<Signals>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("plugin", &self.inner.plugin).finish_non_exhaustive()
    }
}

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

    /// The plugin.
    pub fn plugin(&self) -> &Plugin {
        &self.inner.plugin
    }

    /// What the plugin may reach now: the manifest's origins, and those learned since.
    pub fn grants(&self) -> Vec<Grant> {
        self.inner.net.policy.grants()
    }

    /// The environment variables that the component sees.
    pub fn environment(&self) -> &[(String, String)] {
        &self.inner.env
    }

    /// What was done so far, and what is open now.
    pub fn metrics(&self) -> Snapshot {
        let (connections, streams) = self.inner.net.counts();
        Snapshot {
            instances_warm: self.inner.warm.len() as u64,
            connections: connections as u64,
            streams: streams as u64,
            ..self.inner.metrics.snapshot()
        }
    }

    /// What the provider says of itself. Sends nothing.
    ///
    /// # Errors
    ///
    /// Only if the component fails.
    pub async fn describe(&self) -> Result<types::Description> {
        ask!(self.inner, None, Call::reading("describe the provider"), |guest, store| guest.call_describe(store))
    }

    /// One cheap request that proves address and credentials.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way: [`Kind::Unauthenticated`], [`Kind::Unavailable`], …
    pub async fn check(&self) -> Result<()> {
        ask!(self.inner, None, Call::reading("reach the provider").prompt(), |guest, store| guest.call_check(store))
    }

    /// Gets ready for calls: opens a connection and makes `instances` instances (at most 64) that know the session's
    /// tokens, so that the first calls take no longer than the later ones.
    ///
    /// # Errors
    ///
    /// As [`check`](Provider::check).
    pub async fn warm_up(&self, instances: usize) -> Result<()> {
        self.check().await?;
        let one = || async {
            let mut held = self.inner.hold(None);
            held.call(Call::reading("warm up"), |bound, store| {
                Box::pin(async move { bound.guest().call_describe(store).await })
            })
            .await?;
            Ok::<_, Error>(held)
        };
        // Held together, so that each is another one.
        futures_util::future::try_join_all((0..instances.min(64)).map(|_| one())).await?;
        Ok(())
    }

    /// Ends the use of this provider, in whatever handles of it there are: no further call begins, those under way have
    /// `grace` to end and are cancelled then, the commands of those and of handles that were dropped are killed (at most ten
    /// more seconds are spent on that; [`signals_sent`](Provider::signals_sent) tells what could not be), instances are let
    /// go. Returns how many were cancelled. Sandboxes go on.
    ///
    /// A runtime that is dropped while calls are under way ends their tasks in any order, and some may complain that
    /// another one is gone; this comes before.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        let inner = &self.inner;
        let cancelled = inner.gate.close(grace).await;
        // The commands of those that were cancelled, and of handles that were dropped before.
        inner.signalled(SIGNALLED).await;
        inner.gate.shut();
        inner.warm.purge(Duration::ZERO);
        cancelled
    }

    /// Waits until the signals have been sent that dropped handles left to be sent, to commands and copies that were given
    /// up; at most for `grace`. For those who end the process right after they cancelled something: a signal is sent in the
    /// background, and would end with it.
    ///
    /// # Errors
    ///
    /// [`Kind::TimedOut`], with some of the commands, when `grace` has passed before; why a signal could not be sent since
    /// this was last asked.
    pub async fn signals_sent(&self, grace: Duration) -> Result<()> {
        let sent = self.inner.signalled(grace).await;
        let (mut failed, mut waiting) = (None, Vec::new());
        self.inner.signals.send_if_modified(|signals| {
            failed = signals.failed.take();
            waiting.clone_from(&signals.waiting);
            false
        });
        match failed {
            Some(error) => Err(error),
            // Between the two looks the last one may have been sent.
            None if sent || waiting.is_empty() => Ok(()),
            None => Err(Error::new(Kind::TimedOut, format!("signal {}", some_of(&waiting)), "no answer")),
        }
    }

    /// Whether [`create`](Provider::create) would take these settings, as far as that can be told without asking the
    /// service. Sends nothing: for finding out before a build or a thousand samples.
    ///
    /// # Errors
    ///
    /// As `create` would fail: [`Kind::InvalidArgument`], [`Kind::Unsupported`] and the like, naming the setting.
    /// [`Kind::Unsupported`] about `check-spec` when the plugin speaks a version before 0.1.1.
    pub async fn check_spec(&self, spec: &types::SandboxSpec) -> Result<()> {
        let spec = spec.clone();
        ask!(self.inner, None, Call::reading("create the sandbox"), |guest, store| guest.call_check_spec(store, &spec))
    }

    /// Makes a sandbox. The image is built first where it has to be, without its log: see [`Provider::build`]. While the
    /// service asks to wait, it waits, and tells [`ProviderBuilder::on_wait`]; a key is made if the specification has none,
    /// so that no attempt makes a second sandbox.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`] for a name that is taken, [`Kind::ResourceExhausted`] without capacity,
    /// [`Kind::BuildFailed`], [`Kind::InvalidArgument`].
    pub async fn create(&self, spec: types::SandboxSpec) -> Result<Sandbox> {
        Ok(self.create_with_info(spec).await?.0)
    }

    /// Like [`create`](Provider::create), with what the provider said of the new sandbox.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn create_with_info(&self, mut spec: types::SandboxSpec) -> Result<(Sandbox, types::SandboxInfo)> {
        spec.key.get_or_insert_with(fresh_id);
        let begun = Instant::now();
        loop {
            let (call, wanted) = (Call::acting("create the sandbox").told(), spec.clone());
            let error = match ask!(self.inner, None, call, |guest, store| guest.call_create(store, &wanted)) {
                Ok(info) => return Ok((self.sandbox(info.id.clone()), info)),
                Err(error) => error,
            };
            let Retry::After(pause) = error.retry() else { return Err(error) };
            let (pause, elapsed) = (pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE), begun.elapsed());
            if elapsed + pause > self.inner.patience {
                return Err(error);
            }
            let reason = error.provider_message().unwrap_or(error.parts().1).to_owned();
            tracing::info!(?pause, %reason, "a create waits");
            if let Some(observer) = &self.inner.on_wait {
                observer(&Waiting { pause, elapsed, reason });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The service's time, by what its latest answer said; none before the first answer, or if it does not say it. Leases
    /// are kept by it, since the clocks of several machines differ.
    pub fn service_time(&self) -> Option<SystemTime> {
        self.inner.net.service_now().map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// A handle to a sandbox by its id. Sends nothing: whether it exists shows at the first call.
    pub fn sandbox(&self, id: impl Into<String>) -> Sandbox {
        Sandbox::new(self.clone(), id.into())
    }

    /// The live sandbox of that name.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] when there is none.
    pub async fn find(&self, name: &str) -> Result<(Sandbox, types::SandboxInfo)> {
        let (call, name) = (Call::reading(format!("find the sandbox {name:?}")).prompt(), name.to_owned());
        let info = ask!(self.inner, None, call, |guest, store| guest.call_find(store, &name))?;
        Ok((self.sandbox(info.id.clone()), info))
    }

    /// A part of the list of sandboxes: at most `max` (1 to 1000), going on at `cursor`.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn list_page(
        &self,
        filter: &types::ListFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<types::SandboxPage> {
        let filter = filter.clone();
        ask!(self.inner, None, Call::reading("list the sandboxes").prompt(), |guest, store| guest.call_list(
            store,
            &filter,
            cursor.as_deref(),
            max
        ))
    }

    /// Sandboxes, newest first, at most `max` of them.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn list(&self, filter: &types::ListFilter, max: usize) -> Result<Vec<types::SandboxInfo>> {
        let mut found = Vec::new();
        let mut cursor = None;
        while found.len() < max {
            let want = (max - found.len()).min(200) as u32;
            let page = self.list_page(filter, cursor, want).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        found.truncate(max);
        Ok(found)
    }

    /// Sandboxes of all apps (or projects, or whatever the provider divides its sandboxes by), newest first, at most `max` of
    /// them. With a provider that does not divide them it is [`list`](Provider::list).
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn list_all_apps(&self, filter: &types::ListFilter, max: usize) -> Result<Vec<types::SandboxInfo>> {
        let mut wide = filter.clone();
        wide.extra.push((ALL_APPS.to_owned(), "true".to_owned()));
        match self.list(&wide, max).await {
            Err(error) if *error.kind() == Kind::InvalidArgument && error.subject() == Some(ALL_APPS) => {
                self.list(filter, max).await
            }
            found => found,
        }
    }

    /// Deletes a named volume with all that is in it. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] about `delete-volume` when the plugin speaks a version before 0.1.1.
    pub async fn delete_volume(&self, name: &str) -> Result<()> {
        let (call, name) = (Call::acting(format!("delete the volume {name:?}")), name.to_owned());
        ask!(self.inner, None, call, |guest, store| guest.call_delete_volume(store, &name))
    }

    /// A new sandbox from a memory snapshot.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`], [`Kind::Unsupported`].
    pub async fn restore(&self, snapshot: &str, name: Option<&str>) -> Result<Sandbox> {
        let call = Call::acting(format!("restore the snapshot {snapshot}")).told();
        let (snapshot, key, name) = (snapshot.to_owned(), fresh_id(), name.map(str::to_owned));
        let info =
            ask!(self.inner, None, call, |guest, store| guest.call_restore(store, &snapshot, &key, name.as_deref()))?;
        Ok(self.sandbox(info.id))
    }
}

/// The first few, and how many more there are: thousands may have been given up at once.
fn some_of(names: &[String]) -> String {
    let (first, more) = names.split_at(names.len().min(3));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    first.join(", ") + &more
}

impl ProviderInner {
    /// Waits until no signal is left to be sent. False when `grace` has passed before.
    async fn signalled(&self, grace: Duration) -> bool {
        let mut signals = self.signals.subscribe();
        // The sender lives as long as this does.
        tokio::time::timeout(grace, signals.wait_for(|signals| signals.waiting.is_empty())).await.is_ok()
    }

    /// Runs one call on a warm instance, or on a new one.
    pub(crate) async fn call<R: Send>(self: &Arc<Self>, route: &Route, call: Call, body: impl Body<R>) -> Result<R> {
        self.hold(route.clone()).call(call, body).await
    }

    /// An instance to be used for several calls in a row. Taken at the first call, given back when dropped.
    pub(crate) fn hold(self: &Arc<Self>, route: Route) -> Held {
        Held { provider: self.clone(), route, instance: None }
    }

    async fn instance(&self, route: &Route) -> Result<Instance> {
        if let Some(instance) = self.warm.take(route) {
            self.metrics.instances_reused.fetch_add(1, Ordering::Relaxed);
            return Ok(instance);
        }
        let permits = &runtime()?.permits;
        let permit = match permits.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = WaitForPlace::begin();
                match tokio::time::timeout(INSTANCE_WAIT, permits.clone().acquire_owned()).await {
                    Ok(Ok(permit)) => permit,
                    _ => {
                        return Err(Error::new(
                            Kind::ResourceExhausted,
                            "start another instance of the plugin",
                            format!(
                                "the process has as many as it may have, and none became free in {INSTANCE_WAIT:?}"
                            ),
                        )
                        .with_hint("run fewer commands at once, or raise sandbox_host::set_max_instances"));
                    }
                }
            }
        };
        let begun = Instant::now();
        let mut instance = Instance::new(&self.plugin, &self.net, &self.env, &self.limits, permit).await?;
        self.metrics.instances_nanos.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.metrics.instances_made.fetch_add(1, Ordering::Relaxed);
        let Some(cache) = self.warm.cache(route) else { return Ok(instance) };
        let call = Call::reading("hand over what is known");
        let taken = instance
            .call(&self.bounded(call), &self.limits, move |bound, store| {
                Box::pin(async move { bound.guest().call_import_cache(store, &cache).await.map(Ok) })
            })
            .await;
        if let Outcome::Broken(error) = taken {
            // The call that needs the instance has nothing to do with that: the next one is told nothing, and learns anew.
            self.metrics.traps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "what an instance exported, another cannot take");
            self.warm.forget_cache(route);
            return Instance::new(&self.plugin, &self.net, &self.env, &self.limits, instance.into_permit()).await;
        }
        instance.informed = true;
        Ok(instance)
    }

    fn bounded(&self, call: Call) -> Call {
        let usual = call.time == Some(Duration::MAX);
        Call { time: if usual { Some(self.limits.call_time) } else { call.time }, ..call }
    }

    /// Forgets what is kept for a sandbox that is over.
    pub(crate) fn forget(&self, route: &Route) {
        self.warm.forget(route);
    }

    async fn export_cache(&self, route: &Route, instance: &mut Instance) -> bool {
        let call = self.bounded(Call::reading("export what is known"));
        let exported = instance
            .call(&call, &self.limits, |bound, store| {
                Box::pin(async move { bound.guest().call_export_cache(store).await.map(Ok) })
            })
            .await;
        match exported {
            Outcome::Answered(Ok(cache)) => {
                self.warm.store_cache(route, cache);
                true
            }
            Outcome::Answered(Err(_)) => true,
            Outcome::Broken(_) => {
                self.metrics.traps.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

/// An instance held for a series of calls.
pub(crate) struct Held {
    provider: Arc<ProviderInner>,
    route: Route,
    instance: Option<Instance>,
}

impl Held {
    pub(crate) async fn call<R: Send>(&mut self, call: Call, body: impl Body<R>) -> Result<R> {
        let provider = self.provider.clone();
        let span = tracing::debug_span!(
            "call",
            what = %call.what,
            sandbox = self.route.as_deref(),
            exec = call.exec.as_deref(),
            otel.status_code = tracing::field::Empty,
        );
        let (what, effect) = (call.what.clone(), call.effect);
        let over =
            |happened| Error::new(Kind::Conflict, what.clone(), "the provider was shut down").with_happened(happened);
        let signal = call.signal;
        let running = provider.gate.enter();
        if running.is_none() && !(signal && provider.gate.lets_signals_pass()) {
            return Err(over(Happened::No));
        }
        let work = async {
            let counted = Counted { metrics: &provider.metrics, begun: Instant::now() };
            let result = self.answer(&provider, call, body).await;
            if let Err(error) = &result {
                let metrics = &provider.metrics;
                metrics.calls_failed.fetch_add(1, Ordering::Relaxed);
                if error.is_trap() {
                    metrics.traps.fetch_add(1, Ordering::Relaxed);
                }
                tracing::Span::current().record("otel.status_code", "ERROR");
            }
            let micros = counted.micros();
            match &result {
                Ok(_) => tracing::debug!(micros, "done"),
                Err(error) => tracing::debug!(micros, %error, "failed"),
            }
            result
        }
        .instrument(span);
        tokio::select! {
            biased;
            result = work => result,
            () = provider.gate.cancelled(signal) => Err(over(if effect { Happened::Unknown } else { Happened::No })),
        }
    }

    async fn answer<R: Send>(&mut self, provider: &Arc<ProviderInner>, call: Call, body: impl Body<R>) -> Result<R> {
        // While the call runs the instance belongs to this future: dropped together, they cancel the call.
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => provider.instance(&self.route).await?,
        };
        let outcome = instance.call(&provider.bounded(call), &provider.limits, body).await;
        crate::runtime::metrics::note_repeated(instance.take_repeated());
        provider.metrics.compute_micros.fetch_add(instance.computed().as_micros() as u64, Ordering::Relaxed);
        match outcome {
            Outcome::Answered(result) => {
                let usable = !provider.warm.wants_cache(&self.route, &instance)
                    || provider.export_cache(&self.route, &mut instance).await;
                if usable {
                    self.instance = Some(instance);
                }
                result
            }
            Outcome::Broken(error) => Err(error),
        }
    }
}

/// Counts a call when it is over, however it ends.
struct Counted<'a> {
    metrics: &'a Metrics,
    begun: Instant,
}

impl Counted<'_> {
    fn micros(&self) -> u64 {
        self.begun.elapsed().as_micros() as u64
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.called(self.micros());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.provider.warm.put(self.route.take(), instance);
        }
    }
}

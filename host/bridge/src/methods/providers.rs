//! Providers: opening, checks, numbers, the end. And `version` and `close`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use sandbox_host::{INTERFACE_VERSIONS, Keeper, Limits, Plugin, Provider, Proxy, Secret};
use serde_json::{Map, Value, json};

use super::base::{Answer, Context};
use crate::fault::Fault;
use crate::objects::{ProviderObject, Throttle, Use};
use crate::reply::Reply;
use crate::shapes::basic::{Pairs, yes};
use crate::shapes::results::Description;
use crate::shapes::spec::Sandbox;

methods! {
    "version" => version,
    "close" => close,
    "provider.open" => open,
    "provider.describe" => describe,
    "provider.check" => check,
    "provider.check_spec" => check_spec,
    "provider.warm_up" => warm_up,
    "provider.metrics" => metrics,
    "provider.throttled" => throttled,
    "provider.grants" => grants,
    "provider.shutdown" => shutdown,
}

arguments! {
    Nothing {}
    Close { object: u64 }
    Named { provider: u64 }
    Open {
        component: PathBuf,
        #[serde(default)]
        env: Pairs,
        #[serde(default = "yes")]
        inherit_env: bool,
        profile: Option<String>,
        #[serde(default = "yes")]
        read_profiles: bool,
        #[serde(default)]
        anonymous: bool,
        #[serde(default)]
        credentials: Pairs,
        ca_file: Option<PathBuf>,
        grant_only: Option<Vec<String>>,
        show_only: Option<Vec<String>>,
        proxy: Option<String>,
        create_patience_ms: Option<u64>,
        limits: Option<SomeLimits>,
        owner: Option<String>,
        lease_ms: Option<u64>,
    }
    CheckSpec { provider: u64, spec: Sandbox }
    WarmUp { provider: u64, instances: usize }
    Shutdown { provider: u64, #[serde(default)] grace_ms: u64 }
    // The fields of `Limits`. Times are in milliseconds.
    SomeLimits {
        memory: Option<usize>,
        table_elements: Option<usize>,
        call_time: Option<u64>,
        answer_time: Option<u64>,
        overdue_time: Option<u64>,
        compute_time: Option<u64>,
        resources: Option<usize>,
        header_bytes: Option<usize>,
        body_bytes: Option<u64>,
    }
}

async fn version(_: Context, _: Nothing) -> Answer {
    Reply::json(json!({ "version": env!("CARGO_PKG_VERSION"), "interface_versions": INTERFACE_VERSIONS }))
}

async fn close(context: Context, Close { object }: Close) -> Answer {
    context.objects.close(object)?;
    Reply::null()
}

async fn open(context: Context, arguments: Open) -> Answer {
    let keeping = match (arguments.owner.clone(), arguments.lease_ms) {
        (Some(owner), Some(lease)) => Some((owner, Duration::from_millis(lease))),
        (None, None) => None,
        _ => return Err(Fault::invalid("`owner` and `lease_ms` need each other")),
    };
    let plugin = Plugin::load(&arguments.component).await?;
    let throttle = Arc::new(Throttle::default());
    let provider = build(&plugin, arguments, throttle.clone()).await?;
    let keeper = keeping.map(|(owner, lease)| Keeper::new(&provider, owner, lease)).transpose()?;
    let run = keeper.as_ref().map(|keeper| keeper.run_id().to_owned());
    let number = context.objects.add_provider(ProviderObject { provider, keeper, throttle })?;
    Reply::json(json!({
        "provider": number,
        "run_id": run,
        "name": plugin.manifest().name,
        "interface_version": plugin.interface_version(),
    }))
}

async fn build(plugin: &Plugin, arguments: Open, throttle: Arc<Throttle>) -> Result<Provider, Fault> {
    let mut builder = Provider::builder(plugin)
        .inherit_env(arguments.inherit_env)
        .read_profiles(arguments.read_profiles)
        .anonymous(arguments.anonymous)
        .on_wait(move |waiting| {
            *throttle.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + waiting.pause);
            throttle.count.fetch_add(1, Ordering::Relaxed);
        });
    for (name, value) in arguments.env.0 {
        builder = builder.env(name, value);
    }
    for (name, value) in arguments.credentials.0 {
        builder = builder.credential(name, Secret::new(value));
    }
    if let Some(profile) = arguments.profile {
        builder = builder.profile(profile);
    }
    if let Some(path) = arguments.ca_file {
        builder = builder.ca_file(path);
    }
    if let Some(names) = arguments.grant_only {
        builder = builder.grant_only(names);
    }
    if let Some(names) = arguments.show_only {
        builder = builder.show_only(names);
    }
    if let Some(proxy) = arguments.proxy {
        builder = builder.proxy(if proxy == "none" { Proxy::Off } else { Proxy::To(Secret::new(proxy)) });
    }
    if let Some(patience) = arguments.create_patience_ms {
        builder = builder.create_patience(Duration::from_millis(patience));
    }
    if let Some(limits) = arguments.limits {
        builder = builder.limits(limits.complete());
    }
    Ok(builder.build().await?)
}

impl SomeLimits {
    fn complete(self) -> Limits {
        let mut limits = Limits::default();
        let time = |millis: Option<u64>, default| millis.map_or(default, Duration::from_millis);
        limits.memory = self.memory.unwrap_or(limits.memory);
        limits.table_elements = self.table_elements.unwrap_or(limits.table_elements);
        limits.call_time = time(self.call_time, limits.call_time);
        limits.answer_time = time(self.answer_time, limits.answer_time);
        limits.overdue_time = time(self.overdue_time, limits.overdue_time);
        limits.compute_time = time(self.compute_time, limits.compute_time);
        limits.resources = self.resources.unwrap_or(limits.resources);
        limits.header_bytes = self.header_bytes.unwrap_or(limits.header_bytes);
        limits.body_bytes = self.body_bytes.unwrap_or(limits.body_bytes);
        limits
    }
}

fn find(context: &Context, provider: u64) -> Result<Use<ProviderObject>, Fault> {
    context.objects.get(provider)
}

async fn describe(context: Context, Named { provider }: Named) -> Answer {
    let provider = find(&context, provider)?;
    provider.shaped::<Description>(provider.object.provider.describe()).await
}

async fn check(context: Context, Named { provider }: Named) -> Answer {
    let provider = find(&context, provider)?;
    provider.done(provider.object.provider.check()).await
}

async fn check_spec(context: Context, CheckSpec { provider, spec }: CheckSpec) -> Answer {
    let provider = find(&context, provider)?;
    provider.done(provider.object.provider.check_spec(&spec.unsent())).await
}

async fn warm_up(context: Context, WarmUp { provider, instances }: WarmUp) -> Answer {
    let provider = find(&context, provider)?;
    provider.done(provider.object.provider.warm_up(instances)).await
}

async fn metrics(context: Context, Named { provider }: Named) -> Answer {
    let provider = find(&context, provider)?;
    let provider = &provider.object.provider;
    let snapshot = provider.metrics();
    let numbers = snapshot.list().into_iter().map(|metric| (metric.name.to_owned(), Value::from(metric.value)));
    let mut all: Map<String, Value> = numbers.collect();
    all.insert("prometheus".to_owned(), snapshot.prometheus(provider.plugin().label()).into());
    Reply::json(all)
}

async fn throttled(context: Context, Named { provider }: Named) -> Answer {
    let provider = find(&context, provider)?;
    let throttle = &provider.object.throttle;
    let until = *throttle.until.lock().unwrap_or_else(PoisonError::into_inner);
    let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Reply::json(json!({ "count": throttle.count.load(Ordering::Relaxed), "remaining_ms": left }))
}

async fn grants(context: Context, Named { provider }: Named) -> Answer {
    let provider = find(&context, provider)?;
    let grants = provider.object.provider.grants().into_iter().map(|grant| {
        json!({
            "origin": grant.origin.to_string(),
            "socket": grant.socket,
            "name": grant.name,
            "learned_from": grant.learned_from,
            "credentials": grant.credentials,
            "private_addresses": grant.private_addresses,
        })
    });
    Reply::json(grants.collect::<Vec<_>>())
}

async fn shutdown(context: Context, Shutdown { provider, grace_ms }: Shutdown) -> Answer {
    let cancelled = context.objects.shut_down(provider, Duration::from_millis(grace_ms)).await?;
    Reply::json(json!({ "cancelled": cancelled }))
}

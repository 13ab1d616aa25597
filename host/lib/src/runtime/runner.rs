//! Runs the calls of one provider on warm or new instances, counts them, and cancels them on shutdown.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::Instrument;

use crate::error::{Error, Happened, Kind, Result};
use crate::net::hook::Net;
use crate::plugin::engine;
use crate::plugin::manifest::InstancesWish;
use crate::runtime::call::{AnyBody, Body, Call, Reply, erased};
use crate::runtime::gate::Gate;
use crate::runtime::instance::{Instance, Outcome};
use crate::runtime::limits::Limits;
use crate::runtime::link::Linked;
use crate::runtime::metrics::{self, CallCounters, Snapshot};
use crate::runtime::signals::Signals;
use crate::runtime::single::Single;
use crate::runtime::warm::{self, Route, WaitForPlace, Warm};

/// How long a call waits for an instance if the process has reached its maximum number of instances.
const INSTANCE_WAIT: Duration = Duration::from_secs(60);

/// How long a shutdown waits for the signals to commands that were given up. A signal takes milliseconds, and a service
/// that does not answer must not delay the exit for long.
const SIGNALS_TIME: Duration = Duration::from_secs(10);

/// Calls one function of the interface: `ask!(provider, route, call, |guest, store| guest.call_x(store, &a))`.
macro_rules! ask {
    ($provider:expr, $route:expr, $call:expr, |$guest:ident, $store:ident| $body:expr) => {
        $provider
            .call(&$route, $call, move |bound, $store| {
                Box::pin(async move {
                    let $guest = $crate::runtime::functions::Functions::of(bound);
                    $body.await
                })
            })
            .await
    };
}
pub(crate) use ask;

/// The state that the handles of one provider share.
pub(crate) struct Runner {
    plugin: Arc<Linked>,
    pub(crate) net: Arc<Net>,
    /// The environment variables that the component sees.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) limits: Limits,
    warm: Arc<Warm>,
    /// The instance for all calls, if the plugin asks for a single one.
    single: Option<Single>,
    pub(crate) gate: Gate,
    pub(super) metrics: CallCounters,
    /// The runtime for work that continues after a handle was dropped, possibly on a thread outside of the runtime.
    pub(crate) tasks: tokio::runtime::Handle,
    /// Signals that dropped handles have left to be sent.
    pub(crate) signals: Signals,
}

impl Runner {
    /// Creates a runner. Must be called within a tokio runtime, where a task drops idle instances as long as the runner
    /// lives.
    pub(crate) fn new(plugin: Arc<Linked>, net: Net, env: Vec<(String, String)>, limits: Limits) -> Arc<Runner> {
        let single = (plugin.loaded.manifest.instances == InstancesWish::One).then(Single::default);
        let runner = Arc::new(Runner {
            plugin,
            net: Arc::new(net),
            env,
            limits,
            warm: Warm::new(),
            single,
            gate: Gate::default(),
            metrics: CallCounters::default(),
            tasks: tokio::runtime::Handle::current(),
            signals: Signals::default(),
        });
        let weak = Arc::downgrade(&runner);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(warm::IDLE / 4).await;
                let Some(runner) = weak.upgrade() else { break };
                runner.warm.purge(warm::IDLE);
            }
        });
        runner
    }

    /// Returns the counters and gauges of this provider.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let warm = self.warm.len() + self.single.as_ref().map_or(0, Single::len);
        let warm = warm as u64;
        Snapshot { instances_warm: warm, ..Snapshot::of(&self.metrics, self.net.counters(), self.net.counts()) }
    }

    /// Implements [`Provider::shutdown`](crate::Provider::shutdown).
    pub(crate) async fn shut_down(&self, grace: Duration) -> usize {
        let cancelled = self.gate.close(grace).await;
        // Signals to the commands of cancelled calls, and of handles that were dropped before.
        self.signals.wait(SIGNALS_TIME).await;
        self.gate.shut();
        self.warm.purge(Duration::ZERO);
        if let Some(single) = &self.single {
            single.clear();
        }
        cancelled
    }

    /// Returns whether all calls run in one instance, one after another.
    pub(crate) fn is_single(&self) -> bool {
        self.single.is_some()
    }

    /// Runs one call on a warm instance, or on a new one.
    pub(crate) async fn call<R: Send + 'static>(
        self: &Arc<Self>,
        route: &Route,
        call: Call,
        body: impl Body<R>,
    ) -> Result<R> {
        self.hold(route.clone()).call(call, body).await
    }

    /// Returns a holder of one instance for several calls in a row. The first call takes an instance. Dropping the
    /// holder returns the instance to the warm ones.
    pub(crate) fn hold(self: &Arc<Self>, route: Route) -> Held {
        Held { runner: self.clone(), route, instance: None }
    }

    pub(super) async fn instance(&self, route: &Route) -> Result<Instance> {
        if let Some(instance) = self.warm.take(route) {
            self.metrics.instances_reused.fetch_add(1, Ordering::Relaxed);
            return Ok(instance);
        }
        let shared = engine::shared()?;
        let (permits, memories) = (&shared.permits, self.plugin.loaded.memories.min(shared.max));
        let permit = match permits.clone().try_acquire_many_owned(memories) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = WaitForPlace::begin();
                match tokio::time::timeout(INSTANCE_WAIT, permits.clone().acquire_many_owned(memories)).await {
                    Ok(Ok(permit)) => permit,
                    _ => {
                        return Err(Error::new(
                            Kind::ResourceExhausted,
                            "start another instance of the plugin",
                            format!(
                                "the process has reached its limit of instances, and none became free within {INSTANCE_WAIT:?}"
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
        let call = Call::reading("import the state of another instance");
        let taken = instance
            .call(&call, &self.limits, move |bound, store| {
                Box::pin(async move { bound.guest().call_import_cache(store, &cache).await.map(Ok) })
            })
            .await;
        if let Outcome::Broken(error) = taken {
            // The cache is dropped, so that the next instance does not crash on it. The current call is not affected: it
            // gets a new instance without a cache.
            self.metrics.traps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "an instance could not import the state of another instance");
            self.warm.forget_cache(route);
            return Instance::new(&self.plugin, &self.net, &self.env, &self.limits, instance.into_permit()).await;
        }
        instance.informed = true;
        Ok(instance)
    }

    /// Drops the warm instances and the cache of a sandbox that has ended.
    pub(crate) fn forget(&self, route: &Route) {
        self.warm.forget(route);
    }

    async fn export_cache(&self, route: &Route, instance: &mut Instance) -> bool {
        let call = Call::reading("export the state of an instance");
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

/// One instance for a series of calls.
pub(crate) struct Held {
    runner: Arc<Runner>,
    route: Route,
    instance: Option<Instance>,
}

impl Held {
    pub(crate) async fn call<R: Send + 'static>(&mut self, call: Call, body: impl Body<R>) -> Result<R> {
        let reply = self.run(call, erased(body)).await?;
        Ok(*reply.downcast().expect("the reply has the type of the body"))
    }

    /// Runs one call. A plain function with a boxed future, so that its code is generated in this crate only.
    fn run(&mut self, call: Call, body: AnyBody) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send + '_>> {
        Box::pin(self.run_now(call, body))
    }

    async fn run_now(&mut self, call: Call, body: AnyBody) -> Result<Reply> {
        let runner = self.runner.clone();
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
        let running = runner.gate.enter();
        if running.is_none() && !(signal && runner.gate.lets_signals_pass()) {
            return Err(over(Happened::No));
        }
        let work = async {
            let counted = Counted { metrics: &runner.metrics, begun: Instant::now() };
            let result = self.answer(&runner, call, body).await;
            let result = result.map_err(|error| error.with_sandbox(self.route.as_deref()));
            if let Err(error) = &result {
                let metrics = &runner.metrics;
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
            () = runner.gate.cancelled(signal) => Err(over(if effect { Happened::Unknown } else { Happened::No })),
        }
    }

    async fn answer(&mut self, runner: &Arc<Runner>, call: Call, body: AnyBody) -> Result<Reply> {
        if let Some(single) = &runner.single {
            return single.call(runner, call, body).await;
        }
        // During the call this future owns the instance. Dropping the future drops the instance, which cancels the
        // call.
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => runner.instance(&self.route).await?,
        };
        let outcome = instance.call(&call, &runner.limits, body).await;
        metrics::note_repeated(instance.take_repeated());
        runner.metrics.compute_micros.fetch_add(instance.computed().as_micros() as u64, Ordering::Relaxed);
        match outcome {
            Outcome::Answered(result) => {
                let usable = !runner.warm.wants_cache(&self.route, &instance)
                    || runner.export_cache(&self.route, &mut instance).await;
                if usable {
                    self.instance = Some(instance);
                }
                result
            }
            Outcome::Broken(error) => Err(error),
        }
    }
}

/// Counts a call when it ends, in whatever way.
struct Counted<'a> {
    metrics: &'a CallCounters,
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
            self.runner.warm.put(self.route.take(), instance);
        }
    }
}

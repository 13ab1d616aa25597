//! What goes on inside, for those who look: lines on standard error, and, for those who name a collector in
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, spans and counters by OTLP over gRPC. The standard's other variables hold as well
//! (`OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME`, …). Nothing is sent without that variable.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Diagnostics go to stderr: warnings always, more with `-v`, or what `SANDBOX_LOG` says.
fn lines<S>(verbose: u8, no_color: bool) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let filter = match std::env::var("SANDBOX_LOG") {
        Ok(filter) if !filter.is_empty() => EnvFilter::new(filter),
        _ => EnvFilter::new(match verbose {
            0 => "off",
            1 => "sandbox=debug,sandbox_host=debug",
            _ => "sandbox=trace,sandbox_host=trace,hyper=debug,rustls=debug,info",
        }),
    };
    tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // They would be printed by a macro that panics when standard error cannot be written.
        .log_internal_errors(false)
        .with_ansi(!no_color && std::io::stderr().is_terminal())
        .with_filter(filter)
}

#[cfg(not(feature = "otlp"))]
pub use without::*;

#[cfg(feature = "otlp")]
pub use with::*;

/// The program without the feature `otlp`.
#[cfg(not(feature = "otlp"))]
mod without {
    use super::*;

    /// Nothing to be ended.
    pub struct Telemetry;

    /// Begins to tell what goes on.
    pub fn start(verbose: u8, no_color: bool) -> Result<Telemetry, String> {
        tracing_subscriber::registry().with(lines(verbose, no_color)).init();
        Ok(Telemetry)
    }

    /// Passes on no counters.
    pub fn watch(_: &sandbox_host::Provider) {}

    impl Telemetry {
        /// Nothing is left to be sent.
        pub fn end(self) -> Result<(), String> {
            Ok(())
        }
    }
}

#[cfg(feature = "otlp")]
mod with {
    use std::time::Duration;

    use opentelemetry::KeyValue;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::{MetricExporter, SpanExporter};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use sandbox_host::Provider;
    use tracing_subscriber::filter::Targets;

    use super::*;

    /// Where the collector is, as the standard has it.
    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    /// In which form it is spoken to.
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

    /// How long the end of the program waits for what is still to be sent, spans and counters each: enough for a collector
    /// elsewhere, and not so long that one that is away is taken for a hang.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// What has to be ended, so that all of it arrives.
    pub struct Telemetry(Option<(SdkTracerProvider, SdkMeterProvider)>);

    /// Begins to tell what goes on. Called within a runtime.
    ///
    /// # Errors
    ///
    /// When the settings for the collector cannot be used, in words.
    pub fn start(verbose: u8, no_color: bool) -> Result<Telemetry, String> {
        let registry = tracing_subscriber::registry().with(lines(verbose, no_color));
        let Some(endpoint) = std::env::var(ENDPOINT).ok().filter(|endpoint| !endpoint.is_empty()) else {
            registry.init();
            return Ok(Telemetry(None));
        };
        if let Some(other) = std::env::var(PROTOCOL).ok().filter(|name| !matches!(name.as_str(), "" | "grpc")) {
            return Err(format!("{PROTOCOL} is {other:?}, and this program speaks grpc alone"));
        }
        let unusable = |error: opentelemetry_otlp::ExporterBuildError| format!("{ENDPOINT} is {endpoint:?}: {error}");
        let spans = SpanExporter::builder().with_tonic().build().map_err(unusable)?;
        let counters = MetricExporter::builder().with_tonic().build().map_err(unusable)?;
        // OTEL_SERVICE_NAME wins.
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name("sandbox") };
        let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let tracers = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(spans).build();
        let meters = SdkMeterProvider::builder().with_resource(resource).with_periodic_exporter(counters).build();
        opentelemetry::global::set_meter_provider(meters.clone());
        // Ours alone: what the way to the collector does itself would be told to it again and again.
        let ours = Targets::new()
            .with_target("sandbox", tracing::Level::DEBUG)
            .with_target("sandbox_host", tracing::Level::DEBUG);
        let layer = tracing_opentelemetry::layer().with_tracer(tracers.tracer("sandbox"));
        registry.with(layer.with_filter(ours)).init();
        Ok(Telemetry(Some((tracers, meters))))
    }

    /// Passes on a provider's counters.
    pub fn watch(provider: &Provider) {
        let meter = opentelemetry::global::meter("sandbox");
        for entry in provider.metrics().entries() {
            let read = {
                let provider = provider.clone();
                move || provider.metrics().entries().into_iter().find(|e| e.name == entry.name).map(|e| e.value)
            };
            let name = format!("sandbox_host.{}", entry.name);
            // The meter keeps the callback for as long as it lives; what is given back only names the instrument.
            if entry.grows {
                let counter = meter.u64_observable_counter(name).with_description(entry.help);
                counter.with_callback(move |to| read().into_iter().for_each(|value| to.observe(value, &[]))).build();
            } else {
                let gauge = meter.u64_observable_gauge(name).with_description(entry.help);
                gauge.with_callback(move |to| read().into_iter().for_each(|value| to.observe(value, &[]))).build();
            }
        }
    }

    impl Telemetry {
        /// Sends what is left. Called where waiting is allowed, with the runtime still at work.
        ///
        /// # Errors
        ///
        /// When the collector did not take it, in words.
        pub fn end(self) -> Result<(), String> {
            let Some((tracers, meters)) = self.0 else { return Ok(()) };
            let spans = tracers.shutdown_with_timeout(PATIENCE);
            let counters = meters.shutdown_with_timeout(PATIENCE);
            spans.and(counters).map_err(|error| format!("the collector of {ENDPOINT} did not take all: {error}"))
        }
    }
}

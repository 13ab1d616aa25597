//! Diagnostics: log lines on standard error and, if `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, spans and counters
//! by OTLP over gRPC. The other variables of the OpenTelemetry standard apply as well (`OTEL_EXPORTER_OTLP_HEADERS`,
//! `OTEL_SERVICE_NAME`, …). Without that variable, nothing is sent.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Returns the layer that prints log lines on standard error. `SANDBOX_LOG` is the filter if it is set; otherwise nothing
/// is printed without `-v`.
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
        // Internal errors would be printed with a macro that panics if standard error cannot be written.
        .log_internal_errors(false)
        .with_ansi(!no_color && std::io::stderr().is_terminal())
        .with_filter(filter)
}

#[cfg(not(feature = "otlp"))]
pub use without::*;

#[cfg(feature = "otlp")]
pub use with::*;

/// The implementation without the feature `otlp`.
#[cfg(not(feature = "otlp"))]
mod without {
    use super::*;

    /// The telemetry of this program. Needs no shutdown.
    pub struct Telemetry;

    /// Starts logging.
    pub fn start(verbose: u8, no_color: bool) -> Result<Telemetry, String> {
        tracing_subscriber::registry().with(lines(verbose, no_color)).init();
        Ok(Telemetry)
    }

    /// Does nothing: without `otlp`, no counters are exported.
    pub fn watch(_: &sandbox_host::Provider) {}

    impl Telemetry {
        /// Does nothing and succeeds.
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

    /// The standard variable for the URL of the collector.
    const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    /// The standard variable for the protocol of the collector.
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";

    /// Timeout at the end of the program for sending the remaining spans, and again for the counters: enough for a remote
    /// collector, and short enough that an unreachable one does not look like a hang.
    const PATIENCE: Duration = Duration::from_secs(3);

    /// The telemetry of this program. [`Telemetry::end`] sends the remaining data.
    pub struct Telemetry(Option<(SdkTracerProvider, SdkMeterProvider)>);

    /// Starts logging and, if a collector is configured, the export. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// Returns a message if the settings for the collector are invalid.
    pub fn start(verbose: u8, no_color: bool) -> Result<Telemetry, String> {
        let registry = tracing_subscriber::registry().with(lines(verbose, no_color));
        let Some(endpoint) = std::env::var(ENDPOINT).ok().filter(|endpoint| !endpoint.is_empty()) else {
            registry.init();
            return Ok(Telemetry(None));
        };
        if let Some(other) = std::env::var(PROTOCOL).ok().filter(|name| !matches!(name.as_str(), "" | "grpc")) {
            return Err(format!("{PROTOCOL} is {other:?}, but this program supports only grpc"));
        }
        let unusable = |error: opentelemetry_otlp::ExporterBuildError| format!("{ENDPOINT} is {endpoint:?}: {error}");
        let spans = SpanExporter::builder().with_tonic().build().map_err(unusable)?;
        let counters = MetricExporter::builder().with_tonic().build().map_err(unusable)?;
        // `OTEL_SERVICE_NAME` takes precedence.
        let named = std::env::var_os("OTEL_SERVICE_NAME").is_some();
        let resource = Resource::builder();
        let resource = if named { resource } else { resource.with_service_name("sandbox") };
        let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let tracers = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(spans).build();
        let meters = SdkMeterProvider::builder().with_resource(resource).with_periodic_exporter(counters).build();
        opentelemetry::global::set_meter_provider(meters.clone());
        // Only spans of this program: those of the connection to the collector would cause further exports.
        let ours = Targets::new()
            .with_target("sandbox", tracing::Level::DEBUG)
            .with_target("sandbox_host", tracing::Level::DEBUG);
        let layer = tracing_opentelemetry::layer().with_tracer(tracers.tracer("sandbox"));
        registry.with(layer.with_filter(ours)).init();
        Ok(Telemetry(Some((tracers, meters))))
    }

    /// Exports a provider's counters.
    pub fn watch(provider: &Provider) {
        let meter = opentelemetry::global::meter("sandbox");
        for entry in provider.metrics().list() {
            let read = {
                let provider = provider.clone();
                move || provider.metrics().list().into_iter().find(|e| e.name == entry.name).map(|e| e.value)
            };
            let name = format!("sandbox_host.{}", entry.name);
            // The meter keeps the callback; the returned instrument is only a handle, so it can be dropped.
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
        /// Sends the remaining spans and counters. Blocks, and requires that the runtime is still running.
        ///
        /// # Errors
        ///
        /// Returns a message if the collector did not accept the data.
        pub fn end(self) -> Result<(), String> {
            let Some((tracers, meters)) = self.0 else { return Ok(()) };
            let spans = tracers.shutdown_with_timeout(PATIENCE);
            let counters = meters.shutdown_with_timeout(PATIENCE);
            spans.and(counters).map_err(|error| format!("the collector at {ENDPOINT} did not accept all data: {error}"))
        }
    }
}

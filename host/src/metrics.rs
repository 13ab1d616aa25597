//! Counters of one provider: what it did, what it cost.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters; all only grow.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) calls: AtomicU64,
    pub(crate) calls_failed: AtomicU64,
    pub(crate) traps: AtomicU64,
    pub(crate) call_micros: AtomicU64,
    pub(crate) compute_micros: AtomicU64,
    pub(crate) instances_made: AtomicU64,
    pub(crate) instances_reused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) requests_denied: AtomicU64,
    pub(crate) requests_failed: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) connections_opened: AtomicU64,
    pub(crate) connections_failed: AtomicU64,
}

/// A look at the counters of a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls into the component.
    pub calls: u64,
    /// Those that gave an error.
    pub calls_failed: u64,
    /// Those in which the component was stopped.
    pub traps: u64,
    /// Time in calls, waiting included, in microseconds.
    pub call_micros: u64,
    /// Time in which the component computed, in microseconds.
    pub compute_micros: u64,
    /// Instances made.
    pub instances_made: u64,
    /// Calls that found a warm instance.
    pub instances_reused: u64,
    /// Instances kept warm now.
    pub instances_warm: u64,
    /// HTTP requests sent.
    pub requests: u64,
    /// HTTP requests that the policy denied.
    pub requests_denied: u64,
    /// HTTP requests without an answer.
    pub requests_failed: u64,
    /// Body bytes sent.
    pub bytes_sent: u64,
    /// Body bytes received.
    pub bytes_received: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Connections that could not be opened.
    pub connections_failed: u64,
    /// Connections open now.
    pub connections: u64,
    /// Streams in use now.
    pub streams: u64,
}

impl Metrics {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            calls: get(&self.calls),
            calls_failed: get(&self.calls_failed),
            traps: get(&self.traps),
            call_micros: get(&self.call_micros),
            compute_micros: get(&self.compute_micros),
            instances_made: get(&self.instances_made),
            instances_reused: get(&self.instances_reused),
            instances_warm: 0,
            requests: get(&self.requests),
            requests_denied: get(&self.requests_denied),
            requests_failed: get(&self.requests_failed),
            bytes_sent: get(&self.bytes_sent),
            bytes_received: get(&self.bytes_received),
            connections_opened: get(&self.connections_opened),
            connections_failed: get(&self.connections_failed),
            connections: 0,
            streams: 0,
        }
    }
}

impl Snapshot {
    /// The counters in Prometheus' text form, with the given value of the label `provider`.
    pub fn prometheus(&self, provider: &str) -> String {
        let label: String = provider.chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect();
        let rows = [
            ("calls_total", "counter", self.calls, "Calls into the component"),
            ("calls_failed_total", "counter", self.calls_failed, "Calls that gave an error"),
            ("traps_total", "counter", self.traps, "Calls in which the component was stopped"),
            ("call_microseconds_total", "counter", self.call_micros, "Time in calls"),
            ("compute_microseconds_total", "counter", self.compute_micros, "Time in which the component computed"),
            ("instances_made_total", "counter", self.instances_made, "Instances made"),
            ("instances_reused_total", "counter", self.instances_reused, "Calls that found a warm instance"),
            ("instances_warm", "gauge", self.instances_warm, "Instances kept warm"),
            ("requests_total", "counter", self.requests, "HTTP requests"),
            ("requests_denied_total", "counter", self.requests_denied, "HTTP requests that the policy denied"),
            ("requests_failed_total", "counter", self.requests_failed, "HTTP requests without an answer"),
            ("sent_bytes_total", "counter", self.bytes_sent, "Body bytes sent"),
            ("received_bytes_total", "counter", self.bytes_received, "Body bytes received"),
            ("connections_opened_total", "counter", self.connections_opened, "Connections opened"),
            ("connections_failed_total", "counter", self.connections_failed, "Connections that could not be opened"),
            ("connections", "gauge", self.connections, "Open connections"),
            ("streams", "gauge", self.streams, "Streams in use"),
        ];
        let mut text = String::new();
        for (name, kind, value, help) in rows {
            text.push_str(&format!(
                "# HELP sandbox_host_{name} {help}.\n# TYPE sandbox_host_{name} {kind}\n\
                 sandbox_host_{name}{{provider=\"{label}\"}} {value}\n"
            ));
        }
        text
    }
}

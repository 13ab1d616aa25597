//! Counters of one provider: its calls, requests and connections.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net::counters::Counters;

/// Upper bounds of the classes of the latency histogram, in microseconds, from one millisecond to ten minutes.
pub const LATENCY_BOUNDS: [u64; 17] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
    600_000_000,
];

tokio::task_local! {
    /// Retried requests of the calls in one future.
    static REPEATED: AtomicU64;
}

/// Runs a future and counts the retried requests of its calls, as the component marks them. Calls in tasks that the
/// future spawns are not counted. Returns the output and the count.
pub async fn count_retries<F: Future>(work: F) -> (F::Output, u64) {
    let counted = async {
        let output = work.await;
        (output, REPEATED.with(|count| count.load(Ordering::Relaxed)))
    };
    REPEATED.scope(AtomicU64::new(0), counted).await
}

pub(crate) fn note_repeated(number: u64) {
    let _ = REPEATED.try_with(|count| count.fetch_add(number, Ordering::Relaxed));
}

/// Counters of calls. They never decrease. [`Counters`] has those of requests.
#[derive(Debug, Default)]
pub(crate) struct CallCounters {
    pub(crate) calls: AtomicU64,
    pub(crate) calls_failed: AtomicU64,
    pub(crate) traps: AtomicU64,
    pub(crate) call_micros: AtomicU64,
    /// Calls by duration: at most the bound with the same index, and more than the previous bound.
    pub(crate) latencies: [AtomicU64; LATENCY_BOUNDS.len()],
    pub(crate) compute_micros: AtomicU64,
    pub(crate) instances_made: AtomicU64,
    pub(crate) instances_nanos: AtomicU64,
    pub(crate) instances_reused: AtomicU64,
}

/// The counters and gauges of a provider at one point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Ended calls to the component: answered, failed or cancelled.
    pub calls: u64,
    /// Calls that returned an error.
    pub calls_failed: u64,
    /// Calls during which the component was stopped.
    pub traps: u64,
    /// Total time of calls, waiting included, in microseconds.
    pub call_micros: u64,
    /// Calls by duration: at most the bound in [`LATENCY_BOUNDS`] with the same index, and more than the previous
    /// bound. Calls above the last bound are counted only in `calls`.
    pub latencies: [u64; LATENCY_BOUNDS.len()],
    /// Total computing time of the component, in microseconds.
    pub compute_micros: u64,
    /// Instances created.
    pub instances_made: u64,
    /// Total time to create instances, in microseconds.
    pub instances_micros: u64,
    /// Calls that used a warm instance.
    pub instances_reused: u64,
    /// Warm instances now.
    pub instances_warm: u64,
    /// HTTP requests sent.
    pub requests: u64,
    /// HTTP requests that the component marked as retries.
    pub requests_repeated: u64,
    /// HTTP requests that the policy denied.
    pub requests_denied: u64,
    /// HTTP requests without a response.
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

impl CallCounters {
    /// Counts an ended call by its duration, whether or not it succeeded.
    pub(crate) fn called(&self, micros: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.call_micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(class) = LATENCY_BOUNDS.iter().position(|bound| micros <= *bound) {
            self.latencies[class].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A number of a [`Snapshot`] with its name, for programs that export all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metric {
    /// The name in lower case with underscores, including the unit if there is one.
    pub name: &'static str,
    /// True for a counter, which never decreases. False for a gauge.
    pub grows: bool,
    /// Its value.
    pub value: u64,
    /// The description for users.
    pub help: &'static str,
}

impl Snapshot {
    /// Creates a snapshot from the counters of calls and requests (`net`), and the numbers of open connections and of
    /// streams in use. `instances_warm` is 0.
    pub(crate) fn of(calls: &CallCounters, net: &Counters, (connections, streams): (usize, usize)) -> Snapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            calls: get(&calls.calls),
            calls_failed: get(&calls.calls_failed),
            traps: get(&calls.traps),
            call_micros: get(&calls.call_micros),
            latencies: std::array::from_fn(|class| get(&calls.latencies[class])),
            compute_micros: get(&calls.compute_micros),
            instances_made: get(&calls.instances_made),
            instances_micros: get(&calls.instances_nanos) / 1000,
            instances_reused: get(&calls.instances_reused),
            instances_warm: 0,
            requests: get(&net.requests),
            requests_repeated: get(&net.requests_repeated),
            requests_denied: get(&net.requests_denied),
            requests_failed: get(&net.requests_failed),
            bytes_sent: get(&net.bytes_sent),
            bytes_received: get(&net.bytes_received),
            connections_opened: get(&net.connections_opened),
            connections_failed: get(&net.connections_failed),
            connections: connections as u64,
            streams: streams as u64,
        }
    }

    /// Returns all numbers except the histogram.
    pub fn list(&self) -> Vec<Metric> {
        let entry = |name, grows, value, help| Metric { name, grows, value, help };
        vec![
            entry("calls", true, self.calls, "Calls into the component"),
            entry("calls_failed", true, self.calls_failed, "Calls that returned an error"),
            entry("traps", true, self.traps, "Calls in which the component trapped"),
            entry("call_microseconds", true, self.call_micros, "Time in calls, in microseconds"),
            entry("compute_microseconds", true, self.compute_micros, "CPU time of the component, in microseconds"),
            entry("instances_made", true, self.instances_made, "Instances created"),
            entry("instances_microseconds", true, self.instances_micros, "Time to create instances, in microseconds"),
            entry("instances_reused", true, self.instances_reused, "Calls that reused a warm instance"),
            entry("instances_warm", false, self.instances_warm, "Instances kept warm"),
            entry("requests", true, self.requests, "HTTP requests"),
            entry("requests_repeated", true, self.requests_repeated, "HTTP requests that are retries"),
            entry("requests_denied", true, self.requests_denied, "HTTP requests that the policy denied"),
            entry("requests_failed", true, self.requests_failed, "HTTP requests without a response"),
            entry("sent_bytes", true, self.bytes_sent, "Body bytes sent"),
            entry("received_bytes", true, self.bytes_received, "Body bytes received"),
            entry("connections_opened", true, self.connections_opened, "Connections opened"),
            entry("connections_failed", true, self.connections_failed, "Connections that could not be opened"),
            entry("connections", false, self.connections, "Open connections"),
            entry("streams", false, self.streams, "Streams in use"),
        ]
    }

    /// Returns the numbers in the text format of Prometheus, with the given value of the label `provider`. The texts of
    /// several providers must not be concatenated, because each name may be described only once: use
    /// [`prometheus_of`](Snapshot::prometheus_of).
    pub fn prometheus(&self, provider: &str) -> String {
        Snapshot::prometheus_of([(provider, self)])
    }

    /// Returns the numbers of several providers in the text format of Prometheus. Each provider needs a different value
    /// of the label `provider`, because equal labels mean the same time series.
    pub fn prometheus_of<'a>(providers: impl IntoIterator<Item = (&'a str, &'a Snapshot)>) -> String {
        let label = |provider: &str| provider.chars().filter(|c| !matches!(c, '"' | '\\' | '\n')).collect::<String>();
        let providers: Vec<_> =
            providers.into_iter().map(|(provider, snapshot)| (label(provider), snapshot, snapshot.list())).collect();
        let mut text = String::new();
        for (index, Metric { name, grows, help, .. }) in Snapshot::default().list().into_iter().enumerate() {
            // Prometheus expects the suffix `_total` on counters.
            let (name, kind) = if grows { (format!("{name}_total"), "counter") } else { (name.to_owned(), "gauge") };
            text.push_str(&format!("# HELP sandbox_host_{name} {help}.\n# TYPE sandbox_host_{name} {kind}\n"));
            for (label, _, entries) in &providers {
                text.push_str(&format!("sandbox_host_{name}{{provider=\"{label}\"}} {}\n", entries[index].value));
            }
        }
        let name = "sandbox_host_call_duration_seconds";
        text.push_str(&format!("# HELP {name} Duration of calls.\n# TYPE {name} histogram\n"));
        for (label, snapshot, _) in &providers {
            // In Prometheus, the count of each class includes the lower classes.
            let mut below = 0;
            for (bound, count) in LATENCY_BOUNDS.iter().zip(snapshot.latencies) {
                below += count;
                let bound = *bound as f64 / 1e6;
                text.push_str(&format!("{name}_bucket{{provider=\"{label}\",le=\"{bound}\"}} {below}\n"));
            }
            let (calls, sum) = (snapshot.calls, snapshot.call_micros as f64 / 1e6);
            text.push_str(&format!("{name}_bucket{{provider=\"{label}\",le=\"+Inf\"}} {calls}\n"));
            text.push_str(&format!(
                "{name}_sum{{provider=\"{label}\"}} {sum}\n{name}_count{{provider=\"{label}\"}} {calls}\n"
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_as_prometheus_reads_it() {
        let calls = CallCounters::default();
        for micros in [900, 1_000, 1_001, 700_000_000] {
            calls.called(micros);
        }
        let text = Snapshot::of(&calls, &Counters::default(), (0, 0)).prometheus("x\"y");
        for line in [
            "sandbox_host_call_duration_seconds_bucket{provider=\"xy\",le=\"0.001\"} 2",
            "sandbox_host_call_duration_seconds_bucket{provider=\"xy\",le=\"0.0025\"} 3",
            "sandbox_host_call_duration_seconds_bucket{provider=\"xy\",le=\"600\"} 3",
            "sandbox_host_call_duration_seconds_bucket{provider=\"xy\",le=\"+Inf\"} 4",
            "sandbox_host_call_duration_seconds_count{provider=\"xy\"} 4",
            "sandbox_host_calls_total{provider=\"xy\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn several_providers_are_described_once() {
        let (one, other) = (Snapshot { calls: 1, ..Snapshot::default() }, Snapshot { calls: 2, ..Snapshot::default() });
        let text = Snapshot::prometheus_of([("one", &one), ("other", &other)]);
        let mut described: Vec<_> = text.lines().filter(|line| line.starts_with('#')).collect();
        let all = described.len();
        described.sort_unstable();
        described.dedup();
        assert_eq!((described.len(), all), (40, 40));
        // All lines of a name must follow its description.
        let at = text.find("# TYPE sandbox_host_calls_total counter").unwrap();
        let lines: Vec<_> = text[at..].lines().skip(1).take(3).collect();
        assert_eq!(lines[0], "sandbox_host_calls_total{provider=\"one\"} 1");
        assert_eq!(lines[1], "sandbox_host_calls_total{provider=\"other\"} 2");
        assert!(lines[2].starts_with("# HELP"), "{}", lines[2]);
        let count = "sandbox_host_call_duration_seconds_count";
        assert!(text.contains(&format!("{count}{{provider=\"one\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("{count}{{provider=\"other\"}} 2\n")), "{text}");
        assert_eq!(one.prometheus("one"), Snapshot::prometheus_of([("one", &one)]));
    }
}

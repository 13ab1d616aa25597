//! Samples of a sandbox's resource usage, taken while it runs.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::values::now;

/// Shortest sample. With a shorter time, dividing the kernel's counters by it would produce absurd numbers of cores.
const SHORTEST: Duration = Duration::from_millis(10);

/// Number of samples that are kept per sandbox; when there are more, pairs of neighbours are merged.
const SAMPLES: usize = 256;

/// The samples of one sandbox.
#[derive(Debug, Default)]
pub struct Samples {
    /// The samples, oldest first.
    pub all: Vec<Sample>,
    /// Microseconds of processor time at the last sample.
    used: u64,
    last: Option<Instant>,
}

/// Usage in a period of time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// End of the period, in Unix seconds.
    pub end: f64,
    /// Length of the period in seconds.
    pub seconds: f64,
    /// Mean number of cores.
    pub cores: f64,
    /// Memory in gibibytes.
    pub gib: f64,
}

impl Samples {
    /// Adds a sample for the time since the previous call. `used` is the total processor time in microseconds, `memory` is in
    /// bytes. The first call only sets the start.
    pub fn add(&mut self, used: u64, memory: u64) {
        let Some(last) = self.last else {
            (self.last, self.used) = (Some(Instant::now()), used);
            return;
        };
        let elapsed = last.elapsed();
        if elapsed < SHORTEST {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let spent = used.saturating_sub(self.used);
        (self.last, self.used) = (Some(last + elapsed), used);
        let gib = memory as f64 / f64::from(1 << 30);
        self.all.push(Sample { end: now(), seconds, cores: spent as f64 / 1e6 / seconds, gib });
        if self.all.len() > SAMPLES {
            self.all = self.all.chunks(2).map(merged).collect();
        }
    }
}

fn merged(samples: &[Sample]) -> Sample {
    let seconds: f64 = samples.iter().map(|sample| sample.seconds).sum();
    let mean = |value: fn(&Sample) -> f64| samples.iter().map(|s| value(s) * s.seconds).sum::<f64>() / seconds;
    let end = samples.last().map_or(0.0, |sample| sample.end);
    Sample { end, seconds, cores: mean(|s| s.cores), gib: mean(|s| s.gib) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_samples_keep_their_sum() {
        let mut samples = Samples {
            all: (0..256).map(|n| Sample { end: f64::from(n), seconds: 1.0, cores: 2.0, gib: 0.5 }).collect(),
            last: Instant::now().checked_sub(Duration::from_secs(1)),
            ..Samples::default()
        };
        samples.add(2_000_000, 1 << 29);
        assert_eq!(samples.all.len(), 129);
        let seconds: f64 = samples.all.iter().map(|sample| sample.seconds).sum();
        assert!((seconds - 257.0).abs() < 0.5, "{seconds}");
    }
}

//! A table of targets and measured values.

use std::time::Duration;

/// Collects rows, and prints each as soon as it is there.
#[derive(Debug, Default)]
pub struct Report {
    missed: usize,
}

/// What a value should be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// Only told.
    None,
}

/// The middle one, in seconds.
pub fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

impl Report {
    /// Prints the head.
    pub fn new(title: &str) -> Report {
        println!("{title}\n");
        println!("{:<46} {:>12} {:>12}", "what", "target", "measured");
        Report::default()
    }

    /// A value in a unit.
    pub fn row(&mut self, what: &str, target: Target, measured: f64, unit: &str) {
        let (wanted, missed) = match target {
            Target::AtMost(most) => (format!("≤ {most} {unit}"), measured > most),
            Target::AtLeast(least) => (format!("≥ {least} {unit}"), measured < least),
            Target::None => (String::new(), false),
        };
        self.missed += usize::from(missed);
        let mark = if missed { "  missed" } else { "" };
        // Ratios are told to the hundredth.
        let digits = if unit == "×" { 2 } else { 1 };
        println!("{what:<46} {wanted:>12} {:>12}{mark}", format!("{measured:.digits$} {unit}"));
    }

    /// Median and 95th percentile of durations, in milliseconds; the target is the median's.
    pub fn times(&mut self, what: &str, target: Target, times: &mut [Duration]) {
        times.sort();
        let millis = |at: f64| {
            let last = times.len().saturating_sub(1);
            times.get((last as f64 * at).round() as usize).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        self.row(&format!("{what}, median"), target, millis(0.5), "ms");
        self.row(&format!("{what}, 95 %"), Target::None, millis(0.95), "ms");
    }

    /// Says how it went.
    pub fn end(self) {
        match self.missed {
            0 => println!("\nEvery target was met."),
            missed => println!("\n{missed} of the targets were missed on this machine, in this run."),
        }
    }
}

//! Prints a table of targets and measured values.

use std::time::Duration;

/// Collects rows and prints each as soon as it is measured.
#[derive(Debug, Default)]
pub struct Report {
    missed: usize,
}

/// The target of a measured value, in the unit of its row.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The value should be at most this.
    AtMost(f64),
    /// The value should be at least this.
    AtLeast(f64),
    /// The value has no target.
    None,
}

/// Returns the median of the durations, in seconds.
pub fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

impl Report {
    /// Prints the title and the head of the table.
    pub fn new(title: &str) -> Report {
        println!("{title}\n");
        println!("{:<46} {:>12} {:>12}", "what", "target", "measured");
        Report::default()
    }

    /// Prints a row with a value in `unit`.
    pub fn row(&mut self, what: &str, target: Target, measured: f64, unit: &str) {
        let (wanted, missed) = match target {
            Target::AtMost(most) => (format!("≤ {most} {unit}"), measured > most),
            Target::AtLeast(least) => (format!("≥ {least} {unit}"), measured < least),
            Target::None => (String::new(), false),
        };
        self.missed += usize::from(missed);
        let mark = if missed { "  missed" } else { "" };
        // Ratios are printed with two decimals.
        let digits = if unit == "×" { 2 } else { 1 };
        println!("{what:<46} {wanted:>12} {:>12}{mark}", format!("{measured:.digits$} {unit}"));
    }

    /// Prints rows with the median and the 95th percentile of durations, in milliseconds. The target applies to the
    /// median.
    pub fn times(&mut self, what: &str, target: Target, times: &mut [Duration]) {
        times.sort();
        let millis = |at: f64| {
            let last = times.len().saturating_sub(1);
            times.get((last as f64 * at).round() as usize).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        self.row(&format!("{what}, median"), target, millis(0.5), "ms");
        self.row(&format!("{what}, 95 %"), Target::None, millis(0.95), "ms");
    }

    /// Prints the number of missed targets.
    pub fn end(self) {
        match self.missed {
            0 => println!("\nEvery target was met."),
            missed => println!("\n{missed} of the targets were missed on this machine, in this run."),
        }
    }
}

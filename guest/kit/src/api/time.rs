//! Spans of time as the interface has them: milliseconds, with an upper bound for waiting.

use std::time::Duration;

/// Longest wait that one call makes, in milliseconds; the interface documents it.
const MAX_WAIT_MS: u64 = 600_000;

/// How long a call with this `wait` may wait.
#[must_use]
pub fn bounded_wait(wait: u64) -> Duration {
    Duration::from_millis(wait.min(MAX_WAIT_MS))
}

/// A span in milliseconds; the largest number when it has more.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as whole seconds, rounded up: never earlier than asked for.
#[must_use]
pub fn whole_seconds(millis: u64) -> u32 {
    u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits_round_up() {
        assert_eq!([1, 999, 1000, 1001, u64::MAX].map(whole_seconds), [1, 1, 1, 2, u32::MAX]);
    }
}

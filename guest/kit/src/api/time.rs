//! Durations of the interface, which are in milliseconds. Waits have an upper bound.

use std::time::Duration;

/// Longest wait of one call, in milliseconds, as documented in the interface.
const MAX_WAIT_MS: u64 = 600_000;

/// Returns how long a call with the argument `wait`, in milliseconds, may wait: at most ten minutes.
#[must_use]
pub fn bounded_wait(wait: u64) -> Duration {
    Duration::from_millis(wait.min(MAX_WAIT_MS))
}

/// Converts a duration to milliseconds. Returns `u64::MAX` if it is longer.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Converts milliseconds to seconds. Rounds up, so that a time limit never ends earlier than requested. Returns
/// `u32::MAX` if the value is larger.
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

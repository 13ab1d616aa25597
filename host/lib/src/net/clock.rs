//! The clock of the service.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header;

/// The time of the service, calculated from the `date` headers of its responses. Several machines agree on it, even if
/// their own clocks differ.
#[derive(Debug)]
pub(super) struct ServiceClock {
    /// Milliseconds by which the service is ahead of this machine, or `i64::MIN` before the first `date` header.
    ahead: AtomicI64,
}

impl ServiceClock {
    pub(super) fn new() -> ServiceClock {
        ServiceClock { ahead: AtomicI64::new(i64::MIN) }
    }

    /// Updates the clock from the headers of a response that has just arrived.
    pub(super) fn set(&self, headers: &http::HeaderMap) {
        let date = headers.get(header::DATE).and_then(|value| value.to_str().ok());
        let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
        let ahead = i128::from(millis_of(date)) - i128::from(millis_of(SystemTime::now()));
        if let Ok(ahead) = i64::try_from(ahead) {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }

    pub(super) fn now(&self) -> Option<u64> {
        let ahead = self.ahead.load(Ordering::Relaxed);
        (ahead != i64::MIN).then(|| millis_of(SystemTime::now()).saturating_add_signed(ahead))
    }
}

/// Milliseconds since the Unix epoch.
fn millis_of(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

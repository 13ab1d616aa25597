//! The time of the service.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use http::header;

/// The service's time, as the `date` of its answers says: what several machines agree on, whatever their own clocks say.
#[derive(Debug)]
pub(super) struct ServiceClock {
    /// How far it is ahead of ours, in milliseconds; `i64::MIN` when no answer has said so yet.
    ahead: AtomicI64,
}

impl ServiceClock {
    pub(super) fn new() -> ServiceClock {
        ServiceClock { ahead: AtomicI64::new(i64::MIN) }
    }

    /// Takes what an answer says that has just come.
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

//! Measures the computing time of a call.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The computing time of a call: the time during which its future was being polled.
#[derive(Debug)]
pub(super) struct Meter {
    began: Instant,
    used: AtomicU64,
    /// Nanoseconds from `began` to the start of the current poll, or 0 if there is none.
    polling: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        Meter { began: Instant::now(), used: AtomicU64::new(0), polling: AtomicU64::new(0) }
    }
}

impl Meter {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(super) fn used(&self) -> Duration {
        let current = match self.polling.load(Ordering::Relaxed) {
            0 => 0,
            since => self.now().saturating_sub(since),
        };
        Duration::from_nanos(self.used.load(Ordering::Relaxed) + current)
    }

    pub(super) fn reset(&self) {
        self.used.store(0, Ordering::Relaxed);
    }
}

/// A future whose polls count as computing time.
pub(super) struct Metered<'a, F> {
    pub(super) meter: &'a Meter,
    pub(super) inner: F,
}

impl<F: Future + Unpin> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let start = self.meter.now().max(1);
        self.meter.polling.store(start, Ordering::Relaxed);
        let polled = Pin::new(&mut self.inner).poll(cx);
        self.meter.polling.store(0, Ordering::Relaxed);
        self.meter.used.fetch_add(self.meter.now().saturating_sub(start), Ordering::Relaxed);
        polled
    }
}

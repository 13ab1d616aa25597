//! The retry code. Every unary call uses [`run`]; streams take their pauses from the same [`Policy`].
//!
//! There are two counters. Ordinary retries follow failures that may be temporary. Throttle retries follow answers in
//! which the server says how long to wait; they do not count as ordinary retries.

use std::{future::Future, rc::Rc, time::Duration};

use super::failure::Failure;
use crate::platform::{Transport, within};

/// How often and how fast a call is retried.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Maximum number of ordinary retries after the first attempt.
    pub retries: u32,
    /// Pause before the first retry. Each further pause is twice as long.
    pub base: Duration,
    /// Longest pause.
    pub cap: Duration,
    /// Maximum number of retries after failures without a connection. Nothing was sent in these, so the caller can give
    /// up early and ask another server about the state of this one.
    pub refused: u32,
    /// Time limit of one attempt; `None` for no limit.
    pub attempt: Option<Duration>,
    /// Whether to honour a wait that the server asks for after any failure. If `false`, only after throttling.
    pub throttle_any: bool,
    /// Longest time for which this call honours waits, in addition to the limit of the endpoint; `None` for no further
    /// limit.
    pub patience: Option<Duration>,
}

/// Waits of at least this length are reported to the user, who would otherwise take them for a hang.
const TOLD: Duration = Duration::from_secs(1);

/// Pause between two requests to a server that answers "not yet" at once although it was asked to hold the request.
const NOT_YET: Duration = Duration::from_millis(500);

/// Pauses are shortened at random by up to a quarter (one part of 4), so that many callers that failed together do not
/// retry together.
const JITTER: u32 = 4;

impl Policy {
    /// Returns the pause before a retry; the first retry has the number 0.
    #[must_use]
    pub fn pause(&self, retry: u32, transport: &dyn Transport) -> Duration {
        let full = self.base.saturating_mul(1 << retry.min(20)).min(self.cap);
        full - full * u32::from(transport.random()[0]) / (255 * JITTER)
    }
}

/// The state of a call, for metadata about earlier attempts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempt {
    /// Number of ordinary retries so far.
    pub retries: u32,
    /// Number of throttle retries so far.
    pub throttles: u32,
    /// Time since the start of the first attempt.
    pub elapsed: Duration,
}

impl Policy {
    /// Returns the maximum number of ordinary retries after this failure.
    #[must_use]
    pub fn limit(&self, failure: &impl Failure) -> u32 {
        if failure.is_refused() { self.refused.min(self.retries) } else { self.retries }
    }
}

/// Waits that the service asks for.
pub struct Throttle<F> {
    /// Returns the wait that a failure asks for, or `None` if it asks for none.
    pub wait: fn(&F) -> Option<Duration>,
    /// Longest time for which waits are honoured, over all attempts of a call; `None` for no limit.
    pub longest: Option<Duration>,
}

impl<F> Clone for Throttle<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Throttle<F> {}

/// Pauses after the answer "not yet", if the answer came early. `asked` is the time of the request, `hold` the time for
/// which the server should have held it. Without the pause, a server that answers at once would be asked again without
/// end.
pub async fn not_yet(transport: &Rc<dyn Transport>, asked: Duration, hold: Duration) {
    let early = (asked + hold).saturating_sub(transport.now());
    if !early.is_zero() {
        transport.sleep(early.min(NOT_YET)).await;
    }
}

/// Calls `call` until it succeeds, the policy allows no further retry, or the failure cannot be retried.
///
/// # Errors
///
/// The last failure. It also records whether an earlier attempt may have had its effect.
pub async fn run<T, E, F, Fut>(
    transport: &Rc<dyn Transport>,
    policy: &Policy,
    throttle: Throttle<E>,
    mut call: F,
) -> Result<T, E>
where
    E: Failure,
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let begun = transport.now();
    let longest = throttle.longest.into_iter().chain(policy.patience).min();
    let mut attempt = Attempt::default();
    let mut earlier = false;
    loop {
        attempt.elapsed = transport.now().saturating_sub(begun);
        let result = match policy.attempt {
            Some(limit) => within(transport, limit, call(attempt)).await.unwrap_or_else(|| Err(E::timed_out(limit))),
            None => call(attempt).await,
        };
        let mut failure = match result {
            Ok(value) => return Ok(value),
            Err(failure) => failure,
        };
        let asked = (throttle.wait)(&failure)
            .filter(|_| policy.throttle_any || failure.is_throttled())
            .filter(|wait| longest.is_none_or(|max| transport.now().saturating_sub(begun) + *wait <= max));
        let pause = if let Some(wait) = asked {
            attempt.throttles += 1;
            if wait >= TOLD {
                let seconds = (wait + Duration::from_millis(500)).as_secs();
                transport.tell(&format!("waiting {seconds} s, as the service requests: {}", failure.message()));
            }
            wait
        } else if failure.is_retryable() && attempt.retries < policy.limit(&failure) {
            attempt.retries += 1;
            policy.pause(attempt.retries - 1, &**transport)
        } else {
            if earlier {
                failure.mark_earlier();
            }
            return Err(failure);
        };
        earlier |= failure.may_have_happened();
        transport.sleep(pause).await;
    }
}

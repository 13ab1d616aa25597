//! The one retry policy. Every unary call goes through [`run`]; streams take their pauses from the same [`Policy`].
//!
//! Two counters run side by side: ordinary retries, for failures that may pass, and throttle retries, which the server asks for
//! by sending how long to wait; those do not use up ordinary ones.

use std::{future::Future, rc::Rc, time::Duration};

use super::failure::Failure;
use crate::platform::{Transport, within};

/// How often and how fast to try again.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Ordinary retries after the first attempt.
    pub retries: u32,
    /// Pause before the first retry; doubles from there.
    pub base: Duration,
    /// Longest pause.
    pub cap: Duration,
    /// Retries after failures in which no connection was made: nothing was sent, so nothing is lost by asking elsewhere
    /// what has become of the other side.
    pub refused: u32,
    /// Time allowed for one attempt; none for no limit.
    pub attempt: Option<Duration>,
    /// Honour a wait that the server asks for whatever the failure; otherwise only where it is throttled.
    pub throttle_any: bool,
    /// Longest time to follow such requests by this call, besides what the endpoint allows; none for no further limit.
    pub patience: Option<Duration>,
}

/// A wait of this length and more is told to the host: without a word, it would look like a hang.
const TOLD: Duration = Duration::from_secs(1);

/// Between two questions to a server that answers "not yet" at once instead of holding the question.
const NOT_YET: Duration = Duration::from_millis(500);

/// Pauses are shortened by up to one part of so many at random, so that a thousand callers that failed together do not come
/// back together.
const JITTER: u32 = 4;

impl Policy {
    /// The pause before retry number `retry`, counted from 0.
    #[must_use]
    pub fn pause(&self, retry: u32, transport: &dyn Transport) -> Duration {
        let full = self.base.saturating_mul(1 << retry.min(20)).min(self.cap);
        full - full * u32::from(transport.random()[0]) / (255 * JITTER)
    }
}

/// Where a call stands: what its metadata says of earlier attempts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attempt {
    /// Ordinary retries so far.
    pub retries: u32,
    /// Retries that the server asked for.
    pub throttles: u32,
    /// Since the first attempt.
    pub elapsed: Duration,
}

impl Policy {
    /// How many retries a failure like this one is worth.
    #[must_use]
    pub fn limit(&self, failure: &impl Failure) -> u32 {
        if failure.is_refused() { self.refused.min(self.retries) } else { self.retries }
    }
}

/// Waits that the service asks for.
pub struct Throttle<F> {
    /// Reads the wait out of a failure; none if it asks for none.
    pub wait: fn(&F) -> Option<Duration>,
    /// Longest time to follow such requests, over all attempts of a call; none for no limit.
    pub longest: Option<Duration>,
}

impl<F> Clone for Throttle<F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F> Copy for Throttle<F> {}

/// After an answer "not yet" to what was asked at `asked`, and was to be held for `hold`: a pause, if it came early. Without
/// it, a server that does not hold would be asked as fast as it answers.
pub async fn not_yet(transport: &Rc<dyn Transport>, asked: Duration, hold: Duration) {
    let early = (asked + hold).saturating_sub(transport.now());
    if !early.is_zero() {
        transport.sleep(early.min(NOT_YET)).await;
    }
}

/// Calls until it works, the policy is used up, or the failure is final.
///
/// # Errors
///
/// The last failure.
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
                transport.tell(&format!("waiting {seconds} s as the service asks: {}", failure.message()));
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

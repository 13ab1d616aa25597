//! The one retry policy (fact sheet, section 1.5). Every unary call of either endpoint goes through [`run`]; streams take
//! their pauses from the same [`Policy`].
//!
//! Two counters run side by side: ordinary retries, for failures that may pass, and throttle retries, which the server asks for
//! by sending how long to wait; those do not use up ordinary ones.

use std::{future::Future, rc::Rc, time::Duration};

use bytes::Bytes;
use modal_proto::client::{RpcRetryPolicy, RpcStatus};
use prost::Message as _;

use crate::{
    bindings::Happened,
    error::Error,
    grpc::{Code, Status},
    transport::{Transport, TransportFault, within},
};

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
    /// Honour a wait that the server asks for whatever the status; otherwise only with RESOURCE_EXHAUSTED, as on the
    /// command router.
    pub throttle_any: bool,
}

/// Control-plane calls.
pub const CONTROL: Policy = Policy {
    retries: 3,
    refused: 3,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(1),
    attempt: None,
    throttle_any: true,
};

/// Command-router calls and streams. Ten doublings from 10 ms make 10 s in all, which outlasts a router's restart; the
/// cap only bounds a single pause.
pub const ROUTER: Policy = Policy {
    retries: 10,
    // 1.3 s in all.
    refused: 7,
    base: Duration::from_millis(10),
    cap: Duration::from_secs(5),
    attempt: None,
    throttle_any: false,
};

/// Shortest wait that a server can ask for.
const MIN_THROTTLE: Duration = Duration::from_millis(100);

/// A wait from which on somebody may wonder what is going on.
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

/// Whether no connection was made.
#[must_use]
pub fn is_refused(status: &Status) -> bool {
    status.fault() == Some(TransportFault::NotSent)
}

impl Policy {
    /// How many retries a failure like this one is worth.
    #[must_use]
    pub fn limit(&self, status: &Status) -> u32 {
        if is_refused(status) { self.refused.min(self.retries) } else { self.retries }
    }
}

/// Whether trying again can help.
#[must_use]
pub fn is_retryable(status: &Status) -> bool {
    status.fault() != Some(TransportFault::Forbidden)
        && matches!(
            status.code(),
            Code::DeadlineExceeded | Code::Unavailable | Code::Cancelled | Code::Internal | Code::Unknown
        )
}

/// The wait that the server asks for in the status's details.
#[must_use]
pub fn server_wait(status: &Status) -> Option<Duration> {
    if status.details().is_empty() {
        return None;
    }
    let details = RpcStatus::decode(status.details().clone()).ok()?;
    let mut details = details.details.into_iter();
    let policy = details.find(|any| any.type_url.ends_with("/modal.client.RPCRetryPolicy"))?;
    let seconds = RpcRetryPolicy::decode(Bytes::from(policy.value)).ok()?.retry_after_secs;
    let wait = Duration::try_from_secs_f32(seconds).unwrap_or(MIN_THROTTLE);
    Some(wait.max(MIN_THROTTLE))
}

/// After an answer "not yet" to what was asked at `asked`, and was to be held for `hold`: a pause, if it came early. Without
/// it, a server that does not hold would be asked as fast as it answers.
pub(crate) async fn not_yet(transport: &Rc<dyn Transport>, asked: Duration, hold: Duration) {
    let early = (asked + hold).saturating_sub(transport.now());
    if !early.is_zero() {
        transport.sleep(early.min(NOT_YET)).await;
    }
}

/// Calls until it works, the policy is used up, or the failure is final.
///
/// # Errors
///
/// The last status.
pub async fn run<T, F, Fut>(
    transport: &Rc<dyn Transport>,
    policy: &Policy,
    max_throttle_wait: Option<Duration>,
    mut call: F,
) -> Result<T, Status>
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, Status>>,
{
    let begun = transport.now();
    let mut attempt = Attempt::default();
    let mut earlier = false;
    loop {
        attempt.elapsed = transport.now().saturating_sub(begun);
        let result = match policy.attempt {
            Some(limit) => within(transport, limit, call(attempt)).await.unwrap_or_else(|| {
                let text = format!("no answer within {} ms", limit.as_millis());
                Err(Status::new(Code::DeadlineExceeded, text))
            }),
            None => call(attempt).await,
        };
        let mut status = match result {
            Ok(value) => return Ok(value),
            Err(status) => status,
        };
        let throttle = server_wait(&status)
            .filter(|_| policy.throttle_any || status.code() == Code::ResourceExhausted)
            .filter(|wait| max_throttle_wait.is_none_or(|max| transport.now().saturating_sub(begun) + *wait <= max));
        let pause = if let Some(wait) = throttle {
            attempt.throttles += 1;
            if wait >= TOLD {
                let seconds = (wait + Duration::from_millis(500)).as_secs();
                transport.tell(&format!("waiting {seconds} s as the service asks: {}", status.message()));
            }
            wait
        } else if is_retryable(&status) && attempt.retries < policy.limit(&status) {
            attempt.retries += 1;
            policy.pause(attempt.retries - 1, &**transport)
        } else {
            if earlier {
                status.mark_earlier();
            }
            return Err(status);
        };
        earlier |= matches!(Error::from_status(&status, "").happened, Happened::Unknown);
        transport.sleep(pause).await;
    }
}

//! The one retry policy (fact sheet, section 1.5). Every unary call of either endpoint goes through [`run`]; streams take
//! their pauses from the same [`Policy`].
//!
//! Two counters run side by side: ordinary retries, for failures that may pass, and throttle retries, which the server asks for
//! by sending how long to wait; those do not use up ordinary ones.

use std::{future::Future, rc::Rc, time::Duration};

use modal_proto::client::{RpcRetryPolicy, RpcStatus};
use prost::Message as _;
use tonic::{Code, Status};

use crate::{
    error::source,
    transport::{Transport, TransportError, TransportFault, within},
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

/// Pauses are shortened by up to this share at random, so that a thousand callers that failed together do not come
/// back together.
const JITTER: f64 = 0.25;

impl Policy {
    /// The pause before retry number `retry`, counted from 0.
    #[must_use]
    pub fn pause(&self, retry: u32, transport: &dyn Transport) -> Duration {
        let full = self.base.saturating_mul(1 << retry.min(20)).min(self.cap);
        let random = f64::from(transport.random()[0]) / 255.0;
        full.mul_f64(1.0 - JITTER * random)
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
    source::<TransportError>(status).is_some_and(|error| error.kind == TransportFault::NotSent)
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
    if source::<TransportError>(status).is_some_and(|error| error.kind == TransportFault::Forbidden) {
        return false;
    }
    matches!(
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
    let details = RpcStatus::decode(status.details()).ok()?;
    let policy = details.details.iter().find(|any| any.type_url.ends_with("/modal.client.RPCRetryPolicy"))?;
    let seconds = RpcRetryPolicy::decode(policy.value.as_ref()).ok()?.retry_after_secs;
    let wait = Duration::try_from_secs_f32(seconds).unwrap_or(MIN_THROTTLE);
    Some(wait.max(MIN_THROTTLE))
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
    loop {
        attempt.elapsed = transport.now().saturating_sub(begun);
        let result = match policy.attempt {
            Some(limit) => within(transport, limit, call(attempt))
                .await
                .unwrap_or_else(|| Err(Status::deadline_exceeded(format!("no answer within {limit:?}")))),
            None => call(attempt).await,
        };
        let status = match result {
            Ok(value) => return Ok(value),
            Err(status) => status,
        };
        let throttle = server_wait(&status)
            .filter(|_| policy.throttle_any || status.code() == Code::ResourceExhausted)
            .filter(|wait| max_throttle_wait.is_none_or(|max| transport.now().saturating_sub(begun) + *wait <= max));
        let pause = if let Some(wait) = throttle {
            attempt.throttles += 1;
            wait
        } else if is_retryable(&status) && attempt.retries < policy.limit(&status) {
            attempt.retries += 1;
            policy.pause(attempt.retries - 1, &**transport)
        } else {
            return Err(status);
        };
        transport.sleep(pause).await;
    }
}

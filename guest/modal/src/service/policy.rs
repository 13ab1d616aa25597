//! The retry policies, and the waits that the service asks for (docs/modal-protocol.md, section 1.5).

use std::time::Duration;

use bytes::Bytes;
use modal_proto::client::{RpcRetryPolicy, RpcStatus};
use prost::Message as _;
use sandbox_provider_kit::call::{grpc::Status, retry::Policy};

/// The policy of calls to the control plane.
pub const CONTROL: Policy = Policy {
    retries: 3,
    refused: 3,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(1),
    attempt: None,
    throttle_any: true,
    patience: None,
};

/// The policy of calls and streams to a command router. Ten doublings from 10 ms add up to 10 s, which is longer than a
/// restart of a router. The cap only limits a single pause. The router asks for waits only with RESOURCE_EXHAUSTED.
pub const ROUTER: Policy = Policy {
    retries: 10,
    // The pauses add up to 1.3 s.
    refused: 7,
    base: Duration::from_millis(10),
    cap: Duration::from_secs(5),
    attempt: None,
    throttle_any: false,
    patience: None,
};

/// Shortest wait that is used; the service may ask for less.
const MIN_THROTTLE: Duration = Duration::from_millis(100);

/// Returns the wait that the details of a status ask for, or `None` if there is none.
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

//! How often and how fast calls are repeated, and the waits that the service asks for (docs/modal-protocol.md, section 1.5).

use std::time::Duration;

use bytes::Bytes;
use modal_proto::client::{RpcRetryPolicy, RpcStatus};
use prost::Message as _;
use sandbox_provider_kit::call::{grpc::Status, retry::Policy};

/// Control-plane calls.
pub const CONTROL: Policy = Policy {
    retries: 3,
    refused: 3,
    base: Duration::from_millis(100),
    cap: Duration::from_secs(1),
    attempt: None,
    throttle_any: true,
    patience: None,
};

/// Command-router calls and streams. Ten doublings from 10 ms make 10 s in all, which outlasts a router's restart; the
/// cap only bounds a single pause. There, only RESOURCE_EXHAUSTED asks to wait.
pub const ROUTER: Policy = Policy {
    retries: 10,
    // 1.3 s in all.
    refused: 7,
    base: Duration::from_millis(10),
    cap: Duration::from_secs(5),
    attempt: None,
    throttle_any: false,
    patience: None,
};

/// Shortest wait that the service can ask for.
const MIN_THROTTLE: Duration = Duration::from_millis(100);

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

//! Counters of what went over the wire for one provider.

use std::sync::atomic::AtomicU64;

/// All of them only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// HTTP requests sent.
    pub(crate) requests: AtomicU64,
    /// Those that the component marked as repeated.
    pub(crate) requests_repeated: AtomicU64,
    /// Requests that the policy denied.
    pub(crate) requests_denied: AtomicU64,
    /// Requests without an answer.
    pub(crate) requests_failed: AtomicU64,
    /// Body bytes.
    pub(crate) bytes_sent: AtomicU64,
    /// Body bytes.
    pub(crate) bytes_received: AtomicU64,
    /// Connections opened.
    pub(crate) connections_opened: AtomicU64,
    /// Connections that could not be opened.
    pub(crate) connections_failed: AtomicU64,
}

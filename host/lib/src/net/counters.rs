//! Counters of the requests and connections of one provider.

use std::sync::atomic::AtomicU64;

/// Counters that never decrease.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// HTTP requests sent.
    pub(crate) requests: AtomicU64,
    /// HTTP requests that the component marked as retries.
    pub(crate) requests_repeated: AtomicU64,
    /// HTTP requests that the policy denied.
    pub(crate) requests_denied: AtomicU64,
    /// HTTP requests without a response.
    pub(crate) requests_failed: AtomicU64,
    /// Body bytes sent.
    pub(crate) bytes_sent: AtomicU64,
    /// Body bytes received.
    pub(crate) bytes_received: AtomicU64,
    /// Connections opened.
    pub(crate) connections_opened: AtomicU64,
    /// Connections that could not be opened.
    pub(crate) connections_failed: AtomicU64,
}

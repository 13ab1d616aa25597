//! What an instance of a plugin may use.

use std::time::Duration;

/// What a plugin may use. The defaults suit a provider that moves large files in pieces.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Linear memory of one instance, in bytes; at most 1 GiB. Default 256 MiB: three pieces of 64 MiB, the largest
    /// that the interface allows, and what else there is.
    pub memory: usize,
    /// Elements of one instance's tables. Default 20,000; a component of 1 MiB has some thousands.
    pub table_elements: usize,
    /// How long one call may take, waiting included. Default 15 minutes: the longest wait of the interface is ten.
    /// A `run` may take so much longer than its command's time limit, and has no end where there is none; a snapshot of
    /// memory may take an hour.
    pub call_time: Duration,
    /// How long a service may take until it begins to answer a request of a call that is usually answered at once: look-ups,
    /// lists, tags, terminations. Default one minute; other calls may wait for as long as they last.
    pub answer_time: Duration,
    /// How long after its time limit the end of a command is waited for. Default 90 seconds: a plugin ends a command that
    /// exceeds its limit, and reports that, well within this time. If a plugin does not, the command is killed and its verdict is
    /// [`Verdict::Deadline`](crate::types::Verdict::Deadline). Applies to commands whose output is read in pieces; a `run` is
    /// one call.
    pub overdue_time: Duration,
    /// How long one call may compute. Default 30 seconds: a gigabyte passes through in one.
    pub compute_time: Duration,
    /// Handles (requests, bodies, streams, pollables) that one instance may hold. Default 4,096.
    pub resources: usize,
    /// Bytes of headers that the host keeps for the component in one object. Default 128 KiB.
    pub header_bytes: usize,
    /// Bytes of one body, in either direction; bodies stream, so this is no memory. Default 8 GiB: more than the
    /// largest file that can be moved.
    pub body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 256 << 20,
            table_elements: 20_000,
            call_time: Duration::from_secs(15 * 60),
            answer_time: Duration::from_secs(60),
            overdue_time: Duration::from_secs(90),
            compute_time: Duration::from_secs(30),
            resources: 4096,
            header_bytes: 128 << 10,
            body_bytes: 8 << 30,
        }
    }
}

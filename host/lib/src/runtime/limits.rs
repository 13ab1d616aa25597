//! The limits of an instance of a plugin.

use std::time::Duration;

/// The resources that a plugin may use. The defaults suit a provider that transfers large files in pieces.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Linear memory of one instance, in bytes, at most 1 GiB. Default 256 MiB: three pieces of 64 MiB, the largest
    /// that the interface permits, and space for other data.
    pub memory: usize,
    /// Elements of the tables of one instance. Default 20,000. A component of 1 MiB has some thousands.
    pub table_elements: usize,
    /// Time limit of one call, waiting included. Default 15 minutes, because the longest wait of the interface is ten
    /// minutes. A `run` may take the time limit of its command in addition, and has no limit if the command has none. A
    /// memory snapshot may take an hour.
    pub call_time: Duration,
    /// How long a service may take until it begins to answer a request, for calls that are usually answered at once:
    /// look-ups, lists, tags, terminations. Default one minute. Other calls may take as long as their time limit permits.
    pub answer_time: Duration,
    /// How long after the time limit of a command its end is awaited. Default 90 seconds, which is enough for a correct
    /// plugin to end the command and to report that. Afterwards the command is killed and its verdict is
    /// [`Verdict::Deadline`](crate::types::Verdict::Deadline). Applies to commands whose output is read in pieces. A
    /// `run` is a single call, limited as described at `call_time`.
    pub overdue_time: Duration,
    /// How long one call may compute. Default 30 seconds. The transfer of a gigabyte needs about one second.
    pub compute_time: Duration,
    /// Handles (requests, bodies, streams, pollables) that one instance may hold. Default 4,096.
    pub resources: usize,
    /// Most bytes of headers in one request or response that the host stores for the component. Default 128 KiB.
    pub header_bytes: usize,
    /// Most bytes of one body, in either direction. Default 8 GiB, more than the largest file that can be transferred.
    /// Bodies are streamed, so this is no memory limit.
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

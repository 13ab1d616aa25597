//! Why an attempt at a call failed, as far as retry and renewal need to know.

use std::time::Duration;

/// A failed attempt.
pub trait Failure: Sized {
    /// An attempt that got no answer within the time that was allowed for it.
    fn timed_out(limit: Duration) -> Self;

    /// Whether trying again can help.
    fn is_retryable(&self) -> bool;

    /// Whether no connection was made, so that nothing was sent.
    fn is_refused(&self) -> bool;

    /// Whether the service does not accept the token that came with the call.
    fn is_unauthenticated(&self) -> bool;

    /// Whether the service has too much to do and says so.
    fn is_throttled(&self) -> bool;

    /// Whether the call may have had its effect, in this attempt or in one before.
    fn may_have_happened(&self) -> bool;

    /// Whether the call may have had its effect in an attempt before the one that failed so.
    fn had_earlier(&self) -> bool;

    /// Notes that it may: what the last attempt was answered says nothing of that one.
    fn mark_earlier(&mut self);

    /// What went wrong, in words.
    fn message(&self) -> &str;
}

//! The description of a failed attempt that the retry and renewal code needs.

use std::time::Duration;

/// A failed attempt.
pub trait Failure: Sized {
    /// Makes the failure of an attempt that got no answer within `limit`.
    fn timed_out(limit: Duration) -> Self;

    /// Returns whether a retry can succeed.
    fn is_retryable(&self) -> bool;

    /// Returns whether no connection was made, so that nothing was sent.
    fn is_refused(&self) -> bool;

    /// Returns whether the service rejected the token of the call.
    fn is_unauthenticated(&self) -> bool;

    /// Returns whether the service reported that it has too much load.
    fn is_throttled(&self) -> bool;

    /// Returns whether the call may have had its effect, in this attempt or in an earlier one.
    fn may_have_happened(&self) -> bool;

    /// Returns whether the call may have had its effect in an earlier attempt.
    fn had_earlier(&self) -> bool;

    /// Records that the call may have had its effect in an earlier attempt. The answer to the last attempt does not
    /// exclude that.
    fn mark_earlier(&mut self);

    /// Returns a description for people.
    fn message(&self) -> &str;
}

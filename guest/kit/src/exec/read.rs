//! Reads both output streams of a command together.

use std::{future::poll_fn, task::Poll};

use super::follow::{Follow, Source};
use crate::{
    api::{error::Result, wit::OutputChunk},
    platform::LocalFuture,
};

/// Waits until one of the streams has bytes or both have ended (returns `false`), or `timer` has fired (returns
/// `true`). Also reads what can be read without waiting, up to `max` bytes of each stream.
///
/// # Errors
///
/// The error of [`Follow::poll_fill`], after all bytes that were received before it have been returned.
pub async fn fill<S: Source>(
    stdout: &mut Follow<S>,
    stderr: &mut Follow<S>,
    max: usize,
    mut timer: LocalFuture<'static, ()>,
) -> Result<bool> {
    poll_fn(|cx| {
        let first = stdout.poll_fill(cx, max);
        let second = stderr.poll_fill(cx, max);
        if stdout.has_data() || stderr.has_data() {
            return Poll::Ready(Ok(false));
        }
        match (first, second) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(false)),
            _ => timer.as_mut().poll(cx).map(|()| Ok(true)),
        }
    })
    .await
}

/// Takes at most `max` bytes of both streams together. If both have more than fits, each gets half.
pub fn share<S: Source>(stdout: &mut Follow<S>, stderr: &mut Follow<S>, max: usize) -> (OutputChunk, OutputChunk) {
    let part = stderr.available().min(max / 2);
    let first = chunk(stdout, max - part);
    let second = chunk(stderr, max - first.data.len());
    (first, second)
}

fn chunk<S: Source>(follow: &mut Follow<S>, max: usize) -> OutputChunk {
    let data = follow.take(max);
    OutputChunk { offset: follow.offset() - data.len() as u64, data, end: follow.is_ended() }
}

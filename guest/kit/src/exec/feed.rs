//! Writes input in pieces.

use std::future::Future;

use bytes::{Buf as _, Bytes};

use crate::api::{error::Result, wit::InputState};

/// Size of one piece, in bytes.
const INPUT_PIECE: usize = 4 * 1024 * 1024;

/// Writes all of `input` and closes it. `write` gets an offset, the bytes from there, and whether they are the last
/// ones; it may accept fewer. Stops early if the program has closed its input.
///
/// # Errors
///
/// The first error of `write`.
pub async fn feed<F>(mut input: Bytes, mut write: impl FnMut(u64, Bytes, bool) -> F) -> Result<()>
where
    F: Future<Output = Result<InputState>>,
{
    let mut offset = 0;
    loop {
        let piece = input.slice(..input.len().min(INPUT_PIECE));
        let last = piece.len() == input.len();
        let state = write(offset, piece, last).await?;
        if state.closed {
            return Ok(());
        }
        let taken = usize::try_from(state.accepted.saturating_sub(offset)).unwrap_or(usize::MAX).min(input.len());
        input.advance(taken);
        offset += taken as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn what_is_not_taken_is_offered_again() {
        let input: Vec<u8> = (0..=255).cycle().take(3 * INPUT_PIECE + 7).collect();
        let mut taken = Vec::new();
        let fed = feed(input.clone().into(), |offset, piece, last| {
            assert_eq!(offset, taken.len() as u64);
            let accepted = piece.len().min(3_000_000);
            taken.extend_from_slice(&piece[..accepted]);
            let closed = last && accepted == piece.len();
            std::future::ready(Ok(InputState { accepted: taken.len() as u64, closed }))
        });
        fed.now_or_never().expect("nothing is waited for").expect("it is taken");
        assert!(taken == input);
        let closed = feed(input.into(), |_, _, _| std::future::ready(Ok(InputState { accepted: 0, closed: true })));
        assert!(closed.now_or_never().expect("nothing is waited for").is_ok(), "a program that wants none");
    }
}

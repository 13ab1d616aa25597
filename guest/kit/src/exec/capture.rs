//! The part of a long output that is kept: its head or its tail.

use std::collections::VecDeque;

use crate::api::wit::{Captured, Keep};

/// Maximum number of kept bytes of one stream, as documented in the interface. Both streams together fit the largest
/// reply.
const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// The kept part of an output stream.
pub struct Capture {
    data: VecDeque<u8>,
    total: u64,
    max: usize,
    keep: Keep,
}

impl Capture {
    /// Keeps at most `max` bytes, and never more than 32 MiB.
    #[must_use]
    pub fn new(max: u64, keep: Keep) -> Capture {
        let max = usize::try_from(max.min(MAX_KEPT)).unwrap_or(0);
        Capture { data: VecDeque::new(), total: 0, max, keep }
    }

    /// Adds the next piece of the output.
    pub fn push(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        let room = self.max - self.data.len();
        match self.keep {
            Keep::Head => self.data.extend(&piece[..piece.len().min(room)]),
            Keep::Tail => {
                let piece = &piece[piece.len().saturating_sub(self.max)..];
                self.data.drain(..piece.len().saturating_sub(room));
                self.data.extend(piece);
            }
        }
    }

    /// Returns the kept bytes and the total number of bytes.
    #[must_use]
    pub fn captured(self) -> Captured {
        Captured { data: self.data.into(), total: self.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_output_is_the_head_or_the_tail() {
        let all: Vec<u8> = (0..=255).cycle().take(5000).collect();
        for max in [0, 1, 7, 999, 4999, 5000, 9000] {
            for size in [1, 3, 100, 5000] {
                for keep in [Keep::Head, Keep::Tail] {
                    let mut kept = Capture::new(max as u64, keep);
                    for piece in all.chunks(size) {
                        kept.push(piece);
                        assert!(kept.data.len() <= max);
                    }
                    let captured = kept.captured();
                    let length = max.min(all.len());
                    let expected = match keep {
                        Keep::Head => &all[..length],
                        Keep::Tail => &all[all.len() - length..],
                    };
                    assert_eq!(captured.data, expected, "{keep:?} {max} {size}");
                    assert_eq!(captured.total, 5000);
                }
            }
        }
        assert_eq!(Capture::new(u64::MAX, Keep::Tail).max as u64, MAX_KEPT);
    }
}

//! The stream of bytes that the engine sends for a process without a terminal: frames of standard output and standard
//! error, each with a header of 8 bytes (the number of the stream, three zero bytes, the length as a big-endian number).

use bytes::{Buf as _, Bytes, BytesMut};

/// Length of the header of a frame.
const HEADER_BYTES: usize = 8;

/// A stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes frames apart that arrive in pieces of any size.
#[derive(Default)]
pub struct Demux {
    held: BytesMut,
    /// The frame whose bytes are arriving, and how many of them are missing.
    open: Option<(Source, usize)>,
}

impl Demux {
    /// Adds a piece of the stream.
    pub fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// Returns the next bytes of one of the streams, or `None` if more has to arrive first.
    pub fn next_piece(&mut self) -> Option<(Source, Bytes)> {
        loop {
            if let Some((source, missing)) = self.open {
                if missing == 0 {
                    self.open = None;
                    continue;
                }
                if self.held.is_empty() {
                    return None;
                }
                let piece = self.held.split_to(missing.min(self.held.len())).freeze();
                self.open = Some((source, missing - piece.len()));
                return Some((source, piece));
            }
            if self.held.len() < HEADER_BYTES {
                return None;
            }
            let mut header = self.held.split_to(HEADER_BYTES);
            // Engines send 1 for standard output and 2 for standard error; 3 is an error of the engine itself.
            let source = if header[0] == 1 { Source::Stdout } else { Source::Stderr };
            header.advance(4);
            self.open = Some((source, header.get_u32() as usize));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_pieces_of_any_size() {
        let stream = b"\x01\0\0\0\0\0\0\x03abc\x02\0\0\0\0\0\0\x00\x02\0\0\0\0\0\0\x01x\x01\0\0\0\0\0\0\x02de";
        for size in 1..stream.len() {
            let (mut demux, mut out, mut err) = (Demux::default(), Vec::new(), Vec::new());
            for piece in stream.chunks(size) {
                demux.push(piece);
                while let Some((source, bytes)) = demux.next_piece() {
                    match source {
                        Source::Stdout => out.extend_from_slice(&bytes),
                        Source::Stderr => err.extend_from_slice(&bytes),
                    }
                }
            }
            assert_eq!((&out[..], &err[..]), (&b"abcde"[..], &b"x"[..]), "{size}");
        }
    }
}

//! Notes in the log of a container: `RS sandbox-note NAME TEXT US` with the control characters RS (30) and US (31), followed by
//! a line end. The helper program prints them to standard error.

use crate::engine::frames::{Demux, Source};

const BEGIN: &[u8] = b"\x1esandbox-note ";
const END: &[u8] = b"\x1f\n";

/// Returns the notes of a log in the engine's form, in order: names and texts.
#[must_use]
pub fn of_log(log: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut demux = Demux::default();
    demux.push(log);
    let mut text = Vec::new();
    while let Some((source, bytes)) = demux.next_piece() {
        if source == Source::Stderr {
            text.extend_from_slice(&bytes);
        }
    }
    let mut notes = Vec::new();
    let mut rest = &text[..];
    while let Some(at) = find(rest, BEGIN) {
        rest = &rest[at + BEGIN.len()..];
        let Some(end) = find(rest, END) else { break };
        let note = &rest[..end];
        if let Some(space) = note.iter().position(|byte| *byte == b' ') {
            notes.push((String::from_utf8_lossy(&note[..space]).into_owned(), note[space + 1..].to_vec()));
        }
        rest = &rest[end + END.len()..];
    }
    notes
}

/// Removes the notes from standard error of a container, which arrives in pieces of any size.
#[derive(Default)]
pub struct Filter {
    held: Vec<u8>,
}

impl Filter {
    /// Takes a piece, and returns what is known to be no note.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let mut clean = Vec::new();
        loop {
            let Some(at) = self.held.iter().position(|byte| *byte == BEGIN[0]) else {
                clean.append(&mut self.held);
                return clean;
            };
            clean.extend(self.held.drain(..at));
            let length = self.held.len().min(BEGIN.len());
            if self.held[..length] != BEGIN[..length] {
                clean.extend(self.held.drain(..1));
            } else if let Some(end) = find(&self.held, END) {
                self.held.drain(..end + END.len());
            } else {
                return clean;
            }
        }
    }

    /// Returns what is left at the end of the stream.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    text.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        b"a\x1esandbox-note end \x1f\nb\x1e x\x1e\x1esandbox-note tags {}\x1f\nc\x1esandbox-note end idle\x1f\n";

    #[test]
    fn notes_are_found_and_removed() {
        let mut log = vec![2, 0, 0, 0];
        log.extend_from_slice(&u32::try_from(TEXT.len()).expect("short").to_be_bytes());
        log.extend_from_slice(TEXT);
        let notes = of_log(&log);
        let expected = [("end", ""), ("tags", "{}"), ("end", "idle")];
        assert_eq!(notes, expected.map(|(name, text)| (name.to_string(), text.as_bytes().to_vec())));
        for size in 1..TEXT.len() {
            let mut filter = Filter::default();
            let mut clean: Vec<u8> = TEXT.chunks(size).flat_map(|piece| filter.push(piece)).collect();
            clean.extend(filter.finish());
            assert_eq!(clean, b"ab\x1e x\x1ec", "{size}");
        }
    }
}

//! The log of a sandbox: what its entry point printed, as the engine keeps it.
//!
//! The engine returns lines in the order in which it got them, with times that need not be in order. So a cursor is the number
//! of lines that were returned or passed over, and the number of bytes of the next line that were returned.

use futures_util::StreamExt as _;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        wit::{LogChunk, LogPage, LogQuery, OutputStream},
    },
    platform::Frame,
};

use crate::{
    engine::{
        Call, failed,
        frames::{Demux, Source},
    },
    helper::Helper,
    inspect::state,
    time,
};

/// Longest part of a line that is kept, in bytes: the engine cuts lines at 16 KiB.
const LINE_BYTES: usize = 1024 * 1024;

struct Line {
    at: u64,
    source: Source,
    text: String,
}

/// Implements `read-logs`.
///
/// # Errors
///
/// `invalid-argument` for 0 bytes or a wrong cursor, `not-found`, or the error of the failed request.
pub async fn read(
    helper: &Helper,
    id: &str,
    query: &LogQuery,
    cursor: Option<&str>,
    max_bytes: u32,
) -> Result<LogPage> {
    let max = check::max_bytes(max_bytes)?;
    let engine = helper.engine();
    let (passed, begun) = cursor.map_or(Ok((0, 0)), position)?;
    state(engine, id).await?;
    let wanted = |stream| query.stream.is_none_or(|only| only == stream);
    let mut call = Call::get(format!("/containers/{id}/logs"))
        .with("stdout", if wanted(OutputStream::Stdout) { "1" } else { "0" })
        .with("stderr", if wanted(OutputStream::Stderr) { "1" } else { "0" })
        .with("timestamps", "1");
    let since = query.since.unwrap_or(0);
    if since > 0 {
        call = call.with("since", format!("{}.{:03}", since / 1000, since % 1000));
    }
    let response = engine.open(call).await?.map_err(|refusal| failed(&refusal, "read the log").about(id))?;

    let mut page = LogPage { items: Vec::new(), next: None };
    let (mut room, mut number) = (max, 0);
    let mut lines = Lines::default();
    let mut body = response.body;
    loop {
        while let Some(line) = lines.next() {
            number += 1;
            let at = line.at / 1_000_000;
            let fits = query.search.as_deref().is_none_or(|text| line.text.contains(text));
            if number <= passed || at < since || query.until.is_some_and(|until| at > until) || !fits {
                continue;
            }
            let from = if number == passed + 1 { line.text.floor_char_boundary(begun) } else { 0 };
            let rest = &line.text[from..];
            if rest.len() > room {
                // A character that is longer than a page would never be returned.
                let least = if page.items.is_empty() { rest.chars().next().map_or(0, char::len_utf8) } else { 0 };
                let end = rest.floor_char_boundary(room).max(least);
                if end > 0 {
                    page.items.push(chunk(&line, &rest[..end]));
                }
                page.next = Some(format!("{}-{}", number - 1, from + end));
                return Ok(page);
            }
            room -= rest.len();
            page.items.push(chunk(&line, rest));
        }
        match body.next().await {
            Some(Ok(Frame::Data(data))) => lines.push(&data),
            Some(Ok(Frame::Trailers(_))) => {}
            Some(Err(text)) => return Err(Error::internal(format!("The log is cut off: {text}."))),
            None => return Ok(page),
        }
    }
}

fn chunk(line: &Line, text: &str) -> LogChunk {
    let stream = if line.source == Source::Stdout { OutputStream::Stdout } else { OutputStream::Stderr };
    LogChunk { stream: Some(stream), text: text.to_string(), at: Some(line.at / 1_000_000) }
}

fn position(cursor: &str) -> Result<(u64, usize)> {
    let parts = cursor.split_once('-').and_then(|(lines, bytes)| Some((lines.parse().ok()?, bytes.parse().ok()?)));
    parts.ok_or_else(|| Error::invalid("The cursor is unknown: give the one of the last page.").about("cursor"))
}

/// Takes the lines out of the engine's stream.
#[derive(Default)]
struct Lines {
    demux: Demux,
    open: [Vec<u8>; 2],
    ready: std::collections::VecDeque<Line>,
}

impl Lines {
    fn push(&mut self, data: &[u8]) {
        self.demux.push(data);
        while let Some((source, bytes)) = self.demux.next_piece() {
            let open = &mut self.open[usize::from(source == Source::Stderr)];
            for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                let room = LINE_BYTES.saturating_sub(open.len()).min(piece.len());
                open.extend_from_slice(&piece[..room]);
                if piece.ends_with(b"\n") {
                    let text = String::from_utf8_lossy(open).into_owned();
                    open.clear();
                    let text = without_note(text);
                    if let Some((at, text)) = text.split_once(' ')
                        && let Some(at) = time::nanos(at)
                        && !text.is_empty()
                    {
                        self.ready.push_back(Line { at, source, text: text.to_string() });
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Option<Line> {
        self.ready.pop_front()
    }
}

/// Removes a note, which the helper program printed at the end of a line.
fn without_note(mut line: String) -> String {
    if let Some(at) = line.find("\u{1e}sandbox-note ") {
        line.truncate(at);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_times_and_streams() {
        let mut stream = Vec::new();
        for (source, text) in [
            (1, "2026-11-30T21:06:39.1Z one\n2026-11-30T21:06:39.2Z tw"),
            (2, "2026-11-30T21:06:39.3Z e\n"),
            (1, "o\n"),
        ] {
            stream.extend_from_slice(&[source, 0, 0, 0]);
            stream.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
            stream.extend_from_slice(text.as_bytes());
        }
        let mut lines = Lines::default();
        for piece in stream.chunks(7) {
            lines.push(piece);
        }
        let found: Vec<_> = std::iter::from_fn(|| lines.next()).map(|line| (line.source, line.text)).collect();
        let expected = [(Source::Stdout, "one\n"), (Source::Stderr, "e\n"), (Source::Stdout, "two\n")];
        assert_eq!(found, expected.map(|(source, text)| (source, text.to_string())));
        assert!(position("5-x").is_err() && position("5-1").is_ok());
    }
}

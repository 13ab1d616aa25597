//! The output of one command as the helper sends it: both streams from their offsets on, and the verdict.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use sandbox_provider_kit::{Error, api::wit::OutputChunk};

use crate::{
    engine::frames::Source,
    helper::{Answer, Fault, Frame},
};

/// Most bytes that are received ahead of the caller. Further bytes stay in the connection.
const READ_AHEAD_BYTES: usize = 4 * 1024 * 1024;

/// One stream.
#[derive(Default)]
pub struct Stream {
    /// The offset of the next byte for the caller.
    offset: u64,
    pending: VecDeque<Bytes>,
    pending_bytes: usize,
    end: bool,
}

impl Stream {
    fn new(offset: u64) -> Stream {
        Stream { offset, ..Stream::default() }
    }

    /// The offset of the next byte that has to be received.
    fn received(&self) -> u64 {
        self.offset + self.pending_bytes as u64
    }

    /// Adds bytes at an offset. Skips bytes that have been received. Returns `false` if bytes are missing before them.
    fn push(&mut self, offset: u64, mut bytes: Bytes) -> bool {
        let Some(repeated) = self.received().checked_sub(offset) else { return false };
        let repeated = usize::try_from(repeated).unwrap_or(usize::MAX).min(bytes.len());
        let new = bytes.split_off(repeated);
        self.pending_bytes += new.len();
        if !new.is_empty() {
            self.pending.push_back(new);
        }
        true
    }

    /// Takes one received piece, or `None`.
    pub fn take_piece(&mut self) -> Option<Bytes> {
        let piece = self.pending.pop_front()?;
        self.pending_bytes -= piece.len();
        self.offset += piece.len() as u64;
        Some(piece)
    }

    /// Takes at most `max` received bytes.
    fn take(&mut self, max: usize) -> OutputChunk {
        let offset = self.offset;
        let mut data = Vec::with_capacity(max.min(self.pending_bytes));
        while let Some(front) = self.pending.front_mut() {
            let room = max - data.len();
            if room == 0 {
                break;
            }
            let piece = front.split_to(room.min(front.len()));
            data.extend_from_slice(&piece);
            if front.is_empty() {
                self.pending.pop_front();
            }
        }
        self.pending_bytes -= data.len();
        self.offset += data.len() as u64;
        OutputChunk { offset, end: self.is_over(), data }
    }

    fn is_over(&self) -> bool {
        self.end && self.pending.is_empty()
    }
}

/// The output of one command.
pub struct Reader {
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// The connection that brings more.
    pub answer: Option<Answer>,
    /// The text of the verdict.
    verdict: Option<String>,
    /// Everything that was there when the connection was opened has been received.
    pub is_current: bool,
    /// How long callers have waited for the next frame of the connection.
    pub silent: Duration,
}

impl Reader {
    /// Makes a reader at these offsets.
    #[must_use]
    pub fn new(stdout: u64, stderr: u64, answer: Option<Answer>) -> Reader {
        let (stdout, stderr) = (Stream::new(stdout), Stream::new(stderr));
        Reader { stdout, stderr, answer, verdict: None, is_current: false, silent: Duration::ZERO }
    }

    /// Returns the offsets of the next bytes that have to be received.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.stdout.received(), self.stderr.received())
    }

    /// Returns whether the next bytes for the caller are those at these offsets.
    #[must_use]
    pub fn is_at(&self, stdout: u64, stderr: u64) -> bool {
        (self.stdout.offset, self.stderr.offset) == (stdout, stderr)
    }

    /// Returns whether the caller can be given anything.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.stdout.pending_bytes + self.stderr.pending_bytes > 0 || self.is_over()
    }

    /// Returns whether the caller has received everything but the verdict.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.verdict.is_some() && self.stdout.is_over() && self.stderr.is_over()
    }

    /// Returns the text of the verdict once all output has been taken.
    #[must_use]
    pub fn verdict(&self) -> Option<&str> {
        self.verdict.as_deref().filter(|_| self.is_over())
    }

    /// Returns whether no more is received before the caller takes something.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.stdout.pending_bytes + self.stderr.pending_bytes >= READ_AHEAD_BYTES
    }

    /// Takes a frame in.
    ///
    /// # Errors
    ///
    /// [`Fault::Cut`] if bytes are missing: what the connection brings does not follow what was received.
    pub fn apply(&mut self, frame: Frame) -> Result<(), Fault> {
        let gap = || Fault::Cut("bytes of the output are missing".to_string());
        self.silent = Duration::ZERO;
        match frame {
            Frame::Output(Source::Stdout, offset, bytes) => {
                self.stdout.push(offset, bytes).then_some(()).ok_or_else(gap)?
            }
            Frame::Output(Source::Stderr, offset, bytes) => {
                self.stderr.push(offset, bytes).then_some(()).ok_or_else(gap)?
            }
            Frame::End(Source::Stdout, length) if length == self.stdout.received() => self.stdout.end = true,
            Frame::End(Source::Stderr, length) if length == self.stderr.received() => self.stderr.end = true,
            Frame::End(..) => return Err(gap()),
            Frame::Verdict(text) => self.verdict = Some(text),
            Frame::Started => self.is_current = true,
            Frame::Done => {
                self.answer = None;
                self.is_current = true;
            }
            Frame::Data(_) | Frame::Json(_) => {
                return Err(Fault::Failed(Error::internal("The helper program sent an answer of another form.")));
            }
        }
        Ok(())
    }

    /// Receives everything that has arrived, without waiting.
    ///
    /// # Errors
    ///
    /// As for [`Answer::next`] and [`Reader::apply`].
    pub fn drain(&mut self) -> Result<(), Fault> {
        while !self.is_full()
            && let Some(frame) = self.answer.as_mut().and_then(Answer::try_next)
        {
            self.apply(frame?)?;
        }
        Ok(())
    }

    /// Takes a connection that brings what follows the received bytes.
    pub fn connect(&mut self, answer: Answer) {
        self.answer = Some(answer);
        self.is_current = false;
        self.silent = Duration::ZERO;
    }

    /// Receives one frame.
    ///
    /// # Errors
    ///
    /// As for [`Answer::next`] and [`Reader::apply`].
    pub async fn step(&mut self) -> Result<(), Fault> {
        match &mut self.answer {
            Some(answer) => {
                let frame = answer.next().await?;
                self.apply(frame)
            }
            None => Err(Fault::Cut("there is no connection".to_string())),
        }
    }

    /// Takes at most `max` bytes of both streams together. If both have more than fits, each gets half.
    pub fn share(&mut self, max: usize) -> (OutputChunk, OutputChunk) {
        let part = self.stderr.pending_bytes.min(max / 2);
        let stdout = self.stdout.take(max - part);
        let stderr = self.stderr.take(max - stdout.data.len());
        (stdout, stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(source: Source, offset: u64, text: &'static str) -> Frame {
        Frame::Output(source, offset, Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn bytes_come_once_and_in_order_and_the_verdict_last() {
        let mut reader = Reader::new(2, 0, None);
        assert!(reader.apply(output(Source::Stdout, 0, "abcd")).is_ok());
        assert!(reader.apply(output(Source::Stdout, 2, "cdef")).is_ok());
        assert!(reader.apply(output(Source::Stdout, 9, "x")).is_err(), "a gap");
        assert!(reader.apply(output(Source::Stderr, 0, "12345")).is_ok());
        assert!(reader.apply(Frame::End(Source::Stdout, 9)).is_err(), "bytes are missing");
        for (source, length) in [(Source::Stdout, 6), (Source::Stderr, 5)] {
            assert!(reader.apply(Frame::End(source, length)).is_ok());
        }
        assert!(reader.apply(Frame::Verdict("exited 0".to_string())).is_ok());
        assert!(reader.has_news() && reader.verdict().is_none());
        let (stdout, stderr) = reader.share(6);
        assert_eq!((stdout.offset, &stdout.data[..], stdout.end), (2, &b"cde"[..], false));
        assert_eq!((&stderr.data[..], stderr.end), (&b"123"[..], false));
        assert!(reader.is_at(5, 3));
        let (stdout, stderr) = reader.share(100);
        assert!(stdout.end && stderr.end);
        assert_eq!(reader.verdict(), Some("exited 0"));
    }
}

//! Sends the output of a command from given offsets on.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::{
    answer::{Answer, Failure, MAX_DATA, send, send_parts},
    exec::state::{Exec, STDERR_ENDED, STDOUT_ENDED},
};

/// How often a silent connection is told that it is in use, unless the caller asks for another time.
const BEAT: Duration = Duration::from_secs(15);

/// What is to be sent, and how long to wait for it.
pub struct Range {
    /// Offset in stdout, in bytes.
    pub out: u64,
    /// Offset in stderr, in bytes.
    pub err: u64,
    /// Most bytes of output.
    pub max: u64,
    /// Whether to go on until the verdict.
    pub follow: bool,
    /// How long to wait; none has no limit with `follow`, and does not wait without.
    pub wait: Option<Duration>,
    /// With `follow`: longest time without a frame.
    pub beat: Duration,
}

impl Default for Range {
    fn default() -> Self {
        Self { out: 0, err: 0, max: u64::MAX, follow: false, wait: None, beat: BEAT }
    }
}

/// One stream of the command, as far as it was sent.
struct Reader<'a> {
    file: File,
    length: &'a AtomicU64,
    bit: u32,
    offset: u64,
    tags: [u8; 2],
    /// Whether the end was sent.
    ended: bool,
}

/// What a look at a stream has sent.
#[derive(Eq, PartialEq)]
enum Sent {
    Nothing,
    Data,
    End,
}

impl<'a> Reader<'a> {
    fn open(exec: &Exec, name: &str, length: &'a AtomicU64, bit: u32, offset: u64, tags: [u8; 2]) -> Answer<Self> {
        let file = File::open(exec.dir.join(name)).map_err(|error| Failure::internal(name, error))?;
        Ok(Self { file, length, bit, offset, tags, ended: false })
    }

    /// Sends what there is, at most `max` bytes.
    fn send(&mut self, exec: &Exec, max: &mut u64, buffer: &mut Vec<u8>) -> Answer<Sent> {
        // The end is read first: nothing is appended after it.
        let ended = exec.has(self.bit);
        let length = self.length.load(Ordering::SeqCst);
        let mut sent = Sent::Nothing;
        while self.offset < length && *max > 0 {
            let size = (length - self.offset).min(MAX_DATA as u64).min(*max);
            buffer.resize(size as usize, 0);
            self.file.read_exact_at(buffer, self.offset).map_err(|error| Failure::internal("output", error))?;
            send_parts(self.tags[0], &self.offset.to_be_bytes(), buffer)?;
            self.offset += size;
            *max -= size;
            sent = Sent::Data;
        }
        if ended && self.offset >= length && !self.ended {
            self.ended = true;
            send_parts(self.tags[1], &length.to_be_bytes(), &[])?;
            if sent == Sent::Nothing {
                sent = Sent::End;
            }
        }
        Ok(sent)
    }
}

/// Sends output, the ends of the streams and the verdict.
///
/// # Errors
///
/// Fails if the spools cannot be read, or the reader of the answer has gone.
pub fn follow(exec: &Exec, range: Range) -> Answer {
    let page = exec.page();
    let mut readers = [
        Reader::open(exec, "stdout", &page.stdout, STDOUT_ENDED, range.out, [b'o', b'O'])?,
        Reader::open(exec, "stderr", &page.stderr, STDERR_ENDED, range.err, [b'e', b'R'])?,
    ];
    let wait = match (range.wait, range.follow) {
        (None, true) => None,
        (wait, _) => Some(wait.unwrap_or_default()),
    };
    let end = wait.and_then(|wait| Instant::now().checked_add(wait));
    let mut max = range.max;
    let mut buffer = Vec::new();
    let mut first = true;
    let mut last_frame = Instant::now();
    loop {
        let seen = exec.seen();
        let mut news = false;
        for reader in &mut readers {
            match reader.send(exec, &mut max, &mut buffer)? {
                Sent::Nothing => {}
                Sent::Data => news = true,
                // An end that was there before the call is no news: the caller may know it.
                Sent::End => news |= !first,
            }
        }
        if readers.iter().all(|reader| reader.ended)
            && let Some(verdict) = exec.verdict()
        {
            send(b'v', verdict.text())?;
            break;
        }
        // At first: everything that was there has been sent. Later: the connection and this process live.
        if range.follow && (first || (!news && last_frame.elapsed() >= range.beat)) {
            send(b's', "")?;
            news = true;
        }
        if news {
            last_frame = Instant::now();
        }
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if (news && !range.follow) || max == 0 || left == Some(Duration::ZERO) {
            break;
        }
        let quiet = range.beat.saturating_sub(last_frame.elapsed());
        exec.sleep(seen, left.unwrap_or(Duration::MAX).min(if range.follow { quiet } else { Duration::MAX }));
        if first {
            // A supervisor that was killed before the call is noticed at once.
            exec.check();
            first = false;
        }
    }
    send(b'.', "")
}

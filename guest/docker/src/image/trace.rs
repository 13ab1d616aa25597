//! The log of BuildKit. The engine sends each part as a message `moby.buildkit.v1.StatusResponse` of Protocol Buffers, in
//! Base64. This module reads the fields that a log for people needs, and skips all others:
//!
//! | message | field |
//! |---|---|
//! | `StatusResponse` | 1: a `Vertex`, repeated; 3: a `VertexLog`, repeated |
//! | `Vertex`, a step of the build | 1: its digest; 3: its name; 4: whether its result was there already; 5: when it was started; 6: when it was completed; 7: its error |
//! | `VertexLog` | 1: the digest of the step; 4: output of the step |

use base64ct::{Base64, Encoding as _};

/// Length of the end of a step's output that is kept for the message of a failed build, in bytes.
const TAIL_BYTES: usize = 2048;

/// Longest line of output, in bytes. A longer one is broken.
const LINE_BYTES: usize = 4096;

/// The steps that the engine has reported.
#[derive(Default)]
pub struct Trace {
    steps: Vec<Step>,
}

#[derive(Default)]
struct Step {
    digest: String,
    name: String,
    /// Whether the log names it already.
    begun: bool,
    /// Whether the log says how it ended.
    ended: bool,
    error: String,
    /// The last line of its output, which is not complete.
    line: Vec<u8>,
    /// The end of its output.
    tail: String,
}

/// The value of a field.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl Trace {
    /// Takes a message in, and returns its text for the log. Text that is not Base64 counts as an empty message, and a message
    /// ends where it is damaged.
    pub fn read(&mut self, message: &str) -> String {
        let mut log = String::new();
        let message = Base64::decode_vec(message).unwrap_or_default();
        for_each(&message, &mut |number, field| match (number, field) {
            (1, Field::Bytes(vertex)) => self.vertex(vertex, &mut log),
            (3, Field::Bytes(output)) => self.output(output, &mut log),
            _ => {}
        });
        log
    }

    /// Returns the name of the step that failed and the end of its output. `failure` is the error of the whole build. The
    /// steps beside the one that failed are cancelled and have errors too.
    pub fn failed(&self, failure: &str) -> Option<(&str, &str)> {
        let failed = || self.steps.iter().filter(|step| !step.error.is_empty());
        let step = failed().find(|step| failure.contains(&step.error)).or_else(|| failed().next())?;
        Some((step.name.as_str(), step.tail.as_str()))
    }

    /// Returns the number of a step from 0. Adds it if it is new.
    fn number(&mut self, digest: &str) -> usize {
        let found = self.steps.iter().position(|step| step.digest == digest);
        found.unwrap_or_else(|| {
            self.steps.push(Step { digest: digest.to_string(), ..Step::default() });
            self.steps.len() - 1
        })
    }

    fn vertex(&mut self, message: &[u8], log: &mut String) {
        let (mut digest, mut name, mut error) = (String::new(), String::new(), String::new());
        let (mut cached, mut started, mut completed) = (false, false, false);
        for_each(message, &mut |number, field| match (number, field) {
            (1, Field::Bytes(bytes)) => digest = text(bytes),
            (3, Field::Bytes(bytes)) => name = text(bytes),
            (4, Field::Number(flag)) => cached = flag != 0,
            (5, Field::Bytes(_)) => started = true,
            (6, Field::Bytes(_)) => completed = true,
            (7, Field::Bytes(bytes)) => error = text(bytes),
            _ => {}
        });
        let index = self.number(&digest);
        let step = &mut self.steps[index];
        step.name = name;
        if started {
            step.begin(index, log);
        }
        if completed && !step.ended {
            step.ended = true;
            let line = std::mem::take(&mut step.line);
            step.print(index, &line, log);
            let end = match (cached, error.is_empty()) {
                (_, false) => "ERROR",
                (true, _) => "CACHED",
                _ => "DONE",
            };
            let space = if error.is_empty() { "" } else { ": " };
            log.push_str(&format!("#{} {end}{space}{error}\n", index + 1));
            step.error = error;
        }
    }

    fn output(&mut self, message: &[u8], log: &mut String) {
        let (mut digest, mut output) = (String::new(), Vec::new());
        for_each(message, &mut |number, field| match (number, field) {
            (1, Field::Bytes(bytes)) => digest = text(bytes),
            (4, Field::Bytes(bytes)) => output = bytes.to_vec(),
            _ => {}
        });
        let index = self.number(&digest);
        let step = &mut self.steps[index];
        step.begin(index, log);
        for byte in output {
            step.line.push(byte);
            if byte == b'\n' || step.line.len() >= LINE_BYTES {
                let line = std::mem::take(&mut step.line);
                step.print(index, &line, log);
            }
        }
    }
}

impl Step {
    /// Names the step in the log, unless it is named there already.
    fn begin(&mut self, index: usize, log: &mut String) {
        if !self.begun {
            self.begun = true;
            log.push_str(&format!("#{} {}\n", index + 1, self.name));
        }
    }

    /// Writes a line of output to the log, with the number of the step, because steps run at the same time.
    fn print(&mut self, index: usize, line: &[u8], log: &mut String) {
        if line.is_empty() {
            return;
        }
        let line = text(line);
        let line = line.trim_end_matches(['\n', '\r']);
        log.push_str(&format!("#{} {line}\n", index + 1));
        self.tail.push_str(line);
        self.tail.push('\n');
        let from = self.tail.ceil_char_boundary(self.tail.len().saturating_sub(TAIL_BYTES));
        self.tail.drain(..from);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Calls `take` with each field of a message: its number and its value. Stops where the message is damaged.
fn for_each(mut message: &[u8], take: &mut dyn FnMut(u64, Field)) {
    while let Some(key) = varint(&mut message) {
        let length = match key & 7 {
            0 => {
                let Some(value) = varint(&mut message) else { return };
                take(key >> 3, Field::Number(value));
                continue;
            }
            1 => Some(8),
            2 => varint(&mut message).and_then(|length| usize::try_from(length).ok()),
            5 => Some(4),
            // Groups are not used any more.
            _ => None,
        };
        let Some((bytes, rest)) = length.and_then(|length| message.split_at_checked(length)) else { return };
        message = rest;
        if key & 7 == 2 {
            take(key >> 3, Field::Bytes(bytes));
        }
    }
}

/// Reads a number of at most 64 bits: seven bits in each byte, the lowest first, and the highest bit in all bytes but the last.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages of Docker Engine 20.10.24 about a build of `FROM busybox:latest` and
    /// `RUN --mount=type=cache,target=/c echo out; echo err >&2; exit 7`, one in each line.
    const RECORDED: &str = include_str!("trace.recorded.txt");

    const ERROR: &str = "executor failed running [/bin/sh -c echo out; echo err >&2; exit 7]: exit code: 7";

    const STEP: &str = "[stage-0 2/2] RUN --mount=type=cache,target=/c echo out; echo err >&2; exit 7";

    #[test]
    fn recorded_messages_become_a_log() {
        let mut trace = Trace::default();
        let log: String = RECORDED.lines().map(|message| trace.read(message)).collect();
        let expected = format!(
            "#1 [internal] load remote build context\n#1 DONE\n#2 copy /context /\n#2 DONE\n\
             #3 [internal] load metadata for docker.io/library/busybox:latest\n#3 DONE\n\
             #4 [stage-0 1/2] FROM docker.io/library/busybox:latest\n#4 DONE\n#5 {STEP}\n#5 out\n#5 err\n#5 ERROR: {ERROR}\n"
        );
        assert_eq!(log, expected);
        assert_eq!(trace.failed(&format!("failed to solve: {ERROR}")), Some((STEP, "out\nerr\n")));
    }

    /// A message that is damaged anywhere is read as far as it goes.
    #[test]
    fn damaged_messages_do_no_harm() {
        for message in RECORDED.lines() {
            let bytes = Base64::decode_vec(message).expect("Base64");
            for end in 0..bytes.len() {
                let mut damaged = bytes[..end].to_vec();
                Trace::default().read(&Base64::encode_string(&damaged));
                damaged.push(0xff);
                damaged.extend_from_slice(&bytes[end + 1..]);
                Trace::default().read(&Base64::encode_string(&damaged));
            }
        }
        assert_eq!(Trace::default().read("no Base64"), "");
        assert_eq!(Trace::default().failed("x"), None);
    }

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u8::try_from(bytes.len()).expect("short");
        [&[(number << 3) | 2, length], bytes].concat()
    }

    #[test]
    fn steps_at_the_same_time_are_told_apart() {
        let vertex = |digest: &str, rest: &[u8]| {
            field(1, &[&field(1, digest.as_bytes())[..], &field(3, digest.as_bytes()), rest].concat())
        };
        let output = |digest: &str, text: &[u8]| field(3, &[field(1, digest.as_bytes()), field(4, text)].concat());
        let (started, completed) = (field(5, b""), field(6, b""));
        let cached = [&[4_u8 << 3, 1][..], &started, &completed].concat();
        let failed = |error: &str| [&started[..], &completed, &field(7, error.as_bytes())].concat();
        let mut trace = Trace::default();
        let mut read = |message: Vec<u8>| trace.read(&Base64::encode_string(&message));
        assert_eq!(read(vertex("a", b"")), "");
        assert_eq!(read(vertex("b", &cached)), "#2 b\n#2 CACHED\n");
        assert_eq!(read(vertex("a", &started)), "#1 a\n");
        assert_eq!(read(output("a", b"one\ntw\xc3")), "#1 one\n");
        assert_eq!(read(output("c", "é\r\n".as_bytes())), "#3 \n#3 é\n");
        assert_eq!(read(output("a", b"\xb6")), "");
        assert_eq!(read(vertex("a", &failed("context canceled"))), "#1 twö\n#1 ERROR: context canceled\n");
        assert_eq!(read(vertex("c", &failed("code: 1"))), "#3 ERROR: code: 1\n");
        assert_eq!(trace.failed("it failed: code: 1"), Some(("c", "é\n")));
        assert_eq!(trace.failed("something else"), Some(("a", "one\ntwö\n")));
    }
}

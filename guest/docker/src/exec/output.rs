//! The open connections that bring output. They are kept between calls, because opening one takes two requests and a new
//! process in the container. Losing them loses nothing: a read at any offset opens another one.

use std::{cell::RefCell, time::Duration};

use futures_util::StreamExt as _;
use sandbox_provider_kit::{
    Result,
    api::{
        check, ids,
        time::{bounded_wait, millis},
        wit::{EndReason, ExecRef, Output, OutputChunk, OutputLimits, ReadRequest, RunResult, Verdict},
    },
    exec::Capture,
    memo::Memo,
    platform::{Frame, within},
};

use super::{after_start, ended, reader::Reader, verdict_of};
use crate::{
    engine::{
        Call, failed,
        frames::{Demux, Source},
    },
    helper::{Fault, Helper, LONGEST_WAIT, Verb},
    inspect,
    notes::Filter,
};

/// Time without a frame after which a connection counts as broken. The helper sends a frame every 15 s at least.
const SILENCE: Duration = Duration::from_secs(60);

/// The kept connections, by sandbox and command.
pub struct Outputs {
    helper: Helper,
    readers: RefCell<Memo<(String, String), Reader>>,
}

impl Outputs {
    /// Makes an empty store.
    #[must_use]
    pub fn new(helper: Helper) -> Outputs {
        Outputs { helper, readers: RefCell::default() }
    }

    /// Starts a command and keeps the connection that brings its output.
    ///
    /// # Errors
    ///
    /// The error of the helper, or `unavailable` if the connection breaks repeatedly before the command has started.
    pub async fn start(&self, sandbox: &str, exec: &str, verb: Verb) -> Result<()> {
        let reader = self.begin(sandbox, &verb).await?;
        self.keep(sandbox, exec, reader);
        Ok(())
    }

    /// Makes the call that starts a command, until the command has started.
    async fn begin(&self, sandbox: &str, verb: &Verb) -> Result<Reader> {
        let mut repeats = 0;
        loop {
            let attempt = async {
                let mut reader = Reader::new(0, 0, Some(self.helper.begin(sandbox, verb).await?));
                while !reader.is_current {
                    self.step(&mut reader).await?;
                }
                Ok(reader)
            };
            match attempt.await {
                Ok(reader) => return Ok(reader),
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Cut(text)) if !Helper::may_repeat(repeats) => {
                    return Err(self.helper.gone(sandbox, &text).await);
                }
                Err(Fault::Cut(_)) => self.helper.pause(&mut repeats).await,
            }
        }
    }

    /// Starts a command and follows it to its end.
    ///
    /// # Errors
    ///
    /// As for [`Outputs::start`]; an error after the start has `happened: yes`.
    pub async fn run(&self, sandbox: &str, exec: &str, verb: Verb, limits: OutputLimits) -> Result<RunResult> {
        let begun = self.helper.engine().now();
        let mut reader = self.begin(sandbox, &verb).await?;
        let mut stdout = Capture::new(limits.stdout_max, limits.keep);
        let mut stderr = Capture::new(limits.stderr_max, limits.keep);
        let mut repeats = 0;
        let verdict = loop {
            let mut fresh = false;
            while let Some(piece) = reader.stdout.take_piece() {
                stdout.push(&piece);
                fresh = true;
            }
            while let Some(piece) = reader.stderr.take_piece() {
                stderr.push(&piece);
                fresh = true;
            }
            if fresh {
                repeats = 0;
            }
            if let Some(text) = reader.verdict() {
                break verdict_of(text);
            }
            if let Err(verdict) = self.receive(sandbox, exec, &mut reader, &mut repeats).await {
                break verdict.map_err(after_start)?;
            }
        };
        let duration = millis(self.helper.engine().now().saturating_sub(begun));
        Ok(RunResult { verdict, stdout: stdout.captured(), stderr: stderr.captured(), duration })
    }

    /// Receives one frame. A connection that stays silent is one that broke.
    async fn step(&self, reader: &mut Reader) -> Result<(), Fault> {
        let limit = SILENCE.saturating_sub(reader.silent);
        let step = within(self.helper.engine().transport(), limit, reader.step()).await;
        step.unwrap_or_else(|| {
            reader.silent = SILENCE;
            Err(Fault::Cut(format!("nothing was received within {} s", SILENCE.as_secs())))
        })
    }

    /// Receives one frame; opens a new connection if there is none or if it breaks. Fails with the verdict if the sandbox has
    /// ended, otherwise with an error.
    async fn receive(
        &self,
        sandbox: &str,
        exec: &str,
        reader: &mut Reader,
        repeats: &mut u32,
    ) -> Result<(), Result<Verdict>> {
        let attempt = async {
            if reader.answer.is_none() {
                let (out, err) = reader.received();
                let verb = Verb::new("read").with("id", exec).with("out", out).with("err", err).with("follow", 1);
                reader.connect(self.helper.begin(sandbox, &verb).await?);
            }
            let was_current = reader.is_current;
            self.step(reader).await.map(|()| was_current)
        };
        let error = match attempt.await {
            Ok(was_current) => {
                // The connection did not break at once: it was of use.
                if was_current {
                    *repeats = 0;
                }
                return Ok(());
            }
            Err(Fault::Cut(_)) if reader.silent == SILENCE && reader.is_current => {
                // The helper of a paused sandbox sends nothing.
                let state = inspect::state(self.helper.engine(), sandbox).await;
                if state.is_ok_and(|state| state.is_paused()) {
                    reader.silent = Duration::ZERO;
                } else {
                    reader.answer = None;
                    reader.is_current = false;
                }
                return Ok(());
            }
            Err(Fault::Cut(_)) if Helper::may_repeat(*repeats) => {
                reader.answer = None;
                self.helper.pause(repeats).await;
                return Ok(());
            }
            Err(Fault::Cut(text)) => self.helper.gone(sandbox, &text).await,
            Err(Fault::Failed(error)) => error,
        };
        reader.answer = None;
        Err(ended(&self.helper, sandbox, error).await)
    }

    /// Implements `read-output`.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for 0 bytes; otherwise the error of the helper.
    pub async fn read(&self, exec: &ExecRef, request: ReadRequest) -> Result<Output> {
        let max = check::max_bytes(request.max_bytes)?;
        let (sandbox, id) = (&exec.sandbox, &exec.exec);
        let wait = bounded_wait(request.wait);
        let key = (sandbox.clone(), id.clone());
        let kept = self.readers.borrow_mut().remove(&key);
        let kept = kept.filter(|reader| reader.is_at(request.stdout_offset, request.stderr_offset));
        let mut reader = kept.unwrap_or_else(|| Reader::new(request.stdout_offset, request.stderr_offset, None));
        if reader.drain().is_err() {
            reader.answer = None;
        }
        let result = if reader.has_news() {
            Ok(())
        } else if wait.is_zero() {
            self.look(sandbox, id, &mut reader, max).await
        } else {
            self.wait(sandbox, id, &mut reader, wait).await
        };
        match result {
            Ok(()) => {}
            Err(Ok(Verdict::SandboxEnded(reason))) if id == ids::MAIN => {
                return self.main_after_end(exec, request, reason).await;
            }
            Err(Ok(verdict)) => {
                let chunk = |offset| OutputChunk { offset, data: Vec::new(), end: true };
                let (stdout, stderr) = (chunk(request.stdout_offset), chunk(request.stderr_offset));
                return Ok(Output { stdout, stderr, verdict: Some(verdict) });
            }
            Err(Err(error)) => return Err(error),
        }
        let (stdout, stderr) = reader.share(max);
        let verdict = reader.verdict().map(verdict_of);
        if verdict.is_none() {
            self.keep(sandbox, id, reader);
        }
        Ok(Output { stdout, stderr, verdict })
    }

    /// Reads the output of the entry point of a sandbox that has ended from the engine's log, which has all of it.
    async fn main_after_end(&self, exec: &ExecRef, request: ReadRequest, reason: EndReason) -> Result<Output> {
        let max = check::max_bytes(request.max_bytes)?;
        let call = Call::get(format!("/containers/{}/logs", exec.sandbox)).with("stdout", "1").with("stderr", "1");
        let response = self.helper.engine().open(call).await?;
        let mut body = response.map_err(|refusal| failed(&refusal, "read the output of the entry point"))?.body;
        let chunk = |offset| OutputChunk { offset, data: Vec::new(), end: true };
        let (mut stdout, mut stderr) = (chunk(request.stdout_offset), chunk(request.stderr_offset));
        let (mut demux, mut filter, mut seen) = (Demux::default(), Filter::default(), [0_u64; 2]);
        let mut take = |source, bytes: &[u8]| {
            let room = max - stdout.data.len() - stderr.data.len();
            let (chunk, seen) = match source {
                Source::Stdout => (&mut stdout, &mut seen[0]),
                Source::Stderr => (&mut stderr, &mut seen[1]),
            };
            let known = chunk.offset + chunk.data.len() as u64;
            let skip = usize::try_from(known.saturating_sub(*seen)).unwrap_or(usize::MAX).min(bytes.len());
            *seen += bytes.len() as u64;
            let new = &bytes[skip..];
            chunk.data.extend_from_slice(&new[..new.len().min(room)]);
            chunk.end &= new.len() <= room;
        };
        while let Some(frame) = body.next().await {
            match frame {
                Ok(Frame::Data(data)) => demux.push(&data),
                Ok(Frame::Trailers(_)) => {}
                Err(text) => return Err(self.helper.gone(&exec.sandbox, &text).await),
            }
            while let Some((source, bytes)) = demux.next_piece() {
                match source {
                    Source::Stdout => take(source, &bytes),
                    Source::Stderr => take(source, &filter.push(&bytes)),
                }
            }
        }
        take(Source::Stderr, &filter.finish());
        let verdict = match reason {
            EndReason::Finished(code) => Verdict::Exited(code),
            reason => Verdict::SandboxEnded(reason),
        };
        let verdict = (stdout.end && stderr.end).then_some(verdict);
        Ok(Output { stdout, stderr, verdict })
    }

    /// Asks once for what is there now. The kept connection cannot tell that: what it brings may be under way.
    async fn look(&self, sandbox: &str, exec: &str, reader: &mut Reader, max: usize) -> Result<(), Result<Verdict>> {
        let (out, err) = reader.received();
        let verb = Verb::new("read").with("id", exec).with("out", out).with("err", err).with("max", max);
        let frames = match self.helper.call(sandbox, &verb.waits(Duration::ZERO)).await {
            Ok(frames) => frames,
            Err(error) => return Err(ended(&self.helper, sandbox, error).await),
        };
        for frame in frames {
            if let Err(fault) = reader.apply(frame) {
                return Err(match fault {
                    Fault::Failed(error) => Err(error),
                    Fault::Cut(text) => Err(self.helper.gone(sandbox, &text).await),
                });
            }
        }
        Ok(())
    }

    /// Waits until there is something, for at most `wait`.
    async fn wait(
        &self,
        sandbox: &str,
        exec: &str,
        reader: &mut Reader,
        wait: Duration,
    ) -> Result<(), Result<Verdict>> {
        let transport = self.helper.engine().transport();
        let begun = transport.now();
        let mut repeats = 0;
        while !reader.has_news() {
            // Before everything that was there has been received, silence does not mean that there is nothing.
            let is_current = reader.is_current && reader.answer.is_some();
            let limit = if is_current { wait } else { wait.max(LONGEST_WAIT) };
            let left = (begun + limit).saturating_sub(transport.now());
            let step = self.receive(sandbox, exec, reader, &mut repeats);
            match within(transport, left, step).await {
                Some(result) => result?,
                None => {
                    reader.silent += left;
                    return Ok(());
                }
            }
        }
        // More may have arrived together with it.
        if reader.drain().is_err() {
            reader.answer = None;
        }
        Ok(())
    }

    fn keep(&self, sandbox: &str, exec: &str, reader: Reader) {
        self.readers.borrow_mut().insert((sandbox.to_string(), exec.to_string()), reader);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use sandbox_provider_kit::{
        api::wit::Keep,
        platform::scripted::{self, Answer, Script},
    };

    use super::*;
    use crate::engine::Engine;

    const SANDBOX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// An engine that runs one container, and the commands in it.
    fn world(status: &'static str) -> (Script, Outputs) {
        let script = Script::new();
        script.answers_by("exec", |_| Answer::Http(201, "", r#"{"Id":"e"}"#));
        let state = match status {
            "paused" => r#"{"State":{"Status":"paused"},"Config":{"Labels":{"harness-sandbox":""}}}"#,
            _ => r#"{"State":{"Status":"running"},"Config":{"Labels":{"harness-sandbox":""}}}"#,
        };
        script.answers_by("json", move |_| Answer::Http(200, "", state));
        let outputs = Outputs::new(Helper::new(Engine::new(Rc::new(script.clone()))));
        (script, outputs)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Frames of the helper, as the engine sends them.
    fn sent(frames: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, payload) in frames {
            bytes.push(*tag);
            bytes.extend((payload.len() as u32).to_be_bytes());
            bytes.extend(*payload);
        }
        let mut framed = vec![1, 0, 0, 0];
        framed.extend((bytes.len() as u32).to_be_bytes());
        framed.extend(bytes);
        framed
    }

    fn alive() -> Vec<u8> {
        sent(&[(b's', b"")])
    }

    /// The output `text` behind `offset` other bytes, and the end of the command.
    fn rest(offset: u64, text: &str) -> Vec<u8> {
        let output = [&offset.to_be_bytes(), text.as_bytes()].concat();
        let end = (offset + text.len() as u64).to_be_bytes();
        sent(&[(b'o', &output), (b'O', &end), (b'R', &[0; 8]), (b'v', b"exited 0"), (b'.', b"")])
    }

    fn run(outputs: &Outputs) -> Result<RunResult> {
        let limits = OutputLimits { stdout_max: 100, stderr_max: 100, keep: Keep::Head };
        scripted::run(outputs.run(SANDBOX, "x", Verb::new("run"), limits))
    }

    /// The bodies of the requests that created execs, and when they were sent.
    fn execs(script: &Script) -> Vec<(u64, String)> {
        let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
        script.calls("exec").iter().map(|seen| (seen.at.as_secs(), text(&seen.body))).collect()
    }

    #[test]
    fn a_connection_that_becomes_silent_is_replaced() {
        let (script, outputs) = world("running");
        let begin = sent(&[(b'o', b"\0\0\0\0\0\0\0\0one"), (b's', b"")]);
        script.will("start", Answer::Paced(vec![(Duration::ZERO, begin)]));
        // More often than connections that break at once are replaced.
        for _ in 0..6 {
            script.will("start", Answer::Paced(vec![(seconds(1), alive())]));
        }
        script.will("start", Answer::Paced(vec![(Duration::ZERO, rest(3, "two"))]));
        let result = run(&outputs).expect("a result");
        assert_eq!(result.stdout.data, b"onetwo");
        let execs = execs(&script);
        assert_eq!(execs.len(), 8);
        assert_eq!((execs[0].0, execs[1].0, execs[2].0), (0, 60, 121));
        assert!(execs[1].1.contains(r#""read","id=x","out=3","err=0","follow=1""#), "{}", execs[1].1);
    }

    #[test]
    fn a_command_that_prints_nothing_keeps_its_connection() {
        let (script, outputs) = world("running");
        let mut pieces = vec![(seconds(15), alive()); 20];
        pieces.push((seconds(15), rest(0, "late")));
        script.will("start", Answer::Paced(pieces));
        let result = run(&outputs).expect("a result");
        assert_eq!((&result.stdout.data[..], result.duration), (&b"late"[..], 21 * 15_000));
        assert_eq!(execs(&script).len(), 1);
    }

    #[test]
    fn the_connection_of_a_paused_sandbox_may_be_silent() {
        let (script, outputs) = world("paused");
        script.will("start", Answer::Paced(vec![(Duration::ZERO, alive()), (seconds(200), rest(0, "late"))]));
        let result = run(&outputs).expect("a result");
        assert_eq!((&result.stdout.data[..], result.duration), (&b"late"[..], 200_000));
        assert_eq!((execs(&script).len(), script.calls("json").len()), (1, 3));
    }

    #[test]
    fn a_start_without_an_answer_is_repeated() {
        let (script, outputs) = world("running");
        script.will("start", Answer::Paced(Vec::new()));
        script.will("start", Answer::Paced(vec![(Duration::ZERO, rest(0, "once"))]));
        assert_eq!(run(&outputs).expect("a result").stdout.data, b"once");
        let [first, second] = &execs(&script)[..] else { panic!("two requests") };
        assert_eq!((&first.1, second.0), (&second.1, 60));
        // A connection that never brings anything is given up.
        for _ in 0..5 {
            script.will("start", Answer::Paced(Vec::new()));
        }
        let error = run(&outputs).expect_err("no answer");
        assert!(error.message.contains("nothing was received within 60 s"), "{}", error.message);
    }

    #[test]
    fn silence_is_noticed_by_several_short_reads() {
        let (script, outputs) = world("running");
        script.will("start", Answer::Paced(vec![(Duration::ZERO, alive()), (seconds(30), alive())]));
        script.will("start", Answer::Paced(vec![(Duration::ZERO, rest(0, "late"))]));
        scripted::run(outputs.start(SANDBOX, "x", Verb::new("run"))).expect("a start");
        let exec = ExecRef { sandbox: SANDBOX.to_string(), exec: "x".to_string(), deadline: None, container: None };
        let request = ReadRequest { stdout_offset: 0, stderr_offset: 0, max_bytes: 100, wait: 25_000 };
        for end in [25, 50, 75] {
            let output = scripted::run(outputs.read(&exec, request)).expect("output");
            assert!(output.stdout.data.is_empty() && output.verdict.is_none());
            assert_eq!(script.0.now.borrow().as_secs(), end);
        }
        let output = scripted::run(outputs.read(&exec, request)).expect("output");
        assert_eq!(output.stdout.data, b"late");
        assert_eq!(execs(&script)[1].0, 90);
    }
}

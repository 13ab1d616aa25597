//! The open connections that bring output. They are kept between calls, because opening one takes two requests and a new
//! process in the container. Losing them loses nothing: a read at any offset opens another one.

use std::{cell::RefCell, time::Duration};

use futures_util::{
    StreamExt as _,
    future::{Either, select},
};
use sandbox_provider_kit::{
    Result,
    api::{
        check, ids,
        time::{bounded_wait, millis},
        wit::{EndReason, ExecRef, Output, OutputChunk, OutputLimits, ReadRequest, RunResult, Verdict},
    },
    exec::Capture,
    memo::Memo,
    platform::Frame,
};

use super::{after_start, ended, reader::Reader, verdict_of};
use crate::{
    engine::{
        Call, failed,
        frames::{Demux, Source},
    },
    helper::{Fault, Helper, LONGEST_WAIT, Verb},
    notes::Filter,
};

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
                    reader.step().await?;
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
                reader.is_current = false;
                reader.answer = Some(self.helper.begin(sandbox, &verb).await?);
            }
            reader.step().await
        };
        let error = match attempt.await {
            Ok(()) => return Ok(()),
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
            while let Some((source, bytes)) = demux.next() {
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
        let until = transport.now() + wait;
        let mut repeats = 0;
        while !reader.has_news() {
            // Before everything that was there has been received, silence does not mean that there is nothing.
            let left = until.saturating_sub(transport.now());
            let left = if reader.is_current && reader.answer.is_some() { left } else { left.max(LONGEST_WAIT) };
            let step = std::pin::pin!(self.receive(sandbox, exec, reader, &mut repeats));
            match select(step, transport.sleep(left)).await {
                Either::Left((result, _)) => result?,
                Either::Right(_) => return Ok(()),
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

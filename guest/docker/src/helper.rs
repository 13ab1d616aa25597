//! Runs the helper program in a container. The program and its protocol are in `guest/docker/inside`.
//!
//! A call of the helper is one exec of the engine: a request that creates it and one that starts it and returns the output.
//! Every verb of the helper may be repeated, so a call whose connection broke is made again.

use std::time::Duration;

use base64ct::{Base64, Encoding as _};
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::{clip, shown},
        ids::format_uuid,
        wit::{ErrorKind, FileFault, Happened, RetryAdvice},
    },
    call::{Failure as _, http::Refusal, json::Value},
    platform::{Body, Frame as BodyFrame, within},
};

use crate::{
    engine::{
        Call, Engine, failed,
        frames::{Demux, Source},
        map, texts,
    },
    inspect::{self, State},
    notes, tar,
};

/// The directory of the helper in a container: an anonymous volume of its own, which no snapshot contains.
pub const FOLDER: &str = "/.sandbox";

/// The directory of the program: a volume that all containers share. The containers cannot write to it.
pub const PROGRAM_FOLDER: &str = "/.sandbox/bin";

/// The program.
pub const PROGRAM: &str = "/.sandbox/bin/inside";

/// Most data that is passed as an argument, in bytes. An argument has at most 128 KiB, and Base64 takes four thirds. More data
/// is put into a file by one more request.
const ARGUMENT_DATA_BYTES: usize = 64 * 1024;

/// Most bytes of the words after `--` that are passed as arguments of the helper. Longer ones are put into a file: a process
/// has room for 2 MiB of arguments and environment.
const ARGV_BYTES: usize = 512 * 1024;

/// Time limit for an answer that needs no waiting.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Longest time that one call of the helper waits. A longer wait takes several calls, so that an answer that gets lost on a
/// dead connection does not cost more.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How often a call whose connection broke is made again.
const REPEATS: u32 = 4;

/// Pause before the first repetition; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);

/// How long an engine may take at most to notice that the first process of a container has ended. It takes milliseconds, on
/// a loaded machine up to seconds; an error for another reason should not be delayed for long.
const NOTICE_TIME: Duration = Duration::from_secs(5);

/// Longest frame, in bytes.
const FRAME_BYTES: usize = 1024 * 1024;

/// Longest text of standard error that is kept for messages, in bytes.
const STDERR_BYTES: usize = 2048;

/// The arguments of a call.
#[derive(Debug, Clone)]
pub struct Verb {
    arguments: Vec<String>,
    rest: Vec<String>,
    data: Bytes,
    wait: Duration,
}

impl Verb {
    /// A call of the verb with this name.
    #[must_use]
    pub fn new(name: &str) -> Verb {
        let arguments = vec![name.to_string()];
        Verb { arguments, rest: Vec::new(), data: Bytes::new(), wait: Duration::ZERO }
    }

    /// Adds a setting.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl std::fmt::Display) -> Verb {
        self.arguments.push(format!("{name}={value}"));
        self
    }

    /// Adds a setting if there is a value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl std::fmt::Display>) -> Verb {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds a setting with the value 1 if `set`.
    #[must_use]
    pub fn flag(self, name: &str, set: bool) -> Verb {
        if set { self.with(name, 1) } else { self }
    }

    /// Adds the words after `--`.
    #[must_use]
    pub fn words(mut self, words: &[String]) -> Verb {
        self.rest = words.to_vec();
        self
    }

    /// Sets the data that the verb takes.
    #[must_use]
    pub fn data(mut self, data: impl Into<Bytes>) -> Verb {
        self.data = data.into();
        self
    }

    /// Sets how long the helper may wait before it answers.
    #[must_use]
    pub fn waits(mut self, wait: Duration) -> Verb {
        self.wait = wait;
        self.with("wait", wait.as_millis())
    }
}

/// A frame of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of standard output or standard error at an offset.
    Output(Source, u64, Bytes),
    /// A stream has ended; its length.
    End(Source, u64),
    /// How a command ended.
    Verdict(String),
    /// The command has started.
    Started,
    /// Bytes of a file or a tree.
    Data(Bytes),
    /// A JSON text.
    Json(String),
    /// The end of a complete answer.
    Done,
}

/// Why an answer ended early.
pub enum Fault {
    /// The connection broke. The call may be made again.
    Cut(String),
    /// The call failed.
    Failed(Error),
}

/// An answer that is being received.
pub struct Answer {
    body: Body,
    demux: Demux,
    held: BytesMut,
    stderr: Vec<u8>,
    done: bool,
}

impl Answer {
    fn new(body: Body) -> Answer {
        Answer { body, demux: Demux::default(), held: BytesMut::new(), stderr: Vec::new(), done: false }
    }

    /// Returns whether the answer is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Returns the next frame if it has been received already.
    ///
    /// # Errors
    ///
    /// As for [`Answer::next`].
    pub fn try_next(&mut self) -> Option<Result<Frame, Fault>> {
        self.next().now_or_never()
    }

    /// Receives the next frame.
    ///
    /// # Errors
    ///
    /// [`Fault::Cut`] if the connection broke before the answer was complete, [`Fault::Failed`] if the helper reports an
    /// error.
    pub async fn next(&mut self) -> Result<Frame, Fault> {
        loop {
            if let Some(frame) = self.frame()? {
                return Ok(frame);
            }
            if let Some((source, bytes)) = self.demux.next_piece() {
                match source {
                    Source::Stdout => self.held.extend_from_slice(&bytes),
                    Source::Stderr => {
                        let room = STDERR_BYTES.saturating_sub(self.stderr.len()).min(bytes.len());
                        self.stderr.extend_from_slice(&bytes[..room]);
                    }
                }
                continue;
            }
            match self.body.next().await {
                Some(Ok(BodyFrame::Data(data))) => self.demux.push(&data),
                Some(Ok(BodyFrame::Trailers(_))) => {}
                Some(Err(text)) => return Err(Fault::Cut(text)),
                None => return Err(Fault::Cut(self.ended())),
            }
        }
    }

    /// Describes an answer that ended without its last frame.
    fn ended(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr);
        match text.trim() {
            "" => "the answer of the helper program is incomplete".to_string(),
            text => format!("the helper program failed: {}", shown(&clip(text))),
        }
    }

    /// Takes a complete frame out of the received bytes.
    fn frame(&mut self) -> Result<Option<Frame>, Fault> {
        let Some((head, _)) = self.held.split_first_chunk::<5>() else { return Ok(None) };
        let (tag, length) = (head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize);
        if length > FRAME_BYTES {
            // Where the helper cannot be run, the engine sends the reason as if it were output.
            return Err(Fault::Cut(shown(&clip(&String::from_utf8_lossy(&self.held)))));
        }
        if self.held.len() < 5 + length {
            return Ok(None);
        }
        self.held.advance(5);
        let mut payload = self.held.split_to(length).freeze();
        let offset = |payload: &mut Bytes| if payload.len() < 8 { Err(strange()) } else { Ok(payload.get_u64()) };
        let text = |payload: &Bytes| String::from_utf8_lossy(payload).into_owned();
        Ok(Some(match tag {
            b'o' => Frame::Output(Source::Stdout, offset(&mut payload)?, payload),
            b'e' => Frame::Output(Source::Stderr, offset(&mut payload)?, payload),
            b'O' => Frame::End(Source::Stdout, offset(&mut payload)?),
            b'R' => Frame::End(Source::Stderr, offset(&mut payload)?),
            b'v' => Frame::Verdict(text(&payload)),
            b's' => Frame::Started,
            b'd' => Frame::Data(payload),
            b'j' => Frame::Json(text(&payload)),
            b'E' => return Err(Fault::Failed(explain(&text(&payload)))),
            b'.' => {
                self.done = true;
                Frame::Done
            }
            _ => return Err(strange()),
        }))
    }
}

fn strange() -> Fault {
    Fault::Failed(Error::internal("The helper program in the container sent an answer of another form."))
}

/// Converts an error of the helper: a code, a subject and a message, one in each line.
fn explain(text: &str) -> Error {
    let mut lines = text.splitn(3, '\n');
    let (code, subject, message) = (lines.next().unwrap_or_default(), lines.next(), lines.next().unwrap_or_default());
    let subject = subject.unwrap_or_default();
    let kind = match code {
        "invalid" => ErrorKind::InvalidArgument,
        "not-found" => ErrorKind::NotFound,
        "conflict" => ErrorKind::Conflict,
        "file:not-found" => ErrorKind::File(FileFault::NotFound),
        "file:is-a-directory" => ErrorKind::File(FileFault::IsADirectory),
        "file:not-a-directory" => ErrorKind::File(FileFault::NotADirectory),
        "file:already-exists" => ErrorKind::File(FileFault::AlreadyExists),
        "file:not-empty" => ErrorKind::File(FileFault::NotEmpty),
        "file:permission-denied" => ErrorKind::File(FileFault::PermissionDenied),
        "file:no-space" => ErrorKind::File(FileFault::NoSpace),
        "file:other" => ErrorKind::File(FileFault::Other(clip(message))),
        _ => ErrorKind::Internal,
    };
    let error = Error::new(kind, clip(message));
    if subject.is_empty() { error } else { error.about(subject) }
}

/// The helper of the containers of an engine.
#[derive(Clone)]
pub struct Helper {
    engine: Engine,
}

impl Helper {
    /// Makes a helper for this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Helper {
        Helper { engine }
    }

    /// Returns the engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Starts a call, in one attempt.
    ///
    /// # Errors
    ///
    /// [`Fault::Failed`] with `not-found` or `sandbox-ended` about the container, `conflict` if it is paused, or the error
    /// of the failed request; [`Fault::Cut`] if a connection broke.
    pub async fn begin(&self, container: &str, verb: &Verb) -> Result<Answer, Fault> {
        let data = match verb.data.len() {
            0 => None,
            1..=ARGUMENT_DATA_BYTES => Some(format!("data={}", Base64::encode_string(&verb.data))),
            _ => {
                // Each attempt sends the data again, because the helper removes the file that it has taken.
                let name = format_uuid(self.engine.transport().random());
                let archive = tar::file(&format!("up/{name}"), 0o600, &verb.data);
                self.put(container, archive).await.map_err(Fault::Failed)?;
                Some(format!("file={name}"))
            }
        };
        let [name, settings @ ..] = &verb.arguments[..] else { return Err(strange()) };
        let words = [PROGRAM, name].map(str::to_string).into_iter().chain(data).chain(settings.iter().cloned());
        let mut rest = Vec::new();
        if verb.rest.iter().map(String::len).sum::<usize>() > ARGV_BYTES {
            let name = format_uuid(self.engine.transport().random());
            let mut list = verb.rest.join("\0").into_bytes();
            list.push(0);
            self.put(container, tar::file(&format!("up/{name}"), 0o600, &list)).await.map_err(Fault::Failed)?;
            rest.push(format!("args=@{name}"));
        } else if !verb.rest.is_empty() {
            rest.push("--".to_string());
            rest.extend(verb.rest.iter().cloned());
        }
        let words = words.chain(rest);
        let body = map([
            ("AttachStdout", true.into()),
            ("AttachStderr", true.into()),
            ("Cmd", texts(words)),
            ("User", "0".into()),
        ]);
        let path = format!("/containers/{container}/exec");
        let created = self.engine.json(Call::post(path).json(&body).quick()).await.map_err(Fault::Failed)?;
        let created = match created {
            Ok(created) => created,
            Err(refusal) => return Err(self.refused(container, &refusal).await),
        };
        let Some(id) = created.get("Id").text() else { return Err(strange()) };
        let body = map([("Detach", false.into()), ("Tty", false.into())]);
        let call = Call::post(format!("/exec/{id}/start")).json(&body);
        let Some(response) = within(self.engine.transport(), ANSWER_TIME, self.engine.open(call)).await else {
            return Err(Fault::Cut(format!("no answer within {} s", ANSWER_TIME.as_secs())));
        };
        match response.map_err(Fault::Failed)? {
            Ok(response) => Ok(Answer::new(response.body)),
            Err(refusal) if refusal.is_refused() => Err(Fault::Cut(refusal.message().to_string())),
            Err(refusal) => Err(self.refused(container, &refusal).await),
        }
    }

    /// Explains why the engine refused an exec.
    async fn refused(&self, container: &str, refusal: &Refusal) -> Fault {
        match refusal.status() {
            None if refusal.is_retryable() => return Fault::Cut(refusal.message().to_string()),
            Some(404) => {}
            Some(409 | 500) => {}
            _ => return Fault::Failed(failed(refusal, "run the helper program in the container")),
        }
        // Engines differ in the status and in the text, so the state of the container decides.
        let error = match self.state_after_refusal(container).await {
            Err(error) => error,
            Ok(state) if state.is_over() => Error::ended(container),
            Ok(state) if state.is_paused() => {
                Error::new(ErrorKind::Conflict, "The sandbox is paused: resume it before you run commands in it.")
                    .about(container)
            }
            Ok(_) => failed(refusal, "run the helper program in the container"),
        };
        Fault::Failed(error)
    }

    /// Makes a call and returns all frames of its answer except the last. Makes it again if the connection breaks.
    ///
    /// # Errors
    ///
    /// The error of the helper, of the engine, or `unavailable` with `happened: unknown` if the connection broke too often.
    pub async fn call(&self, container: &str, verb: &Verb) -> Result<Vec<Frame>> {
        let mut repeats = 0;
        loop {
            let limit = ANSWER_TIME + verb.wait;
            let attempt = async {
                let mut answer = self.begin(container, verb).await?;
                let mut frames = Vec::new();
                loop {
                    match answer.next().await? {
                        Frame::Done => return Ok(frames),
                        frame => frames.push(frame),
                    }
                }
            };
            let result = within(self.engine.transport(), limit, attempt)
                .await
                .unwrap_or_else(|| Err(Fault::Cut(format!("no complete answer within {} s", limit.as_secs()))));
            match result {
                Ok(frames) => return Ok(frames),
                // An earlier attempt may have had its effect before the sandbox ended.
                Err(Fault::Failed(error)) if repeats > 0 && matches!(error.kind, ErrorKind::SandboxEnded) => {
                    return Err(error.with_happened(Happened::Unknown));
                }
                Err(Fault::Failed(error)) => return Err(error),
                Err(Fault::Cut(text)) if repeats == REPEATS => return Err(self.gone(container, &text).await),
                Err(Fault::Cut(_)) => self.pause(&mut repeats).await,
            }
        }
    }

    /// Pauses before a repetition.
    pub async fn pause(&self, repeats: &mut u32) {
        let transport = self.engine.transport();
        let full = PAUSE * (1 << (*repeats).min(4));
        // Callers that failed together do not repeat together.
        transport.sleep(full / 2 + full * u32::from(transport.random()[0]) / 512).await;
        *repeats += 1;
    }

    /// Returns whether a call that broke this often may be made again.
    #[must_use]
    pub fn may_repeat(repeats: u32) -> bool {
        repeats < REPEATS
    }

    /// Makes the error of a call whose connection broke too often. If the container has ended, that is the reason.
    pub async fn gone(&self, container: &str, text: &str) -> Error {
        if inspect::state(&self.engine, container).await.is_ok_and(|state| state.is_over()) {
            return Error::ended(container).with_happened(Happened::Unknown);
        }
        let message = format!("The connection to the engine broke: {}.", text.trim_end_matches('.'));
        Error::new(ErrorKind::Unavailable, message).with_happened(Happened::Unknown).with_retry(RetryAdvice::Maybe)
    }

    /// Makes a call and returns the JSON value of its answer.
    ///
    /// # Errors
    ///
    /// As for [`Helper::call`]; `internal` if the answer has no JSON.
    pub async fn json(&self, container: &str, verb: &Verb) -> Result<Value> {
        json_of(&self.call(container, verb).await?)
    }

    /// Unpacks a tar archive into the helper's directory.
    ///
    /// # Errors
    ///
    /// `not-found` or `sandbox-ended` about the container, or the error of the failed request.
    pub async fn put(&self, container: &str, archive: impl Into<Bytes>) -> Result<()> {
        let call = Call::put(format!("/containers/{container}/archive")).with("path", FOLDER);
        match self.engine.ask(call.tar(archive)).await? {
            Ok(_) => Ok(()),
            Err(refusal) => Err(match refusal.status() {
                Some(404 | 409 | 500) if self.state_after_refusal(container).await?.is_over() => {
                    Error::ended(container)
                }
                _ => failed(&refusal, "send data to the container"),
            }),
        }
    }

    /// Returns the state of a container that the engine could not use. The first process of a container that still counts
    /// as running may have ended just now (Podman's error is `open /proc/PID/ns/mnt: no such file or directory` then), so the
    /// state is read again until it is another one or [`NOTICE_TIME`] has passed.
    async fn state_after_refusal(&self, container: &str) -> Result<State> {
        let until = self.engine.now() + NOTICE_TIME;
        loop {
            let state = inspect::state(&self.engine, container).await?;
            if !state.is_running() || self.engine.now() >= until {
                return Ok(state);
            }
            self.engine.transport().sleep(PAUSE).await;
        }
    }

    /// Reads the notes of a container, also of one that has ended.
    ///
    /// The files of a container that runs are read by the archive API. Those of one that has ended are not: Podman damages
    /// such a container if two requests read its files at the same time. Its log has the same notes.
    ///
    /// # Errors
    ///
    /// `not-found` if there is no such container, or the error of the failed request.
    pub async fn notes(&self, container: &str, state: &State) -> Result<Notes> {
        if state.is_new() {
            return Ok(Notes(Vec::new()));
        }
        let over = state.is_over();
        let call = if over {
            let call = Call::get(format!("/containers/{container}/logs")).with("stderr", "1").with("stdout", "0");
            call.with("tail", LAST_LINES)
        } else {
            Call::get(format!("/containers/{container}/archive")).with("path", format!("{FOLDER}/{NOTES}"))
        };
        match self.engine.ask(call).await? {
            Ok(answer) if over => Ok(Notes(notes::of_log(&answer.body))),
            Ok(answer) => Ok(Notes(tar::files(&answer.body))),
            Err(refusal) if refusal.status() == Some(404) && !over => Ok(Notes(Vec::new())),
            Err(refusal) if refusal.status() == Some(404) => Err(Error::not_found("sandbox", container)),
            // It has ended since its state was read.
            Err(refusal) if !over => match self.state_after_refusal(container).await? {
                state if state.is_over() => Box::pin(self.notes(container, &state)).await,
                _ => Err(failed(&refusal, "read a file of the container")),
            },
            Err(refusal) => Err(failed(&refusal, "read the log of the container")),
        }
    }

    /// Writes a note of a container that runs. An empty one is none.
    ///
    /// # Errors
    ///
    /// As for [`Helper::call`].
    pub async fn note(&self, container: &str, name: &str, text: &str) -> Result<()> {
        let verb = Verb::new("note").with("name", name).with("text", text);
        self.call(container, &verb).await.map(drop)
    }
}

/// How many of the last lines of a log are searched for notes.
const LAST_LINES: &str = "100";

/// The directory with the notes, in that of the helper.
const NOTES: &str = "state";

/// The notes of a container: why it ended, its newer tags, its usage.
pub struct Notes(Vec<(String, Vec<u8>)>);

impl Notes {
    /// Returns a note, or `None` if there is none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        // The newest one of a log is the last.
        let found = self.0.iter().rev().find(|(path, _)| path.rsplit('/').next() == Some(name));
        let text = found.map(|(_, content)| String::from_utf8_lossy(content).trim().to_string());
        text.filter(|text| !text.is_empty())
    }
}

/// Returns the JSON value of an answer.
///
/// # Errors
///
/// `internal` if there is none.
pub fn json_of(frames: &[Frame]) -> Result<Value> {
    let text = frames.iter().find_map(|frame| if let Frame::Json(text) = frame { Some(text) } else { None });
    text.and_then(|text| Value::parse(text))
        .ok_or_else(|| Error::internal("The helper program in the container sent an answer without its content."))
}

/// Returns the data of an answer.
#[must_use]
pub fn data_of(frames: Vec<Frame>) -> Vec<u8> {
    let mut all = Vec::new();
    for frame in frames {
        if let Frame::Data(data) = frame {
            all.extend_from_slice(&data);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use sandbox_provider_kit::platform::scripted::{self, Answer, Script};

    use super::*;

    const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const RUNNING: &str = r#"{"State":{"Status":"running"},"Config":{"Labels":{"harness-sandbox":""}}}"#;
    const EXITED: &str = r#"{"State":{"Status":"exited"},"Config":{"Labels":{"harness-sandbox":""}}}"#;
    const REFUSAL: &str = r#"{"message":"open /proc/7/ns/mnt: no such file or directory"}"#;

    /// An engine whose container has no process any more, which it notices after `looks` looks at the state.
    fn engine(looks: usize) -> (Script, Helper) {
        let script = Script::new();
        for method in ["archive", "exec"] {
            script.answers_by(method, |_| Answer::Http(500, "", REFUSAL));
        }
        script.answers_by("logs", |_| {
            Answer::Http(200, "", "\u{2}\0\0\0\0\0\0\u{1e}\u{1e}sandbox-note end finished 7\u{1f}\n")
        });
        let mut seen = 0;
        script.answers_by("json", move |_| {
            seen += 1;
            Answer::Http(200, "", if seen > looks { EXITED } else { RUNNING })
        });
        let helper = Helper::new(Engine::new(Rc::new(script.clone())));
        (script, helper)
    }

    fn notes(helper: &Helper) -> Result<Notes> {
        scripted::run(async {
            let state = inspect::state(helper.engine(), CONTAINER).await?;
            helper.notes(CONTAINER, &state).await
        })
    }

    #[test]
    fn an_end_that_the_engine_notices_late_is_no_error_of_the_engine() {
        // The first look is that of the caller.
        let (_, helper) = engine(4);
        assert_eq!(notes(&helper).expect("notes").get("end").as_deref(), Some("finished 7"));
        let (script, helper) = engine(3);
        let error = scripted::run(helper.call(CONTAINER, &Verb::new("list"))).expect_err("no container");
        assert!(matches!(error.kind, ErrorKind::SandboxEnded), "{}", error.message);
        assert_eq!(script.calls("json").len(), 4);
        let (_, helper) = engine(3);
        let error = scripted::run(helper.put(CONTAINER, "x")).expect_err("no container");
        assert!(matches!(error.kind, ErrorKind::SandboxEnded), "{}", error.message);
    }

    #[test]
    fn a_refusal_for_another_reason_is_reported_after_some_seconds() {
        let (script, helper) = engine(usize::MAX);
        let error = notes(&helper).err().expect("no notes");
        assert!(error.message.contains("/proc/7/ns/mnt"), "{}", error.message);
        assert_eq!(*script.0.now.borrow(), NOTICE_TIME);
        let error = scripted::run(helper.put(CONTAINER, "x")).expect_err("no place");
        assert!(error.message.contains("send data to the container"), "{}", error.message);
        let error = scripted::run(helper.call(CONTAINER, &Verb::new("list"))).expect_err("no call");
        assert!(error.message.contains("run the helper program"), "{}", error.message);
        assert_eq!(*script.0.now.borrow(), NOTICE_TIME * 3);
    }
}

//! Builds, which callers follow by a cursor (docs/modal-protocol.md, section 3.1).
//!
//! Modal builds one layer per request and needs the id of the finished layer below. So the cursor contains the requests
//! for the remaining layers, and any instance can continue the build.

use std::{cell::RefCell, future::poll_fn, rc::Rc, task::Poll, time::Duration};

use base64ct::{Base64Unpadded, Encoding as _};
use bytes::Bytes;
use futures_util::{Stream as _, StreamExt as _, stream::LocalBoxStream};
use modal_proto::client::{
    GenericResult, ImageGetOrCreateRequest, ImageJoinStreamingRequest, ImageJoinStreamingResponse, ImageMetadata,
    generic_result::GenericStatus,
};
use modal_proto::rpc;
use prost::Message;

use crate::{
    image::layers::{self, base_image, check_image, image_error, named_image},
    service::{Service, policy, wire::output_stream},
};
use sandbox_provider_kit::{
    Error, Result,
    api::{
        check,
        error::clip,
        time::{bounded_wait, millis},
        wit::{BuildProgress, BuiltImage, ErrorKind, Happened, ImageSource, ImageSpec, LogChunk},
    },
    call::{
        Endpoint as _, Failure as _,
        grpc::{Code, Status},
        retry::not_yet,
    },
    memo::Memo,
};

/// Time for which the server holds one log stream, in seconds (docs/modal-protocol.md, section 3.1).
const JOIN_SECONDS: f32 = 55.0;

/// Size of the log text for the message of a failed build, in bytes: the end of the output of the failed step.
const TAIL_BYTES: usize = 2048;

/// Size of the beginning of a log line, in bytes, that is checked for a step and kept as the name of the step.
const LINE_BYTES: usize = 300;

/// The beginning of a log line that names a step.
const STEP: &str = "=> ";

/// Largest cursor that is accepted. The interface promises that no cursor is larger.
const MAX_CURSOR_BYTES: usize = 64 * 1024;

/// The position of a build. The caller gets it in base64.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Cursor {
    /// The layer that is being built.
    #[prost(string, tag = "1")]
    image: String,
    /// The last log entry that was returned completely.
    #[prost(string, tag = "2")]
    entry: String,
    /// Number of bytes of the next entry that were returned.
    #[prost(uint64, tag = "3")]
    skip: u64,
    /// The end of the output of the current step.
    #[prost(string, tag = "4")]
    tail: String,
    /// The current step: a line of the Dockerfile in the form of the log.
    #[prost(string, tag = "5")]
    step: String,
    /// The beginning of an incomplete log line.
    #[prost(string, tag = "6")]
    line: String,
    /// Requests for the layers above, without their base image.
    #[prost(bytes = "vec", repeated, tag = "7")]
    next: Vec<Vec<u8>>,
    /// The layer is built.
    #[prost(bool, tag = "8")]
    done: bool,
    /// Its working directory.
    #[prost(string, optional, tag = "9")]
    workdir: Option<String>,
}

impl Cursor {
    fn encode(&self) -> Result<String> {
        let text = Base64Unpadded::encode_string(&self.encode_to_vec());
        if text.len() > MAX_CURSOR_BYTES {
            return Err(Error::invalid("The further commands are too long: put them into a Dockerfile."));
        }
        Ok(text)
    }

    fn decode_text(text: &str) -> Result<Cursor> {
        let bytes = Some(text).filter(|text| text.len() <= MAX_CURSOR_BYTES);
        let bytes = bytes.and_then(|text| Base64Unpadded::decode_vec(text).ok()).ok_or_else(strange_cursor)?;
        let cursor = <Cursor as Message>::decode(Bytes::from(bytes)).map_err(|_| strange_cursor())?;
        if cursor.image.is_empty() { Err(strange_cursor()) } else { Ok(cursor) }
    }

    /// Keeps the parts of the log for the message of a failed build.
    fn remember(&mut self, text: &str) {
        for line in text.split_inclusive('\n') {
            let room = LINE_BYTES.saturating_sub(self.line.len());
            self.line.push_str(&line[..line.floor_char_boundary(room)]);
            self.tail.push_str(line);
            if line.ends_with('\n') {
                if let Some(step) = self.line.strip_prefix(STEP) {
                    self.step = step.trim().to_string();
                    self.tail.clear();
                }
                self.line.clear();
            }
            if self.tail.len() > TAIL_BYTES {
                let cut = self.tail.len() - TAIL_BYTES;
                self.tail.drain(..self.tail.ceil_char_boundary(cut));
            }
        }
    }
}

fn strange_cursor() -> Error {
    Error::invalid("This is not a cursor of a build: give one that `start-build` or `read-build` returned.")
}

/// A log stream that is open between calls, with a message that was returned in part.
pub struct Join {
    stream: LocalBoxStream<'static, Result<ImageJoinStreamingResponse, Status>>,
    pending: Option<ImageJoinStreamingResponse>,
}

/// The builds of a service. Clones share the open log streams.
#[derive(Clone)]
pub struct Builds {
    service: Service,
    joins: Rc<RefCell<Memo<String, Join>>>,
}

impl Builds {
    /// Makes the builds of a service, without open streams.
    #[must_use]
    pub fn new(service: Service) -> Builds {
        Builds { service, joins: Rc::default() }
    }

    /// Implements `start-build` of the interface. Starts a build, joins a running one or finds the finished image, and
    /// returns its progress at once.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an image that cannot be built, `not-found` for an unknown image or secret, `build-failed`
    /// if the build has failed already; otherwise the error of the failed request.
    pub async fn start_build(&self, spec: &ImageSpec) -> Result<BuildProgress> {
        check_image(spec)?;
        if spec.commands.is_empty() {
            let known = match &spec.source {
                ImageSource::Id(id) => Some(id.clone()),
                ImageSource::Named(name) => Some(named_image(&self.service, name).await?),
                _ => None,
            };
            if let Some(id) = known {
                let image = Some(layers::get(&self.service, &id).await?);
                return Ok(BuildProgress { log: Vec::new(), cursor: String::new(), image });
            }
        }
        let mut layers = layers::layers(&self.service, spec).await?.into_iter();
        let first = layers.next().ok_or_else(|| Error::internal("The image has no layers."))?;
        let next = layers.map(|layer| layer.encode_to_vec()).collect();
        let mut cursor = self.request_layer(first, Cursor { next, ..Cursor::default() }).await?;
        // There is no log if all layers exist already.
        while cursor.done {
            match self.next_layer(cursor).await? {
                Step::Next(next) => cursor = next,
                Step::Image(image, cursor) => {
                    return Ok(BuildProgress { log: Vec::new(), cursor: cursor.encode()?, image: Some(image) });
                }
            }
        }
        Ok(BuildProgress { log: Vec::new(), cursor: cursor.encode()?, image: None })
    }

    /// Implements `read-build` of the interface. Returns the next piece of a build's log, at most `max_bytes` bytes.
    ///
    /// # Errors
    ///
    /// `invalid-argument` for an invalid cursor, `build-failed` once the log of a failed build has been read; otherwise
    /// the error of the failed request.
    pub async fn read_build(&self, text: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        let mut room = check::max_bytes(max_bytes)?;
        let mut cursor = Cursor::decode_text(text)?;
        let deadline = self.service.now() + bounded_wait(wait);
        let mut log = Vec::new();
        let mut failures = 0;
        loop {
            if cursor.done {
                match self.next_layer(cursor).await? {
                    Step::Next(next) => cursor = next,
                    Step::Image(image, cursor) => {
                        return Ok(BuildProgress { log, cursor: cursor.encode()?, image: Some(image) });
                    }
                }
                continue;
            }
            let (asked, key) = (self.service.now(), cursor.encode()?);
            let kept = self.joins.borrow_mut().remove(&key);
            let mut join = match kept {
                Some(join) => join,
                None => self.join(&cursor).await?,
            };
            let outcome = self.read_join(&mut join, &mut cursor, &mut log, &mut room, deadline).await?;
            if cursor.encode()? != key {
                failures = 0;
            }
            match outcome {
                Read::Done => {}
                Read::Failed(error) if log.is_empty() => return Err(error),
                // The log is returned first. The next call finds the failure again.
                Read::Failed(_) => return Ok(BuildProgress { log, cursor: cursor.encode()?, image: None }),
                // The stream broke repeatedly without new output.
                Read::Broken(status) if failures >= policy::CONTROL.retries && log.is_empty() => {
                    return Err(image_error(&self.service, &cursor.image, &status));
                }
                Read::Broken(_) if failures >= policy::CONTROL.retries => {
                    return Ok(BuildProgress { log, cursor: cursor.encode()?, image: None });
                }
                ended @ (Read::Reopen | Read::Broken(_)) => {
                    if self.service.now() >= deadline {
                        return Ok(BuildProgress { log, cursor: cursor.encode()?, image: None });
                    }
                    let transport = self.service.transport();
                    match ended {
                        Read::Broken(_) => {
                            transport.sleep(policy::CONTROL.pause(failures, &**transport)).await;
                            failures += 1;
                        }
                        _ => not_yet(transport, asked, Duration::from_secs_f32(JOIN_SECONDS)).await,
                    }
                }
                Read::Enough => {
                    let text = cursor.encode()?;
                    self.joins.borrow_mut().insert(text.clone(), join);
                    return Ok(BuildProgress { log, cursor: text, image: None });
                }
            }
        }
    }

    /// Returns the image of a spec. Builds it if necessary, without returning the log.
    pub(crate) async fn ready_image(&self, spec: &ImageSpec) -> Result<BuiltImage> {
        if let ImageSource::Id(id) = &spec.source
            && spec.commands.is_empty()
        {
            check_image(spec)?;
            return Ok(BuiltImage { id: id.clone(), workdir: None, extra: Vec::new() });
        }
        let mut progress = self.start_build(spec).await?;
        loop {
            if let Some(image) = progress.image {
                return Ok(image);
            }
            progress = self.read_build(&progress.cursor, 1024 * 1024, 60_000).await?;
        }
    }

    /// Requests a layer. The returned cursor is at the beginning of its log, or after it if the layer exists already.
    async fn request_layer(&self, layer: ImageGetOrCreateRequest, cursor: Cursor) -> Result<Cursor> {
        let answer = self.service.control.call("build the image", rpc::IMAGE_GET_OR_CREATE, &layer).await?;
        if answer.image_id.is_empty() {
            return Err(Error::internal("Modal's response to the build contains no image."));
        }
        let mut cursor = Cursor { image: answer.image_id, next: cursor.next, ..Cursor::default() };
        if let Some(result) = answer.result.filter(|result| result.status() != GenericStatus::Unspecified) {
            if let Some(error) = build_error(&result, &cursor) {
                return Err(error);
            }
            cursor.done = true;
            cursor.workdir = answer.metadata.and_then(|metadata| metadata.workdir);
        }
        Ok(cursor)
    }

    /// Continues with the next layer after one was built, or returns the image.
    async fn next_layer(&self, mut cursor: Cursor) -> Result<Step> {
        if cursor.next.is_empty() {
            let image = BuiltImage { id: cursor.image.clone(), workdir: cursor.workdir.clone(), extra: Vec::new() };
            return Ok(Step::Image(image, cursor));
        }
        let encoded = cursor.next.remove(0);
        let mut layer = ImageGetOrCreateRequest::decode(Bytes::from(encoded)).map_err(|_| strange_cursor())?;
        if let Some(image) = &mut layer.image {
            image.base_images = vec![base_image(cursor.image.clone())];
        }
        Ok(Step::Next(self.request_layer(layer, cursor).await?))
    }

    async fn join(&self, cursor: &Cursor) -> Result<Join> {
        let (mut failures, begun) = (0, self.service.now());
        loop {
            let request = ImageJoinStreamingRequest {
                image_id: cursor.image.clone(),
                timeout: JOIN_SECONDS,
                last_entry_id: cursor.entry.clone(),
                include_logs_for_finished: true,
            };
            let opened = self.service.control.stream(rpc::IMAGE_JOIN_STREAMING, &request).await?;
            match opened {
                Ok(stream) => return Ok(Join { stream: stream.boxed_local(), pending: None }),
                Err(status) if self.comes_back(&status, begun).await? => {}
                Err(status) if status.is_retryable() && failures < policy::CONTROL.retries => {
                    let transport = self.service.transport();
                    transport.sleep(policy::CONTROL.pause(failures, &**transport)).await;
                    failures += 1;
                }
                Err(status) => return Err(image_error(&self.service, &cursor.image, &status)),
            }
        }
    }

    /// Waits for the time that the service asks for, unless that exceeds the limit. Returns whether it waited. This is
    /// not counted as a retry.
    async fn comes_back(&self, status: &Status, begun: Duration) -> Result<bool> {
        let Some(wait) = policy::server_wait(status) else { return Ok(false) };
        let most = self.service.config()?.max_throttle_wait.unwrap_or(Duration::MAX);
        let follow = self.service.now().saturating_sub(begun).saturating_add(wait) <= most;
        if follow {
            self.service.transport().sleep(wait).await;
        }
        Ok(follow)
    }

    /// Reads the available log. Waits until `deadline` if there is none.
    async fn read_join(
        &self,
        join: &mut Join,
        cursor: &mut Cursor,
        log: &mut Vec<LogChunk>,
        room: &mut usize,
        deadline: Duration,
    ) -> Result<Read> {
        let mut timer = self.service.transport().sleep(deadline.saturating_sub(self.service.now()));
        loop {
            let message = match join.pending.take() {
                Some(message) => Some(Ok(message)),
                None => {
                    let stream = &mut join.stream;
                    let hurried = !log.is_empty();
                    let item = poll_fn(|cx| match std::pin::Pin::new(&mut *stream).poll_next(cx) {
                        Poll::Ready(item) => Poll::Ready(Some(item)),
                        // Some log was read: return it instead of waiting for more.
                        Poll::Pending if hurried => Poll::Ready(None),
                        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
                    })
                    .await;
                    match item {
                        None => return Ok(Read::Enough),
                        Some(item) => item,
                    }
                }
            };
            let message = match message {
                None => return Ok(Read::Reopen),
                Some(Err(status)) if status.code() == Code::Unauthenticated => {
                    self.service.control.expire();
                    return Ok(Read::Broken(status));
                }
                Some(Err(status)) if status.is_retryable() => return Ok(Read::Broken(status)),
                Some(Err(status)) => return Err(image_error(&self.service, &cursor.image, &status)),
                Some(Ok(message)) => message,
            };
            if !deliver(&message, cursor, log, room) {
                join.pending = Some(message);
                return Ok(Read::Enough);
            }
            if let Some(result) = message.result.filter(|result| result.status() != GenericStatus::Unspecified) {
                if let Some(error) = build_error(&result, cursor) {
                    return Ok(Read::Failed(error));
                }
                cursor.done = true;
                cursor.workdir = message.metadata.and_then(|metadata: ImageMetadata| metadata.workdir);
                return Ok(Read::Done);
            }
        }
    }
}

enum Step {
    Next(Cursor),
    Image(BuiltImage, Cursor),
}

/// The result of reading a log stream.
enum Read {
    /// The layer is built.
    Done,
    /// The build failed.
    Failed(Error),
    /// The stream ended without an outcome: open it again.
    Reopen,
    /// The stream broke.
    Broken(Status),
    /// Enough was read, or no more is available now.
    Enough,
}

/// Returns the log of a message as far as there is room. Returns `false` if some of it is left.
fn deliver(
    message: &ImageJoinStreamingResponse,
    cursor: &mut Cursor,
    log: &mut Vec<LogChunk>,
    room: &mut usize,
) -> bool {
    let mut passed = 0;
    for entry in &message.task_logs {
        let skip = usize::try_from(cursor.skip).unwrap_or(usize::MAX).saturating_sub(passed).min(entry.data.len());
        passed += entry.data.len();
        let text = entry.data.get(skip..).unwrap_or_default();
        if text.is_empty() {
            continue;
        }
        let fits = text.floor_char_boundary(*room);
        if fits == 0 && !log.is_empty() {
            return false;
        }
        // A character that is larger than the whole room is returned anyway, because the reader would otherwise never
        // make progress.
        let fits = fits.max(text.chars().next().map_or(0, char::len_utf8));
        let piece = &text[..fits];
        *room = room.saturating_sub(fits);
        cursor.remember(piece);
        log.push(LogChunk {
            stream: output_stream(entry),
            text: piece.to_string(),
            at: Duration::try_from_secs_f64(entry.timestamp).ok().filter(|at| !at.is_zero()).map(millis),
        });
        if fits < text.len() {
            cursor.skip = (passed - (text.len() - fits)) as u64;
            return false;
        }
        cursor.skip = passed as u64;
    }
    if !message.entry_id.is_empty() {
        cursor.entry.clone_from(&message.entry_id);
        cursor.skip = 0;
    }
    true
}

/// Returns the error of a finished build, or `None` if it succeeded (docs/modal-protocol.md, section 3.1).
fn build_error(result: &GenericResult, cursor: &Cursor) -> Option<Error> {
    let said = clip(result.exception.trim_end());
    let what = match result.status() {
        GenericStatus::Success => return None,
        GenericStatus::Terminated => "The image build was terminated",
        GenericStatus::Timeout => "The image build took too long",
        _ => "The image could not be built",
    };
    let mut message = what.to_string();
    if !cursor.step.is_empty() {
        message = format!("{message}, at `{}`", cursor.step);
    }
    if !said.is_empty() {
        message = format!("{message}: {}", said.trim_end_matches('.'));
    }
    message.push('.');
    let tail = cursor.tail.trim_end();
    if !tail.is_empty() && !said.contains(tail) {
        message = format!("{message}\nThe end of its output:\n{tail}");
    }
    Some(
        Error::new(ErrorKind::BuildFailed, message)
            .with_happened(Happened::Yes)
            .with_provider(Some(format!("build:{}", result.status().as_str_name())), Some(said))
            .about(&cursor.image),
    )
}

#[cfg(test)]
mod tests {
    use modal_proto::client::TaskLogs;

    use super::*;

    fn message(entry: &str, texts: &[&str]) -> ImageJoinStreamingResponse {
        ImageJoinStreamingResponse {
            entry_id: entry.to_string(),
            task_logs: texts.iter().map(|text| TaskLogs { data: (*text).to_string(), ..Default::default() }).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn a_log_read_in_small_pieces_is_the_whole_log() {
        let message = message("7", &["one\n", "", "zwölf\n", "three"]);
        for max in [1, 2, 3, 5, 8, 100] {
            let mut cursor = Cursor { image: "im-1".into(), ..Cursor::default() };
            let mut text = String::new();
            for call in 0.. {
                assert!(call < 50, "no progress with {max} bytes a call");
                let (mut log, mut room) = (Vec::new(), max);
                // Each call gets its cursor from the caller.
                cursor = Cursor::decode_text(&cursor.encode().unwrap()).unwrap();
                let all = deliver(&message, &mut cursor, &mut log, &mut room);
                text.extend(log.iter().map(|chunk| chunk.text.as_str()));
                if all {
                    break;
                }
            }
            assert_eq!(text, "one\nzwölf\nthree", "{max} bytes a call");
            assert_eq!((cursor.entry.as_str(), cursor.skip), ("7", 0));
        }
    }

    #[test]
    fn strange_cursors_are_refused() {
        for text in ["", "x", "e30", "!!!!", &"A".repeat(70_000)] {
            assert!(Cursor::decode_text(text).is_err(), "{text:.10}");
        }
    }

    #[test]
    fn the_tail_keeps_whole_characters() {
        let mut cursor = Cursor::default();
        for _ in 0..3000 {
            cursor.remember("ü");
        }
        assert!(cursor.tail.len() <= TAIL_BYTES && cursor.tail.chars().all(|c| c == 'ü'));
    }
    #[test]
    fn a_failure_names_its_line_and_the_end_of_its_output() {
        let log = "=> FROM debian\nfetched\n=> RUN make\ngcc: error: no input files\nmake: *** Error 1\n";
        for size in [1, 7, 1000] {
            let mut cursor = Cursor { image: "im-1".into(), ..Cursor::default() };
            for piece in log.as_bytes().chunks(size) {
                cursor.remember(std::str::from_utf8(piece).unwrap());
            }
            let result = GenericResult {
                status: GenericStatus::Failure.into(),
                exception: "exit code 2".into(),
                ..Default::default()
            };
            let message = build_error(&result, &cursor).unwrap().into_record().message;
            assert_eq!(
                message,
                "The image could not be built, at `RUN make`: exit code 2.\nThe end of its output:\ngcc: error: no input files\nmake: *** Error 1"
            );
        }
    }
}

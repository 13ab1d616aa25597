//! Images: what the layers of a wanted image are, and builds that are followed by cursor (fact sheet, section 3).
//!
//! An image is one or two layers: where it comes from, and the further commands on top. Modal builds one layer per request
//! and needs the id of a finished one below, so a cursor carries the layers that are still to come; any instance can go
//! on with it.

use std::{collections::HashMap, future::poll_fn, task::Poll, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use futures_util::{Stream as _, StreamExt as _, stream::BoxStream};
use modal_proto::client::{
    BaseImage, DeploymentNamespace, FileDescriptor, GenericResult, Image, ImageDeleteRequest, ImageFromIdRequest,
    ImageGetByTagRequest, ImageGetOrCreateRequest, ImageJoinStreamingRequest, ImageJoinStreamingResponse,
    ImageMetadata, ImageRegistryConfig, RegistryAuthType, generic_result::GenericStatus,
};
use modal_proto::rpc;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

use crate::{
    bindings::{
        BuildProgress, BuiltImage, Dockerfile, ErrorKind, Happened, ImageSource, ImageSpec, LogChunk, OutputStream,
        RegistryLogin, RetryAdvice,
    },
    error::{Error, Result, clip},
    execs::{bounded_wait, check_extra, check_max},
    provider::Provider,
    retry,
};

/// How long the server holds one log stream, in seconds (fact sheet, section 3.1).
const JOIN_SECONDS: f32 = 55.0;

/// Log text kept for the message of a failed build, in bytes: the end of the output of the failing line.
const TAIL_BYTES: usize = 2048;

/// Largest cursor that is looked at; the interface promises to give none larger.
const MAX_CURSOR_BYTES: usize = 64 * 1024;

/// The name that a layer's FROM gives to the layer below.
const BASE: &str = "base";

/// Where a build stands. Travels to the caller as base64 of JSON.
#[derive(Serialize, Deserialize, Clone, Default)]
struct Cursor {
    /// The layer that is being built.
    #[serde(rename = "i")]
    image: String,
    /// The last log entry that was delivered in full.
    #[serde(rename = "e", default)]
    entry: String,
    /// Bytes of the entry after it that were delivered.
    #[serde(rename = "s", default)]
    skip: usize,
    /// The end of the log so far.
    #[serde(rename = "t", default)]
    tail: String,
    /// Requests for the layers on top, without their base; protobuf in base64.
    #[serde(rename = "n", default)]
    next: Vec<String>,
    /// The layer's log is over: `Some` with the outcome's working directory.
    #[serde(rename = "d", default)]
    done: bool,
    #[serde(rename = "w", default)]
    workdir: Option<String>,
}

impl Cursor {
    fn encode(&self) -> Result<String> {
        let json = serde_json::to_vec(self).map_err(|error| Error::internal(error.to_string()))?;
        let text = STANDARD_NO_PAD.encode(json);
        if text.len() > MAX_CURSOR_BYTES {
            return Err(Error::invalid("The further commands are too long: put them into a Dockerfile."));
        }
        Ok(text)
    }

    fn decode(text: &str) -> Result<Cursor> {
        let bad = || Error::invalid("This is not a cursor of a build.");
        if text.len() > MAX_CURSOR_BYTES {
            return Err(bad());
        }
        let json = STANDARD_NO_PAD.decode(text).map_err(|_| bad())?;
        serde_json::from_slice(&json).map_err(|_| bad())
    }

    fn remember(&mut self, text: &str) {
        self.tail.push_str(text);
        if self.tail.len() > TAIL_BYTES {
            let cut = self.tail.len() - TAIL_BYTES;
            self.tail.drain(..self.tail.ceil_char_boundary(cut));
        }
    }
}

/// A log stream that lies open between calls, with a message of which a part has been delivered.
pub struct Join {
    stream: BoxStream<'static, Result<ImageJoinStreamingResponse, Status>>,
    pending: Option<ImageJoinStreamingResponse>,
}

impl Provider {
    /// See `start-build` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn start_build(&self, spec: &ImageSpec) -> Result<BuildProgress> {
        check_image(spec)?;
        if let ImageSource::Id(id) = &spec.source
            && spec.commands.is_empty()
        {
            return Ok(BuildProgress {
                log: Vec::new(),
                cursor: String::new(),
                image: Some(self.get_image(id).await?),
            });
        }
        let mut layers = self.layers(spec).await?.into_iter();
        let first = layers.next().ok_or_else(|| Error::internal("An image without layers."))?;
        let next = layers.map(|layer| STANDARD_NO_PAD.encode(layer.encode_to_vec())).collect();
        let cursor = self.request_layer(first, Cursor { next, ..Cursor::default() }).await?;
        // Nothing to read when every layer is there already.
        let mut cursor = cursor;
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

    /// See `read-build` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn read_build(&self, text: &str, max_bytes: u32, wait: u64) -> Result<BuildProgress> {
        let mut room = check_max(max_bytes)?;
        let mut cursor = Cursor::decode(text)?;
        let deadline = self.now() + bounded_wait(wait);
        let mut log = Vec::new();
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
            let key = cursor.encode()?;
            let kept = self.inner.state.borrow_mut().joins.remove(&key);
            let mut join = match kept {
                Some(join) => join,
                None => self.join(&cursor).await?,
            };
            let outcome = self.read_join(&mut join, &mut cursor, &mut log, &mut room, deadline).await?;
            match outcome {
                Read::Done => {}
                Read::Failed(error) if log.is_empty() => return Err(error),
                // The log first; the next call finds the failure again.
                Read::Failed(_) => return Ok(BuildProgress { log, cursor: cursor.encode()?, image: None }),
                Read::Reopen => {
                    if self.now() >= deadline {
                        return Ok(BuildProgress { log, cursor: cursor.encode()?, image: None });
                    }
                }
                Read::Enough => {
                    let text = cursor.encode()?;
                    self.inner.state.borrow_mut().joins.insert(text.clone(), join);
                    return Ok(BuildProgress { log, cursor: text, image: None });
                }
            }
        }
    }

    /// The image of a spec, built if need be without showing the log.
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

    /// See `get-image` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn get_image(&self, image: &str) -> Result<BuiltImage> {
        check_image_id(image)?;
        let request = ImageFromIdRequest { image_id: image.to_string() };
        let result = self.control_keyed(&self.new_uuid(), rpc::IMAGE_FROM_ID, &request).await?;
        match result {
            Ok(answer) => Ok(built(answer.image_id, answer.metadata.as_ref())),
            Err(status) => Err(self.image_error(image, &status)),
        }
    }

    /// See `delete-image` in the interface.
    ///
    /// # Errors
    ///
    /// As documented there.
    pub async fn delete_image(&self, image: &str) -> Result<()> {
        check_image_id(image)?;
        let request = ImageDeleteRequest { image_id: image.to_string() };
        let result = self.control_keyed(&self.new_uuid(), rpc::IMAGE_DELETE, &request).await?;
        match result {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Ok(()),
            Err(status) => Err(self.image_error(image, &status)),
        }
    }

    /// An unknown id gives either of two codes (fact sheet, section 3.1).
    fn image_error(&self, image: &str, status: &Status) -> Error {
        let unknown = status.code() == Code::NotFound
            || status.code() == Code::FailedPrecondition && status.message().contains("Could not find image");
        let mut error = self.control_error(status, "look up the image").about(image);
        if unknown {
            error.kind = ErrorKind::NotFound;
            error.message =
                format!("Modal knows no image {image}. It may have expired or belong to another workspace.");
        }
        error
    }

    /// The layers of a spec, bottom first.
    async fn layers(&self, spec: &ImageSpec) -> Result<Vec<ImageGetOrCreateRequest>> {
        let config = self.config()?;
        let app_id = self.app_id().await?;
        let builder_version = match &spec.builder_version {
            Some(version) => version.clone(),
            None => self.builder_version().await?,
        };
        let secret_ids = self.secret_ids(&spec.secrets).await?;
        let request = |image: Image| ImageGetOrCreateRequest {
            image: Some(image),
            app_id: app_id.clone(),
            builder_version: builder_version.clone(),
            force_build: spec.force || config.force_build,
            ..Default::default()
        };
        let mut layers = Vec::new();
        let mut base = None;
        match &spec.source {
            ImageSource::ProviderDefault => layers.push(ImageGetOrCreateRequest {
                // The default image is one for all workspaces (fact sheet, section 3.2).
                namespace: DeploymentNamespace::Global.into(),
                ..request(Image { dockerfile_commands: default_image(&builder_version), ..Default::default() })
            }),
            ImageSource::Registry(image) => {
                layers.push(request(Image {
                    dockerfile_commands: vec![format!("FROM {}", image.reference)],
                    image_registry_config: self.registry_config(image.login.as_ref()).await?,
                    secret_ids: secret_ids.clone(),
                    ..Default::default()
                }));
            }
            ImageSource::Dockerfile(dockerfile) => {
                layers.push(request(Image {
                    dockerfile_commands: dockerfile.text.split('\n').map(str::to_string).collect(),
                    image_registry_config: self.registry_config(dockerfile.login.as_ref()).await?,
                    build_args: dockerfile.build_args.iter().cloned().collect::<HashMap<_, _>>(),
                    secret_ids: secret_ids.clone(),
                    ..Default::default()
                }));
            }
            ImageSource::Id(id) => base = Some(id.clone()),
            ImageSource::Named(name) => base = Some(self.named_image(name).await?),
        }
        if !spec.commands.is_empty() || layers.is_empty() {
            let mut lines = vec![format!("FROM {BASE}")];
            lines.extend(spec.commands.iter().cloned());
            let base_images = base.into_iter().map(base_image).collect();
            layers.push(request(Image { dockerfile_commands: lines, base_images, secret_ids, ..Default::default() }));
        }
        Ok(layers)
    }

    async fn named_image(&self, name: &str) -> Result<String> {
        let config = self.config()?;
        let tag = if name.contains(':') { name.to_string() } else { format!("{name}:latest") };
        let environment_name = if name.contains('/') { String::new() } else { config.environment.clone() };
        let request = ImageGetByTagRequest { tag, environment_name };
        let answer = self
            .control("look up the named image", rpc::IMAGE_GET_BY_TAG, &request)
            .await
            .map_err(|error| error.about(name))?;
        Ok(answer.image_id)
    }

    async fn registry_config(&self, login: Option<&RegistryLogin>) -> Result<Option<ImageRegistryConfig>> {
        let (kind, secret) = match login {
            None => return Ok(None),
            Some(RegistryLogin::StaticSecret(secret)) => (RegistryAuthType::StaticCreds, secret),
            Some(RegistryLogin::AwsSecret(secret)) => (RegistryAuthType::Aws, secret),
            Some(RegistryLogin::GcpSecret(secret)) => (RegistryAuthType::Gcp, secret),
            Some(RegistryLogin::Other((kind, _))) => {
                return Err(Error::unsupported(
                    "image.registry-credentials",
                    format!(
                        "Modal signs in to registries by static, aws and gcp secrets, not by `{}`.",
                        kind.escape_debug()
                    ),
                ));
            }
        };
        let secret_id = self.secret_ids(std::slice::from_ref(secret)).await?.pop().unwrap_or_default();
        Ok(Some(ImageRegistryConfig { registry_auth_type: kind.into(), secret_id }))
    }

    /// Asks for a layer; the cursor then stands at its log, or behind it when it is there already.
    async fn request_layer(&self, layer: ImageGetOrCreateRequest, cursor: Cursor) -> Result<Cursor> {
        let answer = self.control("build the image", rpc::IMAGE_GET_OR_CREATE, &layer).await?;
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

    /// The layer is there: on to the one above, or done.
    async fn next_layer(&self, mut cursor: Cursor) -> Result<Step> {
        if cursor.next.is_empty() {
            let image = BuiltImage { id: cursor.image.clone(), workdir: cursor.workdir.clone(), extra: Vec::new() };
            return Ok(Step::Image(image, cursor));
        }
        let encoded = cursor.next.remove(0);
        let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| Error::invalid("This is not a cursor of a build."))?;
        let mut layer = ImageGetOrCreateRequest::decode(Bytes::from(bytes))
            .map_err(|_| Error::invalid("This is not a cursor of a build."))?;
        if let Some(image) = &mut layer.image {
            image.base_images = vec![base_image(cursor.image.clone())];
        }
        Ok(Step::Next(self.request_layer(layer, cursor).await?))
    }

    async fn join(&self, cursor: &Cursor) -> Result<Join> {
        let mut failures = 0;
        loop {
            let request = ImageJoinStreamingRequest {
                image_id: cursor.image.clone(),
                timeout: JOIN_SECONDS,
                last_entry_id: cursor.entry.clone(),
                include_logs_for_finished: true,
            };
            let opened = self.control_stream(rpc::IMAGE_JOIN_STREAMING, &request).await?;
            match opened {
                Ok(stream) => return Ok(Join { stream: stream.boxed(), pending: None }),
                Err(status) if retry::is_retryable(&status) && failures < retry::CONTROL.retries => {
                    let transport = self.transport();
                    transport.sleep(retry::CONTROL.pause(failures, &**transport)).await;
                    failures += 1;
                }
                Err(status) => return Err(self.image_error(&cursor.image, &status)),
            }
        }
    }

    /// Reads what is there, waiting for something until `deadline`.
    async fn read_join(
        &self,
        join: &mut Join,
        cursor: &mut Cursor,
        log: &mut Vec<LogChunk>,
        room: &mut usize,
        deadline: Duration,
    ) -> Result<Read> {
        let mut timer = self.inner.transport.sleep(deadline.saturating_sub(self.now()));
        loop {
            let message = match join.pending.take() {
                Some(message) => Some(Ok(message)),
                None => {
                    let stream = &mut join.stream;
                    let hurried = !log.is_empty();
                    let item = poll_fn(|cx| match std::pin::Pin::new(&mut *stream).poll_next(cx) {
                        Poll::Ready(item) => Poll::Ready(Some(item)),
                        // Something has been read: hand it out rather than wait for more.
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
                Some(Err(status)) if retry::is_retryable(&status) => return Ok(Read::Reopen),
                Some(Err(status)) => return Err(self.image_error(&cursor.image, &status)),
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

/// How far reading a log stream went.
enum Read {
    /// The layer is built.
    Done,
    /// The build failed.
    Failed(Error),
    /// The stream ended without an outcome: open it again.
    Reopen,
    /// As much as was asked for, or as there is.
    Enough,
}

/// Moves a message's log to the caller as far as there is room; false if some is left.
fn deliver(
    message: &ImageJoinStreamingResponse,
    cursor: &mut Cursor,
    log: &mut Vec<LogChunk>,
    room: &mut usize,
) -> bool {
    let mut passed = 0;
    for entry in &message.task_logs {
        let skip = cursor.skip.saturating_sub(passed).min(entry.data.len());
        passed += entry.data.len();
        let text = entry.data.get(skip..).unwrap_or_default();
        if text.is_empty() {
            continue;
        }
        let fits = text.floor_char_boundary(*room);
        if fits == 0 && !log.is_empty() {
            return false;
        }
        // A character that is larger than all the room there is goes through whole, or nothing ever would.
        let fits = fits.max(text.chars().next().map_or(0, char::len_utf8));
        let piece = &text[..fits];
        *room = room.saturating_sub(fits);
        cursor.remember(piece);
        log.push(LogChunk {
            stream: match entry.file_descriptor() {
                FileDescriptor::Stdout => Some(OutputStream::Stdout),
                FileDescriptor::Stderr => Some(OutputStream::Stderr),
                FileDescriptor::Unspecified | FileDescriptor::Info => None,
            },
            text: piece.to_string(),
            at: Duration::try_from_secs_f64(entry.timestamp).ok().filter(|at| !at.is_zero()).map(crate::execs::millis),
        });
        if fits < text.len() {
            cursor.skip = passed - (text.len() - fits);
            return false;
        }
        cursor.skip = passed;
    }
    if !message.entry_id.is_empty() {
        cursor.entry.clone_from(&message.entry_id);
        cursor.skip = 0;
    }
    true
}

/// The error of a finished build; none if it went well (fact sheet, section 3.1).
fn build_error(result: &GenericResult, cursor: &Cursor) -> Option<Error> {
    let text = clip(result.exception.trim_end());
    let what = match result.status() {
        GenericStatus::Success => return None,
        GenericStatus::Terminated => "The image build was terminated".to_string(),
        GenericStatus::Timeout => "The image build took too long".to_string(),
        _ => "The image could not be built".to_string(),
    };
    let tail = cursor.tail.trim_end();
    let said = if text.is_empty() { String::new() } else { format!(": {text}") };
    let output =
        if tail.is_empty() || text.contains(tail) { String::new() } else { format!("\nThe end of its log:\n{tail}") };
    Some(
        Error {
            happened: Happened::Yes,
            retry: RetryAdvice::Never,
            provider_code: Some(format!("build:{}", result.status().as_str_name())),
            provider_message: Some(text),
            ..Error::new(ErrorKind::BuildFailed, format!("{what}{said}.{output}").replace("..", "."))
        }
        .about(&cursor.image),
    )
}

fn built(id: String, metadata: Option<&ImageMetadata>) -> BuiltImage {
    BuiltImage { id, workdir: metadata.and_then(|metadata| metadata.workdir.clone()), extra: Vec::new() }
}

fn base_image(image_id: String) -> BaseImage {
    BaseImage { image_id, docker_tag: BASE.to_string() }
}

/// The lines of the service's default image, by builder version: the very lines that the official client sends, so that
/// the image is there already (fact sheet, section 3.2). Builders up to 2024.10 add pinned requirements, which are not
/// ours to copy; there the same Python image is taken as it comes.
fn default_image(builder: &str) -> Vec<String> {
    let (python, codename) = match builder {
        "2023.12" => ("3.12.1", "bullseye"),
        "2024.04" => ("3.12.2", "bookworm"),
        "2024.10" => ("3.12.6", "bookworm"),
        "2025.06" => ("3.12.10", "bookworm"),
        _ => ("3.12", "trixie"),
    };
    let from = format!("FROM python:{python}-slim-{codename}");
    if matches!(builder, "2023.12" | "2024.04" | "2024.10") {
        return vec![from, r#"CMD ["sleep", "172800"]"#.to_string()];
    }
    [
        from.as_str(),
        "RUN apt-get update",
        "RUN apt-get install -y gcc gfortran build-essential",
        "RUN pip install --upgrade pip wheel uv",
        "RUN echo 'debconf debconf/frontend select Noninteractive' | debconf-set-selections",
        r#"CMD ["sleep", "172800"]"#,
    ]
    .map(str::to_string)
    .into()
}

fn check_image_id(id: &str) -> Result<()> {
    let good = id.strip_prefix("im-").is_some_and(|rest| !rest.is_empty())
        && id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if good {
        return Ok(());
    }
    Err(Error::invalid(format!("`{}` is not an image id: Modal's begin with `im-`.", id.escape_debug())).about(id))
}

fn check_image(spec: &ImageSpec) -> Result<()> {
    check_extra(&spec.extra)?;
    match &spec.source {
        ImageSource::ProviderDefault | ImageSource::Named(_) => {}
        ImageSource::Id(id) => check_image_id(id)?,
        ImageSource::Registry(image) => {
            let reference = &image.reference;
            if reference.is_empty() || reference.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(Error::invalid(format!(
                    "`{}` is not an image name: give one such as `debian:12` or `ghcr.io/org/image:tag`.",
                    reference.escape_debug()
                ))
                .about("image"));
            }
        }
        ImageSource::Dockerfile(dockerfile) => check_dockerfile(dockerfile)?,
    }
    if let Some(command) = spec.commands.iter().find(|command| command.contains(['\0', '\n', '\r'])) {
        return Err(Error::invalid(format!(
            "The command `{}` is more than one line: give one Dockerfile line each.",
            command.escape_debug()
        )));
    }
    if spec.gpu.is_some() {
        return Err(Error::unsupported("image.gpu", "This version cannot build with an accelerator."));
    }
    Ok(())
}

fn check_dockerfile(dockerfile: &Dockerfile) -> Result<()> {
    let from = |line: &str| line.trim_start().get(..5).is_some_and(|word| word.eq_ignore_ascii_case("from "));
    if !dockerfile.text.lines().any(from) {
        return Err(Error::invalid("The Dockerfile has no FROM line: begin it with one such as `FROM debian:12`."));
    }
    if dockerfile.text.contains('\0') {
        return Err(Error::invalid("The Dockerfile contains a NUL character: it is not text."));
    }
    if !dockerfile.context.is_empty() {
        return Err(Error::unsupported("image.context", "This version sends no build context: COPY from stages only."));
    }
    if dockerfile.target.is_some() {
        return Err(Error::unsupported("image.dockerfile", "This version always builds the last stage."));
    }
    Ok(())
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
            let mut cursor = Cursor::default();
            let mut text = String::new();
            for call in 0.. {
                assert!(call < 50, "no progress with {max} bytes a call");
                let (mut log, mut room) = (Vec::new(), max);
                // A cursor goes through the caller each time.
                cursor = Cursor::decode(&cursor.encode().unwrap()).unwrap();
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
            assert!(Cursor::decode(text).is_err(), "{text:.10}");
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
}

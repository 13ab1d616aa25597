//! Images: layers asked for, builds followed, names given. The building itself is [`crate::build`]'s.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use modal_proto::client::generic_result::GenericStatus;
use modal_proto::client::*;
use tokio::time::Instant;
use tonic::Status;

use super::Caller;
use super::sandbox::result;
use crate::build::{Built, Image, Outcome};
use crate::state::{State, check_name, wait};

/// A stream of build messages.
pub type Joined = Pin<Box<dyn Stream<Item = Result<ImageJoinStreamingResponse, Status>> + Send>>;

/// Longest build stream; clients ask for 55 s and come back.
const MAX_STREAM: Duration = Duration::from_secs(600);

/// Log lines per message: few enough that a message stays small, many enough that a busy build is not held up.
const LINES: usize = 256;

/// Finds a layer that was built before, or starts building it.
pub async fn get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: ImageGetOrCreateRequest,
) -> Result<ImageGetOrCreateResponse, Status> {
    state.app(&request.app_id)?;
    let (image, started) = crate::build::get_or_start(state, request)?;
    // Who started it follows it, however soon it is over.
    let (result, metadata) = if started { (None, None) } else { outcome(&image) };
    Ok(ImageGetOrCreateResponse { image_id: image.id.clone(), result, metadata })
}

/// Follows a build: its log from a cursor on, then its outcome.
pub async fn join(state: &Arc<State>, _: &Caller, request: ImageJoinStreamingRequest) -> Result<Joined, Status> {
    let image = state.image(&request.image_id)?;
    let from = request.last_entry_id.split('-').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    // A finished build's log is only repeated for those who ask, and told to the first who comes.
    let told = image.followed.swap(true, Ordering::Relaxed) && !request.include_logs_for_finished;
    let from =
        if image.outcome().is_some() && told && request.last_entry_id.is_empty() { image.log.len() } else { from };
    let until = Instant::now() + wait(request.timeout, MAX_STREAM);
    let lines = stream::unfold(Some(from), move |at| {
        let image = image.clone();
        async move {
            let at = at?;
            let lines = image.log.follow(at, LINES).await;
            let next = at + lines.len();
            if lines.is_empty() {
                let (result, metadata) = outcome(&image);
                let entry_id = format!("{next}-0");
                let last = ImageJoinStreamingResponse { result, eof: true, metadata, entry_id, ..Default::default() };
                return Some((Ok(last), None));
            }
            let message =
                ImageJoinStreamingResponse { task_logs: lines, entry_id: format!("{next}-0"), ..Default::default() };
            Some((Ok(message), Some(next)))
        }
    });
    Ok(lines.take_until(tokio::time::sleep_until(until)).boxed())
}

/// Finds an image by id.
pub async fn from_id(
    state: &Arc<State>,
    _: &Caller,
    request: ImageFromIdRequest,
) -> Result<ImageFromIdResponse, Status> {
    let image = state.image(&request.image_id)?;
    let (_, metadata) = outcome(&image);
    Ok(ImageFromIdResponse { image_id: image.id.clone(), metadata })
}

/// Finds an image by the name it was published under.
pub async fn by_tag(
    state: &Arc<State>,
    _: &Caller,
    request: ImageGetByTagRequest,
) -> Result<ImageGetByTagResponse, Status> {
    let key = name(state, &request.tag, &request.environment_name)?;
    let id = state.tables.lock().image_tags.get(&key).cloned();
    let image = id.and_then(|id| state.image(&id).ok());
    let image = image.ok_or_else(|| Status::not_found(format!("Image '{}' not found", request.tag)))?;
    Ok(ImageGetByTagResponse { image_id: image.id.clone() })
}

/// Gives an image a name.
pub async fn publish(
    state: &Arc<State>,
    _: &Caller,
    request: ImagePublishRequest,
) -> Result<ImagePublishResponse, Status> {
    let key = name(state, &request.tag, &request.environment_name)?;
    state.image(&request.image_id)?.built()?;
    state.tables.lock().image_tags.insert(key, request.image_id.clone());
    Ok(ImagePublishResponse { image_id: request.image_id, revision_id: crate::ids::id("rv") })
}

/// Forgets an image. Sandboxes made of it go on; so do images built on it.
pub async fn delete(state: &Arc<State>, _: &Caller, request: ImageDeleteRequest) -> Result<(), Status> {
    state.image(&request.image_id)?;
    state.tables.lock().forget_image(&request.image_id);
    Ok(())
}

/// `[env/]name[:tag]` taken apart.
fn name(state: &State, text: &str, environment: &str) -> Result<(String, String, String), Status> {
    let (environment, rest) = text.split_once('/').unwrap_or((environment, text));
    let environment = state.environment(environment)?;
    let (name, tag) = rest.split_once(':').unwrap_or((rest, "latest"));
    check_name("image", name)?;
    check_name("image tag", tag)?;
    if name.starts_with("im-") {
        return Err(Status::invalid_argument(format!("Invalid image name: '{name}'")));
    }
    Ok((environment, name.to_owned(), tag.to_owned()))
}

/// What is told about a build: nothing while it goes on.
fn outcome(image: &Image) -> (Option<GenericResult>, Option<ImageMetadata>) {
    match image.outcome() {
        None => (None, None),
        Some(Outcome::Built(built)) => (Some(result(GenericStatus::Success, 0, "")), Some(metadata(&built))),
        Some(Outcome::Failed(text)) => (Some(result(GenericStatus::Failure, 1, text)), None),
    }
}

/// What clients are told about a built image.
pub fn metadata(built: &Built) -> ImageMetadata {
    ImageMetadata { workdir: built.config.workdir.clone(), ..Default::default() }
}

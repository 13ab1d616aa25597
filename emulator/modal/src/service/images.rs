//! Calls about images: build layers, follow builds, and publish names. [`crate::build`] does the building.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use modal_proto::client::generic_result::GenericStatus;
use modal_proto::client::*;
use tokio::time::Instant;
use tonic::Status;

use crate::model::image::{Built, Image, Outcome};
use crate::model::image_names::Revision;
use crate::model::outcome::result;
use crate::model::state::State;
use crate::model::values::{check_name, now, wait};
use crate::service::caller::Caller;

/// A stream of messages about a build.
pub type Joined = Pin<Box<dyn Stream<Item = Result<ImageJoinStreamingResponse, Status>> + Send>>;

/// Longest stream of a build; clients request 55 seconds and reconnect.
const MAX_STREAM: Duration = Duration::from_secs(600);

/// Log lines per message: few enough to keep a message small, enough not to delay a build with much output.
const LINES: usize = 256;

/// Number of revisions that are kept per name.
const REVISIONS: usize = 100;

/// Returns an image that was built from the same definition, or starts to build it.
///
/// # Errors
///
/// Fails with NOT_FOUND if the app or an object of the definition does not exist, with FAILED_PRECONDITION if the app has been
/// stopped, with INVALID_ARGUMENT if the definition is not valid, and with UNIMPLEMENTED if it has Python functions as steps.
pub async fn get_or_create(
    state: &Arc<State>,
    _: &Caller,
    request: ImageGetOrCreateRequest,
) -> Result<ImageGetOrCreateResponse, Status> {
    state.app(&request.app_id)?;
    let base = request.image.as_ref().and_then(|image| image.base_images.first()).map(|base| base.image_id.clone());
    let (image, started) = crate::build::get_or_start(state, request)?;
    if let Some(base) = base {
        state.tables.lock().image_bases.insert(image.id.clone(), base);
    }
    // The client that started the build follows it, even if it has finished already.
    let (result, metadata) = if started { (None, None) } else { outcome(&image) };
    Ok(ImageGetOrCreateResponse { image_id: image.id.clone(), result, metadata })
}

/// Follows a build: streams its log from a cursor, then its result.
///
/// # Errors
///
/// Fails with NOT_FOUND if the image does not exist.
pub async fn join(state: &Arc<State>, _: &Caller, request: ImageJoinStreamingRequest) -> Result<Joined, Status> {
    let image = state.image(&request.image_id)?;
    let from = request.last_entry_id.split('-').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    // The log of a finished build is sent to the first follower, and later only on request.
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

/// Returns an image by id.
///
/// # Errors
///
/// Fails with NOT_FOUND if the image does not exist.
pub async fn from_id(
    state: &Arc<State>,
    _: &Caller,
    request: ImageFromIdRequest,
) -> Result<ImageFromIdResponse, Status> {
    let image = state.image(&request.image_id)?;
    let (_, metadata) = outcome(&image);
    Ok(ImageFromIdResponse { image_id: image.id.clone(), metadata })
}

/// Returns the image that was published last under a name.
///
/// # Errors
///
/// Fails with NOT_FOUND if there is no such name or image, and with INVALID_ARGUMENT if the name is not valid.
pub async fn by_tag(
    state: &Arc<State>,
    _: &Caller,
    request: ImageGetByTagRequest,
) -> Result<ImageGetByTagResponse, Status> {
    let key = name(state, &request.tag, &request.environment_name)?;
    let id = state.tables.lock().image_tags.get(&key).map(|tag| tag.image_id().to_owned());
    let image = id.and_then(|id| state.image(&id).ok());
    let image = image.ok_or_else(|| Status::not_found(format!("Image '{}' not found", request.tag)))?;
    Ok(ImageGetByTagResponse { image_id: image.id.clone() })
}

/// Publishes an image under a name.
///
/// # Errors
///
/// Fails with NOT_FOUND if the image does not exist, with FAILED_PRECONDITION if it cannot be used, and with INVALID_ARGUMENT
/// if the name is not valid.
pub async fn publish(
    state: &Arc<State>,
    _: &Caller,
    request: ImagePublishRequest,
) -> Result<ImagePublishResponse, Status> {
    let key = name(state, &request.tag, &request.environment_name)?;
    state.image(&request.image_id)?.built()?;
    let revision = Revision { id: crate::model::ids::id("rv"), image_id: request.image_id.clone(), created_at: now() };
    let revision_id = revision.id.clone();
    let mut tables = state.tables.lock();
    let revisions = &mut tables.image_tags.entry(key).or_default().revisions;
    revisions.push(revision);
    // The first revision is never dropped, because it has the time at which the name was created.
    if revisions.len() > REVISIONS {
        revisions.remove(1);
    }
    Ok(ImagePublishResponse { image_id: request.image_id, revision_id })
}

/// Lists the published names of an environment in alphabetical order.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist.
pub async fn list_tags(
    state: &Arc<State>,
    _: &Caller,
    request: ImageListTagsRequest,
) -> Result<ImageListTagsResponse, Status> {
    let environment_name = state.environment(&request.environment_name)?;
    let tables = state.tables.lock();
    let mut items: Vec<ImageListTagsItem> = Vec::new();
    for ((environment, name, tag), named) in &tables.image_tags {
        let text = format!("{name}:{tag}");
        if *environment == environment_name
            && text.starts_with(&request.tag_prefix)
            && text > request.page_token
            && (request.image_id.is_empty() || request.image_id == named.image_id())
            && let Some((first, last)) = named.revisions.first().zip(named.revisions.last())
        {
            items.push(ImageListTagsItem {
                tag: text,
                image_id: last.image_id.clone(),
                revision_id: last.id.clone(),
                created_at: first.created_at,
                updated_at: last.created_at,
                last_published_by: crate::service::apps::USER.to_owned(),
            });
        }
    }
    items.sort_by(|a, b| a.tag.cmp(&b.tag));
    let most = page_size(request.max_objects);
    let next_page_token = if items.len() > most { items[most - 1].tag.clone() } else { String::new() };
    items.truncate(most);
    Ok(ImageListTagsResponse { items, next_page_token, environment_name })
}

/// Lists the revisions of a name, newest first.
///
/// # Errors
///
/// Fails with NOT_FOUND if the environment does not exist, and with INVALID_ARGUMENT if the name is not valid.
pub async fn tag_revisions(
    state: &Arc<State>,
    _: &Caller,
    request: ImageTagRevisionsRequest,
) -> Result<ImageTagRevisionsResponse, Status> {
    let key = name(state, &request.tag, &request.environment_name)?;
    let tables = state.tables.lock();
    let revisions = tables.image_tags.get(&key).map(|tag| tag.revisions.as_slice()).unwrap_or_default();
    let skip = request.page_token.parse().unwrap_or(0);
    let most = page_size(request.max_objects);
    let items = revisions.iter().rev().skip(skip).take(most).map(|revision| ImageTagRevisionsItem {
        image_id: revision.image_id.clone(),
        revision_id: revision.id.clone(),
        created_at: revision.created_at,
        published_by: crate::service::apps::USER.to_owned(),
    });
    let items: Vec<_> = items.collect();
    let end = skip + items.len();
    let next_page_token = if end < revisions.len() { end.to_string() } else { String::new() };
    Ok(ImageTagRevisionsResponse {
        items,
        next_page_token,
        tag: format!("{}:{}", key.1, key.2),
        environment_name: key.0,
    })
}

/// Removes a name and its revisions.
///
/// # Errors
///
/// Fails with NOT_FOUND if there is no such name, and with INVALID_ARGUMENT if the name is not valid.
pub async fn delete_name(state: &Arc<State>, _: &Caller, request: ImageNameDeleteRequest) -> Result<(), Status> {
    let key = name(state, &request.tag, "")?;
    let removed = state.tables.lock().image_tags.remove(&key);
    removed.map(drop).ok_or_else(|| Status::not_found(format!("Image '{}' not found", request.tag)))
}

/// Returns the chain of images that an image was built on, starting with the lowest and ending with the image itself.
///
/// # Errors
///
/// Fails with NOT_FOUND if the image does not exist.
pub async fn build_chain(
    state: &Arc<State>,
    _: &Caller,
    request: ImageBuildChainGetRequest,
) -> Result<ImageBuildChainGetResponse, Status> {
    state.image(&request.image_id)?;
    let images: Vec<Arc<Image>> = {
        let tables = state.tables.lock();
        let mut next = Some(&request.image_id);
        let chain = std::iter::from_fn(|| {
            let image = next.and_then(|id| tables.images.get(id))?;
            next = tables.image_bases.get(&image.id);
            Some(image.clone())
        });
        chain.collect()
    };
    let time = |seconds: f64| {
        let time = std::time::UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Some(time.into())
    };
    let mut build_steps = Vec::with_capacity(images.len());
    for image in images.iter().rev() {
        let end = lines(image).await.last().map_or(image.created_at, |line| line.timestamp);
        build_steps.push(ImageBuildStep {
            image_id: image.id.clone(),
            started_at: time(image.created_at),
            // One second later, so that the interval includes the last line of the log.
            finished_at: time(end + 1.0),
            builder_task_id: builder(&image.id),
            ..Default::default()
        });
    }
    Ok(ImageBuildChainGetResponse { build_steps })
}

/// Returns the id of the task with which clients request the log of an image's build.
fn builder(image_id: &str) -> String {
    format!("ta-{}", image_id.strip_prefix("im-").unwrap_or(image_id))
}

/// Returns the log of the build that a task id of this kind stands for; `None` for other task ids.
pub async fn built_by(state: &State, task_id: &str) -> Option<Vec<TaskLogs>> {
    let id = format!("im-{}", task_id.strip_prefix("ta-")?);
    let image = state.tables.lock().images.get(&id).cloned()?;
    Some(lines(&image).await)
}

/// Returns the lines of a build's log so far.
async fn lines(image: &Image) -> Vec<TaskLogs> {
    if image.log.is_empty() { Vec::new() } else { image.log.follow(0, usize::MAX).await }
}

fn page_size(wanted: u32) -> usize {
    if wanted == 0 { 100 } else { wanted.min(100) as usize }
}

/// Removes an image. Sandboxes that run from it, and images built on it, are not affected.
///
/// # Errors
///
/// Fails with NOT_FOUND if the image does not exist.
pub async fn delete(state: &Arc<State>, _: &Caller, request: ImageDeleteRequest) -> Result<(), Status> {
    if state.image(&request.image_id).is_err() {
        return Err(Status::not_found(format!("No Image with ID '{}' found", request.image_id)));
    }
    state.tables.lock().forget_image(&request.image_id);
    Ok(())
}

/// Parses `[env/]name[:tag]` to an environment, a name and a tag.
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

/// Returns the result and the metadata of a build for clients; both are `None` while the build runs.
fn outcome(image: &Image) -> (Option<GenericResult>, Option<ImageMetadata>) {
    match image.outcome() {
        None => (None, None),
        Some(Outcome::Built(built)) => (Some(result(GenericStatus::Success, 0, "")), Some(metadata(&built))),
        Some(Outcome::Failed(text)) => (Some(result(GenericStatus::Failure, 1, text)), None),
    }
}

/// Returns the metadata of a built image for clients.
pub fn metadata(built: &Built) -> ImageMetadata {
    ImageMetadata { workdir: built.config.workdir.clone(), ..Default::default() }
}

//! Pulls and builds. Both are one request, whose answer is a stream of JSON lines with the progress.

use std::{cell::RefCell, rc::Rc};

use bytes::BytesMut;
use futures_util::StreamExt as _;
use sandbox_provider_kit::{
    Error, Result,
    api::{
        error::{clip, shown},
        wit::{Dockerfile, ErrorKind, Happened, RetryAdvice},
    },
    call::json::{Value, object},
    platform::{Body, Frame},
};

use super::{
    BUILT, Base, Plan, REGISTRY_CREDENTIAL, Ready,
    buildkit::{self, Job, is_of_registry},
    content::Contents,
    context::{Broken, DOCKERFILE, archive},
    inspect, is_for, is_plain, missing,
    trace::Trace,
};
use crate::{
    engine::{Call, Engine, failed, map, pairs},
    inspect::LABEL,
};

/// The log of a pull or a build.
pub type Log = Rc<RefCell<String>>;

/// Longest log that is kept, in bytes. What comes after it is left out.
const LOG_BYTES: usize = 16 * 1024 * 1024;

/// Longest line of the progress, in bytes.
const LINE_BYTES: usize = 4 * 1024 * 1024;

/// Length of the end of the log in the message of a failed build, in bytes.
const TAIL_BYTES: usize = 2048;

/// How often a build is repeated that failed only because of the deletion of another image.
const DISTURBED_REPEATS: u32 = 3;

/// The id of the lines with the log of BuildKit.
const TRACE_ID: &str = "moby.buildkit.trace";

/// The header by which a plugin asks its host for a credential (docs/manifest.md).
const CREDENTIAL_HEADER: &str = "harness-credential";

/// Carries out a plan. Writes the progress to `log`.
///
/// # Errors
///
/// `not-found` if there is no such image, `build-failed`, or the error of the failed request.
pub async fn carry_out(engine: Engine, contents: Rc<Contents>, plan: Plan, tag: String, log: Log) -> Result<Ready> {
    let platform = plan.platform.as_deref();
    let job = match &plan.build {
        Some(dockerfile) => buildkit::job(&engine, dockerfile, platform).await?,
        None => None,
    };
    let mut image = None;
    if let Some(base) = &plan.base {
        let pulled_again = plan.force && base.pull && plan.build.is_none();
        let there = if pulled_again { None } else { inspect(&engine, &base.reference).await? };
        image = match there.filter(|image| is_for(image, platform)) {
            Some(image) => Some(image),
            None if base.pull => {
                pull(&engine, base, platform, &log).await?;
                inspect(&engine, &base.reference).await?.filter(|image| is_for(image, platform))
            }
            None => None,
        };
        if image.is_none() {
            return Err(missing(&base.reference));
        }
    }
    let Some(dockerfile) = &plan.build else {
        return image.ok_or_else(|| Error::internal("There is nothing to pull and nothing to build."));
    };
    let reference = format!("{BUILT}:{tag}");
    if !plan.force
        && let Some(image) = inspect(&engine, &reference).await?
    {
        return Ok(image);
    }
    if let Some(job) = &job {
        pull_bases(&engine, job, dockerfile, platform, &log).await?;
    }
    build(&engine, contents, dockerfile, job, &plan, &reference, &log).await?;
    inspect(&engine, &reference).await?.ok_or_else(|| missing(&reference))
}

async fn pull(engine: &Engine, base: &Base, platform: Option<&str>, log: &Log) -> Result<()> {
    // Without a tag or a digest, the engine would pull all tags.
    let last = base.reference.rsplit('/').next().unwrap_or_default();
    let tagged = last.contains([':', '@']);
    let reference = if tagged { base.reference.clone() } else { format!("{}:latest", base.reference) };
    let mut call = Call::post("/images/create").with("fromImage", &reference);
    if let Some(platform) = platform {
        call = call.with("platform", platform);
    }
    if let Some(login) = &base.login {
        call = call.header(CREDENTIAL_HEADER, login.as_str());
    }
    engine.transport().tell(&format!("pulling {}", shown(&reference)));
    let response = engine.open(call).await?;
    let response = response.map_err(|refusal| {
        let mut error = failed(&refusal, "pull the image").about(&base.reference);
        // Engines answer an unknown image with one of several statuses.
        match refusal.status() {
            Some(404) => error.kind = ErrorKind::NotFound,
            Some(500) => error.kind = pull_failure(&error.message),
            _ => {}
        }
        error
    })?;
    let failure = follow(response.body, log, &mut Trace::default()).await?;
    match failure {
        None => Ok(()),
        Some(text) => {
            let kind = pull_failure(&text);
            let message =
                format!("Could not pull the image `{}`: {}.", shown(&base.reference), text.trim_end_matches('.'));
            Err(Error::new(kind, message).about(&base.reference).with_provider(None, Some(text)))
        }
    }
}

/// Returns the kind of the failure of a pull. Engines have no code for it, so only the text of the registry tells.
fn pull_failure(text: &str) -> ErrorKind {
    let lower = text.to_ascii_lowercase();
    let absent = ["not found", "manifest unknown", "does not exist", "name unknown"];
    let denied = ["unauthorized", "denied", "authentication required", "no basic auth credentials", "forbidden"];
    if absent.iter().any(|word| lower.contains(word)) {
        ErrorKind::NotFound
    } else if denied.iter().any(|word| lower.contains(word)) {
        ErrorKind::PermissionDenied
    } else {
        // The registry could not be asked.
        ErrorKind::Unavailable
    }
}

/// Pulls the images that BuildKit needs, if the engine lacks them: without a session it does not pull by itself.
async fn pull_bases(
    engine: &Engine,
    job: &Job,
    dockerfile: &Dockerfile,
    platform: Option<&str>,
    log: &Log,
) -> Result<()> {
    // The host adds the default of the variable. The login is for one registry, and must not be sent to others.
    let server = engine.transport().env("DOCKER_REGISTRY_SERVER").unwrap_or_default();
    for needed in &job.bases {
        let reference = &needed.reference;
        let platform = needed.platform.as_deref().or(platform);
        // BuildKit itself reports what is not a name.
        if !is_plain(reference) || inspect(engine, reference).await?.is_some_and(|image| is_for(&image, platform)) {
            continue;
        }
        let login = dockerfile.login.as_ref().filter(|_| is_of_registry(reference, &server));
        let login = login.map(|_| REGISTRY_CREDENTIAL.to_string());
        let base = Base { reference: reference.clone(), pull: true, login };
        pull(engine, &base, platform, log).await.map_err(|mut error| {
            // As if the engine had pulled it.
            if error.provider_message.is_some() {
                error.kind = ErrorKind::BuildFailed;
                error.retry = RetryAdvice::Never;
                error.message = format!("The build needs the image `{}`. {}", shown(reference), error.message);
            }
            error
        })?;
    }
    Ok(())
}

/// Returns the request for a build.
fn request<'a>(dockerfile: &'a Dockerfile, by_buildkit: bool, plan: &'a Plan, reference: &'a str) -> Call<'a> {
    let arguments = map(dockerfile.build_args.iter().map(|(name, value)| (name.as_str(), Value::from(value.as_str()))));
    let mut call = Call::post("/build")
        .header("content-type", "application/x-tar")
        .with("dockerfile", DOCKERFILE)
        .with("t", reference)
        .with("rm", "1")
        .with("forcerm", "1")
        .with("buildargs", arguments.to_string())
        .with("labels", object([(LABEL, "image".into())]).to_string());
    if let Some(target) = dockerfile.target.as_ref().filter(|_| !by_buildkit) {
        call = call.with("target", target.as_str());
    }
    if let Some(platform) = &plan.platform {
        call = call.with("platform", platform.as_str());
    }
    if plan.force {
        call = call.with("nocache", "1");
    }
    if by_buildkit {
        call = call.with("version", "2");
    } else if dockerfile.login.is_some() {
        call = call.header(CREDENTIAL_HEADER, REGISTRY_CREDENTIAL);
    }
    call
}

async fn build(
    engine: &Engine,
    contents: Rc<Contents>,
    dockerfile: &Dockerfile,
    job: Option<Job>,
    plan: &Plan,
    reference: &str,
    log: &Log,
) -> Result<()> {
    let call = request(dockerfile, job.is_some(), plan, reference);
    let text = job.as_ref().map_or(&dockerfile.text, |job| &job.text);
    let mut left = DISTURBED_REPEATS;
    let broken = Broken::default();
    // The engine or the connection only says that the body of the request ended early.
    let cause = |error: Error| broken.take().unwrap_or(error);
    let mut trace = Trace::default();
    let failure = loop {
        let context = archive(contents.clone(), text, &dockerfile.context, &broken);
        let response = engine.open_with(call.clone(), context).await?;
        let response = response.map_err(|refusal| {
            if let Some(cause) = broken.take() {
                return cause;
            }
            let mut error = failed(&refusal, "build the image");
            if matches!(refusal.status(), Some(400 | 500)) {
                error.kind = ErrorKind::BuildFailed;
            }
            error
        })?;
        match follow(response.body, log, &mut trace).await.map_err(cause)? {
            Some(text) if left > 0 && engine.flavor().await?.is_disturbed(&text) => left -= 1,
            failure => break failure,
        }
    };
    let Some(failure) = failure else { return Ok(()) };
    let log = log.borrow();
    let (step, output) = trace.failed(&failure).unwrap_or_else(|| last_step(&log));
    let place = if step.is_empty() { String::new() } else { format!(" at `{}`", step.trim()) };
    let message = format!("The build failed{place}: {}\n{}", failure.trim(), output.trim());
    let mut message = clip(message.trim());
    if let Some(job) = &job {
        let part = shown(&job.part);
        message.push_str(&format!("\nThe Dockerfile contains `{part}`, so BuildKit has built it, without a session."));
    }
    Err(Error::new(ErrorKind::BuildFailed, message))
}

/// Returns the last instruction that a log names, and the end of the output after it.
fn last_step(log: &str) -> (&str, &str) {
    let step = log.lines().rev().find(|line| is_step(line)).unwrap_or_default();
    let from = log.ceil_char_boundary(log.len().saturating_sub(TAIL_BYTES));
    (step, log[from..].rsplit_once(step).map_or(&log[from..], |(_, output)| output))
}

/// Returns whether a line of the log names an instruction: `Step 1/2 : …` by Docker Engine, `STEP 1/2: …` by Podman.
fn is_step(line: &str) -> bool {
    line.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("step "))
}

/// Reads the progress to its end. Returns the error that it reports, or `None`.
async fn follow(mut body: Body, log: &Log, trace: &mut Trace) -> Result<Option<String>> {
    let (mut held, mut failure) = (BytesMut::new(), None);
    loop {
        match body.next().await {
            Some(Ok(Frame::Data(data))) => held.extend_from_slice(&data),
            Some(Ok(Frame::Trailers(_))) => {}
            Some(Err(text)) => {
                let message = format!("The connection to the engine broke: {text}. Start the build again.");
                return Err(Error::new(ErrorKind::Unavailable, message).with_happened(Happened::Unknown));
            }
            None => {
                take(&held, log, trace, &mut failure);
                return Ok(failure);
            }
        }
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line = held.split_to(end + 1);
            take(&line, log, trace, &mut failure);
        }
        if held.len() > LINE_BYTES {
            return Err(Error::internal("The engine sent a line of progress that is too long."));
        }
    }
}

/// Takes a line of the progress in.
fn take(line: &[u8], log: &Log, trace: &mut Trace, failure: &mut Option<String>) {
    let Some(value) = std::str::from_utf8(line).ok().and_then(|line| Value::parse(line.trim())) else { return };
    let add = |text: &str| {
        let mut log = log.borrow_mut();
        if log.len() + text.len() <= LOG_BYTES {
            log.push_str(text);
        }
    };
    let detail = value.get("errorDetail").get("message").text();
    if let Some(text) = detail.or(value.get("error").text()) {
        *failure = Some(clip(text));
    } else if let Some(text) = value.get("stream").text() {
        add(text);
    } else if value.get("id").text() == Some(TRACE_ID) {
        add(&trace.read(value.get("aux").text().unwrap_or_default()));
    } else if let Some(status) = value.get("status").text() {
        // Lines with a progress are sent several times a second.
        let moving = pairs(value.get("progressDetail")).len() + members(value.get("progressDetail")) > 0;
        if !moving {
            match value.get("id").text() {
                Some(id) => add(&format!("{id}: {status}\n")),
                None => add(&format!("{status}\n")),
            }
        }
    }
}

fn members(value: &Value) -> usize {
    if let Value::Map(members) = value { members.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures_util::{FutureExt as _, stream};

    fn read(text: &str) -> (Option<String>, String) {
        let frames: Vec<_> =
            text.as_bytes().chunks(5).map(|part| Ok(Frame::Data(Bytes::copy_from_slice(part)))).collect();
        let log = Log::default();
        let failure = follow(Box::pin(stream::iter(frames)), &log, &mut Trace::default())
            .now_or_never()
            .expect("ready")
            .expect("a log");
        let text = log.borrow().clone();
        (failure, text)
    }

    #[test]
    fn failures_of_pulls_are_told_apart() {
        for (text, kind) in [
            ("Head \"http://r/v2/x/manifests/latest\": no basic auth credentials", ErrorKind::PermissionDenied),
            ("unauthorized: authentication required", ErrorKind::PermissionDenied),
            ("manifest for r/x:latest not found: manifest unknown", ErrorKind::NotFound),
            ("dial tcp 127.0.0.1:1: connect: connection refused", ErrorKind::Unavailable),
        ] {
            assert_eq!(format!("{:?}", pull_failure(text)), format!("{kind:?}"), "{text}");
        }
    }

    #[test]
    fn the_progress_becomes_a_log() {
        let (failure, log) = read(concat!(
            "{\"status\":\"Pulling from library/busybox\",\"id\":\"latest\"}\r\n",
            "{\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":2},\"id\":\"a\"}\n",
            "{\"status\":\"Pull complete\",\"progressDetail\":{},\"id\":\"a\"}\n",
            "{\"stream\":\"Step 1/1 : FROM x\\n\"}\nnot JSON\n{\"errorDetail\":{\"message\":\"no\"},\"error\":\"no\"}",
        ));
        assert_eq!(log, "latest: Pulling from library/busybox\na: Pull complete\nStep 1/1 : FROM x\n");
        assert_eq!(failure.as_deref(), Some("no"));
        assert_eq!(read("{\"status\":\"Done\"}\n"), (None, "Done\n".to_string()));
    }
}

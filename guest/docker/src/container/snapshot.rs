//! Snapshots of the file system: the engine makes an image of the container. The helper's directory is a volume, which an
//! image does not contain.

use std::time::Duration;

use sandbox_provider_kit::{Error, Result, api::ids};

use super::{EXPIRES_LABEL, image_id};
use crate::{
    engine::{Call, Engine, failed, items, map, strings, texts},
    helper::Helper,
    inspect::{LABEL, state},
};

/// The repository of the images.
const REPOSITORY: &str = "harness-sandbox-snapshot";

/// Implements `snapshot-filesystem`. The reference of the image contains the sandbox and the key, so that a repeated call
/// finds it.
///
/// # Errors
///
/// `invalid-argument` for a key of another form, `sandbox-ended`, `not-found`, or the error of the failed request.
pub async fn filesystem(helper: &Helper, id: &str, key: &str, ttl: Option<u64>) -> Result<String> {
    ids::check_chosen("a key", key)?;
    let engine = helper.engine();
    let found = state(engine, id).await?;
    let tag = format!("{}-{key}", &id[..12]);
    let reference = format!("{REPOSITORY}:{tag}");
    if let Ok(image) = engine.json(Call::get(format!("/images/{reference}/json"))).await?
        && let Some(digest) = image.get("Id").text()
    {
        return Ok(image_id(digest));
    }
    if found.is_over() {
        return Err(Error::ended(id));
    }
    remove_expired(engine).await;
    let digest = found.value().get("Image").text().unwrap_or_default();
    let image = engine.json(Call::get(format!("/images/{digest}/json"))).await?;
    let image = image.map_err(|refusal| failed(&refusal, "look at the image of the sandbox"))?;
    let config = image.get("Config");

    // The first process of the container is the helper program. The image gets the entry point of the image that the
    // sandbox was made from.
    let exact = |words: &[String]| texts(words).to_string();
    let mut changes = vec![
        format!("ENTRYPOINT {}", exact(&strings(config.get("Entrypoint")))),
        format!("CMD {}", exact(&strings(config.get("Cmd")))),
    ];
    let user = config.get("User").text().unwrap_or_default();
    changes.push(format!("USER {}", if user.is_empty() { "0" } else { user }));
    changes.push(format!("LABEL {LABEL}=image"));
    if let Some(ttl) = ttl {
        let expires = engine.now() + Duration::from_millis(ttl);
        changes.push(format!("LABEL {EXPIRES_LABEL}={}", expires.as_millis()));
    }
    let mut call =
        Call::post("/commit").with("container", id).with("repo", REPOSITORY).with("tag", tag).with("pause", "1");
    for change in changes {
        call = call.with("changes", change);
    }
    let made = engine.json(call.json(&map::<&str>([]))).await?;
    let made = made.map_err(|refusal| failed(&refusal, "save the file system").about(id))?;
    match made.get("Id").text() {
        Some(digest) => Ok(image_id(digest)),
        None => Err(Error::internal("The engine saved the file system and returned no id of the image.")),
    }
}

/// Deletes snapshots whose time has passed. Errors are left to the next call.
async fn remove_expired(engine: &Engine) {
    let filters = map([("label", texts([EXPIRES_LABEL]))]).to_string();
    let Ok(Ok(images)) = engine.json(Call::get("/images/json").with("filters", filters)).await else { return };
    for image in items(&images) {
        let expires = image.get("Labels").get(EXPIRES_LABEL).text().and_then(|text| text.parse::<u64>().ok());
        if expires.is_some_and(|at| Duration::from_millis(at) < engine.now())
            && let Some(digest) = image.get("Id").text()
        {
            let _ = engine.ask(Call::delete(format!("/images/{digest}")).with("force", "1")).await;
        }
    }
}

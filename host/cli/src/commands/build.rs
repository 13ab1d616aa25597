//! `sandbox-host build`: builds an image and prints its id.

use anyhow::Result;

use crate::args::Build;
use crate::output;
use crate::output::results::Built;
use crate::session::Session;
use crate::steps::image::build_image;

/// Runs `sandbox-host build`. Returns the exit code.
pub async fn build(session: &Session, args: Build) -> Result<i32> {
    let provider = session.provider().await?;
    let id = build_image(session, &provider, &args.image).await?;
    if args.image.image.as_deref() == Some(&id) {
        // The id of an existing image to which nothing is added: only checks that the image exists.
        provider.image(&id).await?;
    }
    if session.voice.json {
        output::print_json(&Built { image: &id })?;
    } else {
        output::print(id)?;
    }
    Ok(0)
}

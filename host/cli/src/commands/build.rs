//! `sandbox build`

use anyhow::Result;

use crate::args::Build;
use crate::output;
use crate::output::results::Built;
use crate::session::Session;
use crate::steps::image::build_image;

/// `sandbox build`
pub async fn build(session: &Session, args: Build) -> Result<i32> {
    let provider = session.provider().await?;
    let id = build_image(session, &provider, &args.image).await?;
    if args.image.image.as_deref() == Some(&id) {
        // An id of which nothing is to be built; whether there is such an image is all that can be found out.
        provider.image(&id).await?;
    }
    if session.voice.json {
        output::print_json(&Built { image: &id })?;
    } else {
        output::print(id)?;
    }
    Ok(0)
}

//! `sandbox-host images`: lists the images that the provider has stored.

use anyhow::Result;

use crate::args::Images;
use crate::output;
use crate::output::results::Image;
use crate::session::Session;
use crate::steps::several::pages;

/// Runs `sandbox-host images`. Returns the exit code.
pub async fn images(session: &Session, args: Images) -> Result<i32> {
    let provider = session.provider().await?;
    let step = session.voice.step("listing images");
    let found = pages(args.limit, async |cursor, max| {
        let page = provider.images(cursor, max).await?;
        Ok((page.items, page.next))
    });
    let found = found.await?;
    drop(step);
    if session.voice.json {
        output::print_json(&found.iter().map(Image::from).collect::<Vec<_>>())?;
        return Ok(0);
    }
    let mut rows = vec![["IMAGE", "WORKDIR"].map(str::to_owned).to_vec()];
    rows.extend(found.into_iter().map(|image| vec![image.id, image.workdir.unwrap_or_default()]));
    output::table(&rows)?;
    Ok(0)
}

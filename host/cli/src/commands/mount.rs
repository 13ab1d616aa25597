//! `sandbox-host mount`: mounts an image in a running sandbox.

use anyhow::Result;

use crate::args::Mount;
use crate::output::results::Mounted;
use crate::session::Session;
use crate::steps::place::remote;

/// Runs `sandbox-host mount`. Returns the exit code.
pub async fn mount(session: &Session, args: Mount) -> Result<i32> {
    let (sandbox, path) = remote(&session.provider().await?, &args.path)?;
    sandbox.mount(&path, args.image.as_deref()).await?;
    let image = args.image.as_deref();
    session.voice.result(&Mounted { sandbox: sandbox.id(), path: &path, image, mounted: true })?;
    Ok(0)
}

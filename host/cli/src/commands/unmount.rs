//! `sandbox-host unmount`: unmounts an image from a running sandbox.

use anyhow::Result;

use crate::args::Unmount;
use crate::output::results::Unmounted;
use crate::session::Session;
use crate::steps::place::remote;

/// Runs `sandbox-host unmount`. Returns the exit code.
pub async fn unmount(session: &Session, args: Unmount) -> Result<i32> {
    let (sandbox, path) = remote(&session.provider().await?, &args.path)?;
    sandbox.unmount(&path).await?;
    session.voice.result(&Unmounted { sandbox: sandbox.id(), path: &path, mounted: false })?;
    Ok(0)
}

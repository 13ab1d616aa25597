//! `sandbox-host restore`: creates a sandbox from a memory snapshot.

use anyhow::Result;

use crate::args::Restore;
use crate::output::results::Created;
use crate::session::Session;

/// Runs `sandbox-host restore`. Returns the exit code.
pub async fn restore(session: &Session, args: Restore) -> Result<i32> {
    let provider = session.provider().await?;
    let step = session.voice.step("restoring the snapshot");
    let sandbox = provider.restore(&args.snapshot, args.name.as_deref()).await?;
    drop(step);
    session.voice.show(&Created { sandbox: sandbox.id() }, [sandbox.id()])?;
    Ok(0)
}

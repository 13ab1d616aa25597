//! `sandbox-host resume`: continues paused sandboxes and starts stopped ones.

use anyhow::Result;

use crate::args::Ids;
use crate::output::results::StateChanged;
use crate::session::Session;
use crate::steps::several::each;

/// Runs `sandbox-host resume`. Returns the exit code.
pub async fn resume(session: &Session, args: Ids) -> Result<i32> {
    let resume = async |sandbox: sandbox_host::Sandbox| sandbox.resume().await;
    let show = |id: &str, ()| session.voice.show(&StateChanged { sandbox: id, state: "running" }, [id]);
    each(session, "resuming", &args.ids, resume, show).await
}

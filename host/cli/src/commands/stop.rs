//! `sandbox-host stop`: ends the processes of sandboxes and keeps their files.

use anyhow::Result;

use crate::args::Ids;
use crate::output::results::StateChanged;
use crate::session::Session;
use crate::steps::several::each;

/// Runs `sandbox-host stop`. Returns the exit code.
pub async fn stop(session: &Session, args: Ids) -> Result<i32> {
    let stop = async |sandbox: sandbox_host::Sandbox| sandbox.stop().await;
    let show = |id: &str, ()| session.voice.show(&StateChanged { sandbox: id, state: "stopped" }, [id]);
    each(session, "stopping", &args.ids, stop, show).await
}

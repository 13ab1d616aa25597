//! `sandbox-host pause`: freezes the processes of sandboxes.

use anyhow::Result;

use crate::args::Ids;
use crate::output::results::StateChanged;
use crate::session::Session;
use crate::steps::several::each;

/// Runs `sandbox-host pause`. Returns the exit code.
pub async fn pause(session: &Session, args: Ids) -> Result<i32> {
    let pause = async |sandbox: sandbox_host::Sandbox| sandbox.pause().await;
    let show = |id: &str, ()| session.voice.show(&StateChanged { sandbox: id, state: "paused" }, [id]);
    each(session, "pausing", &args.ids, pause, show).await
}

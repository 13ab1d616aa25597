//! `sandbox-host terminate`: terminates sandboxes.

use anyhow::Result;

use crate::args::Terminate;
use crate::output::results::Terminated;
use crate::session::Session;
use crate::steps::several::each;

/// Runs `sandbox-host terminate`. Returns the exit code.
pub async fn terminate(session: &Session, args: Terminate) -> Result<i32> {
    let terminate = async |sandbox: sandbox_host::Sandbox| {
        sandbox.terminate().await?;
        if args.wait {
            sandbox.wait().await?;
        }
        Ok(())
    };
    let show = |id: &str, ()| session.voice.show(&Terminated { sandbox: id, terminated: true }, [id]);
    each(session, "terminating", &args.ids, terminate, show).await
}

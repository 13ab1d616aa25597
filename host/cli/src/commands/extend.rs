//! `sandbox-host extend`: changes how long sandboxes may still live.

use anyhow::Result;

use crate::args::Extend;
use crate::output::results::Extended;
use crate::output::text::time;
use crate::session::Session;
use crate::steps::several::each;

/// Runs `sandbox-host extend`. Returns the exit code.
pub async fn extend(session: &Session, args: Extend) -> Result<i32> {
    let extend = async |sandbox: sandbox_host::Sandbox| sandbox.extend(args.lifetime).await;
    let show = |id: &str, end: u64| {
        session.voice.show(&Extended { sandbox: id, ends_ms: end }, [format!("{id}  {}", time(end))])
    };
    each(session, "changing the lifetime", &args.ids, extend, show).await
}

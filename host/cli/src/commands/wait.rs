//! `sandbox-host wait`: waits for the end of a sandbox and prints the reason.

use anyhow::Result;

use crate::args::Id;
use crate::output;
use crate::output::results::SandboxEnded;
use crate::output::text::end_text;
use crate::session::Session;
use crate::steps::verdict::end_code;

/// Runs `sandbox-host wait`. Returns the exit code.
pub async fn wait(session: &Session, args: Id) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step(format!("waiting for {}", sandbox.id()));
    let reason = sandbox.wait().await?;
    drop(_step);
    if session.voice.json {
        output::print_json(&SandboxEnded { sandbox: sandbox.id(), end: &end_text(&reason) })?;
    } else {
        output::print(end_text(&reason))?;
    }
    Ok(end_code(&reason))
}

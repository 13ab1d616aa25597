//! `sandbox-host tunnels`: prints the addresses of the ports of a sandbox.

use std::time::Duration;

use anyhow::Result;

use crate::args::Id;
use crate::output;
use crate::output::results;
use crate::output::text::tunnel_text;
use crate::session::Session;

/// Timeout for the assignment of the ports.
pub const TUNNEL_WAIT: Duration = Duration::from_secs(50);

/// Runs `sandbox-host tunnels`. Returns the exit code.
pub async fn tunnels(session: &Session, args: Id) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step("waiting for the ports");
    let tunnels = sandbox.tunnels(TUNNEL_WAIT).await?;
    drop(_step);
    if session.voice.json {
        let rows: Vec<_> = tunnels.iter().map(results::Tunnel::from).collect();
        output::print_json(&rows)?;
    } else {
        for tunnel in &tunnels {
            output::print(tunnel_text(tunnel))?;
        }
    }
    Ok(0)
}

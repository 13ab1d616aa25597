//! `sandbox-host sweep`: terminates sandboxes whose lease has expired.

use std::io::IsTerminal;

use anyhow::Result;

use crate::args::Sweep;
use crate::output::results::{self, LeftBehind};
use crate::output::{self, FAILED};
use crate::session::Session;
use crate::steps::sandbox::default_owner;

/// Runs `sandbox-host sweep`. Returns the exit code.
pub async fn sweep(session: &Session, args: Sweep) -> Result<i32> {
    let provider = session.provider().await?;
    let owner = args.owner.unwrap_or_else(default_owner);
    // On a terminal, first shows the user what would be removed.
    let dry_run = args.dry_run || (!args.yes && std::io::stdout().is_terminal());
    let step = session.voice.step("looking for abandoned sandboxes");
    let found = provider.sweep(&owner, dry_run).await?;
    drop(step);
    if session.voice.json {
        let rows: Vec<_> = found
            .iter()
            .map(|swept| LeftBehind {
                sandbox: &swept.id,
                run: &swept.run,
                overdue_ms: swept.overdue.as_millis() as u64,
                terminated: swept.terminated,
            })
            .collect();
        output::print_json(&results::Sweep { owner: &owner, dry_run, found: rows })?;
    } else {
        for swept in &found {
            let state = if swept.terminated { "terminated" } else { "abandoned" };
            output::print(format_args!("{}  {state}, its lease expired {} s ago", swept.id, swept.overdue.as_secs()))?;
        }
        if found.is_empty() {
            session.voice.say(format_args!("{owner} has no abandoned sandboxes"));
        } else if dry_run {
            session.voice.say("nothing was terminated; use --yes to terminate them");
        }
    }
    let failed = !dry_run && found.iter().any(|swept| !swept.terminated);
    Ok(if failed { FAILED } else { 0 })
}

//! `sandbox-host snapshot`: takes a snapshot of files or memory and prints its id.

use std::time::Duration;

use anyhow::Result;

use crate::args::Snapshot;
use crate::output;
use crate::output::results;
use crate::session::Session;

/// How long a single request waits for an exit snapshot.
const EXIT_WAIT: Duration = Duration::from_secs(60);

/// Runs `sandbox-host snapshot`. Returns the exit code.
pub async fn snapshot(session: &Session, args: Snapshot) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step("taking the snapshot");
    let id = if args.memory {
        sandbox.snapshot_memory().await?
    } else if args.at_exit {
        loop {
            if let Some(image) = sandbox.exit_snapshot(EXIT_WAIT).await? {
                break image;
            }
        }
    } else if let Some(path) = &args.directory {
        sandbox.snapshot_directory(path, args.ttl).await?
    } else {
        sandbox.snapshot_filesystem(args.ttl).await?
    };
    drop(_step);
    if session.voice.json {
        output::print_json(&results::Snapshot {
            image: (!args.memory).then(|| id.clone()),
            snapshot: args.memory.then_some(id),
        })?;
    } else {
        output::print(id)?;
    }
    Ok(0)
}

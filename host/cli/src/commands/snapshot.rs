//! `sandbox snapshot`

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::args::Snapshot;
use crate::output;
use crate::session::Session;

/// How long one look for an exit snapshot takes.
const EXIT_WAIT: Duration = Duration::from_secs(60);

/// `sandbox snapshot`
pub async fn snapshot(session: &Session, args: Snapshot) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let _step = session.voice.step("taking the snapshot");
    let (kind, id) = if args.memory {
        ("snapshot", sandbox.snapshot_memory().await?)
    } else if args.at_exit {
        loop {
            if let Some(image) = sandbox.exit_snapshot(EXIT_WAIT).await? {
                break ("image", image);
            }
        }
    } else if let Some(path) = &args.directory {
        ("image", sandbox.snapshot_directory(path, args.ttl).await?)
    } else {
        ("image", sandbox.snapshot_filesystem(args.ttl).await?)
    };
    drop(_step);
    if session.voice.json {
        output::print_json(json!({ kind: id }))?;
    } else {
        output::print(id)?;
    }
    Ok(0)
}

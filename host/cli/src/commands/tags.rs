//! `sandbox-host tags`: prints or changes the tags of a sandbox.

use anyhow::Result;

use crate::args::Tags;
use crate::output;
use crate::output::results;
use crate::session::Session;

/// Runs `sandbox-host tags`. Returns the exit code.
pub async fn tags(session: &Session, args: Tags) -> Result<i32> {
    let sandbox = session.provider().await?.sandbox(args.id);
    let mut tags = sandbox.tags().await?;
    if !args.set.is_empty() || !args.unset.is_empty() {
        tags.retain(|(key, _)| !args.unset.contains(key));
        for (key, value) in args.set {
            // If a key is set several times, the last value is used.
            tags.retain(|(other, _)| *other != key);
            tags.push((key, value));
        }
        sandbox.set_tags(tags.clone()).await?;
    }
    if session.voice.json {
        output::print_json(&results::tags(&tags))?;
    } else {
        for (key, value) in tags {
            output::print(format_args!("{key}={value}"))?;
        }
    }
    Ok(0)
}

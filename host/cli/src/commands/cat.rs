//! `sandbox-host cat`: prints files of a sandbox.

use anyhow::Result;

use crate::args::Cat;
use crate::session::Session;
use crate::steps::place::{ours, remote};

/// Runs `sandbox-host cat`. Returns the exit code.
pub async fn cat(session: &Session, args: Cat) -> Result<i32> {
    let provider = session.provider().await?;
    for text in &args.paths {
        let (sandbox, path) = remote(&provider, text)?;
        sandbox.download(&path, tokio::io::stdout()).await.map_err(ours)?;
    }
    Ok(0)
}

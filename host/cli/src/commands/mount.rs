//! `sandbox mount`

use anyhow::Result;
use serde_json::json;

use crate::args::Mount;
use crate::session::Session;
use crate::steps::place::remote;

/// `sandbox mount`
pub async fn mount(session: &Session, args: Mount) -> Result<i32> {
    let (sandbox, path) = remote(&session.provider().await?, &args.path)?;
    sandbox.mount(&path, args.image.as_deref()).await?;
    session.voice.result(json!({ "sandbox": sandbox.id(), "path": path, "image": args.image, "mounted": true }))?;
    Ok(0)
}

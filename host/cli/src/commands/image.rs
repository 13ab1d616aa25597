//! `sandbox image …`

use anyhow::Result;
use serde_json::json;

use crate::args::{ImageCommand, ImageId};
use crate::session::Session;

/// `sandbox image …`
pub async fn image(session: &Session, command: ImageCommand) -> Result<i32> {
    let provider = session.provider().await?;
    match command {
        ImageCommand::Inspect(ImageId { image }) => {
            let found = provider.image(&image).await?;
            let workdir = found.workdir.as_deref().unwrap_or("-");
            let value = json!({ "image": found.id, "workdir": found.workdir });
            session.voice.show(value, [format!("image    {}", found.id), format!("workdir  {workdir}")])?;
            Ok(0)
        }
        ImageCommand::Rm(ImageId { image }) => {
            provider.delete_image(&image).await?;
            session.voice.show(json!({ "image": image, "removed": true }), [&image])?;
            Ok(0)
        }
    }
}

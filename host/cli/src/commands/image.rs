//! `sandbox-host image`: shows or deletes an image, or deletes a memory snapshot.

use anyhow::Result;

use crate::args::{ImageCommand, ImageId, ImageRm};
use crate::output::results::{Image, ImageRemoved, SnapshotRemoved};
use crate::session::Session;

/// Runs `sandbox-host image`. Returns the exit code.
pub async fn image(session: &Session, command: ImageCommand) -> Result<i32> {
    let provider = session.provider().await?;
    match command {
        ImageCommand::Inspect(ImageId { image }) => {
            let found = provider.image(&image).await?;
            let workdir = found.workdir.as_deref().unwrap_or("-");
            session
                .voice
                .show(&Image::from(&found), [format!("image    {}", found.id), format!("workdir  {workdir}")])?;
            Ok(0)
        }
        ImageCommand::Rm(ImageRm { memory: true, image }) => {
            provider.delete_memory_snapshot(&image).await?;
            session.voice.show(&SnapshotRemoved { snapshot: &image, removed: true }, [&image])?;
            Ok(0)
        }
        ImageCommand::Rm(ImageRm { memory: false, image }) => {
            provider.delete_image(&image).await?;
            session.voice.show(&ImageRemoved { image: &image, removed: true }, [&image])?;
            Ok(0)
        }
    }
}

//! `sandbox image`: shows or deletes an image.

use anyhow::Result;

use crate::args::{ImageCommand, ImageId};
use crate::output::results::{Image, ImageRemoved};
use crate::session::Session;

/// Runs `sandbox image`. Returns the exit code.
pub async fn image(session: &Session, command: ImageCommand) -> Result<i32> {
    let provider = session.provider().await?;
    match command {
        ImageCommand::Inspect(ImageId { image }) => {
            let found = provider.image(&image).await?;
            let workdir = found.workdir.as_deref().unwrap_or("-");
            let value = Image { image: &found.id, workdir: found.workdir.as_deref() };
            session.voice.show(&value, [format!("image    {}", found.id), format!("workdir  {workdir}")])?;
            Ok(0)
        }
        ImageCommand::Rm(ImageId { image }) => {
            provider.delete_image(&image).await?;
            session.voice.show(&ImageRemoved { image: &image, removed: true }, [&image])?;
            Ok(0)
        }
    }
}

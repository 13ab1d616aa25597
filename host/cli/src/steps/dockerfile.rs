//! `--dockerfile`: reads the Dockerfile and sends the files that it copies.

use std::path::Path;

use anyhow::Result;
use sandbox_host::types::ImageSpec;
use sandbox_host::{LocalDockerfile, Provider};
use tokio::io::AsyncReadExt;

use crate::args::ImageArgs;
use crate::output::Failure;
use crate::session::Session;

/// Builds an image specification from a Dockerfile, and sends its build context.
pub async fn dockerfile(session: &Session, provider: &Provider, args: &ImageArgs, path: &Path) -> Result<ImageSpec> {
    let mut dockerfile = if path == Path::new("-") {
        let mut text = String::new();
        let read = tokio::io::stdin().read_to_string(&mut text).await;
        read.map_err(|error| Failure::new("read the Dockerfile from standard input", error.to_string()))?;
        LocalDockerfile::new(text)
    } else {
        LocalDockerfile::read(path).await?
    };
    if let Some(directory) = &args.context {
        dockerfile = dockerfile.context(directory);
    }
    for (name, value) in &args.build_arg {
        dockerfile = dockerfile.build_arg(name, value);
    }
    if let Some(stage) = &args.target {
        dockerfile = dockerfile.target(stage);
    }
    let shown = session.voice.transfer("sending the build context", None);
    let (spec, sent) = provider.dockerfile(dockerfile, |sent, total| shown.at(sent, total)).await?;
    drop(shown);
    for skipped in &sent.skipped {
        session.voice.say(format_args!("not in the build context: {skipped}"));
    }
    tracing::debug!(files = sent.files, bytes = sent.bytes, "build context sent");
    Ok(spec)
}

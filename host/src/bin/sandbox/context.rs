//! `--dockerfile`: its text, and the files it may COPY.

use std::path::Path;

use anyhow::Result;
use sandbox_host::types::{Dockerfile, ImageSource, ImageSpec};
use sandbox_host::{Context, Provider};

use crate::args::ImageArgs;
use crate::report::Failure;

/// An image specification from a Dockerfile; its context has been sent.
pub async fn dockerfile(provider: &Provider, args: &ImageArgs, path: &Path) -> Result<ImageSpec> {
    let text = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| Failure::new(format!("read the Dockerfile {}", path.display()), error.to_string()))?;
    let mut files = Vec::new();
    if uses_context(&text) {
        let directory = match &args.context {
            Some(directory) => directory.clone(),
            None => path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned(),
        };
        let digests = provider.describe().await?.digests;
        let context = Context::directory(directory, &digests).await?;
        provider.upload_context(&context).await?;
        files = context.files();
    }
    let dockerfile = Dockerfile {
        text,
        context: files,
        build_args: args.build_arg.clone(),
        target: args.target.clone(),
        login: None,
    };
    Ok(ImageSpec { source: ImageSource::Dockerfile(dockerfile), ..ImageSpec::default() })
}

/// Whether any line copies from the context. Without one nothing has to be read or sent.
fn uses_context(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        let instruction = words.next().unwrap_or_default().to_ascii_uppercase();
        // `COPY --from=stage` takes from elsewhere.
        matches!(instruction.as_str(), "COPY" | "ADD") && !words.any(|word| word.starts_with("--from="))
    })
}

#[cfg(test)]
mod tests {
    use super::uses_context;

    #[test]
    fn only_copies_from_the_context_count() {
        assert!(uses_context("FROM a\ncopy . /x"));
        assert!(uses_context("ADD file /x"));
        assert!(!uses_context("FROM a AS b\nRUN echo COPY\nCOPY --from=b /x /y"));
    }
}

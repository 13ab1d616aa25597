//! Uploads of local files for image builds. Only contents that the provider does not have are sent.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::api::provider::Provider;
use crate::error::{Error, Kind, Result};
use crate::local::context::BuildContext;
use crate::local::dockerfile::{LocalDockerfile, Sent};
use crate::runtime::call::Call;
use crate::runtime::runner::ask;
use crate::types::{Content, ImageSource, ImageSpec};

/// Size of a piece of an upload, in bytes.
const PIECE: usize = 4 << 20;

/// Most attempts to send a content from its beginning.
const ATTEMPTS: u32 = 3;

/// Most concurrent uploads, and most concurrent calls that ask for missing contents.
const AT_ONCE: usize = 8;

/// Most contents that one call asks for. The provider needs ten requests for them.
const ASKED: usize = 640;

impl Provider {
    /// Converts a local Dockerfile to an image specification. Reads the files that its COPY lines need from the
    /// context, and uploads those that the provider does not have. Calls `progress` with the bytes sent so far and the
    /// total.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`](crate::Kind::Io) if the context cannot be read,
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) if a file to be copied does not exist, and the kinds of
    /// every call: see [`Kind`].
    pub async fn dockerfile(
        &self,
        dockerfile: LocalDockerfile,
        progress: impl Fn(u64, u64),
    ) -> Result<(ImageSpec, Sent)> {
        let digests = if dockerfile.reads_context() { self.describe().await?.digests } else { vec![] };
        let (dockerfile, context) = dockerfile.local(digests).await?;
        let (mut sent, mut files) = (Sent::default(), vec![]);
        if let Some(context) = context {
            files = context.files();
            sent.files = context.count();
            sent.bytes = self.upload_context_with(&context, progress).await?;
            sent.skipped = context.skipped().to_vec();
        }
        let source = ImageSource::Dockerfile(dockerfile.with_files(files));
        Ok((ImageSpec { source, ..ImageSpec::default() }, sent))
    }

    /// Returns the SHA-256 digests of those contents that the provider does not have.
    ///
    /// # Errors
    ///
    /// The kinds of every call: see [`Kind`].
    pub async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        let parts: Vec<_> = contents.chunks(ASKED).map(<[Content]>::to_vec).collect();
        let asked = parts.into_iter().map(|part| async move {
            let call = Call::reading("ask which files are missing");
            ask!(self.inner, None, call, |guest, store| guest.call_missing_content(store, &part))
        });
        let missing: Vec<Vec<String>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(missing.concat())
    }

    /// Uploads the files of a context that the provider does not have. Returns the number of bytes sent.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`] if a file cannot be read or has changed, and the kinds of every call: see [`Kind`].
    pub async fn upload_context(&self, context: &BuildContext) -> Result<u64> {
        self.upload_context_with(context, |_, _| {}).await
    }

    /// Uploads files like [`upload_context`](Provider::upload_context). Calls `progress` after each piece with the
    /// bytes sent so far and the total.
    ///
    /// # Errors
    ///
    /// Those of [`upload_context`](Provider::upload_context).
    pub async fn upload_context_with(&self, context: &BuildContext, progress: impl Fn(u64, u64)) -> Result<u64> {
        let paths = context.contents();
        let contents: Vec<_> = paths.values().map(|(content, _)| (*content).clone()).collect();
        let missing = self.missing_content(&contents).await?;
        let wanted: Vec<_> = missing.iter().filter_map(|digest| paths.get(digest.as_str())).collect();
        let total: u64 = wanted.iter().map(|(content, _)| content.size).sum();
        let sent = AtomicU64::new(0);
        let count = |bytes: u64| {
            let so_far = sent.fetch_add(bytes, Ordering::Relaxed) + bytes;
            progress(so_far.min(total), total);
        };
        // A loop instead of `map`: the compiler cannot prove that a stream over a closure with references is `Send`.
        let mut uploads = Vec::with_capacity(wanted.len());
        for (content, path) in wanted {
            uploads.push(self.upload_content(content, path, &count));
        }
        stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(total)
    }

    async fn upload_content(&self, content: &Content, path: &Path, count: &impl Fn(u64)) -> Result<()> {
        let what = || format!("send {}", path.display());
        let fail = |error: std::io::Error| Error::io(format!("read {}", path.display()), error);
        let mut file = tokio::fs::File::open(path).await.map_err(fail)?;
        // All pieces of a content use one instance, which keeps the upload open.
        let mut held = self.inner.hold(None);
        let (mut offset, mut starts) = (0, 0);
        loop {
            starts += u32::from(offset == 0);
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(fail)?;
            let mut data = Vec::new();
            (&mut file).take(PIECE as u64).read_to_end(&mut data).await.map_err(fail)?;
            if offset + data.len() as u64 > content.size || data.is_empty() && content.size > 0 {
                return Err(fail(std::io::Error::other("the file changed while it was sent")));
            }
            let (size, named) = (data.len() as u64, content.clone());
            let arrived = held
                .call(Call::acting(what()), move |bound, store| {
                    Box::pin(async move {
                        let guest = bound.guest();
                        guest.call_upload_content(store, &named, offset, &data).await
                    })
                })
                .await;
            offset = match arrived {
                Ok(arrived) if arrived >= content.size => {
                    count(size);
                    return Ok(());
                }
                Ok(arrived) if arrived > offset => {
                    count(size);
                    arrived
                }
                // The upload starts again at offset 0, because the instance was lost or the store discarded the upload.
                Ok(_) if starts < ATTEMPTS => 0,
                Ok(arrived) => {
                    return Err(Error::new(
                        Kind::Internal,
                        what(),
                        format!("the provider still reports {arrived} bytes after further data was sent"),
                    ));
                }
                Err(error) if error.is_retryable() && starts < ATTEMPTS => 0,
                Err(error) => return Err(error),
            };
        }
    }
}

//! Sending what a build takes from this machine: only contents that the provider does not have.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::api::provider::Provider;
use crate::error::{Error, Kind, Result};
use crate::local::context::Context;
use crate::local::dockerfile::{LocalDockerfile, Sent};
use crate::runtime::call::Call;
use crate::runtime::runner::ask;
use crate::types::{Content, ImageSource, ImageSpec};

/// Size of a piece of an upload.
const PIECE: usize = 4 << 20;

/// How often a content is sent from its beginning before the upload is given up.
const ATTEMPTS: u32 = 3;

/// Uploads at once, and questions at once which contents are missing.
const AT_ONCE: usize = 8;

/// Contents that one call asks for: ten of the provider's own requests.
const ASKED: usize = 640;

impl Provider {
    /// Makes an image specification of a Dockerfile: reads what its COPY lines take of the context, and sends what the
    /// provider does not have. `progress` is told how many bytes of how many have been sent.
    ///
    /// # Errors
    ///
    /// [`Kind::Io`](crate::Kind::Io) when the context cannot be read, [`Kind::InvalidArgument`](crate::Kind::InvalidArgument)
    /// when something is not there that is to be copied; as any call.
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

    /// Which of these contents the provider does not have, by SHA-256.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn missing_content(&self, contents: &[Content]) -> Result<Vec<String>> {
        let parts: Vec<_> = contents.chunks(ASKED).map(<[Content]>::to_vec).collect();
        let asked = parts.into_iter().map(|part| async move {
            let call = Call::reading("ask which files are missing");
            ask!(self.inner, None, call, |guest, store| guest.call_missing_content(store, &part))
        });
        let missing: Vec<Vec<String>> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
        Ok(missing.concat())
    }

    /// Sends the files of a context that the provider does not have. Gives the number of bytes sent.
    ///
    /// # Errors
    ///
    /// As any call; [`Kind::Io`] when a file cannot be read or has changed.
    pub async fn upload_context(&self, context: &Context) -> Result<u64> {
        self.upload_context_with(context, |_, _| {}).await
    }

    /// Like [`upload_context`](Provider::upload_context), telling after each piece how many bytes have been sent, and of
    /// how many.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn upload_context_with(&self, context: &Context, progress: impl Fn(u64, u64)) -> Result<u64> {
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
        // A loop, since the compiler cannot tell that a stream over a closure of references may change threads.
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
        // The pieces of one content go through one instance, which has the upload open.
        let mut held = self.inner.hold(None);
        let (mut offset, mut starts) = (0, 0);
        loop {
            starts += u32::from(offset == 0);
            file.seek(std::io::SeekFrom::Start(offset)).await.map_err(fail)?;
            let mut data = Vec::new();
            (&mut file).take(PIECE as u64).read_to_end(&mut data).await.map_err(fail)?;
            if offset + data.len() as u64 > content.size || data.is_empty() && content.size > 0 {
                return Err(fail(std::io::Error::other("it has changed while it was sent")));
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
                // Everything is to be sent again: the instance was lost, or the store let go of the upload.
                Ok(_) if starts < ATTEMPTS => 0,
                Ok(arrived) => {
                    return Err(Error::new(Kind::Internal, what(), format!("the provider stays at byte {arrived}")));
                }
                Err(error) if error.is_retryable() && starts < ATTEMPTS => 0,
                Err(error) => return Err(error),
            };
        }
    }
}

//! Images of a provider: builds with their logs, lookup, deletion.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;

use crate::api::provider::Provider;
use crate::error::{Error, Happened, Kind, Result, Retry};
use crate::runtime::call::Call;
use crate::runtime::functions::Functions;
use crate::runtime::runner::{Held, ask};
use crate::types;

/// Most log text that one call requests, in bytes.
const LOG_BYTES: u32 = 256 << 10;

/// How long one call waits for more of the log, in milliseconds: short enough that the provider soon notices a
/// cancelled build, and long enough that a quiet build costs few requests.
const LOG_WAIT: u64 = 30_000;

/// Most times that a lost build is started again. Some services cancel a build when the connection closes that started
/// it.
const RESTARTS: u32 = 3;

impl Provider {
    /// Starts a build, joins a running one, or finds the finished image. The build continues even if its log is not
    /// read.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for an unusable specification, and the kinds of every
    /// call: see [`Kind`](crate::Kind). [`Build::next`] returns the errors of the build itself.
    pub async fn build(&self, spec: types::ImageSpec) -> Result<Build> {
        let held = self.inner.hold(None);
        let mut build =
            Build { held, spec, restarts: RESTARTS, cursor: String::new(), pending: Vec::new(), image: None };
        build.start().await?;
        Ok(build)
    }

    /// Looks up an image by its id.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`](crate::Kind::NotFound) if there is none, and the kinds of every call: see
    /// [`Kind`](crate::Kind).
    pub async fn image(&self, id: &str) -> Result<types::BuiltImage> {
        let (call, id) = (Call::reading(format!("look up the image {id}")).prompt(), id.to_owned());
        ask!(self.inner, None, call, |guest, store| guest.call_get_image(store, &id))
    }

    /// Deletes an image. Succeeds if the image does not exist.
    ///
    /// # Errors
    ///
    /// The kinds of every call: see [`Kind`](crate::Kind).
    pub async fn delete_image(&self, id: &str) -> Result<()> {
        let (call, id) = (Call::acting(format!("remove the image {id}")), id.to_owned());
        ask!(self.inner, None, call, |guest, store| guest.call_delete_image(store, &id))
    }
}

/// A build in progress. Dropping it stops reading the log, but does not stop the build.
pub struct Build {
    held: Held,
    spec: types::ImageSpec,
    /// How many more times the build is started again if it is lost.
    restarts: u32,
    cursor: String,
    pending: Vec<types::LogChunk>,
    image: Option<types::BuiltImage>,
}

impl Build {
    async fn start(&mut self) -> Result<()> {
        let spec = self.spec.clone();
        let progress = self
            .held
            .call(Call::acting("build the image"), move |bound, store| {
                Box::pin(async move { Functions::of(bound).call_start_build(store, &spec).await })
            })
            .await?;
        self.advance(progress);
        Ok(())
    }

    fn advance(&mut self, progress: types::BuildProgress) {
        self.cursor = progress.cursor;
        self.pending = progress.log;
        self.image = progress.image;
    }

    /// Returns the next piece of the log, or `None` when the image is ready. If the provider has lost the build, starts it
    /// again, up to three times; the log then begins anew.
    ///
    /// # Errors
    ///
    /// [`Kind::BuildFailed`](crate::Kind::BuildFailed) after the log of a failed build has been read, and the kinds of
    /// every call: see [`Kind`](crate::Kind).
    pub async fn next(&mut self) -> Result<Option<types::LogChunk>> {
        loop {
            if !self.pending.is_empty() {
                return Ok(Some(self.pending.remove(0)));
            }
            if self.image.is_some() {
                return Ok(None);
            }
            let cursor = self.cursor.clone();
            let read = self
                .held
                .call(Call::reading("build the image"), move |bound, store| {
                    Box::pin(async move {
                        let guest = Functions::of(bound);
                        guest.call_read_build(store, &cursor, LOG_BYTES, LOG_WAIT).await
                    })
                })
                .await;
            match read {
                Ok(progress) => self.advance(progress),
                Err(error) if self.restarts > 0 && is_lost(&error) => {
                    self.restarts -= 1;
                    tracing::debug!(%error, "the build is started again");
                    self.start().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads the log to its end, passes each piece to `log`, and returns the image.
    ///
    /// # Errors
    ///
    /// Those of [`Build::next`].
    pub async fn finish(mut self, mut log: impl FnMut(types::LogChunk)) -> Result<types::BuiltImage> {
        loop {
            if let Some(chunk) = self.next().await? {
                log(chunk);
            } else if let Some(image) = self.image.take() {
                return Ok(image);
            }
        }
    }

    /// Returns the log as a stream. It ends when the image is ready, or with the error of the build as its last item.
    pub fn into_log(self) -> BuildLog {
        BuildLog { state: LogState::Ready(Box::new(self)) }
    }

    /// Returns the image, after [`next`](Build::next) has returned `None`.
    pub fn image(&self) -> Option<&types::BuiltImage> {
        self.image.as_ref()
    }
}

/// Returns whether an error says that the provider has lost a build, and that a new one may succeed.
fn is_lost(error: &Error) -> bool {
    *error.kind() == Kind::Unavailable && error.happened() == Happened::No && error.retry() == Retry::Maybe
}

/// The log of a build as a stream. Created by [`Build::into_log`].
pub struct BuildLog {
    state: LogState,
}

enum LogState {
    Ready(Box<Build>),
    Reading(BoxFuture<'static, (Box<Build>, Result<Option<types::LogChunk>>)>),
    Done,
}

impl Stream for BuildLog {
    type Item = Result<types::LogChunk>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, LogState::Done) {
                LogState::Done => return Poll::Ready(None),
                LogState::Ready(mut build) => {
                    self.state = LogState::Reading(Box::pin(async move {
                        let next = build.next().await;
                        (build, next)
                    }));
                }
                LogState::Reading(mut reading) => match reading.as_mut().poll(cx) {
                    Poll::Pending => {
                        self.state = LogState::Reading(reading);
                        return Poll::Pending;
                    }
                    Poll::Ready((build, Ok(Some(chunk)))) => {
                        self.state = LogState::Ready(build);
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                    Poll::Ready((_, Ok(None))) => return Poll::Ready(None),
                    Poll::Ready((_, Err(error))) => return Poll::Ready(Some(Err(error))),
                },
            }
        }
    }
}

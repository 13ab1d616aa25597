//! What all methods use: arguments, the sandbox that they name, and their results.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sandbox_host::{Error, Sandbox};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::fault::Fault;
use crate::objects::{Objects, Progress, ProviderObject, Use};
use crate::reply::Reply;
use crate::shapes::basic::Shape;

/// The result of a method.
pub(super) type Answer = Result<Reply, Fault>;

/// A method under way.
pub(crate) type Work = BoxFuture<'static, Answer>;

/// An entry of the table of methods.
pub(crate) struct Method {
    pub(crate) name: &'static str,
    pub(crate) takes_data: bool,
    pub(crate) start: fn(Context, &str) -> Result<Work, Fault>,
}

/// What a method gets besides its arguments.
pub(crate) struct Context {
    pub(crate) method: &'static str,
    pub(crate) objects: Arc<Objects>,
    /// Bulk data of the caller.
    pub(crate) data: Bytes,
    /// Counts the bytes of a transfer.
    pub(crate) progress: Counter,
}

/// Counts the bytes of a copy that runs in the background. For other calls, it counts nothing.
#[derive(Debug, Default)]
pub(crate) struct Counter(Option<watch::Sender<Progress>>);

impl Counter {
    pub(super) fn new(progress: watch::Sender<Progress>) -> Counter {
        Counter(Some(progress))
    }

    /// Returns whether the caller wants to know the progress.
    pub(super) fn counts(&self) -> bool {
        self.0.is_some()
    }

    /// Sets how many bytes there are.
    pub(super) fn expect(&self, total: u64) {
        if let Some(progress) = &self.0 {
            progress.send_modify(|state| state.total = Some(total));
        }
    }

    /// Adds to the bytes that were copied.
    pub(super) fn add(&self, bytes: u64) {
        if let Some(progress) = &self.0
            && bytes > 0
        {
            progress.send_modify(|state| state.bytes += bytes);
        }
    }
}

/// Decodes the arguments and returns the future of the method.
pub(super) fn start<A: DeserializeOwned, F: Future<Output = Answer> + Send + 'static>(
    method: impl FnOnce(Context, A) -> F,
    context: Context,
    arguments: &str,
) -> Result<Work, Fault> {
    let arguments = serde_json::from_str(arguments)
        .map_err(|error| Fault::invalid(format!("unusable arguments of {}: {error}", context.method)))?;
    Ok(method(context, arguments).boxed())
}

/// A sandbox that a method works on.
pub(super) struct Place {
    pub(super) provider: Use<ProviderObject>,
    pub(super) sandbox: Sandbox,
}

impl Place {
    pub(super) fn find(
        context: &Context,
        provider: u64,
        sandbox: &str,
        container: Option<&str>,
        user: Option<&str>,
    ) -> Result<Place, Fault> {
        let provider: Use<ProviderObject> = context.objects.get(provider)?;
        let mut sandbox = provider.object.provider.sandbox(sandbox);
        if let Some(container) = container {
            sandbox = sandbox.sidecar(container);
        }
        if let Some(user) = user {
            sandbox = sandbox.as_user(user);
        }
        Ok(Place { provider, sandbox })
    }

    /// Waits for `work`, and fails when the provider is closed before.
    pub(super) async fn run<T, E: Into<Fault>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Fault> {
        self.provider.run(work).await
    }

    /// Waits for work without a result.
    pub(super) async fn done(&self, work: impl Future<Output = Result<(), Error>>) -> Answer {
        self.run(work).await?;
        Reply::null()
    }

    /// Waits for a result that is no record.
    pub(super) async fn value<T: Serialize>(&self, work: impl Future<Output = Result<T, Error>>) -> Answer {
        Reply::json(self.run(work).await?)
    }

    /// Waits for a record of the interface with the shape `S`.
    pub(super) async fn shaped<S: Shape + Serialize>(
        &self,
        work: impl Future<Output = Result<S::Wit, Error>>,
    ) -> Answer {
        Reply::json(S::from_wit(self.run(work).await?))
    }
}

impl Use<ProviderObject> {
    /// Waits for a record of the interface with the shape `S`.
    pub(super) async fn shaped<S: Shape + Serialize>(
        &self,
        work: impl Future<Output = Result<S::Wit, Error>>,
    ) -> Answer {
        Reply::json(S::from_wit(self.run(work).await?))
    }

    /// Waits for work without a result.
    pub(super) async fn done(&self, work: impl Future<Output = Result<(), Error>>) -> Answer {
        self.run(work).await?;
        Reply::null()
    }
}

/// Returns a time limit. Without one, the time is unlimited.
pub(super) fn limit(millis: Option<u64>) -> Duration {
    millis.map_or(Duration::MAX, Duration::from_millis)
}

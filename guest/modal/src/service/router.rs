//! Calls to the command router, the endpoint on the worker that runs a sandbox (docs/modal-protocol.md, section 7.2).

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use modal_proto::{Rpc, prost::Message};
use sandbox_provider_kit::{
    Error, Result,
    call::{
        Endpoint, Failure as _, endpoint,
        grpc::{self, Framed, Status},
        retry::{Policy, Throttle},
    },
    platform::{LocalFuture, Transport},
};

use super::{
    access::{Access, Accesses},
    ended,
    error::unreadable,
    setup::Setup,
};

/// A worker can need minutes until its router accepts connections. Connecting is therefore repeated for this time, with
/// this pause, as long as the control plane reports that the sandbox is running (docs/modal-protocol.md, section 1.5).
const CONNECT_TOTAL: Duration = Duration::from_secs(310);
const CONNECT_PAUSE: Duration = Duration::from_secs(2);

/// The routers of all sandboxes. Clones share the accesses.
#[derive(Clone)]
pub struct Router {
    accesses: Accesses,
}

impl Router {
    /// Makes a client with these accesses.
    #[must_use]
    pub fn new(accesses: Accesses) -> Router {
        Router { accesses }
    }

    /// Returns the accesses.
    pub(crate) fn accesses(&self) -> &Accesses {
        &self.accesses
    }

    fn setup(&self) -> &Rc<Setup> {
        self.accesses.control().setup()
    }

    /// Returns the endpoint of one sandbox.
    pub(crate) fn of(&self, sandbox: &str) -> SandboxRouter {
        SandboxRouter { router: self.clone(), sandbox: sandbox.to_string() }
    }

    /// Converts a status to an error, which considers whether the sandbox has ended. `what` completes the sentence
    /// "Could not …".
    pub(crate) async fn explain(&self, sandbox: &str, status: &Status, what: &str) -> Error {
        self.accesses.explain(sandbox, status, what).await
    }

    /// Makes a unary call to the router of a sandbox with the retries of `policy`. Renews the token once if the router
    /// rejects it. `make` gets the task's id. `policy.attempt` limits one attempt on both sides.
    ///
    /// # Errors
    ///
    /// Outer: the sandbox cannot be reached. Inner: the status of the last attempt.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        sandbox: &str,
        policy: &Policy,
        rpc: Rpc<Q, A>,
        make: impl FnOnce(String) -> Q,
    ) -> Result<Result<A, Status>> {
        let task_id = self.task(sandbox).await?;
        let body = make(task_id).encode_to_vec();
        Ok(self.bytes(sandbox, policy, rpc.path, body).await?.and_then(grpc::decode))
    }

    /// Makes a unary call to the router of a sandbox and converts a failure to an error. `what` completes the sentence
    /// "Could not …".
    ///
    /// # Errors
    ///
    /// `sandbox-ended` if the sandbox has ended, `not-found` if it is unknown, `internal` if the answer cannot be
    /// decoded; otherwise the error of the failed request.
    pub(crate) async fn ask<Q: Message, A: Message + Default>(
        &self,
        sandbox: &str,
        policy: &Policy,
        what: &str,
        rpc: Rpc<Q, A>,
        make: impl FnOnce(String) -> Q,
    ) -> Result<A> {
        let task_id = self.task(sandbox).await?;
        let answer = self.named(sandbox, policy, what, rpc.path, make(task_id).encode_to_vec());
        A::decode(answer.await?).map_err(|_| unreadable(what))
    }

    fn task<'a>(&'a self, sandbox: &'a str) -> LocalFuture<'a, Result<String>> {
        Box::pin(async move { Ok(self.accesses.get(sandbox).await?.task_id) })
    }

    fn named<'a>(
        &'a self,
        sandbox: &'a str,
        policy: &'a Policy,
        what: &'a str,
        path: &'static str,
        body: Vec<u8>,
    ) -> LocalFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            match self.bytes(sandbox, policy, path, body).await? {
                Ok(answer) => Ok(answer),
                Err(status) => Err(self.explain(sandbox, &status, what).await),
            }
        })
    }

    /// Makes a call with encoded messages. All methods share this code.
    fn bytes<'a>(
        &'a self,
        sandbox: &'a str,
        policy: &'a Policy,
        path: &'static str,
        body: Vec<u8>,
    ) -> LocalFuture<'a, Result<Result<Bytes, Status>>> {
        let body = Bytes::from(body);
        Box::pin(async move {
            endpoint::call(&self.of(sandbox), policy, |access: &Access, _| {
                let request = access.dress(body.clone(), policy.attempt);
                let (channel, origin) = (self.setup().channel(), access.origin.clone());
                async move { grpc::unary(channel, origin, path, request?).await }
            })
            .await
        })
    }

    /// Opens a stream on the router of a sandbox, in one attempt.
    ///
    /// # Errors
    ///
    /// Outer: the sandbox cannot be reached. Inner: the status of the attempt.
    pub(crate) async fn stream<Q: Message, A: Message + Default + 'static>(
        &self,
        sandbox: &str,
        rpc: Rpc<Q, A>,
        make: impl FnOnce(String) -> Q,
    ) -> Result<Result<LocalBoxStream<'static, Result<A, Status>>, Status>> {
        let access = self.accesses.get(sandbox).await?;
        let request = match access.dress(make(access.task_id.clone()).encode_to_vec().into(), None) {
            Ok(request) => request,
            Err(status) => return Ok(Err(status)),
        };
        let opened = grpc::server_stream(self.setup().channel(), access.origin, rpc.path, request).await;
        Ok(opened.map(|stream| stream.map(|item| item.and_then(grpc::decode)).boxed_local()))
    }

    /// Makes a call with a request stream to the router of a sandbox, in one attempt and without a deadline.
    ///
    /// # Errors
    ///
    /// Outer: the sandbox cannot be reached. Inner: the status of the attempt.
    pub(crate) async fn upload<Q: Message, A: Message + Default>(
        &self,
        sandbox: &str,
        rpc: Rpc<Q, A>,
        first: impl FnOnce(String) -> Q,
        more: impl Iterator<Item = Framed> + 'static,
    ) -> Result<Result<A, Status>> {
        let access = self.accesses.get(sandbox).await?;
        let call = match access.dress(first(access.task_id.clone()).encode_to_vec().into(), None) {
            Ok(call) => call.followed_by(more),
            Err(status) => return Ok(Err(status)),
        };
        let answer = grpc::unary(self.setup().channel(), access.origin, rpc.path, call).await;
        Ok(answer.and_then(grpc::decode))
    }
}

/// The router of one sandbox as an [`Endpoint`].
#[derive(Clone)]
pub struct SandboxRouter {
    router: Router,
    sandbox: String,
}

impl SandboxRouter {
    /// Returns the routers of all sandboxes.
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// Returns the sandbox's id.
    pub(crate) fn sandbox(&self) -> &str {
        &self.sandbox
    }
}

impl Endpoint for SandboxRouter {
    type Failure = Status;
    type Access = Access;

    fn transport(&self) -> &Rc<dyn Transport> {
        self.router.setup().transport()
    }

    fn throttle(&self) -> Result<Throttle<Status>> {
        self.router.setup().throttle()
    }

    async fn access(&self) -> Result<Access> {
        self.router.accesses.get(&self.sandbox).await
    }

    fn expire(&self) {
        self.router.accesses.expire(&self.sandbox);
    }

    /// Waits and returns `true` if the router refused the connection, the sandbox is running, and time is left.
    ///
    /// # Errors
    ///
    /// `sandbox-ended` if the sandbox has ended, or the error of the control plane if that is not available either.
    async fn comes_up(&self, status: &Status, since: Duration) -> Result<bool> {
        if !status.is_refused() {
            return Ok(false);
        }
        match ended::poll(self.router.accesses.control(), &self.sandbox).await {
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => {
                return Err(self.router.explain(&self.sandbox, status, "reach the sandbox's machine").await);
            }
        }
        let transport = self.transport();
        let comes_up = transport.now().saturating_sub(since) < CONNECT_TOTAL;
        if comes_up {
            transport.sleep(CONNECT_PAUSE).await;
        }
        Ok(comes_up)
    }
}

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

/// A worker may need minutes until its router listens, so a router that cannot be connected to is tried for this long as
/// long as the control plane says that the sandbox lives (docs/modal-protocol.md, section 1.5), with this pause.
const CONNECT_TOTAL: Duration = Duration::from_secs(310);
const CONNECT_PAUSE: Duration = Duration::from_secs(2);

/// The routers of all sandboxes. Clones share the accesses.
#[derive(Clone)]
pub struct Router {
    accesses: Accesses,
}

impl Router {
    /// With these accesses.
    #[must_use]
    pub fn new(accesses: Accesses) -> Router {
        Router { accesses }
    }

    /// How sandboxes are reached.
    pub(crate) fn accesses(&self) -> &Accesses {
        &self.accesses
    }

    fn setup(&self) -> &Rc<Setup> {
        self.accesses.control().setup()
    }

    /// The endpoint of one sandbox.
    pub(crate) fn of(&self, sandbox: &str) -> SandboxRouter {
        SandboxRouter { router: self.clone(), sandbox: sandbox.to_string() }
    }

    /// What a failure means, as far as what has become of the sandbox tells. `what` completes "Could not …".
    pub(crate) async fn explain(&self, sandbox: &str, status: &Status, what: &str) -> Error {
        self.accesses.explain(sandbox, status, what).await
    }

    /// One unary call to the sandbox's router, repeated as the policy says; a token that is refused is renewed once.
    /// `make` gets the task's id. `policy.attempt` bounds one attempt on both sides.
    ///
    /// # Errors
    ///
    /// Outer: the sandbox cannot be reached at all. Inner: what this call was answered.
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

    /// One call to a sandbox's router; a failure is explained by what has become of the sandbox. `what` completes "Could
    /// not …".
    ///
    /// # Errors
    ///
    /// `sandbox-ended`, `not-found`, or what the router answered.
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

    /// What the calls above come down to, in one piece of code for all methods.
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

    /// Opens a stream on the sandbox's router.
    ///
    /// # Errors
    ///
    /// As [`Router::call`].
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

    /// One call with many messages to the sandbox's router, tried once and without a deadline.
    ///
    /// # Errors
    ///
    /// As [`Router::call`].
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

/// The router of one sandbox, as an endpoint.
#[derive(Clone)]
pub struct SandboxRouter {
    router: Router,
    sandbox: String,
}

impl SandboxRouter {
    /// The routers of all sandboxes.
    pub(crate) fn router(&self) -> &Router {
        &self.router
    }

    /// The sandbox.
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

    /// A router that could not be connected to is worth further tries as long as the sandbox lives and time is left.
    ///
    /// # Errors
    ///
    /// Why it is not: the sandbox is over, or the control plane is away too.
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

//! Calls to the command router, the endpoint on the worker that runs a sandbox (fact sheet, section 7.2): where it is, the
//! token for it, and what a failure there says about the sandbox.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use modal_proto::{
    Rpc,
    client::{
        CommandRouterAccess, SandboxGetCommandRouterAccessRequest, SandboxGetTaskIdRequest,
        TaskGetCommandRouterAccessRequest, sandbox_get_command_router_access_request::Target,
    },
    prost::Message,
    rpc,
};

use crate::{
    provider::Provider,
    service::{
        error::{status_error, unreadable},
        id,
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::wit::{EndReason, ErrorKind},
    call::{
        Failure as _,
        grpc::{self, Call, Code, Framed, Status},
        retry,
        retry::Policy,
        token::expiry,
    },
    platform::{LocalFuture, Url},
};

/// Get a new token when the old one has less than this left, so that no call starts with one that ends on the way.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// Between two looks whether a sandbox has a machine (fact sheet, section 6.2), and how many looks: five minutes, as long as
/// the official clients wait.
const TASK_ID_PAUSE: Duration = Duration::from_millis(500);
const TASK_ID_LOOKS: u32 = 600;

/// A worker may need minutes until its router listens, so a router that cannot be connected to is tried for this long as
/// long as the control plane says that the sandbox lives (fact sheet, section 1.5), with this pause.
const CONNECT_TOTAL: Duration = Duration::from_secs(310);
pub(crate) const CONNECT_PAUSE: Duration = Duration::from_secs(2);

/// How long the control plane is given to learn of an end that the worker knows of.
const SETTLE: Duration = Duration::from_secs(2);

/// How a sandbox is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// The task that the sandbox runs as.
    pub task_id: String,
    /// Address of the router.
    pub origin: Url,
    /// Bearer token.
    pub jwt: String,
    /// When the token ends; none if it does not say.
    pub expires: Option<Duration>,
}

impl Access {
    fn new(task_id: String, url: &str, jwt: String) -> Result<Access> {
        let expires = expiry(&jwt);
        let origin = Url::parse(url)
            .ok_or_else(|| Error::internal(format!("Modal answered with a router address that is none: `{url}`.")))?;
        Ok(Access { task_id, origin, jwt, expires })
    }

    /// A request with this access's token. `deadline` travels with it.
    fn dress(&self, body: Bytes, deadline: Option<Duration>) -> Result<Call, Status> {
        let mut call = Call::new(body, deadline);
        call.header("authorization", format!("Bearer {}", self.jwt))?;
        Ok(call)
    }
}

impl Provider {
    /// Remembers the access that a create answered with.
    pub(crate) fn remember_access(&self, sandbox: &str, task_id: &str, access: Option<CommandRouterAccess>) {
        if let Some(access) = access.filter(|access| !task_id.is_empty() && !access.url.is_empty()) {
            // One that cannot be used is asked for again, and told then.
            if let Ok(access) = Access::new(task_id.to_string(), &access.url, access.jwt) {
                self.inner.state.borrow_mut().routers.insert(sandbox.to_string(), access);
            }
        }
    }

    /// How a sandbox is reached, asked for when unknown or about to end.
    ///
    /// # Errors
    ///
    /// `sandbox-ended`, `not-found`, or what the service answered.
    pub(crate) async fn access(&self, sandbox: &str) -> Result<Access> {
        id::check_sandbox(sandbox)?;
        let cached = self.inner.state.borrow().routers.get(&sandbox.to_string()).cloned();
        if let Some(access) = &cached
            && access.expires.is_none_or(|expires| self.now() + RENEW_BEFORE < expires)
        {
            return Ok(access.clone());
        }
        let task_id = match cached {
            Some(access) => access.task_id,
            None => self.task_id(sandbox).await?,
        };
        let answer = if id::is_v1(sandbox) {
            let request = TaskGetCommandRouterAccessRequest { task_id: task_id.clone() };
            self.control_keyed(&self.new_uuid(), rpc::TASK_GET_COMMAND_ROUTER_ACCESS, &request)
                .await?
                .map(|answer| (answer.url, answer.jwt))
        } else {
            let request = SandboxGetCommandRouterAccessRequest { target: Some(Target::SandboxId(sandbox.to_string())) };
            self.control_keyed(&self.new_uuid(), rpc::SANDBOX_GET_COMMAND_ROUTER_ACCESS, &request)
                .await?
                .map(|answer| (answer.url, answer.jwt))
        };
        let (url, jwt) = match answer {
            Ok(answer) => answer,
            Err(status) => return Err(self.explain(sandbox, &status, "reach the sandbox").await),
        };
        let access = Access::new(task_id, &url, jwt)?;
        self.inner.state.borrow_mut().routers.insert(sandbox.to_string(), access.clone());
        Ok(access)
    }

    /// The task that a sandbox runs as, or ran.
    pub(crate) async fn task_id(&self, sandbox: &str) -> Result<String> {
        for look in 0..TASK_ID_LOOKS {
            if look > 0 {
                self.inner.transport.sleep(TASK_ID_PAUSE).await;
            }
            let request = SandboxGetTaskIdRequest { sandbox_id: sandbox.to_string(), ..Default::default() };
            let v1 = id::is_v1(sandbox);
            let answer = self
                .control_keyed(
                    &self.new_uuid(),
                    if v1 { rpc::SANDBOX_GET_TASK_ID } else { rpc::SANDBOX_GET_TASK_ID_V2 },
                    &request,
                )
                .await?;
            let answer = match answer {
                Ok(answer) => answer,
                Err(status) => return Err(self.explain(sandbox, &status, "find the sandbox's machine").await),
            };
            if let Some(task_id) = answer.task_id.filter(|id| !id.is_empty()) {
                return Ok(task_id);
            }
            if let Some(reason) = answer.task_result.as_ref().and_then(crate::sandbox::manage::end_reason) {
                return Err(ended_error(sandbox, &reason));
            }
        }
        let message = format!("The sandbox {sandbox} got no machine within five minutes. Try again, or ask for less.");
        Err(Error::new(ErrorKind::TimedOut, message).about(sandbox))
    }

    /// One unary call to the sandbox's router, repeated as the policy says; a token that is refused is renewed once.
    /// `make` gets the task's id. `policy.attempt` bounds one attempt on both sides.
    ///
    /// # Errors
    ///
    /// Outer: the sandbox cannot be reached at all. Inner: what this call was answered.
    pub(crate) async fn router<Q: Message, A: Message + Default>(
        &self,
        sandbox: &str,
        policy: &Policy,
        rpc: Rpc<Q, A>,
        make: impl FnOnce(String) -> Q,
    ) -> Result<Result<A, Status>> {
        let task_id = self.router_task(sandbox).await?;
        let body = make(task_id).encode_to_vec();
        Ok(self.router_bytes(sandbox, policy, rpc.path, body).await?.and_then(grpc::decode))
    }

    /// One call to a sandbox's router; a failure is explained by what has become of the sandbox. `what` completes "Could
    /// not …".
    ///
    /// # Errors
    ///
    /// `sandbox-ended`, `not-found`, or what the router answered.
    pub(crate) async fn ask_router<Q: Message, A: Message + Default>(
        &self,
        sandbox: &str,
        policy: &Policy,
        what: &str,
        rpc: Rpc<Q, A>,
        make: impl FnOnce(String) -> Q,
    ) -> Result<A> {
        let task_id = self.router_task(sandbox).await?;
        let answer = self.router_named(sandbox, policy, what, rpc.path, make(task_id).encode_to_vec());
        A::decode(answer.await?).map_err(|_| unreadable(what))
    }

    fn router_task<'a>(&'a self, sandbox: &'a str) -> LocalFuture<'a, Result<String>> {
        Box::pin(async move { Ok(self.access(sandbox).await?.task_id) })
    }

    fn router_named<'a>(
        &'a self,
        sandbox: &'a str,
        policy: &'a Policy,
        what: &'a str,
        path: &'static str,
        body: Vec<u8>,
    ) -> LocalFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            match self.router_bytes(sandbox, policy, path, body).await? {
                Ok(answer) => Ok(answer),
                Err(status) => Err(self.explain(sandbox, &status, what).await),
            }
        })
    }

    /// What the calls above come down to, in one piece of code for all methods.
    fn router_bytes<'a>(
        &'a self,
        sandbox: &'a str,
        policy: &'a Policy,
        path: &'static str,
        body: Vec<u8>,
    ) -> LocalFuture<'a, Result<Result<Bytes, Status>>> {
        Box::pin(self.router_attempts(sandbox, policy, path, body.into()))
    }

    async fn router_attempts(
        &self,
        sandbox: &str,
        policy: &Policy,
        path: &'static str,
        body: Bytes,
    ) -> Result<Result<Bytes, Status>> {
        let throttle = self.throttle()?;
        let begun = self.now();
        let (mut renewed, mut earlier) = (false, false);
        loop {
            let access = self.access(sandbox).await?;
            let result = retry::run(self.transport(), policy, throttle, |_| {
                let request = access.dress(body.clone(), policy.attempt);
                let (channel, origin) = (self.channel(), access.origin.clone());
                async move { grpc::unary(channel, origin, path, request?).await }
            })
            .await;
            match result {
                Err(status) if status.code() == Code::Unauthenticated && !renewed => {
                    renewed = true;
                    earlier |= status.had_earlier();
                    self.expire_access(sandbox);
                }
                Err(mut status) => {
                    if earlier {
                        status.mark_earlier();
                    }
                    if !self.may_come_up(sandbox, &status, begun).await? {
                        return Ok(Err(status));
                    }
                    earlier = status.had_earlier();
                    self.inner.transport.sleep(CONNECT_PAUSE).await;
                }
                Ok(answer) => return Ok(Ok(answer)),
            }
        }
    }

    /// Whether a router that could not be connected to is worth further tries: the sandbox lives, and time is left.
    ///
    /// # Errors
    ///
    /// Why it is not: the sandbox is over, or the control plane is away too.
    pub(crate) async fn may_come_up(&self, sandbox: &str, status: &Status, since: Duration) -> Result<bool> {
        if !status.is_refused() {
            return Ok(false);
        }
        match self.poll_end(sandbox).await {
            Ok(None) => Ok(self.now().saturating_sub(since) < CONNECT_TOTAL),
            Ok(Some(_)) | Err(_) => Err(self.explain(sandbox, status, "reach the sandbox's machine").await),
        }
    }

    /// Opens a stream on the sandbox's router.
    ///
    /// # Errors
    ///
    /// As [`Provider::router`].
    pub(crate) async fn router_stream<Q: Message, A: Message + Default + 'static>(
        &self,
        sandbox: &str,
        rpc: Rpc<Q, A>,
        make: impl FnOnce(String) -> Q,
    ) -> Result<Result<LocalBoxStream<'static, Result<A, Status>>, Status>> {
        let access = self.access(sandbox).await?;
        let request = match access.dress(make(access.task_id.clone()).encode_to_vec().into(), None) {
            Ok(request) => request,
            Err(status) => return Ok(Err(status)),
        };
        let opened = grpc::server_stream(self.channel(), access.origin, rpc.path, request).await;
        Ok(opened.map(|stream| stream.map(|item| item.and_then(grpc::decode)).boxed_local()))
    }

    /// One call with many messages to the sandbox's router, tried once and without a deadline.
    ///
    /// # Errors
    ///
    /// As [`Provider::router`].
    pub(crate) async fn router_upload<Q: Message, A: Message + Default>(
        &self,
        sandbox: &str,
        rpc: Rpc<Q, A>,
        first: impl FnOnce(String) -> Q,
        more: impl Iterator<Item = Framed> + 'static,
    ) -> Result<Result<A, Status>> {
        let access = self.access(sandbox).await?;
        let call = match access.dress(first(access.task_id.clone()).encode_to_vec().into(), None) {
            Ok(call) => call.followed_by(more),
            Err(status) => return Ok(Err(status)),
        };
        let answer = grpc::unary(self.channel(), access.origin, rpc.path, call).await;
        Ok(answer.and_then(grpc::decode))
    }

    /// Makes the next call ask for a new token; the task stays.
    pub(crate) fn expire_access(&self, sandbox: &str) {
        let mut state = self.inner.state.borrow_mut();
        if let Some(mut access) = state.routers.remove(&sandbox.to_string()) {
            access.expires = Some(Duration::ZERO);
            state.routers.insert(sandbox.to_string(), access);
        }
    }

    /// What a failure means: a router that does not answer, or does not know the task, may be one whose sandbox is over.
    pub(crate) async fn explain(&self, sandbox: &str, status: &Status, what: &str) -> Error {
        let error = status_error(status, what);
        let ambiguous =
            status.is_retryable() || matches!(status.code(), Code::NotFound | Code::FailedPrecondition | Code::Aborted);
        if ambiguous {
            // A worker may know of an end before the control plane does.
            let settle = if status.code() == Code::NotFound { SETTLE } else { Duration::ZERO };
            match self.wait_end(sandbox, settle).await {
                Ok(Some(reason)) => {
                    self.inner.state.borrow_mut().routers.remove(&sandbox.to_string());
                    return ended_error(sandbox, &reason).with_happened(error.happened);
                }
                // When the control plane is away too, that is the better explanation.
                Err(better) if matches!(better.kind, ErrorKind::NotFound | ErrorKind::Unavailable) => {
                    return better.with_happened(error.happened);
                }
                Ok(None) | Err(_) => {}
            }
        }
        error.about(sandbox)
    }
}

/// The error for a sandbox that is over.
pub(crate) fn ended_error(sandbox: &str, reason: &EndReason) -> Error {
    Error::new(
        ErrorKind::SandboxEnded,
        format!("The sandbox {sandbox} has ended: {}.", crate::sandbox::manage::describe_end(reason)),
    )
    .about(sandbox)
}

//! Calls to the control plane: the client's identity, the short-lived token, idempotency keys and retry counters
//! (docs/modal-protocol.md, sections 1.2 and 1.5).

use std::{cell::RefCell, rc::Rc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use modal_proto::{Rpc, client::AuthTokenGetResponse, prost::Message, rpc};
use sandbox_provider_kit::{
    Error, Result,
    api::time::millis,
    api::wit::{ErrorKind, RetryAdvice},
    call::{
        Endpoint, endpoint,
        grpc::{self, Call, Code, Status},
        retry::{self, Attempt, Policy, Throttle},
        token::Token,
    },
    platform::{LocalFuture, Transport},
};

use super::{
    error::{status_error, unreadable},
    policy,
    setup::Setup,
};

/// The identity of this client. Modal reserves no client type for third parties. The service is known to accept type 8
/// with version 1.0.0 (docs/modal-protocol.md, section 1.2). The name is the true name of this client. Only a live run
/// can confirm this.
const CLIENT_TYPE: &str = "8";
const CLIENT_VERSION: &str = "1.0.0";
const CLIENT_NAME: &str = concat!("modal-provider/", env!("CARGO_PKG_VERSION"));

/// Time limit of one attempt to fetch the short-lived token.
const AUTH_ATTEMPT: Duration = Duration::from_secs(5);

/// Longest wait on request of the service within one create call.
const CREATE_PATIENCE: Duration = Duration::from_secs(2);

/// The control plane. Clones share one token.
#[derive(Clone)]
pub struct Control {
    setup: Rc<Setup>,
    token: Rc<RefCell<Option<Token>>>,
}

impl Control {
    /// Makes the client of the control plane.
    #[must_use]
    pub fn new(setup: Rc<Setup>) -> Control {
        Control { setup, token: Rc::default() }
    }

    /// Returns the transport and the configuration.
    #[must_use]
    pub fn setup(&self) -> &Rc<Setup> {
        &self.setup
    }

    /// Makes a unary call with retries. `what` completes the sentence "Could not …" in an error.
    ///
    /// # Errors
    ///
    /// The error of the last attempt. `internal` if the answer cannot be decoded.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        what: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<A> {
        let answer = self.named(what, rpc.path, request.encode_to_vec(), None);
        A::decode(answer.await?).map_err(|_| unreadable(what))
    }

    /// Like [`Control::call`], but with a deadline for each attempt, which the server gets too.
    pub(crate) async fn call_within<Q: Message, A: Message + Default>(
        &self,
        what: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
        limit: Duration,
    ) -> Result<A> {
        let answer = self.named(what, rpc.path, request.encode_to_vec(), Some(limit));
        A::decode(answer.await?).map_err(|_| unreadable(what))
    }

    /// Makes a unary call with the caller's idempotency key, and returns the gRPC status of a failed call.
    ///
    /// # Errors
    ///
    /// Outer: the token could not be fetched. Inner: the status of the last attempt.
    pub(crate) async fn keyed<Q: Message, A: Message + Default>(
        &self,
        key: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<Result<A, Status>> {
        let answer = self.bytes(key, rpc.path, request.encode_to_vec(), None, None);
        Ok(answer.await?.and_then(grpc::decode))
    }

    /// Like [`Control::keyed`], for calls that need capacity. If the service asks for a longer wait, fails with it in
    /// the error, so that the caller can show the wait and repeat the call with the same key.
    pub(crate) async fn create<Q: Message, A: Message + Default>(
        &self,
        key: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<A> {
        let answer = self.bytes(key, rpc.path, request.encode_to_vec(), None, Some(CREATE_PATIENCE));
        answer.await?.and_then(grpc::decode).map_err(|status| self.create_error(&status))
    }

    fn named<'a>(
        &'a self,
        what: &'a str,
        path: &'static str,
        body: Vec<u8>,
        limit: Option<Duration>,
    ) -> LocalFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let answer = self.bytes(&self.setup.new_uuid(), path, body, limit, None).await?;
            answer.map_err(|status| self.error(&status, what))
        })
    }

    /// Makes a call with encoded messages. All methods share this code.
    fn bytes<'a>(
        &'a self,
        key: &'a str,
        path: &'static str,
        body: Vec<u8>,
        limit: Option<Duration>,
        patience: Option<Duration>,
    ) -> LocalFuture<'a, Result<Result<Bytes, Status>>> {
        let body = Bytes::from(body);
        Box::pin(async move {
            let server = &self.setup.config()?.server;
            let policy = Policy { attempt: limit, patience, ..policy::CONTROL };
            endpoint::call(self, &policy, |token, attempt| {
                let request = self.dress(body.clone(), Some(token), Some((key, attempt)), limit);
                let (channel, server) = (self.setup.channel(), server.clone());
                async move { grpc::unary(channel, server, path, request?).await }
            })
            .await
        })
    }

    /// Opens a server stream. Does not retry, except once with a new token if the service rejects the token.
    ///
    /// # Errors
    ///
    /// Outer: the token could not be fetched. Inner: the status of the last attempt.
    pub(crate) async fn stream<Q: Message, A: Message + Default + 'static>(
        &self,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<Result<LocalBoxStream<'static, Result<A, Status>>, Status>> {
        let body = Bytes::from(request.encode_to_vec());
        let server = &self.setup.config()?.server;
        let opened = endpoint::open(self, |token| {
            let request = self.dress(body.clone(), Some(token), None, None);
            let (channel, server) = (self.setup.channel(), server.clone());
            async move { grpc::willing_stream(channel, server, rpc.path, request?).await }
        })
        .await?;
        Ok(opened.map(|stream| stream.map(|item| item.and_then(grpc::decode)).boxed_local()))
    }

    pub(crate) fn error(&self, status: &Status, what: &str) -> Error {
        let mut error = status_error(status, what);
        if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Forbidden) && error.provider_code.is_none() {
            let server = self.setup.config().map(|config| config.server.to_string()).unwrap_or_default();
            error.message = format!(
                "Could not reach Modal at {}: {}. Check MODAL_SERVER_URL and the network.",
                server.trim_end_matches('/'),
                status.message().trim_end_matches('.')
            );
            error.subject = Some(server);
        }
        error
    }

    fn create_error(&self, status: &Status) -> Error {
        let mut error = self.error(status, "create the sandbox");
        if let Some(wait) = policy::server_wait(status) {
            error.retry = RetryAdvice::After(millis(wait));
        }
        error
    }

    fn dress(
        &self,
        body: Bytes,
        token: Option<&str>,
        unary: Option<(&str, Attempt)>,
        limit: Option<Duration>,
    ) -> Result<Call, Status> {
        let config =
            self.setup.config().map_err(|error| Status::new(Code::InvalidArgument, error.into_record().message))?;
        let mut call = Call::new(body, limit);
        call.header("x-modal-client-type", CLIENT_TYPE)?;
        call.header("x-modal-client-version", CLIENT_VERSION)?;
        call.header("x-modal-libmodal-version", CLIENT_NAME)?;
        call.header("x-modal-host", config.server.host())?;
        if let Some((id, secret)) = &config.token {
            call.header("x-modal-token-id", id)?;
            call.header("x-modal-token-secret", secret)?;
        }
        if let Some(token) = token {
            call.header("x-modal-auth-token", token)?;
        }
        if let Some((key, attempt)) = unary {
            call.header("x-idempotency-key", key)?;
            call.header("x-retry-attempt", attempt.retries.to_string())?;
            call.header("x-throttle-retry-attempt", attempt.throttles.to_string())?;
            let elapsed = format!("{}.{:03}", attempt.elapsed.as_secs(), attempt.elapsed.subsec_millis());
            if attempt.retries > 0 {
                call.header("x-retry-delay", elapsed.as_str())?;
            }
            if attempt.throttles > 0 {
                call.header("x-throttle-retry-delay", elapsed)?;
            }
        }
        Ok(call)
    }

    /// Checks the address and the credentials with one request for a token.
    ///
    /// # Errors
    ///
    /// `unauthenticated` or `permission-denied` if the service refuses the credentials, `unavailable` if it cannot be
    /// reached; otherwise the error of the failed request.
    pub async fn check(&self) -> Result<()> {
        self.expire();
        self.access().await.map(drop)
    }

    /// Returns the current token.
    pub(crate) fn token(&self) -> Option<Token> {
        self.token.borrow().clone()
    }

    /// Sets a token that another instance fetched.
    pub(crate) fn set_token(&self, token: Token) {
        *self.token.borrow_mut() = Some(token);
    }
}

impl Endpoint for Control {
    type Failure = Status;

    /// The token.
    type Access = String;

    fn transport(&self) -> &Rc<dyn Transport> {
        self.setup.transport()
    }

    fn throttle(&self) -> Result<Throttle<Status>> {
        self.setup.throttle()
    }

    /// Returns the short-lived token. Fetches a new one when it is due. A failed renewal is not an error while the old
    /// token is valid.
    async fn access(&self) -> Result<String> {
        let now = self.setup.now();
        let cached = self.token.borrow().clone();
        if let Some(token) = cached.as_ref().filter(|token| token.is_usable(now) && !token.is_due(now)) {
            return Ok(token.token.clone());
        }
        let usable = cached.filter(|token| token.is_usable(now));
        let config = self.setup.config()?;
        let policy = Policy {
            attempt: Some(AUTH_ATTEMPT),
            retries: if usable.is_some() { 0 } else { policy::CONTROL.retries },
            ..policy::CONTROL
        };
        let key = self.setup.new_uuid();
        let result = retry::run(self.transport(), &policy, self.throttle()?, |attempt| {
            let request = self.dress(Bytes::new(), None, Some((&key, attempt)), None);
            let (channel, server) = (self.setup.channel(), config.server.clone());
            async move {
                let bytes = grpc::unary(channel, server, rpc::AUTH_TOKEN_GET.path, request?).await?;
                grpc::decode::<AuthTokenGetResponse>(bytes)
            }
        })
        .await;
        match (result, usable) {
            (Ok(answer), _) if !answer.token.is_empty() => {
                let chance = f64::from(self.transport().random()[0]) / 255.0;
                let token = Token::new(answer.token.clone(), self.setup.now(), chance);
                *self.token.borrow_mut() = Some(token);
                Ok(answer.token)
            }
            (Err(status), _) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                Err(self.error(&status, "sign in to Modal"))
            }
            (_, Some(mut token)) => {
                token.postpone(self.setup.now());
                let text = token.token.clone();
                *self.token.borrow_mut() = Some(token);
                Ok(text)
            }
            (Err(status), None) => Err(self.error(&status, "sign in to Modal")),
            (Ok(_), None) => Err(Error::internal("Modal returned an empty access token.")),
        }
    }

    fn expire(&self) {
        *self.token.borrow_mut() = None;
    }
}

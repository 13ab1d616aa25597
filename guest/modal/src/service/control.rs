//! Calls to the control plane: who we are, the short-lived token, idempotency and retry counters (fact sheet, sections
//! 1.2 and 1.5), and the look-ups that many functions need first.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::LocalBoxStream};
use modal_proto::{
    Rpc,
    client::{AppGetOrCreateRequest, AuthTokenGetResponse, EnvironmentGetOrCreateRequest, ObjectCreationType},
    prost::Message,
    rpc,
};

use crate::{
    provider::Provider,
    service::{
        error::{status_error, unreadable},
        policy,
    },
};
use sandbox_provider_kit::{
    Error, Result,
    api::wit::ErrorKind,
    call::{
        Failure as _,
        grpc::{self, Call, Code, Status},
        retry,
        retry::{Attempt, Policy},
        token::Token,
    },
    platform::LocalFuture,
};

/// How this client presents itself. No client type is reserved for third parties; the service is known to accept type 8
/// with version 1.0.0 (fact sheet, section 1.2). The name behind it is honest. Only a live run can confirm this.
const CLIENT_TYPE: &str = "8";
const CLIENT_VERSION: &str = "1.0.0";
const CLIENT_NAME: &str = concat!("modal-provider/", env!("CARGO_PKG_VERSION"));

/// Time for one attempt at the short-lived token.
const AUTH_ATTEMPT: Duration = Duration::from_secs(5);

/// Longest time that a create waits by itself because the service asks it to.
const CREATE_PATIENCE: Duration = Duration::from_secs(2);

impl Provider {
    /// One unary call, repeated as the policy says. `what` completes "Could not …" in an error.
    ///
    /// # Errors
    ///
    /// What the service answered, as an interface error.
    pub(crate) async fn control<Q: Message, A: Message + Default>(
        &self,
        what: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<A> {
        let answer = self.control_named(what, rpc.path, request.encode_to_vec(), None);
        A::decode(answer.await?).map_err(|_| unreadable(what))
    }

    /// As [`Provider::control`], with a deadline on each attempt that the server is told of.
    pub(crate) async fn control_within<Q: Message, A: Message + Default>(
        &self,
        what: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
        limit: Duration,
    ) -> Result<A> {
        let answer = self.control_named(what, rpc.path, request.encode_to_vec(), Some(limit));
        A::decode(answer.await?).map_err(|_| unreadable(what))
    }

    /// With an idempotency key of the caller's, and the status itself for callers that look at it.
    ///
    /// # Errors
    ///
    /// Outer: no token could be had. Inner: what this call was answered.
    pub(crate) async fn control_keyed<Q: Message, A: Message + Default>(
        &self,
        key: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<Result<A, Status>> {
        let answer = self.control_bytes(key, rpc.path, request.encode_to_vec(), None, None);
        Ok(answer.await?.and_then(grpc::decode))
    }

    /// As [`Provider::control_keyed`], for what takes up capacity: a wait that the service asks for is left to the caller,
    /// who can show that it waits, and repeat the call with the same key.
    pub(crate) async fn control_create<Q: Message, A: Message + Default>(
        &self,
        key: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<A> {
        let answer = self.control_bytes(key, rpc.path, request.encode_to_vec(), None, Some(CREATE_PATIENCE));
        answer.await?.and_then(grpc::decode).map_err(|status| self.create_error(&status))
    }

    fn control_named<'a>(
        &'a self,
        what: &'a str,
        path: &'static str,
        body: Vec<u8>,
        limit: Option<Duration>,
    ) -> LocalFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let answer = self.control_bytes(&self.new_uuid(), path, body, limit, None).await?;
            answer.map_err(|status| self.control_error(&status, what))
        })
    }

    /// What all of the above come down to, in one piece of code for all methods.
    fn control_bytes<'a>(
        &'a self,
        key: &'a str,
        path: &'static str,
        body: Vec<u8>,
        limit: Option<Duration>,
        patience: Option<Duration>,
    ) -> LocalFuture<'a, Result<Result<Bytes, Status>>> {
        Box::pin(self.control_attempts(key, path, body.into(), limit, patience))
    }

    async fn control_attempts(
        &self,
        key: &str,
        path: &'static str,
        body: Bytes,
        limit: Option<Duration>,
        patience: Option<Duration>,
    ) -> Result<Result<Bytes, Status>> {
        let config = self.config()?;
        let policy = Policy { attempt: limit, patience, ..policy::CONTROL };
        let (mut renewed, mut earlier) = (false, false);
        loop {
            let token = self.auth_token().await?;
            let result = retry::run(self.transport(), &policy, self.throttle()?, |attempt| {
                let request = self.dress(body.clone(), Some(&token), Some((key, attempt)), limit);
                let (channel, server) = (self.channel(), config.server.clone());
                async move { grpc::unary(channel, server, path, request?).await }
            })
            .await;
            match result {
                // The token may have been withdrawn before its time: one fresh one, then believe it.
                Err(status) if status.code() == Code::Unauthenticated && !renewed => {
                    renewed = true;
                    earlier = status.had_earlier();
                    self.expire_auth();
                }
                Err(mut status) if earlier => {
                    status.mark_earlier();
                    return Ok(Err(status));
                }
                other => return Ok(other),
            }
        }
    }

    /// Opens a server stream: identity and token, no retry but for a token that is refused.
    ///
    /// # Errors
    ///
    /// Outer: no token could be had. Inner: what this call was answered.
    pub(crate) async fn control_stream<Q: Message, A: Message + Default + 'static>(
        &self,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<Result<LocalBoxStream<'static, Result<A, Status>>, Status>> {
        let body = Bytes::from(request.encode_to_vec());
        let mut renewed = false;
        loop {
            let token = self.auth_token().await?;
            let request = match self.dress(body.clone(), Some(&token), None, None) {
                Ok(request) => request,
                Err(status) => return Ok(Err(status)),
            };
            let server = self.config()?.server.clone();
            match grpc::willing_stream(self.channel(), server, rpc.path, request).await {
                Err(status) if status.code() == Code::Unauthenticated && !renewed => {
                    renewed = true;
                    self.expire_auth();
                }
                opened => return Ok(opened.map(|stream| stream.map(|item| item.and_then(grpc::decode)).boxed_local())),
            }
        }
    }

    /// Makes the next call fetch a new token.
    pub(crate) fn expire_auth(&self) {
        self.inner.state.borrow_mut().auth = None;
    }

    pub(crate) fn control_error(&self, status: &Status, what: &str) -> Error {
        let mut error = status_error(status, what);
        if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::Forbidden) && error.provider_code.is_none() {
            let server = self.config().map(|config| config.server.to_string()).unwrap_or_default();
            error.message = format!(
                "Could not reach Modal at {}: {}. Check MODAL_SERVER_URL and the network.",
                server.trim_end_matches('/'),
                status.message().trim_end_matches('.')
            );
            error.subject = Some(server);
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
        let config = self.config().map_err(|error| Status::new(Code::InvalidArgument, error.into_record().message))?;
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

    /// The short-lived token, fetched anew when it is due. A refresh that fails is no error while the old one works.
    async fn auth_token(&self) -> Result<String> {
        let now = self.now();
        let cached = self.inner.state.borrow().auth.clone();
        if let Some(token) = cached.as_ref().filter(|token| token.is_usable(now) && !token.is_due(now)) {
            return Ok(token.token.clone());
        }
        let usable = cached.filter(|token| token.is_usable(now));
        let config = self.config()?;
        let policy = Policy {
            attempt: Some(AUTH_ATTEMPT),
            retries: if usable.is_some() { 0 } else { policy::CONTROL.retries },
            ..policy::CONTROL
        };
        let key = self.new_uuid();
        let result = retry::run(self.transport(), &policy, self.throttle()?, |attempt| {
            let request = self.dress(Bytes::new(), None, Some((&key, attempt)), None);
            let (channel, server) = (self.channel(), config.server.clone());
            async move {
                let bytes = grpc::unary(channel, server, rpc::AUTH_TOKEN_GET.path, request?).await?;
                grpc::decode::<AuthTokenGetResponse>(bytes)
            }
        })
        .await;
        match (result, usable) {
            (Ok(answer), _) if !answer.token.is_empty() => {
                let chance = f64::from(self.inner.transport.random()[0]) / 255.0;
                let token = Token::new(answer.token.clone(), self.now(), chance);
                self.inner.state.borrow_mut().auth = Some(token);
                Ok(answer.token)
            }
            (Err(status), _) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => {
                Err(self.control_error(&status, "sign in to Modal"))
            }
            (_, Some(mut token)) => {
                token.postpone(self.now());
                let text = token.token.clone();
                self.inner.state.borrow_mut().auth = Some(token);
                Ok(text)
            }
            (Err(status), None) => Err(self.control_error(&status, "sign in to Modal")),
            (Ok(_), None) => Err(Error::internal("Modal answered with an empty access token.")),
        }
    }

    /// Proves address and credentials with one request.
    ///
    /// # Errors
    ///
    /// What the service answered.
    pub async fn check(&self) -> Result<()> {
        self.expire_auth();
        self.auth_token().await.map(drop)
    }

    /// The app's id; the app is made when missing.
    pub(crate) async fn app_id(&self) -> Result<String> {
        if let Some(id) = &self.inner.state.borrow().app_id {
            return Ok(id.clone());
        }
        let config = self.config()?;
        let request = AppGetOrCreateRequest {
            app_name: config.app.clone(),
            environment_name: config.environment.clone(),
            object_creation_type: ObjectCreationType::CreateIfMissing.into(),
        };
        let answer = self.control("look up the app", rpc::APP_GET_OR_CREATE, &request).await?;
        self.inner.state.borrow_mut().app_id = Some(answer.app_id.clone());
        Ok(answer.app_id)
    }

    /// The image builder's version: configured, or what the environment's settings say.
    pub(crate) async fn builder_version(&self) -> Result<String> {
        let config = self.config()?;
        if let Some(version) = &config.builder_version {
            return Ok(version.clone());
        }
        if let Some(version) = &self.inner.state.borrow().builder_version {
            return Ok(version.clone());
        }
        let request = EnvironmentGetOrCreateRequest {
            deployment_name: config.environment.clone(),
            object_creation_type: ObjectCreationType::Unspecified.into(),
        };
        let answer = self.control("look up the environment", rpc::ENVIRONMENT_GET_OR_CREATE, &request).await?;
        let settings = answer.metadata.and_then(|metadata| metadata.settings).unwrap_or_default();
        self.inner.state.borrow_mut().builder_version = Some(settings.image_builder_version.clone());
        Ok(settings.image_builder_version)
    }
}

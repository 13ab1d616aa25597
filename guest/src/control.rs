//! Calls to the control plane: who we are, the short-lived token, idempotency and retry counters (fact sheet, sections
//! 1.2 and 1.5), and the look-ups that many functions need first.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream::BoxStream};
use modal_proto::{
    Rpc,
    client::{
        AppGetOrCreateRequest, AuthTokenGetResponse, EnvironmentGetOrCreateRequest, ObjectCreationType,
        SecretGetOrCreateRequest,
    },
    prost::Message,
    rpc,
};
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

use crate::{
    auth::AuthToken,
    bindings::ErrorKind,
    error::{Error, Result},
    grpc,
    provider::Provider,
    retry::{self, Attempt},
};

/// How this client presents itself. No client type is reserved for third parties; the service is known to accept type 8
/// with version 1.0.0 (fact sheet, section 1.2). The name behind it is honest. Only a live run can confirm this.
const CLIENT_TYPE: &str = "8";
const CLIENT_VERSION: &str = "1.0.0";
const CLIENT_NAME: &str = concat!("modal-provider/", env!("CARGO_PKG_VERSION"));

/// Time for one attempt at the short-lived token.
const AUTH_ATTEMPT: Duration = Duration::from_secs(5);

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
        let key = self.new_uuid();
        self.control_keyed(&key, rpc, request).await?.map_err(|status| self.control_error(&status, what))
    }

    /// The same with an idempotency key of the caller's, and the status itself for callers that look at it.
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
        Ok(self.control_bytes(key, rpc.path, request.encode_to_vec().into(), None).await?.and_then(grpc::decode))
    }

    /// As [`Provider::control`], with a deadline on each attempt that the server is told of.
    pub(crate) async fn control_within<Q: Message, A: Message + Default>(
        &self,
        what: &str,
        rpc: Rpc<Q, A>,
        request: &Q,
        limit: Duration,
    ) -> Result<A> {
        let key = self.new_uuid();
        self.control_bytes(&key, rpc.path, request.encode_to_vec().into(), Some(limit))
            .await?
            .and_then(grpc::decode)
            .map_err(|status| self.control_error(&status, what))
    }

    async fn control_bytes(
        &self,
        key: &str,
        path: &'static str,
        body: Bytes,
        limit: Option<Duration>,
    ) -> Result<Result<Bytes, Status>> {
        let config = self.config()?;
        let policy = retry::Policy { attempt: limit, ..retry::CONTROL };
        let mut renewed = false;
        loop {
            let token = self.auth_token().await?;
            let result = retry::run(self.transport(), &policy, config.max_throttle_wait, |attempt| {
                let request = self.dress(body.clone(), Some(&token), Some((key, attempt)), limit);
                let (channel, server) = (self.channel(), config.server.clone());
                async move { grpc::unary(channel, server, path, request?).await }
            })
            .await;
            match result {
                // The token may have been withdrawn before its time: one fresh one, then believe it.
                Err(status) if status.code() == Code::Unauthenticated && !renewed => {
                    renewed = true;
                    self.inner.state.borrow_mut().auth = None;
                }
                other => return Ok(other),
            }
        }
    }

    /// Opens a server stream: identity and token, no retry.
    ///
    /// # Errors
    ///
    /// Outer: no token could be had. Inner: what this call was answered.
    pub(crate) async fn control_stream<Q: Message, A: Message + Default + 'static>(
        &self,
        rpc: Rpc<Q, A>,
        request: &Q,
    ) -> Result<Result<BoxStream<'static, Result<A, Status>>, Status>> {
        let token = self.auth_token().await?;
        let request = match self.dress(request.encode_to_vec().into(), Some(&token), None, None) {
            Ok(request) => request,
            Err(status) => return Ok(Err(status)),
        };
        let opened = grpc::server_stream(self.channel(), self.config()?.server.clone(), rpc.path, request).await;
        Ok(opened.map(|stream| stream.map(|item| item.and_then(grpc::decode)).boxed()))
    }

    pub(crate) fn control_error(&self, status: &Status, what: &str) -> Error {
        let mut error = Error::from_status(status, what);
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
    ) -> Result<Request<Bytes>, Status> {
        let config = self.config().map_err(|error| Status::invalid_argument(error.message))?;
        let mut request = Request::new(body);
        if let Some(limit) = limit {
            request.set_timeout(limit);
        }
        let metadata = request.metadata_mut();
        let text = |value: &str| {
            AsciiMetadataValue::try_from(value).map_err(|_| Status::internal("a header value is not ASCII"))
        };
        metadata.insert("x-modal-client-type", AsciiMetadataValue::from_static(CLIENT_TYPE));
        metadata.insert("x-modal-client-version", AsciiMetadataValue::from_static(CLIENT_VERSION));
        metadata.insert("x-modal-libmodal-version", AsciiMetadataValue::from_static(CLIENT_NAME));
        metadata.insert("x-modal-host", text(config.server.host().unwrap_or_default())?);
        if let Some((id, secret)) = &config.token {
            metadata.insert("x-modal-token-id", text(id.to_str().unwrap_or_default())?);
            metadata.insert("x-modal-token-secret", text(secret.to_str().unwrap_or_default())?);
        }
        if let Some(token) = token {
            metadata.insert("x-modal-auth-token", text(token)?);
        }
        if let Some((key, attempt)) = unary {
            metadata.insert("x-idempotency-key", text(key)?);
            metadata.insert("x-retry-attempt", attempt.retries.into());
            metadata.insert("x-throttle-retry-attempt", attempt.throttles.into());
            let elapsed = format!("{:.3}", attempt.elapsed.as_secs_f64());
            if attempt.retries > 0 {
                metadata.insert("x-retry-delay", text(&elapsed)?);
            }
            if attempt.throttles > 0 {
                metadata.insert("x-throttle-retry-delay", text(&elapsed)?);
            }
        }
        Ok(request)
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
        let policy = retry::Policy {
            attempt: Some(AUTH_ATTEMPT),
            retries: if usable.is_some() { 0 } else { retry::CONTROL.retries },
            ..retry::CONTROL
        };
        let key = self.new_uuid();
        let result = retry::run(self.transport(), &policy, config.max_throttle_wait, |attempt| {
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
                let token = AuthToken::new(answer.token.clone(), self.now(), chance);
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
        self.inner.state.borrow_mut().auth = None;
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

    /// Ids of named secrets.
    pub(crate) async fn secret_ids(&self, names: &[String]) -> Result<Vec<String>> {
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            let known = self.inner.state.borrow().secrets.get(name).cloned();
            if let Some(id) = known {
                ids.push(id);
                continue;
            }
            let request = SecretGetOrCreateRequest {
                deployment_name: name.clone(),
                environment_name: self.config()?.environment.clone(),
                object_creation_type: ObjectCreationType::Unspecified.into(),
                ..Default::default()
            };
            let answer = self
                .control(&format!("look up the secret `{name}`"), rpc::SECRET_GET_OR_CREATE, &request)
                .await
                .map_err(|error| error.about(name))?;
            self.inner.state.borrow_mut().secrets.insert(name.clone(), answer.secret_id.clone());
            ids.push(answer.secret_id);
        }
        Ok(ids)
    }
}

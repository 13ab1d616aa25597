//! A client that only speaks the protocol: tonic over TCP, without retries and checks. Its time is that of the server,
//! and its cost is the reference for other clients.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::stream;
use modal_proto::client as proto;
use modal_proto::client::modal_client_client::ModalClientClient;
use modal_proto::task_command_router as tcr;
use modal_proto::task_command_router::task_command_router_client::TaskCommandRouterClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Bytes per message of standard input, as the official clients send (docs/modal-protocol.md, section 8.1).
const CHUNK_SIZE: usize = 256 * 1024;

/// Interceptor that adds headers to every call.
#[derive(Debug, Clone)]
pub struct Headers(Vec<(&'static str, String)>);

impl tonic::service::Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            let value =
                value.parse().map_err(|_| Status::invalid_argument(format!("{name} is not a valid header value")))?;
            request.metadata_mut().insert(*name, value);
        }
        Ok(request)
    }
}

type Control = ModalClientClient<InterceptedService<Channel, Headers>>;
type Router = TaskCommandRouterClient<InterceptedService<Channel, Headers>>;

/// A connected client, with an app and an image for sandboxes.
#[derive(Debug)]
pub struct Native {
    channels: Vec<Channel>,
    calls: AtomicUsize,
    control: Control,
    app_id: String,
    image_id: String,
}

/// A sandbox and the access to its router.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// The id, `sb-…`.
    pub id: String,
    task_id: String,
    jwt: String,
}

/// The result of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Exit code.
    pub code: i32,
}

impl Native {
    /// Opens `connections` connections without TLS to the server at `url`, and builds the image. Fails if the server
    /// cannot be reached or the image is not built.
    pub async fn connect(url: &str, connections: usize) -> Result<Native> {
        let endpoint = Endpoint::from_shared(url.to_owned())?
            .tcp_nodelay(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let mut channels = Vec::new();
        for _ in 0..connections.max(1) {
            channels.push(endpoint.connect().await.with_context(|| format!("cannot reach {url}"))?);
        }
        let mut headers =
            vec![("x-modal-token-id", "ak-bench".to_owned()), ("x-modal-token-secret", "as-bench".to_owned())];
        let mut control = ModalClientClient::with_interceptor(channels[0].clone(), Headers(headers.clone()));
        let token = control.auth_token_get(proto::AuthTokenGetRequest {}).await?.into_inner().token;
        headers.push(("x-modal-auth-token", token));
        let control = ModalClientClient::with_interceptor(channels[0].clone(), Headers(headers));
        let mut client =
            Native { channels, calls: AtomicUsize::new(0), control, app_id: String::new(), image_id: String::new() };
        client.prepare().await?;
        Ok(client)
    }

    async fn prepare(&mut self) -> Result<()> {
        let app = proto::AppGetOrCreateRequest {
            app_name: "bench".into(),
            object_creation_type: proto::ObjectCreationType::CreateIfMissing as i32,
            ..Default::default()
        };
        self.app_id = self.control.app_get_or_create(app).await?.into_inner().app_id;
        let image = proto::ImageGetOrCreateRequest {
            app_id: self.app_id.clone(),
            image: Some(proto::Image { dockerfile_commands: vec!["FROM debian".into()], ..Default::default() }),
            ..Default::default()
        };
        let made = self.control.image_get_or_create(image).await?.into_inner();
        self.image_id = made.image_id;
        let mut result = made.result;
        while result.is_none() {
            let join = proto::ImageJoinStreamingRequest {
                image_id: self.image_id.clone(),
                timeout: 55.0,
                ..Default::default()
            };
            let mut messages = self.control.image_join_streaming(join).await?.into_inner();
            while let Some(message) = messages.message().await? {
                result = result.or(message.result);
            }
        }
        match result {
            Some(result) if result.status() == proto::generic_result::GenericStatus::Success => Ok(()),
            result => bail!("the image build failed: {result:?}"),
        }
    }

    /// Returns a client on the next connection in turn. A connection carries at most 100 streams.
    fn router(&self, sandbox: &Sandbox) -> Router {
        let at = self.calls.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let headers = Headers(vec![("authorization", format!("Bearer {}", sandbox.jwt))]);
        TaskCommandRouterClient::with_interceptor(self.channels[at].clone(), headers)
            .max_decoding_message_size(modal_proto::MAX_MESSAGE_BYTES)
    }

    /// Creates a sandbox with a lifetime of five minutes.
    pub async fn create(&self) -> Result<Sandbox> {
        let definition = proto::Sandbox {
            image_id: self.image_id.clone(),
            timeout_secs: 300,
            network_access: Some(proto::NetworkAccess {
                network_access_type: proto::network_access::NetworkAccessType::Open as i32,
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = proto::SandboxCreateV2Request {
            app_id: self.app_id.clone(),
            definition: Some(definition),
            ..Default::default()
        };
        let made = self.control.clone().sandbox_create_v2(request).await?.into_inner();
        let access = made.command_router_access.context("no router access in the answer")?;
        Ok(Sandbox { id: made.sandbox_id, task_id: made.task_id, jwt: access.jwt })
    }

    /// Terminates a sandbox and waits for its result.
    pub async fn terminate(&self, sandbox: &Sandbox) -> Result<()> {
        let mut control = self.control.clone();
        control.sandbox_terminate_v2(proto::SandboxTerminateRequest { sandbox_id: sandbox.id.clone() }).await?;
        let wait = proto::SandboxWaitRequest { sandbox_id: sandbox.id.clone(), timeout: 30.0 };
        let result = control.sandbox_wait_v2(wait).await?.into_inner().result;
        result.map(drop).context("a terminated sandbox did not end")
    }

    /// Starts a command and returns its exec id.
    pub async fn start(&self, sandbox: &Sandbox, argv: &[&str]) -> Result<String> {
        let exec_id = format!("exec-{}", self.calls.fetch_add(1, Ordering::Relaxed));
        let request = tcr::TaskExecStartRequest {
            task_id: sandbox.task_id.clone(),
            exec_id: exec_id.clone(),
            command_args: argv.iter().map(|word| (*word).to_owned()).collect(),
            stdout_config: tcr::TaskExecStdoutConfig::Pipe as i32,
            stderr_config: tcr::TaskExecStderrConfig::Pipe as i32,
            ..Default::default()
        };
        self.router(sandbox).task_exec_start(request).await?;
        Ok(exec_id)
    }

    /// Waits for a command and returns its exit code, or 128 plus the signal number if a signal killed it.
    pub async fn wait(&self, sandbox: &Sandbox, exec_id: &str) -> Result<i32> {
        use tcr::task_exec_wait_response::ExitStatus;
        let request = tcr::TaskExecWaitRequest { task_id: sandbox.task_id.clone(), exec_id: exec_id.to_owned() };
        match self.router(sandbox).task_exec_wait(request).await?.into_inner().exit_status {
            Some(ExitStatus::Code(code)) => Ok(code),
            Some(ExitStatus::Signal(signal)) => Ok(128 + signal),
            None => bail!("the answer to the wait has no result"),
        }
    }

    /// Reads the standard output of a command to its end and calls `each` with each piece.
    pub async fn read(&self, sandbox: &Sandbox, exec_id: &str, mut each: impl FnMut(Bytes)) -> Result<()> {
        let request = tcr::TaskExecStdioReadRequest {
            task_id: sandbox.task_id.clone(),
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        let mut pieces = self.router(sandbox).task_exec_stdio_read(request).await?.into_inner();
        while let Some(piece) = pieces.message().await? {
            each(piece.data);
        }
        Ok(())
    }

    /// Runs a command to its end. Requests its streams and its exit code at the same time.
    pub async fn run(&self, sandbox: &Sandbox, argv: &[&str]) -> Result<Ended> {
        let exec_id = self.start(sandbox, argv).await?;
        let mut stdout = Vec::new();
        let errors = async {
            let request = tcr::TaskExecStdioReadRequest {
                task_id: sandbox.task_id.clone(),
                exec_id: exec_id.clone(),
                file_descriptor: tcr::TaskExecStdioFileDescriptor::Stderr as i32,
                ..Default::default()
            };
            let mut pieces = self.router(sandbox).task_exec_stdio_read(request).await?.into_inner();
            while pieces.message().await?.is_some() {}
            Ok(())
        };
        let output = self.read(sandbox, &exec_id, |piece| stdout.extend_from_slice(&piece));
        let ((), (), code) = futures_util::try_join!(output, errors, self.wait(sandbox, &exec_id))?;
        Ok(Ended { stdout, code })
    }

    /// Runs a command with `size` zero bytes on its standard input, sent as one stream, and returns its exit code.
    pub async fn feed(&self, sandbox: &Sandbox, argv: &[&str], size: u64) -> Result<i32> {
        use tcr::task_exec_stdin_write_stream_request::Payload;
        let exec_id = self.start(sandbox, argv).await?;
        let zeros = Bytes::from(vec![0; CHUNK_SIZE]);
        let first = Payload::Start(tcr::TaskExecStdinWriteStreamStart {
            task_id: sandbox.task_id.clone(),
            exec_id: exec_id.clone(),
            offset: 0,
        });
        let pieces = (0..size.div_ceil(CHUNK_SIZE as u64)).map(move |number| {
            let left = size - number * CHUNK_SIZE as u64;
            Payload::Data(zeros.slice(..CHUNK_SIZE.min(usize::try_from(left).unwrap_or(CHUNK_SIZE))))
        });
        let end = Payload::End(tcr::TaskExecStdinWriteStreamEnd {});
        let messages = std::iter::once(first).chain(pieces).chain(std::iter::once(end));
        let messages = messages.map(|payload| tcr::TaskExecStdinWriteStreamRequest { payload: Some(payload) });
        self.router(sandbox).task_exec_stdin_write_stream(stream::iter(messages)).await?;
        self.wait(sandbox, &exec_id).await
    }
}

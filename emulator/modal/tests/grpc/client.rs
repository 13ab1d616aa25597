//! Helpers: an emulator in this process, and clients that send credentials with every call.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use modal_emulator::{Emulator, Options};
use modal_proto::client::modal_client_client::ModalClientClient;
use modal_proto::client::{self as proto, network_access::NetworkAccessType};
use modal_proto::task_command_router as tcr;
use modal_proto::task_command_router::task_command_router_client::TaskCommandRouterClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// An interceptor that adds headers to every call.
#[derive(Debug, Clone, Default)]
pub struct Headers(pub Vec<(&'static str, String)>);

impl tonic::service::Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        Ok(request)
    }
}

pub type Control = ModalClientClient<InterceptedService<Channel, Headers>>;
pub type Router = TaskCommandRouterClient<InterceptedService<Channel, Headers>>;

/// Longest time that any step of these tests may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// An emulator and a client with credentials.
pub struct World {
    pub emulator: Emulator,
    pub control: Control,
    pub channel: Channel,
    pub app_id: String,
    pub image_id: String,
    _state: tempfile::TempDir,
}

/// A running sandbox and a client of its router.
pub struct Running {
    pub id: String,
    pub task_id: String,
    pub router: Router,
}

impl World {
    pub async fn start() -> World {
        World::with(Options::default()).await
    }

    /// Opens an HTTP/2 connection to the emulator, for requests that a gRPC client would not send.
    pub async fn connection(&self) -> SendRequest<Full<Bytes>> {
        let stream = tokio::net::TcpStream::connect(self.emulator.state().address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn with(options: Options) -> World {
        let state = tempfile::tempdir().unwrap();
        let options = Options {
            program: Some(PathBuf::from(env!("CARGO_BIN_EXE_modal-emulator"))),
            state_dir: options.state_dir.or_else(|| Some(state.path().to_owned())),
            ..options
        };
        let emulator = Emulator::start(options).await.unwrap();
        let channel = Channel::from_shared(emulator.url()).unwrap().connect().await.unwrap();
        let mut headers = credentials();
        let mut control = control(&channel, headers.clone());
        let token = control.auth_token_get(proto::AuthTokenGetRequest {}).await.unwrap().into_inner().token;
        headers.push(("x-modal-auth-token", token));
        let mut control = self::control(&channel, headers);
        let app = proto::AppGetOrCreateRequest {
            app_name: "tests".into(),
            object_creation_type: proto::ObjectCreationType::CreateIfMissing as i32,
            ..Default::default()
        };
        let app_id = control.app_get_or_create(app).await.unwrap().into_inner().app_id;
        let mut world = World { emulator, control, channel, app_id, image_id: String::new(), _state: state };
        world.image_id = world.build(&["FROM debian"]).await.unwrap();
        world
    }

    /// Builds an image and returns its id. The error is the text of the failure.
    pub async fn build(&mut self, lines: &[&str]) -> Result<String, String> {
        self.build_with(lines, &[]).await
    }

    /// Builds an image with small files in the context.
    pub async fn build_with(&mut self, lines: &[&str], files: &[(&str, Vec<u8>)]) -> Result<String, String> {
        let file = |(name, data): &(&str, Vec<u8>)| proto::ImageContextFile {
            filename: (*name).to_owned(),
            data: data.clone().into(),
        };
        let request = proto::ImageGetOrCreateRequest {
            app_id: self.app_id.clone(),
            image: Some(proto::Image {
                dockerfile_commands: lines.iter().map(|line| (*line).to_owned()).collect(),
                context_files: files.iter().map(file).collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let made = self.control.image_get_or_create(request).await.map_err(|s| s.to_string())?.into_inner();
        let mut result = made.result;
        let join =
            proto::ImageJoinStreamingRequest { image_id: made.image_id.clone(), timeout: 30.0, ..Default::default() };
        if result.is_none() {
            let mut stream = self.control.image_join_streaming(join).await.unwrap().into_inner();
            while let Some(message) = stream.message().await.unwrap() {
                result = result.or(message.result);
            }
        }
        let result = result.expect("a build ends");
        if result.status() == proto::generic_result::GenericStatus::Success {
            Ok(made.image_id)
        } else {
            Err(result.exception)
        }
    }

    pub fn definition(&self) -> proto::Sandbox {
        proto::Sandbox {
            image_id: self.image_id.clone(),
            timeout_secs: 3600,
            network_access: Some(proto::NetworkAccess {
                network_access_type: NetworkAccessType::Open as i32,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub fn request(&self, definition: proto::Sandbox) -> proto::SandboxCreateV2Request {
        proto::SandboxCreateV2Request {
            app_id: self.app_id.clone(),
            definition: Some(definition),
            ..Default::default()
        }
    }

    pub async fn sandbox(&mut self) -> Running {
        let definition = self.definition();
        self.sandbox_with(definition).await
    }

    pub async fn sandbox_with(&mut self, definition: proto::Sandbox) -> Running {
        let made = self.control.sandbox_create_v2(self.request(definition)).await.unwrap().into_inner();
        let access = made.command_router_access.unwrap();
        Running { id: made.sandbox_id, task_id: made.task_id, router: self.router(&access.jwt) }
    }

    pub fn router(&self, token: &str) -> Router {
        let headers = Headers(vec![("authorization", format!("Bearer {token}"))]);
        TaskCommandRouterClient::with_interceptor(self.channel.clone(), headers)
    }

    pub async fn wait(&mut self, sandbox_id: &str) -> Option<proto::GenericResult> {
        let request = proto::SandboxWaitRequest { sandbox_id: sandbox_id.to_owned(), timeout: 20.0 };
        self.control.sandbox_wait_v2(request).await.unwrap().into_inner().result
    }
}

pub fn credentials() -> Vec<(&'static str, String)> {
    vec![("x-modal-token-id", "ak-test".to_owned()), ("x-modal-token-secret", "as-test".to_owned())]
}

pub fn control(channel: &Channel, headers: Vec<(&'static str, String)>) -> Control {
    ModalClientClient::with_interceptor(channel.clone(), Headers(headers))
}

/// Signs in to an emulator that runs as a separate program, and gets an app. Returns the client and the app's id.
pub async fn signed_in(channel: &Channel) -> (Control, String) {
    let mut headers = credentials();
    let token = control(channel, headers.clone()).auth_token_get(proto::AuthTokenGetRequest {}).await.unwrap();
    headers.push(("x-modal-auth-token", token.into_inner().token));
    let mut control = control(channel, headers);
    let app = proto::AppGetOrCreateRequest {
        app_name: "tests".into(),
        object_creation_type: proto::ObjectCreationType::CreateIfMissing as i32,
        ..Default::default()
    };
    let app_id = control.app_get_or_create(app).await.unwrap().into_inner().app_id;
    (control, app_id)
}

impl Running {
    /// Returns a request that starts a shell script.
    pub fn start_request(&self, exec_id: &str, script: &str) -> tcr::TaskExecStartRequest {
        tcr::TaskExecStartRequest {
            task_id: self.task_id.clone(),
            exec_id: exec_id.to_owned(),
            command_args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            stdout_config: tcr::TaskExecStdoutConfig::Pipe as i32,
            stderr_config: tcr::TaskExecStderrConfig::Pipe as i32,
            ..Default::default()
        }
    }

    pub async fn start(&mut self, exec_id: &str, script: &str) {
        self.router.task_exec_start(self.start_request(exec_id, script)).await.unwrap();
    }

    /// Reads output from an offset to the end. Returns it with the sizes of its pieces.
    pub async fn read(&mut self, exec_id: &str, fd: i32, offset: u64) -> Result<(Vec<u8>, Vec<usize>), Status> {
        let request = tcr::TaskExecStdioReadRequest {
            task_id: self.task_id.clone(),
            exec_id: exec_id.to_owned(),
            offset,
            file_descriptor: fd,
        };
        let mut stream = self.router.task_exec_stdio_read(request).await?.into_inner();
        let (mut all, mut sizes) = (Vec::new(), Vec::new());
        while let Some(piece) = stream.message().await? {
            sizes.push(piece.data.len());
            all.extend_from_slice(&piece.data);
        }
        Ok((all, sizes))
    }

    /// Waits for the exit of a command. Returns its exit code, or the negative signal number.
    pub async fn wait(&mut self, exec_id: &str) -> Result<i32, Status> {
        use tcr::task_exec_wait_response::ExitStatus;
        let request = tcr::TaskExecWaitRequest { task_id: self.task_id.clone(), exec_id: exec_id.to_owned() };
        match self.router.task_exec_wait(request).await?.into_inner().exit_status.expect("a wait ends with a status") {
            ExitStatus::Code(code) => Ok(code),
            ExitStatus::Signal(signal) => Ok(-signal),
        }
    }

    pub async fn write(&mut self, exec_id: &str, offset: u64, data: &[u8], eof: bool) -> Result<(), Status> {
        let request = tcr::TaskExecStdinWriteRequest {
            task_id: self.task_id.clone(),
            exec_id: exec_id.to_owned(),
            offset,
            data: bytes::Bytes::copy_from_slice(data),
            eof,
        };
        self.router.task_exec_stdin_write(request).await.map(drop)
    }

    pub async fn stdin_status(&mut self, exec_id: &str) -> (u64, bool) {
        let request = tcr::TaskExecStdinStatusRequest { task_id: self.task_id.clone(), exec_id: exec_id.to_owned() };
        let status = self.router.task_exec_stdin_status(request).await.unwrap().into_inner();
        (status.num_bytes_written, status.closed)
    }
}

/// Returns the code of an expected failure.
pub fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> tonic::Code {
    result.expect_err("this must fail").code()
}

/// Reports that a test cannot run on this machine. Panics if `CI` is set, where a skipped test would go unnoticed.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value.is_empty()), "not run with CI set: {why}");
    eprintln!("skipped: {why}");
}

//! Runs a provider component on raw wasmtime, without the library `sandbox-host`, and makes the checks of the other
//! stock hosts.
//!
//! ```text
//! stock-host COMPONENT IMAGE     # with the variables that `sandbox-host gateway` prints, or DOCKER_HOST
//! ```
//!
//! IMAGE is the reference of an image in a registry. The function [`send`] speaks HTTP/1.1 only and adds no credentials,
//! as the default of wasmtime-wasi-http does. So the provider for Modal needs the gateway. The provider for Docker needs
//! none.

use std::error::Error;

use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use wasmtime::{
    Engine, Store,
    component::{Component, Linker, ResourceTable},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

/// The types and functions of the interfaces that this host calls.
#[allow(missing_docs)]
mod interface {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package harness:stock;
            world plugin {
                export harness:sandbox/sandbox-provider@0.2.0;
                export harness:sandbox/exec@0.2.0;
                export harness:sandbox/images@0.2.0;
            }
        ",
        world: "harness:stock/plugin",
        exports: { default: async },
    });
}

use interface::{
    Plugin,
    harness::sandbox::types::{
        EndReason, EntryPoint, ErrorKind, ExecSpec, ImageSource, ImageSpec, Keep, NetworkPolicy, Outbound,
        OutputLimits, OutputMode, RegistryImage, Resources, SandboxSpec, Verdict,
    },
};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What wasmtime's WASI keeps for one instance.
struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Http,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// The HTTP client of the component. A program that turns on the feature `default-send-request` of wasmtime-wasi-http
/// returns `default_hooks()` instead and has no such type.
struct Http;

/// A future of the interface between wasmtime-wasi-http and its HTTP client.
type Sent<T> = Box<dyn Future<Output = Result<T, HttpError>> + Send>;

impl WasiHttpHooks for Http {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Sent<()>,
    ) -> Sent<(http::Response<WasiBody>, Sent<()>)> {
        Box::new(send(request))
    }
}

/// Sends a request over a connection of its own. Returns the response, and a future that moves its data.
async fn send(mut request: http::Request<WasiBody>) -> Result<(http::Response<WasiBody>, Sent<()>), HttpError> {
    let authority = request.uri().authority().ok_or(HttpError::HttpRequestUriInvalid)?;
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(address).await.map_err(HttpError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // A request to a server, other than one to a proxy, has only the path in its first line.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = http::Uri::from(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")));
    let running = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let moving = async move {
        match running.await {
            Ok(Err(error)) => Err(HttpError::Hyper(error)),
            _ => Ok(()),
        }
    };
    Ok((response.map(|body| body.map_err(HttpError::Hyper).boxed_unsync()), Box::new(moving)))
}

/// An instance of the component. A call has it to itself: make one instance per call that runs at the same time.
struct Provider {
    store: Store<State>,
    host: Plugin,
}

impl Provider {
    async fn open(engine: &Engine, component: &Component, environment: &[(String, String)]) -> Result<Provider> {
        let mut linker = Linker::<State>::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        let wasi = WasiCtx::builder().envs(environment).inherit_stderr().build();
        let state = State { wasi, http: WasiHttpCtx::new(), hooks: Http, table: ResourceTable::new() };
        let mut store = Store::new(engine, state);
        let host = Plugin::instantiate_async(&mut store, component, &linker).await?;
        Ok(Provider { store, host })
    }
}

fn image(source: ImageSource) -> ImageSpec {
    ImageSpec {
        source,
        commands: vec![],
        secrets: vec![],
        force: false,
        builder_version: None,
        gpu: None,
        platform: None,
        extra: vec![],
    }
}

fn sandbox(image: ImageSpec) -> SandboxSpec {
    let resources = Resources {
        cpu_request_millicores: None,
        cpu_limit_millicores: None,
        memory_request_mib: None,
        memory_limit_mib: None,
        disk_mib: None,
        gpu: None,
    };
    SandboxSpec {
        image,
        entry_point: EntryPoint::KeepAlive,
        user: None,
        env: vec![("GREETING".into(), "hello".into())],
        secrets: vec![],
        workdir: None,
        resources,
        lifetime: Some(600_000),
        idle_timeout: None,
        regions: vec![],
        network: NetworkPolicy { outbound: Outbound::Open, inbound_cidrs: vec![] },
        ports: vec![],
        volumes: vec![],
        buckets: vec![],
        name: None,
        tags: vec![("from".into(), "rust".into())],
        readiness: None,
        sidecars: vec![],
        pty: None,
        proxy: None,
        key: Some(fresh_id()),
        options: vec![],
        extra: vec![],
    }
}

fn command(argv: &[&str]) -> ExecSpec {
    ExecSpec {
        id: fresh_id(),
        argv: argv.iter().map(ToString::to_string).collect(),
        env: vec![],
        secrets: vec![],
        cwd: None,
        user: None,
        timeout: Some(30_000),
        pty: None,
        stdout: OutputMode::Keep,
        stderr: OutputMode::Keep,
        merge_stderr: false,
        container: None,
        extra: vec![],
    }
}

/// Returns a new id, such as every sandbox and command needs.
fn fresh_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Counts the checks that passed.
#[derive(Default)]
struct Checks(u32);

impl Checks {
    fn that(&mut self, what: &str, holds: bool) -> Result<()> {
        if !holds {
            return Err(format!("failed: {what}").into());
        }
        println!("ok  {what}");
        self.0 += 1;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [path, reference] = &arguments[..] else { return Err("usage: stock-host COMPONENT IMAGE".into()) };
    let names = ["MODAL_SERVER_URL", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "MODAL_GRPC_WIRE", "DOCKER_HOST"];
    let set = names.iter().filter_map(|name| Some(((*name).to_string(), std::env::var(name).ok()?)));
    let environment: Vec<_> = set.collect();
    let engine = Engine::default();
    let component = Component::from_file(&engine, path)?;
    let mut checks = Checks::default();

    if environment.iter().any(|(name, _)| name == "MODAL_TOKEN_ID") {
        let guess = |(name, value): &(String, String)| {
            (name.clone(), if name.contains("TOKEN") { "guess".into() } else { value.clone() })
        };
        let wrong: Vec<_> = environment.iter().map(guess).collect();
        let Provider { mut store, host } = Provider::open(&engine, &component, &wrong).await?;
        let refused = host.harness_sandbox_sandbox_provider().call_check(&mut store).await?;
        let refused = refused.is_err_and(|error| matches!(error.kind, ErrorKind::Unauthenticated));
        checks.that("a wrong gateway token is refused", refused)?;
    }

    let Provider { mut store, host } = Provider::open(&engine, &component, &environment).await?;
    let (sandboxes, exec) = (host.harness_sandbox_sandbox_provider(), host.harness_sandbox_exec());
    let description = sandboxes.call_describe(&mut store).await??;
    checks.that("describe", !description.name.is_empty())?;

    let images = host.harness_sandbox_images();
    let registry = ImageSource::Registry(RegistryImage { reference: reference.clone(), login: None });
    let mut progress = images.call_start_build(&mut store, &image(registry)).await??;
    let built = loop {
        match progress.image {
            Some(built) => break built.id,
            None => progress = images.call_read_build(&mut store, &progress.cursor, 65536, 10_000).await??,
        }
    };
    checks.that("an image", built.len() > 3)?;

    let id = sandboxes.call_create(&mut store, &sandbox(image(ImageSource::Id(built)))).await??.id;
    checks.that("a sandbox", id.len() > 3)?;

    let limits = OutputLimits { stdout_max: 4 << 20, stderr_max: 1 << 20, keep: Keep::Head };
    let script = command(&["sh", "-c", "printf '%s %s' \"$GREETING\" \"$(cat)\"; echo err >&2; exit 7"]);
    let result = exec.call_run(&mut store, &id, &script, b"from stdin", limits).await??;
    checks.that("the exit code", matches!(result.verdict, Verdict::Exited(7)))?;
    checks.that("standard output", result.stdout.data == b"hello from stdin")?;
    checks.that("standard error", result.stderr.data == b"err\n")?;

    let big = command(&["head", "-c", "1000000", "/dev/zero"]);
    let result = exec.call_run(&mut store, &id, &big, &[], limits).await??;
    checks.that("a million bytes", result.stdout.data == vec![0; 1_000_000])?;

    sandboxes.call_terminate(&mut store, &id).await??;
    let end = sandboxes.call_wait(&mut store, &id, 30_000).await??;
    checks.that("the end", matches!(end, Some(EndReason::Terminated)))?;
    println!("{} passed, 0 failed", checks.0);
    Ok(())
}

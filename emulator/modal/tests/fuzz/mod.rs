//! Random requests to every method of both services: each gets a status, nothing panics or hangs, and nothing is left at the
//! end.
//!
//! The number of cases is limited, and they are the same every time. For a long run: `PROPTEST_CASES=100000 PROPTEST_RNG_SEED=…
//! cargo test -p modal-emulator --test emulator fuzz`.

mod generate;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::grpc::client::{LIMIT, Running, World};
use generate::{Choices, Known};

/// Number of cases of an ordinary run: a few dozen per method, in well under a minute.
const CASES: u32 = 4000;

/// Largest number of live sandboxes. Valid requests create some by chance; when there are more, they are ended.
const MANY: usize = 16;

/// How long to wait for the response of a call that may block.
const LISTEN: Duration = Duration::from_millis(30);

static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The emulator under test, with objects that requests can refer to.
struct Fixture {
    world: World,
    sandbox: Running,
    connection: SendRequest<Full<Bytes>>,
    known: Known,
    /// Methods that succeeded at least once, which shows that requests get past the first checks.
    done: BTreeSet<String>,
}

impl Fixture {
    async fn new() -> Fixture {
        let mut world = World::start().await;
        let sandbox = world.sandbox().await;
        let connection = world.connection().await;
        let mut fixture = Fixture { world, sandbox, connection, known: Known::new(), done: BTreeSet::new() };
        fixture.furnish().await;
        fixture
    }

    /// Recreates all objects that requests can have removed.
    async fn furnish(&mut self) {
        self.end_sandboxes(|_| true).await;
        let control = &mut self.world.control;
        let app = proto::AppGetOrCreateRequest {
            app_name: "fuzzed".into(),
            object_creation_type: proto::ObjectCreationType::CreateIfMissing as i32,
            ..Default::default()
        };
        self.world.app_id = control.app_get_or_create(app).await.unwrap().into_inner().app_id;
        self.world.image_id = self.world.build(&["FROM debian"]).await.unwrap();
        let control = &mut self.world.control;
        let volume = proto::VolumeGetOrCreateRequest {
            object_creation_type: proto::ObjectCreationType::Ephemeral as i32,
            ..Default::default()
        };
        let volume = control.volume_get_or_create(volume).await.unwrap().into_inner().volume_id;
        let secret = proto::SecretGetOrCreateRequest {
            object_creation_type: proto::ObjectCreationType::Ephemeral as i32,
            env_dict: [("K".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        };
        let secret = control.secret_get_or_create(secret).await.unwrap().into_inner().secret_id;
        let named = proto::Sandbox { name: Some("named".into()), ..self.world.definition() };
        self.sandbox = self.world.sandbox_with(named).await;
        self.sandbox.start("known", "cat").await;
        self.sandbox.start("ended", "echo out; echo err >&2").await;
        self.sandbox.wait("ended").await.unwrap();
        let persistent = proto::PersistentSandboxCreateRequest {
            app_id: self.world.app_id.clone(),
            definition: Some(self.world.definition()),
        };
        let persistent = self.world.control.persistent_sandbox_create(persistent).await.unwrap().into_inner();
        let container = tcr::TaskContainerCreateRequest {
            task_id: self.sandbox.task_id.clone(),
            container_name: "side".into(),
            image_id: self.world.image_id.clone(),
            ..Default::default()
        };
        let container = self.sandbox.router.task_container_create(container).await.unwrap().into_inner();
        self.known = vec![
            ("app_id", self.world.app_id.clone()),
            ("app_name", "fuzzed".into()),
            ("image_id", self.world.image_id.clone()),
            ("sandbox_id", self.sandbox.id.clone()),
            ("task_id", self.sandbox.task_id.clone()),
            ("exec_id", "known".into()),
            ("exec_id", "fresh".into()),
            ("exec_id", "ended".into()),
            ("sandbox_name", "named".into()),
            ("persistent_sandbox_id", persistent.persistent_sandbox_id),
            ("container_id", container.container_id),
            ("container_name", "side".into()),
            ("tag", "published:v1".into()),
            // The SHA-256 of an empty content.
            ("sha256_hex", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".into()),
            ("volume_id", volume),
            ("secret_id", secret.clone()),
            ("secret_ids", secret),
            ("environment_name", String::new()),
            ("environment_name", "main".into()),
            ("mount_path", "/mnt/v".into()),
            ("workdir", "/tmp".into()),
            ("container_id", String::new()),
            ("dockerfile_commands", "FROM debian".into()),
            ("dockerfile_commands", "RUN true".into()),
            ("dockerfile_commands", "ENV A=\0 B=${A:-x}".into()),
            ("dockerfile_commands", "COPY [*] /x*/ /to/".into()),
            ("dockerfile_commands", "WORKDIR /é/../\0".into()),
            ("dockerfile_commands", "USER nobody:\n".into()),
            ("path", "/tmp".into()),
        ];
    }

    /// Returns the live sandboxes.
    fn live(&self) -> Vec<std::sync::Arc<modal_emulator::model::sandbox::Sandbox>> {
        let tables = self.world.emulator.state().tables.lock();
        tables.sandboxes.values().filter(|sandbox| sandbox.lives()).cloned().collect()
    }

    async fn end_sandboxes(&self, which: impl Fn(&str) -> bool) {
        for sandbox in self.live().iter().filter(|sandbox| which(&sandbox.id)) {
            sandbox.terminate();
            sandbox.wait(LIMIT).await;
        }
    }

    async fn keep_usable(&mut self) {
        let live = self.live();
        if live.len() > MANY {
            self.end_sandboxes(|id| id != self.sandbox.id).await;
        }
        let state = self.world.emulator.state();
        let usable = live.iter().any(|sandbox| sandbox.id == self.sandbox.id)
            && state.app(&self.world.app_id).is_ok()
            && state.image(&self.world.image_id).is_ok();
        if !usable {
            self.furnish().await;
        }
        if self.connection.is_closed() {
            self.connection = self.world.connection().await;
        }
    }

    async fn case(&mut self, method: &MethodDescriptor, bytes: &[u8]) -> Result<(), TestCaseError> {
        self.keep_usable().await;
        let mut choices = Choices::new(bytes);
        let path = format!("http://localhost/{}/{}", method.parent_service().full_name(), method.name());
        let signer = &self.world.emulator.state().signer;
        let mut request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-modal-token-id", "ak")
            .header("x-modal-token-secret", "as")
            .header("x-modal-auth-token", signer.sign("control-plane", LIMIT))
            .header("authorization", format!("Bearer {}", signer.sign(&self.sandbox.task_id, LIMIT)))
            .body(Full::new(generate::body(method, &self.known, &mut choices)))
            .unwrap();
        for (name, value) in generate::headers(&mut choices) {
            // Values that cannot be sent are skipped.
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        self.connection.ready().await.map_err(|error| TestCaseError::fail(format!("the connection: {error}")))?;
        let response = self.connection.send_request(request);
        let answered = async {
            let response = response.await.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let (head, body) = response.into_parts();
            let tail = body.collect().await.map_err(|error| TestCaseError::fail(error.to_string()))?;
            let status = head.headers.get("grpc-status").or_else(|| tail.trailers()?.get("grpc-status")).cloned();
            let told = status.is_some() || head.status.is_client_error();
            prop_assert!(told, "{}: no status in {head:?}", method.name());
            Ok(status.is_some_and(|status| status == "0"))
        };
        let limit = if may_wait(method.name()) { LISTEN } else { LIMIT };
        match tokio::time::timeout(limit, answered).await {
            Ok(answered) => {
                if answered? {
                    self.done.insert(method.full_name().to_owned());
                }
            }
            Err(_) if may_wait(method.name()) => {}
            Err(_) => prop_assert!(false, "{}: no answer after {LIMIT:?}", method.name()),
        }
        let panics = std::mem::take(&mut *PANICS.lock().unwrap());
        prop_assert!(panics.is_empty(), "{}: {panics:?}", method.name());
        Ok(())
    }
}

impl Fixture {
    /// Sends a request that is not gRPC: an upload, or a request to the administration endpoint.
    async fn plain(&mut self, method: &str, path: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://localhost{path}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)));
        // Requests that cannot be sent are skipped.
        let Ok(request) = request else { return Ok(()) };
        self.connection.ready().await.map_err(|error| TestCaseError::fail(format!("the connection: {error}")))?;
        let response = tokio::time::timeout(LIMIT, self.connection.send_request(request)).await;
        let response = response.map_err(|_| TestCaseError::fail("no answer"))?;
        let status = response.map_err(|error| TestCaseError::fail(error.to_string()))?.status();
        prop_assert!(!status.is_server_error(), "{method} {path}: {status}");
        self.world.emulator.chaos().clear();
        let panics = std::mem::take(&mut *PANICS.lock().unwrap());
        prop_assert!(panics.is_empty(), "{method} {path}: {panics:?}");
        Ok(())
    }
}

/// Returns whether a method may wait or stream without end.
fn may_wait(method: &str) -> bool {
    ["Wait", "Join", "StdioRead", "GetLogs", "Stdin", "GetTaskId", "Tunnels", "ExitSnapshot", "ContainerGet"]
        .iter()
        .any(|part| method.contains(part))
}

/// Returns all methods by their full names.
fn methods() -> BTreeMap<String, MethodDescriptor> {
    let pool = DescriptorPool::decode(modal_proto::DESCRIPTORS).unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let methods: BTreeMap<_, _> = methods.map(|method| (method.full_name().to_owned(), method)).collect();
    assert!(methods.len() > 90, "{}", methods.len());
    methods
}

fn config() -> Config {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(0);
    }
    config
}

/// Returns the processes whose parent is this process.
fn children() -> Vec<String> {
    let me = std::process::id().to_string();
    let is_mine = |pid: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.rsplit_once(") ")?.1;
        (after_name.split(' ').nth(1)? == me).then_some(stat)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| is_mine(entry.file_name().to_str()?)).collect()
}

#[test]
fn every_request_gets_a_status() {
    // In a process of its own, because the test counts panics and child processes.
    crate::own_process::in_own_process(&[], send_requests);
}

fn send_requests() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.lock().unwrap().push(panic.to_string());
        usual(panic);
    }));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let fixture = tokio::sync::Mutex::new(runtime.block_on(Fixture::new()));
    let methods = methods();
    let names: Vec<_> = methods.keys().cloned().collect();
    let case = (prop::sample::select(names), prop::collection::vec(any::<u8>(), 0..400));
    let outcome = TestRunner::new(config()).run(&case, |(method, bytes)| {
        runtime.block_on(async { fixture.lock().await.case(&methods[&method], &bytes).await })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let path = prop::sample::select(&["/blobs/", "/emulator/faults", "/emulator/state", "/emulator/", "/", ""][..]);
    let path = (path, r"(/|\.\.|%2e|%00|[a-z?#]|bl-){0,8}").prop_map(|(start, rest)| format!("{start}{rest}"));
    let method = prop::sample::select(&["GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"][..]);
    let body = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        r#"(\{|\}|\[|\]|,|:|"method"|"fault"|"close"|"cut"|"sandbox_id"|1e999|-1|null|"\*"){0,20}"#
            .prop_map(String::into_bytes),
    ];
    let outcome = TestRunner::new(config()).run(&(method, path, body), |(method, path, body)| {
        runtime.block_on(async { fixture.lock().await.plain(method, &path, body).await })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    runtime.block_on(async {
        let mut fixture = fixture.into_inner();
        fixture.world.control.client_hello(()).await.unwrap();
        // The other methods wait, or reject every request.
        let undone: Vec<_> = methods.keys().filter(|name| !fixture.done.contains(*name)).collect();
        assert!(undone.len() < methods.len() / 3, "never did what they were asked to: {undone:#?}");
        let state = fixture.world.emulator.state().dir.clone();
        fixture.world.emulator.shutdown().await;
        assert!(!state.exists(), "{} is still there", state.display());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(state.to_str().unwrap()), "{mounts}");
        assert_eq!(children(), Vec::<String>::new());
    });
    assert!(PANICS.lock().unwrap().is_empty(), "{:?}", PANICS.lock().unwrap());
}

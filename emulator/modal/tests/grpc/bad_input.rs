//! Invalid requests: they fail with the status of the service, and never cause a panic.

use http_body_util::{BodyExt as _, Full};
use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use rand::{Rng as _, SeedableRng as _};
use tonic::Code;

use super::client::{World, code};

#[tokio::test]
async fn definitions_that_cannot_be() {
    let mut world = World::start().await;
    let good = world.definition();
    type Change = fn(&mut proto::Sandbox);
    let changes: [(&str, Code, Change); 16] = [
        ("no image", Code::InvalidArgument, |d| d.image_id.clear()),
        ("unknown image", Code::NotFound, |d| d.image_id = "im-x".into()),
        ("relative workdir", Code::InvalidArgument, |d| d.workdir = Some("x".into())),
        ("a week", Code::InvalidArgument, |d| d.timeout_secs = 7 * 86_400),
        ("no idle time", Code::InvalidArgument, |d| d.idle_timeout_secs = Some(0)),
        ("bad name", Code::InvalidArgument, |d| d.name = Some("a b".into())),
        ("unknown cloud", Code::InvalidArgument, |d| d.cloud_provider_str = "cumulus".into()),
        ("unknown runtime", Code::InvalidArgument, |d| d.runtime = Some("abacus".into())),
        ("zero byte", Code::InvalidArgument, |d| d.entrypoint_args = vec!["a\0b".into()]),
        ("too long", Code::InvalidArgument, |d| d.entrypoint_args = vec!["x".repeat(70_000)]),
        ("unknown mount", Code::NotFound, |d| d.mount_ids = vec!["mo-x".into()]),
        ("unknown secret", Code::NotFound, |d| d.secret_ids = vec!["st-x".into()]),
        ("bad CIDR", Code::InvalidArgument, |d| d.inbound_cidr_allowlist = vec!["1.2.3.4/33".into()]),
        ("unknown policy", Code::InvalidArgument, |d| {
            d.network_access = Some(proto::NetworkAccess { network_access_type: 77, ..Default::default() });
        }),
        ("empty probe", Code::InvalidArgument, |d| d.readiness_probe = Some(proto::Probe::default())),
        ("limit below request", Code::InvalidArgument, |d| {
            d.resources = Some(proto::Resources { memory_mb: 100, memory_mb_max: 50, ..Default::default() });
        }),
    ];
    for (what, expected, change) in changes {
        let mut definition = good.clone();
        change(&mut definition);
        let request = world.request(definition);
        assert_eq!(code(world.control.sandbox_create_v2(request).await), expected, "{what}");
    }
    let empty = proto::SandboxCreateV2Request::default();
    assert_eq!(code(world.control.sandbox_create_v2(empty).await), Code::InvalidArgument);
    let stranger =
        proto::SandboxCreateV2Request { app_id: "ap-x".into(), definition: Some(good), ..Default::default() };
    assert_eq!(code(world.control.sandbox_create_v2(stranger).await), Code::NotFound);
}

#[tokio::test]
async fn commands_that_cannot_be() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    type Change = fn(&mut tcr::TaskExecStartRequest);
    let changes: [(&str, Change); 9] = [
        ("no id", |r| r.exec_id.clear()),
        ("no command", |r| r.command_args.clear()),
        ("no program", |r| r.command_args[0].clear()),
        ("too long", |r| r.command_args.push("x".repeat(70_000))),
        ("zero byte", |r| r.command_args.push("\0".into())),
        ("relative workdir", |r| r.workdir = Some("tmp".into())),
        ("unknown stream configuration", |r| r.stdout_config = 9),
        ("no time", |r| r.timeout_secs = Some(0)),
        ("two kinds of variables", |r| {
            r.env.insert("A".into(), "1".into());
            r.secret_sources.push(proto::SecretSource::default());
        }),
    ];
    for (what, change) in changes {
        let mut request = sandbox.start_request("x", "true");
        change(&mut request);
        assert_eq!(code(sandbox.router.task_exec_start(request).await), Code::InvalidArgument, "{what}");
    }
    assert_eq!(code(sandbox.wait("never-started").await), Code::NotFound);
    let snapshot = tcr::TaskSnapshotFilesystemRequest { task_id: sandbox.task_id.clone(), ..Default::default() };
    assert_eq!(code(sandbox.router.task_snapshot_filesystem(snapshot).await), Code::InvalidArgument);
}

/// Unary methods that may wait long. Streaming methods may wait as well.
const WAITING: &[&str] = &["SandboxWait", "SandboxWaitV2", "TaskExecWait"];

/// Sends arbitrary bytes instead of messages to every method. Each gets a status, and the emulator keeps running.
#[tokio::test]
async fn arbitrary_bytes_never_panic() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("x", "true").await;
    let descriptors =
        <modal_proto::prost_types::FileDescriptorSet as modal_proto::prost::Message>::decode(modal_proto::DESCRIPTORS)
            .unwrap();
    let mut methods = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((path, method.server_streaming() || WAITING.contains(&method.name())));
            }
        }
    }
    assert!(methods.len() > 90, "{}", methods.len());
    let signer = &world.emulator.state().signer;
    let control = signer.sign("control-plane", super::client::LIMIT);
    let router = signer.sign(&sandbox.task_id, super::client::LIMIT);
    let mut client = world.connection().await;
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for round in 0..6 {
        for (method, waits) in &methods {
            let mut body: Vec<u8> = (0..random.random_range(0..64)).map(|_| random.random()).collect();
            if round % 3 == 0 {
                // The first field of nearly every message is an id: some messages get a valid id, followed by random bytes.
                let id = if method.contains("router") { &sandbox.task_id } else { &sandbox.id };
                let mut field = vec![0x0a, id.len() as u8];
                field.extend_from_slice(id.as_bytes());
                field.append(&mut body);
                body = field;
            }
            let mut frame = vec![0];
            frame.extend_from_slice(&(body.len() as u32).to_be_bytes());
            frame.append(&mut body);
            if round % 4 == 3 {
                frame.truncate(random.random_range(0..=frame.len()));
            }
            let request = http::Request::post(format!("http://localhost{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-timeout", "300m")
                .header("x-modal-token-id", "ak")
                .header("x-modal-token-secret", "as")
                .header("x-modal-auth-token", &control)
                .header("authorization", format!("Bearer {router}"))
                .body(Full::new(bytes::Bytes::from(frame)))
                .unwrap();
            client.ready().await.unwrap();
            let response = client.send_request(request).await.unwrap();
            let head = response.headers().get("grpc-status").cloned();
            let limit = std::time::Duration::from_millis(if *waits { 100 } else { 30_000 });
            let body = tokio::time::timeout(limit, response.into_body().collect()).await;
            let tail = match body {
                Ok(body) => body.unwrap().trailers().and_then(|t| t.get("grpc-status")).cloned(),
                Err(_) => {
                    assert!(waits, "{method} gave no answer within {limit:?}");
                    continue;
                }
            };
            assert!(head.or(tail).is_some(), "{method} gave no status");
        }
    }
    // One of the requests may have ended the sandbox; the emulator must still respond.
    let hello = world.control.client_hello(()).await;
    assert!(hello.is_ok(), "{hello:?}");
}

//! Ordered faults as clients see them.

use modal_emulator::Options;
use modal_emulator::model::faults::{Fault, Rule};
use modal_proto::client as proto;
use modal_proto::prost::Message as _;
use modal_proto::task_command_router as tcr;
use tonic::{Code, Request};

use super::client::{LIMIT, World, code};

fn rule(method: &str, times: u32, fault: Fault) -> Rule {
    Rule { method: method.to_owned(), times: Some(times), skip: 0, probability: 1.0, fault }
}

#[tokio::test]
async fn a_status_with_a_time_to_try_again() {
    let mut world = World::start().await;
    let fault =
        Fault::Status { code: Code::Unavailable as i32, message: "try later".into(), retry_after_secs: Some(1.5) };
    world.emulator.chaos().add(rule("AppList", 1, fault));
    let refused = world.control.app_list(proto::AppListRequest::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "try later"));
    let details = proto::RpcStatus::decode(refused.details()).unwrap();
    assert!(details.details[0].type_url.ends_with("/modal.client.RPCRetryPolicy"));
    let policy = proto::RpcRetryPolicy::decode(&*details.details[0].value).unwrap();
    assert_eq!(policy.retry_after_secs, 1.5);
    assert!(world.control.app_list(proto::AppListRequest::default()).await.is_ok());
}

#[tokio::test]
async fn a_lost_answer_and_the_same_key_make_one_sandbox() {
    let mut world = World::start().await;
    world.emulator.chaos().add(rule("SandboxCreateV2", 1, Fault::LoseAnswer { code: Code::Unavailable as i32 }));
    let definition = world.definition();
    let request = |world: &World| {
        let mut request = Request::new(world.request(definition.clone()));
        request.metadata_mut().insert("x-idempotency-key", "once".parse().unwrap());
        request
    };
    let first = request(&world);
    assert_eq!(code(world.control.sandbox_create_v2(first).await), Code::Unavailable);
    let second = request(&world);
    let made = world.control.sandbox_create_v2(second).await.unwrap().into_inner();
    let list = proto::SandboxListRequest { app_id: world.app_id.clone(), include_finished: true, ..Default::default() };
    let all = world.control.sandbox_list_v2(list).await.unwrap().into_inner().sandboxes;
    assert_eq!(all.iter().map(|info| info.id.as_str()).collect::<Vec<_>>(), [made.sandbox_id.as_str()]);
}

#[tokio::test]
async fn cut_streams_lose_nothing_when_they_are_resumed() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("seq", "seq 1 100000").await;
    sandbox.wait("seq").await.unwrap();
    world.emulator.chaos().add(rule("TaskExecStdioRead", 5, Fault::Cut { after_bytes: 70_000 }));
    let (mut all, mut cuts) = (Vec::new(), 0);
    loop {
        let request = tcr::TaskExecStdioReadRequest {
            task_id: sandbox.task_id.clone(),
            exec_id: "seq".into(),
            offset: all.len() as u64,
            ..Default::default()
        };
        // The cut may arrive before data that was sent earlier, even before the response headers.
        let Ok(stream) = sandbox.router.task_exec_stdio_read(request).await else {
            cuts += 1;
            continue;
        };
        let mut stream = stream.into_inner();
        let ended = loop {
            match stream.message().await {
                Ok(Some(piece)) => all.extend_from_slice(&piece.data),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if ended {
            break;
        }
        cuts += 1;
    }
    assert_eq!(cuts, 5);
    assert_eq!(all, (1..=100_000).map(|n| format!("{n}\n")).collect::<String>().into_bytes());
}

#[tokio::test]
async fn connections_close_and_are_given_up() {
    let world = World::start().await;
    for fault in [Fault::Close, Fault::Goaway] {
        // A separate channel, which reconnects automatically.
        let channel = tonic::transport::Channel::from_shared(world.emulator.url()).unwrap().connect().await.unwrap();
        let mut client = super::client::control(&channel, super::client::credentials());
        world.emulator.chaos().add(rule("ClientHello", 1, fault.clone()));
        let first = tokio::time::timeout(LIMIT, client.client_hello(())).await.unwrap();
        assert_eq!(first.is_err(), fault == Fault::Close);
        let again = async {
            while client.client_hello(()).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, again).await.unwrap();
    }
}

#[tokio::test]
async fn a_rate_is_kept_and_delays_are_felt() {
    let mut world = World::start().await;
    world.emulator.chaos().add(rule("AppList", 1, Fault::Delay { millis: 200, jitter_millis: 50 }));
    let began = std::time::Instant::now();
    world.control.app_list(proto::AppListRequest::default()).await.unwrap();
    assert!(began.elapsed().as_millis() >= 200);
    world.emulator.chaos().add(Rule { times: None, ..rule("EnvironmentList", 0, Fault::Rate { per_second: 2.0 }) });
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(world.control.environment_list(()).await.map_or_else(|status| status.code(), |_| Code::Ok));
    }
    assert_eq!(codes[..2], [Code::Ok, Code::Ok]);
    assert!(codes[2..].contains(&Code::ResourceExhausted), "{codes:?}");
}

#[tokio::test]
async fn a_lost_worker_takes_its_sandboxes_along() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("x", "true").await;
    world.emulator.state().sandbox(&sandbox.id).unwrap().lose();
    assert_eq!(code(sandbox.wait("x").await), Code::NotFound);
    let result = world.wait(&sandbox.id).await.unwrap();
    assert_eq!(result.status(), proto::generic_result::GenericStatus::InternalFailure);
}

#[tokio::test]
async fn a_connection_may_have_only_so_many_streams() {
    let world = World::with(Options { max_streams: 7, ..Options::default() }).await;
    let address = world.emulator.url().replace("http://", "");
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut sender = sender.ready().await.unwrap();
    let request = http::Request::builder().uri(format!("http://{address}/")).body(()).unwrap();
    // The response arrives after the server's SETTINGS frame.
    sender.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(sender.current_max_send_streams(), 7);
}

#[tokio::test]
async fn a_rate_of_creation_is_kept() {
    let mut world = World::start().await;
    let definition = world.definition();
    world.emulator.chaos().add(Rule { times: None, ..rule("SandboxCreateV2", 0, Fault::Rate { per_second: 0.001 }) });
    assert!(world.control.sandbox_create_v2(world.request(definition.clone())).await.is_ok());
    let refused = world.control.sandbox_create_v2(world.request(definition)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = proto::RpcStatus::decode(refused.details()).unwrap();
    let policy = proto::RpcRetryPolicy::decode(&*details.details[0].value).unwrap();
    assert!(policy.retry_after_secs > 0.0, "{policy:?}");
}

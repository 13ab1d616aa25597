//! Credentials and tokens.

use std::time::Duration;

use modal_emulator::Options;
use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use tonic::Code;

use super::client::{LIMIT, World, code, control, credentials};

#[tokio::test]
async fn without_credentials_nothing_is_done() {
    let world = World::start().await;
    for headers in [vec![], vec![("x-modal-token-id", "ak".to_owned())]] {
        let mut client = control(&world.channel, headers);
        let refused = client.auth_token_get(proto::AuthTokenGetRequest {}).await;
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(status.message().contains("MODAL_TOKEN_ID"), "{status}");
    }
}

#[tokio::test]
async fn only_the_given_credentials_if_some_are_given() {
    let token = Some(("ak-test".to_owned(), "as-test".to_owned()));
    let world = World::with(Options { token, ..Options::default() }).await;
    let other = vec![("x-modal-token-id", "ak".to_owned()), ("x-modal-token-secret", "as".to_owned())];
    let mut client = control(&world.channel, other);
    assert_eq!(code(client.auth_token_get(proto::AuthTokenGetRequest {}).await), Code::Unauthenticated);
}

#[tokio::test]
async fn the_second_backend_needs_the_short_lived_token() {
    let world = World::start().await;
    let list = proto::SandboxListRequest::default();
    let mut bare = control(&world.channel, credentials());
    assert_eq!(code(bare.sandbox_list_v2(list.clone()).await), Code::Unauthenticated);
    assert!(bare.sandbox_list(list.clone()).await.is_ok());
    let mut headers = credentials();
    headers.push(("x-modal-auth-token", "a.b.c".to_owned()));
    let mut forged = control(&world.channel, headers);
    assert_eq!(code(forged.sandbox_list(list).await), Code::Unauthenticated);
}

#[tokio::test]
async fn router_tokens_are_for_one_task() {
    let mut world = World::start().await;
    let (one, other) = (world.sandbox().await, world.sandbox().await);
    let wait = tcr::TaskExecWaitRequest { task_id: one.task_id.clone(), exec_id: "x".into() };
    let mut wrong = other.router.clone();
    assert_eq!(code(wrong.task_exec_wait(wait.clone()).await), Code::Unauthenticated);
    for token in ["", "x", "a.b.c", world.emulator.state().signer.sign("control-plane", LIMIT).as_str()] {
        assert_eq!(code(world.router(token).task_exec_wait(wait.clone()).await), Code::Unauthenticated, "{token}");
    }
    let mut right = one.router.clone();
    assert_eq!(code(right.task_exec_wait(wait).await), Code::NotFound);
}

#[tokio::test]
async fn router_tokens_expire_when_they_say_so() {
    let mut world = World::with(Options { router_token_life: Duration::from_secs(1), ..Options::default() }).await;
    let mut sandbox = world.sandbox().await;
    let poll = tcr::TaskExecPollRequest { task_id: sandbox.task_id.clone(), exec_id: "x".into() };
    let refused = async {
        loop {
            match code(sandbox.router.task_exec_poll(poll.clone()).await) {
                Code::NotFound => tokio::task::yield_now().await,
                code => return code,
            }
        }
    };
    assert_eq!(tokio::time::timeout(LIMIT, refused).await.unwrap(), Code::Unauthenticated);
    // A fresh one is good again.
    let target = proto::sandbox_get_command_router_access_request::Target::SandboxId(sandbox.id.clone());
    let request = proto::SandboxGetCommandRouterAccessRequest { target: Some(target) };
    let access = world.control.sandbox_get_command_router_access(request).await.unwrap().into_inner();
    assert_eq!(code(world.router(&access.jwt).task_exec_poll(poll).await), Code::NotFound);
}

#[tokio::test]
async fn router_urls_suit_the_client() {
    let mut world = World::start().await;
    let sandbox = world.sandbox().await;
    let target = proto::sandbox_get_command_router_access_request::Target::TaskId(sandbox.task_id);
    for (library, scheme) in [("modal-js/0.11.1", "https://"), ("modal-go/0.9.0", "https://"), ("", "http://")] {
        let mut request =
            tonic::Request::new(proto::SandboxGetCommandRouterAccessRequest { target: Some(target.clone()) });
        if !library.is_empty() {
            request.metadata_mut().insert("x-modal-libmodal-version", library.parse().unwrap());
        }
        let access = world.control.sandbox_get_command_router_access(request).await.unwrap().into_inner();
        assert!(access.url.starts_with(scheme), "{library}: {}", access.url);
    }
}

/// A client elsewhere finds the emulator where it has found it already, whatever the emulator takes for its address.
#[tokio::test]
async fn addresses_are_those_that_a_client_asked_for() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let mut world = World::with(Options { allow_remote: true, listen, ..Options::default() }).await;
    let sandbox = world.sandbox().await;
    let channel = tonic::transport::Endpoint::try_from(world.emulator.url()).unwrap();
    for name in ["http://build.example:7000", "http://localhost:7000", "http://[fd00::1]"] {
        let channel = channel.clone().origin(name.parse().unwrap()).connect().await.unwrap();
        let mut control = super::client::control(&channel, super::client::credentials());
        let token = control.auth_token_get(proto::AuthTokenGetRequest {}).await.unwrap().into_inner().token;
        let mut headers = super::client::credentials();
        headers.push(("x-modal-auth-token", token));
        let mut control = super::client::control(&channel, headers);
        let target = Some(proto::sandbox_get_command_router_access_request::Target::TaskId(sandbox.task_id.clone()));
        let request = proto::SandboxGetCommandRouterAccessRequest { target };
        assert_eq!(control.sandbox_get_command_router_access(request).await.unwrap().into_inner().url, name);
        let blob = proto::BlobCreateRequest { content_length: 1, ..Default::default() };
        let blob = control.blob_create(blob).await.unwrap().into_inner();
        let Some(proto::blob_create_response::UploadTypeOneof::UploadUrl(url)) = blob.upload_type_oneof else {
            panic!("{blob:?}")
        };
        assert!(url.starts_with(&format!("{name}/blobs/")), "{url}");
    }
}

/// A name of anybody's may lead to this machine, and any page may ask what has one.
#[tokio::test]
async fn pages_of_the_web_are_not_answered() {
    use super::network::exchange;
    let world = World::start().await;
    let url = world.emulator.url();
    let address = url.strip_prefix("http://").unwrap();
    let port = address.rsplit(':').next().unwrap();
    let status = async |host: &str, more: &str| {
        let request = format!("GET /emulator/state HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        exchange(address, &request).await.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for host in [address, "localhost", "LOCALHOST:1", "[::1]:80", "127.9.9.9"] {
        assert_eq!(status(host, "").await, "200", "{host}");
    }
    for host in ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example", "10.0.0.1", "[fe80::1]", ""]
    {
        assert_eq!(status(host, "").await, "403", "{host}");
    }
    assert_eq!(status(address, &format!("Origin: http://localhost:{port}\r\n")).await, "200");
    for origin in ["http://evil.example", "https://evil.example:1", "null", ""] {
        assert_eq!(status(address, &format!("Origin: {origin}\r\n")).await, "403", "{origin}");
    }
    // The same over HTTP/2.
    let channel = tonic::transport::Endpoint::try_from(url.clone()).unwrap();
    let mut client = proto::modal_client_client::ModalClientClient::new(
        channel.origin("http://evil.example".parse().unwrap()).connect().await.unwrap(),
    );
    let mut request = tonic::Request::new(proto::AuthTokenGetRequest::default());
    request.metadata_mut().insert("x-modal-token-id", "ak-1".parse().unwrap());
    let refused = client.auth_token_get(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}

/// Who lets other machines in may give this one any name, but still answers no pages.
#[tokio::test]
async fn a_remote_emulator_has_any_name_and_answers_no_pages() {
    use super::network::exchange;
    let world = World::with(Options { allow_remote: true, ..Options::default() }).await;
    let url = world.emulator.url();
    for (more, status) in [("", "200 "), ("Origin: http://build.example\r\n", "403 ")] {
        let request = format!("GET /emulator/state HTTP/1.1\r\nHost: build.example\r\n{more}Connection: close\r\n\r\n");
        let answer = exchange(url.strip_prefix("http://").unwrap(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{more}: {answer}");
        assert!(!answer.contains("--allow-remote"), "it would not help: {answer}");
    }
}

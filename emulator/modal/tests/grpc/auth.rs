//! Credentials and tokens.

use std::time::{Duration, Instant};

use modal_emulator::Options;
use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use tonic::Code;

use super::client::{LIMIT, World, code, control, credentials, skipped};
use crate::http_client::{send, text};

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
    // A new token is accepted.
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

/// A remote client gets URLs with the address at which it reached the emulator, whatever address the emulator has itself.
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

/// Every name on the internet can resolve to this machine, and web pages can send requests to their own names.
#[tokio::test]
async fn pages_of_the_web_are_not_answered() {
    let world = World::start().await;
    let url = world.emulator.url();
    let address = url.strip_prefix("http://").unwrap();
    let port = address.rsplit(':').next().unwrap();
    let state = format!("{url}/emulator/state");
    let status = async |headers: &[(&str, &str)]| send("GET", &state, headers, "").await.unwrap().status().as_u16();
    for host in [address, "localhost", "LOCALHOST:1", "[::1]:80", "127.9.9.9"] {
        assert_eq!(status(&[("host", host)]).await, 200, "{host}");
    }
    for host in ["evil.example", &format!("evil.example:{port}"), "localhost.evil.example", "10.0.0.1", "[fe80::1]", ""]
    {
        assert_eq!(status(&[("host", host)]).await, 403, "{host}");
    }
    assert_eq!(status(&[("origin", &format!("http://localhost:{port}"))]).await, 200);
    for origin in ["http://evil.example", "https://evil.example:1", "null", ""] {
        assert_eq!(status(&[("origin", origin)]).await, 403, "{origin}");
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

/// With remote access, every host name is accepted, but requests of web pages are not.
#[tokio::test]
async fn a_remote_emulator_has_any_name_and_answers_no_pages() {
    let world = World::with(Options { allow_remote: true, ..Options::default() }).await;
    let state = format!("{}/emulator/state", world.emulator.url());
    let headers = [("host", "build.example"), ("origin", "http://build.example")];
    for (headers, status) in [(&headers[..1], 200), (&headers[..], 403)] {
        let answer = send("GET", &state, headers, "").await.unwrap();
        assert_eq!(answer.status(), status, "{headers:?}: {}", text(&answer));
        assert!(!text(&answer).contains("--allow-remote"), "it would not help: {}", text(&answer));
    }
}

/// Sends a GET request as another user of this machine. Returns the response, or `None` if the connection was closed or
/// reset without one. Fails if this process may not change its user.
async fn as_user(
    user: u32,
    url: &str,
    headers: &[(&str, &str)],
) -> Result<Option<http::Response<bytes::Bytes>>, nix::errno::Errno> {
    let url = url.to_owned();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let asked = std::thread::spawn(move || {
        let user = nix::unistd::Uid::from_raw(user);
        // Changes this thread only; the kernel takes a socket's owner from it. The second call reports whether the first
        // succeeded.
        nix::unistd::setfsuid(user);
        if nix::unistd::setfsuid(user) != user {
            return Err(nix::errno::Errno::EPERM);
        }
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        // The runtime has no other thread, so the socket belongs to this one.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        Ok(runtime.block_on(send("GET", &url, &headers, "")).ok())
    });
    tokio::task::spawn_blocking(|| asked.join().unwrap()).await.unwrap()
}

/// Returns the status of the response to such a request.
async fn status_as_user(user: u32, url: &str, headers: &[(&str, &str)]) -> Option<u16> {
    as_user(user, url, headers).await.unwrap().map(|response| response.status().as_u16())
}

/// A loopback port is open to every user of the machine, but the emulator runs commands as its own user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_users_of_this_machine_are_not_answered() {
    const OTHER: u32 = 54_321;
    let own = nix::unistd::geteuid().as_raw();
    for any_user in [false, true] {
        let mut world = World::with(Options { any_user, ..Options::default() }).await;
        let url = world.emulator.url();
        let state = format!("{url}/emulator/state");
        assert_eq!(status_as_user(own, &state, &[]).await, Some(200));
        let Ok(answer) = as_user(OTHER, &state, &[]).await else {
            return skipped("only root can become another user");
        };
        let answer = answer.unwrap();
        assert_eq!(answer.status(), if any_user { 200 } else { 403 }, "{}", text(&answer));
        assert_eq!(text(&answer).contains("--any-user"), !any_user, "{}", text(&answer));
        // The response to a call is a gRPC status, which clients can show.
        let call = format!("{url}/modal.client.ModalClient/AppList");
        let answer = as_user(OTHER, &call, &[("content-type", "application/grpc")]).await.unwrap().unwrap();
        assert_eq!(answer.headers().get("grpc-status").is_some_and(|status| status == "7"), !any_user, "{answer:?}");
        // The other listeners: tunnels and connect tokens.
        let server =
            "import http.server as h; h.HTTPServer(('127.0.0.1', 8080), h.SimpleHTTPRequestHandler).serve_forever()";
        let ports =
            proto::PortSpecs { ports: vec![proto::PortSpec { port: 8080, unencrypted: true, ..Default::default() }] };
        let definition = proto::Sandbox {
            entrypoint_args: ["python3", "-c", server].map(str::to_owned).to_vec(),
            open_ports_oneof: Some(proto::sandbox::OpenPortsOneof::OpenPorts(ports)),
            ..world.definition()
        };
        let sandbox = world.sandbox_with(definition).await;
        let request = proto::SandboxGetTunnelsRequest { sandbox_id: sandbox.id.clone(), timeout: 10.0 };
        let tunnels = world.control.sandbox_get_tunnels_v2(request).await.unwrap().into_inner().tunnels;
        let tunnel = format!("http://127.0.0.1:{}", tunnels[0].unencrypted_port.unwrap());
        let begun = std::time::Instant::now();
        while status_as_user(own, &tunnel, &[]).await != Some(200) {
            assert!(begun.elapsed() < Duration::from_secs(120), "the server inside does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(status_as_user(OTHER, &tunnel, &[]).await, any_user.then_some(200));
        let token = proto::SandboxCreateConnectTokenRequest { sandbox_id: sandbox.id.clone(), ..Default::default() };
        let grant = world.control.sandbox_create_connect_token_v2(token).await.unwrap().into_inner();
        let headers = [("authorization", &*format!("Bearer {}", grant.token))];
        assert_eq!(status_as_user(OTHER, &grant.url, &headers).await, Some(if any_user { 200 } else { 403 }));
        assert_eq!(status_as_user(own, &grant.url, &headers).await, Some(200));
        world.emulator.shutdown().await;
    }
}

/// The administration endpoint can end sandboxes and order faults, so it checks credentials.
#[tokio::test]
async fn the_given_credentials_guard_the_emulators_own_endpoint() {
    let token = Some(("ak-test".to_owned(), "as-test".to_owned()));
    let mut world = World::with(Options { token, ..Options::default() }).await;
    let sandbox = world.sandbox().await;
    let url = world.emulator.url();
    let ask = async |method: &str, path: &str, body: &str, credentials: &[(&str, &str)]| {
        let headers = [&[("content-type", "application/json")], credentials].concat();
        let answer = send(method, &format!("{url}/emulator/{path}"), &headers, body.to_owned()).await.unwrap();
        (answer.status().as_u16(), text(&answer))
    };
    let rule = r#"{"method":"*","fault":"close"}"#;
    let requests = [("GET", "state", ""), ("GET", "faults", ""), ("POST", "faults", rule), ("DELETE", "faults", "")];
    let lose = ("POST", "lose-worker", "{}");
    let id = ("x-modal-token-id", "ak-test");
    for credentials in [vec![], vec![id], vec![id, ("x-modal-token-secret", "as-tes")]] {
        for (method, path, body) in requests.into_iter().chain([lose]) {
            let (status, answer) = ask(method, path, body, &credentials).await;
            assert_eq!(status, 401, "{method} {path} {credentials:?}: {answer}");
        }
    }
    assert!(world.emulator.chaos().rules().is_empty());
    let good = [id, ("x-modal-token-secret", "as-test")];
    let begun = Instant::now();
    loop {
        let (status, state) = ask("GET", "state", "", &good).await;
        assert!(status == 200 && state.contains(&sandbox.id), "{state}");
        if state.contains("running") {
            break;
        }
        assert!(state.contains("starting") && begun.elapsed() < Duration::from_secs(60), "{state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, lost) = ask("POST", "lose-worker", "{}", &good).await;
    assert!(status == 200 && lost.contains("\"lost\": 1"), "{lost}");
}

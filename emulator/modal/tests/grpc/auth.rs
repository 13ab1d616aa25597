//! Credentials and tokens.

use std::time::{Duration, Instant};

use modal_emulator::Options;
use modal_proto::client as proto;
use modal_proto::task_command_router as tcr;
use tonic::Code;

use super::client::{LIMIT, World, code, control, credentials, skipped};

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

/// With remote access, every host name is accepted, but requests of web pages are not.
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

/// Sends an HTTP request as another user of this machine and returns the response. Returns `None` if this process may not
/// change its user.
async fn as_user(user: u32, address: &str, request: String) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let address = address.to_owned();
    let asked = std::thread::spawn(move || {
        let user = nix::unistd::Uid::from_raw(user);
        // Changes this thread only; the kernel takes a socket's owner from it. The second call reports whether the first
        // succeeded.
        nix::unistd::setfsuid(user);
        if nix::unistd::setfsuid(user) != user {
            return None;
        }
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let mut answer = Vec::new();
        // A rejected connection may be reset.
        let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
        Some(String::from_utf8_lossy(&answer).into_owned())
    });
    tokio::task::spawn_blocking(|| asked.join().unwrap()).await.unwrap()
}

/// A loopback port is open to every user of the machine, but the emulator runs commands as its own user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_users_of_this_machine_are_not_answered() {
    const OTHER: u32 = 54_321;
    let own = nix::unistd::geteuid().as_raw();
    for any_user in [false, true] {
        let mut world = World::with(Options { any_user, ..Options::default() }).await;
        let url = world.emulator.url();
        let address = url.strip_prefix("http://").unwrap().to_owned();
        let to = |address: &str, path: &str, more: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{more}Connection: close\r\n\r\n")
        };
        let state = to(&address, "/emulator/state", "");
        assert!(as_user(own, &address, state.clone()).await.unwrap().starts_with("HTTP/1.1 200"));
        let Some(answer) = as_user(OTHER, &address, state).await else {
            return skipped("only root can become another user");
        };
        let wanted = if any_user { "HTTP/1.1 200" } else { "HTTP/1.1 403" };
        assert!(answer.starts_with(wanted), "{answer}");
        assert_eq!(answer.contains("--any-user"), !any_user, "{answer}");
        // The response to a call is a gRPC status, which clients can show.
        let call = to(&address, "/modal.client.ModalClient/AppList", "content-type: application/grpc\r\n");
        let answer = as_user(OTHER, &address, call).await.unwrap();
        assert_eq!(answer.contains("grpc-status: 7"), !any_user, "{answer}");
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
        let tunnel = format!("127.0.0.1:{}", tunnels[0].unencrypted_port.unwrap());
        let request = to(&tunnel, "/", "");
        let begun = std::time::Instant::now();
        while !as_user(own, &tunnel, request.clone()).await.unwrap().contains(" 200 ") {
            assert!(begun.elapsed() < Duration::from_secs(120), "the server inside does not come up");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(as_user(OTHER, &tunnel, request).await.unwrap().contains(" 200 "), any_user);
        let token = proto::SandboxCreateConnectTokenRequest { sandbox_id: sandbox.id.clone(), ..Default::default() };
        let grant = world.control.sandbox_create_connect_token_v2(token).await.unwrap().into_inner();
        let front = grant.url.strip_prefix("http://").unwrap();
        let request = to(front, "/", &format!("Authorization: Bearer {}\r\n", grant.token));
        let answer = as_user(OTHER, front, request.clone()).await.unwrap();
        assert!(answer.contains(if any_user { " 200 " } else { " 403 " }), "{answer}");
        assert!(as_user(own, front, request).await.unwrap().contains(" 200 "));
        world.emulator.shutdown().await;
    }
}

/// The administration endpoint can end sandboxes and order faults, so it checks credentials.
#[tokio::test]
async fn the_given_credentials_guard_the_emulators_own_endpoint() {
    use super::network::exchange;
    let token = Some(("ak-test".to_owned(), "as-test".to_owned()));
    let mut world = World::with(Options { token, ..Options::default() }).await;
    let sandbox = world.sandbox().await;
    let url = world.emulator.url();
    let address = url.strip_prefix("http://").unwrap();
    let ask = async |method: &str, path: &str, body: &str, more: &str| {
        let length = body.len();
        let request = format!(
            "{method} /emulator/{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{more}Connection: close\r\n\r\n{body}"
        );
        exchange(address, &request).await
    };
    let rule = r#"{"method":"*","fault":"close"}"#;
    let requests = [("GET", "state", ""), ("GET", "faults", ""), ("POST", "faults", rule), ("DELETE", "faults", "")];
    let lose = ("POST", "lose-worker", "{}");
    for more in ["", "X-Modal-Token-Id: ak-test\r\n", "X-Modal-Token-Id: ak-test\r\nX-Modal-Token-Secret: as-tes\r\n"] {
        for (method, path, body) in requests.into_iter().chain([lose]) {
            let answer = ask(method, path, body, more).await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{method} {path} {more}: {answer}");
        }
    }
    assert!(world.emulator.chaos().rules().is_empty());
    let good = "X-Modal-Token-Id: ak-test\r\nX-Modal-Token-Secret: as-test\r\n";
    let begun = Instant::now();
    loop {
        let state = ask("GET", "state", "", good).await;
        assert!(state.starts_with("HTTP/1.1 200") && state.contains(&sandbox.id), "{state}");
        if state.contains("running") {
            break;
        }
        assert!(state.contains("starting") && begun.elapsed() < Duration::from_secs(60), "{state}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let lost = ask("POST", "lose-worker", "{}", good).await;
    assert!(lost.starts_with("HTTP/1.1 200") && lost.contains("\"lost\": 1"), "{lost}");
}

//! Network access of sandboxes: which addresses and names they reach, tunnels, and connect tokens.

use std::net::{Ipv4Addr, TcpListener};

use modal_emulator::Options;
use modal_proto::client as proto;
use modal_proto::client::network_access::NetworkAccessType;
use modal_proto::task_command_router as tcr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use super::client::{LIMIT, Running, World, code};
use crate::http_client::{send, text};
use crate::internet::{ECHO, HERE, HERE6, MACHINE, MACHINE6, Powers, THERE, TLS, on_the_internet};

/// Python functions for scripts. Each prints its result as one word.
const PRELUDE: &str = r#"
import errno, socket, ssl, sys, threading
socket.setdefaulttimeout(20)
def attempt(function, *args):
    try:
        return function(*args)
    except ssl.SSLError:
        return "tls-failed"
    except socket.gaierror:
        return "no-name"
    except OSError as error:
        return errno.errorcode.get(error.errno, repr(error))
def tcp(host, port, text="hi"):
    with socket.create_connection((host, port)) as s:
        s.sendall(text.encode() + b"\n")
        return s.makefile().readline().strip() or "closed"
def udp(host, port, text="hi"):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, port))
    s.send(text.encode())
    return s.recv(65535).decode()
def tls(name, host=None, port=443):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((host or name, port)) as raw:
        with context.wrap_socket(raw, server_hostname=name) as s:
            return s.makefile().readline().strip()
"#;

/// Runs a test on a simulated machine with a simulated internet.
fn online(test: impl Future<Output = ()>) {
    on_the_internet(Powers::Own, || {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(test);
    });
}

async fn world() -> World {
    let resolve = [("api.example.com", HERE), ("other.example.org", THERE), ("home.example.com", MACHINE)];
    World::with(Options {
        network: true,
        resolve: resolve.map(|(name, address)| (name.to_owned(), address.into())).to_vec(),
        ..Options::default()
    })
    .await
}

fn access(kind: NetworkAccessType, cidrs: &[&str], domains: &[&str]) -> proto::NetworkAccess {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    proto::NetworkAccess {
        network_access_type: kind as i32,
        allowed_cidrs: owned(cidrs),
        allowed_domains: owned(domains),
    }
}

impl World {
    async fn networked(&mut self, access: proto::NetworkAccess) -> Running {
        let mut definition = self.definition();
        definition.network_access = Some(access);
        self.sandbox_with(definition).await
    }
}

impl Running {
    /// Runs a Python expression with the functions above in the sandbox, and returns what it prints.
    async fn python(&mut self, expression: &str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let mut request = self.start_request(&id, "");
        request.command_args =
            ["python3", "-c", &format!("{PRELUDE}\nprint({expression})")].map(str::to_owned).to_vec();
        self.router.task_exec_start(request).await.unwrap();
        let (output, _) = tokio::time::timeout(LIMIT, self.read(&id, 0, 0)).await.expect("an answer in time").unwrap();
        let (errors, _) = self.read(&id, 1, 0).await.unwrap();
        assert!(errors.is_empty(), "{}", String::from_utf8_lossy(&errors));
        String::from_utf8(output).unwrap().trim_end().to_owned()
    }

    async fn set_access(&mut self, access: proto::NetworkAccess) -> Result<(), tonic::Status> {
        let task_id = self.task_id.clone();
        let request = tcr::TaskSetNetworkAccessRequest { task_id, network_access: Some(access) };
        self.router.task_set_network_access(request).await.map(drop)
    }
}

#[test]
fn open_reaches_everything_but_the_machine() {
    online(async {
        let mut world = world().await;
        let mut sandbox = world.networked(access(NetworkAccessType::Open, &[], &[])).await;
        assert_eq!(sandbox.python(&format!("tcp('{HERE}', {ECHO})")).await, format!("{HERE} hi"));
        assert_eq!(sandbox.python(&format!("udp('{THERE}', {ECHO})")).await, format!("{THERE} hi"));
        assert_eq!(sandbox.python(&format!("tcp('api.example.com', {ECHO})")).await, format!("{HERE} hi"));
        assert_eq!(sandbox.python("tls('other.example.org')").await, THERE.to_string());
        assert_eq!(sandbox.python(&format!("tcp('{HERE6}', {ECHO})")).await, format!("{HERE6} hi"));
        assert_eq!(sandbox.python(&format!("udp('{HERE6}', {ECHO})")).await, format!("{HERE6} hi"));
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE6}', 1)")).await, "ECONNREFUSED");
        assert_eq!(sandbox.python(&format!("attempt(udp, '{HERE6}', 1)")).await, "ECONNREFUSED");
        // As on any network, a closed port refuses the connection at once.
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE}', 1)")).await, "ECONNREFUSED");
        assert_eq!(sandbox.python(&format!("attempt(udp, '{HERE}', 1)")).await, "ECONNREFUSED");
        assert_eq!(sandbox.python("attempt(tcp, 'no-such-name.invalid', 80)").await, "no-name");

        // Services of the machine itself, which no sandbox may reach.
        let listen = |address: Ipv4Addr| TcpListener::bind((address, 0)).unwrap();
        let (loopback, own) = (listen(Ipv4Addr::LOCALHOST), listen(MACHINE));
        let port = loopback.local_addr().unwrap().port();
        assert_eq!(sandbox.python(&format!("attempt(tcp, '127.0.0.1', {port})")).await, "ECONNREFUSED");
        for host in ["169.254.169.254", "0.0.0.0", "192.0.0.1", "255.255.255.255"] {
            assert_ne!(sandbox.python(&format!("attempt(tcp, '{host}', {port})")).await, "closed", "{host}");
        }
        let port = own.local_addr().unwrap().port();
        for host in [&MACHINE.to_string(), "home.example.com"] {
            assert_eq!(sandbox.python(&format!("attempt(tcp, '{host}', {port})")).await, "EHOSTUNREACH", "{host}");
        }
        // IPv6 reports "prohibited" with a different code.
        for host in [MACHINE6.to_string(), format!("::ffff:{MACHINE}"), "64:ff9b::c633:6401".to_owned()] {
            let got = sandbox.python(&format!("attempt(tcp, '{host}', {port})")).await;
            assert!(["EACCES", "EHOSTUNREACH"].contains(&got.as_str()), "{host}: {got}");
        }
        for listener in [loopback, own] {
            listener.set_nonblocking(true).unwrap();
            assert!(listener.accept().is_err(), "a connection got through");
        }
    });
}

#[test]
fn without_leave_nothing_leaves() {
    online(async {
        let mut world = World::start().await;
        let mut sandbox = world.networked(access(NetworkAccessType::Open, &[], &[])).await;
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE}', {ECHO})")).await, "ENETUNREACH");
        assert_eq!(sandbox.python("attempt(tcp, 'api.example.com', 80)").await, "no-name");
    });
}

#[test]
fn blocked_has_its_loopback_and_nothing_else() {
    online(async {
        let mut world = world().await;
        let mut sandbox = world.networked(access(NetworkAccessType::Blocked, &[], &[])).await;
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE}', {ECHO})")).await, "ENETUNREACH");
        assert_eq!(sandbox.python("[name for _, name in socket.if_nameindex()]").await, "['lo']");
        let own =
            "(lambda l: socket.create_connection(l.getsockname()).send(b'x'))(socket.create_server(('127.0.0.1', 0)))";
        assert_eq!(sandbox.python(own).await, "1");
        let later = sandbox.set_access(access(NetworkAccessType::Open, &[], &[])).await;
        assert_eq!(code(later), Code::FailedPrecondition);
    });
}

#[test]
fn an_address_list_is_kept() {
    online(async {
        let mut world = world().await;
        let list = access(NetworkAccessType::Allowlist, &[&format!("{HERE}/32")], &[]);
        let mut sandbox = world.networked(list).await;
        assert_eq!(sandbox.python(&format!("tcp('{HERE}', {ECHO})")).await, format!("{HERE} hi"));
        assert_eq!(sandbox.python(&format!("udp('{HERE}', {ECHO})")).await, format!("{HERE} hi"));
        for transport in ["tcp", "udp"] {
            let got = sandbox.python(&format!("attempt({transport}, '{THERE}', {ECHO})")).await;
            assert_eq!(got, "EHOSTUNREACH", "{transport}");
        }
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE6}', {ECHO})")).await, "EACCES");
        sandbox.set_access(access(NetworkAccessType::Allowlist, &[&format!("{HERE6}/64")], &[])).await.unwrap();
        assert_eq!(sandbox.python(&format!("tcp('{HERE6}', {ECHO})")).await, format!("{HERE6} hi"));
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE}', {ECHO})")).await, "EHOSTUNREACH");
        // A DNS query can carry data, so names that are not on the list are not resolved.
        assert_eq!(sandbox.python("attempt(tcp, 'api.example.com', 80)").await, "no-name");
    });
}

#[test]
fn a_name_list_is_kept() {
    online(async {
        let mut world = world().await;
        let list = access(NetworkAccessType::Allowlist, &[], &["*.example.com"]);
        let mut sandbox = world.networked(list).await;
        assert_eq!(sandbox.python("tls('api.example.com')").await, HERE.to_string());
        // The connection goes to the name's address, not to the address that the client chose.
        assert_eq!(sandbox.python(&format!("tls('api.example.com', '{THERE}')")).await, HERE.to_string());
        assert_eq!(sandbox.python("attempt(tls, 'other.example.org')").await, "no-name");
        assert_eq!(sandbox.python(&format!("attempt(tls, 'other.example.org', '{THERE}')")).await, "ECONNRESET");
        // A name on the list does not give access to the machine itself.
        assert_eq!(sandbox.python(&format!("attempt(tls, 'home.example.com', '{HERE}')")).await, "ECONNRESET");
        // Connections without TLS have no name, and other ports are not permitted.
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE}', {TLS})")).await, "ECONNRESET");
        assert_eq!(sandbox.python(&format!("attempt(tcp, 'api.example.com', {ECHO})")).await, "EHOSTUNREACH");
        assert_eq!(sandbox.python(&format!("attempt(udp, '{HERE}', {TLS})")).await, "EHOSTUNREACH");
    });
}

#[test]
fn a_change_reaches_what_is_established() {
    online(async {
        let mut world = world().await;
        let mut sandbox = world.networked(access(NetworkAccessType::Open, &[], &[])).await;
        let script = format!(
            "{PRELUDE}
streams = [socket.create_connection((host, {ECHO})) for host in ('{HERE}', '{THERE}')]
print('connected', flush=True)
sys.stdin.readline()
for s in streams:
    try:
        s.sendall(b'again\\n')
        print(s.makefile().readline().strip(), flush=True)
    except OSError as error:
        print('cut', flush=True)
"
        );
        let mut request = sandbox.start_request("held", "");
        request.command_args = vec!["python3".into(), "-c".into(), script];
        sandbox.router.task_exec_start(request).await.unwrap();
        let read = tcr::TaskExecStdioReadRequest {
            task_id: sandbox.task_id.clone(),
            exec_id: "held".into(),
            ..Default::default()
        };
        let mut output = sandbox.router.task_exec_stdio_read(read).await.unwrap().into_inner();
        assert_eq!(output.message().await.unwrap().unwrap().data, "connected\n");
        let list = [format!("{HERE}/32")];
        sandbox.set_access(access(NetworkAccessType::Allowlist, &[&list[0]], &[])).await.unwrap();
        sandbox.write("held", 0, b"go\n", true).await.unwrap();
        let mut rest = Vec::new();
        while let Some(piece) = output.message().await.unwrap() {
            rest.extend_from_slice(&piece.data);
        }
        assert_eq!(String::from_utf8(rest).unwrap(), format!("{HERE} again\ncut\n"));
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{THERE}', {ECHO})")).await, "EHOSTUNREACH");
        sandbox.set_access(access(NetworkAccessType::Open, &[], &[])).await.unwrap();
        assert_eq!(sandbox.python(&format!("tcp('{THERE}', {ECHO})")).await, format!("{THERE} hi"));
        let blocked = sandbox.set_access(access(NetworkAccessType::Blocked, &[], &[])).await;
        assert_eq!(code(blocked), Code::InvalidArgument);
        let bad = sandbox.set_access(access(NetworkAccessType::Allowlist, &["10.0.0.0/33"], &[])).await;
        assert_eq!(code(bad), Code::InvalidArgument);
    });
}

#[test]
fn much_data_arrives_whole_and_both_ends_close() {
    online(async {
        let mut world = world().await;
        let mut sandbox = world.networked(access(NetworkAccessType::Open, &[], &[])).await;
        // This deadlocks unless both directions are forwarded at the same time: the responses are longer than all buffers
        // together.
        let both_ways = format!(
            "(lambda s: (threading.Thread(target=lambda: (s.sendall((b'x' * 999 + b'\\n') * 20000), \
             s.shutdown(socket.SHUT_WR))).start(), sum(len(l) for l in s.makefile('rb')))[1])\
             (socket.create_connection(('{HERE}', {ECHO})))"
        );
        let each = HERE.to_string().len() + 1 + 1000;
        assert_eq!(sandbox.python(&both_ways).await, (each * 20000).to_string());
        let many = format!(
            "len([s for s in [socket.create_connection(('{HERE}', {ECHO})) for _ in range(300)] \
             if (s.sendall(b'n\\n'), s.makefile().readline())[1] == '{HERE} n\\n'])"
        );
        assert_eq!(sandbox.python(&many).await, "300");
        // Large datagrams.
        assert_eq!(sandbox.python(&format!("len(udp('{HERE}', {ECHO}, 'y' * 60000))")).await, "60013");
    });
}

#[test]
fn it_takes_no_root() {
    on_the_internet(Powers::Nobodys, || {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let mut world = world().await;
            let mut sandbox = world.networked(access(NetworkAccessType::Allowlist, &["198.51.100.2/32"], &[])).await;
            assert_eq!(sandbox.python(&format!("tcp('{HERE}', {ECHO})")).await, format!("{HERE} hi"));
            assert_eq!(sandbox.python(&format!("attempt(tcp, '{THERE}', {ECHO})")).await, "EHOSTUNREACH");

            // Tunnels and connect tokens do not give network access either.
            let mut definition = world.definition();
            let server = "import http.server as h; h.HTTPServer(('127.0.0.1', 8080), h.SimpleHTTPRequestHandler).serve_forever()";
            definition.entrypoint_args = ["python3", "-c", server].map(str::to_owned).to_vec();
            definition.readiness_probe = Some(proto::Probe {
                probe_oneof: Some(proto::probe::ProbeOneof::TcpPort(8080)),
                interval_ms: Some(10),
            });
            let port = proto::PortSpec { port: 8080, unencrypted: true, ..Default::default() };
            let ports = proto::PortSpecs { ports: vec![port] };
            definition.open_ports_oneof = Some(proto::sandbox::OpenPortsOneof::OpenPorts(ports));
            let mut sandbox = world.sandbox_with(definition).await;
            sandbox.until_ready().await;
            let request = proto::SandboxGetTunnelsRequest { sandbox_id: sandbox.id.clone(), timeout: 10.0 };
            let tunnels = world.control.sandbox_get_tunnels_v2(request).await.unwrap().into_inner().tunnels;
            let tunnel = format!("http://127.0.0.1:{}", tunnels[0].unencrypted_port.unwrap());
            assert_eq!(get(&tunnel, &[]).await.status(), 200);

            let grant = world.token(&sandbox.id, None, "").await;
            for (token, status) in [(&*grant.token, 200), ("x", 401)] {
                assert_eq!(get(&grant.url, &[("authorization", &bearer(token))]).await.status(), status);
            }
        });
    });
}

/// Returns a server's response to a GET request with these headers.
async fn get(url: &str, headers: &[(&str, &str)]) -> http::Response<bytes::Bytes> {
    tokio::time::timeout(LIMIT, send("GET", url, headers, "")).await.expect("an end in time").unwrap()
}

/// Returns the header that presents a connect token.
fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

impl World {
    async fn token(&mut self, id: &str, port: Option<u32>, metadata: &str) -> proto::SandboxCreateConnectTokenResponse {
        let request = proto::SandboxCreateConnectTokenRequest {
            sandbox_id: id.to_owned(),
            port,
            user_metadata: metadata.to_owned(),
        };
        self.control.sandbox_create_connect_token_v2(request).await.unwrap().into_inner()
    }
}

impl Running {
    async fn until_ready(&mut self) {
        let request = tcr::SandboxWaitUntilReadyTcrRequest { task_id: self.task_id.clone(), timeout: 20.0 };
        self.router.sandbox_wait_until_ready(request).await.unwrap();
    }
}

/// A server that shows the request that it received. If the request asks for an upgrade, it switches to an echo protocol.
const SERVER: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") == "repeat":
            self.send_response(101)
            self.send_header("Connection", "Upgrade")
            self.send_header("Upgrade", "repeat")
            self.end_headers()
            self.wfile.write(self.rfile.read(5))
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        text = f"{self.command} {self.path}\n{self.headers}{self.rfile.read(length).decode()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_POST = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", 9000), Handler).serve_forever()
"#;

#[tokio::test]
async fn connections_by_token() {
    let mut world = World::start().await;
    let mut definition = world.definition();
    definition.entrypoint_args = ["python3", "-c", SERVER].map(str::to_owned).to_vec();
    definition.readiness_probe =
        Some(proto::Probe { probe_oneof: Some(proto::probe::ProbeOneof::TcpPort(9000)), interval_ms: Some(10) });
    let mut sandbox = world.sandbox_with(definition).await;
    sandbox.until_ready().await;
    let grant = world.token(&sandbox.id, Some(9000), r#"{"user": "u"}"#).await;
    let front = grant.url.trim_end_matches('/');
    let token = &grant.token;

    let cookie = format!("a=b; _modal_connect_token={token}; c=d");
    let headers = [
        ("host", "some.host"),
        ("x-verified-user-data", "forged"),
        ("cookie", &*cookie),
        ("authorization", "Basic own"),
    ];
    let url = format!("{front}/a/b?x=1&_modal_connect_token={token}&y=2");
    let answer =
        tokio::time::timeout(LIMIT, send("POST", &url, &headers, "body")).await.expect("an end in time").unwrap();
    let shown = text(&answer);
    assert_eq!(answer.status(), 200, "{shown}");
    assert!(shown.starts_with("POST /a/b?x=1&y=2\n") && shown.ends_with("body"), "{shown}");
    let lower = shown.to_lowercase();
    for wanted in ["host: some.host\n", "cookie: a=b; c=d\n", "authorization: basic own\n"] {
        assert!(lower.contains(wanted), "{wanted} is not in {shown}");
    }
    assert!(lower.contains("x-verified-user-data: {\"user\": \"u\"}\n") && !lower.contains("forged"), "{shown}");
    assert!(!shown.contains(token.as_str()), "the token got inside: {shown}");

    let shown_token = bearer(token);
    let answer = get(front, &[("authorization", &shown_token)]).await;
    assert_eq!(answer.status(), 200);
    assert!(!text(&answer).to_lowercase().contains("authorization"), "{}", text(&answer));
    assert_eq!(get(front, &[("cookie", &format!("_modal_connect_token={token}"))]).await.status(), 200);
    assert_eq!(get(front, &[]).await.status(), 401);
    for bad in [("authorization", "Bearer"), ("authorization", "Bearer x"), ("cookie", "_modal_connect_token=")] {
        assert_eq!(get(front, &[bad]).await.status(), 401, "{bad:?}");
    }

    // The bytes after the switch belong to no HTTP message, so they are sent without the client.
    let mut stream = tokio::net::TcpStream::connect(front.strip_prefix("http://").unwrap()).await.unwrap();
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: repeat\r\nAuthorization: {shown_token}\r\n\r\nhello"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("an end in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\nhello"), "{answer}");

    // A token that names no port is for port 8080, and no process listens there.
    let elsewhere = world.token(&sandbox.id, None, "").await.token;
    assert_eq!(get(front, &[("authorization", &bearer(&elsewhere))]).await.status(), 502);
    for (port, metadata) in [(0, ""), (65_536, ""), (80, "a\nb")] {
        let request = proto::SandboxCreateConnectTokenRequest {
            sandbox_id: sandbox.id.clone(),
            port: Some(port),
            user_metadata: metadata.to_owned(),
        };
        assert_eq!(code(world.control.sandbox_create_connect_token(request).await), Code::InvalidArgument);
    }
    world
        .control
        .sandbox_terminate_v2(proto::SandboxTerminateRequest { sandbox_id: sandbox.id.clone() })
        .await
        .unwrap();
    world.wait(&sandbox.id).await.unwrap();
    assert_eq!(get(front, &[("authorization", &shown_token)]).await.status(), 404);
}

/// The first connection to a server that is just starting waits for it, with a connect token and through a tunnel.
#[tokio::test]
async fn connections_wait_for_a_server_that_is_starting() {
    let mut world = World::start().await;
    let mut definition = world.definition();
    let script = format!("until test -e /go; do sleep 0.01; done; exec python3 -c '{SERVER}'");
    definition.entrypoint_args = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let port = proto::PortSpec { port: 9000, unencrypted: true, ..Default::default() };
    definition.open_ports_oneof =
        Some(proto::sandbox::OpenPortsOneof::OpenPorts(proto::PortSpecs { ports: vec![port] }));
    let mut sandbox = world.sandbox_with(definition).await;
    let request = proto::SandboxGetTunnelsRequest { sandbox_id: sandbox.id.clone(), timeout: 10.0 };
    let tunnels = world.control.sandbox_get_tunnels_v2(request).await.unwrap().into_inner().tunnels;
    let tunnel = format!("http://127.0.0.1:{}", tunnels[0].unencrypted_port.unwrap());
    let grant = world.token(&sandbox.id, Some(9000), "").await;
    let shown_token = bearer(&grant.token);
    let asked = tokio::spawn(async move {
        let headers = [("authorization", &*shown_token)];
        tokio::join!(get(&grant.url, &headers), get(&tunnel, &[]))
    });
    sandbox.start("go", "touch /go").await;
    let (by_token, through_tunnel) = asked.await.unwrap();
    assert_eq!(by_token.status(), 200, "{}", text(&by_token));
    assert_eq!(through_tunnel.status(), 200, "{}", text(&through_tunnel));
}

#[tokio::test]
async fn a_closed_list_closes_connections_by_token_too() {
    let mut world = World::start().await;
    let mut definition = world.definition();
    definition.inbound_cidr_allowlist = vec!["192.0.2.0/24".to_owned()];
    let sandbox = world.sandbox_with(definition).await;
    let grant = world.token(&sandbox.id, None, "").await;
    let answer = get(&grant.url, &[("authorization", &bearer(&grant.token))]).await;
    assert_eq!(answer.status(), 403, "{}", text(&answer));
}

#[test]
fn routes_decide_in_their_order() {
    use proto::outbound_policy as wire;
    use wire::route::Route;
    online(async {
        let mut world = world().await;
        let block =
            || Some(wire::Redirect { redirect: Some(wire::redirect::Redirect::Block(wire::redirect::Block {})) });
        let route = |route| wire::Route { route: Some(route) };
        let any = |redirect| route(Route::Any(wire::AnyRoute { redirect }));
        let ip = |cidr: String, port: u32, redirect| {
            let ports = vec![wire::PortRange { start: port, end: port }];
            route(Route::Ip(wire::IpRoute { ports, cidrs: vec![cidr], redirect, ..Default::default() }))
        };
        let tls = |domain: &str, redirect| {
            route(Route::Tls(wire::TlsRoute { domains: vec![domain.to_owned()], redirect, ..Default::default() }))
        };
        let policy = |routes: Vec<wire::Route>| proto::OutboundPolicy { routes, ..Default::default() };

        let mut definition = world.definition();
        definition.outbound_policy = Some(policy(vec![
            ip(format!("{HERE}/32"), ECHO.into(), None),
            ip("0.0.0.0/0".into(), ECHO.into(), block()),
            tls("*.example.com", block()),
            any(None),
        ]));
        let mut sandbox = world.sandbox_with(definition.clone()).await;
        assert_eq!(sandbox.python(&format!("tcp('{HERE}', {ECHO})")).await, format!("{HERE} hi"));
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{THERE}', {ECHO})")).await, "EHOSTUNREACH");
        assert_eq!(sandbox.python("attempt(tls, 'api.example.com')").await, "ECONNRESET");
        assert_eq!(sandbox.python("tls('other.example.org')").await, THERE.to_string());
        let replaced = proto::SandboxSetOutboundPolicyRequest {
            sandbox_id: sandbox.id.clone(),
            outbound_policy: Some(policy(vec![tls("api.example.com", None), any(block())])),
        };
        world.control.sandbox_set_outbound_policy_v2(replaced).await.unwrap();
        assert_eq!(sandbox.python("tls('api.example.com')").await, HERE.to_string());
        assert_eq!(sandbox.python(&format!("attempt(tcp, '{HERE}', {ECHO})")).await, "EHOSTUNREACH");
        let listed = sandbox.set_access(access(NetworkAccessType::Allowlist, &[], &[])).await;
        assert_eq!(code(listed), Code::FailedPrecondition);

        let https =
            || route(Route::Https(wire::HttpsRoute { domains: vec!["a.example".into()], ..Default::default() }));
        let proxy = wire::redirect::Redirect::ViaProxy(wire::redirect::ViaProxy { proxy_id: "pr-x".into() });
        let decrypting = proto::OutboundPolicy {
            tls_decryption: Some(wire::TlsDecryption { allowed: true }),
            routes: vec![https(), any(None)],
        };
        for (policy, expected) in [
            (policy(vec![]), Code::InvalidArgument),
            (policy(vec![any(None), any(None)]), Code::InvalidArgument),
            (policy(vec![tls("a.example", None)]), Code::InvalidArgument),
            (policy(vec![tls("a b", None), any(None)]), Code::InvalidArgument),
            (policy(vec![ip("x".into(), 1, None), any(None)]), Code::InvalidArgument),
            (policy(vec![ip("10.0.0.0/8".into(), 0, None), any(None)]), Code::InvalidArgument),
            (policy(vec![https(), any(None)]), Code::InvalidArgument),
            (decrypting, Code::Unimplemented),
            (policy(vec![any(Some(wire::Redirect { redirect: Some(proxy) }))]), Code::NotFound),
        ] {
            definition.outbound_policy = Some(policy);
            let answer = world.control.sandbox_create_v2(world.request(definition.clone())).await;
            assert_eq!(code(answer), expected, "{:?}", definition.outbound_policy);
        }
        definition.outbound_policy = Some(policy(vec![any(None)]));
        definition.network_access = Some(access(NetworkAccessType::Allowlist, &[], &[]));
        assert_eq!(code(world.control.sandbox_create_v2(world.request(definition)).await), Code::InvalidArgument);
    });
}

#[test]
fn a_hundred_networks_need_no_threads() {
    online(async {
        let mut world = world().await;
        let threads = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("Threads:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
        };
        let mut live = Vec::new();
        let mut first = Vec::new();
        let before = threads();
        for _ in 0..100 {
            let began = std::time::Instant::now();
            let mut sandbox = world.sandbox().await;
            sandbox.start("first", "true").await;
            assert_eq!(sandbox.wait("first").await.unwrap(), 0);
            first.push(began.elapsed());
            live.push(sandbox);
        }
        let most = threads();
        first.sort();
        println!(
            "create to end of the first command: median {:?}, worst {:?}; threads {before}, {most}",
            first[50], first[99]
        );
        assert!(most < before + 20, "{before} threads have become {most}");
        for sandbox in live.iter_mut().step_by(10) {
            assert_eq!(sandbox.python(&format!("tcp('{HERE}', {ECHO})")).await, format!("{HERE} hi"));
        }
    });
}

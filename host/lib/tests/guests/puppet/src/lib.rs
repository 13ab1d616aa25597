//! A provider for tests that executes the orders of a test, good or bad.
//!
//! `find(name)` executes the words of `name` as an order: crash, loop, send a request. Execs and files have no state,
//! so that any instance can answer. The exec id says what a command prints and how it ends (`out-N_err-N_exit-N`;
//! `endless` never ends, whatever its time limit). The path says what a file contains (`/size/N`). The name of an image
//! says how often its build is lost (`lost-N`), and how the error says so (`final`, `unclear`).

// The error is a record of the interface, as the generated code has it.
#![allow(clippy::result_large_err)]

mod sys;

mod bindings {
    #![allow(clippy::all)]
    wit_bindgen::generate!({
        path: "../../../../../wit/old/0.1.0",
        inline: "package local:puppet; world puppet { export harness:sandbox/sandbox-provider@0.1.0; }",
        world: "local:puppet/puppet",
        generate_all,
    });
}

use std::sync::atomic::{AtomicU64, Ordering};

use bindings::exports::harness::sandbox::sandbox_provider::Guest;
use bindings::harness::sandbox::types::*;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingBody, Method, OutgoingBody, OutgoingRequest, Scheme};

#[unsafe(link_section = "harness:manifest")]
#[used]
static MANIFEST: [u8; include_bytes!("../manifest.toml").len()] = *include_bytes!("../manifest.toml");

/// How often this instance has started a build.
static STARTED: AtomicU64 = AtomicU64::new(0);

struct Puppet;
bindings::export!(Puppet with_types_in bindings);

fn error(kind: ErrorKind, message: impl Into<String>) -> Error {
    Error {
        kind,
        message: message.into(),
        happened: Happened::No,
        retry: RetryAdvice::Never,
        provider_code: None,
        provider_message: None,
        subject: None,
        extra: vec![],
    }
}

fn unsupported<T>() -> Result<T, Error> {
    Err(error(ErrorKind::Unsupported, "a puppet cannot do that"))
}

fn info(id: String, extra: Vec<(String, String)>) -> SandboxInfo {
    SandboxInfo {
        id,
        name: None,
        state: SandboxState::Running,
        image: None,
        created: None,
        tags: vec![],
        tunnels: vec![],
        extra,
    }
}

/// A response: status, headers and body.
type Answer = (u16, Vec<(String, String)>, Vec<u8>);

/// Sends one request and returns the response.
fn request(url: &str, headers: &[(&str, Vec<u8>)], body: Option<&[u8]>) -> Result<Answer, ErrorCode> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let fields = Fields::new();
    for (name, value) in headers {
        let _ = fields.append(name, value);
    }
    let request = OutgoingRequest::new(fields);
    let _ = request.set_method(if body.is_some() { &Method::Post } else { &Method::Get });
    let _ = request.set_scheme(Some(&if scheme == "http" { Scheme::Http } else { Scheme::Https }));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some(path));
    let outgoing = request.body().expect("a body");
    let future = outgoing_handler::handle(request, None)?;
    if let Some(body) = body {
        let stream = outgoing.write().expect("a stream");
        for piece in body.chunks(4096) {
            let _ = stream.blocking_write_and_flush(piece);
        }
    }
    let _ = OutgoingBody::finish(outgoing, None);
    let response = loop {
        match future.get() {
            Some(result) => break result.expect("taken once")?,
            None => future.subscribe().block(),
        }
    };
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let mut seen: Vec<_> = response.headers().entries().into_iter().map(|(name, value)| (name, text(value))).collect();
    let body = response.consume().expect("a body");
    let stream = body.stream().expect("a stream");
    let mut data = Vec::new();
    while let Ok(piece) = stream.blocking_read(64 << 10) {
        data.extend_from_slice(&piece);
    }
    drop(stream);
    let trailers = IncomingBody::finish(body);
    let trailers = loop {
        match trailers.get() {
            Some(result) => break result.expect("taken once"),
            None => trailers.subscribe().block(),
        }
    };
    if let Ok(Some(fields)) = trailers {
        seen.extend(fields.entries().into_iter().map(|(name, value)| (name, text(value))));
    }
    Ok((response.status(), seen, data))
}

/// Sends the request of an order and returns the result as `extra` fields.
fn fetch(url: &str, headers: &[(&str, Vec<u8>)], body: Option<&[u8]>) -> Result<SandboxInfo, Error> {
    match request(url, headers, body) {
        Ok((status, headers, body)) => {
            let mut extra = vec![
                ("status".to_owned(), status.to_string()),
                ("body".to_owned(), String::from_utf8_lossy(&body).into_owned()),
            ];
            extra.extend(headers.into_iter().map(|(name, value)| (format!("header:{name}"), value)));
            Ok(info("fetched".into(), extra))
        }
        Err(ErrorCode::HttpRequestDenied) => Err(error(ErrorKind::Forbidden, "denied")),
        Err(code) => Err(error(ErrorKind::Unavailable, format!("{code:?}"))),
    }
}

fn grpc_headers() -> Vec<(&'static str, Vec<u8>)> {
    vec![("content-type", b"application/grpc".to_vec()), ("te", b"trailers".to_vec())]
}

/// Returns the result of an attempt as an `extra` field.
fn attempt<T, E: std::fmt::Debug>(what: &str, result: Result<T, E>) -> (String, String) {
    (what.to_owned(), result.map_or_else(|error| format!("{error:?}"), |_| "ok".to_owned()))
}

/// Tries to use files, by the standard library and by the interface below it.
fn use_files() -> Vec<(String, String)> {
    let directories = wasip2::filesystem::preopens::get_directories();
    vec![
        attempt("read", std::fs::read("/etc/passwd")),
        attempt("read relative", std::fs::read("Cargo.toml")),
        attempt("list", std::fs::read_dir("/")),
        attempt("create", std::fs::File::create("/tmp/puppet")),
        attempt("make", std::fs::create_dir("puppet")),
        attempt("link", std::fs::hard_link("/etc/passwd", "puppet")),
        attempt("stat", std::fs::metadata(".")),
        attempt("directories", directories.into_iter().next().ok_or("none")),
    ]
}

/// Tries to use sockets, by the standard library and by the interface below it.
fn use_sockets(authority: &str) -> Vec<(String, String)> {
    use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
    use wasip2::sockets::network::IpAddressFamily;
    use wasip2::sockets::{instance_network, ip_name_lookup, tcp_create_socket, udp_create_socket};
    let network = instance_network::instance_network();
    vec![
        attempt("connect", TcpStream::connect(authority)),
        attempt("listen", TcpListener::bind("127.0.0.1:0")),
        attempt("udp", UdpSocket::bind("127.0.0.1:0")),
        attempt("resolve", "localhost:80".to_socket_addrs()),
        attempt("tcp4", tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4)),
        attempt("tcp6", tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv6)),
        attempt("udp4", udp_create_socket::create_udp_socket(IpAddressFamily::Ipv4)),
        attempt("udp6", udp_create_socket::create_udp_socket(IpAddressFamily::Ipv6)),
        attempt("lookup", ip_name_lookup::resolve_addresses(&network, "example.org")),
        attempt("lookup of an address", ip_name_lookup::resolve_addresses(&network, "127.0.0.1")),
    ]
}

fn order(words: &[&str]) -> Result<SandboxInfo, Error> {
    match words {
        ["loop"] => loop {
            std::hint::black_box(0);
        },
        ["wait"] => {
            // Polls the clock forever with pauses: the call waits and does not compute.
            loop {
                wasip2::clocks::monotonic_clock::subscribe_duration(1_000_000).block();
            }
        }
        ["panic", text] => panic!("{text}"),
        ["exit"] => std::process::exit(9),
        ["recurse"] => {
            #[allow(unconditional_recursion)]
            fn down(depth: u64) -> u64 {
                std::hint::black_box(depth) + down(depth + 1) + 1
            }
            Ok(info(down(0).to_string(), vec![]))
        }
        ["memory"] => {
            let mut kept = Vec::new();
            loop {
                let mut block = vec![1u8; 1 << 20];
                std::hint::black_box(&mut block);
                kept.push(block);
            }
        }
        ["resources"] => {
            let mut kept = Vec::new();
            loop {
                kept.push(Fields::new());
            }
        }
        ["bad-utf8"] => Ok(info(sys::text_that_is_not_utf8(), vec![])),
        ["print", text] => {
            println!("{text}");
            Ok(info("printed".into(), vec![]))
        }
        ["env"] => Ok(info("env".into(), wasip2::cli::environment::get_environment())),
        ["random"] => Ok(info(format!("{:x}", wasip2::random::random::get_random_u64()), vec![])),
        ["get", url] => fetch(url, &[], None),
        ["get-with", header, value, url] => fetch(url, &[(header, value.as_bytes().to_vec())], None),
        ["grpc", url] => fetch(url, &grpc_headers(), Some(&[0, 0, 0, 0, 0])),
        ["post", size, url] => {
            let body = vec![b'p'; size.parse().unwrap_or(0)];
            fetch(url, &grpc_headers(), Some(&body))
        }
        ["half", url] => half(url),
        ["files"] => Ok(info("files".into(), use_files())),
        ["sockets", authority] => Ok(info("sockets".into(), use_sockets(authority))),
        ["fail-without", what, authority] => {
            let results = if *what == "files" { use_files() } else { use_sockets(authority) };
            Err(error(ErrorKind::Internal, format!("{} attempts failed", results.len())))
        }
        ["networks", count] => {
            let networks = 0..count.parse().unwrap_or(0);
            let kept: Vec<_> = networks.map(|_| wasip2::sockets::instance_network::instance_network()).collect();
            Ok(info(kept.len().to_string(), vec![]))
        }
        ["giant-headers", url] => fetch(url, &[("x-giant", vec![b'h'; 70 << 10])], None),
        ["flood", count, url] => flood(count.parse().unwrap_or(0), url),
        _ => Err(error(ErrorKind::InvalidArgument, format!("no such order: {words:?}"))),
    }
}

/// Returns a request of a gRPC client to the authority of a URL.
fn grpc_request(url: &str, path: &str) -> OutgoingRequest {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let fields = Fields::new();
    for (name, value) in grpc_headers() {
        let _ = fields.append(name, &value);
    }
    let request = OutgoingRequest::new(fields);
    let _ = request.set_method(&Method::Post);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(rest.split('/').next().unwrap_or(rest)));
    let _ = request.set_path_with_query(Some(path));
    request
}

/// Sends a part of a body and then nothing, because the test cancels the call.
fn half(url: &str) -> Result<SandboxInfo, Error> {
    let request = grpc_request(url, "/half");
    let body = request.body().expect("a body");
    let future = outgoing_handler::handle(request, None);
    let stream = body.write().expect("a stream");
    let _ = stream.blocking_write_and_flush(b"a part");
    report("half/sent");
    let result = order(&["wait"]);
    drop((stream, future));
    result
}

/// Sends this number of requests before the first response is awaited.
fn flood(count: usize, url: &str) -> Result<SandboxInfo, Error> {
    let mut futures = Vec::new();
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..count {
        let request = grpc_request(url, "/flood");
        let body = request.body().expect("a body");
        match outgoing_handler::handle(request, None) {
            Ok(future) => futures.push(future),
            Err(_) => refused += 1,
        }
        let _ = OutgoingBody::finish(body, None);
    }
    for future in futures {
        let result = loop {
            match future.get() {
                Some(result) => break result.expect("taken once"),
                None => future.subscribe().block(),
            }
        };
        match result {
            Ok(_) => answered += 1,
            Err(_) => refused += 1,
        }
    }
    let extra = vec![("answered".to_owned(), answered.to_string()), ("refused".to_owned(), refused.to_string())];
    Ok(info("flooded".into(), extra))
}

/// Returns the number after `name-` in an exec id.
fn part(id: &str, name: &str) -> Option<u64> {
    id.split('_').find_map(|part| part.strip_prefix(name)?.strip_prefix('-')?.parse().ok())
}

fn chunk(total: u64, offset: u64, max: u64, seed: u64) -> OutputChunk {
    let size = total.saturating_sub(offset).min(max);
    let data = (offset..offset + size).map(|at| (at.wrapping_mul(31).wrapping_add(at >> 8) + seed) as u8).collect();
    OutputChunk { offset, data, end: offset + size >= total }
}

fn verdict(id: &str) -> Verdict {
    match part(id, "signal") {
        Some(signal) => Verdict::Signaled(signal as u32),
        None => Verdict::Exited(part(id, "exit").unwrap_or(0) as i32),
    }
}

/// Waits for this number of milliseconds.
fn pause(millis: u64) {
    wasip2::clocks::monotonic_clock::subscribe_duration(millis * 1_000_000).block();
}

/// Returns the tags of the only sandbox, if the test has set some: `tags:NAME=VALUE,…`.
fn tags() -> Vec<(String, String)> {
    let env = wasip2::cli::environment::get_environment();
    let given = env.iter().find(|(name, _)| name == "PUPPET_PLAIN").and_then(|(_, value)| value.strip_prefix("tags:"));
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    given.into_iter().flat_map(|given| given.split(',')).filter_map(pair).collect()
}

/// Reports an action to the server of the test, if there is one.
fn report(what: &str) {
    if let Some((_, url)) =
        wasip2::cli::environment::get_environment().into_iter().find(|(name, _)| name == "PUPPET_URL")
    {
        let _ = request(&format!("{url}/report/{what}"), &grpc_headers(), Some(&[0, 0, 0, 0, 0]));
    }
}

impl Guest for Puppet {
    /// Acts like a malicious plugin: reports everything that it sees, in the result and to every address that it can
    /// reach.
    fn describe() -> Result<Description, Error> {
        report("describe");
        let seen = wasip2::cli::environment::get_environment();
        let capability = |(name, note)| Capability { name: format!("x-{name}"), support: Support::Native, note };
        Ok(Description {
            name: "puppet".into(),
            version: "0.1.0".into(),
            capabilities: seen.into_iter().map(capability).collect(),
            options_schema: "{}".into(),
            environment: vec![],
            digests: vec![],
            extra: vec![],
        })
    }

    fn check() -> Result<(), Error> {
        report("check");
        Ok(())
    }

    fn export_cache() -> Vec<u8> {
        let poison = wasip2::cli::environment::get_environment().iter().any(|(_, value)| value == "poison");
        if poison { b"poison".to_vec() } else { b"cache".to_vec() }
    }

    fn import_cache(cache: Vec<u8>) {
        assert!(cache != b"poison", "this cannot be borne");
    }

    fn missing_content(_: Vec<Content>) -> Result<Vec<String>, Error> {
        unsupported()
    }

    fn upload_content(_: Content, _: u64, _: Vec<u8>) -> Result<u64, Error> {
        unsupported()
    }

    fn start_build(spec: ImageSpec) -> Result<BuildProgress, Error> {
        let ImageSource::Registry(image) = spec.source else { return unsupported() };
        let started = STARTED.fetch_add(1, Ordering::Relaxed) + 1;
        report(&format!("build/{started}"));
        let log = vec![LogChunk { stream: None, text: format!("build {started}\n"), at: None }];
        Ok(BuildProgress { log, cursor: format!("{}_start-{started}", image.reference), image: None })
    }

    /// Loses a build until it has been started often enough.
    fn read_build(cursor: String, _: u32, _: u64) -> Result<BuildProgress, Error> {
        let started = part(&cursor, "start").unwrap_or(0);
        if STARTED.load(Ordering::Relaxed) != started {
            return Err(error(ErrorKind::Internal, "another instance has started this build"));
        }
        if part(&cursor, "lost").is_some_and(|times| started <= times) {
            let retry = if cursor.contains("final") { RetryAdvice::Never } else { RetryAdvice::Maybe };
            let happened = if cursor.contains("unclear") { Happened::Unknown } else { Happened::No };
            return Err(Error { retry, happened, ..error(ErrorKind::Unavailable, "the build is lost") });
        }
        let image = BuiltImage { id: "im-puppet".into(), workdir: None, extra: vec![] };
        Ok(BuildProgress { log: vec![], cursor, image: Some(image) })
    }

    fn get_image(_: String) -> Result<BuiltImage, Error> {
        unsupported()
    }

    fn delete_image(_: String) -> Result<(), Error> {
        unsupported()
    }

    fn create(spec: SandboxSpec) -> Result<SandboxInfo, Error> {
        Ok(info(spec.name.unwrap_or_else(|| "sb-puppet".into()), vec![]))
    }

    fn get(id: String) -> Result<SandboxInfo, Error> {
        Ok(info(id, vec![]))
    }

    fn find(name: String) -> Result<SandboxInfo, Error> {
        order(&name.split(' ').collect::<Vec<_>>())
    }

    fn list(_: ListFilter, _: Option<String>, _: u32) -> Result<SandboxPage, Error> {
        let tags = tags();
        if tags.is_empty() {
            return Ok(SandboxPage { items: vec![], next: None });
        }
        report("list");
        let tagged = SandboxInfo { tags, ..info("sb-tagged".into(), vec![]) };
        Ok(SandboxPage { items: vec![tagged], next: None })
    }

    fn wait(_: String, _: u64) -> Result<Option<EndReason>, Error> {
        Ok(Some(EndReason::Terminated))
    }

    fn wait_ready(_: String, _: u64) -> Result<bool, Error> {
        Ok(true)
    }

    fn terminate(_: String) -> Result<(), Error> {
        Ok(())
    }

    fn set_name(_: String, _: String) -> Result<(), Error> {
        unsupported()
    }

    fn get_tags(_: String) -> Result<Vec<(String, String)>, Error> {
        Ok(tags())
    }

    fn set_tags(_: String, _: Vec<(String, String)>) -> Result<(), Error> {
        Ok(())
    }

    fn tunnels(_: String, _: u64) -> Result<Vec<Tunnel>, Error> {
        unsupported()
    }

    fn create_connect_token(_: String, _: u16, _: String) -> Result<ConnectToken, Error> {
        unsupported()
    }

    fn read_logs(_: String, _: LogQuery, _: Option<String>, _: u32) -> Result<LogPage, Error> {
        unsupported()
    }

    fn stats(_: String) -> Result<Usage, Error> {
        Ok(Usage { cpu_core_millis: 3, memory_mib_millis: 4, gpu_millis: 5, extra: vec![] })
    }

    fn set_network(_: String, _: NetworkPolicy) -> Result<(), Error> {
        unsupported()
    }

    fn reload_volumes(_: String) -> Result<(), Error> {
        unsupported()
    }

    fn snapshot_filesystem(_: String, _: String, _: Option<u64>) -> Result<String, Error> {
        unsupported()
    }

    fn snapshot_directory(_: Location, _: String, _: Option<u64>) -> Result<String, Error> {
        unsupported()
    }

    fn mount(_: Location, _: Option<String>) -> Result<(), Error> {
        unsupported()
    }

    fn unmount(_: Location) -> Result<(), Error> {
        unsupported()
    }

    fn snapshot_memory(_: String, _: String) -> Result<String, Error> {
        unsupported()
    }

    fn restore(_: String, _: String, _: Option<String>) -> Result<SandboxInfo, Error> {
        unsupported()
    }

    fn exit_snapshot(_: String, _: u64) -> Result<Option<String>, Error> {
        unsupported()
    }

    fn create_sidecar(_: String, _: SidecarSpec) -> Result<SidecarInfo, Error> {
        unsupported()
    }

    fn list_sidecars(_: String) -> Result<Vec<SidecarInfo>, Error> {
        unsupported()
    }

    fn wait_sidecar(_: String, _: String, _: u64) -> Result<Option<EndReason>, Error> {
        unsupported()
    }

    fn terminate_sidecar(_: String, _: String) -> Result<(), Error> {
        unsupported()
    }

    fn start(_: String, _: ExecSpec) -> Result<(), Error> {
        Ok(())
    }

    fn read_output(exec: ExecRef, request: ReadRequest) -> Result<Output, Error> {
        let id = &exec.exec;
        if id.contains("hang") {
            order(&["wait"])?;
        }
        if id.contains("endless") {
            pause(request.wait);
            let nothing = |offset| OutputChunk { offset, data: vec![], end: false };
            let (stdout, stderr) = (nothing(request.stdout_offset), nothing(request.stderr_offset));
            return Ok(Output { stdout, stderr, verdict: None });
        }
        let most = u64::from(request.max_bytes) + part(id, "excess").unwrap_or(0);
        let (out, err) = (part(id, "out").unwrap_or(0), part(id, "err").unwrap_or(0));
        let stdout = chunk(out, request.stdout_offset, most / 2, 0);
        let stderr = chunk(err, request.stderr_offset, most - stdout.data.len() as u64, 7);
        let verdict = (stdout.end && stderr.end).then(|| verdict(id));
        Ok(Output { stdout, stderr, verdict })
    }

    fn write_input(exec: ExecRef, offset: u64, data: Vec<u8>, eof: bool) -> Result<InputState, Error> {
        // Accepts only a part, so that callers have to continue where it stopped.
        let taken = if data.len() > 1000 { data.len() as u64 * 2 / 3 } else { data.len() as u64 };
        let all = taken == data.len() as u64;
        if exec.exec.contains("tells") {
            report(&format!("input/{}/{eof}", offset + taken));
        }
        if let Some(limit) = part(&exec.exec, "takes") {
            return Ok(InputState { accepted: (offset + taken).min(limit), closed: offset + taken >= limit });
        }
        if eof && all {
            report(&format!("stdin/{}", offset + taken));
        }
        Ok(InputState { accepted: offset + taken, closed: eof && all })
    }

    fn wait_exec(exec: ExecRef, wait: u64) -> Result<Option<Verdict>, Error> {
        if exec.exec.contains("hang") {
            order(&["wait"])?;
        }
        if exec.exec.contains("endless") {
            pause(wait);
            return Ok(None);
        }
        Ok(Some(verdict(&exec.exec)))
    }

    fn signal(exec: ExecRef, number: u32) -> Result<(), Error> {
        report(&format!("signal/{}/{number}", exec.exec));
        Ok(())
    }

    fn resize(_: ExecRef, _: Pty) -> Result<(), Error> {
        Ok(())
    }

    fn run(_: String, spec: ExecSpec, stdin: Vec<u8>, _: OutputLimits) -> Result<RunResult, Error> {
        if spec.id.contains("hang") {
            order(&["wait"])?;
        }
        if spec.id.contains("crash") {
            panic!("crashed as told");
        }
        Ok(RunResult {
            verdict: verdict(&spec.id),
            stdout: Captured { total: stdin.len() as u64, data: stdin },
            stderr: Captured { data: vec![], total: 0 },
            duration: 0,
        })
    }

    fn read_file(at: Location, _: String, offset: u64, max: u32) -> Result<FileChunk, Error> {
        match at.path.strip_prefix("/size/").and_then(|size| size.parse().ok()) {
            Some(size) => {
                let chunk = chunk(size, offset, u64::from(max), 0);
                Ok(FileChunk { data: chunk.data, end: chunk.end })
            }
            None => Err(error(ErrorKind::File(FileFault::NotFound), "there is no such file")),
        }
    }

    fn write_file(
        at: Location,
        _: String,
        _: WriteOptions,
        offset: u64,
        data: Vec<u8>,
        eof: bool,
    ) -> Result<u64, Error> {
        if at.path.starts_with("/denied") {
            return Err(error(ErrorKind::File(FileFault::PermissionDenied), "not yours"));
        }
        // Accepts at most 3 MB at a time.
        let taken = data.len().min(3_000_000) as u64;
        if eof && taken == data.len() as u64 {
            report(&format!("file/{}", offset + taken));
        }
        Ok(offset + taken)
    }

    fn stat(_: Location, _: bool) -> Result<FileInfo, Error> {
        unsupported()
    }

    fn list_directory(_: Location, _: Option<String>, _: u32) -> Result<FilePage, Error> {
        unsupported()
    }

    fn make_directory(_: Location, _: bool) -> Result<(), Error> {
        unsupported()
    }

    fn remove(_: Location, _: bool) -> Result<(), Error> {
        unsupported()
    }

    fn rename(_: Location, _: String, _: bool) -> Result<(), Error> {
        unsupported()
    }

    fn make_symlink(_: Location, _: String) -> Result<(), Error> {
        unsupported()
    }

    fn set_permissions(_: Location, _: u32) -> Result<(), Error> {
        unsupported()
    }

    fn read_tree(_: Location, _: String, _: u64, _: u32) -> Result<FileChunk, Error> {
        unsupported()
    }

    fn write_tree(_: Location, _: String, _: u64, _: Vec<u8>, _: bool) -> Result<u64, Error> {
        unsupported()
    }

    fn watch(_: Location, _: String, _: bool, _: u64, _: u32, _: u64) -> Result<WatchPage, Error> {
        unsupported()
    }
}

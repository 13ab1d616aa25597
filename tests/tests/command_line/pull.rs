//! Runs `plugin pull` with HTTP servers and registries that the test provides.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::Output,
    sync::{Arc, LazyLock, Mutex},
};

use base64::Engine as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use system_tests::{component, feed, sandbox, stderr};

use super::shared;

/// The file that is pulled: the real component.
static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| std::fs::read(component()).expect("cannot read the component"));

static SHA256: LazyLock<String> = LazyLock::new(|| sandbox_host::digest(&COMPONENT));

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", sandbox_host::digest(bytes))
}

/// A request: the path with the query, and the headers with names in lower case.
#[derive(Clone)]
struct Request {
    path: String,
    headers: HashMap<String, String>,
}

/// An answer: the status, the headers, and the body that is actually sent.
#[derive(Clone)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn of(body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        Answer { status: 200, headers: vec![("content-length".into(), body.len().to_string())], body }
    }

    fn status(status: u16) -> Answer {
        Answer { status, ..Answer::of(*b"no") }
    }

    fn to(place: impl Into<String>) -> Answer {
        Answer::status(307).with("location", place)
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// An HTTP server on its own port that handles one request per connection.
struct Server {
    authority: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Server {
        Server::with(None, answer)
    }

    fn with(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Request) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("cannot bind a port");
        let port = listener.local_addr().expect("no local address").port();
        let authority = if tls.is_some() { format!("localhost:{port}") } else { format!("127.0.0.1:{port}") };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                match &tls {
                    None => serve(stream, &answer, &noted),
                    Some(config) => {
                        let connection = ServerConnection::new(config.clone()).expect("cannot create a TLS connection");
                        serve(StreamOwned::new(connection, stream), &answer, &noted);
                    }
                }
            }
        });
        Server { authority, seen }
    }

    /// Returns the requests so far.
    fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("the lock is poisoned").clone()
    }
}

/// Serves one request. Errors are ignored, because the client may close the connection at any time and reports the
/// reason.
fn serve(stream: impl Read + Write, answer: &dyn Fn(&Request) -> Answer, seen: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return };
    let headers = lines[1..].iter().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let request = Request { path: path.to_owned(), headers };
    let answer = answer(&request);
    seen.lock().expect("the lock is poisoned").push(request);
    let mut head = format!("HTTP/1.1 {} It\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = reader.into_inner();
    let _ = stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&answer.body));
    let _ = stream.flush();
}

/// A directory for pulled plugins, and the program that uses it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("cannot create a directory"))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        feed(sandbox().args(arguments).env("SANDBOX_PLUGIN_DIR", self.0.path().join("plugins")), b"")
    }

    fn pull(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json", "plugin", "pull"], arguments].concat());
        assert!(output.status.success(), "{} {}", String::from_utf8_lossy(&output.stdout), stderr(&output));
        serde_json::from_slice(&output.stdout).expect("invalid JSON")
    }

    /// Checks that the pull fails with exit code 125 and all these words, and that it keeps no file.
    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let output = self.run(&[&["plugin", "pull"], arguments].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(125), "{arguments:?}: {text}");
        assert!(output.stdout.is_empty());
        for word in words {
            assert!(text.contains(word), "{arguments:?}: `{word}` is missing in:\n{text}");
        }
        assert!(!text.contains("panicked"), "{text}");
        assert!(self.kept().is_empty(), "{arguments:?}: {:?}", self.kept());
    }

    fn kept(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.0.path().join("plugins")) else { return Vec::new() };
        let names = entries
            .map(|entry| entry.expect("cannot read the directory").file_name().into_string().expect("not UTF-8"));
        names.collect()
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn manifest(layers: &[(&str, &[u8])]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, bytes)| json!({ "mediaType": kind, "digest": sha256(bytes), "size": bytes.len() }))
        .collect();
    let config = json!({ "mediaType": "application/vnd.wasm.config.v0+json", "digest": sha256(b"{}"), "size": 2 });
    serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }))
        .expect("cannot serialise to JSON")
}

/// Returns a registry with this manifest as `a/plugin:1.0`, and one blob for any digest.
fn registry(manifest: Vec<u8>, blob: impl Fn(&Request) -> Answer + Send + 'static) -> Server {
    Server::start(move |request| match request.path.strip_prefix("/v2/a/plugin/") {
        Some(path) if path == "manifests/1.0" || path == format!("manifests/{}", sha256(&manifest)) => {
            Answer::of(manifest.clone()).with("content-type", MANIFEST).with("docker-content-digest", sha256(&manifest))
        }
        Some(path) if path.starts_with("blobs/") => blob(request),
        _ => Answer::status(404),
    })
}

fn good() -> Vec<u8> {
    manifest(&[("application/wasm", &COMPONENT)])
}

#[test]
fn a_url_with_a_digest_is_pulled() {
    let place = Place::new();
    let server = Server::start(|request| match request.path.as_str() {
        "/files/some-provider.wasm?v=1" => Answer::of(COMPONENT.clone()),
        _ => Answer::status(404),
    });
    let address = format!("http://{}/files/some-provider.wasm?v=1", server.authority);
    let pulled = place.pull(&[&format!("{address}#sha256={}", *SHA256)]);
    assert_eq!((&pulled["name"], &pulled["sha256"]), (&json!("some-provider"), &json!(*SHA256)));
    assert_eq!(
        std::fs::read(pulled["file"].as_str().expect("not a string")).expect("cannot read the file"),
        *COMPONENT
    );
    assert_eq!(server.seen()[0].headers.get("host"), Some(&server.authority));
    place.pull(&[&address, "--digest", &SHA256.to_uppercase(), "--name", "second"]);
    let mut kept = place.kept();
    kept.sort();
    assert_eq!(kept, ["second.wasm", "some-provider.wasm"]);

    // The pulled plugin can be used by its name.
    let inspected = place.run(&["--json", "plugin", "inspect", "second"]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).expect("invalid JSON");
    assert_eq!((&inspected["sha256"], &inspected["name"]), (&json!(*SHA256), &json!("modal")));
    let listed =
        place.run(&["--emulator-url", shared().url(), "--plugin", "second", "list", "--tag", "made-by=nobody"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "ID  NAME  STATE  CREATED  TAGS\n", "{}", stderr(&listed));
    let missing = place.run(&["--plugin", "third", "list"]);
    assert!(stderr(&missing).contains("plugin pull"), "{}", stderr(&missing));
}

#[test]
fn a_url_with_a_private_certificate_authority_is_pulled() {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("cannot create a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("invalid key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("no TLS version is supported")
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .expect("invalid certificate");
    let server = Server::with(Some(Arc::new(config)), |_| Answer::of(COMPONENT.clone()));
    let place = Place::new();
    let address = format!("https://{}/it.wasm#sha256={}", server.authority, *SHA256);
    place.refused(&[&address], &["certificate"]);
    let authority = place.0.path().join("ca.pem");
    let text = base64::engine::general_purpose::STANDARD.encode(issued.cert.der());
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(&authority, pem).expect("cannot write the file");
    assert_eq!(place.pull(&[&address, "--ca-file", authority.to_str().expect("not UTF-8")])["name"], "it");
}

#[test]
fn failures_of_a_url_are_reported() {
    let place = Place::new();
    let pin = format!("#sha256={}", *SHA256);
    let server = Server::start(|request| match request.path.as_str() {
        "/other.wasm" => Answer::of(*b"something else"),
        "/cut.wasm" => Answer { body: COMPONENT[..100_000].to_vec(), ..Answer::of(COMPONENT.clone()) },
        "/cut-before.wasm" => Answer { body: Vec::new(), ..Answer::of(COMPONENT.clone()) },
        "/large.wasm" => Answer { headers: vec![("content-length".into(), "999999999999".into())], ..Answer::of(*b"") },
        "/endless.wasm" => Answer { status: 200, headers: Vec::new(), body: vec![0; (64 << 20) + 1] },
        "/busy.wasm" => Answer::status(503),
        "/private.wasm" => Answer::status(403),
        "/loop.wasm" => Answer::to("/loop.wasm"),
        "/nowhere.wasm" => Answer::status(307),
        "/outside.wasm" => Answer::to("http://example.invalid/it.wasm"),
        "/file.wasm" => Answer::to("file:///etc/passwd"),
        "/text.wasm" => Answer::of(*b"this is text"),
        _ => Answer::status(404),
    });
    let at = |path: &str| format!("http://{}/{path}{pin}", server.authority);
    place.refused(&[&at("missing.wasm")], &["the server does not have it", "404"]);
    place.refused(&[&at("other.wasm")], &[&SHA256, "its SHA-256 is"]);
    place.refused(&[&at("cut.wasm")], &["failed after 100000 bytes"]);
    place.refused(&[&at("cut-before.wasm")], &["failed after 0 bytes"]);
    place.refused(&[&at("large.wasm")], &["larger than 67108864 bytes"]);
    place.refused(&[&at("endless.wasm")], &["larger than 67108864 bytes"]);
    place.refused(&[&at("busy.wasm")], &["503", "try again later"]);
    place.refused(&[&at("private.wasm")], &["403"]);
    place.refused(&[&at("loop.wasm")], &["redirects more than"]);
    place.refused(&[&at("nowhere.wasm")], &["redirects to"]);
    place.refused(&[&at("outside.wasm")], &["is not https"]);
    place.refused(&[&at("file.wasm")], &["redirects to", "file:///etc/passwd"]);
    // The content has the expected digest, but is not a plugin.
    let text = sandbox_host::digest(b"this is text");
    let address = format!("http://{}/text.wasm", server.authority);
    place.refused(&[&address, "--digest", &text], &[&format!("cannot pull {address}\n  it is not a WebAssembly")]);

    // These errors are reported before any request is sent.
    let asked = server.seen().len();
    place.refused(&[&address], &["the digest of the file is missing", "--digest"]);
    place.refused(&[&address, "--digest", "12ab"], &["is not a SHA-256 digest"]);
    place.refused(&[&format!("{address}#md5=12")], &["#sha256="]);
    place.refused(&[&at("it.wasm"), "--digest", &text], &["differ"]);
    place.refused(&[&at("it.wasm"), "--name", "../it"], &["is not a valid plugin name"]);
    place.refused(&[&format!("http://{}/{pin}", server.authority)], &["--name"]);
    place.refused(&[&format!("http://example.invalid/it.wasm{pin}")], &["is not https"]);
    let known = format!("https://user:secret@example.invalid/it.wasm{pin}");
    place.refused(&[&known], &["pull https://***@example.invalid/it.wasm", "user name"]);
    assert!(!stderr(&place.run(&["plugin", "pull", &known])).contains("secret"));
    place.refused(&["ftp://example.invalid/it.wasm"], &["https://", "oci://"]);
    place.refused(&["it.wasm"], &["https://", "oci://"]);
    assert_eq!(server.seen().len(), asked);
    drop(server);
    // A bound port that is not listening: no other process can take it in the meantime.
    let socket = TcpListener::bind("127.0.0.1:0").expect("cannot bind a port");
    let closed = format!("http://{}/it.wasm{pin}", socket.local_addr().expect("no local address"));
    drop(socket);
    place.refused(&[&closed], &["refused"]);
}

/// Redirects are followed, also to another host.
#[test]
fn a_redirected_url_is_pulled() {
    let place = Place::new();
    let far =
        Server::start(
            |request| {
                if request.path == "/it?signed=1" { Answer::of(COMPONENT.clone()) } else { Answer::status(404) }
            },
        );
    let place_there = format!("http://{}/it?signed=1", far.authority);
    let near = Server::start(move |request| match request.path.as_str() {
        "/a.wasm" => Answer::to("/b/c"),
        "/b/c" => Answer::to("d?e#f"),
        "/b/d?e" => Answer::to(place_there.clone()),
        _ => Answer::status(404),
    });
    place.pull(&[&format!("http://{}/a.wasm#sha256={}", near.authority, *SHA256)]);
    assert_eq!((near.seen().len(), far.seen().len()), (3, 1));
}

#[test]
fn a_registry_reference_is_pulled() {
    let place = Place::new();
    let server = registry(good(), |request| match request.path.ends_with(&sha256(&COMPONENT)) {
        true => Answer::of(COMPONENT.clone()),
        false => Answer::status(404),
    });
    let reference = format!("oci://{}/a/plugin", server.authority);
    let pulled = place.pull(&[&format!("{reference}:1.0")]);
    assert_eq!((&pulled["name"], &pulled["sha256"]), (&json!("plugin"), &json!(*SHA256)));
    assert_eq!(pulled["manifest"], json!(sha256(&good())));
    assert_eq!(server.seen()[0].headers.get("accept").map(String::as_str), Some(MANIFEST));
    place.pull(&[&format!("{reference}@{}", sha256(&good())), "--digest", &SHA256, "--name", "pinned"]);
    // The output for users instead of JSON.
    let output = place.run(&["plugin", "pull", &format!("{reference}:1.0")]);
    let text = String::from_utf8(output.stdout.clone()).expect("not UTF-8");
    assert!(text.contains(&*SHA256) && stderr(&output).contains("--plugin plugin"), "{text}{}", stderr(&output));
}

/// The registry names a token service. The token is sent to the registry only, not to the server of the blob.
#[test]
fn a_registry_that_requires_a_token_is_used() {
    const TOKEN: &str = "header.payload.signature";
    let place = Place::new();
    let store = Server::start(|_| Answer::of(COMPONENT.clone()));
    let blob = format!("http://{}/blob", store.authority);
    let service = Server::start(|request| match request.path.as_str() {
        "/token?service=the+registry&scope=repository%3Aa%2Fplugin%3Apull" => {
            Answer::of(json!({ "token": TOKEN, "expires_in": 60 }).to_string())
        }
        _ => Answer::status(400),
    });
    let realm = format!("http://{}/token", service.authority);
    let server = Server::start(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer header.payload.signature") {
            let challenge =
                format!("Bearer realm=\"{realm}\",service=\"the registry\",scope=\"repository:x:push,pull\"");
            return Answer::status(401).with("www-authenticate", challenge);
        }
        match request.path.as_str() {
            "/v2/a/plugin/manifests/latest" => Answer::of(good()).with("content-type", MANIFEST),
            _ => Answer::to(blob.clone()),
        }
    });
    place.pull(&[&format!("oci://{}/a/plugin", server.authority)]);
    assert_eq!((server.seen().len(), service.seen().len(), store.seen().len()), (3, 1, 1));
    for request in service.seen().iter().chain(&store.seen()) {
        assert_eq!(request.headers.get("authorization"), None, "{}", request.path);
    }
}

#[test]
fn failures_of_a_registry_are_reported() {
    let wrong = |words: &[&str], server: &Server, rest: &str| {
        Place::new().refused(&[&format!("oci://{}/a/plugin{rest}", server.authority)], words);
    };
    let serve = |_: &Request| Answer::of(COMPONENT.clone());
    let server = registry(good(), serve);
    wrong(&["the server does not have it"], &server, ":2.0");
    wrong(&["the server does not have it"], &server, &format!("@{}", sha256(b"x")));
    wrong(&["not a valid OCI reference"], &server, ":");
    wrong(&["not a valid OCI reference"], &server, "@sha256:12");
    wrong(&["not a valid OCI reference"], &server, "/../x");
    Place::new().refused(
        &[&format!("oci://{}/a/plugin:1.0", server.authority), "--digest", &sha256(b"x")],
        &["its SHA-256 is"],
    );

    // The blob differs from its digest in the manifest, with the same length or another one.
    let mut changed = COMPONENT.clone();
    changed[1000] ^= 1;
    wrong(&["its SHA-256 is"], &registry(good(), move |_| Answer::of(changed.clone())), ":1.0");
    wrong(&["bytes arrived"], &registry(good(), |_| Answer::of(*b"short")), ":1.0");
    wrong(
        &["larger than"],
        &registry(good(), |_| Answer { headers: Vec::new(), ..Answer::of([&COMPONENT[..], b"more"].concat()) }),
        ":1.0",
    );
    let cut = |_: &Request| Answer { body: COMPONENT[..1000].to_vec(), ..Answer::of(COMPONENT.clone()) };
    wrong(&["failed after 1000 bytes"], &registry(good(), cut), ":1.0");
    wrong(&["is not https"], &registry(good(), |_| Answer::to("http://example.invalid/x")), ":1.0");

    // The manifest differs from its digest in the reference.
    let other = Server::start(|_| Answer::of(good()).with("content-type", MANIFEST));
    wrong(&["use its manifest", "its SHA-256 is"], &other, &format!("@{}", sha256(b"x")));
    let lying = Server::start(|_| {
        Answer::of(good()).with("content-type", MANIFEST).with("docker-content-digest", sha256(b"x"))
    });
    wrong(&["use its manifest", "its SHA-256 is"], &lying, ":1.0");

    // Manifests of other kinds of content.
    let image = manifest(&[("application/vnd.oci.image.layer.v1.tar+gzip", b"tar")]);
    wrong(&["application/wasm", "tar+gzip"], &registry(image, serve), ":1.0");
    wrong(&["one layer"], &registry(manifest(&[]), serve), ":1.0");
    let forged = manifest(&[("x\u{1b}[1m\n  try: anything", b"x")]);
    wrong(&["one layer", r#"["x\u{1b}[1m\n  try: anything"]"#], &registry(forged, serve), ":1.0");
    let two = manifest(&[("application/wasm", &COMPONENT), ("application/wasm", b"x")]);
    wrong(&["one layer"], &registry(two, serve), ":1.0");
    let index = "application/vnd.oci.image.index.v1+json";
    wrong(&[index], &registry(json!({ "mediaType": index, "manifests": [] }).to_string().into(), serve), ":1.0");
    wrong(&["its manifest is invalid"], &registry(b"<html>".to_vec(), serve), ":1.0");
    let huge = json!({ "mediaType": MANIFEST, "layers": [
        { "mediaType": "application/wasm", "digest": sha256(b"x"), "size": 1_u64 << 40 },
    ]});
    wrong(&["larger than 67108864 bytes"], &registry(huge.to_string().into(), serve), ":1.0");
    let md5 = json!({ "mediaType": MANIFEST, "layers": [
        { "mediaType": "application/wasm", "digest": "md5:12", "size": 1 },
    ]});
    wrong(&["is not supported"], &registry(md5.to_string().into(), serve), ":1.0");

    // Failures of the token service.
    let challenge = |challenge: &str| {
        let challenge = challenge.to_owned();
        Server::start(move |_| Answer::status(401).with("www-authenticate", challenge.clone()))
    };
    wrong(&["requires a login"], &challenge("Basic realm=\"x\""), ":1.0");
    wrong(&["get a token", "is not https"], &challenge("Bearer realm=\"http://example.invalid/token\""), ":1.0");
    let closed = Server::start(|_| Answer::status(401));
    wrong(&["requires a login"], &challenge(&format!("Bearer realm=\"http://{}/t\"", closed.authority)), ":1.0");
    let empty = Server::start(|_| Answer::of(*b"{}"));
    wrong(
        &["the response contains no token"],
        &challenge(&format!("Bearer realm=\"http://{}/t\"", empty.authority)),
        ":1.0",
    );
}

/// A name in the directory of pulled plugins takes precedence over a file of that name in the working directory.
#[test]
fn a_plugin_name_takes_precedence_over_a_file() {
    let place = Place::new();
    let server = Server::start(|_| Answer::of(COMPONENT.clone()));
    place.pull(&[&format!("http://{}/it.wasm#sha256={}", server.authority, *SHA256)]);
    let work = place.0.path().join("work");
    std::fs::create_dir(&work).expect("cannot create the directory");
    std::fs::write(work.join("it"), "no plugin").expect("cannot write the file");
    let inspect = |name: &str, directory: &Path| {
        let mut command = sandbox();
        command.args(["--json", "plugin", "inspect", name]).current_dir(directory);
        feed(command.env("SANDBOX_PLUGIN_DIR", place.0.path().join("plugins")), b"")
    };
    assert!(inspect("it", &work).status.success());
    assert_eq!(inspect("./it", &work).status.code(), Some(125));
}

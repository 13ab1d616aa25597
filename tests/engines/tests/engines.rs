//! Each engine starts, runs containers, connects their networks with the machine, and leaves nothing behind. Without root or
//! the packages, the tests print why and pass, except in CI.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use engines::{Engine, Error, IMAGES, Kind, Options, REPOSITORY, USER, WORLD};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);

/// Starts an engine. `None` if the machine cannot run it, which fails in CI.
fn start(kind: Kind, options: &Options) -> Option<Engine> {
    match Engine::start(kind, options) {
        Ok(engine) => Some(engine),
        Err(error @ Error::Missing(_)) if std::env::var_os("CI").is_none() => {
            println!("skipped: {error}");
            None
        }
        Err(error) => panic!("{}: {error}", kind.name()),
    }
}

fn engines() -> impl Iterator<Item = Engine> {
    [Kind::Dockerd, Kind::Podman].into_iter().filter_map(|kind| start(kind, &Options::default()))
}

/// Looks at a state until it has a value. Fails after the deadline.
fn until<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = state() {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "still not: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a request that has to succeed.
fn call(engine: &Engine, method: &str, target: &str, body: &Value) -> Value {
    let (status, answer) = engine.request(method, target, Some(body)).expect("no answer");
    assert!(status < 300, "{}: {method} {target}: {status} {answer}", engine.kind().name());
    answer
}

/// Sends a request through the TCP port of an engine, as a client does, and returns the answer with its head.
fn through_port(engine: &Engine, method: &str, target: &str) -> String {
    with_header(engine, method, target, "Accept: */*")
}

fn with_header(engine: &Engine, method: &str, target: &str, header: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", engine.port())).expect("cannot connect");
    write!(stream, "{method} {target} HTTP/1.0\r\n{header}\r\nContent-Length: 0\r\n\r\n").expect("cannot write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("cannot read");
    answer
}

/// Creates and starts a container, and returns its id.
fn container(engine: &Engine, command: &str, host: &Value) -> String {
    let spec = json!({
        "Image": IMAGES[0],
        "Cmd": ["sh", "-c", command],
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": host,
    });
    let id = call(engine, "POST", "/containers/create", &spec)["Id"].as_str().expect("no id").to_owned();
    // Through the port, so that published ports are open after the answer.
    let started = through_port(engine, "POST", &format!("/containers/{id}/start"));
    assert!(started.contains(" 204 "), "{started}");
    id
}

/// Runs a command in a container and returns its output.
fn exec(engine: &Engine, id: &str, user: &str, command: &str) -> String {
    let spec = json!({
        "Cmd": ["sh", "-c", command], "User": user, "AttachStdout": true, "AttachStderr": true, "Tty": true,
    });
    let exec = call(engine, "POST", &format!("/containers/{id}/exec"), &spec);
    let exec = exec["Id"].as_str().expect("no id").to_owned();
    let output = call(engine, "POST", &format!("/exec/{exec}/start"), &json!({"Detach": false, "Tty": true}));
    output.as_str().map_or_else(|| output.to_string(), str::to_owned).replace('\r', "")
}

fn http_get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    (!answer.is_empty()).then_some(answer)
}

/// Serves one text to all connections on a port of 127.0.0.1, until the test program ends.
fn serve(text: &'static str) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("no port");
    let port = listener.local_addr().expect("no address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("cannot accept");
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{text}");
        }
    });
    port
}

/// Returns what remains of an engine on the machine: processes, mounts, control groups, files.
fn remains(folder: &Path) -> Vec<String> {
    let name = folder.file_name().expect("no name").to_string_lossy().into_owned();
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").expect("no /proc").flatten() {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&name) {
            found.push(command);
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").expect("no mounts");
    found.extend(mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned));
    let groups = mounts.lines().filter(|line| line.split(' ').nth(2).is_some_and(|kind| kind.starts_with("cgroup")));
    let groups = groups.filter_map(|line| line.split(' ').nth(1));
    let groups = groups.map(|point| Path::new(point).join(format!("engines-{name}")));
    found.extend(groups.chain([folder.to_path_buf()]).filter(|path| path.exists()).map(|path| format!("{path:?}")));
    found
}

#[test]
fn a_container_runs_and_nothing_remains() {
    for engine in engines() {
        let folder = engine.folder().to_path_buf();
        let id = container(&engine, "echo begun; exec sleep 1000", &json!({"NetworkMode": "none"}));
        assert_eq!(exec(&engine, &id, "", "echo $((6 * 7)); id -u"), "42\n0\n");
        assert_eq!(exec(&engine, &id, "agent", "id -u; cd; pwd; touch x; ls /root"), {
            "1000\n/home/agent\nls: can't open '/root': Permission denied\n"
        });
        assert!(!remains(&folder).is_empty(), "the check finds nothing of a running engine");
        engine.end().expect("cannot end");
        assert_eq!(remains(&folder), Vec::<String>::new());
    }
}

#[test]
fn the_images_have_a_command_and_the_promised_programs() {
    for engine in engines() {
        for image in IMAGES {
            let found = call(&engine, "GET", &format!("/images/{image}/json"), &Value::Null);
            assert_eq!(found["Config"]["Cmd"], json!(["sh"]));
            assert!(found["Config"]["Env"][0].as_str().is_some_and(|text| text.starts_with("PATH=")), "{found}");
        }
        let spec = json!({"Image": IMAGES[1], "Cmd": ["bash", "-c", "exec sleep 1000"]});
        let id = call(&engine, "POST", "/containers/create", &spec)["Id"].as_str().expect("no id").to_owned();
        call(&engine, "POST", &format!("/containers/{id}/start"), &Value::Null);
        assert_eq!(exec(&engine, &id, "", "/bin/bash -c 'echo ${BASH_VERSION%%.*}'; stat -c %a /tmp"), "5\n1777\n");
    }
}

#[test]
fn containers_have_the_networks_of_a_server() {
    let outside = serve("from outside");
    for engine in engines() {
        engine.reach(outside).expect("cannot reach");
        let fetch = |host| format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {host} {outside} 2>&1");
        let open = container(&engine, "exec sleep 1000", &json!({}));
        let page = exec(&engine, &open, "", &fetch(WORLD));
        assert!(page.ends_with("\n\nfrom outside"), "{page}");
        let none = container(&engine, "exec sleep 1000", &json!({"NetworkMode": "none"}));
        let refused = exec(&engine, &none, "", &fetch(WORLD));
        assert!(refused.contains("unreachable"), "{}: {refused}", engine.kind().name());
        // No packet leaves the machine.
        let refused = exec(&engine, &open, "", &fetch("198.51.100.1"));
        assert!(refused.contains("unreachable"), "{refused}");
    }
}

#[test]
fn a_published_port_is_open_while_its_container_runs() {
    for engine in engines() {
        let host = json!({"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}});
        let id = container(&engine, "echo text >/tmp/page; exec httpd -f -p 80 -h /tmp", &host);
        let found = call(&engine, "GET", &format!("/containers/{id}/json"), &Value::Null);
        let port =
            found["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"].as_str().and_then(|text| text.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("no port: {found}"));
        TcpStream::connect(("127.0.0.1", port)).expect("the port is closed after the answer");
        let page = until("the server answers", || http_get(port));
        assert!(page.ends_with("\r\n\r\ntext\n"), "{page}");
        through_port(&engine, "DELETE", &format!("/containers/{id}?force=true"));
        until("the port is closed", || {
            through_port(&engine, "GET", "/_ping");
            TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
        });
    }
}

/// The program is killed, so nothing of it can clean up.
#[test]
fn an_engine_ends_with_its_owner() {
    for kind in Kind::ALL {
        if start(kind, &Options::default()).is_none() {
            return;
        }
        let mut program = Command::new(env!("CARGO_BIN_EXE_engines"))
            .args(["start", kind.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cannot start");
        let mut line = String::new();
        BufReader::new(program.stdout.take().expect("no output")).read_line(&mut line).expect("no line");
        let line: Value = serde_json::from_str(&line).expect("no JSON");
        let folder = PathBuf::from(line["folder"].as_str().expect("no folder"));
        assert!(!remains(&folder).is_empty());
        program.kill().expect("cannot kill");
        program.wait().expect("cannot wait");
        until("nothing remains", || remains(&folder).is_empty().then_some(()));
    }
}

#[test]
fn the_program_ends_with_its_input() {
    if start(Kind::Registry, &Options::default()).is_none() {
        return;
    }
    let mut program = Command::new(env!("CARGO_BIN_EXE_engines"))
        .args(["start", "registry", "--login"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot start");
    let mut line = String::new();
    let mut output = BufReader::new(program.stdout.take().expect("no output"));
    output.read_line(&mut line).expect("no line");
    let line: Value = serde_json::from_str(&line).expect("no JSON");
    assert_eq!(line["user"]["name"], USER.0);
    drop(program.stdin.take());
    assert!(program.wait().expect("cannot wait").success());
    assert_eq!(remains(Path::new(line["folder"].as_str().expect("no folder"))), Vec::<String>::new());
}

/// Pulls the image of a registry, and returns the name and the answer.
fn pull(engine: &Engine, registry: &Engine, password: &str) -> (String, String) {
    let login = json!({"username": USER.0, "password": password, "serveraddress": registry.host()}).to_string();
    let header = format!("X-Registry-Auth: {}", BASE64_URL_SAFE.encode(login));
    let name = format!("{}/{REPOSITORY}", registry.host());
    let target = format!("/images/create?fromImage={name}&tag=latest");
    let answer = match password {
        "" => through_port(engine, "POST", &target),
        _ => with_header(engine, "POST", &target, &header),
    };
    (format!("{name}:latest"), answer)
}

#[test]
fn images_are_pulled_from_a_registry_with_and_without_a_login() {
    let Some(open) = start(Kind::Registry, &Options::default()) else { return };
    let Some(closed) = start(Kind::Registry, &Options { login: true, ..Options::default() }) else { return };
    for engine in engines() {
        let has =
            |image: &str| engine.request("GET", &format!("/images/{image}/json"), None).expect("no answer").0 == 200;
        engine.reach(open.port()).expect("cannot reach");
        engine.reach(closed.port()).expect("cannot reach");
        for (registry, password, succeeds) in
            [(&open, "", true), (&closed, "", false), (&closed, "wrong", false), (&closed, USER.1, true)]
        {
            let (image, answer) = pull(&engine, registry, password);
            assert_eq!(has(&image), succeeds, "{}, password `{password}`: {answer}", engine.kind().name());
        }
        let spec = json!({"Image": format!("{}/{REPOSITORY}:latest", closed.host()), "Cmd": ["sleep", "1000"]});
        let id = call(&engine, "POST", "/containers/create", &spec)["Id"].as_str().expect("no id").to_owned();
        call(&engine, "POST", &format!("/containers/{id}/start"), &Value::Null);
        assert_eq!(exec(&engine, &id, "agent", "id -un"), "agent\n");
    }
}

#[test]
fn an_engine_with_tls_demands_a_certificate() {
    let Some(engine) = start(Kind::Dockerd, &Options { tls: true, ..Options::default() }) else { return };
    let client = engines::packages().expect("no packages").join("usr/bin/docker");
    let certificates = engine.certificates().expect("no certificates");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&client);
        command.env_clear().env("HOME", engine.folder()).env("DOCKER_HOST", engine.host()).args(arguments);
        command.output().expect("cannot start")
    };
    let path = |name: &str| certificates.join(name).display().to_string();
    let (authority, certificate, key) = (path("ca.pem"), path("cert.pem"), path("key.pem"));
    let known = ["--tlsverify", "--tlscacert", &authority, "--tlscert", &certificate, "--tlskey", &key];
    let listed = run(&[&known[..], &["images", "--format", "{{.Repository}}"]].concat());
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("busybox"));
    assert!(!run(&["images"]).status.success());
    let unknown = run(&["--tlsverify", "--tlscacert", &authority, "images"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("certificate"), "{unknown:?}");
}

#[test]
fn options_of_other_kinds_are_refused() {
    for (kind, options) in [
        (Kind::Podman, Options { tls: true, ..Options::default() }),
        (Kind::Dockerd, Options { login: true, ..Options::default() }),
    ] {
        assert!(Engine::start(kind, &options).is_err());
    }
}

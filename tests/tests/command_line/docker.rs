//! The provider for Docker with a real engine: the whole output of the commands, compared with a snapshot file. The checks of
//! the provider itself are those of `sandbox-host conformance`, which `cargo xtask conformance` runs on both engines.

use std::{
    io::Read as _,
    net::TcpStream,
    time::{Duration, Instant},
};

use engines::{Engine, Error, Kind, Options, REPOSITORY, USER};

use super::output::Transcript;

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

/// Reads what a port sends to each connection, once something serves it.
fn read_port(address: &str) -> String {
    let begun = Instant::now();
    loop {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(address)
            && stream.read_to_string(&mut text).is_ok()
            && !text.is_empty()
        {
            return text;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was sent by {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn commands_print_the_same_with_an_engine() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let host = engine.host();
    let variables = [("DOCKER_HOST", &*host), ("DOCKER_DEFAULT_IMAGE", "tools:latest"), ("SANDBOX_PLUGIN", "docker")];
    let mut it = Transcript::new();
    let printed = |it: &mut Transcript, arguments: &[&str], input: &[u8]| {
        let output = it.with(&variables, arguments, input);
        String::from_utf8(output.stdout).expect("not UTF-8").trim().to_owned()
    };
    printed(&mut it, &["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    printed(&mut it, &["run", "--json", "--image", "busybox:latest", "--", "sh", "-c", "kill -15 $$"], b"");
    printed(&mut it, &["run", "-i", "--", "wc", "-c"], &[0; 1000]);
    printed(&mut it, &["run", "--timeout", "1s", "--", "sleep", "600"], b"");
    printed(&mut it, &["run", "--user", "agent", "--", "id", "-un"], b"");
    printed(&mut it, &["run", "--user", "no-such-user", "--", "true"], b"");
    printed(&mut it, &["run", "--", "no-such-program"], b"");
    printed(&mut it, &["run", "--option", "nope=1", "--", "true"], b"");
    printed(&mut it, &["run", "--region", "mars", "--", "true"], b"");
    let serve = "while true; do hostname | nc -l -p 7000; done";
    let create = ["create", "--name", "one", "--tag", "a=b", "--port", "7000/tcp", "--", "sh", "-c", serve];
    let id = printed(&mut it, &create, b"");
    printed(&mut it, &["create", "--name", "one"], b"");
    printed(&mut it, &["exec", &id, "--", "sh", "-c", "echo stays > /kept; pwd"], b"");
    std::fs::write(it.path().join("file"), "content").expect("cannot write the file");
    printed(&mut it, &["cp", "file", &format!("{id}:/data/file")], b"");
    printed(&mut it, &["cp", &format!("{id}:/data/file"), "back"], b"");
    assert_eq!(std::fs::read(it.path().join("back")).ok().as_deref(), Some(&b"content"[..]), "{}", it.text);
    printed(&mut it, &["cat", &format!("{id}:/data/none")], b"");
    printed(&mut it, &["tags", &id, "a=c", "d=e"], b"");
    printed(&mut it, &["list"], b"");
    let tunnels = printed(&mut it, &["tunnels", "--json", &id], b"");
    let tunnels: serde_json::Value = serde_json::from_str(&tunnels).expect("invalid JSON");
    let port = &tunnels[0]["public_port"];
    assert_eq!(read_port(&format!("127.0.0.1:{port}")).trim(), &id[..12]);
    it.interrupted(&variables, &["forward", &id, "0:7000"], |line| {
        let address = line.split(' ').next().unwrap_or_default();
        assert_eq!(read_port(address).trim(), &id[..12], "{line}");
    });
    printed(&mut it, &["forward", &id, "0:9"], b"");
    let snapshot = printed(&mut it, &["snapshot", "-q", &id], b"");
    printed(&mut it, &["run", "--image", &format!("id:{snapshot}"), "--", "cat", "/kept"], b"");
    printed(&mut it, &["pause", &id], b"");
    printed(&mut it, &["exec", &id, "--", "true"], b"");
    printed(&mut it, &["resume", &id], b"");
    printed(&mut it, &["exec", &id, "--", "cat", "/kept"], b"");
    printed(&mut it, &["image", "rm", &snapshot], b"");
    printed(&mut it, &["terminate", &id], b"");
    printed(&mut it, &["wait", &id], b"");
    let id = printed(&mut it, &["create", "-q", "--", "sh", "-c", "echo one; echo two >&2; exit 3"], b"");
    printed(&mut it, &["wait", &id], b"");
    printed(&mut it, &["logs", &id], b"");
    engine.end().expect("the engine did not end");
    it.check("docker");
}

#[test]
fn an_engine_is_reached_by_its_socket_and_by_tls() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let run = ["--plugin", "docker", "run", "--image", "busybox:latest", "--", "echo", "hi"];
    let socket = format!("unix://{}", engine.socket().display());
    let output = Transcript::new().with(&[("DOCKER_HOST", &socket)], &run, b"");
    assert_eq!(output.stdout, b"hi\n", "{}", String::from_utf8_lossy(&output.stderr));
    engine.end().expect("the engine did not end");

    let Some(engine) = start(Kind::Dockerd, &Options { tls: true, ..Options::default() }) else { return };
    let (host, folder) = (engine.host(), engine.certificates().expect("no certificates"));
    let folder = folder.to_string_lossy();
    let variables = [("DOCKER_HOST", &*host), ("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", &*folder)];
    let output = Transcript::new().with(&variables, &run, b"");
    assert_eq!(output.stdout, b"hi\n", "{}", String::from_utf8_lossy(&output.stderr));
    // Without the client's certificate, the engine refuses the connection.
    let output = Transcript::new().with(&variables[..1], &run, b"");
    assert!(!output.status.success());
    engine.end().expect("the engine did not end");

    let output = Transcript::new().with(&[("DOCKER_HOST", "unix:///nonexistent/docker.sock")], &run, b"");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/nonexistent/docker.sock") && text.contains("DOCKER_HOST"), "{text}");
}

#[test]
fn an_image_is_pulled_with_a_login() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let Some(registry) = start(Kind::Registry, &Options { login: true, ..Options::default() }) else { return };
    engine.reach(registry.port()).expect("the engine cannot reach the registry");
    let (host, server) = (engine.host(), registry.host());
    let image = format!("{server}/{REPOSITORY}");
    let variables = |password| {
        [
            ("DOCKER_HOST", &*host),
            ("DOCKER_REGISTRY_SERVER", &*server),
            ("DOCKER_REGISTRY_USER", USER.0),
            ("DOCKER_REGISTRY_PASSWORD", password),
        ]
    };
    let mut it = Transcript::new();
    // The user may name what the plugin can read. The password is not among it: only the host uses it.
    let policy =
        "[grants]\norigins = ['engine']\nenv = ['DOCKER_HOST', 'DOCKER_REGISTRY_USER', 'DOCKER_REGISTRY_SERVER']\n";
    std::fs::write(it.path().join("policy.toml"), policy).expect("cannot write the file");
    let run = ["--plugin", "docker", "--policy", "policy.toml", "run", "--image", &image];
    let with_login = [&run[..], &["--registry-credential", "registry", "--", "echo", "hi"]].concat();
    let without_login = [&run[..], &["--", "echo", "hi"]].concat();
    let dockerfile = it.path().join("Dockerfile");
    std::fs::write(&dockerfile, format!("FROM {image}\nRUN echo built > /built\n")).expect("cannot write the file");
    let build =
        ["--plugin", "docker", "build", "-q", "--dockerfile", "Dockerfile", "--registry-credential", "registry"];

    for (variables, arguments, says) in [
        (&variables(USER.1)[..], &without_login, "permission-denied"),
        (&variables("not the password")[..], &with_login, "permission-denied"),
        // The host does not send a request whose credential is missing.
        (&variables(USER.1)[..3], &with_login, "DOCKER_REGISTRY_PASSWORD"),
        (&variables("not the password")[..], &build.to_vec(), "build-failed"),
    ] {
        let output = it.with(variables, &[&["--json"], &arguments[..]].concat(), b"");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(text.contains(says) && !text.contains("not the password"), "{arguments:?}: {text}");
    }
    // A build pulls its base by itself.
    for arguments in [&build.to_vec(), &with_login] {
        let output = it.with(&variables(USER.1), arguments, b"");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(it.text.contains("hi\n"), "{}", it.text);
    // What was pulled with a login can be used without one.
    let output = it.with(&variables(USER.1)[..1], &without_login, b"");
    assert_eq!(output.stdout, b"hi\n", "{}", String::from_utf8_lossy(&output.stderr));
    registry.end().expect("the registry did not end");
    engine.end().expect("the engine did not end");
}

/// Starts the commands that build with BuildKit.
fn build<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--plugin", "docker", "build", "--dockerfile", "Dockerfile"], more].concat()
}

#[test]
fn a_dockerfile_for_buildkit_is_built() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let host = engine.host();
    let variables = [("DOCKER_HOST", &*host)];
    let mut it = Transcript::new();
    let text = "# syntax=docker/dockerfile:1\n\
        ARG BASE=none\nFROM $BASE AS below\nARG WORD=none\n\
        COPY --chmod=640 data /data\n\
        RUN --mount=type=cache,target=/cache echo kept >> /cache/file && cp /cache/file /cached\n\
        RUN --mount=type=bind,source=data,target=/in cp /in /bound\n\
        RUN --mount=type=bind,from=tools:latest,target=/tools ls /tools/bin/bash > /other\n\
        RUN --mount=type=tmpfs,target=/t grep -c ' /t tmpfs ' /proc/mounts > /mounts; echo \"printed $WORD\"\n\
        FROM below\nWORKDIR /srv\nFROM not.example/needed\nRUN false\n";
    std::fs::write(it.path().join("Dockerfile"), text).expect("cannot write the file");
    std::fs::write(it.path().join("data"), "content\n").expect("cannot write the file");
    let arguments = build(&["--build-arg", "WORD=given", "--build-arg", "BASE=busybox:latest", "--target", "1"]);
    let output = it.with(&variables, &arguments, b"");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains(" printed given\n") && said.contains(" COPY --chmod=640 "),
        "{said}"
    );
    let image = format!("id:{}", String::from_utf8_lossy(&output.stdout).trim());
    let look = "stat -c %a /data; cat /cached /bound /other /mounts; pwd";
    let output = it.with(&variables, &["--plugin", "docker", "run", "--image", &image, "--", "sh", "-c", look], b"");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        printed,
        "640\nkept\ncontent\n/tools/bin/bash\n1\n/srv\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let text = "FROM busybox:latest\nRUN --mount=type=cache,target=/c echo first\n\
        RUN --mount=type=cache,target=/c echo last words; exit 7\n";
    std::fs::write(it.path().join("Dockerfile"), text).expect("cannot write the file");
    let output = it.with(&variables, &[&["--json"], &build(&[])[..]].concat(), b"");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("invalid JSON");
    let message = said["error"]["why"].as_str().unwrap_or_default().to_string();
    assert_eq!(said["error"]["kind"], "build-failed", "{said}");
    for part in ["RUN --mount=type=cache,target=/c echo last words; exit 7", "exit code: 7", "\nlast words"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("first"), "{message}");
    engine.end().expect("the engine did not end");
}

/// BuildKit is asked without a session, which it needs for some parts (docs/docker.md).
#[test]
fn what_buildkit_cannot_do_is_refused_with_the_reason() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let host = engine.host();
    let mut it = Transcript::new();
    for (text, names) in [
        ("FROM busybox:latest\nRUN --mount=type=secret,id=x true\n", "RUN --mount=type=secret"),
        ("FROM busybox:latest\nRUN <<EOF\ntrue\nEOF\n", "<<EOF"),
        ("FROM busybox:latest\nCOPY <<EOF /file\ntext\nEOF\n", "<<EOF"),
        ("FROM busybox:latest\nCOPY --link Dockerfile /file\n", "COPY --link"),
        ("# syntax=x.example/y\nFROM busybox:latest\nRUN --mount=type=cache,target=/c true\n", "# syntax=x.example/y"),
    ] {
        std::fs::write(it.path().join("Dockerfile"), text).expect("cannot write the file");
        let output = it.with(&[("DOCKER_HOST", &*host)], &build(&[]), b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("BuildKit") && said.contains(names), "{text}: {said}");
    }
    engine.end().expect("the engine did not end");
}

/// Without a session BuildKit does not pull with a login, so the provider does.
#[test]
fn the_base_of_a_build_by_buildkit_is_pulled_with_a_login() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let Some(registry) = start(Kind::Registry, &Options { login: true, ..Options::default() }) else { return };
    engine.reach(registry.port()).expect("the engine cannot reach the registry");
    let (host, server) = (engine.host(), registry.host());
    let mut it = Transcript::new();
    let text = format!("FROM {server}/{REPOSITORY}\nRUN --mount=type=cache,target=/c true\n");
    std::fs::write(it.path().join("Dockerfile"), text).expect("cannot write the file");
    let variables = |password, server| {
        [
            ("DOCKER_HOST", &*host),
            ("DOCKER_REGISTRY_SERVER", server),
            ("DOCKER_REGISTRY_USER", USER.0),
            ("DOCKER_REGISTRY_PASSWORD", password),
        ]
    };
    let with_login = [&["--json"], &build(&["--registry-credential", "registry"])[..]].concat();
    // The login of another registry is not sent to this one.
    for (password, server, arguments) in [
        ("not the password", &*server, &with_login[..]),
        (USER.1, "other.example", &with_login[..]),
        (USER.1, &*server, &with_login[..with_login.len() - 2]),
    ] {
        let output = it.with(&variables(password, server), arguments, b"");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains("build-failed") && said.contains("Could not pull"), "{said}");
    }
    let output = it.with(&variables(USER.1, &*server), &with_login, b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    registry.end().expect("the registry did not end");
    engine.end().expect("the engine did not end");
}

/// Returns whether a process runs whose arguments contain this word.
fn runs(word: &str) -> bool {
    let mut processes = std::fs::read_dir("/proc").expect("cannot read /proc").flatten();
    processes.any(|process| {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
}

/// Waits until [`runs`] returns this value.
fn wait_for(word: &str, running: bool) {
    let begun = Instant::now();
    while runs(word) != running {
        assert!(begun.elapsed() < Duration::from_secs(60), "`{word}` runs: {}", !running);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_end_of_the_program_ends_a_build_by_buildkit() {
    let Some(engine) = start(Kind::Dockerd, &Options::default()) else { return };
    let host = engine.host();
    let mut it = Transcript::new();
    // The length of the sleep occurs in no other process.
    let word = format!("{}", 3_000_000_000 + u64::from(std::process::id()));
    let text = format!("FROM busybox:latest\nRUN --mount=type=cache,target=/c sleep {word}\n");
    std::fs::write(it.path().join("Dockerfile"), text).expect("cannot write the file");
    it.ended(&[("DOCKER_HOST", &*host)], &build(&[]), || wait_for(&word, true));
    wait_for(&word, false);
    engine.end().expect("the engine did not end");
}

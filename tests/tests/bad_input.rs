//! What goes wrong in use: each time a message that says what and what to do, and exit code 125.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use system_tests::{Emulator, feed, sandbox, stderr};

/// Fails as our own failures do, and says all of these.
fn refused(output: &Output, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is missing in:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

fn with_tokens(command: &mut Command) -> &mut Command {
    command.env("MODAL_TOKEN_ID", "ak-test").env("MODAL_TOKEN_SECRET", "as-test")
}

#[test]
fn no_credentials_and_no_emulator() {
    let output = sandbox().args(["run", "--", "true"]).output().expect("it runs");
    refused(&output, &["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "--emulator"]);
}

#[test]
fn a_wrong_address() {
    for url in ["ftp://example.org", "http://", "not an address", "http://host:port"] {
        let output = with_tokens(&mut sandbox()).env("MODAL_SERVER_URL", url).arg("list").output().expect("it runs");
        refused(&output, &[url, "MODAL_SERVER_URL"]);
    }
}

#[test]
fn a_port_with_nobody_listening() {
    // Bound and not listening: nobody else can take it meanwhile.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("an address"));
    drop(socket);
    let output = sandbox().args(["--emulator-url", &url, "list"]).output().expect("it runs");
    refused(&output, &[&url, "refused"]);
}

/// The program said to check the two variables, and ignored them.
#[test]
fn an_emulator_that_takes_one_pair_of_credentials() {
    let emulator = Emulator::with(&["--token", "ak-own:as-own"]);
    let list = |id: &str| {
        let mut command = sandbox();
        command.args(["--emulator-url", emulator.url(), "list"]);
        command.env("MODAL_TOKEN_ID", id).env("MODAL_TOKEN_SECRET", "as-own").output().expect("it runs")
    };
    refused(&list("ak-other"), &["MODAL_TOKEN_ID"]);
    let output = list("ak-own");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_plugin_that_is_none() {
    let directory = std::env::temp_dir().join(format!("sandbox-plugins-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let cases: [(PathBuf, &str); 6] = [
        (directory.join("missing.wasm"), "missing.wasm"),
        (write("text.wasm", b"this is text"), "not a WebAssembly"),
        (write("empty.wasm", b""), "not a WebAssembly"),
        (write("module.wasm", b"\0asm\x01\0\0\0"), "module"),
        // A component without imports and exports.
        (write("other.wasm", b"\0asm\x0d\0\x01\0"), "harness:sandbox"),
        (write("cut.wasm", &std::fs::read(system_tests::component()).expect("it")[..5000]), "cut.wasm"),
    ];
    for (path, word) in cases {
        let path = path.to_str().expect("text");
        let output = with_tokens(&mut sandbox()).args(["--plugin", path, "list"]).output().expect("it runs");
        refused(&output, &[word]);
    }
    std::fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn what_the_emulator_does_not_know() {
    let emulator = Emulator::start();
    let run = |arguments: &[&str]| emulator.sandbox().args(arguments).output().expect("it runs");
    for id in ["sb-01JABCDEFGHJKMNPQRSTVWXYZ0", "sb-0123456789abcdefghijAB"] {
        refused(&run(&["exec", id, "--", "true"]), &[id]);
        refused(&run(&["terminate", id]), &[id]);
        refused(&run(&["cp", &format!("{id}:/etc/passwd"), "-"]), &[id]);
    }
    refused(&run(&["exec", "nonsense", "--", "true"]), &["nonsense", "sb-"]);
    refused(&run(&["run", "--"]), &["command"]);
    refused(&run(&["run", "--", ""]), &["empty"]);
    refused(&run(&["run", "--image", "library/does-not-exist:1", "--", "true"]), &["does-not-exist"]);
    refused(&run(&["run", "--image", "two words", "--", "true"]), &["two words"]);
    refused(&run(&["run", "--image", "im-0123456789abcdefghijAB", "--", "true"]), &["im-0123456789abcdefghijAB"]);
    refused(&run(&["run", "--workdir", "not/absolute", "--", "true"]), &["not/absolute"]);
}

/// A build can take minutes; what would be refused behind it is refused before it.
#[test]
fn settings_that_no_create_takes_are_refused_before_the_build() {
    let emulator = Emulator::start();
    for command in ["run", "create"] {
        let output = feed(
            emulator.sandbox().args([command, "--dockerfile", "-", "--name", "a b", "--", "true"]),
            b"FROM debian\nRUN exit 3\n",
        );
        refused(&output, &["cannot create the sandbox", "`a b`"]);
        assert!(!stderr(&output).contains("exit 3"), "{}", stderr(&output));
    }
}

#[test]
fn files_that_are_not_there() {
    let emulator = Emulator::start();
    let run = |arguments: &[&str]| emulator.sandbox().args(arguments).output().expect("it runs");
    let created = run(&["create", "-q"]);
    assert!(created.status.success(), "{}", stderr(&created));
    let id = String::from_utf8(created.stdout).expect("text").trim().to_string();
    refused(&run(&["cp", &format!("{id}:/no/such/file"), "-"]), &["/no/such/file", "no such file"]);
    refused(&run(&["cp", &format!("{id}:/etc"), "-"]), &["/etc", "directory"]);
    refused(&run(&["cp", "/no/such/local", &format!("{id}:/x")]), &["/no/such/local"]);
}

#[test]
fn an_emulator_that_is_killed_in_mid_exec() {
    let mut emulator = Emulator::start();
    let mut child = emulator
        .sandbox()
        .args(["run", "-q", "--", "sh", "-c", "echo started; sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "started\n");
    emulator.kill();
    // Nothing hangs: the test harness's own limit is the only clock here.
    let mut text = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut text).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(125), "{text}");
    assert!(text.contains(emulator.url()), "{text}");
}

/// What cannot be opened is told in words, wherever it happens first.
#[test]
fn a_limit_of_open_files_is_told() {
    // Where a limit is too low even to begin depends on the machine, so those around are tried too.
    for limit in 6..20 {
        for arguments in [&["--emulator-url", "http://127.0.0.1:1", "list"][..], &["emulator"]] {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
            let output = feed(command.arg(system_tests::program()).args(arguments), b"");
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(125), "{limit} {arguments:?}: {text}");
            assert!(text.starts_with("error: cannot start") && text.contains("ulimit -n"), "{limit}: {text}");
            assert!(!text.contains("panicked"), "{limit}: {text}");
        }
    }
}

//! Wrong input and wrong surroundings: the program ends with exit code 125 and a message that says what is wrong and
//! what to do.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use system_tests::{Emulator, feed, sandbox, stderr};

/// Checks that the program ended with its own exit code for failures and a message that contains all `words`.
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
fn missing_credentials_are_reported() {
    let output = sandbox().args(["run", "--", "true"]).output().expect("cannot start the program");
    refused(&output, &["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "--emulator"]);
}

#[test]
fn an_invalid_server_url_is_reported() {
    for url in ["ftp://example.org", "http://", "not an address", "http://host:port"] {
        let output = with_tokens(&mut sandbox())
            .env("MODAL_SERVER_URL", url)
            .arg("list")
            .output()
            .expect("cannot start the program");
        refused(&output, &[url, "MODAL_SERVER_URL"]);
    }
}

#[test]
fn a_port_without_a_listener_is_reported() {
    // A bound port that is not listening: no other process can take it in the meantime.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("cannot bind a port");
    let url = format!("http://{}", socket.local_addr().expect("no local address"));
    drop(socket);
    let output = sandbox().args(["--emulator-url", &url, "list"]).output().expect("cannot start the program");
    refused(&output, &[&url, "refused"]);
}

/// The program once ignored the two variables that its own message asked to check.
#[test]
fn wrong_credentials_for_the_emulator_are_reported() {
    let emulator = Emulator::with(&["--token", "ak-own:as-own"]);
    let list = |id: &str| {
        let mut command = sandbox();
        command.args(["--emulator-url", emulator.url(), "list"]);
        command
            .env("MODAL_TOKEN_ID", id)
            .env("MODAL_TOKEN_SECRET", "as-own")
            .output()
            .expect("cannot start the program")
    };
    refused(&list("ak-other"), &["MODAL_TOKEN_ID"]);
    let output = list("ak-own");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_file_that_is_not_a_plugin_is_reported() {
    let directory = std::env::temp_dir().join(format!("sandbox-plugins-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("cannot create the directory");
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, bytes).expect("cannot write the file");
        path
    };
    let cases: [(PathBuf, &str); 6] = [
        (directory.join("missing.wasm"), "missing.wasm"),
        (write("text.wasm", b"this is text"), "not a WebAssembly"),
        (write("empty.wasm", b""), "not a WebAssembly"),
        (write("module.wasm", b"\0asm\x01\0\0\0"), "module"),
        // A component without imports and exports.
        (write("other.wasm", b"\0asm\x0d\0\x01\0"), "harness:sandbox"),
        (
            write("cut.wasm", &std::fs::read(system_tests::component()).expect("cannot read the component")[..5000]),
            "cut.wasm",
        ),
    ];
    for (path, word) in cases {
        let path = path.to_str().expect("not UTF-8");
        let output =
            with_tokens(&mut sandbox()).args(["--plugin", path, "list"]).output().expect("cannot start the program");
        refused(&output, &[word]);
    }
    std::fs::remove_dir_all(&directory).expect("cannot remove the directory");
}

#[test]
fn unknown_ids_and_invalid_arguments_are_reported() {
    let emulator = Emulator::start();
    let run = |arguments: &[&str]| emulator.sandbox().args(arguments).output().expect("cannot start the program");
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

/// A build can take minutes, so settings that the create would refuse are refused before it.
#[test]
fn settings_that_create_would_refuse_are_refused_before_the_build() {
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
fn missing_files_are_reported() {
    let emulator = Emulator::start();
    let run = |arguments: &[&str]| emulator.sandbox().args(arguments).output().expect("cannot start the program");
    let created = run(&["create", "-q"]);
    assert!(created.status.success(), "{}", stderr(&created));
    let id = String::from_utf8(created.stdout).expect("not UTF-8").trim().to_string();
    refused(&run(&["cp", &format!("{id}:/no/such/file"), "-"]), &["/no/such/file", "no such file"]);
    refused(&run(&["cp", &format!("{id}:/etc"), "-"]), &["/etc", "directory"]);
    refused(&run(&["cp", "/no/such/local", &format!("{id}:/x")]), &["/no/such/local"]);
}

#[test]
fn an_emulator_that_is_killed_during_an_exec_is_reported() {
    let mut emulator = Emulator::start();
    let mut child = emulator
        .sandbox()
        .args(["run", "-q", "--", "sh", "-c", "echo started; sleep 600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot start the program");
    let mut stdout = BufReader::new(child.stdout.take().expect("the stream is not piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("cannot read a line");
    assert_eq!(line, "started\n");
    emulator.kill();
    // The program must end by itself. Only the time limit of the test run would stop this read.
    let mut text = String::new();
    child.stderr.take().expect("the stream is not piped").read_to_string(&mut text).expect("cannot read the text");
    assert_eq!(child.wait().expect("cannot wait for the program").code(), Some(125), "{text}");
    assert!(text.contains(emulator.url()), "{text}");
}

/// A file that cannot be opened is reported, at whatever point of the start it happens.
#[test]
fn a_low_limit_of_open_files_is_reported() {
    // The lowest limit with which the program starts depends on the machine, so a range of limits is tried.
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

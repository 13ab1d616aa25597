//! The emulator as a program by itself: its documentation's examples, its log, what can be seen of it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use system_tests::{
    Emulator, javascript_checks, javascript_checks_passed, npm, python, python_checks, sandbox, stderr,
};

const DOCUMENTATION: &str = include_str!("../../docs/emulator.md");

/// The blocks of the documentation in a language, as printed.
fn blocks(language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks = DOCUMENTATION.split(&begin).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// A client as the documentation tells one to set it up.
fn client(command: &mut Command, emulator: &Emulator) -> String {
    let output = command
        .env("MODAL_SERVER_URL", emulator.url())
        .env("MODAL_TOKEN_ID", "ak-any")
        .env("MODAL_TOKEN_SECRET", "as-any")
        .env("MODAL_CONFIG_PATH", "/nonexistent/modal.toml")
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A request to the emulator's own endpoint: status and body.
fn request(emulator: &Emulator, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = emulator.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

#[test]
fn the_examples_of_the_documentation_run_as_printed() {
    let emulator = Emulator::start();
    let (python_blocks, js_blocks) = (blocks("python"), blocks("js"));
    assert_eq!((python_blocks.len(), js_blocks.len()), (1, 1));
    assert_eq!(client(Command::new(python()).args(["-c", &python_blocks[0]]), &emulator).trim_end(), "hello");
    // Packages are found from where a script lies.
    let script = tempfile::Builder::new().suffix(".mjs").tempfile_in(npm()).unwrap();
    std::fs::write(script.path(), &js_blocks[0]).unwrap();
    assert_eq!(client(Command::new(npm().join("node")).arg(script.path()), &emulator).trim_end(), "hello");
}

#[test]
fn every_fault_of_the_documentation_is_taken() {
    let emulator = Emulator::start();
    let section = DOCUMENTATION.split("## Faults on demand").nth(1).unwrap().split("\n## ").next().unwrap();
    let curl = section.split("-d '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let table = section.lines().skip_while(|line| !line.starts_with("| fault |")).skip(2);
    let faults: Vec<_> =
        table.take_while(|line| line.starts_with('|')).map(|line| line.split('`').nth(1).unwrap()).collect();
    assert!(faults.len() >= 8, "{faults:?}");
    let rules = faults.iter().map(|fault| {
        let method = match fault {
            fault if fault.contains("token_life") => "AuthTokenGet",
            fault if fault.contains("disk") => "SandboxCreateV2",
            fault if fault.contains("time_limit") => "TaskExecStart",
            _ => "AppList",
        };
        format!(r#"{{"method": "{method}", "fault": {fault}}}"#)
    });
    for rule in rules.chain([curl.to_owned()]) {
        let (status, answer) = request(&emulator, "POST", "/emulator/faults", &rule);
        assert_eq!(status, 200, "{rule}: {answer}");
    }
    let (_, known) = request(&emulator, "GET", "/emulator/faults", "");
    let known: serde_json::Value = serde_json::from_str(&known).unwrap();
    assert_eq!(known.as_array().unwrap().len(), faults.len() + 1);
}

#[test]
fn a_log_for_machines_is_json_line_by_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut command = sandbox();
    command.args(["emulator", "--exit-with-stdin", "--log-format", "json"]).env("RUST_LOG", "debug");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&path).unwrap()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("MODAL_SERVER_URL=").unwrap().to_owned();
    // Something of everything that is written by somebody else: commands, errors, names, with line ends and quotes.
    for arguments in [&["sh", "-c", "echo '\"'; exit 3\n"][..], &["no such\nprogram"], &["echo", "\u{1b}[31m\u{fffd}"]]
    {
        sandbox().args(["--emulator-url", &url, "run", "--"]).args(arguments).output().unwrap();
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    let log = std::fs::read_to_string(&path).unwrap();
    let mut messages = Vec::new();
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["timestamp"].is_string() && entry["level"].is_string(), "{line}");
        messages.push(entry["fields"]["message"].as_str().unwrap_or_default().to_owned());
    }
    for wanted in ["emulator ready", "sandbox created", "sandbox runs", "call", "sandbox ended", "emulator ends"] {
        assert!(messages.iter().any(|message| message == wanted), "{wanted} is not in {messages:?}");
    }
}

#[test]
fn what_an_sdk_made_is_seen_by_the_command_line() {
    let emulator = Emulator::start();
    let script = "import modal\n\
        app = modal.App.lookup('sandbox-provider', create_if_missing=True)\n\
        print(modal.Sandbox.create(app=app, name='by-name', tags={'k': 'v'}, timeout=600).object_id)";
    let id = client(Command::new(python()).args(["-c", script]), &emulator);
    let listed = || {
        let output = emulator.sandbox().arg("list").output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let before = listed();
    assert!(before.contains(id.trim()) && before.contains("by-name"), "{before}");
    let (_, state) = request(&emulator, "GET", "/emulator/state", "");
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let seen = state["sandboxes"].as_array().unwrap().iter().find(|sandbox| sandbox["id"] == id.trim());
    assert!(seen.is_some(), "{state}");
    let ended = emulator.sandbox().args(["terminate", id.trim()]).output().unwrap();
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert!(!listed().contains(id.trim()));
}

/// A connection that carries few streams holds clients up and does not break them.
#[test]
fn few_streams_are_enough() {
    let emulator = Emulator::with(&["--max-streams", "4"]);
    client(&mut python_checks("at_the_same_time"), &emulator);
    let output = client(&mut javascript_checks("at the same time"), &emulator);
    assert!(javascript_checks_passed(&output), "{output}");
}

/// Without its address on standard output no program could reach it.
#[test]
fn an_emulator_that_cannot_say_its_address_ends_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = sandbox();
    let child = command.args(["emulator", "--state-dir"]).arg(directory.path()).stdout(full).stderr(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains("cannot write to standard output"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// The private emulator of a program that is killed, or told to end while the emulator is just starting.
#[test]
fn a_private_emulator_leaves_nothing_however_its_program_ends() {
    use nix::sys::signal::{Signal, kill};
    let never = std::time::Duration::from_secs(120);
    for how in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT] {
        for step in 0..4 {
            let parent = tempfile::tempdir().unwrap();
            let is_state = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("modal-emulator-"))
            };
            let left = || std::fs::read_dir(parent.path()).unwrap().filter_map(|e| is_state(e).then_some(())).count();
            let mut command = sandbox();
            command.env("TMPDIR", parent.path()).args(["--emulator", "run", "--", "sleep", "1000"]);
            let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let begun = std::time::Instant::now();
            // From the moment on at which there is something to be left, or a little later.
            while left() == 0 && child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < never, "it does not start");
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(step * step * 50));
            kill(nix::unistd::Pid::from_raw(child.id() as i32), how).unwrap();
            child.wait_with_output().unwrap();
            let begun = std::time::Instant::now();
            while left() > 0 {
                assert!(begun.elapsed() < never, "{how} after step {step}: something is left");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

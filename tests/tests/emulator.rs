//! Runs the emulator as a separate program: the examples of its documentation, its log, and its effects on the command
//! line.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use system_tests::{
    Emulator, http_client::text, javascript_checks, javascript_checks_passed, npm, python, python_checks, sandbox,
    stderr,
};

const DOCUMENTATION: &str = include_str!("../../docs/emulator.md");

/// Returns the code blocks of the documentation in `language`, exactly as printed.
fn blocks(language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks = DOCUMENTATION.split(&begin).skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Runs a client with the settings that the documentation names, and returns its standard output.
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

#[test]
fn the_examples_of_the_documentation_run_as_printed() {
    let emulator = Emulator::start();
    let (python_blocks, js_blocks) = (blocks("python"), blocks("js"));
    assert_eq!((python_blocks.len(), js_blocks.len()), (1, 1));
    assert_eq!(client(Command::new(python()).args(["-c", &python_blocks[0]]), &emulator).trim_end(), "hello");
    // Node resolves packages relative to the folder of the script.
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
        let answer = emulator.request("POST", "/emulator/faults", &rule);
        assert_eq!(answer.status(), 200, "{rule}: {}", text(&answer));
    }
    let known = emulator.request("GET", "/emulator/faults", "");
    let known: serde_json::Value = serde_json::from_slice(known.body()).unwrap();
    assert_eq!(known.as_array().unwrap().len(), faults.len() + 1);
}

#[test]
fn every_line_of_the_json_log_is_json() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut command = sandbox();
    command.args(["emulator", "--exit-with-stdin", "--log-format", "json"]).env("RUST_LOG", "debug");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&path).unwrap()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("MODAL_SERVER_URL=").unwrap().to_owned();
    // The log contains foreign text with line ends, quotes and control characters: commands, errors and names.
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
    for wanted in ["emulator ready", "sandbox created", "sandbox runs", "call", "sandbox ended", "the emulator exits"] {
        assert!(messages.iter().any(|message| message == wanted), "{wanted} is not in {messages:?}");
    }
}

#[test]
fn the_command_line_lists_a_sandbox_that_an_sdk_created() {
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
    let state = emulator.request("GET", "/emulator/state", "");
    let state: serde_json::Value = serde_json::from_slice(state.body()).unwrap();
    let seen = state["sandboxes"].as_array().unwrap().iter().find(|sandbox| sandbox["id"] == id.trim());
    assert!(seen.is_some(), "{state}");
    let ended = emulator.sandbox().args(["terminate", id.trim()]).output().unwrap();
    assert!(ended.status.success(), "{}", stderr(&ended));
    assert!(!listed().contains(id.trim()));
}

/// A connection with a low stream limit slows clients down but must not make calls fail.
#[test]
fn clients_work_with_four_streams_per_connection() {
    let emulator = Emulator::with(&["--max-streams", "4"]);
    client(&mut python_checks("at_the_same_time"), &emulator);
    let output = client(&mut javascript_checks("at the same time"), &emulator);
    assert!(javascript_checks_passed(&output), "{output}");
}

/// No client could reach an emulator that cannot print its address.
#[test]
fn an_emulator_that_cannot_print_its_address_exits_and_cleans_up() {
    let directory = tempfile::tempdir().unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = sandbox();
    let child = command.args(["emulator", "--state-dir"]).arg(directory.path()).stdout(full).stderr(Stdio::piped());
    let output = child.spawn().unwrap().wait_with_output().unwrap();
    let text = stderr(&output);
    assert!(!output.status.success() && text.contains("cannot write to standard output"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// The private emulator of a program that is killed or terminated, also while the emulator is starting.
#[test]
fn a_private_emulator_leaves_no_files_when_its_program_is_killed() {
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
            // The signal is sent as soon as there are files to clean up, or a little later.
            while left() == 0 && child.try_wait().unwrap().is_none() {
                assert!(begun.elapsed() < never, "the emulator does not start");
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(step * step * 50));
            kill(nix::unistd::Pid::from_raw(child.id() as i32), how).unwrap();
            child.wait_with_output().unwrap();
            let begun = std::time::Instant::now();
            while left() > 0 {
                assert!(begun.elapsed() < never, "{how} after step {step}: files are left");
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }
}

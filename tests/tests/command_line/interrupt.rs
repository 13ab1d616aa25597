//! Ctrl-C at every moment. The emulator delays one call after another, so that the program waits at a different call
//! each time and is interrupted there.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use system_tests::{Emulator, feed, sandbox, stderr};

use super::{alive, applied, order, printed, request, until, until_or_end};

/// Delay in milliseconds that is longer than any test.
const DELAY_MILLIS: u64 = 3_600_000;

/// Largest number of calls of a command. No command makes that many, so reaching it means an endless loop.
const MAX_CALLS: usize = 100;

/// The expected list of running sandboxes when none is left.
const NO_SANDBOX: [&str; 0] = [];

fn hold(method: &str, skip: usize) -> Value {
    json!({ "method": method, "skip": skip, "times": 1, "fault": { "delay": { "millis": DELAY_MILLIS } } })
}

fn forget(emulator: &Emulator) {
    request(emulator, "DELETE", "/emulator/faults", "");
}

fn start(emulator: &Emulator, arguments: &[&str]) -> Child {
    let mut command = emulator.sandbox();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("cannot start the program")
}

/// Sends SIGINT, unless the program has already ended because it does not need the response to the delayed call.
fn interrupt(child: &mut Child) {
    if child.try_wait().expect("cannot wait for the process").is_none() {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("cannot signal the program");
    }
}

/// Interrupts repeatedly until the program ends. Interruptions right after the first count as the same one.
fn insist(child: &mut Child) {
    until(|| {
        interrupt(child);
        child.try_wait().expect("cannot wait for the process").is_some()
    });
}

/// Interrupts the command at each of its calls in turn and returns the number of interruptions. `check` runs after
/// each.
fn at_every_call(emulator: &Emulator, arguments: &[&str], mut check: impl FnMut(usize)) -> usize {
    let mut interrupted = 0;
    for call in 0..MAX_CALLS {
        order(emulator, &json!([hold("*", call)]));
        let mut child = start(emulator, arguments);
        let ended = until_or_end(&mut child, || applied(emulator) > 0);
        if ended.is_none() {
            interrupt(&mut child);
        }
        let output = child.wait_with_output().expect("cannot wait for the program");
        forget(emulator);
        if ended.is_some() {
            assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
            return interrupted;
        }
        let text = stderr(&output);
        if output.status.success() {
            // The command does not need the response to this call, so it ended normally.
            check(call);
            continue;
        }
        interrupted += 1;
        assert_eq!(output.status.code(), Some(130), "at call {call}: {text}");
        assert!(text.contains("interrupted, cleaning up"), "at call {call}: {text}");
        assert!(!text.contains("left behind") && !text.contains("panicked"), "at call {call}: {text}");
        check(call);
    }
    panic!("{arguments:?} makes more than {MAX_CALLS} calls");
}

#[test]
fn an_interrupted_run_leaves_no_sandbox() {
    let emulator = Emulator::start();
    let arguments = ["run", "--image", "debian", "--", "sh", "-c", "echo out; exec true"];
    let calls = at_every_call(&emulator, &arguments, |call| {
        assert_eq!(alive(&emulator), NO_SANDBOX, "after an interruption at call {call}");
    });
    // The calls for the app, the image, its log, the sandbox, the router, the start, the output, the end, and more.
    assert!(calls >= 8, "{calls} calls");
    assert_eq!(alive(&emulator), NO_SANDBOX);
}

/// Returns the command lines of all processes in a sandbox.
fn commands(emulator: &Emulator, id: &str) -> String {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    printed(emulator, &["exec", id, "--", "sh", "-c", script])
}

#[test]
fn an_interrupted_exec_kills_only_its_command() {
    let emulator = Emulator::start();
    let id = printed(&emulator, &["create", "-q"]);
    printed(&emulator, &["exec", "-d", &id, "--", "sleep", "4321"]);
    for json in [false, true] {
        let mut arguments = vec!["exec", &id, "--", "sh", "-c", "echo out; sleep 0.3", "marked"];
        if json {
            arguments.insert(1, "--json");
        }
        let calls = at_every_call(&emulator, &arguments, |call| {
            until(|| !commands(&emulator, &id).contains("marked"));
            assert!(commands(&emulator, &id).contains("sleep 4321"), "after an interruption at call {call}");
        });
        assert!(calls >= 3, "{calls} calls");
    }
    assert_eq!(alive(&emulator), [id]);
}

#[test]
fn an_interrupted_copy_leaves_no_partial_files() {
    let emulator = Emulator::start();
    let id = printed(&emulator, &["create", "-q"]);
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let bytes = vec![7; 6_000_000];
    let file = directory.path().join("file");
    std::fs::create_dir(directory.path().join("tree")).expect("cannot create the directory");
    std::fs::write(directory.path().join("tree/file"), &bytes).expect("cannot write the file");
    std::fs::write(&file, &bytes).expect("cannot write the file");
    let (from, to) = (file.to_str().expect("not UTF-8"), format!("{id}:/new/file"));

    let calls = at_every_call(&emulator, &["cp", from, &to], |call| {
        // The file is complete or absent, and there are no temporary files next to it.
        let script = "mkdir -p /new; cd /new; ls -A; if [ -e file ]; then wc -c < file; fi; rm -rf /new";
        let there = printed(&emulator, &["exec", &id, "--", "sh", "-c", script]);
        assert!(there.is_empty() || there == "file\n6000000", "after an interruption at call {call}: {there}");
    });
    assert!(calls >= 2, "{calls} calls");

    let down = directory.path().join("down");
    std::fs::create_dir(&down).expect("cannot create the directory");
    let names = |path: &Path| -> Vec<_> {
        std::fs::read_dir(path)
            .expect("cannot read the directory")
            .map(|entry| entry.expect("cannot read the directory").file_name())
            .collect()
    };
    let target = down.join("file");
    let calls = at_every_call(&emulator, &["cp", &to, target.to_str().expect("not UTF-8")], |call| {
        assert!(names(&down).is_empty(), "after an interruption at call {call}: {:?}", names(&down));
    });
    assert!(calls >= 2, "{calls} calls");
    assert!(std::fs::read(&target).expect("cannot read the file") == bytes);

    let tree = directory.path().join("tree");
    let tree = tree.to_str().expect("not UTF-8");
    let calls = at_every_call(&emulator, &["cp", "-r", tree, &format!("{id}:/trees/one")], |_| {
        printed(&emulator, &["exec", &id, "--", "rm", "-rf", "/trees"]);
    });
    assert!(calls >= 2, "{calls} calls");
    until(|| !commands(&emulator, &id).contains("tar "));
    assert_eq!(printed(&emulator, &["exec", &id, "--", "ls", "-A", "/tmp"]), "");
    assert_eq!(alive(&emulator), [id]);
}

/// The sandbox was created, but the response was lost: the client finds it by its tag.
#[test]
fn a_sandbox_whose_creation_was_not_answered_is_found() {
    let emulator = Emulator::start();
    for arguments in [&["run", "-q", "--", "true"][..], &["create", "-q"]] {
        let lost = json!({ "method": "SandboxCreateV2", "times": 1, "fault": { "lose_answer": { "code": 14 } } });
        // The first call loses its answer, and its retry is delayed.
        order(&emulator, &json!([hold("SandboxCreateV2", 1), lost]));
        let mut child = start(&emulator, arguments);
        assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
        assert_eq!(alive(&emulator).len(), 1, "{arguments:?}");
        interrupt(&mut child);
        let output = child.wait_with_output().expect("cannot wait for the program");
        forget(&emulator);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(alive(&emulator), NO_SANDBOX, "{arguments:?}");
    }
}

/// Interrupts twice: during the command, and again during the cleanup, which is delayed too.
fn twice(emulator: &Emulator, cleaning: Value, arguments: &[&str]) -> Output {
    order(emulator, &json!([cleaning]));
    let mut child = start(emulator, arguments);
    let stdout = child.stdout.as_mut().expect("the stream is not piped");
    std::io::Read::read_exact(stdout, &mut [0; 6]).expect("the command did not start");
    interrupt(&mut child);
    assert_eq!(until_or_end(&mut child, || applied(emulator) > 0), None);
    insist(&mut child);
    let output = child.wait_with_output().expect("cannot wait for the program");
    forget(emulator);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    output
}

#[test]
fn a_second_interruption_ends_at_once_and_reports_what_is_left() {
    let emulator = Emulator::start();
    let script = "echo begun; sleep 4321";
    let arguments = ["run", "-q", "--image", "debian", "--", "sh", "-c", script];
    let output = twice(&emulator, hold("SandboxTerminateV2", 0), &arguments);
    let left = alive(&emulator);
    assert_eq!(left.len(), 1);
    // The message appears even with `-q`, because the user has to know it.
    assert_eq!(stderr(&output), format!("left behind: the sandbox {}\n", left[0]));

    // Commands are killed by other commands, which are started after them.
    let mut kills = hold("TaskExecStart", 1);
    kills["times"] = json!(MAX_CALLS);
    let output = twice(&emulator, kills, &["exec", &left[0], "--", "sh", "-c", script]);
    let text = stderr(&output);
    assert!(text.contains("left behind: the command ") && text.contains(&format!(" in {}\n", left[0])), "{text}");

    // The command behind a copy is killed in the background.
    order(&emulator, &json!([hold("TaskExecStdin*", 0)]));
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let from = directory.path().to_str().expect("not UTF-8");
    let mut child = start(&emulator, &["cp", "-r", from, &format!("{}:/copied", left[0])]);
    assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
    forget(&emulator);
    order(&emulator, &json!([hold("TaskExecStart", 0)]));
    interrupt(&mut child);
    assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
    insist(&mut child);
    let output = child.wait_with_output().expect("cannot wait for the program");
    forget(&emulator);
    assert_eq!(output.status.code(), Some(130));
    let text = stderr(&output);
    let (_, told) = text.split_once("left behind: possibly a cancelled command (cannot signal ").expect(&text);
    assert!(told.ends_with(&format!(" in {}: the provider did not respond)\n", left[0])), "{text}");
    printed(&emulator, &["terminate", &left[0]]);
}

/// GNU `timeout` signals the program and immediately afterwards its process group. Both count as one request to stop,
/// after which nothing is left.
#[test]
fn signals_right_after_the_first_do_not_abort_the_cleanup() {
    let emulator = Emulator::start();
    for (first, second, code) in [(Signal::SIGTERM, Signal::SIGTERM, 143), (Signal::SIGINT, Signal::SIGTERM, 143)] {
        // The delay makes the second signal arrive during the cleanup.
        let slow = json!({ "method": "SandboxTerminateV2", "times": 1, "fault": { "delay": { "millis": 3000 } } });
        order(&emulator, &json!([slow]));
        let script = "echo begun; sleep 4321";
        let mut child = start(&emulator, &["run", "--image", "debian", "--", "sh", "-c", script]);
        let stdout = child.stdout.as_mut().expect("the stream is not piped");
        std::io::Read::read_exact(stdout, &mut [0; 6]).expect("the command did not start");
        let pid = Pid::from_raw(child.id() as i32);
        kill(pid, first).expect("cannot signal the process");
        // The exit code is decided when the program has handled the first signal. The second signal may change it.
        let mut told = BufReader::new(child.stderr.take().expect("the stream is not piped"))
            .lines()
            .map(|line| line.expect("not UTF-8"));
        assert!(told.any(|line| line.contains("interrupted, cleaning up")));
        kill(pid, second).expect("cannot signal the process");
        let rest: Vec<_> = told.collect();
        assert_eq!(child.wait().expect("cannot wait for the process").code(), Some(code), "{rest:?}");
        forget(&emulator);
        assert!(!rest.iter().any(|line| line.contains("left behind")), "{rest:?}");
        assert_eq!(alive(&emulator), NO_SANDBOX, "{first} {second}");
    }
}

/// Returns the process id of the only child of a process.
fn child_of(parent: u32) -> i32 {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).expect("cannot read the directory");
    let children: Vec<i32> = tasks
        .map(|task| {
            std::fs::read_to_string(task.expect("cannot read the task").path().join("children")).unwrap_or_default()
        })
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().expect("not a number")).collect::<Vec<_>>())
        .collect();
    let [child] = children[..] else { panic!("{parent} has the children {children:?}") };
    child
}

/// A private emulator and its sandboxes end with the program, so nothing is reported as left behind.
#[test]
fn an_interrupted_program_ends_its_private_emulator() {
    let mut command = sandbox();
    command.args(["--emulator", "run", "--", "sh", "-c", "echo begun; sleep 4321"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cannot start the program");
    std::io::Read::read_exact(child.stdout.as_mut().expect("the stream is not piped"), &mut [0; 6])
        .expect("the command did not start");
    // The emulator is stopped, so that the program is waiting for its end when the second interruption arrives.
    let emulator = Pid::from_raw(child_of(child.id()));
    kill(emulator, Signal::SIGSTOP).expect("cannot signal the process");
    interrupt(&mut child);
    let mut stderr = BufReader::new(child.stderr.take().expect("the stream is not piped"))
        .lines()
        .map(|line| line.expect("not UTF-8"));
    assert!(stderr.any(|line| line.contains("interrupted, cleaning up")));
    insist(&mut child);
    let told: Vec<_> = stderr.collect();
    assert_eq!(child.wait().expect("cannot wait for the process").code(), Some(130));
    // The emulator may have ended already.
    let _ = kill(emulator, Signal::SIGCONT);
    assert!(!told.iter().any(|line| line.contains("left behind")), "{told:?}");
}

/// The program reports what it could not clean up.
#[test]
fn a_failed_cleanup_is_reported() {
    let emulator = Emulator::start();
    order(
        &emulator,
        &json!([{ "method": "SandboxTerminateV2", "fault": { "status": { "code": 7, "message": "not today" } } }]),
    );
    let mut child = start(&emulator, &["run", "--image", "debian", "--", "sh", "-c", "echo begun; sleep 4321"]);
    std::io::Read::read_exact(child.stdout.as_mut().expect("the stream is not piped"), &mut [0; 6])
        .expect("the command did not start");
    interrupt(&mut child);
    let output = child.wait_with_output().expect("cannot wait for the program");
    assert_eq!(output.status.code(), Some(130));
    let (text, id) = (stderr(&output), alive(&emulator).remove(0));
    assert!(text.contains(&format!("left behind: the sandbox {id} (")) && text.contains("not today"), "{text}");
    forget(&emulator);
    let terminated = feed(emulator.sandbox().args(["terminate", &id]), b"");
    assert!(terminated.status.success(), "{}", stderr(&terminated));

    // The process of a copy is ended by a command, which the service refuses to start.
    let id = printed(&emulator, &["create", "-q"]);
    let directory = tempfile::tempdir().expect("cannot create a directory");
    order(&emulator, &json!([hold("TaskExecStdin*", 0)]));
    let from = directory.path().to_str().expect("not UTF-8");
    let mut child = start(&emulator, &["cp", "-r", from, &format!("{id}:/copied")]);
    assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
    let refused = json!({ "method": "TaskExecStart", "fault": { "status": { "code": 7, "message": "not today" } } });
    order(&emulator, &json!([refused]));
    interrupt(&mut child);
    let output = child.wait_with_output().expect("cannot wait for the program");
    assert_eq!(output.status.code(), Some(130));
    let text = stderr(&output);
    assert!(text.contains("left behind: possibly a cancelled command (") && text.contains("not today"), "{text}");
}

/// The service accepts the cleanup calls and never answers them. The program ends nevertheless and names what it left.
#[test]
fn the_cleanup_ends_although_no_answer_arrives() {
    let emulator = Emulator::start();
    let sandbox = printed(&emulator, &["create", "-q"]);
    let script = "echo begun; sleep 4321";
    let begin = |arguments: &[&str]| {
        let mut child = start(&emulator, arguments);
        let stdout = child.stdout.as_mut().expect("the stream is not piped");
        std::io::Read::read_exact(stdout, &mut [0; 6]).expect("the command did not start");
        child
    };
    // The cleanup terminates the sandbox of the first command, and starts a command that kills the second one.
    let mut run = begin(&["run", "--image", "debian", "--", "sh", "-c", script]);
    let mut exec = begin(&["exec", &sandbox, "--", "sh", "-c", script]);
    let held = |method: &str| json!({ "method": method, "fault": { "delay": { "millis": DELAY_MILLIS } } });
    order(&emulator, &json!([held("SandboxTerminate*"), held("TaskExecStart")]));
    interrupt(&mut run);
    interrupt(&mut exec);
    let [run, exec] = [run, exec].map(|child| child.wait_with_output().expect("cannot wait for the program"));
    forget(&emulator);
    let made = alive(&emulator)
        .into_iter()
        .find(|id| *id != sandbox)
        .expect("the sandbox that could not be terminated is not listed");
    for (output, left) in
        [(run, format!("the sandbox {made} (the provider did not respond)")), (exec, "the command ".to_owned())]
    {
        assert_eq!(output.status.code(), Some(130));
        let text = stderr(&output);
        assert!(text.contains(&format!("left behind: {left}")), "{text}");
    }
}

//! Ctrl-C at every moment. The emulator holds one call after the other back, so that each time the program waits somewhere
//! else, and is interrupted there.

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

/// Longer than any test.
const FOR_EVER: u64 = 3_600_000;

/// More calls than any of the commands makes.
const CALLS: usize = 100;

/// No sandbox.
const NONE: [&str; 0] = [];

fn hold(method: &str, skip: usize) -> Value {
    json!({ "method": method, "skip": skip, "times": 1, "fault": { "delay": { "millis": FOR_EVER } } })
}

fn forget(emulator: &Emulator) {
    request(emulator, "DELETE", "/emulator/faults", "");
}

fn start(emulator: &Emulator, arguments: &[&str]) -> Child {
    let mut command = emulator.sandbox();
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("it runs")
}

/// Nothing if it has ended meanwhile, as a program does that needs no answer to the call that is held back.
fn interrupt(child: &mut Child) {
    if child.try_wait().expect("a child").is_none() {
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is there until it is waited for");
    }
}

/// Interrupts again and again until the program ends: interruptions right after the first are one with it.
fn insist(child: &mut Child) {
    until(|| {
        interrupt(child);
        child.try_wait().expect("a child").is_some()
    });
}

/// Interrupts the command at each call that it makes, in turn, and gives how often it was. `check`: what must hold
/// after each.
fn at_every_call(emulator: &Emulator, arguments: &[&str], mut check: impl FnMut(usize)) -> usize {
    let mut interrupted = 0;
    for call in 0..CALLS {
        order(emulator, &json!([hold("*", call)]));
        let mut child = start(emulator, arguments);
        let ended = until_or_end(&mut child, || applied(emulator) > 0);
        if ended.is_none() {
            interrupt(&mut child);
        }
        let output = child.wait_with_output().expect("it ends");
        forget(emulator);
        if ended.is_some() {
            assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
            return interrupted;
        }
        let text = stderr(&output);
        if output.status.success() {
            // A call whose answer the command does not need for its end, and so it came to it.
            check(call);
            continue;
        }
        interrupted += 1;
        assert_eq!(output.status.code(), Some(130), "at call {call}: {text}");
        assert!(text.contains("interrupted, cleaning up"), "at call {call}: {text}");
        assert!(!text.contains("left behind") && !text.contains("panicked"), "at call {call}: {text}");
        check(call);
    }
    panic!("{arguments:?} goes on making calls");
}

#[test]
fn a_run_leaves_nothing() {
    let emulator = Emulator::start();
    let arguments = ["run", "--image", "debian", "--", "sh", "-c", "echo out; exec true"];
    let calls = at_every_call(&emulator, &arguments, |call| {
        assert_eq!(alive(&emulator), NONE, "after an interruption at call {call}");
    });
    // App, image, its log, sandbox, router, start, output, end, and more.
    assert!(calls >= 8, "{calls} calls");
    assert_eq!(alive(&emulator), NONE);
}

/// The commands that run in a sandbox, each with its arguments.
fn commands(emulator: &Emulator, id: &str) -> String {
    let script = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done";
    printed(emulator, &["exec", id, "--", "sh", "-c", script])
}

#[test]
fn an_exec_kills_its_command_and_nothing_else() {
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
fn a_copy_leaves_no_halves() {
    let emulator = Emulator::start();
    let id = printed(&emulator, &["create", "-q"]);
    let directory = tempfile::tempdir().expect("a directory");
    let bytes = vec![7; 6_000_000];
    let file = directory.path().join("file");
    std::fs::create_dir(directory.path().join("tree")).expect("a directory");
    std::fs::write(directory.path().join("tree/file"), &bytes).expect("a file");
    std::fs::write(&file, &bytes).expect("a file");
    let (from, to) = (file.to_str().expect("text"), format!("{id}:/new/file"));

    let calls = at_every_call(&emulator, &["cp", from, &to], |call| {
        // All or nothing, and nothing beside it.
        let script = "mkdir -p /new; cd /new; ls -A; if [ -e file ]; then wc -c < file; fi; rm -rf /new";
        let there = printed(&emulator, &["exec", &id, "--", "sh", "-c", script]);
        assert!(there.is_empty() || there == "file\n6000000", "after an interruption at call {call}: {there}");
    });
    assert!(calls >= 2, "{calls} calls");

    let down = directory.path().join("down");
    std::fs::create_dir(&down).expect("a directory");
    let names = |path: &Path| -> Vec<_> {
        std::fs::read_dir(path).expect("it is there").map(|entry| entry.expect("it is there").file_name()).collect()
    };
    let target = down.join("file");
    let calls = at_every_call(&emulator, &["cp", &to, target.to_str().expect("text")], |call| {
        assert!(names(&down).is_empty(), "after an interruption at call {call}: {:?}", names(&down));
    });
    assert!(calls >= 2, "{calls} calls");
    assert!(std::fs::read(&target).expect("it came") == bytes);

    let tree = directory.path().join("tree");
    let tree = tree.to_str().expect("text");
    let calls = at_every_call(&emulator, &["cp", "-r", tree, &format!("{id}:/trees/one")], |_| {
        printed(&emulator, &["exec", &id, "--", "rm", "-rf", "/trees"]);
    });
    assert!(calls >= 2, "{calls} calls");
    until(|| !commands(&emulator, &id).contains("tar "));
    assert_eq!(printed(&emulator, &["exec", &id, "--", "ls", "-A", "/tmp"]), "");
    assert_eq!(alive(&emulator), [id]);
}

/// The sandbox has been made, but nobody has told us: it is found by its tag.
#[test]
fn a_sandbox_whose_creation_was_not_answered_is_found() {
    let emulator = Emulator::start();
    for arguments in [&["run", "-q", "--", "true"][..], &["create", "-q"]] {
        let lost = json!({ "method": "SandboxCreateV2", "times": 1, "fault": { "lose_answer": { "code": 14 } } });
        // The first call loses its answer, the second is held back.
        order(&emulator, &json!([hold("SandboxCreateV2", 1), lost]));
        let mut child = start(&emulator, arguments);
        assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
        assert_eq!(alive(&emulator).len(), 1, "{arguments:?}");
        interrupt(&mut child);
        let output = child.wait_with_output().expect("it ends");
        forget(&emulator);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(alive(&emulator), NONE, "{arguments:?}");
    }
}

/// Interrupts twice: during the command, and again during the cleaning up, which is held back too.
fn twice(emulator: &Emulator, cleaning: Value, arguments: &[&str]) -> Output {
    order(emulator, &json!([cleaning]));
    let mut child = start(emulator, arguments);
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(stdout, &mut [0; 6]).expect("it says that it has begun");
    interrupt(&mut child);
    assert_eq!(until_or_end(&mut child, || applied(emulator) > 0), None);
    insist(&mut child);
    let output = child.wait_with_output().expect("it ends");
    forget(emulator);
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    output
}

#[test]
fn twice_ends_at_once_and_says_what_is_left() {
    let emulator = Emulator::start();
    let script = "echo begun; sleep 4321";
    let arguments = ["run", "-q", "--image", "debian", "--", "sh", "-c", script];
    let output = twice(&emulator, hold("SandboxTerminateV2", 0), &arguments);
    let left = alive(&emulator);
    assert_eq!(left.len(), 1);
    // Quiet or not: this has to be known.
    assert_eq!(stderr(&output), format!("left behind: the sandbox {}\n", left[0]));

    // A command is killed by others, and these are started after it.
    let mut kills = hold("TaskExecStart", 1);
    kills["times"] = json!(CALLS);
    let output = twice(&emulator, kills, &["exec", &left[0], "--", "sh", "-c", script]);
    let text = stderr(&output);
    assert!(text.contains("left behind: the command ") && text.contains(&format!(" in {}\n", left[0])), "{text}");

    // A copy is killed in the background.
    order(&emulator, &json!([hold("TaskExecStdin*", 0)]));
    let directory = tempfile::tempdir().expect("a directory");
    let from = directory.path().to_str().expect("text");
    let mut child = start(&emulator, &["cp", "-r", from, &format!("{}:/copied", left[0])]);
    assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
    forget(&emulator);
    order(&emulator, &json!([hold("TaskExecStart", 0)]));
    interrupt(&mut child);
    assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
    insist(&mut child);
    let output = child.wait_with_output().expect("it ends");
    forget(&emulator);
    assert_eq!(output.status.code(), Some(130));
    let text = stderr(&output);
    let (_, told) = text.split_once("left behind: perhaps a command that was given up (cannot signal ").expect(&text);
    assert!(told.ends_with(&format!(" in {}: no answer)\n", left[0])), "{text}");
    printed(&emulator, &["terminate", &left[0]]);
}

/// GNU `timeout` signals the program, and at once its group too: that is one wish to stop, after which nothing is left.
#[test]
fn signals_right_after_the_first_do_not_abandon_the_cleaning_up() {
    let emulator = Emulator::start();
    for (first, second, code) in [(Signal::SIGTERM, Signal::SIGTERM, 143), (Signal::SIGINT, Signal::SIGTERM, 143)] {
        // So that the second finds the cleaning up under way.
        let slow = json!({ "method": "SandboxTerminateV2", "times": 1, "fault": { "delay": { "millis": 3000 } } });
        order(&emulator, &json!([slow]));
        let script = "echo begun; sleep 4321";
        let mut child = start(&emulator, &["run", "--image", "debian", "--", "sh", "-c", script]);
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut [0; 6]).expect("it says that it has begun");
        let pid = Pid::from_raw(child.id() as i32);
        kill(pid, first).expect("it is there");
        // It has been taken notice of when its exit code is decided, which the next one may change.
        let mut told = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
        assert!(told.any(|line| line.contains("interrupted, cleaning up")));
        kill(pid, second).expect("it is there");
        let rest: Vec<_> = told.collect();
        assert_eq!(child.wait().expect("a child").code(), Some(code), "{rest:?}");
        forget(&emulator);
        assert!(!rest.iter().any(|line| line.contains("left behind")), "{rest:?}");
        assert_eq!(alive(&emulator), NONE, "{first} {second}");
    }
}

/// The one child of a process.
fn child_of(parent: u32) -> i32 {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).expect("it is there");
    let children: Vec<i32> = tasks
        .map(|task| std::fs::read_to_string(task.expect("a task").path().join("children")).unwrap_or_default())
        .flat_map(|list| list.split_whitespace().map(|pid| pid.parse().expect("a number")).collect::<Vec<_>>())
        .collect();
    let [child] = children[..] else { panic!("{parent} has the children {children:?}") };
    child
}

/// A private emulator ends with the program, and all that is in it: nothing is left to be told of.
#[test]
fn a_private_emulator_leaves_nothing_behind() {
    let mut command = sandbox();
    command.args(["--emulator", "run", "--", "sh", "-c", "echo begun; sleep 4321"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut [0; 6]).expect("it says that it has begun");
    // Stopped, so that its end is waited for when the second interruption comes.
    let emulator = Pid::from_raw(child_of(child.id()));
    kill(emulator, Signal::SIGSTOP).expect("it is there");
    interrupt(&mut child);
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    assert!(stderr.any(|line| line.contains("interrupted, cleaning up")));
    insist(&mut child);
    let told: Vec<_> = stderr.collect();
    assert_eq!(child.wait().expect("a child").code(), Some(130));
    // Gone already, where it went with the program.
    let _ = kill(emulator, Signal::SIGCONT);
    assert!(!told.iter().any(|line| line.contains("left behind")), "{told:?}");
}

/// What cannot be undone is told.
#[test]
fn what_cannot_be_undone_is_told() {
    let emulator = Emulator::start();
    order(
        &emulator,
        &json!([{ "method": "SandboxTerminateV2", "fault": { "status": { "code": 7, "message": "not today" } } }]),
    );
    let mut child = start(&emulator, &["run", "--image", "debian", "--", "sh", "-c", "echo begun; sleep 4321"]);
    std::io::Read::read_exact(child.stdout.as_mut().expect("a pipe"), &mut [0; 6]).expect("it says that it has begun");
    interrupt(&mut child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let (text, id) = (stderr(&output), alive(&emulator).remove(0));
    assert!(text.contains(&format!("left behind: the sandbox {id} (")) && text.contains("not today"), "{text}");
    forget(&emulator);
    let terminated = feed(emulator.sandbox().args(["terminate", &id]), b"");
    assert!(terminated.status.success(), "{}", stderr(&terminated));

    // A copy that is told to end by a command, which may not start.
    let id = printed(&emulator, &["create", "-q"]);
    let directory = tempfile::tempdir().expect("a directory");
    order(&emulator, &json!([hold("TaskExecStdin*", 0)]));
    let from = directory.path().to_str().expect("text");
    let mut child = start(&emulator, &["cp", "-r", from, &format!("{id}:/copied")]);
    assert_eq!(until_or_end(&mut child, || applied(&emulator) > 0), None);
    let refused = json!({ "method": "TaskExecStart", "fault": { "status": { "code": 7, "message": "not today" } } });
    order(&emulator, &json!([refused]));
    interrupt(&mut child);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
    let text = stderr(&output);
    assert!(
        text.contains("left behind: perhaps a command that was given up (") && text.contains("not today"),
        "{text}"
    );
}

/// The service takes the calls that clean up and never answers them: the program ends all the same and names what it left.
#[test]
fn cleaning_up_ends_though_no_answer_comes() {
    let emulator = Emulator::start();
    let sandbox = printed(&emulator, &["create", "-q"]);
    let script = "echo begun; sleep 4321";
    let begin = |arguments: &[&str]| {
        let mut child = start(&emulator, arguments);
        let stdout = child.stdout.as_mut().expect("a pipe");
        std::io::Read::read_exact(stdout, &mut [0; 6]).expect("it says that it has begun");
        child
    };
    // A sandbox that is to be terminated, and a command that is to be killed by another command.
    let mut run = begin(&["run", "--image", "debian", "--", "sh", "-c", script]);
    let mut exec = begin(&["exec", &sandbox, "--", "sh", "-c", script]);
    let held = |method: &str| json!({ "method": method, "fault": { "delay": { "millis": FOR_EVER } } });
    order(&emulator, &json!([held("SandboxTerminate*"), held("TaskExecStart")]));
    interrupt(&mut run);
    interrupt(&mut exec);
    let [run, exec] = [run, exec].map(|child| child.wait_with_output().expect("it ends"));
    forget(&emulator);
    let made = alive(&emulator).into_iter().find(|id| *id != sandbox).expect("it could not be terminated");
    for (output, left) in [(run, format!("the sandbox {made} (no answer)")), (exec, "the command ".to_owned())] {
        assert_eq!(output.status.code(), Some(130));
        let text = stderr(&output);
        assert!(text.contains(&format!("left behind: {left}")), "{text}");
    }
}

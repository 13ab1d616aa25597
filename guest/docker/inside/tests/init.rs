//! Process 1 of a container.

use std::{
    fs,
    process::{Child, Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Answer, PROGRAM, Sandbox, lives, until},
    needs_root,
};

/// Starts `init` as process 1 of a process namespace.
fn init(sandbox: &Sandbox, args: &[&str]) -> Child {
    let base = format!("base={}", sandbox.base().display());
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", PROGRAM, "init", &base]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The id of process 1 of the namespace, as this test sees it.
fn process_one(child: &Child) -> u32 {
    let path = format!("/proc/{0}/task/{0}/children", child.id());
    let mut pid = None;
    until("process 1", || {
        pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        // Before it executes the program, it does not handle signals.
        pid.is_some_and(|pid: u32| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(PROGRAM.as_bytes()))
        })
    });
    pid.unwrap()
}

/// Calls a verb inside the namespaces of `init`.
fn call(sandbox: &Sandbox, child: &Child, args: &[&str]) -> Answer {
    Answer::of(&call_output(sandbox, child, args))
}

fn call_output(sandbox: &Sandbox, child: &Child, args: &[&str]) -> Output {
    let target = format!("--target={}", process_one(child));
    let base = format!("base={}", sandbox.base().display());
    let mut command = Command::new("nsenter");
    command.args([target.as_str(), "--pid", "--mount", PROGRAM, args[0], &base]).args(&args[1..]);
    command.stdin(Stdio::null()).output().unwrap()
}

fn end(sandbox: &Sandbox) -> Option<String> {
    fs::read_to_string(sandbox.base().join("state/end")).ok()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_lifetime_ends_the_sandbox() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["lifetime=1500"]);
    call(&sandbox, &child, &["start", "id=x", "--", "sleep", "600"]).ok();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox).as_deref()), (Some(0), Some("lifetime")));
}

#[test]
fn the_end_of_the_lifetime_can_be_moved() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["lifetime=60000"]);
    let number = |answer: Answer| -> u64 {
        answer.ok().json().trim_start_matches("{\"end\":").trim_end_matches('}').parse().unwrap()
    };
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let late = number(call(&sandbox, &child, &["extend", "lifetime=600000"]));
    assert!((600_000..660_000).contains(&(late - begun)), "{late} {begun}");
    kill_process(Pid::from_raw(process_one(&child) as i32).unwrap(), Signal::KILL).unwrap();
    child.wait_with_output().unwrap();
    // It holds when the container is started again, instead of the lifetime of the start, and can be moved to an earlier time.
    let child = init(&sandbox, &["lifetime=1"]);
    call(&sandbox, &child, &["run", "id=x", "--", "true"]).ok();
    assert!(number(call(&sandbox, &child, &["extend", "lifetime=1"])) < late);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox).as_deref()), (Some(0), Some("lifetime")));
    // One that has passed is forgotten. A sandbox without a lifetime gets one.
    let child = init(&sandbox, &[]);
    call(&sandbox, &child, &["run", "id=y", "--", "true"]).ok();
    call(&sandbox, &child, &["extend", "lifetime=1"]).ok();
    child.wait_with_output().unwrap();
    assert_eq!(end(&sandbox).as_deref(), Some("lifetime"));
}

#[test]
fn the_sandbox_ends_when_it_is_idle() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["idle=700"]);
    // The command takes longer than the idle time.
    call(&sandbox, &child, &["start", "id=x", "--", "sleep", "2"]).ok();
    let answer = call(&sandbox, &child, &["read", "id=x", "follow=1"]);
    assert_eq!(answer.verdict().as_deref(), Some("exited 0"));
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox).as_deref()), (Some(0), Some("idle")));
}

#[test]
fn commands_without_readers_keep_the_sandbox_alive() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["idle=300"]);
    let script = format!("sleep 2; echo done > {}", sandbox.path("done").display());
    call(&sandbox, &child, &["start", "id=x", "--", "sh", "-c", &script]).ok();
    child.wait_with_output().unwrap();
    assert!(sandbox.path("done").exists());
    assert_eq!(end(&sandbox).as_deref(), Some("idle"));
}

#[test]
fn processes_that_a_command_leaves_behind_do_not_keep_it_alive() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["idle=500"]);
    call(&sandbox, &child, &["run", "id=x", "--", "sh", "-c", "sleep 600 &"]).ok();
    child.wait_with_output().unwrap();
    assert_eq!(end(&sandbox).as_deref(), Some("idle"));
}

#[test]
fn the_first_command_decides_the_exit_code() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir_all(sandbox.base().join("state")).unwrap();
    fs::write(sandbox.base().join("state/end"), "an earlier life").unwrap();
    let output = init(&sandbox, &["--", "sh", "-c", "echo out; echo err >&2; exit 7"]).wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox).as_deref()), (Some(7), Some("finished 7")));
    // The engine's log has the notes too.
    let note = |text: &str| format!("\u{1e}sandbox-note {text}\u{1f}\n");
    assert_eq!(text(&output), ("out\n".into(), format!("{}err\n{}", note("end "), note("end finished 7"))));
    let answer = sandbox.call("read", &["id=main"]).ok();
    assert_eq!((answer.out().as_str(), answer.err().as_str()), ("out\n", "err\n"));
    assert_eq!(answer.verdict().as_deref(), Some("exited 7"));
    assert_eq!(sandbox.call("execs", &[]).json(), r#"{"execs":[]}"#);
    // The container is started again.
    let output = init(&sandbox, &["--", "sh", "-c", "kill -9 $$"]).wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox).as_deref()), (Some(137), Some("finished 137")));
    assert_eq!(sandbox.call("read", &["id=main"]).ok().out(), "");
}

#[test]
fn the_first_command_takes_input() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["user=daemon", "cwd=/usr", "--", "sh", "-c", "id -un; pwd; cat"]);
    until("the output", || {
        process_one(&child);
        sandbox.base().join("execs/main").exists()
            && call(&sandbox, &child, &["read", "id=main"]).out() == "daemon\n/usr\n"
    });
    call(&sandbox, &child, &["input", "id=main", "offset=0", "data=aGVsbG8K"]).ok();
    // The sandbox may end before this call answers.
    call_output(&sandbox, &child, &["input", "id=main", "offset=6", "eof=1"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output).0, "daemon\n/usr\nhello\n");
    assert_eq!(end(&sandbox).as_deref(), Some("finished 0"));
}

#[test]
fn a_first_command_that_cannot_start_is_reported() {
    needs_root!();
    let sandbox = Sandbox::new();
    let output = init(&sandbox, &["user=no-such-user", "--", "true"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(end(&sandbox).unwrap().starts_with("failed The user"), "{:?}", end(&sandbox));
    let output = init(&sandbox, &["--", "no-such-program"]).wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox).as_deref()), (Some(127), Some("finished 127")));
}

#[test]
fn a_request_to_stop_is_passed_on() {
    needs_root!();
    let sandbox = Sandbox::new();
    let script = "trap 'echo stopped; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let child = init(&sandbox, &["--", "sh", "-c", script]);
    let one = process_one(&child);
    until("the trap", || {
        sandbox.base().join("execs/main").exists() && call(&sandbox, &child, &["read", "id=main"]).out() == "ready\n"
    });
    kill_process(Pid::from_raw(one as i32).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output).0.as_str()), (Some(9), "ready\nstopped\n"));
    assert_eq!(end(&sandbox).as_deref(), Some("finished 9"));
}

#[test]
fn a_request_to_stop_ends_a_sandbox_without_first_command() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &[]);
    call(&sandbox, &child, &["run", "id=x", "--", "true"]).ok();
    kill_process(Pid::from_raw(process_one(&child) as i32).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), end(&sandbox)), (Some(143), None));
}

#[test]
fn orphans_are_reaped() {
    needs_root!();
    let sandbox = Sandbox::new();
    let child = init(&sandbox, &["lifetime=120000"]);
    let script = "(sleep 0.01 &) ; (sleep 2.2 &) ; exec >&- 2>&-";
    for id in 0..3 {
        call(&sandbox, &child, &["run", &format!("id=x{id}"), "--", "sh", "-c", script]).ok();
    }
    let one = process_one(&child);
    let children = format!("/proc/{one}/task/{one}/children");
    until("the end of all orphans", || fs::read_to_string(&children).is_ok_and(|text| text.trim().is_empty()));
    assert!(lives(one));
    kill_process(Pid::from_raw(one as i32).unwrap(), Signal::TERM).unwrap();
    child.wait_with_output().unwrap();
}

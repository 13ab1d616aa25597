//! Signals to process trees, time limits, and supervisors that are killed.

use std::fs;

use crate::{
    harness::{Sandbox, lives, until},
    needs_root,
};

/// A script whose processes leave its session and its parents. It writes their ids to files.
fn script(sandbox: &Sandbox) -> String {
    let path = |name: &str| sandbox.path(name).display().to_string();
    format!(
        "setsid sh -c 'echo $$ > {one}; exec sleep 600' & \
         (setsid sh -c 'echo $$ > {two}; exec sleep 600' & ) ; \
         echo $$ > {own}; wait; sleep 600",
        one = path("one"),
        two = path("two"),
        own = path("own"),
    )
}

fn pids(sandbox: &Sandbox) -> Vec<u32> {
    ["own", "one", "two"].iter().map(|name| sandbox.number(name)).collect()
}

#[test]
fn a_signal_reaches_all_descendants() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "sh", "-c", &script(&sandbox)]).ok();
    let pids = pids(&sandbox);
    assert!(pids.iter().all(|pid| lives(*pid)));
    sandbox.call("signal", &["id=x", "signal=9"]).ok();
    assert!(pids.iter().all(|pid| !lives(*pid)), "SIGKILL leaves none");
    assert_eq!(sandbox.call("wait", &["id=x", "wait=30000"]).verdict().as_deref(), Some("signaled 9"));
    sandbox.call("signal", &["id=x", "signal=9"]).ok();
}

#[test]
fn a_signal_can_be_handled() {
    needs_root!();
    let sandbox = Sandbox::new();
    let ready = sandbox.path("ready");
    let script = format!("trap 'echo got; exit 5' USR1; echo > {}; while :; do sleep 0.05; done", ready.display());
    sandbox.call("start", &["id=x", "--", "sh", "-c", &script]).ok();
    until("the trap", || ready.exists());
    let number = format!("signal={}", rustix::process::Signal::USR1.as_raw());
    sandbox.call("signal", &["id=x", &number]).ok();
    let answer = sandbox.call("read", &["id=x", "follow=1"]).ok();
    assert_eq!((answer.out().as_str(), answer.verdict().as_deref()), ("got\n", Some("exited 5")));
}

#[test]
fn wrong_signals_are_refused() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.sh("x", "true").ok();
    for signal in ["signal=0", "signal=65", "signal=-9", "other=1"] {
        assert_eq!(sandbox.call("signal", &["id=x", signal]).code(), "invalid");
    }
    assert_eq!(sandbox.call("signal", &["id=y", "signal=9"]).code(), "not-found");
    assert_eq!(sandbox.call("signal", &["id=main", "signal=9"]).code(), "invalid");
}

#[test]
fn the_time_limit_kills_the_whole_tree() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "timeout=1500", "--", "sh", "-c", &script(&sandbox)]).ok();
    let pids = pids(&sandbox);
    let answer = sandbox.call("read", &["id=x", "follow=1"]).ok();
    assert_eq!(answer.verdict().as_deref(), Some("deadline"));
    assert!(pids.iter().all(|pid| !lives(*pid)));
    let in_time = sandbox.call("run", &["id=y", "timeout=60000", "--", "true"]);
    assert_eq!(in_time.verdict().as_deref(), Some("exited 0"));
}

#[test]
fn a_command_without_supervisor_is_lost() {
    needs_root!();
    let sandbox = Sandbox::new();
    let script = format!("echo $$ > {}; echo before; exec sleep 600", sandbox.path("own").display());
    sandbox.call("start", &["id=x", "--", "sh", "-c", &script]).ok();
    let own = sandbox.number("own");
    assert_eq!(sandbox.call("read", &["id=x", "wait=30000"]).out(), "before\n");
    let supervisor = rustix::process::Pid::from_raw(sandbox.supervisor("x") as i32).unwrap();
    // Signals to all processes of a container do not end it.
    rustix::process::kill_process(supervisor, rustix::process::Signal::TERM).unwrap();
    assert_eq!(sandbox.call("wait", &["id=x", "wait=200"]).ok().verdict(), None);
    rustix::process::kill_process(supervisor, rustix::process::Signal::KILL).unwrap();
    let answer = sandbox.call("read", &["id=x", "follow=1"]).ok();
    assert_eq!(answer.verdict().as_deref(), Some("lost the supervisor was killed"));
    assert_eq!((answer.out().as_str(), answer.end(b'O'), answer.end(b'R')), ("before\n", Some(7), Some(0)));
    until("the end of the command", || !lives(own));
    sandbox.call("signal", &["id=x", "signal=9"]).ok();
    assert!(fs::read_dir(sandbox.base().join("execs/x")).is_ok());
}

//! Users of commands and files.

use crate::{harness::Sandbox, needs_root};

#[test]
fn users_are_names_or_numbers() {
    needs_root!();
    let sandbox = Sandbox::new();
    let run = |id: &str, user: &str| {
        let user = format!("user={user}");
        sandbox
            .call("run", &[&format!("id={id}"), &user, "--", "sh", "-c", "echo $(id -u):$(id -g):$(id -G) $HOME"])
            .out()
    };
    // The account `daemon` has the number 1 everywhere; its home differs.
    let home = std::fs::read_to_string("/etc/passwd").unwrap();
    let home =
        home.lines().find_map(|line| line.strip_prefix("daemon:")).unwrap().split(':').nth(4).unwrap().to_string();
    assert_eq!(run("name", "daemon"), format!("1:1:1 {home}\n"));
    assert_eq!(run("number", "1"), format!("1:1:1 {home}\n"));
    assert_eq!(run("group", "daemon:bin"), format!("1:2:2 {home}\n"));
    assert_eq!(run("numbers", "54321:12345"), "54321:12345:12345 /\n");
    assert_eq!(run("unlisted", "54321"), "54321:0:0 /\n");
    assert_eq!(run("root", "root"), "0:0:0 /root\n");
}

#[test]
fn unknown_users_are_refused_before_anything_starts() {
    needs_root!();
    let sandbox = Sandbox::new();
    let wrong = [
        ("user=no-such-user", "not-found"),
        ("user=daemon:no-such-group", "not-found"),
        ("user=99999999999", "invalid"),
    ];
    for (user, code) in wrong {
        let answer = sandbox.call("start", &["id=x", user, "--", "true"]);
        assert_eq!(answer.error(), (code.into(), "user".into()));
    }
    sandbox.call("start", &["id=x", "user=daemon", "--", "true"]).ok();
}

#[test]
fn the_home_directory_can_be_kept() {
    needs_root!();
    let sandbox = Sandbox::new();
    let home = |id: &str, args: &[&str]| {
        let id = format!("id={id}");
        let args = [&[id.as_str()], args, &["--", "sh", "-c", "echo $HOME"]].concat();
        crate::harness::Answer::of(&sandbox.command("run", &args).env("HOME", "/own").output().unwrap()).out()
    };
    assert_eq!(home("a", &[]), "/own\n");
    assert_eq!(home("b", &["user=root"]), "/root\n");
    assert_eq!(home("c", &["user=root", "home=keep"]), "/own\n");
    assert_eq!(home("d", &["user=root", "env=HOME=/given"]), "/given\n");
}

#[test]
fn the_directory_of_the_helper_is_closed_to_users() {
    needs_root!();
    let sandbox = Sandbox::new();
    let base = sandbox.base().display().to_string();
    let script = format!("ls {base}/execs; cat {base}/execs/x/state; ls . 2>&1; true");
    let cwd = format!("cwd={base}");
    let answer = sandbox.call("run", &["id=x", "user=65534:65534", &cwd, "--", "sh", "-c", &script]).ok();
    assert_eq!(answer.out().matches("ermission denied").count(), 1, "{}", answer.out());
    assert_eq!(answer.err().matches("ermission denied").count(), 2, "{}", answer.err());
    let content = format!("path={base}/execs/x/spec");
    let read = sandbox.call("read-file", &[&content, "transfer=t", "user=65534:65534"]);
    assert_eq!(read.code(), "file:permission-denied");
}

#[test]
fn a_container_without_capabilities_runs_commands_of_root() {
    needs_root!();
    let sandbox = Sandbox::new();
    let base = format!("base={}", sandbox.base().display());
    let bare = |args: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", crate::harness::PROGRAM, args[0], &base]);
        crate::harness::Answer::of(&command.args(&args[1..]).output().unwrap())
    };
    let script = "grep CapEff /proc/self/status | tr -d '[:space:]'";
    let answer = bare(&["run", "id=a", "user=root", "--", "sh", "-c", script]);
    assert_eq!((answer.out().as_str(), answer.verdict().as_deref()), ("CapEff:0000000000000000", Some("exited 0")));
    let at = sandbox.at("file");
    bare(&["write-file", &at, "transfer=t", "eof=1", "user=root", "data=eA=="]).ok();
    for refused in [vec!["start", "id=b", "user=daemon", "--", "true"], vec!["stat", &at, "user=daemon"]] {
        assert_eq!(bare(&refused).error(), ("invalid".into(), "user".into()));
    }
}

//! Input of commands.

use std::{fs, os::unix::fs::MetadataExt};

use crate::{
    harness::{Sandbox, data, until},
    needs_root,
};

#[test]
fn pieces_are_accepted_once_and_without_gaps() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "cat"]).ok();
    let input = |offset: u64, text: &str, eof: &str| {
        sandbox.call("input", &["id=x", &format!("offset={offset}"), &data(text), eof])
    };
    assert_eq!(input(0, "hello ", "eof=0").json(), r#"{"accepted":6,"closed":false}"#);
    assert_eq!(input(0, "hello ", "eof=0").json(), r#"{"accepted":6,"closed":false}"#);
    assert_eq!(input(3, "lo world", "eof=0").json(), r#"{"accepted":11,"closed":false}"#);
    assert_eq!(input(12, "x", "eof=0").error(), ("invalid".into(), "offset".into()));
    assert_eq!(input(11, "!", "eof=1").json(), r#"{"accepted":12,"closed":true}"#);
    assert_eq!(input(11, "!", "eof=1").json(), r#"{"accepted":12,"closed":true}"#);
    let answer = sandbox.call("read", &["id=x", "follow=1"]);
    assert_eq!((answer.out().as_str(), answer.verdict().as_deref()), ("hello world!", Some("exited 0")));
    assert_eq!(input(12, "more", "eof=0").json(), r#"{"accepted":12,"closed":true}"#);
    assert_eq!(sandbox.call("input", &["id=x", "offset=12", "data=!"]).error(), ("invalid".into(), "data".into()));
    assert_eq!(sandbox.call("input", &["id=y", "offset=0"]).code(), "not-found");
}

#[test]
fn concurrent_repetitions_are_accepted_once() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "cat"]).ok();
    let piece = data("0123456789");
    let spawn =
        || sandbox.command("input", &["id=x", "offset=0", &piece]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let calls: Vec<_> = (0..20).map(|_| spawn()).collect();
    for mut call in calls {
        assert!(call.wait().unwrap().success());
    }
    sandbox.call("input", &["id=x", "offset=10", "eof=1"]).ok();
    assert_eq!(sandbox.call("read", &["id=x", "follow=1"]).out(), "0123456789");
}

#[test]
fn consumed_input_takes_no_space_on_the_disk() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "sh", "-c", "cat | wc -c"]).ok();
    let piece = vec![b'x'; 4 << 20];
    for index in 0..4 {
        sandbox.put("piece", &piece);
        let offset = format!("offset={}", index * piece.len());
        sandbox.call("input", &["id=x", &offset, "file=piece"]).ok();
    }
    assert!(!sandbox.base().join("up/piece").exists());
    let spool = sandbox.base().join("execs/x/stdin");
    let size = 4 * piece.len() as u64;
    until("the consumption", || fs::metadata(&spool).unwrap().blocks() * 512 < size / 16);
    assert_eq!(fs::metadata(&spool).unwrap().len(), size);
    sandbox.call("input", &["id=x", &format!("offset={size}"), "eof=1"]).ok();
    assert_eq!(sandbox.call("read", &["id=x", "follow=1"]).out().trim(), size.to_string());
}

#[test]
fn input_is_closed_when_the_command_reads_no_more() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "sh", "-c", "exec <&-; sleep 600"]).ok();
    let closed = |id: &str| {
        sandbox.call("input", &[&format!("id={id}"), "offset=0"]).json() == r#"{"accepted":0,"closed":true}"#
    };
    until("the closed input", || closed("x"));
    sandbox.sh("y", "true").ok();
    assert!(closed("y"), "the command has ended");
    sandbox.call("start", &["id=z", "stdin=none", "--", "sh", "-c", "cat; sleep 600"]).ok();
    assert!(closed("z"), "there is no input from the start on");
}

//! Commands with a terminal.

use crate::{
    harness::{Sandbox, data},
    needs_root,
};

#[test]
fn a_command_gets_a_terminal_whose_size_can_change() {
    needs_root!();
    let sandbox = Sandbox::new();
    let script = "stty -echo; stty size; echo $TERM; read line; echo \"<$line>\"; stty size; echo err >&2; cat; exit 4";
    let start = ["id=x", "pty=24x80", "term=vt100", "user=65534:65534", "--", "sh", "-c", script];
    sandbox.call("start", &start).ok();
    // The command is at `read` when it has written both lines.
    let mut seen = String::new();
    while !seen.ends_with("vt100\r\n") {
        let offset = seen.len() as u64;
        let answer = sandbox.call("read", &["id=x", &format!("out={offset}"), "wait=30000"]).ok();
        assert_eq!(answer.verdict(), None);
        seen.push_str(&String::from_utf8(answer.stream_from(b'o', offset)).unwrap());
    }
    assert_eq!(seen, "24 80\r\nvt100\r\n");
    sandbox.call("resize", &["id=x", "rows=33", "columns=99"]).ok();
    sandbox.call("input", &["id=x", "offset=0", &data("a line\nno newline"), "eof=1"]).ok();
    let answer = sandbox.call("read", &["id=x", "follow=1"]).ok();
    assert_eq!(answer.out(), "24 80\r\nvt100\r\n<a line>\r\n33 99\r\nerr\r\nno newline");
    assert_eq!((answer.verdict().as_deref(), answer.end(b'R')), (Some("exited 4"), Some(0)));
    sandbox.call("resize", &["id=x", "rows=1", "columns=1"]).ok();
}

#[test]
fn the_terminal_controls_the_session() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox
        .call("start", &["id=x", "pty=10x10", "--", "sh", "-c", "trap 'exit 7' INT; tty; while :; do sleep 0.05; done"])
        .ok();
    let answer = sandbox.call("read", &["id=x", "wait=30000"]).ok();
    assert!(answer.out().starts_with("/dev/pts/"), "{answer:?}");
    sandbox.call("input", &["id=x", "offset=0", &data([3])]).ok();
    assert_eq!(sandbox.call("read", &["id=x", "follow=1"]).verdict().as_deref(), Some("exited 7"));
}

#[test]
fn only_terminals_have_a_size() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.sh("x", "true").ok();
    assert_eq!(sandbox.call("resize", &["id=x", "rows=1", "columns=1"]).code(), "conflict");
    assert_eq!(sandbox.call("resize", &["id=y", "rows=1", "columns=1"]).code(), "not-found");
    assert_eq!(sandbox.call("start", &["id=z", "pty=80", "--", "true"]).error(), ("invalid".into(), "pty".into()));
}

//! Starting commands, their output and their verdicts.

use std::{fs, io::Read as _, process::Stdio};

use crate::{
    harness::{Answer, Sandbox, lives, until},
    needs_root,
};

#[test]
fn a_command_has_two_streams_and_a_verdict() {
    needs_root!();
    let sandbox = Sandbox::new();
    let answer = sandbox.sh("a", "echo out; echo err >&2; exit 3");
    assert_eq!((answer.out().as_str(), answer.err().as_str()), ("out\n", "err\n"));
    assert_eq!((answer.end(b'O'), answer.end(b'R')), (Some(4), Some(4)));
    assert_eq!(answer.verdict().as_deref(), Some("exited 3"));
    assert_eq!(sandbox.sh("b", "kill -9 $$").verdict().as_deref(), Some("signaled 9"));
}

#[test]
fn concurrent_starts_of_one_id_start_one_command() {
    needs_root!();
    let sandbox = Sandbox::new();
    let script = format!("echo started >> {}", sandbox.path("count").display());
    let start =
        || sandbox.command("start", &["id=x", "--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let calls: Vec<_> = (0..100).map(|_| start()).collect();
    for call in calls {
        let answer = Answer::of(&call.wait_with_output().unwrap()).ok();
        assert_eq!(answer.frames.len(), 1);
    }
    let answer = sandbox.call("wait", &["id=x", "wait=30000"]);
    assert_eq!(answer.verdict().as_deref(), Some("exited 0"));
    assert_eq!(fs::read_to_string(sandbox.path("count")).unwrap(), "started\n");
    assert_eq!(fs::read_dir(sandbox.base().join("execs")).unwrap().count(), 1, "no draft stays");
}

#[test]
fn output_is_read_from_any_offset_again_and_again() {
    needs_root!();
    let sandbox = Sandbox::new();
    let whole = sandbox.sh("x", "seq 1 60000; seq 1 10 >&2").ok();
    let expected: String = (1..=60000).map(|number| format!("{number}\n")).collect();
    assert_eq!(whole.out(), expected);
    for _ in 0..2 {
        let rest = sandbox.call("read", &["id=x", "out=100000", "err=5", "follow=1"]).ok();
        assert_eq!(rest.stream_from(b'o', 100_000), expected.as_bytes()[100_000..]);
        assert_eq!(rest.stream_from(b'e', 5).len(), 16);
        assert_eq!(rest.verdict().as_deref(), Some("exited 0"));
    }
    let piece = sandbox.call("read", &["id=x", "out=7", "err=0", "max=100"]).ok();
    assert_eq!(piece.stream_from(b'o', 7), expected.as_bytes()[7..107]);
    assert!(piece.stream_from(b'e', 0).is_empty());
    assert_eq!((piece.verdict(), piece.end(b'O')), (None, None));
    let done = sandbox.call("read", &["id=x", &format!("out={}", expected.len()), "err=21"]).ok();
    assert_eq!(done.end(b'O'), Some(expected.len() as u64));
    assert_eq!(done.verdict().as_deref(), Some("exited 0"));
    let again = sandbox.sh("x", "echo never").ok();
    assert_eq!(again.out(), expected, "a repeated run is the same command");
}

#[test]
fn a_read_ends_with_the_first_output() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "sh", "-c", "echo one; read line; echo $line; exec >&-; read line"]).ok();
    let first = sandbox.call("read", &["id=x", "wait=30000"]).ok();
    assert_eq!((first.out().as_str(), first.verdict()), ("one\n", None));
    let nothing = sandbox.call("read", &["id=x", "out=4", "wait=50"]).ok();
    assert_eq!(nothing.frames.len(), 1, "nothing within the time");
    let reader = sandbox.command("read", &["id=x", "out=4", "wait=30000"]).stdout(Stdio::piped()).spawn().unwrap();
    sandbox.call("input", &["id=x", "offset=0", "data=dHdvCg=="]).ok();
    let second = Answer::of(&reader.wait_with_output().unwrap()).ok();
    assert_eq!(second.stream_from(b'o', 4), b"two\n");
    // The end of a stream is told although the command runs on.
    until("the end of stdout", || sandbox.call("read", &["id=x", "out=8", "wait=0"]).end(b'O') == Some(8));
    assert_eq!(sandbox.call("wait", &["id=x", "wait=10"]).ok().verdict(), None);
    sandbox.call("input", &["id=x", "offset=4", "eof=1"]).ok();
    assert_eq!(sandbox.call("wait", &["id=x", "wait=30000"]).verdict().as_deref(), Some("exited 1"));
}

#[test]
fn a_call_that_follows_says_that_it_lives() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "--", "sh", "-c", "read line"]).ok();
    let mut follower =
        sandbox.command("read", &["id=x", "follow=1", "beat=5", "wait=30000"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut frames = [0; 15];
    follower.stdout.as_mut().unwrap().read_exact(&mut frames).unwrap();
    assert_eq!(frames, *b"s\0\0\0\0s\0\0\0\0s\0\0\0\0");
    sandbox.call("input", &["id=x", "offset=0", "eof=1"]).ok();
    let rest = Answer::of(&follower.wait_with_output().unwrap()).ok();
    assert_eq!(rest.verdict().as_deref(), Some("exited 1"));
    let once = sandbox.call("read", &["id=x", "out=1", "wait=50", "beat=1"]);
    assert!(once.frames.iter().all(|(tag, _)| *tag != b's'), "{once:?}");
}

#[test]
fn streams_can_be_merged_discarded_and_opened_again() {
    needs_root!();
    let sandbox = Sandbox::new();
    let script = "echo a; echo b >&2; echo c > /dev/stdout; echo d > /dev/stderr; cat /dev/stdin";
    let merged = sandbox.call("run", &["id=m", "merge=1", "stdin=none", "user=65534:65534", "--", "sh", "-c", script]);
    assert_eq!((merged.out().as_str(), merged.err().as_str(), merged.end(b'R')), ("a\nb\nc\nd\n", "", Some(0)));
    let script = "echo a; echo b >&2; echo c > /dev/stdout";
    let discarded = sandbox.call("run", &["id=d", "out=discard", "--", "sh", "-c", script]);
    assert_eq!((discarded.out().as_str(), discarded.err().as_str(), discarded.end(b'O')), ("", "b\n", Some(0)));
    let discarded = sandbox.call("run", &["id=e", "err=discard", "--", "sh", "-c", script]);
    assert_eq!((discarded.out().as_str(), discarded.end(b'R')), ("a\nc\n", Some(0)));
}

#[test]
fn programs_that_cannot_be_executed_have_the_codes_of_a_shell() {
    needs_root!();
    let sandbox = Sandbox::new();
    let missing = sandbox.call("run", &["id=a", "--", "no-such-program"]);
    assert_eq!(
        (missing.err().as_str(), missing.verdict().as_deref()),
        ("no-such-program: not found\n", Some("exited 127"))
    );
    fs::write(sandbox.path("plain"), "text").unwrap();
    let path = sandbox.path("plain").display().to_string();
    let plain = sandbox.call("run", &["id=b", "--", &path]);
    assert_eq!(plain.verdict().as_deref(), Some("exited 126"));
    assert!(plain.err().starts_with(&path));
    let discarded = sandbox.call("run", &["id=c", "err=discard", "--", "no-such-program"]);
    assert_eq!((discarded.err().as_str(), discarded.verdict().as_deref()), ("", Some("exited 127")));
}

#[test]
fn starts_that_fail_fail_again_alike() {
    needs_root!();
    let sandbox = Sandbox::new();
    for _ in 0..2 {
        let answer = sandbox.call("run", &["id=a", "cwd=/no/such/directory", "--", "true"]).ok();
        assert_eq!(answer.verdict().as_deref(), Some("exited 127"));
        assert_eq!(answer.stream_from(b'e', 0), b"/no/such/directory: not found\n");
        let long = "x".repeat(130_000);
        let words = vec![long.as_str(); 60];
        sandbox.put("words", [&["echo"], words.as_slice()].concat().join("\0").as_bytes());
        let answer = sandbox.call("run", &["id=b", "args=@words"]);
        assert_eq!(answer.error().0, "invalid", "the words are longer than the kernel accepts");
        assert_eq!(answer.error().1, "argv");
    }
    let longer = "x".repeat(131_072);
    sandbox.put("words", format!("echo\0{longer}\0").as_bytes());
    assert_eq!(sandbox.call("start", &["id=c", "args=@words"]).error().1, "argv");
    assert_eq!(sandbox.call("start", &["id=c", "--"]).error(), ("invalid".into(), "argv".into()));
    assert_eq!(sandbox.call("start", &["id=c", "env=novalue", "--", "true"]).error(), ("invalid".into(), "env".into()));
    assert_eq!(sandbox.call("start", &["id=../c", "--", "true"]).error(), ("invalid".into(), "id".into()));
    assert_eq!(sandbox.call("start", &["id=main", "--", "true"]).error(), ("invalid".into(), "id".into()));
    assert_eq!(sandbox.call("read", &["id=c"]).error(), ("not-found".into(), "c".into()));
    assert_eq!(sandbox.call("nonsense", &[]).error(), ("invalid".into(), "verb".into()));
}

#[test]
fn a_command_starts_with_its_input_and_tells_that_it_has_started() {
    needs_root!();
    let sandbox = Sandbox::new();
    for _ in 0..2 {
        let answer = sandbox.call("run", &["id=a", "data=aGVsbG8=", "eof=1", "--", "cat"]).ok();
        assert_eq!(answer.stream_from(b'o', 0), b"hello");
        assert_eq!(answer.verdict().as_deref(), Some("exited 0"));
    }
}

#[test]
fn notes_are_kept_and_replaced() {
    needs_root!();
    let sandbox = Sandbox::new();
    for text in ["one", r#"{"a":"b=c"}"#] {
        sandbox.call("note", &["name=tags", &format!("text={text}")]).ok();
        assert_eq!(fs::read_to_string(sandbox.base().join("state/tags")).unwrap(), text);
    }
    assert_eq!(sandbox.call("note", &["name=../x", "text=y"]).error().1, "name");
    assert_eq!(sandbox.call("note", &["name=x", "text=a\nb"]).error().1, "text");
}

#[test]
fn words_and_environment_arrive_unchanged() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.put("words", b"printf\0<%s>\0a b\0\0\xff\n\0");
    let answer = sandbox.call("run", &["id=a", "args=@words"]).ok();
    assert_eq!(answer.stream_from(b'o', 0), b"<a b><><\xff\n>");
    assert!(!sandbox.base().join("up/words").exists(), "the data is taken");
    let command = ["id=b", "env=A=1=2", "env=B=", "env=A=3", "--", "sh", "-c", "echo $A-${B-unset}-$C"];
    let answer = sandbox.command("run", &command).env("C", "own").output().unwrap();
    assert_eq!(Answer::of(&answer).out(), "3--own\n");
    assert_eq!(sandbox.call("run", &["id=c", "cwd=/usr", "--", "pwd"]).out(), "/usr\n");
    let search = sandbox.call("run", &["id=d", "env=PATH=/no/such", "--", "true"]);
    assert_eq!(search.verdict().as_deref(), Some("exited 127"), "the program is searched in the command's PATH");
}

#[test]
fn streams_end_soon_after_a_command_that_leaves_processes_behind() {
    needs_root!();
    let sandbox = Sandbox::new();
    let (pid, late) = (sandbox.path("pid"), sandbox.path("late"));
    let script = format!(
        "(echo before; until [ -e {go} ]; do sleep 0.05; done; echo after && echo written > {late}; exec sleep 600) & echo $! > {pid}",
        go = sandbox.path("go").display(),
        late = late.display(),
        pid = pid.display(),
    );
    let answer = sandbox.sh("x", &script);
    assert_eq!((answer.out().as_str(), answer.verdict().as_deref()), ("before\n", Some("exited 0")));
    let child = sandbox.number("pid");
    assert!(lives(child), "the process runs on");
    fs::write(sandbox.path("go"), "").unwrap();
    until("the late output", || late.exists());
    assert_eq!(sandbox.call("read", &["id=x", "follow=1"]).out(), "before\n", "the stream has ended");
    crate::harness::until("the end of the process", || {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(child as i32).unwrap(),
            rustix::process::Signal::KILL,
        );
        !lives(child)
    });
    let supervisor = sandbox.supervisor("x");
    until("the end of the supervisor", || !lives(supervisor));
}

#[test]
fn commands_are_listed_newest_first() {
    needs_root!();
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.call("execs", &[]).json(), r#"{"execs":[]}"#);
    sandbox.sh("first", "exit 1").ok();
    // Times are in milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(2));
    sandbox.call("start", &["id=second", "--", "sh", "-c", "read \"x\""]).ok();
    let json = sandbox.call("execs", &[]).json();
    let (second, first) = (json.find(r#""id":"second""#).unwrap(), json.find(r#""id":"first""#).unwrap());
    assert!(second < first, "{json}");
    assert!(
        json[..first].contains(r#""argv":["sh","-c","read \"x\""]"#) && json[..first].contains(r#""verdict":null"#),
        "{json}"
    );
    assert!(json[first..].contains(r#""verdict":"exited 1""#), "{json}");
}

#[test]
fn a_probe_tells_whether_a_server_is_ready() {
    needs_root!();
    let sandbox = Sandbox::new();
    let ready = |args: &[&str]| sandbox.call("probe", args).ok().json() == r#"{"ready":true}"#;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("port={}", listener.local_addr().unwrap().port());
    assert!(ready(&[&port]));
    drop(listener);
    assert!(!ready(&[&port]));
    assert!(ready(&["--", "true"]));
    assert!(!ready(&["--", "false"]));
    assert!(!ready(&["--", "no-such-program"]));
    assert!(ready(&["user=65534", "cwd=/usr", "--", "sh", "-c", "[ $(id -u) = 65534 ] && [ $PWD = /usr ]"]));
    assert!(!ready(&["timeout=50", "--", "sleep", "600"]));
    assert_eq!(
        sandbox.call("probe", &["user=no-such-user", "--", "true"]).error(),
        ("not-found".into(), "user".into())
    );
}

#[test]
fn the_list_of_processes_shows_no_environment_of_a_command() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("start", &["id=x", "env=TOKEN=secret", "--", "sh", "-c", "read x"]).ok();
    let arguments = fs::read(format!("/proc/{}/cmdline", sandbox.supervisor("x"))).unwrap();
    let arguments = String::from_utf8_lossy(&arguments);
    assert!(arguments.starts_with("inside supervise x") && !arguments.contains("secret"), "{arguments}");
}

#[test]
fn a_full_disk_ends_a_command_whose_output_is_lost() {
    needs_root!();
    let sandbox = Sandbox::new();
    let base = format!("base={}", sandbox.base().display());
    let script = format!(
        "mount -t tmpfs -o size=512k none {dir} && exec {program} run {base} id=x timeout=3000 -- head -c 2000000 /dev/zero",
        dir = sandbox.base().display(),
        program = crate::harness::PROGRAM,
    );
    let output = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    let answer = Answer::of(&output).ok();
    assert!(answer.verdict().unwrap().starts_with("lost "), "{:?}", answer.verdict());
    let written = answer.stream_from(b'o', 0).len() as u64;
    assert!(written > 100_000 && answer.end(b'O') == Some(written));
}

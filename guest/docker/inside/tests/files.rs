//! The verbs for files.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    harness::{Answer, Sandbox, data},
    needs_root,
};

/// The user without rights of its own.
const USER: &str = "user=65534:65534";

/// Writes a file in one piece.
fn write(sandbox: &Sandbox, name: &str, id: &str, content: &str, more: &[&str]) -> Answer {
    let (at, id, content) = (sandbox.at(name), format!("transfer={id}"), data(content));
    sandbox.call("write-file", &[&[at.as_str(), &id, &content, "offset=0", "eof=1"], more].concat())
}

fn mode(sandbox: &Sandbox, name: &str) -> u32 {
    fs::metadata(sandbox.path(name)).unwrap().mode() & 0o7777
}

fn content(sandbox: &Sandbox, name: &str) -> String {
    fs::read_to_string(sandbox.path(name)).unwrap()
}

#[test]
fn entries_are_described() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("file"), "12345").unwrap();
    fs::set_permissions(sandbox.path("file"), fs::Permissions::from_mode(0o4640)).unwrap();
    symlink("file", sandbox.path("link")).unwrap();
    let file = sandbox.call("stat", &[&sandbox.at("file")]).json();
    for part in [
        r#""name":"file""#,
        r#""kind":"file""#,
        r#""target":null"#,
        r#""size":5"#,
        r#""mode":2464"#,
        r#""owner":"root""#,
    ] {
        assert!(file.contains(part), "{part} in {file}");
    }
    let link = sandbox.call("stat", &[&sandbox.at("link")]).json();
    assert!(link.contains(r#""kind":"symlink","target":"file""#), "{link}");
    let followed = sandbox.call("stat", &[&sandbox.at("link"), "follow=1"]).json();
    assert!(followed.contains(r#""name":"link""#) && followed.contains(r#""kind":"file""#), "{followed}");
    let device = sandbox.call("stat", &["path=/dev/null"]).json();
    assert!(device.contains(r#""kind":"other","target":null,"other":"a character device""#), "{device}");
    let root = sandbox.call("stat", &["path=/"]).json();
    assert!(root.contains(r#""name":"/","path":"/","kind":"directory""#), "{root}");
    assert_eq!(sandbox.call("stat", &[&sandbox.at("none")]).error().0, "file:not-found");
    assert_eq!(sandbox.call("stat", &[&sandbox.at("file/none")]).error().0, "file:not-a-directory");
    assert_eq!(sandbox.call("stat", &["path=relative"]).error(), ("invalid".into(), "path".into()));
}

#[test]
fn directories_are_listed_in_pages() {
    needs_root!();
    let sandbox = Sandbox::new();
    for name in ["b", "a", "c", "B"] {
        fs::write(sandbox.path(name), "").unwrap();
    }
    let wrong = std::ffi::OsStr::from_bytes(b"\xff");
    use std::os::unix::ffi::OsStrExt;
    fs::write(sandbox.path("").join(wrong), "").unwrap();
    let list = |args: &[&str]| {
        let json = sandbox.call("list", &[&[sandbox.at("").as_str()], args].concat()).json();
        let names: Vec<String> =
            json.split(r#"{"name":""#).skip(1).map(|item| item.split('"').next().unwrap().into()).collect();
        (names.join(" "), json.contains(r#""skipped":1"#), json.contains(r#""more":true"#))
    };
    assert_eq!(list(&[]), ("B a b c".into(), true, false));
    assert_eq!(list(&["max=2"]), ("B a".into(), true, true));
    assert_eq!(list(&["max=2", "after=a"]), ("b c".into(), true, false));
    assert_eq!(sandbox.call("list", &[&sandbox.at("a")]).code(), "file:not-a-directory");
    assert_eq!(sandbox.call("list", &[&sandbox.at("none")]).code(), "file:not-found");
}

#[test]
fn entries_are_changed() {
    needs_root!();
    let sandbox = Sandbox::new();
    let path = |name: &str| sandbox.at(name);
    let code = |verb: &str, args: &[&str]| {
        let answer = sandbox.call(verb, args);
        if answer.frames[0].0 == b'.' { "ok".to_string() } else { answer.code() }
    };
    assert_eq!(code("mkdir", &[&path("a/b")]), "file:not-found");
    assert_eq!(code("mkdir", &[&path("a/b"), "parents=1"]), "ok");
    assert_eq!(code("mkdir", &[&path("a/b"), "parents=1"]), "ok");
    assert_eq!(code("mkdir", &[&path("a/b")]), "file:already-exists");
    assert_eq!(code("remove", &[&path("a")]), "file:not-empty");
    assert_eq!(code("symlink", &[&path("link"), "target=a"]), "ok");
    assert_eq!(code("symlink", &[&path("link"), "target=a"]), "file:already-exists");
    assert_eq!(code("remove", &[&path("link"), "recursive=1"]), "ok");
    assert!(sandbox.path("a/b").exists(), "the link was removed, not its target");
    assert_eq!(code("remove", &[&path("a"), "recursive=1"]), "ok");
    assert_eq!(code("remove", &[&path("a"), "recursive=1"]), "file:not-found");
    fs::write(sandbox.path("one"), "1").unwrap();
    fs::write(sandbox.path("two"), "2").unwrap();
    let to = format!("to={}", sandbox.path("two").display());
    let failure = sandbox.call("rename", &[&path("one"), &to]).error();
    assert_eq!(failure, ("file:already-exists".into(), sandbox.path("two").display().to_string()));
    assert_eq!(code("rename", &[&path("one"), &to, "replace=1"]), "ok");
    assert_eq!(content(&sandbox, "two"), "1");
    assert_eq!(code("chmod", &[&path("two"), "mode=0751"]), "ok");
    assert_eq!(mode(&sandbox, "two"), 0o751);
    assert_eq!(code("chmod", &[&path("two"), "mode=8"]), "invalid");
}

#[test]
fn files_are_used_with_the_rights_of_the_user() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("private")).unwrap();
    fs::set_permissions(sandbox.path("private"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(sandbox.path("private/secret"), "secret").unwrap();
    symlink("private/secret", sandbox.path("link")).unwrap();
    let denied = "file:permission-denied";
    for name in ["private/secret", "link"] {
        let at = sandbox.at(name);
        assert_eq!(sandbox.call("read-file", &[&at, "transfer=r", USER]).code(), denied);
        assert_eq!(write(&sandbox, name, &format!("w-{name}").replace('/', "-"), "x", &[USER]).code(), denied);
        assert_eq!(sandbox.call("stat", &[&at, "follow=1", USER]).code(), denied);
    }
    assert_eq!(sandbox.call("list", &[&sandbox.at("private"), USER]).code(), denied);
    assert_eq!(sandbox.call("mkdir", &[&sandbox.at("private/x"), USER]).code(), denied);
    assert_eq!(sandbox.call("remove", &[&sandbox.at("private"), "recursive=1", USER]).code(), denied);
    assert_eq!(sandbox.call("chmod", &[&sandbox.at("private"), "mode=777", USER]).code(), denied);
    assert_eq!(sandbox.call("read-tree", &[&sandbox.at(""), "transfer=t", USER]).code(), denied);
    assert_eq!(content(&sandbox, "private/secret"), "secret");
    write(&sandbox, "own/dir/file", "own", "x", &[USER]).ok();
    for name in ["own", "own/dir", "own/dir/file"] {
        let metadata = fs::metadata(sandbox.path(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
    }
    assert_eq!((mode(&sandbox, "own"), mode(&sandbox, "own/dir/file")), (0o755, 0o644));
}

#[test]
fn a_file_arrives_in_pieces() {
    needs_root!();
    let sandbox = Sandbox::new();
    let at = sandbox.at("file");
    let piece = |offset: u64, text: &str, eof: &str| {
        sandbox.call("write-file", &[&at, "transfer=t", &format!("offset={offset}"), &data(text), eof])
    };
    assert_eq!(piece(0, "hello ", "eof=0").json(), r#"{"offset":6}"#);
    assert_eq!(piece(3, "lo world", "eof=0").json(), r#"{"offset":11}"#);
    assert_eq!(piece(12, "x", "eof=0").error(), ("invalid".into(), "offset".into()));
    assert!(!sandbox.path("file").exists());
    sandbox.put("rest", b"!");
    let last = ["transfer=t", "offset=11", "file=rest", "eof=1"];
    let last = sandbox.call("write-file", &[&[at.as_str()], last.as_slice()].concat());
    assert_eq!(last.json(), r#"{"offset":12}"#);
    assert_eq!(content(&sandbox, "file"), "hello world!");
    fs::write(sandbox.path("file"), "changed").unwrap();
    assert_eq!(piece(11, "!", "eof=1").json(), r#"{"offset":12}"#, "a repetition succeeds");
    assert_eq!(content(&sandbox, "file"), "changed", "and does nothing");
}

#[test]
fn a_transfer_that_failed_fails_again() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("dir")).unwrap();
    for _ in 0..2 {
        let answer = write(&sandbox, "dir", "t", "x", &[]);
        assert_eq!(answer.error(), ("file:is-a-directory".into(), sandbox.path("dir").display().to_string()));
    }
    fs::write(sandbox.path("plain"), "").unwrap();
    assert_eq!(write(&sandbox, "plain/file", "u", "x", &[]).code(), "file:not-a-directory");
    assert_eq!(write(&sandbox, "new", "v", "x", &["mode=other"]).error(), ("invalid".into(), "mode".into()));
    assert_eq!(write(&sandbox, "new", "w", "x", &["permissions=99"]).error(), ("invalid".into(), "permissions".into()));
    let entries = fs::read_dir(sandbox.path("")).unwrap().count();
    assert_eq!(entries, 2, "no draft stays");
}

#[test]
fn a_replacement_is_seen_whole_or_not_at_all() {
    needs_root!();
    let sandbox = Sandbox::new();
    let texts = ["a".repeat(300_000), "b".repeat(200_000)];
    fs::write(sandbox.path("file"), &texts[0]).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                let read = content(&sandbox, "file");
                assert!(texts.contains(&read), "{} bytes", read.len());
                count += 1;
            }
            count
        });
        for round in 0..10 {
            sandbox.put("text", texts[(round + 1) % 2].as_bytes());
            let id = format!("transfer=t{round}");
            sandbox.call("write-file", &[&sandbox.at("file"), &id, "file=text", "eof=1"]).ok();
        }
        stop.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
}

#[test]
fn a_replaced_file_keeps_its_owner_and_permissions() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("file"), "old").unwrap();
    std::os::unix::fs::chown(sandbox.path("file"), Some(123), Some(456)).unwrap();
    fs::set_permissions(sandbox.path("file"), fs::Permissions::from_mode(0o4762)).unwrap();
    symlink("file", sandbox.path("link")).unwrap();
    let owner = || fs::metadata(sandbox.path("file")).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    write(&sandbox, "link", "a", "new", &[USER]).ok();
    assert_eq!((content(&sandbox, "file").as_str(), owner()), ("new", (123, 456)));
    assert_eq!(mode(&sandbox, "file"), 0o762, "another user's write takes the set-user-ID bit");
    assert!(fs::symlink_metadata(sandbox.path("link")).unwrap().is_symlink());
    write(&sandbox, "file", "b", "newer", &["permissions=0600"]).ok();
    assert_eq!((mode(&sandbox, "file"), owner()), (0o600, (123, 456)));
    assert_eq!(write(&sandbox, "file", "c", "x", &[USER]).code(), "file:permission-denied");
    assert_eq!(content(&sandbox, "file"), "newer");
    symlink("missing", sandbox.path("dangling")).unwrap();
    write(&sandbox, "dangling", "d", "made", &[]).ok();
    assert_eq!(content(&sandbox, "missing"), "made");
    symlink("circle", sandbox.path("circle")).unwrap();
    assert_eq!(write(&sandbox, "circle", "e", "x", &[]).code(), "file:other");
}

#[test]
fn a_file_in_a_closed_directory_is_overwritten() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("dir")).unwrap();
    fs::write(sandbox.path("dir/file"), "a long old text").unwrap();
    fs::set_permissions(sandbox.path("dir/file"), fs::Permissions::from_mode(0o666)).unwrap();
    let inode = fs::metadata(sandbox.path("dir/file")).unwrap().ino();
    write(&sandbox, "dir/file", "a", "new", &[USER]).ok();
    assert_eq!(content(&sandbox, "dir/file"), "new");
    assert_eq!(fs::metadata(sandbox.path("dir/file")).unwrap().ino(), inode);
    assert_eq!(write(&sandbox, "dir/other", "b", "x", &[USER]).code(), "file:permission-denied");
    // More levels than there are above any directory for temporary files.
    write(&sandbox, &format!("{}dev/null", "../".repeat(40)), "c", "discarded", &[USER]).ok();
}

#[test]
fn a_mounted_file_is_overwritten() {
    needs_root!();
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("source"), "old").unwrap();
    fs::write(sandbox.path("target"), "").unwrap();
    let script = format!(
        "mount --bind {source} {target} && exec {program} write-file base={base} path={target} transfer=t eof=1 {data}",
        source = sandbox.path("source").display(),
        target = sandbox.path("target").display(),
        program = crate::harness::PROGRAM,
        base = sandbox.base().display(),
        data = data("new"),
    );
    let output = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    Answer::of(&output).ok();
    assert_eq!((content(&sandbox, "source").as_str(), content(&sandbox, "target").as_str()), ("new", ""));
    assert_eq!(fs::read_dir(sandbox.path("")).unwrap().count(), 2, "no draft stays");
}

#[test]
fn appending_extends_a_file_or_creates_it() {
    needs_root!();
    let sandbox = Sandbox::new();
    write(&sandbox, "dir/file", "a", "one", &["mode=append", USER]).ok();
    write(&sandbox, "dir/file", "b", "two", &["mode=append", USER]).ok();
    write(&sandbox, "dir/file", "b", "two", &["mode=append", USER]).ok();
    assert_eq!((content(&sandbox, "dir/file").as_str(), mode(&sandbox, "dir/file")), ("onetwo", 0o644));
    write(&sandbox, "dir/file", "c", "", &["mode=append", "permissions=600", USER]).ok();
    assert_eq!(mode(&sandbox, "dir/file"), 0o600);
    assert_eq!(write(&sandbox, "dir", "d", "x", &["mode=append"]).code(), "file:is-a-directory");
}

#[test]
fn only_one_call_creates_a_new_file() {
    needs_root!();
    let sandbox = Sandbox::new();
    let (at, mode_argument) = (sandbox.at("dir/file"), "mode=create-new");
    let spawn = |index: u32| {
        let (id, text) = (format!("transfer=t{index}"), data(index.to_string()));
        let args = [at.as_str(), &id, &text, mode_argument, "eof=1"];
        sandbox.command("write-file", &args).stdout(Stdio::piped()).spawn().unwrap()
    };
    let calls: Vec<_> = (0..20).map(spawn).collect();
    let mut winners = Vec::new();
    for (index, call) in calls.into_iter().enumerate() {
        let answer = Answer::of(&call.wait_with_output().unwrap());
        if answer.frames[0].0 == b'j' {
            winners.push(index.to_string());
        } else {
            assert_eq!(answer.code(), "file:already-exists");
        }
    }
    assert_eq!(winners, [content(&sandbox, "dir/file")]);
    symlink("missing", sandbox.path("dangling")).unwrap();
    assert_eq!(write(&sandbox, "dangling", "l", "x", &[mode_argument]).code(), "file:already-exists");
    assert_eq!(fs::read_dir(sandbox.path("dir")).unwrap().count(), 1, "no draft stays");
}

#[test]
fn a_file_is_read_in_pieces_of_one_version() {
    needs_root!();
    let sandbox = Sandbox::new();
    let text: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    fs::write(sandbox.path("file"), &text).unwrap();
    let mut read = Vec::new();
    loop {
        let offset = format!("offset={}", read.len());
        let args = [sandbox.at("file"), "transfer=t".into(), offset, "max=100000".into()];
        let answer = sandbox.call("read-file", &args.each_ref().map(String::as_str)).ok();
        assert!(answer.data().len() <= 100_000 && answer.frames.iter().all(|(_, payload)| payload.len() <= 65536));
        read.extend(answer.data());
        if answer.json() == r#"{"end":true}"# {
            break;
        }
        fs::write(sandbox.path("file"), "another version").unwrap();
    }
    assert!(read == text.as_bytes(), "{} bytes", read.len());
    assert!(!sandbox.base().join("files/t").exists(), "the end removes the transfer");
    let late = sandbox.call("read-file", &[&sandbox.at("file"), "transfer=t", "offset=100"]);
    assert_eq!(late.error(), ("not-found".into(), "t".into()));
    let small = sandbox.call("read-file", &[&sandbox.at("file"), "transfer=s", "max=15"]).ok();
    assert_eq!((small.data().as_slice(), small.json().as_str()), (b"another version".as_slice(), r#"{"end":true}"#));
    assert!(!sandbox.base().join("files/s").exists(), "a small file is not copied");
}

#[test]
fn everything_with_an_end_can_be_read() {
    needs_root!();
    let sandbox = Sandbox::new();
    let read = |path: &str| sandbox.call("read-file", &[path, "transfer=t", "max=1000000", USER]);
    assert!(read("path=/proc/self/status").ok().data().starts_with(b"Name:"));
    assert!(read("path=/dev/null").ok().data().is_empty());
    assert!(!read("path=/proc/cpuinfo").ok().data().is_empty());
    let fifo = sandbox.path("fifo");
    std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    fs::set_permissions(&fifo, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(read(&sandbox.at("fifo")).ok().data().is_empty(), "a pipe without writers is at its end");
    assert_eq!(read(&sandbox.at("")).code(), "file:is-a-directory");
    assert_eq!(read(&sandbox.at("none")).code(), "file:not-found");
    // A pipe without readers.
    assert_eq!(write(&sandbox, "fifo", "w", "x", &[USER]).code(), "file:other");
}

#[test]
fn a_transfer_is_ended_by_a_signal() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.call("write-file", &[&sandbox.at("file"), "transfer=t", &data("x")]).ok();
    assert!(sandbox.base().join("files/t").exists());
    sandbox.call("signal", &["id=t", "signal=15"]).ok();
    assert!(!sandbox.base().join("files/t").exists());
    assert_eq!(sandbox.call("signal", &["id=t", "signal=15"]).code(), "not-found");
}

#[test]
fn a_full_disk_is_reported() {
    needs_root!();
    let sandbox = Sandbox::new();
    sandbox.put("large", &vec![b'x'; 400_000]);
    let run = |mounted: &std::path::Path, args: &str| {
        let script = format!(
            "mount -t tmpfs -o size=256k none {} && exec {} {args} base={}",
            mounted.display(),
            crate::harness::PROGRAM,
            sandbox.base().display(),
        );
        let output = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
        Answer::of(&output)
    };
    let answer = run(&sandbox.path(""), &format!("write-file {} transfer=t file=large eof=1", sandbox.at("file")));
    assert_eq!(answer.code(), "file:no-space");
    fs::write(sandbox.path("source"), vec![b'x'; 400_000]).unwrap();
    let answer = run(sandbox.base(), &format!("read-file {} transfer=t max=1000", sandbox.at("source")));
    assert_eq!(answer.code(), "file:no-space");
    let fill = format!("{}/fill", sandbox.base().display());
    let script = format!(
        "mount -t tmpfs -o size=256k none {base} && {{ cat /dev/zero > {fill} 2>/dev/null; {program} start base={base} id=x -- true; }}",
        base = sandbox.base().display(),
        program = crate::harness::PROGRAM,
    );
    let output = std::process::Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().unwrap();
    assert_eq!(Answer::of(&output).code(), "file:no-space");
}

#[test]
fn concurrent_repetitions_are_applied_once() {
    needs_root!();
    let sandbox = Sandbox::new();
    let at = sandbox.at("file");
    // Large enough that the calls overlap.
    let size = 16_000_000;
    for round in 0..3 {
        let id = format!("transfer=t{round}");
        sandbox.put("large", &vec![b'x'; size]);
        sandbox.call("write-file", &[&at, &id, "offset=0", "mode=append", "file=large"]).ok();
        let offset = format!("offset={size}");
        let args = [at.as_str(), &id, &offset, "mode=append", "eof=1"];
        let spawn = || sandbox.command("write-file", &args).stdout(Stdio::piped()).spawn().unwrap();
        let calls: Vec<_> = (0..10).map(|_| spawn()).collect();
        for call in calls {
            assert_eq!(Answer::of(&call.wait_with_output().unwrap()).json(), format!(r#"{{"offset":{size}}}"#));
        }
        assert_eq!(fs::metadata(sandbox.path("file")).unwrap().len(), (round + 1) * size as u64);
    }
}

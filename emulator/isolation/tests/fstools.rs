//! Tests of the file tools as clients run them: by name, with one JSON argument.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

fn tool(argument: impl Into<OsString>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_container-roles"));
    command.arg0("/__modal/.bin/modal-sandbox-fs-tools").arg(argument.into()).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(argument: Value) -> Output {
    tool(argument.to_string()).output().unwrap()
}

fn ok(argument: Value) -> Vec<u8> {
    let output = run(argument.clone());
    assert!(output.status.success(), "{argument}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    output.stdout
}

fn kind(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(report["version"], 1);
    assert!(!report["message"].as_str().unwrap().trim().is_empty());
    report["error_kind"].as_str().unwrap().to_owned()
}

fn fails(argument: Value) -> String {
    kind(&run(argument))
}

fn write(path: &Path, content: &[u8]) -> Output {
    let mut child = tool(json!({"WriteFile": {"path": path}}).to_string()).stdin(Stdio::piped()).spawn().unwrap();
    // The tool may refuse the operation before it reads its input.
    let _ = child.stdin.take().unwrap().write_all(content);
    child.wait_with_output().unwrap()
}

fn write_ok(path: &Path, content: &[u8]) {
    let output = write(path, content);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(path).unwrap(), content);
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn reads_what_is_there_and_says_what_is_not() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("a b\u{e9}");
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7) as u8).collect();
    fs::write(&file, &content).unwrap();
    assert!(ok(json!({"ReadFile": {"path": file}})) == content);
    assert!(!ok(json!({"ReadFile": {"path": "/proc/self/status"}})).is_empty());
    assert_eq!(fails(json!({"ReadFile": {"path": place.path().join("none")}})), "NotFound");
    assert_eq!(fails(json!({"ReadFile": {"path": place.path()}})), "IsDirectory");
    assert_eq!(fails(json!({"ReadFile": {"path": file.join("x")}})), "NotDirectory");
    let huge = place.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(6 * 1024 * 1024 * 1024).unwrap();
    let refused = run(json!({"ReadFile": {"path": huge}}));
    assert_eq!(kind(&refused), "FileTooLarge");
    assert!(refused.stdout.is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_failure_to_tell_of() {
    let mut child = tool(r#"{"ReadFile": {"path": "/dev/zero"}}"#).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn writes_whole_files_with_their_parents() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("x/y/z.txt");
    write_ok(&file, b"hello");
    write_ok(&file, b"");
    write_ok(&file, &vec![b'x'; 3_000_000]);
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
    assert_eq!(names(file.parent().unwrap()), ["z.txt"]);
    assert_eq!(kind(&write(place.path(), b"x")), "IsDirectory");
    let below_file = kind(&write(&file.join("below"), b"x"));
    assert!(matches!(below_file.as_str(), "NotDirectory" | "AlreadyExists"), "{below_file}");
    // Names can be 255 bytes long; the temporary file must not need a longer name.
    write_ok(&place.path().join("n".repeat(255)), b"long");
    write_ok(Path::new("/dev/null"), b"");
}

#[test]
fn replacing_keeps_mode_and_goes_through_links() {
    let place = tempfile::tempdir().unwrap();
    let (file, link, dangling) = (place.path().join("f"), place.path().join("l"), place.path().join("d"));
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
    symlink("f", &link).unwrap();
    symlink("later", &dangling).unwrap();
    // A process that has the old file open still reads the old content.
    let mut open = fs::File::open(&file).unwrap();
    write_ok(&link, b"new");
    let mut old = String::new();
    open.read_to_string(&mut old).unwrap();
    assert_eq!(old, "old");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o751);
    write_ok(&dangling, b"there");
    assert_eq!(names(place.path()), ["d", "f", "l", "later"]);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_write_broken_off_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("f");
    fs::write(&file, "old").unwrap();
    let mut child = tool(json!({"WriteFile": {"path": file}}).to_string()).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: when all bytes are accepted, the tool has begun to write.
    stdin.write_all(&vec![b'x'; 1_000_000]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"old");
    assert_eq!(names(place.path()), ["f"]);
}

#[test]
fn entries_are_described_as_they_are() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("file"), "12345").unwrap();
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(at("dir")).unwrap();
    symlink("no/where", at("link")).unwrap();
    let list: Value = serde_json::from_slice(&ok(json!({"ListFiles": {"path": place.path()}}))).unwrap();
    let listed: Vec<_> = list.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(listed, ["dir", "file", "link"]);
    let file: Value = serde_json::from_slice(&ok(json!({"Stat": {"path": at("file")}}))).unwrap();
    assert_eq!(file, list[1]);
    assert_eq!(file["type"], "file");
    assert_eq!(file["size"], 5);
    assert_eq!(file["mode"], 0o100640);
    assert_eq!(file["permissions"], "0640");
    assert_eq!(file["path"], at("file").to_str().unwrap());
    assert!(file.get("symlink_target").is_none());
    let modified = fs::metadata(at("file")).unwrap().mtime() as f64;
    assert!((modified..modified + 1.0).contains(&file["modified_time"].as_f64().unwrap()));
    if nix::unistd::geteuid().is_root() {
        assert_eq!((file["owner"].as_str(), file["group"].as_str()), (Some("root"), Some("root")));
        std::os::unix::fs::chown(at("file"), Some(54_321), Some(54_322)).unwrap();
        let file: Value = serde_json::from_slice(&ok(json!({"Stat": {"path": at("file")}}))).unwrap();
        assert_eq!((file["owner"].as_str(), file["group"].as_str()), (Some("54321"), Some("54322")));
    }
    assert_eq!(list[2]["type"], "symlink");
    assert_eq!(list[2]["symlink_target"], "no/where");
    assert_eq!(fails(json!({"ListFiles": {"path": at("file")}})), "NotDirectory");
    assert_eq!(fails(json!({"ListFiles": {"path": at("none")}})), "NotFound");
    assert_eq!(fails(json!({"Stat": {"path": at("file/x")}})), "NotDirectory");
    symlink("dir", at("to-dir")).unwrap();
    fs::write(at("dir/in"), "").unwrap();
    let through: Value = serde_json::from_slice(&ok(json!({"ListFiles": {"path": at("to-dir")}}))).unwrap();
    assert_eq!(through[0]["path"], at("to-dir/in").to_str().unwrap());
}

#[test]
fn directories_are_made_and_removed() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let make = |name: &str, parents: bool| json!({"MakeDirectory": {"path": at(name), "parents": parents}});
    let remove = |name: &str, recursive: bool| json!({"Remove": {"path": at(name), "recursive": recursive}});
    ok(json!({"MakeDirectory": {"path": at("a/b/c")}}));
    ok(make("a/b/c", true));
    assert_eq!(fails(make("a/b/c", false)), "PathAlreadyExists");
    assert_eq!(fails(make("x/y", false)), "NotFound");
    fs::write(at("file"), "").unwrap();
    assert_eq!(fails(make("file", true)), "PathAlreadyExists");
    assert_eq!(fails(make("file", false)), "PathAlreadyExists");
    assert_eq!(fails(make("file/x", true)), "NotDirectory");
    assert_eq!(fails(make("file/x", false)), "NotDirectory");

    symlink("a", at("link")).unwrap();
    ok(remove("link", true));
    assert!(at("a/b/c").is_dir());
    assert_eq!(fails(remove("a", false)), "DirectoryNotEmpty");
    ok(remove("a/b/c", false));
    ok(remove("a", true));
    ok(json!({"Remove": {"path": at("file")}}));
    assert_eq!(fails(remove("file", false)), "NotFound");
    assert_eq!(names(place.path()), Vec::<String>::new());
    assert_eq!(fails(json!({"Remove": {"path": "/..", "recursive": true}})), "PermissionDenied");
}

#[test]
fn what_is_not_understood_is_refused() {
    for argument in ["", "nonsense", r#"{"Fly": {"path": "/"}}"#, r#"{"Stat": {}}"#] {
        assert_eq!(kind(&tool(argument).output().unwrap()), "InvalidArgument");
    }
    ok(json!({"Stat": {"path": "/", "a key of next year": 1}}));
}

/// Starts a watch and waits until it has reported a first change.
fn watch(place: &Path, argument: Value) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = tool(argument.to_string()).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    // Writes a file until the change is reported: there is no other sign that the watch is active.
    let knocking = std::thread::scope(|scope| {
        let (sender, answered) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while answered.recv_timeout(std::time::Duration::from_millis(20))
                == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                fs::write(place.join("knock"), "x").unwrap();
            }
        });
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        drop(sender);
        line
    });
    assert!(knocking.contains("knock"), "{knocking}");
    (child, lines)
}

fn next(lines: &mut impl BufRead) -> (String, Vec<String>) {
    loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "it ended");
        let event: Value = serde_json::from_str(&line).unwrap();
        let paths: Vec<String> = serde_json::from_value(event["paths"].clone()).unwrap();
        if !paths.iter().all(|path| path.ends_with("knock")) {
            return (event["event_type"].as_str().unwrap().to_owned(), paths);
        }
    }
}

#[test]
fn a_watch_tells_of_changes_until_its_input_ends() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let wanted = ["Create", "Modify", "Remove", "Rename", "RenameFrom", "RenameTo"];
    fs::create_dir(at("sub")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let argument = json!({"Watch": {"path": place.path(), "recursive": true, "filter": wanted, "timeout_secs": null}});
    let (mut child, mut lines) = watch(place.path(), argument);
    let event = |kind: &str, paths: &[&str]| (kind.to_owned(), paths.iter().map(|path| at(path)).collect::<Vec<_>>());

    fs::File::create(at("sub/f")).unwrap();
    assert_eq!(next(&mut lines), event("Create", &["sub/f"]));
    fs::write(at("sub/f"), "x").unwrap();
    assert_eq!(next(&mut lines), event("Modify", &["sub/f"]));
    fs::rename(at("sub/f"), at("g")).unwrap();
    let mut renamed = next(&mut lines);
    while renamed.0 == "Modify" {
        renamed = next(&mut lines);
    }
    assert_eq!(renamed, event("Rename", &["sub/f", "g"]));
    fs::rename(at("sub"), at("moved")).unwrap();
    assert_eq!(next(&mut lines), event("Rename", &["sub", "moved"]));
    fs::File::create(at("moved/h")).unwrap();
    assert_eq!(next(&mut lines), event("Create", &["moved/h"]));
    fs::rename(at("moved/h"), elsewhere.path().join("h")).unwrap();
    assert_eq!(next(&mut lines), event("RenameFrom", &["moved/h"]));
    fs::rename(elsewhere.path().join("h"), at("back")).unwrap();
    assert_eq!(next(&mut lines), event("RenameTo", &["back"]));
    fs::remove_file(at("back")).unwrap();
    assert_eq!(next(&mut lines), event("Remove", &["back"]));

    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_watch_ends_at_its_time() {
    let place = tempfile::tempdir().unwrap();
    let mut child = tool(json!({"Watch": {"path": place.path(), "timeout_secs": 0}}).to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    // Kept open, so that the watch ends because of its timeout.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(fails(json!({"Watch": {"path": place.path().join("none"), "timeout_secs": 5}})), "NotFound");
}

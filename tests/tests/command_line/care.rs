//! Outcomes that a careful user does not want: files that are lost or readable by others, names with control
//! characters, and failures that look like success.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use system_tests::{Emulator, component, feed, http_client::send_blocking, program, sandbox, stderr};

use super::{WAIT_TIMEOUT, alive, applied, order, printed, shared, until};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file does not exist").permissions().mode() & 0o777
}

/// Runs a shell command line in which the program is available as `"$0"`, to set limits or a working directory first.
fn by_shell(emulator: &Emulator, line: &str, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new("sh");
    command.args(["-c", line]).arg(program()).args(["--emulator-url", emulator.url()]).args(arguments);
    feed(&mut command, b"")
}

fn fails(emulator: &Emulator, arguments: &[&str], says: &[&str]) {
    let output = feed(emulator.sandbox().args(arguments), b"");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(125), "{arguments:?}: {text}");
    for word in says {
        assert!(text.contains(word), "{arguments:?}: {text}");
    }
}

#[test]
fn a_copy_onto_a_symlink_writes_its_target() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["exec", &id, "--", "sh", "-c", "echo new > /x"]);
    let from = format!("{id}:/x");
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let (link, target) = (directory.path().join("link"), directory.path().join("target"));
    fs::write(&target, "old, and longer").expect("cannot write the file");
    symlink("target", &link).expect("cannot create the link");
    printed(emulator, &["cp", &from, link.to_str().expect("not UTF-8")]);
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&target).expect("cannot read the text"), "new\n");

    // A link to an open descriptor, like `/dev/stdout`.
    let (out, file) = (directory.path().join("out"), directory.path().join("file"));
    symlink("/proc/self/fd/1", &out).expect("cannot create the link");
    let stdout = fs::File::create(&file).expect("cannot create the file");
    let copy =
        emulator.sandbox().args(["cp", &from]).arg(&out).stdout(stdout).status().expect("cannot start the program");
    assert!(copy.success() && out.is_symlink());
    assert_eq!(fs::read_to_string(&file).expect("cannot read the text"), "new\n");
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_copy_grants_no_more_permissions_than_the_original() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let secret = directory.path().join("secret");
    fs::write(&secret, "x").expect("cannot write the file");
    for bits in [0o600, 0o640, 0o700] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(bits)).expect("cannot set the permissions");
        printed(emulator, &["cp", secret.to_str().expect("not UTF-8"), &format!("{id}:/secret")]);
        let there = printed(emulator, &["exec", &id, "--", "stat", "-c", "%a", "/secret"]);
        assert_eq!(there, format!("{bits:o}"));
    }

    // The sandbox must not decide who may write to the user's files.
    let script =
        "mkdir -p /open/below; echo x > /open/file; chmod 777 /open/file /open/below; echo > /fixed; chmod 444 /fixed";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let place = directory.path().to_str().expect("not UTF-8");
    let fixed = directory.path().join("fixed");
    printed(emulator, &["cp", &format!("{id}:/fixed"), fixed.to_str().expect("not UTF-8")]);
    assert_eq!(mode(&fixed), 0o444);
    for (mask, bits) in [("077", 0o700), ("022", 0o755)] {
        let line = format!("umask {mask}; cd {place}; exec \"$0\" \"$@\"");
        let (one, all) = (format!("one-{mask}"), format!("all-{mask}"));
        for arguments in
            [["cp", &format!("{id}:/open/file"), &one].to_vec(), ["cp", "-r", &format!("{id}:/open"), &all].to_vec()]
        {
            let output = by_shell(emulator, &line, &arguments);
            assert!(output.status.success(), "{}", stderr(&output));
        }
        for path in [one.clone(), format!("{all}/file"), format!("{all}/below")] {
            assert_eq!(mode(&directory.path().join(&path)), bits, "{path}");
        }
    }
    printed(emulator, &["terminate", &id]);
}

/// Returns the relative paths of all entries below a directory.
fn below(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).expect("cannot read the directory") {
            let entry = entry.expect("cannot read the directory").path();
            all.push(
                entry
                    .strip_prefix(directory)
                    .expect("the entry is not below the directory")
                    .to_string_lossy()
                    .into_owned(),
            );
            if entry.is_dir() && !entry.is_symlink() {
                left.push(entry);
            }
        }
    }
    all.sort();
    all
}

/// Whatever the last component of the path in the sandbox is, nothing is written outside the destination.
#[test]
fn a_copy_stays_below_its_destination() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "mkdir -p /tree/sub; echo x > /tree/file; echo y > /tree/sub/deep; ln -s sub /tree/link";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let base = tempfile::tempdir().expect("cannot create a directory");
    for (number, (path, first)) in [
        ("/tree/sub/..", "file"),
        ("/tree/sub/../", "file"),
        ("/tree/sub/../.", "file"),
        ("/tree/.", "file"),
        ("/tree//", "tree"),
        ("/tree/link", "link"),
        ("/tree/sub/../../tree/..//tree", "tree"),
    ]
    .into_iter()
    .enumerate()
    {
        let here = base.path().join(format!("{number}/here"));
        fs::create_dir_all(&here).expect("cannot create the directory");
        printed(emulator, &["cp", "-r", &format!("{id}:{path}"), here.to_str().expect("not UTF-8")]);
        let all = below(here.parent().expect("no parent directory"));
        assert!(all.iter().all(|path| path == "here" || path.starts_with("here/")), "{path}: {all:?}");
        assert_eq!(all.get(1), Some(&format!("here/{first}")), "{path}: {all:?}");
    }

    // A copy between two sandboxes.
    let to = printed(emulator, &["create", "-q"]);
    printed(emulator, &["exec", &to, "--", "mkdir", "-p", "/base/here"]);
    printed(emulator, &["cp", "-r", &format!("{id}:/tree/sub/.."), &format!("{to}:/base/here")]);
    let all =
        printed(emulator, &["exec", &to, "--", "sh", "-c", "cd /base; find . | sort | xargs; readlink here/link"]);
    assert_eq!(all, ". ./here ./here/file ./here/link ./here/sub ./here/sub/deep\nsub");

    // A symbolic link that the user has at the place of the copy is not followed.
    let (here, outside) = (base.path().join("own"), base.path().join("outside"));
    fs::create_dir_all(&here).expect("cannot create the directory");
    fs::create_dir_all(&outside).expect("cannot create the directory");
    symlink("../outside", here.join("tree")).expect("cannot create the link");
    symlink("../outside/file", here.join("file")).expect("cannot create the link");
    fails(
        emulator,
        &["cp", "-r", &format!("{id}:/tree"), here.to_str().expect("not UTF-8")],
        &["a symbolic link has the name"],
    );
    printed(emulator, &["cp", &format!("{id}:/tree/file"), here.to_str().expect("not UTF-8")]);
    assert_eq!(fs::read_to_string(here.join("file")).expect("cannot read the text"), "x\n");
    assert_eq!(below(&outside), [""; 0]);
    printed(emulator, &["terminate", &id, &to]);
}

#[test]
fn a_copied_directory_keeps_its_sticky_bit() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "mkdir -p /tree/shared; chmod 1777 /tree/shared; echo > /tree/program; chmod 4755 /tree/program";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let to = directory.path().join("to");
    let output = feed(emulator.sandbox().args(["cp", "-r", &format!("{id}:/tree")]).arg(&to), b"");
    assert!(output.status.success(), "{}", stderr(&output));
    let bits = |name: &str| fs::metadata(to.join(name)).expect("the file does not exist").permissions().mode() & 0o7000;
    assert_eq!((bits("shared"), bits("program")), (0o1000, 0));
    assert!(stderr(&output).contains("without its set-user-id or set-group-id bit: program"), "{}", stderr(&output));
    printed(emulator, &["terminate", &id]);
}

/// The user's command replaces the command of the image. The end of the image's entry point must not end the sandbox.
#[test]
fn a_command_runs_in_an_image_whose_entry_point_ends() {
    let emulator = shared();
    for (number, own) in [
        "CMD [\"true\"]",
        "CMD exit 3",
        "ENTRYPOINT [\"/bin/bash\"]",
        "ENTRYPOINT [\"true\"]\nCMD [\"x\"]",
        "ENTRYPOINT echo done",
        "ENTRYPOINT [\"sh\", \"-c\", \"exec \\\"$@\\\"\", \"sh\"]",
    ]
    .into_iter()
    .enumerate()
    {
        let mut command = emulator.sandbox();
        let arguments = ["run", "-q", "--dockerfile", "-", "--", "sh", "-c", "sleep 0.2; echo out; exit 7"];
        let output = feed(command.args(arguments), format!("FROM debian\nENV n={number}\n{own}\n").as_bytes());
        assert_eq!(output.status.code(), Some(7), "{own}: {}", stderr(&output));
        assert_eq!(output.stdout, b"out\n", "{own}");
    }

    // With an image id only, the client knows nothing about the entry point. The second sandbox is created without a
    // command.
    let mut command = emulator.sandbox();
    let built = feed(command.args(["build", "-q", "--dockerfile", "-"]), b"FROM debian\nENTRYPOINT [\"false\"]\n");
    let image = String::from_utf8(built.stdout).expect("not UTF-8").trim().to_owned();
    // The entry point may end before the command starts or just after it. In the second case the command must not run
    // again.
    let output = feed(emulator.sandbox().args(["run", "-q", "--image", &image, "--", "echo", "out"]), b"");
    assert!(output.stdout == b"out\n" || stderr(&output).contains("--line 'ENTRYPOINT []'"), "{output:?}");
    let id = printed(emulator, &["create", "-q", "--image", &image]);
    // The exit code of the sandbox is that of the entry point.
    assert_eq!(feed(emulator.sandbox().args(["wait", &id]), b"").status.code(), Some(1));
    fails(
        emulator,
        &["exec", &id, "--", "true"],
        &["command of the sandbox ended first", "finished with 1", "sleep infinity"],
    );
}

/// A client that has only the id of an image knows nothing about its entry point. Here it ends before the command starts.
#[test]
fn a_command_runs_in_an_image_by_id_whose_entry_point_has_ended() {
    let emulator = Emulator::start();
    let mut command = emulator.sandbox();
    let built = feed(command.args(["build", "-q", "--dockerfile", "-"]), b"FROM debian\nENTRYPOINT [\"false\"]\n");
    let image = String::from_utf8(built.stdout).expect("not UTF-8").trim().to_owned();
    let late = json!({ "method": "TaskExecStart", "times": 1, "fault": { "delay": { "millis": 3000 } } });
    order(&emulator, &json!([late]));
    let output = feed(emulator.sandbox().args(["run", "-q", "--image", &image, "--", "echo", "out"]), b"");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(output.stdout, b"out\n");
}

/// This machine has a disk too, so the error names the one that is full.
#[test]
fn a_full_disk_of_a_sandbox_is_said_to_be_the_sandboxs() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let file = tempfile::NamedTempFile::new().expect("cannot create the file");
    fs::write(file.path(), "x").expect("cannot write the file");
    let path = file.path().to_str().expect("not UTF-8");
    // Every write to this device fails like a write to a full disk.
    fails(emulator, &["cp", path, &format!("{id}:/dev/full")], &["the sandbox's disk is full"]);
    printed(emulator, &["terminate", &id]);
}

/// Entries of a build context that no builder accepts. The image is built without them.
#[test]
fn a_build_reports_the_files_that_it_did_not_send() {
    let emulator = shared();
    let context = tempfile::tempdir().expect("cannot create a directory");
    let at = |name: &str| context.path().join(name);
    fs::write(at("Dockerfile"), "FROM debian\nCOPY . /context/\n").expect("cannot write the file");
    fs::write(at("file"), "x").expect("cannot write the file");
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("cannot create the pipe");
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("cannot create the socket");
    let mut command = emulator.sandbox();
    let output = feed(command.args(["run", "--dockerfile"]).arg(at("Dockerfile")).args(["--", "ls", "/context"]), b"");
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Dockerfile\nfile\n", "{text}");
    for what in ["pipe: it is a named pipe", "socket: it is a socket"] {
        assert!(text.contains(&format!("not in the build context: {what}")), "{text}");
    }
}

#[test]
fn a_copy_reports_the_files_that_it_skipped() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "mkdir /tree; echo x > /tree/file; ln -s /etc/passwd /tree/absolute; ln -s nothing/../.. /tree/later; ln -s file /tree/good";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let (from, to) = (format!("{id}:/tree"), directory.path().join("to"));
    let output = feed(emulator.sandbox().args(["-q", "--json", "cp", "-r", &from]).arg(&to), b"");
    let text = stderr(&output);
    assert!(
        output.status.success() && text.contains("not copied: absolute:") && text.contains("not copied: later:"),
        "{text}"
    );
    let told: Value = serde_json::from_slice(&output.stdout).expect("invalid JSON");
    assert_eq!(told["skipped"], 2);
    assert!(to.join("good").is_symlink() && !to.join("later").is_symlink());
    nix::unistd::mkfifo(&to.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("cannot create the pipe");
    let _socket = std::os::unix::net::UnixListener::bind(to.join("socket")).expect("cannot create the socket");
    let output = feed(emulator.sandbox().args(["-q", "--json", "cp", "-r"]).arg(&to).arg(format!("{id}:/back")), b"");
    let text = stderr(&output);
    assert!(
        output.status.success()
            && text.contains("not copied: pipe: a pipe")
            && text.contains("not copied: socket: a socket"),
        "{text}"
    );
    let told: Value = serde_json::from_slice(&output.stdout).expect("invalid JSON");
    assert_eq!(told["skipped"], 2);
    assert_eq!(printed(emulator, &["exec", &id, "--", "ls", "/back"]), "file\ngood");
    printed(emulator, &["terminate", &id]);
}

#[test]
fn one_failed_removal_of_several_is_named_and_does_not_stop_the_others() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["exec", &id, "--", "touch", "/a", "/b"]);
    let places = ["a", "missing", "b"].map(|name| format!("{id}:/{name}"));
    fails(emulator, &["rm", &places[0], &places[1], &places[2]], &["/missing"]);
    assert_eq!(printed(emulator, &["exec", &id, "--", "sh", "-c", "ls -d /a /b 2>/dev/null | wc -l"]), "0");
    printed(emulator, &["terminate", &id]);
}

#[test]
fn control_characters_in_names_and_messages_are_escaped() {
    let emulator = Emulator::start();
    let tag = "x=1\nsb-01FAKE  running \u{1b}[31m\u{202e}";
    let id = printed(&emulator, &["create", "-q", "--tag", tag]);
    let script = "mkdir /d; echo > \"/d/$(printf 'a\\nzz\\033[31m')\"";
    printed(&emulator, &["exec", &id, "--", "sh", "-c", script]);
    let place = format!("{id}:/d");
    for arguments in [&["list"][..], &["tags", &id], &["inspect", &id], &["ls", &place], &["ls", "-l", &place]] {
        let shown = printed(&emulator, arguments);
        assert!(shown.contains("\\n") && shown.contains("\\u{1b}[31m"), "{arguments:?}: {shown}");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{arguments:?}: {shown:?}");
        assert!(!shown.lines().any(|line| line.starts_with("sb-01FAKE") || line.starts_with("zz")), "{shown}");
    }
    // The same for messages of the service, during a wait and in an error.
    let message = "busy\u{1b}]0;title\u{7}\nsb-01FAKE  running\u{9b}31m\u{202e}";
    let status = |method: &str, code: i32, wait: Option<f64>| {
        let fault = json!({ "status": { "code": code, "message": message, "retry_after_secs": wait } });
        json!([{ "method": method, "times": 1, "fault": fault }])
    };
    for (rules, arguments) in [
        (status("SandboxCreateV2", 8, Some(0.05)), &["create"][..]),
        (status("SandboxListV2", 3, None), &["list"]),
        (status("SandboxListV2", 3, None), &["--json", "list"]),
    ] {
        super::order(&emulator, &rules);
        // The host must do the waiting, because the host prints the message. So the plugin is set to wait for 0 s.
        let output = feed(emulator.sandbox().env("MODAL_MAX_THROTTLE_WAIT", "0").args(arguments), b"");
        let told = if arguments.len() == 1 { stderr(&output) } else { String::from_utf8_lossy(&output.stdout).into() };
        assert!(told.contains("busy"), "{told:?}");
        assert!(!told.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{told:?}");
        assert!(!told.lines().any(|line| line.starts_with("sb-01FAKE")), "{told}");
    }
}

#[test]
fn the_last_value_of_a_repeated_tag_is_used() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let shown = printed(emulator, &["tags", &id, "a=1", "a=2"]);
    assert!(shown.contains("a=2") && !shown.contains("a=1"), "{shown}");
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_log_that_was_written_fast_is_complete() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q", "--image", "debian", "--", "seq", "30000"]);
    printed(emulator, &["wait", &id]);
    let expected: Vec<String> = (1..=30_000).map(|number| number.to_string()).collect();
    assert!(printed(emulator, &["logs", &id]).lines().eq(expected));
}

#[test]
fn wait_exits_with_the_result_of_the_sandbox() {
    let emulator = shared();
    let waits = |arguments: &[&str]| {
        let output = feed(emulator.sandbox().args(arguments), b"");
        (output.status.code(), String::from_utf8(output.stdout).expect("not UTF-8").trim().to_owned())
    };
    let id = printed(emulator, &["create", "-q", "--", "sh", "-c", "exit 7"]);
    assert_eq!(waits(&["wait", &id]), (Some(7), "finished with 7".into()));
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["terminate", &id]);
    assert_eq!(waits(&["wait", &id]), (Some(137), "terminated".into()));
    let id = printed(emulator, &["create", "-q", "--lifetime", "1s"]);
    assert_eq!(waits(&["wait", &id]), (Some(124), "lifetime exceeded".into()));
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["sidecar", "add", &id, "other", "--", "sh", "-c", "exit 9"]);
    assert_eq!(waits(&["sidecar", "wait", &id, "other"]), (Some(9), "finished with 9".into()));
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_sandbox_whose_id_cannot_be_printed_is_terminated() {
    let emulator = Emulator::start();
    let full = || fs::File::options().write(true).open("/dev/full").expect("cannot open /dev/full");
    for arguments in [&["create", "-q"][..], &["--json", "create", "-q"]] {
        let mut command = emulator.sandbox();
        let child =
            command.args(arguments).stdout(full()).stderr(Stdio::piped()).spawn().expect("cannot start the program");
        let output = child.wait_with_output().expect("cannot wait for the program");
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(125), "{text}");
        assert!(text.contains("write to standard output") && text.contains("No space left"), "{text}");
        assert!(alive(&emulator).is_empty());
    }
}

/// Some servers of the protocol do not enforce time limits. The command itself would run for longer than this test may take.
#[test]
fn a_time_limit_holds_where_the_server_has_none() {
    let emulator = Emulator::start();
    order(&emulator, &json!({ "method": "TaskExecStart", "fault": "ignore_time_limit" }));
    let id = printed(&emulator, &["create", "-q"]);
    let begun = std::time::Instant::now();
    let ends = |arguments: &[&str]| {
        let output = feed(emulator.sandbox().args(arguments), b"");
        assert_eq!(output.status.code(), Some(124), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let tree = "sleep 180 & setsid sleep 180 & exec sleep 180";
    // A killed process is still there for a moment.
    let gone = |id: &str| {
        until(|| printed(&emulator, &["exec", id, "--", "sh", "-c", "pgrep -fxc 'sleep 180' || true"]) == "0")
    };
    let verdict = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["verdict"].clone();
    ends(&["exec", "--timeout", "2s", &id, "--", "sleep", "180"]);
    ends(&["exec", "--timeout", "2s", &id, "--", "sh", "-c", tree]);
    assert_eq!(verdict(&ends(&["exec", "--json", "--timeout", "2s", &id, "--", "sh", "-c", tree])), "deadline");
    gone(&id);

    // `run` terminates its sandbox, so the processes are counted in a sandbox that is kept.
    assert_eq!(verdict(&ends(&["run", "-q", "--json", "--timeout", "2s", "--", "sh", "-c", tree])), "deadline");
    assert_eq!(alive(&emulator), [id.as_str()]);
    ends(&["run", "-q", "--keep", "--timeout", "2s", "--", "sh", "-c", tree]);
    let kept = alive(&emulator).into_iter().find(|one| *one != id).expect("it is kept");
    gone(&kept);
    assert!(applied(&emulator) >= 5);
    assert!(begun.elapsed() < WAIT_TIMEOUT, "{:?}", begun.elapsed());
}

/// The cost is shown while the sandbox runs and after its end, and left out if the server does not tell it.
#[test]
fn costs_are_shown_also_after_the_end() {
    let emulator = Emulator::start();
    let id = printed(&emulator, &["create", "-q", "--cpu", "0.5"]);
    printed(&emulator, &["exec", &id, "--", "sleep", "0.2"]);
    let stats = || serde_json::from_str::<Value>(&printed(&emulator, &["stats", "--json", &id])).expect("JSON");
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or_else(|| panic!("{name} in {value}"));
    let during = stats();
    assert!(number(&during, "cost_usd") > 0.0, "{during}");
    printed(&emulator, &["terminate", "--wait", &id]);
    let after = stats();
    assert!(number(&after, "cost_usd") >= number(&during, "cost_usd"), "{during} {after}");
    let parts: f64 = after["cost_by_resource_usd"].as_object().expect("parts").values().filter_map(Value::as_f64).sum();
    assert!((number(&after, "cost_usd") - parts).abs() < 1e-12, "{after}");
    let used = number(&after, "billed_cpu_core_ms");
    assert!(used >= 0.5 * 200.0 && number(&after, "billed_memory_mib_ms") > 0.0, "{after}");
    assert!(number(&after, "running_ms") >= 200.0, "{after}");
    let named: Vec<_> = after["distributions"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(named, ["cpu", "memory"]);
    let points = after["distributions"][0]["percentiles"].as_object().expect("percentiles");
    assert_eq!(points.keys().collect::<Vec<_>>(), ["50", "90", "99"]);
    let text = printed(&emulator, &["stats", &id]);
    for line in ["cost         0.0000", "  CPU        0.0000", "cpu          mean "] {
        assert!(text.lines().any(|shown| shown.starts_with(line)), "{text}");
    }

    let refused = json!({ "method": "SandboxGetStats*", "fault": { "status": { "code": 12, "message": "unknown" } } });
    order(&emulator, &refused);
    let without = stats();
    assert!(number(&without, "cpu_core_ms") >= 0.5 * 200.0, "{without}");
    assert_eq!((&without["cost_usd"], &without["running_ms"]), (&Value::Null, &Value::Null));
    assert!(!printed(&emulator, &["stats", &id]).contains("cost"));
}

#[test]
fn forwarding_ends_with_its_sandbox() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q", "--port", "7000/tcp", "--port", "8000"]);
    fails(emulator, &["forward", &id, "0:8000"], &["certificate", "--port 8000/tcp"]);
    let mut command = emulator.sandbox();
    command.args(["forward", &id, "0:7000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("cannot start the program");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("the stream is not piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("cannot read a line");
    assert!(line.contains("-> port 7000"), "{line}");
    printed(emulator, &["terminate", &id]);
    let output = child.wait_with_output().expect("cannot wait for the program");
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("it has ended: terminated"), "{}", stderr(&output));
}

#[test]
fn the_doctor_reports_ok_for_a_working_service() {
    let emulator = shared();
    let home = tempfile::tempdir().expect("cannot create a directory");
    let mut command = Command::new(program());
    command
        .arg("doctor")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path());
    command.env("MODAL_SERVER_URL", emulator.url());
    let output = feed(&mut command, b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET, or"), "{text}");
    let output = feed(command.env("MODAL_TOKEN_ID", "ak-1").env("MODAL_TOKEN_SECRET", "as-1"), b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("ok      service: answers"), "{text}");
    let shown = printed(emulator, &["doctor"]);
    assert!(shown.contains("ok      service: answers"), "{shown}");
}

#[test]
fn invalid_settings_are_refused() {
    let emulator = shared();
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let file = directory.path().join("file");
    let path = file.to_str().expect("not UTF-8");
    for (policy, says) in [
        ("[grants]\norigins = [\"nowhere\"]", ["grant the origin nowhere", "it requests: ["]),
        ("[grants]\nenv = [\"NOTHING\"]", ["grant the variable NOTHING", "MODAL_"]),
    ] {
        fs::write(&file, policy).expect("cannot write the file");
        fails(emulator, &["list", "--policy", path], &says);
    }
    // The emulator already uses the address, and the error must suggest another one.
    let taken = emulator.url().strip_prefix("http://").expect("not an http URL");
    fails(emulator, &["gateway", "--listen", taken], &["cannot listen on", "try: choose another port, or 0"]);
    fails(emulator, &["emulator", "--listen", taken], &["cannot listen on", "port 0 selects a free port"]);
    let signed_in = ["run", "--image", "im-1", "--registry-secret", "s", "--", "true"];
    fails(emulator, &signed_in, &["does not come from a registry", "try: omit the option"]);
    // A limit larger than any possible size has no effect.
    fs::write(&file, "[limits]\nbody_mib = 17592186044416").expect("cannot write the file");
    printed(emulator, &["list", "--policy", path]);
    fs::write(&file, "no certificate").expect("cannot write the file");
    fails(emulator, &["list", "--ca-file", path], &["no certificate in PEM format", "BEGIN CERTIFICATE"]);
    let mut command = emulator.sandbox();
    let output = feed(command.arg("list").env("SANDBOX_PLUGIN", "").env("SANDBOX_POLICY", ""), b"");
    assert!(output.status.success(), "{}", stderr(&output));
}

/// The path of the token file may be a link, a pipe or a device that another user created.
#[test]
fn a_token_file_replaces_only_regular_files() {
    let emulator = shared();
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let at = |name: &str| directory.path().join(name);
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("cannot create the pipe");
    symlink("/proc/self/fd/1", at("out")).expect("cannot create the link");
    fs::create_dir(at("folder")).expect("cannot create the directory");
    for name in ["pipe", "out", "folder"] {
        let path = at(name);
        fails(emulator, &["gateway", "--token-file", path.to_str().expect("not UTF-8")], &["it is not a regular file"]);
    }
    assert!(fs::symlink_metadata(at("pipe")).is_ok_and(|found| !found.is_file()) && at("out").is_symlink());
    fs::write(at("file"), "old").expect("cannot write the file");
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o644)).expect("cannot set the permissions");
    let path = at("file");
    let gateway = ["gateway", "--exit-with-stdin", "--token-file", path.to_str().expect("not UTF-8")];
    let output = feed(emulator.sandbox().args(gateway), b"");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((mode(&path), fs::read_to_string(&path).expect("cannot read the text").trim().len()), (0o600, 64));
    // The names of the variables that the client has to set.
    let told = String::from_utf8_lossy(&output.stdout);
    let names: Vec<_> = told.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(names, ["MODAL_SERVER_URL", "MODAL_GRPC_WIRE"]);
    assert!(
        stderr(&output).contains("set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to the content of"),
        "{}",
        stderr(&output)
    );
}

/// The inspection shows which files and variables a plugin would read, but not their contents.
#[test]
fn plugin_inspect_shows_names_but_no_values() {
    let directory = tempfile::tempdir().expect("cannot create a directory");
    let profile = directory.path().join("profile");
    fs::write(&profile, "[default]\nenvironment = 'of-the-file'\ntoken_id = 'ak-of-the-file'\n")
        .expect("cannot write the file");
    let look = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("MODAL_CONFIG_PATH", &profile)
            .env("MODAL_SERVER_URL", "http://127.0.0.1:1/x?key=hush");
        command.env("MODAL_TOKEN_ID", "ak-of-the-user").env("MODAL_TOKEN_SECRET", "as-of-the-user");
        let output = feed(command.env("MODAL_ENVIRONMENT", "of-the-user"), b"");
        assert!(output.status.success(), "{}", stderr(&output));
        let shown = String::from_utf8(output.stdout).expect("not UTF-8");
        assert!(!shown.contains("of-the-") && !shown.contains("hush"), "{shown}");
        shown
    };
    let shown = look(&["plugin", "inspect"]);
    for line in [
        "MODAL_ENVIRONMENT, or the setting environment",
        "~/.modal.toml, or the value of MODAL_CONFIG_PATH; MODAL_PROFILE selects a profile",
        "token-id (MODAL_TOKEN_ID, or the setting token_id), added by the host",
        "http://127.0.0.1:1 (control plane; x-modal-token-id, x-modal-token-secret)",
    ] {
        assert!(shown.contains(line), "{line} is missing in:\n{shown}");
    }
    let told: Value = serde_json::from_str(&look(&["--json", "plugin", "inspect"])).expect("invalid JSON");
    let wishes = &told["wishes"];
    assert_eq!((&told["name"], &wishes["profiles"]["path"]), (&"modal".into(), &"~/.modal.toml".into()));
    assert_eq!(
        wishes["settings"][0],
        serde_json::json!({ "setting": "server_url", "variable": "MODAL_SERVER_URL", "shown": true })
    );
}

/// Reading a plugin from a pipe needs no more memory than the largest permitted plugin.
#[test]
fn a_plugin_from_a_pipe_has_a_size_limit() {
    let look = |from: &str| {
        let line = format!("ulimit -v 4000000; {from} | \"$0\" plugin inspect /dev/stdin");
        feed(Command::new("sh").args(["-c", &line]).arg(program()).arg(component()), b"")
    };
    let endless = look("cat /dev/zero");
    assert_eq!(endless.status.code(), Some(125));
    assert!(stderr(&endless).contains("which is the limit"), "{}", stderr(&endless));
    let good = look("cat \"$1\"");
    assert!(good.status.success(), "{}", stderr(&good));
    assert!(String::from_utf8_lossy(&good.stdout).contains("gateway variables  MODAL_GRPC_WIRE=grpc-web"));
}

/// Another user of the machine can find the port, and a process of the same user can connect to it.
#[test]
fn a_private_emulator_accepts_only_its_own_credentials() {
    use std::io::BufRead as _;
    let mut command = sandbox();
    command.args(["--emulator", "-v", "run", "-i", "--", "sh", "-c", "echo ready; cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cannot start the program");
    let (told, tells) = std::sync::mpsc::channel();
    let log = std::io::BufReader::new(child.stderr.take().expect("the stream is not piped"));
    let reader = std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let _ = told.send(line);
        }
    });
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("the stream is not piped"));
    stdout.read_line(&mut line).expect("cannot read a line");
    assert_eq!(line, "ready\n");
    let mut lines = Vec::new();
    let url = loop {
        let line = tells.recv_timeout(super::WAIT_TIMEOUT).unwrap_or_else(|_| panic!("no address in {lines:?}"));
        if let Some((_, url)) = line.split_once("http://127.0.0.1:") {
            break url.to_owned();
        }
        lines.push(line);
    };
    let port: String = url.chars().take_while(char::is_ascii_digit).collect();
    let address = format!("127.0.0.1:{port}");
    let output = sandbox()
        .args(["--emulator-url", &format!("http://{address}"), "list"])
        .output()
        .expect("cannot start the program");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("Token validation failed"), "{text}");
    let answer = send_blocking("GET", &format!("http://{address}/emulator/state"), &[], "").expect("no response");
    assert_eq!(answer.status(), 401);
    drop(child.stdin.take());
    assert!(child.wait().expect("cannot wait for the program").success());
    reader.join().expect("the log reader panicked");
}

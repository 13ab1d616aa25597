//! What a careful user would not want to happen: files that are lost or read by others, names that pretend, failures that
//! look like success.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use system_tests::{Emulator, component, feed, program, sandbox, stderr};

use super::{NEVER, alive, applied, order, printed, shared};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// The program by way of a shell, which sets the scene.
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
fn a_link_stays_and_what_it_leads_to_is_written() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["exec", &id, "--", "sh", "-c", "echo new > /x"]);
    let from = format!("{id}:/x");
    let directory = tempfile::tempdir().expect("a directory");
    let (link, target) = (directory.path().join("link"), directory.path().join("target"));
    fs::write(&target, "old, and longer").expect("a file");
    symlink("target", &link).expect("a link");
    printed(emulator, &["cp", &from, link.to_str().expect("text")]);
    assert!(link.is_symlink());
    assert_eq!(fs::read_to_string(&target).expect("text"), "new\n");

    // As `/dev/stdout` is one.
    let (out, file) = (directory.path().join("out"), directory.path().join("file"));
    symlink("/proc/self/fd/1", &out).expect("a link");
    let stdout = fs::File::create(&file).expect("a file");
    let copy = emulator.sandbox().args(["cp", &from]).arg(&out).stdout(stdout).status().expect("it runs");
    assert!(copy.success() && out.is_symlink());
    assert_eq!(fs::read_to_string(&file).expect("text"), "new\n");
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_copy_is_no_more_open_than_what_was_copied() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    fs::write(&secret, "x").expect("a file");
    for bits in [0o600, 0o640, 0o700] {
        fs::set_permissions(&secret, fs::Permissions::from_mode(bits)).expect("it is ours");
        printed(emulator, &["cp", secret.to_str().expect("text"), &format!("{id}:/secret")]);
        let there = printed(emulator, &["exec", &id, "--", "stat", "-c", "%a", "/secret"]);
        assert_eq!(there, format!("{bits:o}"));
    }

    // The sandbox does not say who may write to the user's files.
    let script =
        "mkdir -p /open/below; echo x > /open/file; chmod 777 /open/file /open/below; echo > /fixed; chmod 444 /fixed";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let place = directory.path().to_str().expect("text");
    let fixed = directory.path().join("fixed");
    printed(emulator, &["cp", &format!("{id}:/fixed"), fixed.to_str().expect("text")]);
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

/// All that is below a directory, by relative path.
fn below(directory: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(&path).expect("a directory") {
            let entry = entry.expect("an entry").path();
            all.push(entry.strip_prefix(directory).expect("below it").to_string_lossy().into_owned());
            if entry.is_dir() && !entry.is_symlink() {
                left.push(entry);
            }
        }
    }
    all.sort();
    all
}

/// Whatever name the path in the sandbox ends in, nothing is written beside the destination.
#[test]
fn a_copy_stays_below_its_destination() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "mkdir -p /tree/sub; echo x > /tree/file; echo y > /tree/sub/deep; ln -s sub /tree/link";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let base = tempfile::tempdir().expect("a directory");
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
        fs::create_dir_all(&here).expect("a directory");
        printed(emulator, &["cp", "-r", &format!("{id}:{path}"), here.to_str().expect("text")]);
        let all = below(here.parent().expect("a parent"));
        assert!(all.iter().all(|path| path == "here" || path.starts_with("here/")), "{path}: {all:?}");
        assert_eq!(all.get(1), Some(&format!("here/{first}")), "{path}: {all:?}");
    }

    // Between two sandboxes.
    let to = printed(emulator, &["create", "-q"]);
    printed(emulator, &["exec", &to, "--", "mkdir", "-p", "/base/here"]);
    printed(emulator, &["cp", "-r", &format!("{id}:/tree/sub/.."), &format!("{to}:/base/here")]);
    let all =
        printed(emulator, &["exec", &to, "--", "sh", "-c", "cd /base; find . | sort | xargs; readlink here/link"]);
    assert_eq!(all, ". ./here ./here/file ./here/link ./here/sub ./here/sub/deep\nsub");

    // A link of the user's in the place of the copy leads nowhere.
    let (here, outside) = (base.path().join("own"), base.path().join("outside"));
    fs::create_dir_all(&here).expect("a directory");
    fs::create_dir_all(&outside).expect("a directory");
    symlink("../outside", here.join("tree")).expect("a link");
    symlink("../outside/file", here.join("file")).expect("a link");
    fails(emulator, &["cp", "-r", &format!("{id}:/tree"), here.to_str().expect("text")], &["a link is in the place"]);
    printed(emulator, &["cp", &format!("{id}:/tree/file"), here.to_str().expect("text")]);
    assert_eq!(fs::read_to_string(here.join("file")).expect("text"), "x\n");
    assert_eq!(below(&outside), [""; 0]);
    printed(emulator, &["terminate", &id, &to]);
}

#[test]
fn a_copied_directory_keeps_its_sticky_bit() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "mkdir -p /tree/shared; chmod 1777 /tree/shared; echo > /tree/program; chmod 4755 /tree/program";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let directory = tempfile::tempdir().expect("a directory");
    let to = directory.path().join("to");
    let output = feed(emulator.sandbox().args(["cp", "-r", &format!("{id}:/tree")]).arg(&to), b"");
    assert!(output.status.success(), "{}", stderr(&output));
    let bits = |name: &str| fs::metadata(to.join(name)).expect("it is there").permissions().mode() & 0o7000;
    assert_eq!((bits("shared"), bits("program")), (0o1000, 0));
    assert!(stderr(&output).contains("without its set-user-id or set-group-id bit: program"), "{}", stderr(&output));
    printed(emulator, &["terminate", &id]);
}

/// A command of one's own takes the place of the image's, whose end must not be that of the sandbox.
#[test]
fn a_command_runs_in_an_image_whose_own_program_ends() {
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

    // An image of which nothing but its id is known, and a sandbox that was made without a command.
    let mut command = emulator.sandbox();
    let built = feed(command.args(["build", "-q", "--dockerfile", "-"]), b"FROM debian\nENTRYPOINT [\"false\"]\n");
    let image = String::from_utf8(built.stdout).expect("text").trim().to_owned();
    // Its program may end before the command begins or just after. Then the command is not run a second time.
    let output = feed(emulator.sandbox().args(["run", "-q", "--image", &image, "--", "echo", "out"]), b"");
    assert!(output.stdout == b"out\n" || stderr(&output).contains("--line 'ENTRYPOINT []'"), "{output:?}");
    let id = printed(emulator, &["create", "-q", "--image", &image]);
    // Its exit code is that of the image's program.
    assert_eq!(feed(emulator.sandbox().args(["wait", &id]), b"").status.code(), Some(1));
    fails(emulator, &["exec", &id, "--", "true"], &["program ended first", "finished with 1", "sleep infinity"]);
}

#[test]
fn what_was_left_out_of_a_copy_is_told() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let script = "mkdir /tree; echo x > /tree/file; ln -s /etc/passwd /tree/absolute; ln -s nothing/../.. /tree/later; ln -s file /tree/good";
    printed(emulator, &["exec", &id, "--", "sh", "-c", script]);
    let directory = tempfile::tempdir().expect("a directory");
    let (from, to) = (format!("{id}:/tree"), directory.path().join("to"));
    let output = feed(emulator.sandbox().args(["-q", "--json", "cp", "-r", &from]).arg(&to), b"");
    let text = stderr(&output);
    assert!(
        output.status.success() && text.contains("not copied: absolute:") && text.contains("not copied: later:"),
        "{text}"
    );
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["skipped"], 2);
    assert!(to.join("good").is_symlink() && !to.join("later").is_symlink());
    printed(emulator, &["terminate", &id]);
}

#[test]
fn one_failure_of_many_is_named_and_stops_nothing() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["exec", &id, "--", "touch", "/a", "/b"]);
    let places = ["a", "missing", "b"].map(|name| format!("{id}:/{name}"));
    fails(emulator, &["rm", &places[0], &places[1], &places[2]], &["/missing"]);
    assert_eq!(printed(emulator, &["exec", &id, "--", "sh", "-c", "ls -d /a /b 2>/dev/null | wc -l"]), "0");

    // Of a tree that cannot be read: what it is that cannot be.
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("sub")).expect("a directory");
    let name = "x".repeat(120);
    std::os::unix::net::UnixListener::bind(directory.path().join("sub/socket")).expect("a socket");
    fs::write(directory.path().join("sub").join(&name), "x").expect("a file");
    fails(emulator, &["cp", "-r", directory.path().to_str().expect("text"), &format!("{id}:/tree")], &["sub/socket"]);
    printed(emulator, &["terminate", &id]);
}

#[test]
fn names_do_not_pretend_to_be_lines_or_steer_a_terminal() {
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
    // What the service itself says while it makes us wait, and when it fails.
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
        // The wait is to be the host's, which tells of it, and not the plugin's own.
        let output = feed(emulator.sandbox().env("MODAL_MAX_THROTTLE_WAIT", "0").args(arguments), b"");
        let told = if arguments.len() == 1 { stderr(&output) } else { String::from_utf8_lossy(&output.stdout).into() };
        assert!(told.contains("busy"), "{told:?}");
        assert!(!told.contains(['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}']), "{told:?}");
        assert!(!told.lines().any(|line| line.starts_with("sb-01FAKE")), "{told}");
    }
}

#[test]
fn of_a_tag_that_is_set_twice_the_last_counts() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let shown = printed(emulator, &["tags", &id, "a=1", "a=2"]);
    assert!(shown.contains("a=2") && !shown.contains("a=1"), "{shown}");
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_log_is_whole_however_fast_it_was_written() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q", "--image", "debian", "--", "seq", "30000"]);
    printed(emulator, &["wait", &id]);
    let expected: Vec<String> = (1..=30_000).map(|number| number.to_string()).collect();
    assert!(printed(emulator, &["logs", &id]).lines().eq(expected));
}

#[test]
fn how_a_sandbox_ended_is_the_exit_code_of_waiting() {
    let emulator = shared();
    let waits = |arguments: &[&str]| {
        let output = feed(emulator.sandbox().args(arguments), b"");
        (output.status.code(), String::from_utf8(output.stdout).expect("text").trim().to_owned())
    };
    let id = printed(emulator, &["create", "-q", "--", "sh", "-c", "exit 7"]);
    assert_eq!(waits(&["wait", &id]), (Some(7), "finished with 7".into()));
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["terminate", &id]);
    assert_eq!(waits(&["wait", &id]), (Some(137), "terminated".into()));
    let id = printed(emulator, &["create", "-q", "--lifetime", "1s"]);
    assert_eq!(waits(&["wait", &id]), (Some(124), "lifetime over".into()));
    let id = printed(emulator, &["create", "-q"]);
    printed(emulator, &["sidecar", "add", &id, "other", "--", "sh", "-c", "exit 9"]);
    assert_eq!(waits(&["sidecar", "wait", &id, "other"]), (Some(9), "finished with 9".into()));
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_sandbox_that_nobody_learns_of_does_not_stay() {
    let emulator = Emulator::start();
    let full = || fs::File::options().write(true).open("/dev/full").expect("the device");
    for arguments in [&["create", "-q"][..], &["--json", "create", "-q"]] {
        let mut command = emulator.sandbox();
        let child = command.args(arguments).stdout(full()).stderr(Stdio::piped()).spawn().expect("it runs");
        let output = child.wait_with_output().expect("it ends");
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
    let running = "cat /proc/[0-9]*/comm 2>/dev/null | grep -cx sleep; true";
    let verdict = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["verdict"].clone();
    ends(&["exec", "--timeout", "2s", &id, "--", "sleep", "180"]);
    ends(&["exec", "--timeout", "2s", &id, "--", "sh", "-c", tree]);
    assert_eq!(verdict(&ends(&["exec", "--json", "--timeout", "2s", &id, "--", "sh", "-c", tree])), "deadline");
    assert_eq!(printed(&emulator, &["exec", &id, "--", "sh", "-c", running]), "0");

    // `run` terminates its sandbox, so the processes are counted in a sandbox that is kept.
    assert_eq!(verdict(&ends(&["run", "-q", "--json", "--timeout", "2s", "--", "sh", "-c", tree])), "deadline");
    assert_eq!(alive(&emulator), [id.as_str()]);
    ends(&["run", "-q", "--keep", "--timeout", "2s", "--", "sh", "-c", tree]);
    let kept = alive(&emulator).into_iter().find(|one| *one != id).expect("it is kept");
    assert_eq!(printed(&emulator, &["exec", &kept, "--", "sh", "-c", running]), "0");
    assert!(applied(&emulator) >= 5);
    assert!(begun.elapsed() < NEVER, "{:?}", begun.elapsed());
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
    let mut child = command.spawn().expect("it runs");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    assert!(line.contains("-> port 7000"), "{line}");
    printed(emulator, &["terminate", &id]);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(125));
    assert!(stderr(&output).contains("it has ended: terminated"), "{}", stderr(&output));
}

#[test]
fn the_doctor_finds_what_works_to_work() {
    let emulator = shared();
    let home = tempfile::tempdir().expect("a directory");
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
fn settings_that_mean_nothing_are_refused() {
    let emulator = shared();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    let path = file.to_str().expect("text");
    for (policy, says) in [
        ("[grants]\norigins = [\"nowhere\"]", ["grant the origin nowhere", "its wishes are ["]),
        ("[grants]\nenv = [\"NOTHING\"]", ["grant the variable NOTHING", "MODAL_"]),
    ] {
        fs::write(&file, policy).expect("a file");
        fails(emulator, &["list", "--policy", path], &says);
    }
    // Taken by the emulator, and there is another way.
    let taken = emulator.url().strip_prefix("http://").expect("plain http");
    fails(emulator, &["gateway", "--listen", taken], &["cannot listen on", "try: give another port, or 0"]);
    fails(emulator, &["emulator", "--listen", taken], &["cannot listen on", "port 0 takes any free one"]);
    let signed_in = ["run", "--image", "im-1", "--registry-secret", "s", "--", "true"];
    fails(emulator, &signed_in, &["comes from no registry", "try: leave it away"]);
    // More than there are bytes is no limit.
    fs::write(&file, "[limits]\nbody_mib = 17592186044416").expect("a file");
    printed(emulator, &["list", "--policy", path]);
    fs::write(&file, "no certificate").expect("a file");
    fails(emulator, &["list", "--ca-file", path], &["no certificate in PEM form", "BEGIN CERTIFICATE"]);
    let mut command = emulator.sandbox();
    let output = feed(command.arg("list").env("SANDBOX_PLUGIN", "").env("SANDBOX_POLICY", ""), b"");
    assert!(output.status.success(), "{}", stderr(&output));
}

/// What stands where the token is to go may be somebody else's.
#[test]
fn a_token_file_replaces_files_only() {
    let emulator = shared();
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    symlink("/proc/self/fd/1", at("out")).expect("a link");
    fs::create_dir(at("folder")).expect("a directory");
    for name in ["pipe", "out", "folder"] {
        let path = at(name);
        fails(emulator, &["gateway", "--token-file", path.to_str().expect("text")], &["it is no regular file"]);
    }
    assert!(fs::symlink_metadata(at("pipe")).is_ok_and(|found| !found.is_file()) && at("out").is_symlink());
    fs::write(at("file"), "old").expect("a file");
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o644)).expect("a file");
    let path = at("file");
    let gateway = ["gateway", "--exit-with-stdin", "--token-file", path.to_str().expect("text")];
    let output = feed(emulator.sandbox().args(gateway), b"");
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!((mode(&path), fs::read_to_string(&path).expect("text").trim().len()), (0o600, 64));
    // What is to be set, and to what.
    let told = String::from_utf8_lossy(&output.stdout);
    let names: Vec<_> = told.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert_eq!(names, ["MODAL_SERVER_URL", "MODAL_GRPC_WIRE"]);
    assert!(stderr(&output).contains("set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET to what"), "{}", stderr(&output));
}

/// What a plugin would read is shown, and not what is there.
#[test]
fn a_look_at_a_plugin_shows_names_and_no_values() {
    let directory = tempfile::tempdir().expect("a directory");
    let profile = directory.path().join("profile");
    fs::write(&profile, "[default]\nenvironment = 'of-the-file'\ntoken_id = 'ak-of-the-file'\n").expect("a file");
    let look = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .env("MODAL_CONFIG_PATH", &profile)
            .env("MODAL_SERVER_URL", "http://127.0.0.1:1/x?key=hush");
        command.env("MODAL_TOKEN_ID", "ak-of-the-user").env("MODAL_TOKEN_SECRET", "as-of-the-user");
        let output = feed(command.env("MODAL_ENVIRONMENT", "of-the-user"), b"");
        assert!(output.status.success(), "{}", stderr(&output));
        let shown = String::from_utf8(output.stdout).expect("text");
        assert!(!shown.contains("of-the-") && !shown.contains("hush"), "{shown}");
        shown
    };
    let shown = look(&["plugin", "inspect"]);
    for line in [
        "MODAL_ENVIRONMENT, or the setting environment",
        "~/.modal.toml, or where MODAL_CONFIG_PATH says; MODAL_PROFILE selects a profile",
        "token-id (MODAL_TOKEN_ID, or the setting token_id), added by the host",
        "http://127.0.0.1:1 (control plane; x-modal-token-id, x-modal-token-secret)",
    ] {
        assert!(shown.contains(line), "{line} is missing in:\n{shown}");
    }
    let told: Value = serde_json::from_str(&look(&["--json", "plugin", "inspect"])).expect("JSON");
    let wishes = &told["wishes"];
    assert_eq!((&told["name"], &wishes["profiles"]["path"]), (&"modal".into(), &"~/.modal.toml".into()));
    assert_eq!(
        wishes["settings"][0],
        serde_json::json!({ "setting": "server_url", "variable": "MODAL_SERVER_URL", "shown": true })
    );
}

/// A look at what a pipe brings costs no more than a plugin may be large.
#[test]
fn a_plugin_out_of_a_pipe_is_bounded() {
    let look = |from: &str| {
        let line = format!("ulimit -v 4000000; {from} | \"$0\" plugin inspect /dev/stdin");
        feed(Command::new("sh").args(["-c", &line]).arg(program()).arg(component()), b"")
    };
    let endless = look("cat /dev/zero");
    assert_eq!(endless.status.code(), Some(125));
    assert!(stderr(&endless).contains("more than any plugin"), "{}", stderr(&endless));
    let good = look("cat \"$1\"");
    assert!(good.status.success(), "{}", stderr(&good));
    assert!(String::from_utf8_lossy(&good.stdout).contains("behind a gateway  MODAL_GRPC_WIRE=grpc-web"));
}

/// Another user of the machine can find the port, and a process of the same user can connect to it.
#[test]
fn a_private_emulator_takes_its_own_credentials_only() {
    use std::io::{BufRead as _, Read as _, Write as _};
    let mut command = sandbox();
    command.args(["--emulator", "-v", "run", "-i", "--", "sh", "-c", "echo ready; cat"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let (told, tells) = std::sync::mpsc::channel();
    let log = std::io::BufReader::new(child.stderr.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            let _ = told.send(line);
        }
    });
    let mut line = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let mut lines = Vec::new();
    let url = loop {
        let line = tells.recv_timeout(super::NEVER).unwrap_or_else(|_| panic!("no address in {lines:?}"));
        if let Some((_, url)) = line.split_once("http://127.0.0.1:") {
            break url.to_owned();
        }
        lines.push(line);
    };
    let port: String = url.chars().take_while(char::is_ascii_digit).collect();
    let address = format!("127.0.0.1:{port}");
    let output = sandbox().args(["--emulator-url", &format!("http://{address}"), "list"]).output().expect("it runs");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("Token validation failed"), "{text}");
    let mut stream = std::net::TcpStream::connect(&address).expect("it listens");
    write!(stream, "GET /emulator/state HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    reader.join().expect("the log ends");
}

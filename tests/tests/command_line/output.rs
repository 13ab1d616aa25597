//! Compares the whole output of every subcommand with snapshot files: success, failure and `--json`. The help texts are
//! in `docs/cli.md`, which a test of the command-line crate compares with the program.
//!
//! To accept a change, run `INSTA_UPDATE=always cargo test --release --package system-tests --test system` with the
//! variables that `system_tests` names, and review the difference.

use std::{
    borrow::Cow,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
    sync::LazyLock,
};

use nix::{sys::signal::Signal, unistd::Pid};
use regex::Regex;
use system_tests::{Emulator, feed, sandbox, stderr};

use super::{order, printed, shared};

/// Patterns of the text that differs from run to run, and their replacements.
static FILTERS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\bsb-[0-9A-Z]{26}\b", "[sandbox]"),
        (r"\bim-[0-9A-Za-z]{22}\b", "[image]"),
        (r"\bctr-[0-9A-Za-z]{22}\b", "[container]"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "[uuid]"),
        (r"\b[0-9a-f]{64}\b", "[sha256]"),
        (r"\b(127\.0\.0\.1|localhost):[0-9]+", "$1:[port]"),
        (r#"("public_port"):[0-9]+"#, "$1:[port]"),
        (r#"("[a-z_]+_ms"):[0-9]+"#, "$1:[number]"),
        (r"\b20[0-9]{2}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\b", "[time]"),
        (r"\b(in) [0-9]+ ms", "$1 [number] ms"),
        (r"\b[0-9]+\.[0-9]{6}\b", "[number]"),
        (r#"(":)[0-9]+(\.[0-9]+(e-?[0-9]+)?|e-?[0-9]+)"#, "$1[number]"),
        (r"\b[0-9]{6,7} bytes", "[size] bytes"),
        (r#"("size"):[0-9]{6,7}\b"#, "$1:[size]"),
        (r"\b(listens there) \([^)]*\)", "$1"),
    ]
    .into_iter()
    .map(|(pattern, name)| (Regex::new(pattern).expect("invalid pattern"), name))
    .collect()
});

/// Progress lines. They appear after a second, which on a busy machine can happen to any operation.
static PROGRESS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[a-z].* …$|^(copying|sending) .*: ").expect("invalid pattern"));

/// The commands of a test and their output.
pub(super) struct Transcript {
    emulator: &'static Emulator,
    directory: tempfile::TempDir,
    pub(super) text: String,
}

impl Transcript {
    pub(super) fn new() -> Transcript {
        let directory = tempfile::tempdir().expect("cannot create a directory");
        Transcript { emulator: shared(), directory, text: String::new() }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the program in the directory of the transcript, without settings of the user who runs the test.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.emulator.sandbox();
        command.args(arguments).current_dir(self.path()).env("USER", "tester").env("COLUMNS", "100");
        command.env("SANDBOX_PLUGIN_DIR", self.path().join("plugins"));
        command
    }

    fn run(&mut self, arguments: &[&str]) -> Output {
        self.feed(arguments, b"")
    }

    fn feed(&mut self, arguments: &[&str], input: &[u8]) -> Output {
        let output = feed(&mut self.command(arguments), input);
        self.note(arguments, &output);
        output
    }

    /// Runs the program without an emulator.
    fn alone(&mut self, arguments: &[&str], input: &[u8]) {
        self.with(&[], arguments, input);
    }

    /// Runs the program without an emulator, with these environment variables.
    pub(super) fn with(&mut self, variables: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> Output {
        let output = feed(&mut self.command_with(variables, arguments), input);
        self.note(arguments, &output);
        output
    }

    fn command_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
        let mut command = sandbox();
        command.args(arguments).current_dir(self.path()).env("USER", "tester").env("COLUMNS", "100");
        command.envs(variables.iter().copied()).env("SANDBOX_PLUGIN_DIR", self.path().join("plugins"));
        command
    }

    /// Like [`Transcript::with`] for a command that prints a line and runs on. Calls `then` with the line, and interrupts
    /// the command.
    pub(super) fn interrupted(&mut self, variables: &[(&str, &str)], arguments: &[&str], then: impl FnOnce(&str)) {
        let mut command = self.command_with(variables, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cannot start the program");
        let mut stdout = BufReader::new(child.stdout.take().expect("the stream is not piped"));
        let mut printed = String::new();
        stdout.read_line(&mut printed).expect("cannot read a line");
        then(&printed);
        nix::sys::signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("cannot signal the program");
        stdout.read_to_string(&mut printed).expect("cannot read the output");
        let output = child.wait_with_output().expect("cannot wait for the program");
        self.note(arguments, &Output { stdout: printed.into_bytes(), ..output });
    }

    /// Starts the program, calls `then`, and ends the program by SIGINT.
    pub(super) fn ended(&mut self, variables: &[(&str, &str)], arguments: &[&str], then: impl FnOnce()) {
        let mut command = self.command_with(variables, arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cannot start the program");
        then();
        nix::sys::signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("cannot signal the program");
        let output = child.wait_with_output().expect("cannot wait for the program");
        self.note(arguments, &output);
    }

    fn note(&mut self, arguments: &[&str], output: &Output) {
        let quoted = arguments.iter().map(|argument| {
            let plain = |c: char| c.is_alphanumeric() || "-_./:=,@".contains(c);
            let simple = !argument.is_empty() && argument.chars().all(plain);
            if simple { Cow::Borrowed(*argument) } else { Cow::Owned(format!("'{argument}'")) }
        });
        self.text.push_str(&format!("$ sandbox-host {}\n", quoted.collect::<Vec<_>>().join(" ")));
        for (mark, bytes) in [("  ", &output.stdout), ("! ", &output.stderr)] {
            for line in String::from_utf8_lossy(bytes).lines().filter(|line| !PROGRESS.is_match(line)) {
                self.text.push_str(format!("{mark}{line}").trim_end());
                self.text.push('\n');
            }
        }
        match output.status.code() {
            Some(0) => {}
            Some(code) => self.text.push_str(&format!("= {code}\n")),
            None => self.text.push_str(&format!("= {}\n", output.status)),
        }
        self.text.push('\n');
    }

    /// Compares the transcript with the snapshot file of this name.
    pub(super) fn check(self, name: &str) {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("cannot read the host name");
        let mut text = self.text.replace(&*self.path().to_string_lossy(), "[directory]");
        let folder = system_tests::program();
        let folder = folder.parent().expect("no parent folder").to_string_lossy().into_owned();
        text = text.replace(&folder, "[dist]").replace(&format!("tester.{}", host.trim()), "tester.[host]");
        for (pattern, stands) in FILTERS.iter() {
            text = pattern.replace_all(&text, *stands).into_owned();
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(name, text));
    }

    fn create(&self, arguments: &[&str]) -> String {
        let output = feed(self.command(&["create", "-q"]).args(arguments), b"");
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).expect("not UTF-8").trim().to_owned()
    }
}

#[test]
fn run_prints_output_and_exit_codes() {
    let mut it = Transcript::new();
    it.run(&["run", "--image", "debian", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    it.run(&["run", "-q", "--json", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    it.run(&["run", "-q", "--json", "--", "printf", r"\377\0"]);
    it.run(&["run", "-q", "--keep", "--", "echo", "kept"]);
    it.run(&["run", "--keep", "--image", "debian", "--", "true"]);
    it.feed(&["run", "-q", "-i", "--", "wc", "-c"], &[0; 1000]);
    it.run(&["run", "-q", "-i", "--", "wc", "-c"]);
    it.run(&["run", "-q", "-e", "A=ü x", "-e", "B=", "--", "sh", "-c", "echo $A.$B.", "ünï"]);
    it.run(&["run", "-q", "--timeout", "1s", "--", "sleep", "600"]);
    it.run(&["run", "--image", "debian", "--", "sh", "-c", "kill -15 $$"]);
    it.run(&["run", "-q", "--", "no-such-program"]);
    it.run(&["run", "-q", "--", "/etc/passwd"]);
    it.run(&["run", "-q", "--lifetime", "1s", "--", "sleep", "600"]);
    it.run(&["run", "-q", "--json", "--lifetime", "1s", "--", "sleep", "600"]);
    it.run(&["run"]);
    it.run(&["run", "--json"]);
    it.run(&["run", "--image", "", "--", "true"]);
    it.run(&["run", "-q", "--image", "library/does-not-exist:1", "--", "true"]);
    it.run(&["run", "-q", "--cpu", "0", "--", "true"]);
    it.run(&["run", "-q", "--region", "mars", "--", "true"]);
    it.run(&["run", "-q", "--option", "nope=1", "--", "true"]);
    it.run(&["run", "-q", "--secret", "nope", "--", "true"]);
    it.run(&["run", "-q", "--volume", "nope:/data", "--", "true"]);
    it.run(&["run", "-q", "--user", "no-such-user", "--", "true"]);
    it.run(&["run", "-q", "--workdir", "not/absolute", "--", "true"]);
    it.run(&["run", "--timeout", "soon", "--", "true"]);
    it.run(&["run", "--json", "--timeout", "soon", "--", "true"]);
    it.run(&["run", "-t", "-q", "--", "true"]);
    it.check("run");
}

#[test]
fn create_list_inspect_and_terminate_print_the_sandbox() {
    let mut it = Transcript::new();
    let tag = "made-by=create_and_look_and_end";
    it.run(&["create", "--image", "debian", "--name", "looked-at", "--tag", tag, "--port", "7000/tcp"]);
    it.run(&["create", "-q", "--json", "--tag", tag, "--", "sh", "-c", "echo ready > /tmp/it; exit 3"]);
    it.run(&["create", "-q", "--name", "looked-at"]);
    it.run(&["create", "-q", "--wait-ready"]);
    it.run(&["create", "-q", "--ready-command", "false", "--wait-ready", "1s"]);
    let list = printed(it.emulator, &["list", "--json", "--all", "--tag", tag]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("invalid JSON");
    let id = |named: bool| {
        let found = list.as_array().expect("not a list").iter().find(|one| one["name"].is_string() == named);
        found.expect("not found")["id"].as_str().expect("not a string").to_owned()
    };
    let (id, other) = (id(true), id(false));
    it.run(&["wait", &other]);
    it.run(&["wait", "--json", &other]);
    it.run(&["list", "--tag", tag]);
    it.run(&["list", "--json", "--tag", tag]);
    it.run(&["list", "--tag", "made-by=nobody"]);
    it.run(&["list", "--json", "--tag", "made-by=nobody"]);
    it.run(&["list", "--tag", "novalue"]);
    it.run(&["inspect", &id]);
    it.run(&["inspect", "--json", &id]);
    it.run(&["inspect", &other]);
    it.run(&["tags", &id]);
    it.run(&["tags", &id, "a=1", "b=ü", "--unset", "made-by"]);
    it.run(&["tags", "--json", &id, "--unset", "a"]);
    it.run(&["stats", &id]);
    it.run(&["stats", "--json", &id]);
    it.run(&["terminate", &id, "sb-none"]);
    it.run(&["terminate", "--json", "--wait", &id]);
    it.run(&["stats", &id]);
    it.run(&["wait", &id]);
    let gone = "sb-01JABCDEFGHJKMNPQRSTVWXYZ0";
    for command in ["inspect", "wait", "terminate", "tags", "stats", "tunnels", "logs"] {
        it.run(&[command, gone]);
    }
    it.run(&["terminate", "--json", gone]);
    it.run(&["inspect", "looked-at"]);
    it.run(&["terminate"]);
    it.check("create_and_look_and_end");
}

#[test]
fn exec_prints_output_and_errors() {
    let mut it = Transcript::new();
    let id = it.create(&["--env", "A=1"]);
    it.run(&["exec", &id, "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    it.run(&["exec", "--json", &id, "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    it.run(&["exec", "--json", "--timeout", "1s", &id, "--", "sleep", "600"]);
    it.run(&["exec", "-e", "B=2", "-w", "/tmp", "-u", "nobody", &id, "--", "sh", "-c", "echo $A $B; pwd; id -un"]);
    it.run(&["exec", &id, "--", "printf", "%s.", "", "a b", "ü\n", "*", "$HOME"]);
    it.feed(&["exec", "-i", &id, "--", "sh", "-c", "wc -c; echo done"], &[0xff; 70_000]);
    it.feed(&["exec", "--json", "-i", &id, "--", "cat"], b"ye\0s\n");
    it.run(&["exec", "-d", &id, "--", "sleep", "600"]);
    it.run(&["exec", "--json", "-d", &id, "--", "sleep", "600"]);
    it.run(&["exec", &id]);
    it.run(&["exec", &id, "--", ""]);
    it.run(&["exec", &id, "--", "no such program"]);
    it.run(&["exec", "-w", "tmp", &id, "--", "pwd"]);
    it.run(&["exec", "-w", "/nope", &id, "--", "pwd"]);
    it.run(&["exec", "-e", "NOT_SET_HERE", &id, "--", "true"]);
    it.run(&["exec", "-e", "A B=1", &id, "--", "true"]);
    it.run(&["exec", "-d", "-i", &id, "--", "true"]);
    it.run(&["exec", "-t", &id, "--", "true"]);
    it.run(&["shell", &id]);
    it.run(&["exec", "nobody", "--", "true"]);
    it.run(&["exec", "--json", "nobody", "--", "true"]);
    printed(it.emulator, &["terminate", &id]);
    it.run(&["exec", &id, "--", "true"]);
    it.run(&["exec", "--json", &id, "--", "true"]);
    it.check("exec");
}

#[test]
fn file_commands_print_results_and_errors() {
    let mut it = Transcript::new();
    let id = it.create(&[]);
    let at = |path: &str| format!("{id}:{path}");
    let here = it.path().to_owned();
    let make = |path: &str, bytes: &[u8]| {
        let path = here.join(path);
        std::fs::create_dir_all(path.parent().expect("no parent directory")).expect("cannot create the directory");
        std::fs::write(path, bytes).expect("cannot write the file");
    };
    make("tree/a", b"a\n");
    make("tree/sub/b i n", &[0, 1, 255]);
    make("tree/ünï/empty", b"");
    std::fs::create_dir(here.join("tree/void")).expect("cannot create the directory");
    std::os::unix::fs::symlink("a", here.join("tree/link")).expect("cannot create the link");
    make("big", &vec![7; 5_000_000]);

    it.run(&["cp", "-r", "tree", &at("/data")]);
    it.run(&["cp", "-r", "tree", &at("/data")]);
    it.run(&["cp", "-r", "tree/.", &at("/tmp")]);
    it.run(&[
        "exec",
        &id,
        "--",
        "sh",
        "-c",
        "cd /data; find . | LC_ALL=C sort; ls /tmp; cat a; od -An -tx1 'sub/b i n'",
    ]);
    it.run(&["cp", "-r", &at("/data"), "back"]);
    it.run(&["cp", "-r", &at("/data/sub"), "back"]);
    assert_eq!(std::fs::read(here.join("back/sub/b i n")).expect("cannot read the file"), [0, 1, 255]);
    assert_eq!(std::fs::read_link(here.join("back/link")).expect("cannot read the link"), Path::new("a"));
    assert!(here.join("back/void").is_dir() && here.join("back/ünï/empty").is_file());
    it.run(&["cp", "--json", "big", &at("/data/")]);
    it.run(&["cp", &at("/data/big"), "big2"]);
    assert!(std::fs::read(here.join("big2")).expect("cannot read the file") == vec![7; 5_000_000]);
    it.feed(&["cp", "-", &at("/from/stdin")], b"hello\n");
    it.run(&["cp", &at("/from/stdin"), "-"]);
    it.run(&["cp", &at("/from/stdin"), &at("/data")]);
    it.run(&["cp", "-r", &at("/from"), &at("/data")]);
    it.run(&["cat", &at("/data/stdin"), &at("/data/from/stdin")]);
    it.run(&["ls", &at("/data")]);
    it.run(&["ls", "--json", &at("/data/a")]);
    it.run(&["ls", "-l", &at("/data/link")]);
    let archive = feed(&mut it.command(&["cp", "-r", &at("/from"), "-"]), b"").stdout;
    it.feed(&["cp", "-r", "-", &at("/again")], &archive);
    it.run(&["cat", &at("/again/stdin")]);
    it.run(&["rm", &at("/data/a")]);
    it.run(&["rm", "-r", "--json", &at("/data"), &at("/again")]);
    it.run(&["rm", "-f", &at("/data/a")]);
    it.run(&["rm", "-f", "--json", &at("/data/a")]);

    it.run(&["cp", "tree", &at("/x")]);
    it.run(&["cp", &at("/from"), "x"]);
    it.run(&["cp", "nothing", &at("/x")]);
    it.run(&["cp", &at("/nothing"), "x"]);
    it.run(&["cp", "--json", &at("/nothing"), "x"]);
    it.run(&["cp", &at("/from/stdin"), "no/such/directory"]);
    it.run(&["cp", "--json", &at("/from/stdin"), "-"]);
    it.run(&["cp", "big", &format!("{id}:relative")]);
    it.run(&["cp", "big", &at("/etc/hosts/x")]);
    it.run(&["cat", &at("/from")]);
    it.run(&["cat", &at("/nothing")]);
    it.run(&["ls", &at("/nothing")]);
    it.run(&["ls", "--json", &at("/nothing")]);
    it.run(&["ls", &id]);
    it.run(&["rm", &at("/from")]);
    it.run(&["rm", &at("/nothing")]);
    printed(it.emulator, &["terminate", &id]);
    it.run(&["ls", &at("/")]);
    it.run(&["cp", "big", &at("/x")]);
    it.check("files");
}

#[test]
fn build_prints_the_log_and_the_image() {
    let mut it = Transcript::new();
    let here = it.path().to_owned();
    std::fs::create_dir_all(here.join("context/sub")).expect("cannot create the directory");
    std::fs::write(here.join("context/file"), "copied\n").expect("cannot write the file");
    let lines = "FROM debian\nARG WORD=one\nCOPY file /srv/\nRUN echo $WORD; cat /srv/file\nWORKDIR /srv\n";
    std::fs::write(here.join("context/Dockerfile"), lines).expect("cannot write the file");
    it.run(&["build", "--dockerfile", "context/Dockerfile"]);
    it.run(&["build", "--dockerfile", "context/Dockerfile", "--json", "--build-arg", "WORD=two"]);
    let image = it.run(&["build", "-q", "--dockerfile", "context/sub/../Dockerfile", "--context", "context"]).stdout;
    let image = String::from_utf8(image).expect("not UTF-8").trim().to_owned();
    it.feed(&["build", "-q", "--dockerfile", "-", "--context", "context"], lines.as_bytes());
    it.feed(&["build", "-q", "--dockerfile", "-"], lines.as_bytes());
    it.run(&["build", "-q", "--image", &image]);
    it.run(&["run", "-q", "--image", &image, "--", "cat", "file"]);
    it.run(&["image", "inspect", &image]);
    it.run(&["image", "inspect", "--json", &image]);
    it.run(&["image", "rm", &image]);
    it.run(&["image", "rm", "--json", &image]);
    it.run(&["image", "inspect", &image]);
    it.run(&["build", "-q", "--image", &image]);
    it.feed(&["build", "--dockerfile", "-"], b"FROM debian\nRUN echo the reason >&2; exit 4\n");
    it.feed(&["build", "-q", "--json", "--dockerfile", "-"], b"FROM debian\nRNU exit 4\n");
    it.feed(&["build", "-q", "--dockerfile", "-"], b"");
    it.feed(&["build", "-q", "--dockerfile", "-"], b"\xff\xfe");
    it.run(&["build", "--dockerfile", "nothing"]);
    it.run(&["build", "--context", "context"]);
    it.run(&["build", "-q", "--published", "nothing:latest"]);
    it.check("images");
}

#[test]
fn logs_snapshot_and_mount_print_results_and_errors() {
    let mut it = Transcript::new();
    let id =
        it.create(&["--option", "exit_snapshot=true", "--", "sh", "-c", "echo one; echo two >&2; echo made > /made"]);
    printed(it.emulator, &["wait", &id]);
    it.run(&["logs", &id]);
    it.run(&["logs", "-f", &id]);
    it.run(&["logs", "--stream", "stderr", &id]);
    it.run(&["logs", "--json", "--search", "one", &id]);
    it.run(&["logs", "--since", "5x", &id]);
    it.run(&["logs", "-f", "--since", "5m", &id]);
    it.run(&["snapshot", "--at-exit", &id]);

    let id = it.create(&[]);
    it.feed(&["cp", "-", &format!("{id}:/data/file")], b"kept\n");
    let image = it.run(&["snapshot", &id]).stdout;
    let image = String::from_utf8(image).expect("not UTF-8").trim().to_owned();
    it.run(&["run", "-q", "--image", &image, "--", "cat", "/data/file"]);
    let directory = it.run(&["snapshot", "--json", "--directory", "/data", "--ttl", "1h", &id]).stdout;
    let directory: serde_json::Value = serde_json::from_slice(&directory).expect("invalid JSON");
    let directory = directory["image"].as_str().expect("no id").to_owned();
    it.run(&["mount", &format!("{id}:/mnt/it"), &directory]);
    it.run(&["cat", &format!("{id}:/mnt/it/file")]);
    it.run(&["unmount", &format!("{id}:/mnt/it")]);
    it.run(&["cat", &format!("{id}:/mnt/it/file")]);
    it.run(&["unmount", &format!("{id}:/mnt/it")]);
    it.run(&["mount", "--json", &format!("{id}:/mnt/it")]);
    it.run(&["unmount", "--json", &format!("{id}:/mnt/it")]);
    it.run(&["snapshot", "--directory", "/nothing", &id]);
    it.run(&["snapshot", "--memory", &id]);
    it.run(&["snapshot", "--memory", "--ttl", "1h", &id]);
    it.run(&["restore", "nothing"]);
    it.check("logs_and_snapshots");
}

#[test]
fn network_forward_and_sidecar_print_results_and_errors() {
    let mut it = Transcript::new();
    let id = it.create(&["--port", "7000/tcp", "--port", "7001"]);
    it.run(&["tunnels", &id]);
    it.run(&["tunnels", "--json", &id]);
    it.run(&["network", "--allow", "192.0.2.0/24", "--allow", "192.0.2.1", "--allow", "2001:db8::1", &id]);
    it.run(&["network", "--json", "--allow", "192.0.2.0/24", "--allow", "example.com", &id]);
    it.run(&["network", "--open", &id]);
    it.run(&["network", "--block", &id]);
    it.run(&["network", &id]);
    it.run(&["network", "--allow", "1.2.3.4/99", &id]);
    it.run(&["forward", &id, "9"]);
    it.run(&["forward", &id, "x:y"]);
    it.run(&["token", &id, "0"]);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("cannot bind a port");
    let port = busy.local_addr().expect("no local address").port();
    let output = feed(&mut it.command(&["forward", &id, &format!("{port}:7000")]), b"");
    it.note(&["forward", "ID", "PORT:7000"], &output);
    it.text = it.text.replace(&format!("port {port}"), "port PORT");
    it.run(&["sidecar", "add", "-q", "--image", "debian", &id, "helper", "--", "sh", "-c", "exit 5"]);
    it.run(&["sidecar", "wait", &id, "helper"]);
    it.run(&["sidecar", "add", "-q", "--json", "--image", "debian", &id, "second", "--", "sleep", "600"]);
    it.run(&["sidecar", "list", "--json", &id]);
    it.run(&["sidecar", "terminate", "--json", &id, "second"]);
    it.run(&["sidecar", "wait", &id, "nothing"]);
    it.run(&["sidecar"]);
    it.check("networks_and_sidecars");
}

#[test]
fn wrong_plugins_and_settings_print_errors() {
    let mut it = Transcript::new();
    let here = it.path().to_owned();
    std::fs::write(here.join("policy.toml"), "[limits]\nmemory_mib = 1\n").expect("cannot write the file");
    std::fs::write(here.join("wrong.toml"), "[limits]\nmemory = 1\n").expect("cannot write the file");
    std::fs::write(here.join("text.wasm"), "text").expect("cannot write the file");
    it.run(&["--plugin", "text.wasm", "list"]);
    it.run(&["--plugin", "nothing", "list"]);
    it.run(&["--plugin", "nothing", "--json", "list"]);
    it.run(&["--policy", "policy.toml", "list", "--tag", "made-by=nobody"]);
    it.run(&["--policy", "wrong.toml", "list"]);
    it.run(&["--policy", "nothing", "list"]);
    it.run(&["--ca-file", "nothing", "list"]);
    it.run(&["--profile", "x", "list"]);
    it.run(&["plugin", "inspect", "nothing"]);
    it.run(&["plugin", "pull", "nothing"]);
    it.run(&["completions", "nothing"]);
    it.run(&["sweep"]);
    it.run(&["sweep", "--json", "--dry-run"]);
    it.run(&["sweep", "--yes", "--dry-run"]);
    it.run(&["nothing"]);
    let output = sandbox().args(["--emulator-url", "nothing", "list"]).output().expect("cannot start the program");
    it.note(&["--emulator-url", "nothing", "list"], &output);
    let output =
        sandbox().args(["--emulator-url", "http://127.0.0.1:1", "list"]).output().expect("cannot start the program");
    it.note(&["--emulator-url", "http://127.0.0.1:1", "list"], &output);
    let output = sandbox()
        .args(["--emulator-url", "http://127.0.0.1:1", "--json", "list"])
        .output()
        .expect("cannot start the program");
    it.note(&["--emulator-url", "http://127.0.0.1:1", "--json", "list"], &output);
    let output = sandbox().arg("list").output().expect("cannot start the program");
    it.note(&["list"], &output);
    let output = sandbox().args(["emulator", "--listen", "0.0.0.0:0"]).output().expect("cannot start the program");
    it.note(&["emulator", "--listen", "0.0.0.0:0"], &output);
    let output = sandbox().args(["emulator", "--listen", "nothing"]).output().expect("cannot start the program");
    it.note(&["emulator", "--listen", "nothing"], &output);
    it.run(&["gateway", "--listen", "0.0.0.0:0"]);
    it.check("plugins_and_settings");
}

#[test]
fn the_memory_provider_needs_no_service() {
    let mut it = Transcript::new();
    let mut memory = |arguments: &[&str], input: &[u8]| it.alone(&[&["--plugin", "memory"], arguments].concat(), input);
    memory(&["run", "--", "echo", "hi"], b"");
    memory(&["run", "-i", "--", "cat"], b"input\n");
    memory(&["run", "--", "exit", "7"], b"");
    memory(&["run", "--json", "--", "cat", "/none"], b"");
    memory(&["run", "--timeout", "1s", "--", "sleep", "600"], b"");
    memory(&["run", "--", "no-such-program"], b"");
    memory(&["run", "--image", "debian", "--", "echo"], b"");
    memory(&["run", "--option", "nope=1", "--", "echo"], b"");
    memory(&["build"], b"");
    memory(&["create"], b"");
    memory(&["list"], b"");
    memory(&["exec", "none", "--", "echo"], b"");
    memory(&["stats", "none"], b"");
    memory(&["plugin", "inspect", "memory"], b"");
    it.check("memory");
    let output = sandbox().args(["run", "--", "echo", "hi"]).env("SANDBOX_PLUGIN", "memory").output();
    assert_eq!(output.expect("cannot start the program").stdout, b"hi\n");
}

#[test]
fn what_a_provider_lacks_is_refused() {
    let mut it = Transcript::new();
    let lacking: [&[&str]; 10] = [
        &["pause", "one", "two"],
        &["stop", "one"],
        &["resume", "one"],
        &["resume", "--json", "one"],
        &["extend", "--lifetime", "10m", "one"],
        &["execs", "one"],
        &["execs", "--json", "one"],
        &["images"],
        &["images", "--json", "--limit", "5"],
        &["image", "rm", "--memory", "one"],
    ];
    for command in lacking {
        it.alone(&[&["--plugin", "memory"], command].concat(), b"");
        it.run(command);
    }
    it.run(&["pause"]);
    it.run(&["extend", "one"]);
    it.run(&["extend", "--lifetime", "soon", "one"]);
    it.run(&["execs", "--limit", "-1", "one"]);
    it.check("refusals");
}

#[test]
fn components_are_checked_and_packed() {
    let mut it = Transcript::new();
    let here = it.path().to_owned();
    let write = |name: &str, text: &str| std::fs::write(here.join(name), text).expect("cannot write the file");
    let component = system_tests::program().with_file_name("memory-provider.wasm");
    let component = component.to_str().expect("not UTF-8");
    let manifest = "manifest = 1\nname = 'memory'\ninterface = 'harness:sandbox@0.2.0'\ninstances = 'one'\n";
    write("good.toml", manifest);
    write("other.toml", &manifest.replace("0.2.0", "0.1.1").replace("memory", "other"));
    write("name.toml", &manifest.replace("memory", "other"));
    write("bad.toml", "manifest = 1\nwish = 3\n");
    write("text.wasm", "text");
    it.alone(&["plugin", "check", component], b"");
    it.alone(&["plugin", "pack", component, "--manifest", "good.toml", "-o", "good.wasm"], b"");
    it.alone(&["plugin", "pack", "--json", "good.wasm", "--manifest", "good.toml", "-o", "good.wasm"], b"");
    it.alone(&["plugin", "check", "--json", "good.wasm"], b"");
    it.alone(&["--plugin", "./good.wasm", "run", "--", "echo", "packed"], b"");
    it.alone(&["plugin", "pack", component, "--manifest", "other.toml", "-o", "other.wasm"], b"");
    it.alone(&["plugin", "check", "other.wasm"], b"");
    it.alone(&["plugin", "pack", component, "--manifest", "name.toml", "-o", "name.wasm"], b"");
    it.alone(&["plugin", "check", "name.wasm"], b"");
    it.alone(&["plugin", "check", "text.wasm"], b"");
    it.alone(&["plugin", "check", "--json", "text.wasm"], b"");
    it.alone(&["plugin", "check", "nothing"], b"");
    it.alone(&["plugin", "pack", component, "--manifest", "bad.toml", "-o", "bad.wasm"], b"");
    it.alone(&["plugin", "pack", "text.wasm", "--manifest", "good.toml", "-o", "bad.wasm"], b"");
    it.alone(&["plugin", "pack", component, "--manifest", "nothing", "-o", "bad.wasm"], b"");
    it.check("plugin_check_and_pack");
}

/// Commands that run until they are stopped first print their address.
#[test]
fn forward_and_gateway_print_their_address_first() {
    let emulator = shared();
    let python = "import socketserver as s
class Echo(s.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.rfile.read())
s.ThreadingTCPServer.allow_reuse_address = True
s.ThreadingTCPServer(('127.0.0.1', 7000), Echo).serve_forever()";
    let created = [
        "create",
        "-q",
        "--port",
        "7000/tcp",
        "--ready-port",
        "7000",
        "--wait-ready",
        "60s",
        "--",
        "python3",
        "-c",
        python,
    ];
    let id = printed(emulator, &created);
    let mut child = emulator
        .sandbox()
        .args(["forward", &id, "0:7000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("cannot start the program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("the stream is not piped"))
        .read_line(&mut line)
        .expect("cannot read a line");
    let (address, rest) = line.split_once(' ').expect("no address in the line");
    assert_eq!(rest, format!("-> port 7000 of {id}\n"));
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).expect("cannot connect");
        let (mut writer, sent) = (stream.try_clone().expect("cannot duplicate the socket"), bytes.clone());
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("cannot send the data");
            writer.shutdown(std::net::Shutdown::Write).expect("cannot close the stream");
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("cannot read the answer");
        writing.join().expect("the thread panicked");
        assert!(back == bytes, "the {} bytes that came back differ from those sent", back.len());
    }
    let stop = |child: &mut std::process::Child| {
        nix::sys::signal::kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("cannot signal the program");
        child.wait().expect("cannot wait for the program").code()
    };
    assert_eq!(stop(&mut child), Some(130));
    assert!(TcpStream::connect(address).is_err(), "a process still listens on the port");

    let directory = tempfile::tempdir().expect("cannot create a directory");
    let token = directory.path().join("token");
    let mut command = emulator.sandbox();
    command.args(["gateway", "--json", "--exit-with-stdin", "--token-file"]).arg(&token);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot start the program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("the stream is not piped"))
        .read_line(&mut line)
        .expect("cannot read a line");
    let told: serde_json::Value = serde_json::from_str(&line).expect("invalid JSON");
    assert!(told["MODAL_SERVER_URL"].as_str().expect("not a string").starts_with("http://127.0.0.1:"), "{line}");
    assert_eq!(told["MODAL_GRPC_WIRE"], "grpc-web");
    assert!(told.get("MODAL_TOKEN_ID").is_none(), "the token is in the file alone: {line}");
    use std::os::unix::fs::PermissionsExt as _;
    let meta = std::fs::metadata(&token).expect("the token file does not exist");
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("cannot wait for the program").code(), Some(0));
    printed(emulator, &["terminate", &id]);
}

#[test]
fn a_log_is_followed_while_it_grows() {
    let emulator = shared();
    let script = "echo first; while [ ! -e /go ]; do sleep 0.05; done; echo second";
    let id = printed(emulator, &["create", "-q", "--", "sh", "-c", script]);
    let mut child =
        emulator.sandbox().args(["logs", "-f", &id]).stdout(Stdio::piped()).spawn().expect("cannot start the program");
    let mut stdout = BufReader::new(child.stdout.take().expect("the stream is not piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("cannot read a line");
    assert_eq!(line, "first\n");
    // The command waits for this file before it writes the second line.
    assert!(feed(emulator.sandbox().args(["cp", "-", &format!("{id}:/go")]), b"").status.success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("cannot read the text");
    assert_eq!(rest, "second\n");
    assert_eq!(child.wait().expect("cannot wait for the program").code(), Some(0));
}

/// When the reader of its output is gone, the program fails silently. A command that was killed for this reason has not
/// succeeded.
#[test]
fn a_broken_pipe_ends_the_command() {
    let emulator = shared();
    let id = printed(emulator, &["create", "-q"]);
    let zero = format!("{id}:/dev/zero");
    let cases: [(&[&str], i32); 5] = [
        (&["run", "-q", "--", "yes"], 141),
        (&["exec", &id, "--", "yes"], 141),
        (&["cat", &zero], 0),
        (&["cp", "-q", &zero, "-"], 0),
        (&["exec", &id, "--", "sh", "-c", "trap '' PIPE; while :; do echo x || exit; done"], 141),
    ];
    for (arguments, code) in cases {
        let mut command = emulator.sandbox();
        let mut child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot start the program");
        let mut stdout = child.stdout.take().expect("the stream is not piped");
        stdout.read_exact(&mut [0; 2]).expect("cannot read the output");
        drop(stdout);
        let output = child.wait_with_output().expect("cannot wait for the program");
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(code)), "{arguments:?}");
    }
    printed(emulator, &["terminate", &id]);
}

/// With `-q` nothing but the result is printed, and with `--json` nothing but JSON.
#[test]
fn quiet_and_json_print_nothing_else() {
    let emulator = shared();
    let runs: [&[&str]; 3] = [
        &["run", "-q", "--image", "debian", "--", "true"],
        &["create", "-q", "--image", "debian"],
        &["build", "-q", "--force-build", "--image", "debian", "--line", "RUN echo loud"],
    ];
    for arguments in runs {
        let output = feed(emulator.sandbox().args(arguments), b"");
        assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)), "{arguments:?}");
        let output = feed(emulator.sandbox().arg("--json").args(arguments), b"");
        let text = String::from_utf8(output.stdout).expect("not UTF-8");
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).expect("invalid JSON");
    }
}

/// Long operations are announced by a line when there is no terminal.
#[test]
fn a_long_wait_is_announced_by_a_line() {
    let emulator = Emulator::start();
    let delay =
        |method: &str| serde_json::json!([{ "method": method, "times": 1, "fault": { "delay": { "millis": 1500 } } }]);
    order(&emulator, &delay("SandboxCreateV2"));
    let created = feed(emulator.sandbox().args(["create", "--image", "debian"]), b"");
    assert!(stderr(&created).ends_with("\ncreating the sandbox …\n"), "{}", stderr(&created));
    let id = String::from_utf8(created.stdout).expect("not UTF-8").trim().to_owned();
    order(&emulator, &delay("TaskExecStart"));
    let executed = feed(emulator.sandbox().args(["exec", &id, "--", "true"]), b"");
    assert_eq!(stderr(&executed), "starting the command …\n");
    order(&emulator, &delay("TaskExecStart"));
    let executed = feed(emulator.sandbox().args(["exec", "-q", &id, "--", "true"]), b"");
    assert_eq!(stderr(&executed), "");
    let terminated = order_and_run(&emulator, &delay("SandboxTerminateV2"), &["terminate", &id]);
    assert_eq!(terminated, "terminating …\n");
}

fn order_and_run(emulator: &Emulator, rules: &serde_json::Value, arguments: &[&str]) -> String {
    order(emulator, rules);
    stderr(&feed(emulator.sandbox().args(arguments), b""))
}

//! The program as its users see it: whole outputs, exit codes, and the manual that is made from its definitions.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Subcommands whose help is in the manual; the emulator's is in its own.
const COMMANDS: [&str; 50] = [
    "run",
    "create",
    "exec",
    "shell",
    "cp",
    "ls",
    "cat",
    "rm",
    "list",
    "inspect",
    "logs",
    "wait",
    "terminate",
    "pause",
    "stop",
    "resume",
    "extend",
    "execs",
    "tags",
    "snapshot",
    "restore",
    "mount",
    "unmount",
    "network",
    "token",
    "stats",
    "sidecar",
    "sidecar add",
    "sidecar list",
    "sidecar wait",
    "sidecar terminate",
    "tunnels",
    "sweep",
    "forward",
    "build",
    "images",
    "image",
    "image inspect",
    "image rm",
    "plugin",
    "plugin inspect",
    "plugin pull",
    "plugin check",
    "plugin pack",
    "conformance",
    "gateway",
    "doctor",
    "completions",
    "man",
    "",
];

/// The program with nothing of this machine's settings.
fn sandbox(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache").into()));
    command.args(args).env_clear().env("HOME", "/nonexistent").env("COLUMNS", "100").stdin(Stdio::null());
    if let Some(cache) = cache {
        command.env("XDG_CACHE_HOME", cache);
    }
    command
}

fn run(args: &[&str]) -> Output {
    sandbox(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A failure of ours: nothing on stdout, this on stderr, 125.
fn fails(args: &[&str], wanted: &str) {
    let output = run(args);
    assert_eq!((text(&output.stderr).as_str(), output.status.code()), (wanted, Some(125)), "{args:?}");
    assert!(output.stdout.is_empty());
}

/// The section on `--json`: the structs of `output/results.rs` with the comments on them and their fields.
fn results() -> String {
    let mut section = String::from(
        "\n## Results as JSON\n\nWith `--json` a command prints its result on one line of standard output. `tags` prints an object with \
         the values by the names, `gateway` an object of environment variables. A command that fails prints `Failed` and exits \
         with 125. A field with `?` may be null; a field with `—` may be missing.\n",
    );
    let (mut comment, mut inside, mut optional) = (Vec::new(), false, false);
    for line in include_str!("../src/output/results.rs").lines() {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("/// ") {
            comment.push(words);
        } else if let Some(name) = line.strip_prefix("pub struct ") {
            let name = name.split(['<', ' ']).next().unwrap();
            let about = comment.join(" ");
            section.push_str(&format!(
                "\n### {name}\n\n{}\n\n| field | type | |\n|---|---|---|\n",
                about.trim_end_matches('.')
            ));
            (inside, comment) = (true, Vec::new());
        } else if let Some((name, kind)) =
            line.strip_prefix("    pub ").filter(|_| inside).and_then(|text| text.split_once(": "))
        {
            let (kind, null) = kind_of(kind.trim_end_matches(','));
            let mark = if optional {
                " —"
            } else if null {
                " ?"
            } else {
                ""
            };
            section.push_str(&format!("| `{name}` | {kind}{mark} | {} |\n", comment.join(" ")));
            (optional, comment) = (false, Vec::new());
        } else if text.starts_with("#[serde(skip_serializing_if") {
            optional = true;
        } else if line.starts_with("pub fn ") || line.starts_with("pub enum ") || line.starts_with("impl") {
            (inside, comment) = (false, Vec::new());
        }
    }
    section
}

/// A Rust type as one of JSON, and whether it may be null.
fn kind_of(rust: &str) -> (String, bool) {
    let inner = |name: &str| rust.strip_prefix(name).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inner("Option<") {
        return (kind_of(inner).0, true);
    }
    let array = rust.strip_prefix("&'a [").and_then(|rest| rest.strip_suffix(']'));
    if let Some(inner) = inner("Vec<").or(array) {
        return (format!("array of {}", kind_of(inner).0), false);
    }
    let kind = match rust {
        "String" | "&'a str" | "&'static str" | "&'a Path" | "Cow<'a, str>" => "string",
        "bool" => "boolean",
        "u16" | "u32" | "u64" | "usize" | "i32" | "f64" => "number",
        map if map.contains("BTreeMap<") => "object",
        "serde_json::Value" => "any JSON",
        name => name.split('<').next().unwrap(),
    };
    (kind.to_owned(), false)
}

#[test]
fn the_manual_is_what_the_program_says() {
    let mut manual = String::from(
        "# The command line `sandbox-host`\n\nThe program has a second name, `sandbox`. Generated from the definitions of the program. `UPDATE=1 cargo test --release \
         -p sandbox-cli --test cli` writes this file.\n",
    );
    let mut commands = COMMANDS;
    commands.rotate_right(1);
    for name in commands {
        let mut args: Vec<_> = name.split_whitespace().collect();
        args.push("--help");
        let output = run(&args);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let title = format!("sandbox-host {name}");
        let lines: Vec<_> = text(&output.stdout).lines().map(|line| line.trim_end().to_owned()).collect();
        manual.push_str(&format!("\n## {}\n\n```text\n{}\n```\n", title.trim_end(), lines.join("\n").trim_end()));
    }
    manual.push_str(&results());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &manual).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == manual, "docs/cli.md is not what the program says: run this test with UPDATE=1");
}

#[test]
fn files_that_are_no_plugins() {
    fails(
        &["--plugin", "/does/not/exist.wasm", "list"],
        "error: cannot load the plugin /does/not/exist.wasm\n  No such file or directory (os error 2)\n  try: give the path of a file, or a name from `sandbox-host plugin pull`\n",
    );
    fails(
        &["--plugin", "/dev/null", "list"],
        "error: cannot load the plugin /dev/null\n  it is not a WebAssembly file\n  try: give the .wasm file of a provider component\n",
    );
}

#[test]
fn usage() {
    fails(
        &["run"],
        "error: cannot run a command\n  the command is empty\n  try: give a program and its arguments after `--`, such as `-- echo hello`\n",
    );
    fails(
        &["cp", "a", "b"],
        "error: cannot copy a to b\n  neither path is in a sandbox\n  try: write SANDBOX-ID:/absolute/path for a path in a sandbox\n",
    );
    for args in [
        &["nonsense"][..],
        &["exec"],
        &["--emulator", "--emulator-url", "x", "list"],
        &["run", "--timeout", "soon", "--", "x"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(125), "{args:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{args:?}");
    }
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_plugin_from_elsewhere_has_to_be_granted() {
    let puppet = crate::common::puppet().to_str().unwrap();
    let output = run(&["--plugin", puppet, "list"]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("it did not come with this program") && error.contains("--grant"), "{error}");

    let output = run(&["--plugin", puppet, "--grant", "list"]);
    let error = text(&output.stderr);
    assert!(error.contains("PUPPET_TOKEN not set") && error.contains("or use --emulator"), "{error}");

    let mut granted = sandbox(&["--plugin", puppet, "--grant", "list"]);
    let output = granted.env("PUPPET_TOKEN", "token-of-a-test").output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("ID  NAME  STATE  CREATED  TAGS\n", Some(0)));

    // Or by its digest in a policy.
    let digest = sandbox_host::digest(&std::fs::read(puppet).unwrap());
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), format!("[grants]\nplugins = ['{digest}']\n[limits]\nmemory_mib = 64\n")).unwrap();
    let mut granted = sandbox(&["--plugin", puppet, "--policy", policy.path().to_str().unwrap(), "--json", "list"]);
    let output = granted.env("PUPPET_TOKEN", "token-of-a-test").output().unwrap();
    assert_eq!((text(&output.stdout).as_str(), output.status.code()), ("[]\n", Some(0)));
}

/// A number as it stands in a WebAssembly file.
fn leb(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// The puppet with another manifest: the first one in the file counts.
fn puppet_with(manifest: &str) -> tempfile::TempPath {
    let name = sandbox_host::SECTION;
    let mut section = Vec::new();
    leb(name.len(), &mut section);
    section.extend_from_slice(name.as_bytes());
    section.extend_from_slice(manifest.as_bytes());
    let mut bytes = std::fs::read(crate::common::puppet()).unwrap();
    let mut inserted = vec![0];
    leb(section.len(), &mut inserted);
    inserted.extend(section);
    bytes.splice(8..8, inserted);
    let file = tempfile::Builder::new().suffix(".wasm").tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file.into_temp_path()
}

/// Whether a connection was made to it so far. A connection is in the queue before the program that made it ends.
fn was_reached(listener: &std::net::TcpListener) -> bool {
    listener.set_nonblocking(true).unwrap();
    listener.accept().is_ok()
}

#[test]
fn without_a_grant_nothing_is_connected_to_whatever_the_manifest_says() {
    let head = "manifest = 1\nname = 'x'\ninterface = 'harness:sandbox@0.1.0'\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let profile = directory.path().join("profile.toml");
    std::fs::write(&profile, format!("[default]\nurl = '{url}'\ntoken = 'token-of-a-test'\n")).unwrap();
    let profiles = format!("[profiles]\npath = {{ default = '{}' }}\nselect = 'X_PROFILE'\n", profile.display());
    let credential = "[[credential]]\nname = 'token'\nenv = 'X_TOKEN'\nsetting = 'token'\n";
    let by_setting = format!("{profiles}[[origin]]\nname = 'main'\nurl = {{ setting = 'url' }}");
    for wishes in [
        "[[origin]]\nname = 'main'\nurl = { env = 'PUPPET_URL' }",
        "[[origin]]\nname = 'main'\nurl = { default = 'https://puppet.invalid' }",
        "[[origin]]\nname = 'main'\nurl = { env = 'PUPPET_URL', default = 'https://puppet.invalid' }",
        &by_setting,
        &format!("{credential}{by_setting}"),
        "[[env]]\nname = 'PUPPET_URL'",
        &profiles,
    ] {
        let plugin = puppet_with(&format!("{head}{wishes}"));
        for command in [&["list"][..], &["doctor"], &["gateway"], &["inspect", "sb"]] {
            let mut program = sandbox(&["--plugin", plugin.to_str().unwrap()]);
            let output = program.args(command).env("PUPPET_URL", &url).output().unwrap();
            let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
            assert!(!output.status.success() && said.contains("did not come with"), "{wishes} {command:?}: {said}");
            assert!(!was_reached(&listener), "{wishes} {command:?}");
        }
    }
    // With an emulator it gets that one, and neither its other origins nor the environment. When the puppet is asked
    // whether it can be reached, it reports to PUPPET_URL.
    let wishes = "[[origin]]\nname = 'main'\nurl = { env = 'X_URL' }\n\
                  [[origin]]\nname = 'other'\nurl = { env = 'PUPPET_URL' }\n";
    let plugin = puppet_with(&format!("{head}{profiles}{credential}{wishes}"));
    let with_emulator = |options: &[&str]| {
        let mut program = sandbox(&["--plugin", plugin.to_str().unwrap(), "--emulator-url", "http://127.0.0.1:1"]);
        program.args(options).env("PUPPET_URL", &url).stdout(Stdio::piped()).stderr(Stdio::piped());
        program.spawn().unwrap()
    };
    let output = with_emulator(&["doctor"]).wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert!(said.lines().any(|line| line.starts_with("ok") && line.contains("service")), "{said}");
    assert!(!was_reached(&listener));
    // One that was granted does report: otherwise the test would see nothing.
    let granted = with_emulator(&["--grant", "doctor"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !was_reached(&listener) {
        assert!(std::time::Instant::now() < deadline, "it does not report");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    drop(listener);
    granted.wait_with_output().unwrap();
}

/// Components that cost the compiler much: small files with many things in them, and what passes the counts.
#[test]
fn looking_at_a_component_takes_bounded_time_and_memory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.wasm");
    // Nothing is to come from a cache.
    let inspect = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let mut program = sandbox(&["plugin", "inspect", file.to_str().unwrap()]);
        program.env_remove("XDG_CACHE_HOME").output().unwrap()
    };
    let nested = (0..10_000).fold(b"\0asm\x0d\0\x01\0".to_vec(), |inner, _| {
        let mut outer = b"\0asm\x0d\0\x01\0\x04".to_vec();
        leb(inner.len(), &mut outer);
        outer.extend(inner);
        outer
    });
    let functions = wat::parse_str(format!("(component (core module {}))", "(func)".repeat(300_000))).unwrap();
    for bytes in [nested, functions] {
        let output = inspect(&bytes);
        let error = text(&output.stderr);
        assert!(output.status.code() == Some(125) && error.contains("which is the limit"), "{error}");
    }
    // Compiling happens in a process of its own.
    let puppet = std::fs::read(crate::common::puppet()).unwrap();
    let output = inspect(&puppet);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // That one keeps to limits: here it has its own, and less of it than the program would set.
    let compile = |limit: &str| {
        let script = format!("{limit} exec \"$0\" compile-component");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_sandbox")]).env("SANDBOX_HOST_ALLOCATION", "mapped");
        command.stdin(std::fs::File::open(crate::common::puppet()).unwrap()).output().unwrap()
    };
    let output = compile("");
    assert!(output.status.success() && output.stdout.starts_with(b"\x7fELF"), "{}", text(&output.stderr));
    assert!(!compile("ulimit -d 10000;").status.success());
}

/// Without much address space there is no pool of instances, and no memory that reserves all that it could ever need.
#[test]
fn a_limit_on_address_space_is_lived_with() {
    let puppet = crate::common::puppet().to_str().unwrap();
    let mut program = Command::new("sh");
    program.args(["-c", "ulimit -v 4096000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_sandbox")]);
    program.args(["--plugin", puppet, "--grant", "--json", "list"]).env_clear().env("PUPPET_TOKEN", "token-of-a-test");
    let output = program.output().unwrap();
    assert_eq!(text(&output.stdout), "[]\n", "{}", text(&output.stderr));
}

#[test]
fn a_command_that_ends_before_its_input_ends_the_program() {
    let puppet = crate::common::puppet().to_str().unwrap();
    let mut exec = sandbox(&["--plugin", puppet, "--grant", "exec", "-i", "sb", "--", "true"]);
    let mut child = exec.env("PUPPET_TOKEN", "token-of-a-test").stdin(Stdio::piped()).spawn().unwrap();
    // Held open: it is neither written to nor closed before the program has ended.
    let stdin = child.stdin.take();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(stdin);
}

#[test]
fn inspecting_shows_wishes_and_grants() {
    let puppet = crate::common::puppet().to_str().unwrap();
    let output = run(&["--json", "plugin", "inspect", puppet]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["name"], "puppet");
    assert_eq!(value["wishes"]["credentials"][0], "PUPPET_TOKEN");
    assert_eq!(value["wishes"]["origins"][0]["learn"][0]["path"], "/puppet.Main/Hand");
    assert_eq!(value["grants"][0]["origin"], "https://puppet.invalid");
    assert_eq!(value["sha256"].as_str().unwrap().len(), 64);
    let output = run(&["plugin", "inspect", puppet]);
    let shown = text(&output.stdout);
    assert!(shown.contains("exports") && shown.contains("harness:sandbox/sandbox-provider@0.1.0"), "{shown}");
}

#[test]
fn what_cannot_be_used_can_be_inspected() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.toml");
    std::fs::write(&broken, "[one\n").unwrap();
    let head = "manifest = 1\nname = 'x'\ninterface = 'harness:sandbox@0.1.0'\n[[env]]\nname = 'X_WISH'\n";
    let profile = |path: &str| format!("[profiles]\npath = {{ default = '{path}' }}\nselect = 'X_PROFILE'\n");
    for (wishes, why) in [
        ("[[origin]]\nname = 'main'\nurl = { default = 'no url' }".to_owned(), "no url"),
        ("[[origin]]\nname = 'main'\nurl = { env = 'X_URL' }".to_owned(), "bad/url"),
        (profile(directory.path().to_str().unwrap()), "not a regular file"),
        (profile(broken.to_str().unwrap()), "line 1 is not valid TOML"),
    ] {
        let plugin = puppet_with(&format!("{head}{wishes}"));
        let inspect = |options: &[&str]| {
            let mut program = sandbox(options);
            program.args(["plugin", "inspect", plugin.to_str().unwrap()]).env("X_URL", "bad/url");
            let output = program.output().unwrap();
            assert_eq!(output.status.code(), Some(0), "{wishes}: {}", text(&output.stderr));
            text(&output.stdout)
        };
        let shown = inspect(&[]);
        assert!(shown.contains("X_WISH") && shown.contains(why), "{wishes}: {shown}");
        let value: serde_json::Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
        assert_eq!(value["wishes"]["env"][0], "X_WISH");
        assert!(value["grants_error"].as_str().unwrap().contains(why), "{value}");
    }
}

/// A plugin for a service on this machine that needs no credentials: what it requests is shown, and nothing is missing.
#[test]
fn an_engine_without_credentials_is_inspected_and_checked() {
    let plugin = puppet_with(
        "manifest = 1\nname = 'x'\ninterface = 'harness:sandbox@0.1.0'\n\
         [[credential]]\nname = 'password'\nenv = 'X_PASSWORD'\noptional = true\n\
         [[origin]]\nname = 'engine'\nauthority = 'engine.localhost'\ntls = { on = { env = 'X_VERIFY' } }\n\
         url = { env = 'X_HOST', default = 'unix:///x/engine.sock', tcp = { http = 2375, https = 2376 } }\n\
         headers = [{ name = 'x-login', on_request = 'registry', json64 = { password = '{password}' } }]\n",
    );
    let plugin = plugin.to_str().unwrap();
    let shown = text(&run(&["plugin", "inspect", plugin]).stdout);
    for line in [
        "x-login, if the plugin names the credential registry",
        "X_VERIFY, which turns TLS on for engine",
        "http://engine.localhost by the Unix socket /x/engine.sock (engine; no credentials)",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let value: serde_json::Value =
        serde_json::from_slice(&run(&["--json", "plugin", "inspect", plugin]).stdout).unwrap();
    assert_eq!(value["wishes"]["origins"][0]["tls_variable"], "X_VERIFY");
    let checked = text(&run(&["--plugin", plugin, "--grant", "doctor"]).stdout);
    assert!(checked.contains("ok      credentials: http://engine.localhost needs none"), "{checked}");
}

#[test]
fn errors_as_json() {
    let output = run(&["--json", "--plugin", "/dev/null", "list"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["error"]["what"], "load the plugin /dev/null");
    assert_eq!(value["error"]["hint"], "give the .wasm file of a provider component");
    assert_eq!(output.status.code(), Some(125));
}

#[test]
fn completions_and_manual_pages_are_made() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && text(&output.stdout).contains("terminate"), "{shell}");
    }
    assert!(text(&run(&["man"]).stdout).contains(".TH sandbox"));
    let directory = tempfile::tempdir().unwrap();
    assert!(run(&["man", "--directory", directory.path().to_str().unwrap()]).status.success());
    assert!(directory.path().join("sandbox-host-run.1").exists());
}

//! Runs the commands of `docs/provider-guide.md`, in their order and in a new folder, and compares what they print with
//! what the guide shows.
//!
//! The commands are those in code blocks of the language `console`. A line that begins with `$ ` is a command; one that
//! ends with `\` continues in the next line. The lines up to the next command are its output. In the output, `…` stands
//! for any text within a line, and a line that consists of `…` for any number of lines.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use engines::{Engine, Error, Kind, Options};
use regex::Regex;

/// A command of the guide and the output that the guide shows.
#[derive(Debug, PartialEq)]
struct Example {
    command: String,
    output: String,
}

/// Returns the commands of all `console` blocks.
fn examples(guide: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let (mut inside, mut continued) = (false, false);
    for line in guide.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command: command.to_string(), output: String::new() });
            continued = command.ends_with('\\');
            continue;
        }
        let last = examples.last_mut().expect("a block begins with a command");
        if continued {
            last.command = format!("{}\n{line}", last.command);
            continued = line.ends_with('\\');
        } else {
            last.output.push_str(line.trim_end());
            last.output.push('\n');
        }
    }
    examples
}

/// Returns whether a text is what the guide shows.
fn fits(shown: &str, text: &str) -> bool {
    let line = |line: &str| match line {
        "…" => "(?:.*\n)*?".to_string(),
        line => format!("{}\n", regex::escape(line).replace('…', ".*")),
    };
    let pattern: String = shown.lines().map(line).collect();
    Regex::new(&format!("^{pattern}$")).expect("an invalid pattern").is_match(text)
}

/// Runs a command in a folder. Returns its output, the folder in which it ended, and whether it succeeded.
fn run(command: &str, folder: &Path, notes: &Path, registry: &str) -> (String, PathBuf, bool) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("no repository");
    let program = system_tests::program();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let own = program.parent().expect("no folder").to_path_buf();
    let path = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&folders))).expect("a path");
    let mut bash = Command::new("bash");
    bash.args(["-c", "exec 2>&1; eval \"$1\"; code=$?; pwd >\"$2\"; exit $code", "bash", command]).arg(notes);
    bash.current_dir(folder).env("PATH", path).env("REPO", repository).env("COLUMNS", "100").env("REGISTRY", registry);
    // The crates of the workspace have been downloaded, and the guide needs no others.
    bash.env("CARGO_NET_OFFLINE", "true").env("SANDBOX_PLUGIN_DIR", folder.join("no-plugins"));
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR", "SANDBOX_PLUGIN"] {
        bash.env_remove(name);
    }
    let output = bash.output().expect("cannot start bash");
    let next = fs::read_to_string(notes).expect("the command ended the shell");
    let text = String::from_utf8(output.stdout).expect("not UTF-8");
    // On a loaded machine, a transfer takes so long that its progress is printed.
    let lines = text.lines().filter(|line| !(line.starts_with("pulling ") && line.ends_with('B')));
    let text = lines.map(|line| format!("{}\n", line.trim_end())).collect();
    (text, PathBuf::from(next.trim_end()), output.status.success())
}

/// Starts a registry. `None` if the machine cannot run it, which fails in CI.
fn registry() -> Option<Engine> {
    match Engine::start(Kind::Registry, &Options::default()) {
        Ok(registry) => Some(registry),
        Err(error @ Error::Missing(_)) if std::env::var_os("CI").is_none() => {
            println!("the commands with a registry are skipped: {error}");
            None
        }
        Err(error) => panic!("the registry: {error}"),
    }
}

#[test]
fn the_commands_of_the_provider_guide_do_what_it_shows() {
    let guide = include_str!("../../docs/provider-guide.md");
    let temporary = tempfile::tempdir().expect("cannot create a folder");
    let root = temporary.path().canonicalize().expect("no folder");
    // The compiled crates are kept for the next run of this test.
    let built = system_tests::program().parent().expect("no folder").with_file_name("guide");
    fs::create_dir_all(&built).expect("cannot create a folder");
    fs::create_dir(root.join("my-provider")).expect("cannot create a folder");
    std::os::unix::fs::symlink(&built, root.join("my-provider/target")).expect("cannot create a link");
    let notes = root.join("notes");
    let mut folder = root.clone();
    let registry = registry();
    let address = registry.as_ref().map(Engine::host).unwrap_or_default();
    let examples = examples(guide);
    assert!(examples.len() > 10, "the guide has {} commands", examples.len());
    assert!(examples.iter().any(|example| example.command.contains("$REGISTRY")), "no command needs the registry");
    for Example { command, output } in examples {
        // What follows needs what was pushed.
        if registry.is_none() && command.contains("$REGISTRY") {
            break;
        }
        let (text, next, succeeded) = run(&command, &folder, &notes, &address);
        assert!(fits(&output, &text), "$ {command}\nprints\n{text}\nand the guide shows\n{output}");
        assert!(succeeded, "$ {command}\nfails and prints\n{text}");
        folder = next;
    }
    if let Some(registry) = registry {
        registry.end().expect("the registry did not end");
    }
}

#[test]
fn commands_and_their_output_are_recognised() {
    let text = "Text\n```console\n$ one\nfirst\n\n$ two \\\n  more\n```\n```toml\n$ no\n```\n";
    let example = |command: &str, output: &str| Example { command: command.into(), output: output.into() };
    assert_eq!(examples(text), [example("one", "first\n\n"), example("two \\\n  more", "")]);
    assert!(fits("", "") && !fits("", "a\n") && !fits("a\n", ""));
    assert!(fits("a … c\n", "a b b c\n") && !fits("a … c\n", "a b\nc\n"));
    assert!(fits("a\n…\nd\n", "a\nb\nc\nd\n") && fits("a\n…\nd\n", "a\nd\n") && !fits("a\n…\nd\n", "b\nd\n"));
    assert!(fits("a …\n", "a b\n") && !fits("a …\n", "a b\nc\n"));
}

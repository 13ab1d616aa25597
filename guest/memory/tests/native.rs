//! Tests of the provider without a host: its clock is a number that a wait advances.
#![allow(missing_docs)]

use std::rc::Rc;

use memory_provider::Provider;
use sandbox_provider_kit::{
    Error,
    api::{
        records::{exec_spec, sandbox_spec},
        wit::*,
    },
    export::SandboxProvider as _,
    platform::scripted::{Script, run},
};

/// Makes a provider and a sandbox.
fn sandbox() -> (Provider, String) {
    let provider = Provider::new(Rc::new(Script::new()));
    let id = run(provider.create(sandbox_spec())).expect("cannot create a sandbox").id;
    (provider, id)
}

fn exec(sandbox: &str, id: &str) -> ExecRef {
    ExecRef { sandbox: sandbox.to_string(), exec: id.to_string(), deadline: None, container: None }
}

fn at(sandbox: &str, path: &str) -> Location {
    Location { sandbox: sandbox.to_string(), container: None, path: path.to_string(), user: None }
}

/// Runs a command with this input. Returns its verdict, its output and its errors as text.
fn result(provider: &Provider, sandbox: &str, spec: ExecSpec, input: &str) -> (String, String, String) {
    let limits = OutputLimits { stdout_max: 1000, stderr_max: 1000, keep: Keep::Head };
    let result = run(provider.run(sandbox, spec, input.into(), limits)).expect("the call failed");
    let text = |captured: Captured| String::from_utf8(captured.data).expect("not UTF-8");
    (format!("{:?}", result.verdict), text(result.stdout), text(result.stderr))
}

fn kind<T>(result: Result<T, Error>) -> String {
    let error = result.err().expect("the call succeeded");
    format!("{:?} {}", error.kind, error.subject.as_deref().unwrap_or_default())
}

#[test]
fn programs_print_and_end() {
    let (provider, id) = sandbox();
    let mut number = 0;
    let mut output = |argv: &[&str], input: &str| {
        number += 1;
        let (verdict, stdout, stderr) = result(&provider, &id, exec_spec(&format!("e{number}"), argv), input);
        format!("{verdict} {stdout}{stderr}")
    };
    assert_eq!(output(&["echo", "a", "b c"], ""), "Verdict::Exited(0) a b c\n");
    assert_eq!(output(&["cat"], "in\nput"), "Verdict::Exited(0) in\nput");
    assert_eq!(output(&["exit", "7"], ""), "Verdict::Exited(7) ");
    assert_eq!(output(&["sleep", "2.5"], ""), "Verdict::Exited(0) ");
    assert_eq!(output(&["cat", "/no"], ""), "Verdict::Exited(1) cat: /no: no such file\n");
    assert!(output(&["no"], "").starts_with("Verdict::Exited(127) no: no such program"));
}

#[test]
fn a_time_limit_ends_a_command_and_so_does_a_signal() {
    let (provider, id) = sandbox();
    let limited = ExecSpec { timeout: Some(1000), ..exec_spec("limited", &["sleep", "60"]) };
    assert_eq!(result(&provider, &id, limited, "").0, "Verdict::Deadline");
    run(provider.start(&id, exec_spec("endless", &["cat"]))).expect("not started");
    assert!(run(provider.wait_exec(exec(&id, "endless"), 60_000)).expect("no answer").is_none());
    run(provider.signal(exec(&id, "endless"), 15)).expect("not signalled");
    let verdict = run(provider.wait_exec(exec(&id, "endless"), 0)).expect("no answer");
    assert!(matches!(verdict, Some(Verdict::Signaled(15))));
    assert_eq!(kind(run(provider.wait_exec(exec(&id, "other"), 0))), "ErrorKind::NotFound other");
}

#[test]
fn a_repeated_start_and_a_repeated_create_do_nothing() {
    let (provider, id) = sandbox();
    assert_eq!(result(&provider, &id, exec_spec("same", &["echo", "first"]), "").1, "first\n");
    assert_eq!(result(&provider, &id, exec_spec("same", &["echo", "second"]), "").1, "first\n");
    // The scripted transport has no random numbers, so the key makes the difference between the sandboxes.
    let keyed = || SandboxSpec { key: Some("k".to_string()), ..sandbox_spec() };
    for _ in 0..2 {
        run(provider.create(keyed())).expect("cannot create a sandbox");
    }
    let filter = ListFilter { tags: Vec::new(), include_ended: true, extra: Vec::new() };
    assert_eq!(run(provider.list(filter, None, 10)).expect("no list").items.len(), 2);
}

#[test]
fn files_are_written_and_read_in_pieces() {
    let (provider, id) = sandbox();
    let options = WriteOptions { mode: WriteMode::Replace, permissions: None, extra: Vec::new() };
    let write = |offset, data: &str, eof| {
        run(provider.write_file(&at(&id, "/a"), "w", &options, offset, data.into(), eof)).expect("not written")
    };
    assert_eq!(write(0, "abc", false), 3);
    assert_eq!(kind(run(provider.read_file(&at(&id, "/a"), "early", 0, 9))), "ErrorKind::File(FileFault::NotFound) /a");
    assert_eq!(write(3, "def", true), 6);
    let read = |offset, max| run(provider.read_file(&at(&id, "/a"), "r", offset, max)).expect("not read");
    assert_eq!((read(0, 4).data, read(0, 4).end), (b"abcd".to_vec(), false));
    assert_eq!((read(4, 4).data, read(4, 4).end), (b"ef".to_vec(), true));
    assert_eq!(result(&provider, &id, exec_spec("e", &["cat", "/a", "/a"]), "").1, "abcdefabcdef");
    let strict = WriteOptions { permissions: Some(0o600), ..options.clone() };
    let refused = run(provider.write_file(&at(&id, "/b"), "x", &strict, 0, Vec::new(), true));
    assert_eq!(kind(refused), "ErrorKind::Unsupported files.mode");
}

#[test]
fn a_terminated_sandbox_ends_its_commands() {
    let (provider, id) = sandbox();
    run(provider.start(&id, exec_spec("e", &["sleep", "60"]))).expect("not started");
    assert!(run(provider.wait(&id, 60_000)).expect("no answer").is_none());
    for _ in 0..2 {
        run(provider.terminate(&id)).expect("not terminated");
    }
    assert!(matches!(run(provider.wait(&id, 0)), Ok(Some(EndReason::Terminated))));
    let verdict = run(provider.wait_exec(exec(&id, "e"), 0)).expect("no answer");
    assert!(matches!(verdict, Some(Verdict::SandboxEnded(EndReason::Terminated))));
    assert!(kind(run(provider.start(&id, exec_spec("f", &["cat"])))).starts_with("ErrorKind::SandboxEnded"));
    assert_eq!(kind(run(provider.get("other"))), "ErrorKind::NotFound other");
}

#[test]
fn what_is_not_declared_is_refused() {
    let (provider, id) = sandbox();
    let refused = |change: fn(&mut SandboxSpec)| {
        let mut spec = sandbox_spec();
        change(&mut spec);
        kind(run(provider.create(spec)))
    };
    assert_eq!(refused(|spec| spec.name = Some("n".into())), "ErrorKind::Unsupported create.names");
    assert_eq!(refused(|spec| spec.image.source = ImageSource::Id("i".into())), "ErrorKind::Unsupported image");
    assert_eq!(
        refused(|spec| spec.entry_point = EntryPoint::Command(vec!["cat".into()])),
        "ErrorKind::Unsupported create.command"
    );
    assert_eq!(refused(|spec| spec.options = vec![("o".into(), "1".into())]), "ErrorKind::InvalidArgument o");
    let user = ExecSpec { user: Some("u".into()), ..exec_spec("e", &["cat"]) };
    assert_eq!(kind(run(provider.start(&id, user))), "ErrorKind::Unsupported exec.user");
    assert_eq!(kind(run(provider.report_usage(&id))), "ErrorKind::Unsupported stats");
}

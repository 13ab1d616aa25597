//! Tests without a host and without a network: the transport is a script of answers, chosen by the last part of the path.

use std::rc::Rc;

use example_provider::Provider;
use sandbox_provider_kit::{
    api::{records, wit::*},
    export::SandboxProvider as _,
    platform::scripted::{Answer, Script, run},
};

#[test]
fn a_command_is_sent_and_its_result_is_read() {
    let script = Script::new();
    let provider = Provider::new(Rc::new(script.clone()));
    script.will("sandboxes", Answer::Http(200, "", r#"{"id": "sb-1"}"#));
    let sandbox = run(provider.create(records::sandbox_spec())).expect("not created").id;
    assert_eq!(sandbox, "sb-1");
    script.will("run", Answer::Http(200, "", r#"{"exit_code": 3, "stdout": "hi\n", "stderr": ""}"#));
    let limits = OutputLimits { stdout_max: 1000, stderr_max: 1000, keep: Keep::Head };
    let spec = records::exec_spec("e1", &["greet"]);
    let result = run(provider.run(&sandbox, spec, b"in".to_vec(), limits)).expect("did not run");
    assert!(matches!(result.verdict, Verdict::Exited(3)));
    assert_eq!(result.stdout.data, b"hi\n");
    let [sent] = &script.calls("run")[..] else { panic!("one request") };
    assert_eq!(sent.body, r#"{"id":"e1","argv":["greet"],"stdin":"in"}"#);
}

#[test]
fn a_failure_has_a_kind_and_says_whether_it_happened() {
    let script = Script::new();
    let provider = Provider::new(Rc::new(script.clone()));
    script.will("sandboxes", Answer::Http(503, "", "no machine"));
    let error = run(provider.create(records::sandbox_spec())).expect_err("created");
    assert!(matches!(error.kind, ErrorKind::Unavailable));
    assert!(matches!(error.happened, Happened::Unknown));
    let named = SandboxSpec { name: Some("n".into()), ..records::sandbox_spec() };
    let error = run(provider.create(named)).expect_err("created");
    assert_eq!(error.subject.as_deref(), Some("create.names"));
    assert_eq!(script.calls("sandboxes").len(), 1, "what is not declared is refused without a request");
}

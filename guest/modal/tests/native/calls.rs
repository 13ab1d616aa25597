//! Tests of calls and streams: which attempt determines the error, how long the pauses are, where a stream resumes.

use std::time::Duration;

use crate::script::{Answer, Provide as _, SANDBOX, Script, filter, modal, ok, run, text};
use bytes::Bytes;
use modal_proto::{
    client::{
        GenericResult, RpcRetryPolicy, RpcStatus, SandboxListResponse, SandboxWaitResponse,
        generic_result::GenericStatus,
    },
    prost::Message,
    prost_types::Any,
    task_command_router::{
        TaskExecPollRequest, TaskExecPollResponse, TaskExecStartRequest, TaskExecStartResponse,
        TaskExecStdinWriteRequest, TaskExecStdinWriteResponse, TaskExecStdioReadRequest, TaskExecStdioReadResponse,
        TaskExecWaitRequest, TaskExecWaitResponse, task_exec_wait_response::ExitStatus,
    },
};
use sandbox_provider_kit::{
    api::wit::{
        ErrorKind, ExecRef, ExecSpec, Happened, Keep, OutputLimits, OutputMode, ReadRequest, RetryAdvice, Verdict,
    },
    export::SandboxProvider as _,
    platform::Transport as _,
};

#[test]
fn a_call_is_repeated_with_one_key_and_counters() {
    let script = modal();
    for status in [14, 13, 4] {
        script.will("SandboxListV2", Answer::Status(status, Vec::new()));
    }
    script.will("SandboxListV2", ok(&SandboxListResponse::default()));
    run(script.provider().list(filter(), None, 10)).expect("the fourth attempt");
    let calls = script.calls("SandboxListV2");
    let attempts: Vec<_> = calls.iter().map(|seen| text(seen, "x-retry-attempt")).collect();
    assert_eq!(attempts, ["0", "1", "2", "3"]);
    let keys: std::collections::HashSet<_> = calls.iter().map(|seen| text(seen, "x-idempotency-key")).collect();
    assert_eq!(keys.len(), 1);
    // Without jitter (the script's random numbers are 0): 0.1, 0.2, 0.4 s.
    let times: Vec<_> = calls.iter().map(|seen| seen.at.as_millis()).collect();
    assert_eq!(times, [0, 100, 300, 700]);
    assert_eq!(text(&calls[3], "x-retry-delay"), "0.700");
}

#[test]
fn it_gives_up_after_the_policy_and_says_whether_it_happened() {
    let script = modal();
    for _ in 0..4 {
        script.will("SandboxListV2", Answer::Status(14, Vec::new()));
    }
    let error = run(script.provider().list(filter(), None, 10)).expect_err("it is down");
    assert!(matches!(error.kind, ErrorKind::Unavailable) && matches!(error.happened, Happened::Unknown), "{error:?}");
    assert!(matches!(error.retry, RetryAdvice::Maybe));

    let script = modal();
    script.will("SandboxListV2", Answer::Status(3, Vec::new()));
    let error = run(script.provider().list(filter(), None, 10)).expect_err("it is refused");
    assert!(matches!(error.kind, ErrorKind::InvalidArgument) && matches!(error.happened, Happened::No), "{error:?}");
    assert_eq!(script.calls("SandboxListV2").len(), 1);
}

#[test]
fn nobody_there_is_known_not_to_have_happened() {
    let script = modal();
    for _ in 0..4 {
        script.will("SandboxListV2", Answer::Refused);
    }
    let error = run(script.provider().list(filter(), None, 10)).expect_err("it is refused");
    assert!(matches!(error.kind, ErrorKind::Unavailable) && matches!(error.happened, Happened::No), "{error:?}");
    assert!(error.message.contains("http://control.test"), "{}", error.message);
}

/// The answer to the last attempt does not tell whether an earlier attempt with a lost answer had its effect.
#[test]
fn an_earlier_attempt_may_have_happened() {
    for (last, kind) in [
        (Answer::Refused, "Unavailable"),
        (Answer::Status(6, Vec::new()), "AlreadyExists"),
        (Answer::Status(5, Vec::new()), "NotFound"),
    ] {
        let refused = matches!(last, Answer::Refused);
        let script = modal();
        script.will("SandboxListV2", Answer::Cut(Vec::new()));
        script.will("SandboxListV2", last);
        for _ in 0..if refused { 2 } else { 0 } {
            script.will("SandboxListV2", Answer::Refused);
        }
        let error = run(script.provider().list(filter(), None, 10)).expect_err("it fails");
        assert_eq!(format!("{:?}", error.kind), format!("ErrorKind::{kind}"));
        assert!(matches!(error.happened, Happened::Unknown), "{error:?}");
    }
}

#[test]
fn a_wait_that_the_server_asks_for_uses_up_no_retry() {
    let details = RpcStatus {
        code: 8,
        message: String::new(),
        details: vec![Any {
            type_url: "type.modal.com/modal.client.RPCRetryPolicy".into(),
            value: RpcRetryPolicy { retry_after_secs: 7.0 }.encode_to_vec(),
        }],
    };
    let script = modal();
    for _ in 0..6 {
        script.will("SandboxListV2", Answer::Status(8, details.encode_to_vec()));
    }
    script.will("SandboxListV2", ok(&SandboxListResponse::default()));
    run(script.provider().list(filter(), None, 10)).expect("the seventh attempt");
    let calls = script.calls("SandboxListV2");
    let last = calls.last().expect("calls");
    assert_eq!((text(last, "x-retry-attempt"), text(last, "x-throttle-retry-attempt")), ("0".into(), "6".into()));
    assert_eq!(last.at, Duration::from_secs(42));
    // The user is told why the call takes so long.
    let told = script.0.told.borrow();
    assert_eq!(told.len(), 6);
    assert!(told[0].starts_with("waiting 7 s"), "{told:?}");
}

#[test]
fn tokens_are_fetched_before_they_end() {
    let script = modal();
    let provider = script.provider();
    for _ in 0..5 {
        script.will("SandboxListV2", ok(&SandboxListResponse::default()));
    }
    // Valid until 1000 s, and due after half of that.
    for (at, fetched) in [(0, 1), (400, 1), (501, 2)] {
        *script.0.now.borrow_mut() = Duration::from_secs(at);
        run(provider.list(filter(), None, 10)).expect("a list");
        assert_eq!(script.calls("AuthTokenGet").len(), fetched, "at {at} s");
    }
    // A rejected token is renewed once.
    script.0.answers.borrow_mut().get_mut("SandboxListV2").expect("answers").clear();
    script.will("SandboxListV2", Answer::Status(16, Vec::new()));
    script.will("SandboxListV2", ok(&SandboxListResponse::default()));
    run(provider.list(filter(), None, 10)).expect("with a new token");
    assert_eq!(script.calls("AuthTokenGet").len(), 3);
}

fn piece(bytes: &[u8]) -> Vec<u8> {
    TaskExecStdioReadResponse { data: Bytes::copy_from_slice(bytes) }.encode_to_vec()
}

fn reading(stdout_offset: u64) -> (ExecRef, ReadRequest) {
    let exec = ExecRef { sandbox: SANDBOX.into(), exec: "e1".into(), deadline: None, container: None };
    (exec, ReadRequest { stdout_offset, stderr_offset: 0, max_bytes: 1000, wait: 1000 })
}

#[test]
fn a_cut_stream_is_resumed_where_it_was_cut() {
    let script = modal();
    let provider = script.provider();
    // stdout: cut twice; stderr: nothing. Both streams are opened in this order.
    script.will("TaskExecStdioRead", Answer::Cut(vec![piece(b"hello "), piece(b"wor")]));
    script.will("TaskExecStdioRead", Answer::Stream(Vec::new(), 0));
    script.will("TaskExecStdioRead", Answer::Cut(Vec::new()));
    script.will("TaskExecStdioRead", Answer::Stream(vec![piece(b"ld")], 0));
    script.will("TaskExecWait", ok(&TaskExecWaitResponse { exit_status: Some(ExitStatus::Code(3)) }));
    let mut all = Vec::new();
    let verdict = loop {
        let (exec, request) = reading(all.len() as u64);
        let output = run(provider.read_output(exec, request)).expect("output");
        assert_eq!(output.stdout.offset, all.len() as u64);
        all.extend(output.stdout.data);
        if let Some(verdict) = output.verdict {
            break verdict;
        }
    };
    assert_eq!(all, b"hello world");
    assert!(matches!(verdict, Verdict::Exited(3)), "{verdict:?}");
    let offsets: Vec<_> = script
        .calls("TaskExecStdioRead")
        .iter()
        .map(|seen| TaskExecStdioReadRequest::decode(seen.body.clone()).expect("a request"))
        .filter(|request| request.file_descriptor == 0)
        .map(|request| request.offset)
        .collect();
    assert_eq!(offsets, [0, 9, 9]);
}

#[test]
fn a_stream_stays_open_between_calls() {
    let script = modal();
    let provider = script.provider();
    script.will("TaskExecStdioRead", Answer::Hang(vec![piece(b"one"), piece(b"two")]));
    script.will("TaskExecStdioRead", Answer::Hang(Vec::new()));
    let mut all = Vec::new();
    for _ in 0..6 {
        let (exec, mut request) = reading(all.len() as u64);
        request.max_bytes = 2;
        let output = run(provider.read_output(exec, request)).expect("output");
        assert!(output.stdout.data.len() <= 2);
        all.extend(output.stdout.data);
    }
    assert_eq!(all, b"onetwo");
    assert_eq!(script.calls("TaskExecStdioRead").len(), 2, "one per stream");
}

#[test]
fn a_sandbox_that_ended_is_the_verdict() {
    let script = modal();
    for _ in 0..2 {
        script.will("TaskExecStdioRead", Answer::Status(5, Vec::new()));
        let result = GenericResult { status: GenericStatus::Terminated.into(), ..Default::default() };
        for _ in 0..2 {
            script.will("SandboxWaitV2", ok(&SandboxWaitResponse { result: Some(result.clone()), metadata: None }));
        }
    }
    let (exec, request) = reading(0);
    let output = run(script.provider().read_output(exec, request)).expect("a verdict");
    assert!(
        matches!(output.verdict, Some(Verdict::SandboxEnded(sandbox_provider_kit::api::wit::EndReason::Terminated))),
        "{:?}",
        output.verdict
    );
}

#[test]
fn a_number_that_is_no_signal_is_refused() {
    let script = modal();
    let provider = script.provider();
    for signal in [0, 65, u32::MAX] {
        let exec = ExecRef { sandbox: SANDBOX.into(), exec: "e1".into(), deadline: None, container: None };
        let error = run(provider.signal(exec, signal)).expect_err("no signal has this number");
        assert!(
            matches!(error.kind, ErrorKind::InvalidArgument) && error.message.contains("not a signal"),
            "{error:?}"
        );
    }
    assert!(script.calls("TaskExecStart").is_empty());
}

fn command() -> ExecSpec {
    ExecSpec {
        id: "e1".into(),
        argv: vec!["cat".into()],
        env: vec![],
        secrets: vec![],
        cwd: None,
        user: None,
        timeout: None,
        pty: None,
        stdout: OutputMode::Keep,
        stderr: OutputMode::Keep,
        merge_stderr: false,
        container: None,
        extra: vec![],
    }
}

/// Runs a command without input. If `reads` is set, the command ends only after its input was closed.
fn runs_without_input(script: &Script, reads: bool) {
    script.serves("TaskExecStart", |_: TaskExecStartRequest| TaskExecStartResponse::default());
    script.answers_by("TaskExecStdioRead", |_| Answer::Stream(Vec::new(), 0));
    script.serves("TaskExecStdinWrite", |_: TaskExecStdinWriteRequest| TaskExecStdinWriteResponse {});
    let seen = script.clone();
    script.answers_by("TaskExecWait", move |_| {
        if reads && seen.calls("TaskExecStdinWrite").is_empty() {
            return Answer::Hang(Vec::new());
        }
        ok(&TaskExecWaitResponse { exit_status: Some(ExitStatus::Code(3)) })
    });
    let spec = command();
    let limits = OutputLimits { stdout_max: 9, stderr_max: 9, keep: Keep::Head };
    let result = run(script.provider().run(SANDBOX, spec, Vec::new(), limits)).expect("it runs");
    assert!(matches!(result.verdict, Verdict::Exited(3)), "{:?}", result.verdict);
}

#[test]
fn only_a_command_that_goes_on_is_told_that_it_has_no_input() {
    let script = modal();
    runs_without_input(&script, false);
    assert!(script.calls("TaskExecStdinWrite").is_empty());

    let script = modal();
    let begun = script.now();
    runs_without_input(&script, true);
    let [told] = &script.calls("TaskExecStdinWrite")[..] else { panic!("once") };
    let write = TaskExecStdinWriteRequest::decode(told.body.clone()).expect("a request");
    assert!(write.eof && write.data.is_empty() && write.offset == 0);
    assert_eq!(told.at - begun, Duration::from_millis(100));
}

/// A service that does not end a command at its time limit and on which the provider cannot end it.
fn never_ending() -> (Script, &'static str) {
    let id = "7f0e6a30-5a57-4a4b-8c6a-2f2d1f6f1c11";
    let script = modal();
    script.serves("TaskExecStart", |_: TaskExecStartRequest| TaskExecStartResponse::default());
    script.serves("TaskExecStdinWrite", |_: TaskExecStdinWriteRequest| TaskExecStdinWriteResponse {});
    script.answers_by("TaskExecStdioRead", move |body| {
        let asked = TaskExecStdioReadRequest::decode(body).expect("a request");
        match (asked.exec_id == id, asked.offset) {
            (true, 0) if asked.file_descriptor == 0 => Answer::Hang(vec![piece(b"early")]),
            (true, _) => Answer::Hang(Vec::new()),
            (false, _) => Answer::Stream(Vec::new(), 0),
        }
    });
    script.answers_by("TaskExecWait", move |body| {
        let asked = TaskExecWaitRequest::decode(body).expect("a request");
        match asked.exec_id == id {
            true => Answer::Hang(Vec::new()),
            false => ok(&TaskExecWaitResponse { exit_status: Some(ExitStatus::Code(0)) }),
        }
    });
    script.serves("TaskExecPoll", |_: TaskExecPollRequest| TaskExecPollResponse::default());
    (script, id)
}

/// Asserts that the script that ends the process tree was started once, for this id.
fn ended_once(script: &Script, id: &str) {
    let starts = script.calls("TaskExecStart");
    let starts = starts.iter().map(|seen| TaskExecStartRequest::decode(seen.body.clone()).expect("a request"));
    let ours: Vec<_> = starts.filter(|start| start.exec_id != id).collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0].command_args[4..], [id, "15", "50"]);
}

#[test]
fn a_time_limit_that_the_service_ignores_holds_all_the_same() {
    let (script, id) = never_ending();
    let begun = script.now();
    let spec = ExecSpec { id: id.into(), timeout: Some(2000), ..command() };
    let limits = OutputLimits { stdout_max: 9, stderr_max: 9, keep: Keep::Head };
    let result = run(script.provider().run(SANDBOX, spec, Vec::new(), limits)).expect("a verdict");
    assert!(matches!(result.verdict, Verdict::Deadline), "{:?}", result.verdict);
    assert_eq!(result.stdout.data, b"early", "what was printed by then");
    assert!(script.now() - begun < Duration::from_secs(15), "{:?}", script.now() - begun);
    ended_once(&script, id);
    assert!(script.0.told.borrow().iter().any(|line| line.contains("is not over")));
    let [start, ..] = &script.calls("TaskExecStart")[..] else { panic!("it was started") };
    let start = TaskExecStartRequest::decode(start.body.clone()).expect("a request");
    assert_eq!(start.timeout_secs, Some(9), "the service kills only what the signals before it did not end");

    // Started, then waited for.
    let (script, id) = never_ending();
    let provider = script.provider();
    let deadline = Some(script.now().as_millis() as u64 + 2000);
    let exec = ExecRef { sandbox: SANDBOX.into(), exec: id.into(), deadline, container: None };
    let verdict = run(provider.wait_exec(exec.clone(), 600_000)).expect("a verdict");
    assert!(matches!(verdict, Some(Verdict::Deadline)), "{verdict:?}");
    ended_once(&script, id);

    // Started, then read.
    let (script, id) = never_ending();
    let provider = script.provider();
    let deadline = Some(script.now().as_millis() as u64 + 2000);
    let exec = ExecRef { deadline, ..exec };
    let mut read = ReadRequest { stdout_offset: 0, stderr_offset: 0, max_bytes: 100, wait: 60_000 };
    let mut seen = Vec::new();
    let verdict = loop {
        let output = run(provider.read_output(exec.clone(), read)).expect("output");
        read.stdout_offset = output.stdout.offset + output.stdout.data.len() as u64;
        seen.extend(output.stdout.data);
        assert_eq!(output.stdout.end, output.verdict.is_some());
        if let Some(verdict) = output.verdict {
            break verdict;
        }
        assert!(script.now() < Duration::from_secs(60), "it is read without end");
    };
    assert!(matches!(verdict, Verdict::Deadline) && seen == b"early", "{verdict:?} {seen:?}");
    ended_once(&script, id);
}

#[test]
fn a_router_that_is_not_up_yet_is_waited_for() {
    let script = modal();
    // The router refuses the first connections. The control plane reports that the sandbox is running.
    for _ in 0..20 {
        script.will("TaskExecWait", Answer::Refused);
        script.will("SandboxWaitV2", ok(&SandboxWaitResponse::default()));
    }
    script.will("TaskExecWait", ok(&TaskExecWaitResponse { exit_status: Some(ExitStatus::Code(0)) }));
    let (exec, _) = reading(0);
    let verdict = run(script.provider().wait_exec(exec, 600_000)).expect("in the end it is there");
    assert!(matches!(verdict, Some(Verdict::Exited(0))), "{verdict:?}");
}

#[test]
fn a_router_that_is_gone_with_its_control_plane_is_not_waited_for() {
    let script = modal();
    for _ in 0..40 {
        script.will("TaskExecStdioRead", Answer::Refused);
        script.will("SandboxWaitV2", Answer::Refused);
    }
    let (exec, mut request) = reading(0);
    request.wait = 600_000;
    let error = run(script.provider().read_output(exec, request)).expect_err("both are away");
    assert!(matches!(error.kind, ErrorKind::Unavailable), "{error:?}");
    assert!(script.now() < Duration::from_secs(10), "{:?}", script.now());
}

#[test]
fn a_cache_saves_the_requests() {
    let first = modal();
    let provider = first.provider();
    first.will("SandboxListV2", ok(&SandboxListResponse::default()));
    run(provider.list(filter(), None, 10)).expect("a list");
    let cache = provider.export_cache();

    let second = modal();
    let provider = second.provider();
    provider.import_cache(&cache);
    second.will("SandboxListV2", ok(&SandboxListResponse::default()));
    run(provider.list(filter(), None, 10)).expect("a list");
    assert_eq!(second.calls("AuthTokenGet").len() + second.calls("AppGetOrCreate").len(), 0);
    for junk in [&b""[..], b"{}", b"\xff", b"null", &cache[..cache.len() / 2]] {
        provider.import_cache(junk);
    }
}

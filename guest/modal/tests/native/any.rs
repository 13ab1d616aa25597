//! Tests with arbitrary responses: no function of the interface panics, sends requests without end or waits longer than
//! requested.
//!
//! Responses are arbitrary bytes, arbitrary frames and trailers, and well-formed messages with arbitrary fields. The
//! last kind reaches the most code, because the same bytes are valid for many message types. Sign-in and look-ups
//! usually succeed, so that the rest of the code is reached.

use std::{cell::Cell, rc::Rc, time::Duration};

use base64::Engine as _;
use bytes::Bytes;
use modal_proto::client::{
    AppGetOrCreateResponse, AuthTokenGetResponse, ImageGetOrCreateRequest, ImageGetOrCreateResponse, RpcRetryPolicy,
    RpcStatus, SandboxGetCommandRouterAccessResponse, SandboxGetTaskIdResponse,
};
use modal_proto::{prost::Message as _, prost_types::Any};
use modal_provider::{Provider, Result};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngSeed},
};
use sandbox_provider_kit::{
    api::wit::{
        Content, ErrorKind, ExecRef, ExecSpec, Keep, Location, LogQuery, NetworkPolicy, Outbound, OutputLimits,
        OutputMode, Pty, ReadRequest, WriteMode, WriteOptions,
    },
    export::SandboxProvider as _,
    platform::{Headers, LocalFuture, Transport as _},
};

use crate::{
    control::{image, spec},
    script::{Answer, Provide as _, SANDBOX, Script, filter, framed, headers, jwt, modal, run},
};

const OLD: &str = "sb-0123456789abcdefghijAB";

/// A fixed seed, so that each run has the same cases. They take a second or two.
fn cases(count: u32) -> Config {
    Config { cases: count, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..Config::default() }
}

/// A call with more requests than this counts as endless.
const MOST_REQUESTS: usize = 20_000;

/// Well-formed encoded messages: fields of all types, some with texts that have a meaning.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![
        Just("sb-01JABCDEFGHJKMNPQRSTVWXYZ0".as_bytes().to_vec()),
        Just(b"http://router.test".to_vec()),
        Just(b"https://store.test/a?b".to_vec()),
        Just(b"ta-1".to_vec()),
        Just(b"im-1".to_vec()),
        Just(br#"{"type":"file","name":"a","path":"/a","size":1,"mode":420,"owner":"r","group":"r"}"#.to_vec()),
        Just(b"{\"event_type\":\"Create\",\"paths\":[\"/a\"]}\n".to_vec()),
        Just(br#"[{"type":"symlink"}]"#.to_vec()),
        Just(b"helper=/bin/su\nname=x\nuid=7\n".to_vec()),
        vec(any::<u8>(), 0..24),
    ];
    let leaf = prop_oneof![
        4 => text.prop_map(|text| (2, [varint(text.len() as u64), text].concat())),
        3 => prop_oneof![0_u64..4, any::<u64>()].prop_map(|number| (0, varint(number))),
        1 => any::<[u8; 8]>().prop_map(|bytes| (1, bytes.to_vec())),
        1 => any::<[u8; 4]>().prop_map(|bytes| (5, bytes.to_vec())),
    ];
    let fields = |field: BoxedStrategy<(u64, Vec<u8>)>| {
        vec((1_u64..24, field), 0..6).prop_map(|fields| {
            let field = |(number, (kind, bytes)): (u64, (u64, Vec<u8>))| [varint(number << 3 | kind), bytes].concat();
            fields.into_iter().flat_map(field).collect::<Vec<u8>>()
        })
    };
    fields(
        leaf.prop_recursive(3, 16, 4, move |inner| {
            fields(inner.boxed()).prop_map(|bytes| (2, [varint(bytes.len() as u64), bytes].concat()))
        })
        .boxed(),
    )
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Trailers with good and bad statuses, with and without details.
fn trailers() -> impl Strategy<Value = Headers> {
    let status =
        prop_oneof![8 => Just("0".to_string()), 4 => (0..20).prop_map(|code: i32| code.to_string()), 1 => ".{0,4}"];
    let wait = prop_oneof![0.0_f32..3.0, any::<f32>()];
    let details = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 0..40),
        message(),
        wait.prop_map(|retry_after_secs| {
            let value = RpcRetryPolicy { retry_after_secs }.encode_to_vec();
            let any = Any { type_url: "type.modal.com/modal.client.RPCRetryPolicy".into(), value };
            RpcStatus { code: 8, message: String::new(), details: vec![any] }.encode_to_vec()
        }),
    ];
    (status, ".{0,12}", details, any::<bool>()).prop_map(|(status, text, details, broken)| {
        let mut trailers = Headers::default();
        let mut set = |name: &str, value: &[u8]| trailers.0.push((name.to_string(), value.to_vec()));
        set("grpc-status", status.as_bytes());
        set("grpc-message", text.as_bytes());
        let mut encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
        if broken {
            encoded.push('%');
        }
        set("grpc-status-details-bin", encoded.as_bytes());
        trailers
    })
}

/// One response, as pieces and trailers.
fn raw() -> impl Strategy<Value = (Vec<Vec<u8>>, Option<Headers>)> {
    let frames = vec(message().prop_map(|message| framed(&message).to_vec()), 0..4);
    let pieces = prop_oneof![
        6 => frames,
        1 => vec(vec(any::<u8>(), 0..40), 0..4),
        // A frame with a wrong length, or with the flag for compression.
        1 => (any::<u8>(), any::<u32>(), vec(any::<u8>(), 0..10)).prop_map(|(flag, length, rest)| {
            vec![[&[flag][..], &length.to_be_bytes(), &rest].concat()]
        }),
    ];
    (pieces, proptest::option::weighted(0.9, trailers()))
}

type Call = fn(Provider, String) -> LocalFuture<'static, Result<()>>;

/// Converts calls to the type [`Call`].
macro_rules! calls {
    ($(|$p:ident, $s:ident| $call:expr),* $(,)?) => {
        &[$(|$p: Provider, $s: String| Box::pin(async move { let _s = &$s; $call.await.map(drop) })),*]
    };
}

fn at(sandbox: &str) -> Location {
    Location { sandbox: sandbox.to_string(), container: None, path: "/a/b".into(), user: None }
}

fn exec(sandbox: &str) -> ExecRef {
    ExecRef { sandbox: sandbox.to_string(), exec: "e1".into(), deadline: Some(4000), container: Some("side".into()) }
}

fn command() -> ExecSpec {
    ExecSpec {
        id: "e1".into(),
        argv: vec!["true".into()],
        env: vec![],
        secrets: vec!["s".into()],
        cwd: Some("x".into()),
        user: None,
        // The time limit makes the command end.
        timeout: Some(1000),
        pty: None,
        stdout: OutputMode::Keep,
        stderr: OutputMode::Keep,
        merge_stderr: false,
        container: None,
        extra: vec![],
    }
}

fn limits() -> OutputLimits {
    OutputLimits { stdout_max: 10, stderr_max: 10, keep: Keep::Tail }
}

fn content() -> Content {
    Content { sha256: "ab".repeat(32), size: 3, digests: vec![("md5".into(), "0".repeat(32))] }
}

fn network() -> NetworkPolicy {
    NetworkPolicy { outbound: Outbound::Blocked, inbound_cidrs: vec![] }
}

fn mode(mode: WriteMode) -> WriteOptions {
    WriteOptions { mode, permissions: None, extra: vec![] }
}

/// All functions that read a response.
const CALLS: &[Call] = calls![
    |p, s| p.check(),
    |p, s| p.missing_content(&[content()]),
    |p, s| p.upload_content(&content(), 0, vec![1, 2, 3]),
    |p, s| p.start_build(&image()),
    |p, s| async move {
        let mut wanted = image();
        wanted.commands = vec!["RUN a".into()];
        let mut progress = p.start_build(&wanted).await?;
        for _ in 0..4 {
            if progress.image.is_none() {
                progress = p.read_build(&progress.cursor, 100, 1000).await?;
            }
        }
        Ok(())
    },
    |p, s| p.get_image("im-1"),
    |p, s| p.delete_image("im-1"),
    |p, s| p.create(spec()),
    |p, s| p.get(&s),
    |p, s| p.find("name"),
    |p, s| async move {
        let mut cursor = None;
        for _ in 0..4 {
            let page = p.list(filter(), cursor, 3).await?;
            assert!(page.items.len() <= 3);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(())
    },
    |p, s| p.wait(&s, 1000),
    |p, s| p.wait_ready(&s, 1000),
    |p, s| p.terminate(&s),
    |p, s| p.set_name(&s, "name"),
    |p, s| p.get_tags(&s),
    |p, s| p.set_tags(&s, &[("a".into(), "b".into())]),
    |p, s| p.tunnels(&s, 1000),
    |p, s| p.create_connect_token(&s, 80, String::new()),
    |p, s| async move {
        let query = LogQuery { since: None, until: None, stream: None, search: None };
        let page = p.read_logs(&s, &query, None, 10).await?;
        p.read_logs(&s, &query, page.next, 10).await
    },
    |p, s| p.report_usage(&s),
    |p, s| p.set_network(&s, &network()),
    |p, s| p.reload_volumes(&s),
    |p, s| p.snapshot_filesystem(&s, "k", None),
    |p, s| p.snapshot_directory(&at(&s), "k", Some(1)),
    |p, s| p.mount(&at(&s), Some("im-1")),
    |p, s| p.unmount(&at(&s)),
    |p, s| p.snapshot_memory(&s, "k"),
    |p, s| p.restore("sn-1", "k", None),
    |p, s| p.exit_snapshot(&s, 1000),
    |p, s| p.list_sidecars(&s),
    |p, s| p.wait_sidecar(&s, "side", 1000),
    |p, s| p.terminate_sidecar(&s, "side"),
    |p, s| p.start(&s, command()),
    |p, s| p.start(&s, ExecSpec { user: Some("x".into()), ..command() }),
    |p, s| p.read_output(exec(&s), ReadRequest { stdout_offset: 0, stderr_offset: 5, max_bytes: 7, wait: 1000 }),
    |p, s| p.write_input(exec(&s), 3, vec![1; 10], true),
    |p, s| p.write_input(ExecRef { exec: "main".into(), ..exec(&s) }, 3, vec![1; 10], true),
    |p, s| p.wait_exec(exec(&s), 9000),
    |p, s| p.wait_exec(ExecRef { exec: "main".into(), ..exec(&s) }, 1000),
    |p, s| p.signal(exec(&s), 9),
    |p, s| p.resize(exec(&s), Pty { rows: 1, columns: 1, term: String::new() }),
    |p, s| p.run(&s, command(), vec![7; 100], limits()),
    |p, s| async move {
        let chunk = p.read_file(&at(&s), "t1", 0, 10).await?;
        assert!(chunk.data.len() <= 10);
        p.read_file(&at(&s), "t1", chunk.data.len() as u64, 10).await
    },
    |p, s| p.write_file(&at(&s), "t1", &mode(WriteMode::Replace), 0, vec![1; 100], true),
    |p, s| p.write_file(&at(&s), "t1", &mode(WriteMode::Append), 0, vec![1; 100], true),
    |p, s| p.stat(&at(&s), true),
    |p, s| p.list_directory(&at(&s), None, 3),
    |p, s| p.make_directory(&at(&s), true),
    |p, s| p.remove(&at(&s), true),
    |p, s| p.rename(&at(&s), "/c", false),
    |p, s| p.read_tree(&at(&s), "t1", 0, 10),
    |p, s| p.write_tree(&at(&s), "t1", 0, vec![1; 100], true),
    |p, s| p.watch(&at(&s), "w1", true, 0, 3, 1000),
];

/// Calls that succeed in most cases, because the other code is not reached without them.
const FIRST: [&str; 4] = ["AuthTokenGet", "AppGetOrCreate", "SandboxGetTaskIdV2", "SandboxGetCommandRouterAccess"];

/// A script in which these calls always succeed.
fn start() -> Script {
    let script = modal();
    let life = Duration::from_secs(100_000);
    script.serves("AuthTokenGet", move |()| AuthTokenGetResponse { token: jwt(life) });
    script.serves("AppGetOrCreate", |()| AppGetOrCreateResponse { app_id: "ap-1".into(), handle_metadata: None });
    script.serves("SandboxGetTaskIdV2", |()| SandboxGetTaskIdResponse {
        task_id: Some("ta-1".into()),
        task_result: None,
    });
    script.serves("SandboxGetCommandRouterAccess", move |()| SandboxGetCommandRouterAccessResponse {
        jwt: jwt(life),
        url: "http://router.test".into(),
        worker_ipv4_address: String::new(),
    });
    script
}

proptest! {
    #![proptest_config(cases(6000))]

    #[test]
    fn any_answer(
        call in 0..CALLS.len(),
        old in proptest::bool::weighted(0.2),
        web in proptest::bool::weighted(0.2),
        first in proptest::bool::weighted(0.15),
        mut answers in vec(raw(), 1..8),
    ) {
        let script = start();
        // Without a limit, the provider would obey a server's requests to wait for ever.
        script.0.env.borrow_mut().insert("MODAL_MAX_THROTTLE_WAIT", "60".into());
        if web {
            script.0.env.borrow_mut().insert("MODAL_GRPC_WIRE", "grpc-web".into());
            for (pieces, trailers) in &mut answers {
                let Some(trailers) = trailers.take() else { continue };
                let line = |(name, value): &(String, Vec<u8>)| [name.as_bytes(), b":", value, b"\r\n"].concat();
                let block: Vec<u8> = trailers.0.iter().flat_map(line).collect();
                pieces.push([&[0x80][..], &(block.len() as u32).to_be_bytes(), &block].concat());
            }
        }
        let (asked, total) = (Rc::new(Cell::new(0)), answers.len());
        let counter = asked.clone();
        *script.0.meddle.borrow_mut() = Some(Box::new(move |method| {
            if !web && !first && FIRST.contains(&method) && counter.get() < MOST_REQUESTS {
                return None;
            }
            let number = counter.replace(counter.get() + 1);
            assert!(number < MOST_REQUESTS, "{method} is asked for without end");
            let (pieces, trailers) = answers[number % total].clone();
            Some(Answer::Raw(pieces, trailers))
        }));
        let sandbox = if old { OLD } else { SANDBOX };
        let ended = run(CALLS[call](script.provider(), sandbox.to_string()));
        if let Err(error) = ended {
            prop_assert!(!error.message.is_empty() && error.message.len() < 64 * 1024);
        }
        prop_assert!(script.now() < Duration::from_secs(3600), "it took {:?}", script.now());
    }

    /// The cache of another instance can have any content.
    #[test]
    fn any_cache(bytes in prop_oneof![vec(any::<u8>(), 0..64), message(), r#"\{"[a-z]{0,9}":[\[\]{}"a-z0-9,:]{0,30}\}"#.prop_map(String::into_bytes)]) {
        let provider = modal().provider();
        provider.import_cache(&bytes);
        prop_assert!(provider.export_cache().len() < 1 << 20);
    }

    /// Tokens can have any content.
    #[test]
    fn any_token(payload in prop_oneof![".{0,20}", r#"\{"exp":-?[0-9]{0,22}(\.[0-9]{0,5})?(e[0-9]{1,3})?\}"#], text in ".{0,20}", now in any::<u32>()) {
        let encoded = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&payload);
        for token in [format!("a.{encoded}.c"), text] {
            let now = Duration::from_secs(now.into());
            let mut token = sandbox_provider_kit::call::token::Token::new(token, now, 1.0);
            token.postpone(now);
            prop_assert!(token.refresh >= now);
        }
    }

    /// Callers can change a cursor.
    #[test]
    fn any_cursor(text in prop_oneof![".{0,40}", "[A-Za-z0-9_.=-]{0,60}"]) {
        let provider = modal().provider();
        let error = run(provider.read_build(&text, 10, 10)).err();
        prop_assert!(error.is_none_or(|error| matches!(error.kind, ErrorKind::InvalidArgument)), "{text}");
    }
}

/// A server that answers "not yet" at once is asked only after a pause.
#[test]
fn a_server_that_does_not_hold_is_asked_at_a_walk() {
    let empty = || Answer::Raw(vec![framed(&[]).to_vec()], Some(headers([("grpc-status", "0")])));
    let wait: [(&str, Call); 4] = [
        ("SandboxWaitV2", |p, s| Box::pin(async move { p.wait(&s, 60_000).await.map(drop) })),
        ("TaskExecWait", |p, s| {
            Box::pin(async move { p.wait_exec(ExecRef { deadline: None, ..exec(&s) }, 60_000).await.map(drop) })
        }),
        ("SandboxGetExitSnapshotV2", |p, s| Box::pin(async move { p.exit_snapshot(&s, 60_000).await.map(drop) })),
        ("ImageJoinStreaming", |p, _| {
            Box::pin(async move {
                let mut wanted = image();
                wanted.commands = vec!["RUN a".into()];
                let progress = p.start_build(&wanted).await?;
                p.read_build(&progress.cursor, 100, 60_000).await.map(drop)
            })
        }),
    ];
    for (method, call) in wait {
        let script = start();
        script.serves("ImageGetOrCreate", |_: ImageGetOrCreateRequest| ImageGetOrCreateResponse {
            image_id: "im-1".into(),
            ..Default::default()
        });
        *script.0.meddle.borrow_mut() =
            Some(Box::new(move |method| (!FIRST.contains(&method) && method != "ImageGetOrCreate").then(empty)));
        run(call(script.provider(), SANDBOX.to_string())).expect("nothing yet");
        assert!(script.now() >= Duration::from_secs(59), "{method}: {:?}", script.now());
        let asked = script.calls(method).len();
        assert!((2..=240).contains(&asked), "{method} was asked for {asked} times");
    }
}

/// Each byte of a stream arrives exactly once, for all sizes of messages and reads and all places where the stream
/// breaks.
mod streams {
    use super::*;
    use modal_proto::task_command_router::{
        TaskExecStartRequest, TaskExecStartResponse, TaskExecStdinStatusRequest, TaskExecStdinStatusResponse,
        TaskExecStdinWriteRequest, TaskExecStdinWriteResponse, TaskExecStdinWriteStreamRequest,
        TaskExecStdioReadRequest, TaskExecStdioReadResponse, TaskExecWaitRequest, TaskExecWaitResponse,
        task_exec_stdin_write_stream_request::Payload, task_exec_wait_response::ExitStatus,
    };
    use std::cell::RefCell;

    /// Places where a response ends early: after a number of bytes, with or without a status.
    fn breaks() -> impl Strategy<Value = Vec<(usize, bool)>> {
        vec((0_usize..400, any::<bool>()), 0..5)
    }

    proptest! {
        #![proptest_config(cases(400))]

        #[test]
        fn output(
            data in vec(any::<u8>(), 0..2000),
            piece in 1_usize..300,
            max in 1_u32..700,
            mut breaks in breaks(),
        ) {
            let script = modal();
            let all = data.clone();
            script.answers_by("TaskExecStdioRead", move |body| {
                let read = TaskExecStdioReadRequest::decode(body).expect("a request");
                let rest = if read.file_descriptor == 0 { &all[read.offset as usize..] } else { &[] };
                let cut = if read.file_descriptor == 0 { breaks.pop() } else { None };
                let sent = cut.map_or(rest.len(), |(after, _)| after.min(rest.len()));
                let pieces = rest[..sent].chunks(piece).map(|piece| {
                    TaskExecStdioReadResponse { data: Bytes::copy_from_slice(piece) }.encode_to_vec()
                });
                match cut {
                    Some((_, true)) => Answer::Cut(pieces.collect()),
                    Some((_, false)) => Answer::Stream(pieces.collect(), 14),
                    None => Answer::Stream(pieces.collect(), 0),
                }
            });
            script.serves("TaskExecWait", |_: TaskExecWaitRequest| {
                TaskExecWaitResponse { exit_status: Some(ExitStatus::Code(3)) }
            });
            let provider = script.provider();
            let mut found = Vec::new();
            loop {
                let request = ReadRequest { stdout_offset: found.len() as u64, stderr_offset: 0, max_bytes: max, wait: 60_000 };
                let output = run(provider.read_output(ExecRef { deadline: None, container: None, ..exec(SANDBOX) }, request));
                let output = output.expect("output");
                prop_assert!(output.stdout.data.len() + output.stderr.data.len() <= max as usize);
                prop_assert_eq!(output.stdout.offset, found.len() as u64);
                found.extend(output.stdout.data);
                if output.verdict.is_some() {
                    break;
                }
            }
            prop_assert!(found == data, "{} bytes instead of {}", found.len(), data.len());
        }

        /// The opposite direction: a router accepts a part of a write and then fails, or accepts all of it and does not
        /// respond.
        #[test]
        fn input(
            data in vec(any::<u8>(), 0..2000),
            piece in 1_usize..300,
            mut breaks in breaks(),
        ) {
            let script = modal();
            let taken: Rc<RefCell<(Vec<u8>, bool)>> = Rc::default();
            let (written, state) = (taken.clone(), taken.clone());
            script.answers_by("TaskExecStdinWrite", move |body| {
                let write = TaskExecStdinWriteRequest::decode(body).expect("a request");
                let (all, closed) = &mut *written.borrow_mut();
                let fits = (write.offset as usize) <= all.len();
                assert!(fits, "bytes {} were offered, and there are {}", write.offset, all.len());
                let known = all.len() - write.offset as usize;
                let new = write.data.get(known..).unwrap_or_default();
                let cut = breaks.pop();
                let sent = cut.map_or(new.len(), |(after, _)| after.min(new.len()));
                all.extend(&new[..sent]);
                if sent < new.len() || matches!(cut, Some((_, true))) {
                    return Answer::Status(14, Vec::new());
                }
                *closed |= write.eof;
                crate::script::ok(&TaskExecStdinWriteResponse {})
            });
            script.serves("TaskExecStdinStatus", move |_: TaskExecStdinStatusRequest| {
                TaskExecStdinStatusResponse { num_bytes_written: state.borrow().0.len() as u64, closed: state.borrow().1 }
            });
            let provider = script.provider();
            let mut offset = 0;
            loop {
                let rest = &data[offset..];
                let part = rest[..rest.len().min(piece)].to_vec();
                let eof = part.len() == rest.len();
                let state = run(provider.write_input(exec(SANDBOX), offset as u64, part, eof)).expect("it is taken");
                offset = state.accepted as usize;
                if state.closed {
                    break;
                }
            }
            prop_assert!(taken.borrow().0 == data);
            prop_assert!(taken.borrow().1);
        }
    }

    /// An input stream breaks after the server accepted `taken` bytes. A single message continues at that offset.
    fn broken_stream(taken: usize, eof: bool, answer: Answer) {
        let data: Vec<u8> = (0_u32..).flat_map(u32::to_le_bytes).take(2_500_000).collect();
        let script = modal();
        // The provider checks the file of a slow transfer. That check fails here.
        script.answers_by("TaskExecStdioRead", |_| Answer::Stream(Vec::new(), 0));
        script.serves("TaskExecStart", |_: TaskExecStartRequest| TaskExecStartResponse::default());
        script.will("TaskExecStdinWriteStream", answer);
        script.serves("TaskExecStdinStatus", move |_: TaskExecStdinStatusRequest| TaskExecStdinStatusResponse {
            num_bytes_written: taken as u64,
            closed: false,
        });
        script.serves("TaskExecStdinWrite", |_: TaskExecStdinWriteRequest| TaskExecStdinWriteResponse {});
        script.serves("TaskExecWait", |_: TaskExecWaitRequest| TaskExecWaitResponse {
            exit_status: Some(ExitStatus::Code(0)),
        });
        let provider = script.provider();
        let written = run(provider.write_file(&at(SANDBOX), "t1", &mode(WriteMode::Replace), 0, data.clone(), eof));
        let until = data.len().min(taken + (1 << 20));
        assert_eq!(written.expect("it is written"), until as u64, "{taken}");

        let [stream] = &script.calls("TaskExecStdinWriteStream")[..] else { panic!("one stream") };
        let read = |message: &Bytes| TaskExecStdinWriteStreamRequest::decode(message.clone()).expect("one").payload;
        let Some(Payload::Start(start)) = read(&stream.body) else { panic!("it begins with its start") };
        assert_eq!((start.task_id.as_str(), start.offset), ("ta-1", 0));
        let (mut sent, mut ended) = (Vec::new(), false);
        for message in &stream.more {
            match read(message) {
                Some(Payload::Data(data)) if !ended => sent.extend(data),
                Some(Payload::End(_)) if !ended => ended = true,
                other => panic!("{other:?}"),
            }
        }
        assert!(sent == data && ended == eof, "{} bytes, {ended}", sent.len());

        let after = script.calls("TaskExecStdinWrite");
        if taken == data.len() && !eof {
            return assert!(after.is_empty());
        }
        let [after] = &after[..] else { panic!("one message behind it") };
        let after = TaskExecStdinWriteRequest::decode(after.body.clone()).expect("one");
        assert_eq!((after.offset as usize, after.eof), (taken, eof && until == data.len()));
        assert!(after.data == data[taken..until], "{taken}");
    }

    #[test]
    fn input_goes_on_where_its_stream_broke() {
        for eof in [false, true] {
            for taken in [0, 1, 1 << 20, 1_500_000, 2_500_000] {
                broken_stream(taken, eof, Answer::Status(14, Vec::new()));
                broken_stream(taken, eof, Answer::Cut(Vec::new()));
            }
            broken_stream(7, eof, Answer::Refused);
            // The stream hangs and is given up.
            broken_stream(7, eof, Answer::Hang(Vec::new()));
            // The status for an offset that does not match.
            broken_stream(7, eof, Answer::Status(9, Vec::new()));
        }
    }
}

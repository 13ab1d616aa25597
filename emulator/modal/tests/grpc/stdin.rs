//! Standard input: repeated writes, gaps, ends, and streams that are interrupted and resumed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use modal_proto::task_command_router as tcr;
use tcr::task_exec_stdin_write_stream_request::Payload;
use tonic::Code;

use super::client::{LIMIT, Running, World, code};

fn messages(
    sandbox: &Running,
    exec_id: &str,
    offset: u64,
    data: &[&[u8]],
    end: bool,
) -> Vec<tcr::TaskExecStdinWriteStreamRequest> {
    let start =
        tcr::TaskExecStdinWriteStreamStart { task_id: sandbox.task_id.clone(), exec_id: exec_id.to_owned(), offset };
    let mut payloads = vec![Payload::Start(start)];
    payloads.extend(data.iter().map(|data| Payload::Data(Bytes::copy_from_slice(data))));
    if end {
        payloads.push(Payload::End(tcr::TaskExecStdinWriteStreamEnd {}));
    }
    payloads.into_iter().map(|payload| tcr::TaskExecStdinWriteStreamRequest { payload: Some(payload) }).collect()
}

#[tokio::test]
async fn retries_are_not_doubled_and_gaps_are_refused() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("cat", "cat").await;
    sandbox.write("cat", 0, b"abc", false).await.unwrap();
    sandbox.write("cat", 0, b"abc", false).await.unwrap();
    sandbox.write("cat", 1, b"bcde", false).await.unwrap();
    assert_eq!(code(sandbox.write("cat", 6, b"x", false).await), Code::FailedPrecondition);
    assert_eq!(sandbox.stdin_status("cat").await, (5, false));
    // An end at offset 0, as one official client sends it, and then a repeated end.
    sandbox.write("cat", 0, b"", true).await.unwrap();
    sandbox.write("cat", 5, b"", true).await.unwrap();
    assert_eq!(sandbox.read("cat", 0, 0).await.unwrap().0, b"abcde");
    assert_eq!(sandbox.wait("cat").await.unwrap(), 0);
    assert_eq!(code(sandbox.write("cat", 5, b"late", false).await), Code::FailedPrecondition);
    sandbox.write("cat", 0, b"ab", false).await.unwrap();
    assert_eq!(sandbox.stdin_status("cat").await, (5, true));
}

#[tokio::test]
async fn a_stream_is_cut_and_resumed() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("cat", "cat").await;
    let first = messages(&sandbox, "cat", 0, &[b"one ", b"two "], false);
    sandbox.router.task_exec_stdin_write_stream(futures_util::stream::iter(first)).await.unwrap();
    assert_eq!(sandbox.stdin_status("cat").await, (8, false));
    let wrong = messages(&sandbox, "cat", 4, &[b"x"], true);
    let refused = sandbox.router.task_exec_stdin_write_stream(futures_util::stream::iter(wrong)).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    let rest = messages(&sandbox, "cat", 8, &[b"three"], true);
    sandbox.router.task_exec_stdin_write_stream(futures_util::stream::iter(rest)).await.unwrap();
    assert_eq!(sandbox.stdin_status("cat").await, (13, true));
    assert_eq!(sandbox.read("cat", 0, 0).await.unwrap().0, b"one two three");
}

#[tokio::test]
async fn a_status_call_puts_the_stream_in_flight_out() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    // The process does not read, so the pipe fills up and the stream blocks.
    sandbox.start("deaf", "exec sleep 50").await;
    let data = vec![b'x'; 1 << 20];
    let stuck = messages(&sandbox, "deaf", 0, &[&data], true);
    let mut router = sandbox.router.clone();
    let writing =
        tokio::spawn(async move { router.task_exec_stdin_write_stream(futures_util::stream::iter(stuck)).await });
    let accepted = async {
        loop {
            let (accepted, _) = sandbox.stdin_status("deaf").await;
            if accepted > 0 {
                return accepted;
            }
            if writing.is_finished() {
                return accepted;
            }
        }
    };
    tokio::time::timeout(LIMIT, accepted).await.unwrap();
    assert!(sandbox.stdin_status("deaf").await.0 < data.len() as u64);
    let ended = tokio::time::timeout(LIMIT, writing).await.unwrap().unwrap();
    assert_eq!(code(ended), Code::Aborted);
}

#[tokio::test]
async fn a_writer_is_held_up_by_a_command_that_does_not_read() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("deaf", "exec sleep 50").await;
    let mut other = Running { id: String::new(), task_id: sandbox.task_id.clone(), router: sandbox.router.clone() };
    let writing = tokio::spawn(async move { other.write("deaf", 0, &vec![b'x'; 4 << 20], false).await });
    tokio::pin!(writing);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut writing).await.is_err());
    // The exit of the process releases the writer.
    sandbox.start("kill", "pkill -9 sleep || kill -9 $(ps -e -o pid=,comm= | grep sleep | cut -c1-8)").await;
    let ended = tokio::time::timeout(LIMIT, writing).await.unwrap().unwrap();
    assert_eq!(code(ended), Code::FailedPrecondition);
}

#[tokio::test]
async fn input_that_nobody_closed_ends_with_its_command() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    // A background process still has the input, and waits for its end.
    sandbox.start("short", "exec 3<&0; (cat <&3; echo over) > /tmp/seen & exit 0").await;
    assert_eq!(sandbox.wait("short").await.unwrap(), 0);
    sandbox.start("look", "until grep -q over /tmp/seen; do sleep 0.02; done").await;
    assert_eq!(tokio::time::timeout(LIMIT, sandbox.wait("look")).await.unwrap().unwrap(), 0);
    let late = sandbox.write("short", 0, b"late", false).await.unwrap_err();
    assert_eq!((late.code(), late.message()), (Code::FailedPrecondition, "the process has ended"));
    assert_eq!(sandbox.stdin_status("short").await, (0, false));
    sandbox.write("short", 0, b"", true).await.unwrap();
    assert_eq!(sandbox.stdin_status("short").await, (0, true));
}

#[tokio::test]
async fn a_stream_must_begin_with_start_and_name_its_task() {
    let mut world = World::start().await;
    let (sandbox, other) = (world.sandbox().await, world.sandbox().await);
    let mut router = sandbox.router.clone();
    let headless = messages(&sandbox, "x", 0, &[b"data"], true).split_off(1);
    let refused = router.task_exec_stdin_write_stream(futures_util::stream::iter(headless)).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let empty = futures_util::stream::empty().boxed();
    assert_eq!(code(router.task_exec_stdin_write_stream(empty).await), Code::InvalidArgument);
    let foreign = messages(&other, "x", 0, &[], true);
    let refused = router.task_exec_stdin_write_stream(futures_util::stream::iter(foreign)).await;
    assert_eq!(code(refused), Code::Unauthenticated);
}

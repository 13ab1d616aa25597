//! Commands and files: streams, their ends, and cancellation.

use std::time::{Duration, Instant};

use crate::common::{Server, builder, provider};
use sandbox_host::types::{ExecSpec, OutputLimits, Verdict, WriteOptions};
use sandbox_host::{FileFault, Kind, Limits, Process, ProcessOutput, Sandbox, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> (Server, Sandbox) {
    let server = Server::echo().await;
    let sandbox = provider(&server.url).await.sandbox("sb-1");
    (server, sandbox)
}

fn command(id: &str) -> ExecSpec {
    ExecSpec { id: id.to_owned(), ..ExecSpec::new(["program"]) }
}

/// Returns the bytes that the puppet prints.
fn pattern(size: u64, seed: u64) -> Vec<u8> {
    (0..size).map(|at| (at.wrapping_mul(31).wrapping_add(at >> 8) + seed) as u8).collect()
}

async fn read(stream: Option<sandbox_host::OutputStream>) -> Vec<u8> {
    let mut data = Vec::new();
    stream.unwrap().read_to_end(&mut data).await.unwrap();
    data
}

#[tokio::test]
async fn both_streams_and_the_verdict_arrive() {
    let (_server, sandbox) = start().await;
    let process = sandbox.spawn(command("out-100000_err-70000_exit-3")).await.unwrap();
    let ProcessOutput { verdict, stdout, stderr } = process.wait_with_output().await.unwrap();
    assert_eq!(verdict, Verdict::Exited(3));
    assert!(stdout == pattern(100_000, 0) && stderr == pattern(70_000, 7));
}

#[tokio::test]
async fn one_stream_can_be_read_to_its_end_before_the_other() {
    let (_server, sandbox) = start().await;
    for first_is_stdout in [true, false] {
        let mut process = sandbox.spawn(command("out-9000000_err-9000000_exit-0")).await.unwrap();
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        // Far more than the buffer of the stream that is read second.
        let (stdout, stderr) = if first_is_stdout {
            let stdout = read(stdout).await;
            (stdout, read(stderr).await)
        } else {
            let stderr = read(stderr).await;
            (read(stdout).await, stderr)
        };
        assert!(stdout == pattern(9_000_000, 0) && stderr == pattern(9_000_000, 7));
        assert_eq!(process.wait().await.unwrap(), Verdict::Exited(0));
    }
}

#[tokio::test]
async fn a_stream_nobody_wants_does_not_hold_up_the_other() {
    let (_server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("out-5000000_err-5000000_signal-9")).await.unwrap();
    drop(process.stderr.take());
    assert!(read(process.stdout.take()).await == pattern(5_000_000, 0));
    assert_eq!(process.wait().await.unwrap(), Verdict::Signaled(9));
}

#[tokio::test]
async fn waiting_needs_no_reader() {
    let (_server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("out-50_exit-4")).await.unwrap();
    assert_eq!(process.wait().await.unwrap(), Verdict::Exited(4));
    assert_eq!(read(process.stdout.take()).await, pattern(50, 0));
}

/// The plugin ignores the time limit and never reports an end.
#[tokio::test]
async fn a_command_that_outlives_its_limit_is_killed_and_given_up() {
    let server = Server::echo().await;
    let mut limits = Limits::default();
    limits.overdue_time = Duration::from_millis(300);
    let sandbox = builder(&server.url).await.limits(limits).build().await.unwrap().sandbox("sb-1");
    let limit = Duration::from_millis(200);
    let soon = Duration::from_secs(50);
    for path in ["wait", "read", "both"] {
        let id = format!("endless-{path}");
        let begun = Instant::now();
        let mut process = sandbox.spawn(command(&id).timeout(limit)).await.unwrap();
        let verdict = async {
            match path {
                "wait" => process.wait().await.unwrap(),
                "read" => {
                    let mut stdout = process.stdout.take().unwrap();
                    assert_eq!(stdout.read(&mut [0; 10]).await.unwrap(), 0, "the stream ends");
                    process.verdict().expect("it is known by then")
                }
                _ => process.wait_with_output().await.unwrap().verdict,
            }
        };
        // Shorter than the longest wait of one call, so the limit has to bound that wait too.
        let verdict = tokio::time::timeout(soon, verdict).await.unwrap_or_else(|_| panic!("{path}: it never ends"));
        assert_eq!(verdict, Verdict::Deadline, "{path}");
        assert!(begun.elapsed() >= limit + Duration::from_millis(300), "{path}: the plugin was not waited for");
        server.wait_for(|seen| seen == format!("/report/signal/{id}/9")).await;
    }
}

#[tokio::test]
async fn dropping_a_process_kills_it() {
    let (server, sandbox) = start().await;
    let process = sandbox.spawn(command("hang-1")).await.unwrap();
    drop(process);
    server.wait_for(|path| path == "/report/signal/hang-1/9").await;
}

#[tokio::test]
async fn a_detached_process_and_one_that_has_ended_are_left_alone() {
    let (server, sandbox) = start().await;
    let id = sandbox.spawn(command("hang-2")).await.unwrap().detach();
    assert_eq!(id, "hang-2");
    let mut ended: Process = sandbox.spawn(command("exit-0")).await.unwrap();
    ended.wait().await.unwrap();
    drop(ended);
    drop(sandbox.attach("hang-2"));
    // An explicit signal arrives after all signals that dropped handles have caused.
    sandbox.signal("marker", Signal::TERM).await.unwrap();
    server.wait_for(|path| path == "/report/signal/marker/15").await;
    let signals: Vec<_> =
        server.seen().into_iter().filter(|seen| seen.uri.path().starts_with("/report/signal")).collect();
    assert_eq!(signals.len(), 1, "{signals:?}");
}

#[tokio::test]
async fn what_was_written_to_a_detached_process_is_sent_and_no_end() {
    let (server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("tells_hang-4")).await.unwrap();
    process.stdin.as_mut().unwrap().write_all(&[b'x'; 900]).await.unwrap();
    process.detach();
    server.wait_for(|path| path == "/report/input/900/false").await;
    // The writing task has ended afterwards, so no further input follows. A running task would hold an instance and a
    // reference.
    let mut other = sandbox.spawn(command("tells_out-1")).await.unwrap();
    drop(other.stdin.take());
    server.wait_for(|path| path == "/report/input/0/true").await;
    let told: Vec<_> =
        server.seen().iter().map(|seen| seen.uri.path().to_owned()).filter(|path| path.contains("input")).collect();
    assert_eq!(told, ["/report/input/900/false", "/report/input/0/true"]);
}

#[tokio::test]
async fn what_is_cut_by_a_shutdown_is_killed() {
    let (server, sandbox) = start().await;
    // Dropped just before, so that the runtime has had no time to send the signal.
    drop(sandbox.spawn(command("hang-5")).await.unwrap());
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.run(command("hang-6")).await })
    };
    let made = sandbox.provider().metrics().instances_made;
    while sandbox.provider().metrics().instances_made == made && sandbox.provider().metrics().instances_warm > 0 {
        tokio::task::yield_now().await;
    }
    // The run, and up to two calls that read the streams of the first commands.
    assert!((1..=3).contains(&sandbox.provider().shutdown(std::time::Duration::ZERO).await));
    assert_eq!(running.await.unwrap().unwrap_err().kind(), &Kind::Conflict);
    sandbox.provider().signals_sent(std::time::Duration::ZERO).await.unwrap();
    for id in ["hang-5", "hang-6"] {
        let path = format!("/report/signal/{id}/9");
        assert!(server.seen().iter().any(|seen| seen.uri.path() == path), "{id}");
    }
    // Afterwards all calls fail, including signals.
    let late = sandbox.attach("hang-5");
    assert_eq!(late.signal(Signal::KILL).await.unwrap_err().kind(), &Kind::Conflict);
}

#[tokio::test]
async fn who_is_not_signalled_yet_is_named() {
    let server = Server::start(None, |_| Box::pin(std::future::pending())).await;
    let sandbox = provider(&server.url).await.sandbox("sb-1");
    let soon = std::time::Duration::ZERO;
    sandbox.provider().signals_sent(soon).await.unwrap();
    for n in 0..5 {
        drop(sandbox.spawn(command(&format!("hang-{n}"))).await.unwrap());
    }
    let error = sandbox.provider().signals_sent(soon).await.unwrap_err();
    assert_eq!(error.kind(), &Kind::TimedOut);
    let named = "cannot signal hang-0 in sb-1, hang-1 in sb-1, hang-2 in sb-1 and 2 more: the provider did not respond";
    assert_eq!(error.to_string(), named);
}

#[tokio::test]
async fn cancelling_a_run_kills_its_command() {
    let (server, sandbox) = start().await;
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.run(command("hang-3")).await })
    };
    // The call is in progress after the instance was created.
    while sandbox.provider().metrics().instances_made == 0 {
        tokio::task::yield_now().await;
    }
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    server.wait_for(|path| path == "/report/signal/hang-3/9").await;
}

#[tokio::test]
async fn run_gives_what_it_got() {
    let (_server, sandbox) = start().await;
    let result = sandbox.run_with(command("exit-7"), b"input".to_vec(), OutputLimits::default()).await.unwrap();
    assert_eq!((result.verdict, result.stdout.data), (Verdict::Exited(7), b"input".to_vec()));
    let error = sandbox.run(ExecSpec::new(Vec::<String>::new())).await.unwrap_err();
    assert!(error.kind() == &Kind::InvalidArgument && error.to_string().contains("empty"), "{error}");
}

#[tokio::test]
async fn input_arrives_whole_although_parts_are_taken() {
    let (server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("out-1")).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(&vec![b'x'; 3_500_000]).await.unwrap();
    stdin.write_all(b"end").await.unwrap();
    stdin.shutdown().await.unwrap();
    server.wait_for(|path| path == "/report/stdin/3500003").await;
}

#[tokio::test]
async fn dropping_the_input_closes_it() {
    let (server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("out-2")).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(b"abc").await.unwrap();
    drop(stdin);
    server.wait_for(|path| path == "/report/stdin/3").await;
}

#[tokio::test]
async fn a_program_that_takes_no_more_breaks_the_pipe() {
    let (_server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("takes-100000")).await.unwrap();
    let mut stdin = process.stdin.take().unwrap();
    let error = loop {
        if let Err(error) = stdin.write_all(&[b'x'; 50_000]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_plugin_that_returns_more_than_asked_for_is_refused() {
    let (_server, sandbox) = start().await;
    let mut process = sandbox.spawn(command("out-50000000_err-50000000_excess-10")).await.unwrap();
    let mut data = Vec::new();
    let error = process.stdout.take().unwrap().read_to_end(&mut data).await.unwrap_err();
    let error = error.downcast::<sandbox_host::Error>().unwrap();
    assert!(error.to_string().contains("more bytes than requested"), "{error}");
}

#[tokio::test]
async fn files_of_any_size_pass_in_both_directions() {
    const PIECE: u64 = 4 << 20;
    let (server, sandbox) = start().await;
    for size in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
        let mut data = Vec::new();
        assert_eq!(sandbox.download(&format!("/size/{size}"), &mut data).await.unwrap(), size);
        assert!(data == pattern(size, 0), "{size}");
        assert_eq!(sandbox.upload("/new", &data[..], WriteOptions::default()).await.unwrap(), size);
        server.wait_for(|path| path == format!("/report/file/{size}")).await;
    }
}

#[tokio::test]
async fn file_errors_keep_their_meaning() {
    let (_server, sandbox) = start().await;
    let error = sandbox.read_file("/nothing", 100).await.unwrap_err();
    assert!(error.is_not_found() && error.file_fault() == Some(&FileFault::NotFound), "{error}");
    let error = sandbox.read_file("/size/101", 100).await.unwrap_err();
    assert_eq!(error.file_fault(), Some(&FileFault::TooLarge), "{error}");
    assert_eq!(sandbox.read_file("/size/100", 100).await.unwrap().len(), 100);
    let error = sandbox.write_file("/denied/x", b"data", WriteOptions::default()).await.unwrap_err();
    assert_eq!(error.file_fault(), Some(&FileFault::PermissionDenied), "{error}");
    assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_commands_at_once() {
    let (_server, sandbox) = start().await;
    let runs = (0..200).map(|n| {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.run(command(&format!("exit-{}", n % 50))).await.unwrap().verdict })
    });
    for (n, verdict) in futures_util::future::join_all(runs).await.into_iter().enumerate() {
        assert_eq!(verdict.unwrap(), Verdict::Exited((n % 50) as i32));
    }
    let metrics = sandbox.provider().metrics();
    assert_eq!(metrics.calls, 200);
    assert!(metrics.instances_warm <= 64, "{metrics:?}");
}

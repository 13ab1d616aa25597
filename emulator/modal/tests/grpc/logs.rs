//! Stored output, served as logs.

use std::time::Duration;

use modal_proto::client::{self as proto, FileDescriptor};
use modal_proto::prost_types::Timestamp;

use super::client::{Running, World};

/// Runs a script as the command of a sandbox, and returns the sandbox after it has ended.
async fn ended(world: &mut World, script: &str) -> Running {
    let mut definition = world.definition();
    definition.entrypoint_args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let sandbox = world.sandbox_with(definition).await;
    world.wait(&sandbox.id).await.expect("it ends");
    sandbox
}

/// Returns the entries of a sandbox's log that match a request.
async fn fetch(world: &mut World, sandbox: &Running, request: proto::AppFetchLogsRequest) -> Vec<proto::TaskLogs> {
    let request = proto::AppFetchLogsRequest {
        app_id: world.app_id.clone(),
        sandbox_id: sandbox.id.clone(),
        source: if request.source == 0 { FileDescriptor::Stdout as i32 } else { request.source },
        ..request
    };
    let mut control = world.control.clone().max_decoding_message_size(modal_proto::MAX_MESSAGE_BYTES);
    let answer = control.app_fetch_logs(request).await.unwrap().into_inner();
    answer.batches.into_iter().flat_map(|batch| batch.items).collect()
}

fn text(entries: &[proto::TaskLogs]) -> String {
    entries.iter().map(|entry| entry.data.as_str()).collect()
}

fn timestamp(nanos: u64) -> Option<Timestamp> {
    Some(Timestamp { seconds: (nanos / 1_000_000_000) as i64, nanos: (nanos % 1_000_000_000) as i32 })
}

#[tokio::test]
async fn what_is_written_at_once_comes_back_whole() {
    let mut world = World::start().await;
    let sandbox = ended(&mut world, "seq 5000").await;
    let asked = proto::AppFetchLogsRequest { limit: 2000, ..Default::default() };
    let entries = fetch(&mut world, &sandbox, asked.clone()).await;
    assert_eq!(text(&entries), (1..=5000).map(|n| format!("{n}\n")).collect::<String>());
    assert!(entries.len() < 100 && entries.iter().all(|entry| entry.data.len() <= 64 << 10), "{}", entries.len());
    // Only the lines that contain the text.
    let searched = fetch(&mut world, &sandbox, proto::AppFetchLogsRequest { search_text: "99".into(), ..asked }).await;
    let fitting = (1..=5000).map(|n| format!("{n}\n")).filter(|line| line.contains("99"));
    assert_eq!(text(&searched), fitting.collect::<String>());
    // Lines are counted, not entries.
    let request =
        proto::AppCountLogsRequest { app_id: world.app_id.clone(), sandbox_id: sandbox.id, ..Default::default() };
    let buckets = world.control.app_count_logs(request).await.unwrap().into_inner().buckets;
    assert_eq!(buckets.iter().map(|bucket| bucket.stdout_logs).sum::<u64>(), 5000);
}

/// The SDKs' own tests expect these entries.
#[tokio::test]
async fn a_few_lines_are_entries_of_their_own() {
    let mut world = World::start().await;
    for script in ["echo one; echo two >&2; echo three", "printf 'one\\nthree\\n'"] {
        let sandbox = ended(&mut world, script).await;
        let entries = fetch(&mut world, &sandbox, proto::AppFetchLogsRequest::default()).await;
        let texts: Vec<_> = entries.iter().map(|entry| entry.data.as_str()).collect();
        assert_eq!(texts, ["one\n", "three\n"], "{script}");
    }
}

/// A client that follows output may know only the task or the sandbox, and not the app.
#[tokio::test]
async fn output_is_followed_by_the_task_or_the_sandbox_alone() {
    let mut world = World::start().await;
    let sandbox = ended(&mut world, "echo mine").await;
    ended(&mut world, "echo another").await;
    for (task_id, sandbox_id) in [(sandbox.task_id.clone(), String::new()), (String::new(), sandbox.id.clone())] {
        let request = proto::AppGetLogsRequest { task_id, sandbox_id, timeout: 20.0, ..Default::default() };
        let mut stream = world.control.app_get_logs(request.clone()).await.expect("a stream").into_inner();
        let mut followed = String::new();
        while let Some(batch) = stream.message().await.unwrap() {
            followed += &text(&batch.items);
        }
        assert_eq!(followed, "mine\n", "{request:?}");
    }
}

/// Two adjacent spans of time together contain the whole log, with each line in the span in which it begins.
#[tokio::test]
async fn spans_of_time_divide_a_log() {
    let mut world = World::start().await;
    let script = "for n in 1 2 3 4 5; do printf \"$n begins, \"; sleep 0.02; printf \"ends\\n$n more\\n\"; sleep 0.02; done; printf rest";
    let sandbox = ended(&mut world, script).await;
    let all = fetch(&mut world, &sandbox, proto::AppFetchLogsRequest::default()).await;
    let expected: String = (1..=5).map(|n| format!("{n} begins, ends\n{n} more\n")).collect();
    assert_eq!(text(&all), expected + "rest");
    let near = Duration::from_micros(100).as_nanos() as u64;
    // Lines of the same write have the same time.
    let mut times: Vec<_> = all.iter().map(|entry| entry.timestamp_ns).collect();
    assert!(times.is_sorted(), "{times:?}");
    times.dedup();
    assert!(times.len() > 1, "{times:?}");
    for time in times {
        let (since, until) = (time - near, time + near);
        for (from, to) in [(None, Some(since)), (Some(since), None), (Some(since), Some(until))] {
            let request = proto::AppFetchLogsRequest {
                since: from.and_then(timestamp),
                until: to.and_then(timestamp),
                ..Default::default()
            };
            let span = from.unwrap_or(0)..to.unwrap_or(u64::MAX);
            let fits = all.iter().filter(|entry| span.contains(&entry.timestamp_ns)).map(|entry| entry.data.as_str());
            assert_eq!(text(&fetch(&mut world, &sandbox, request).await), fits.collect::<String>(), "{span:?}");
        }
    }
}

/// The output is longer than the pieces in which it is read, and output beyond the stored size is missing.
#[tokio::test]
async fn the_newest_of_a_long_log_is_kept() {
    let mut world = World::start().await;
    let sandbox = ended(&mut world, "seq -f %015.0f 1 1200000").await;
    let entries = fetch(&mut world, &sandbox, proto::AppFetchLogsRequest::default()).await;
    let kept = (16 << 20) / 16;
    let text = text(&entries);
    assert_eq!(text.len(), 16 << 20);
    assert!(text.lines().zip(1_200_001 - kept..).all(|(line, number)| line.parse() == Ok(number)));
}

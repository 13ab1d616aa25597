//! Load tests. Figures are printed (`--nocapture`); the tests assert that no call fails and no data is lost.

use std::time::Instant;

use futures_util::StreamExt as _;
use modal_emulator::Options;

use super::client::{Running, World};
use crate::own_process::in_own_process_async;

fn handle(sandbox: &Running) -> Running {
    Running { id: sandbox.id.clone(), task_id: sandbox.task_id.clone(), router: sandbox.router.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_commands_at_once() {
    let mut world = World::with(Options { max_streams: 4000, ..Options::default() }).await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("warm", "true").await;
    sandbox.wait("warm").await.unwrap();
    let mut alone = Vec::new();
    for number in 0..50 {
        let began = Instant::now();
        let id = format!("alone-{number}");
        sandbox.start(&id, "exit 0").await;
        sandbox.wait(&id).await.unwrap();
        alone.push(began.elapsed());
    }
    alone.sort();
    let began = Instant::now();
    let all = futures_util::stream::iter(0..1000).map(|number| {
        let mut sandbox = handle(&sandbox);
        async move {
            let id = format!("n-{number}");
            sandbox.start(&id, &format!("sleep 1; echo {number}; exit {}", number % 256)).await;
            let code = sandbox.wait(&id).await.unwrap();
            let (output, _) = sandbox.read(&id, 0, 0).await.unwrap();
            assert_eq!((code, output), (number % 256, format!("{number}\n").into_bytes()));
        }
    });
    all.buffer_unordered(1000).collect::<Vec<()>>().await;
    println!("one command alone: median {:?}; 1000 at once, 1 s each: {:?}", alone[25], began.elapsed());
    world.emulator.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_sandboxes_alive() {
    let mut world = World::with(Options { max_streams: 4000, ..Options::default() }).await;
    let mut live = Vec::new();
    let mut first_exec = Vec::new();
    let began = Instant::now();
    for number in 0..300 {
        let began = Instant::now();
        let mut sandbox = world.sandbox().await;
        sandbox.start("first", &format!("echo {number} > /tmp/me; cat /tmp/me")).await;
        let (output, _) = sandbox.read("first", 0, 0).await.unwrap();
        assert_eq!(output, format!("{number}\n").into_bytes());
        first_exec.push(began.elapsed());
        live.push(sandbox);
    }
    let made = began.elapsed();
    first_exec.sort();
    for (number, sandbox) in live.iter_mut().enumerate() {
        sandbox.start("again", "cat /tmp/me").await;
        assert_eq!(sandbox.read("again", 0, 0).await.unwrap().0, format!("{number}\n").into_bytes());
    }
    let began = Instant::now();
    world.emulator.shutdown().await;
    println!(
        "300 sandboxes in {made:?}; create to end of the first command: median {:?}, worst {:?}; all ended in {:?}",
        first_exec[150],
        first_exec[299],
        began.elapsed()
    );
}

#[test]
fn a_gigabyte_of_output() {
    // In a process of its own, because the test measures the memory of its process.
    in_own_process_async(gigabyte_of_output());
}

async fn gigabyte_of_output() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    let before = resident();
    let began = Instant::now();
    sandbox.start("big", "head -c 1073741824 /dev/zero").await;
    let request = modal_proto::task_command_router::TaskExecStdioReadRequest {
        task_id: sandbox.task_id.clone(),
        exec_id: "big".into(),
        ..Default::default()
    };
    let mut stream = sandbox.router.task_exec_stdio_read(request).await.unwrap().into_inner();
    let (mut received, mut most) = (0u64, before);
    while let Some(piece) = stream.message().await.unwrap() {
        received += piece.data.len() as u64;
        if received.is_multiple_of(1 << 25) {
            most = most.max(resident());
        }
    }
    assert_eq!(received, 1 << 30);
    let grown = most.saturating_sub(before);
    println!("1 GiB of output in {:?}; memory grew by {grown} MiB, client included", began.elapsed());
    assert!(grown < 128, "{grown} MiB");
    world.emulator.shutdown().await;
}

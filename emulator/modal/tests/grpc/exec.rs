//! Commands: repeated starts, output by offset, exits.

use modal_proto::task_command_router as tcr;
use modal_proto::task_command_router::task_command_router_client::TaskCommandRouterClient;
use tonic::Code;

use super::client::{World, code};

#[tokio::test]
async fn output_from_any_offset_at_any_time() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("big", "seq 1 200000; echo end >&2").await;
    let (all, sizes) = sandbox.read("big", 0, 0).await.unwrap();
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(all, expected.as_bytes());
    assert!(sizes.iter().all(|size| (1..=256 * 1024).contains(size)), "{sizes:?}");
    assert_eq!(sandbox.wait("big").await.unwrap(), 0);
    for offset in [0, 1, 262_144, all.len() - 1, all.len()] {
        let (rest, sizes) = sandbox.read("big", 0, offset as u64).await.unwrap();
        assert_eq!(rest, &all[offset..]);
        assert!(!sizes.contains(&0));
    }
    assert_eq!(sandbox.read("big", 1, 0).await.unwrap().0, b"end\n");
    assert_eq!(code(sandbox.read("big", 0, all.len() as u64 + 1).await), Code::OutOfRange);
    assert_eq!(code(sandbox.read("big", 7, 0).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_repeated_start_starts_nothing() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    let request = sandbox.start_request("once", "echo x >> /tmp/started; wc -l < /tmp/started");
    let (mut first, mut second) = (sandbox.router.clone(), sandbox.router.clone());
    let (one, two) = tokio::join!(first.task_exec_start(request.clone()), second.task_exec_start(request.clone()));
    one.unwrap();
    two.unwrap();
    assert_eq!(sandbox.wait("once").await.unwrap(), 0);
    sandbox.router.task_exec_start(request).await.unwrap();
    assert_eq!(sandbox.read("once", 0, 0).await.unwrap().0, b"1\n");
}

#[tokio::test]
async fn a_client_that_hangs_up_has_started_its_command() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    let request = sandbox.start_request("gone", "echo here");
    // The call is dropped as early as possible: the request is sent, but there is no response yet.
    let mut router = sandbox.router.clone();
    let _ = tokio::time::timeout(std::time::Duration::ZERO, router.task_exec_start(request.clone())).await;
    sandbox.router.task_exec_start(request).await.unwrap();
    assert_eq!(sandbox.read("gone", 0, 0).await.unwrap().0, b"here\n");
}

#[tokio::test]
async fn a_time_limit_kills_the_whole_group() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    let mut request = sandbox.start_request("slow", "sleep 50 & echo $!; sleep 50");
    // The limit counts from the request on, and the sandbox may still be starting.
    request.timeout_secs = Some(10);
    sandbox.router.task_exec_start(request).await.unwrap();
    assert_eq!(sandbox.wait("slow").await.unwrap(), -9);
    let (child, _) = sandbox.read("slow", 0, 0).await.unwrap();
    let child = String::from_utf8(child).unwrap();
    // A killed child may still be a zombie, but it no longer runs.
    sandbox.start("look", &format!("cat /proc/{}/cmdline 2>/dev/null | wc -c", child.trim())).await;
    assert_eq!(sandbox.read("look", 0, 0).await.unwrap().0, b"0\n");
}

/// The official SDKs count a time limit from the response to the start, and report -1 if their own limit passes first.
#[tokio::test]
async fn the_verdict_of_a_time_limit_comes_before_the_clients_own() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    let mut request = tonic::Request::new(sandbox.start_request("slow", "exec sleep 50"));
    request.get_mut().timeout_secs = Some(10);
    // The user agent of Python's SDK. tonic appends its own name.
    let agent = "modal-client/1.6.4";
    let channel = tonic::transport::Channel::from_shared(world.emulator.url()).unwrap().user_agent(agent).unwrap();
    let token = world.emulator.state().task_token(&sandbox.task_id, None);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut router = TaskCommandRouterClient::new(channel.connect().await.unwrap());
    let asked = std::time::Instant::now();
    router.task_exec_start(request).await.unwrap();
    // The limit has already run for this long when the client starts to count.
    assert!(asked.elapsed() >= std::time::Duration::from_millis(500));
    assert_eq!(sandbox.wait("slow").await.unwrap(), -9);
}

#[tokio::test]
async fn streams_merged_discarded_and_on_a_terminal() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    let mut merged = sandbox.start_request("merged", "echo a; echo b >&2; echo c");
    merged.stderr_config = tcr::TaskExecStderrConfig::Stdout as i32;
    sandbox.router.task_exec_start(merged).await.unwrap();
    assert_eq!(sandbox.read("merged", 0, 0).await.unwrap().0, b"a\nb\nc\n");
    assert_eq!(sandbox.read("merged", 1, 0).await.unwrap().0, b"");
    let mut nowhere = sandbox.start_request("nowhere", "head -c 1000000 /dev/zero; echo e >&2");
    nowhere.stdout_config = tcr::TaskExecStdoutConfig::Devnull as i32;
    sandbox.router.task_exec_start(nowhere).await.unwrap();
    assert_eq!(sandbox.wait("nowhere").await.unwrap(), 0);
    assert_eq!(sandbox.read("nowhere", 0, 0).await.unwrap().0, b"");
    assert_eq!(sandbox.read("nowhere", 1, 0).await.unwrap().0, b"e\n");
    let mut terminal = sandbox.start_request("terminal", "stty size; echo $TERM");
    terminal.pty_info = Some(modal_proto::client::PtyInfo {
        enabled: true,
        winsz_rows: 33,
        winsz_cols: 101,
        env_term: "xterm-256color".into(),
        ..Default::default()
    });
    sandbox.router.task_exec_start(terminal).await.unwrap();
    let (shown, _) = sandbox.read("terminal", 0, 0).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&shown), "33 101\r\nxterm-256color\r\n");
}

#[tokio::test]
async fn nothing_goes_on_after_the_end_of_the_sandbox() {
    let mut world = World::start().await;
    let mut sandbox = world.sandbox().await;
    sandbox.start("long", "echo begun; sleep 100").await;
    let mut other = super::client::Running {
        id: sandbox.id.clone(),
        task_id: sandbox.task_id.clone(),
        router: sandbox.router.clone(),
    };
    let waiting = tokio::spawn(async move { other.wait("long").await });
    let terminate = modal_proto::client::SandboxTerminateRequest { sandbox_id: sandbox.id.clone() };
    world.control.sandbox_terminate_v2(terminate).await.unwrap();
    assert_eq!(code(waiting.await.unwrap()), Code::NotFound);
    assert_eq!(code(sandbox.wait("long").await), Code::NotFound);
    assert_eq!(code(sandbox.read("long", 0, 0).await), Code::NotFound);
    let request = sandbox.start_request("late", "true");
    assert_eq!(code(sandbox.router.task_exec_start(request).await), Code::NotFound);
    let result = world.wait(&sandbox.id).await.unwrap();
    assert_eq!(result.status(), modal_proto::client::generic_result::GenericStatus::Terminated);
}

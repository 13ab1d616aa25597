//! Runs each operation with each fault, and random cases with fixed seeds. See `system_tests::faults`.

use std::time::Duration;

use modal_emulator::Options;
use sandbox_host::{
    Happened, Kind, ProcessOutput, Result, Secret,
    types::{ExecSpec, Keep, OutputLimits, Verdict},
};
use system_tests::{
    World,
    faults::{self, Bench, Case, Flow, Outcome, Trouble},
    refused, sh, told,
};

const SIZE: usize = 200_000;

/// Size of a large transfer in bytes: more than fits into one message.
const LARGE_SIZE: usize = 3_000_000;

/// Injects every survivable fault into every call of every operation. All operations run at the same time, because most
/// of the time is spent waiting.
async fn matrix(flows: &[Flow]) {
    futures_util::future::join_all(flows.iter().map(|flow| column(*flow))).await;
}

async fn column(flow: Flow) {
    let mut bench = Bench::new().await;
    let troubles = [
        Trouble::Status(14),
        Trouble::Status(13),
        Trouble::Status(4),
        Trouble::LostAnswer(14),
        Trouble::Expired,
        Trouble::ComeBack,
        Trouble::Cut(0),
        Trouble::Cut(100_000),
        Trouble::CutRequest(3),
        Trouble::CutRequest(1_500_000),
        Trouble::Close,
        Trouble::Goaway,
    ];
    let mut seed = 0;
    for trouble in troubles {
        for method in flow.methods() {
            seed += 1;
            let times = Some(if trouble == Trouble::Expired { 1 } else { 2 });
            let size = if *method == "TaskExecStdinWriteStream" { LARGE_SIZE } else { SIZE };
            let case = Case { seed, flow, trouble, method, times, skip: 0, size };
            match bench.run(&case).await {
                Ok(outcome) => assert!(outcome == Outcome::Exact || !case.is_survivable(), "{case:?}: {outcome:?}"),
                Err(why) => panic!("{case:?}: {why}"),
            }
        }
    }
    for millis in [0, 20, 60] {
        seed += 1;
        let trouble = Trouble::Lost(millis);
        let case = Case { seed, flow, trouble, method: "*", times: None, skip: 0, size: 5_000_000 };
        bench.run(&case).await.unwrap_or_else(|why| panic!("{case:?}: {why}"));
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sandbox_and_image_operations_survive_each_fault() {
    matrix(&[Flow::Create, Flow::Build, Flow::Snapshot]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_operations_survive_each_fault() {
    matrix(&[Flow::Run, Flow::Stream, Flow::Stdin]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_operations_survive_each_fault() {
    matrix(&[Flow::Upload, Flow::Download, Flow::TreeUp, Flow::TreeDown]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_break_no_rule() {
    if let Err((case, why)) = faults::soak(1, 120, 4, false, |_, _| ()).await {
        panic!("{case:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_connection_damage_breaks_no_rule() {
    if let Err((case, why)) = faults::soak(1, 40, 4, true, |_, _| ()).await {
        panic!("{case:?}: {why}");
    }
}

/// A fault that lasts ends in an error that says whether the operation took effect.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lasting_faults_end_in_an_error_that_says_what_happened() -> Result<()> {
    use modal_emulator::model::faults::{Fault, Rule};
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let order = |method: &str, fault: Fault| {
        world.emulator.chaos().clear();
        let method = method.to_string();
        world.emulator.chaos().add(Rule { method, times: None, skip: 0, probability: 1.0, fault });
    };
    let status = |code| Fault::Status { code, message: String::new(), retry_after_secs: None };
    let command = |name: &str| ExecSpec::shell(format!("echo x >>/tmp/{name}"));
    let count = async |name: &str| {
        world.emulator.chaos().clear();
        sh(&sandbox, &format!("cat /tmp/{name} 2>/dev/null | wc -l")).await.trim().to_string()
    };
    // Final refusals: the command did not run, and the call is not retried.
    for (code, kind) in [(3, Kind::InvalidArgument), (7, Kind::PermissionDenied), (8, Kind::ResourceExhausted)] {
        order("TaskExecStart", status(code));
        let error = refused(sandbox.run(command("refused")).await, &[]);
        assert_eq!((error.kind(), error.happened()), (&kind, Happened::No), "{error}");
    }
    assert_eq!(count("refused").await, "0");
    // All answers are lost: the client cannot know whether the command runs.
    order("TaskExecStart", Fault::LoseAnswer { code: 14 });
    let error = refused(sandbox.run(command("unknown")).await, &[]);
    assert_eq!((error.kind(), error.happened()), (&Kind::Unavailable, Happened::Unknown), "{error}");
    assert!(error.is_retryable());
    assert_eq!(count("unknown").await, "1", "ten attempts start one command");
    // The command starts, and then its output cannot be read.
    order("TaskExecStdioRead", status(14));
    let error = refused(sandbox.run(command("started")).await, &[]);
    assert_eq!((error.kind(), error.happened()), (&Kind::Unavailable, Happened::Yes), "{error}");
    assert_eq!(count("started").await, "1");
    // The service asks for a longer wait than the provider accepts.
    world.emulator.chaos().clear();
    order("SandboxCreateV2", Fault::Status { code: 8, message: "full".into(), retry_after_secs: Some(3600.0) });
    let plugin = sandbox_host::Plugin::load(system_tests::component()).await?;
    let provider = sandbox_host::Provider::builder(&plugin)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", world.emulator.url())
        .create_patience(Duration::from_secs(10))
        .credential("token-id", Secret::new("ak-test"))
        .credential("token-secret", Secret::new("as-test"))
        .build()
        .await?;
    let error = refused(provider.create(sandbox_host::types::SandboxSpec::default()).await, &["full"]);
    assert_eq!((error.kind(), error.happened()), (&Kind::ResourceExhausted, Happened::No), "{error}");
    assert_eq!(error.retry(), sandbox_host::Retry::After(Duration::from_secs(3600)));
    Ok(())
}

/// Access tokens expire after one second, and the command runs longer than several of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_renewed_while_a_command_runs() -> Result<()> {
    let life = Duration::from_secs(1);
    let world = World::with(Options { router_token_life: life, auth_token_life: life, ..Options::default() }).await;
    let sandbox = world.sandbox().await;
    let line = "for i in 1 2 3 4; do seq $((i * 1000)); sleep 1; done; cat";
    let expected: String = (1..=4).flat_map(|i| (1..=i * 1000).map(|number| format!("{number}\n"))).collect();
    let limits = OutputLimits { stdout_max: 1 << 20, stderr_max: 0, keep: Keep::Head };
    let result = sandbox.run_with(ExecSpec::shell(line), *b"end", limits).await?;
    assert!(matches!(result.verdict, Verdict::Exited(0)), "{}", told(&result));
    assert!(result.stdout.data == format!("{expected}end").as_bytes(), "{} bytes", result.stdout.total);
    let mut process = sandbox.spawn(ExecSpec::shell(line)).await?;
    drop(process.stdin.take());
    let ProcessOutput { verdict, stdout, .. } = process.wait_with_output().await?;
    assert!(matches!(verdict, Verdict::Exited(0)));
    assert!(stdout == expected.as_bytes(), "{} bytes", stdout.len());
    Ok(())
}

//! The host library in one process: many commands at the same time, and output that is larger than the memory it may
//! use.

use std::process::Stdio;

use sandbox_host::{
    Plugin, Provider, Result, Secret,
    types::{ExecSpec, ImageSpec, SandboxSpec, Verdict},
};
use system_tests::{Emulator, component, own_process::in_own_process_async};
use tokio::io::AsyncReadExt as _;

async fn provider(emulator: &Emulator) -> Result<Provider> {
    let plugin = Plugin::load(component()).await?;
    Provider::builder(&plugin)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", emulator.url())
        .credential("token-id", Secret::new("ak-test"))
        .credential("token-secret", Secret::new("as-test"))
        .build()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_commands_run_at_the_same_time() -> Result<()> {
    let emulator = Emulator::start();
    let provider = provider(&emulator).await?;
    let mut tasks = Vec::new();
    for number in 0..20 {
        let provider = provider.clone();
        tasks.push(tokio::spawn(async move {
            let sandbox = provider.create(SandboxSpec::new(ImageSpec::default())).await?;
            let result = sandbox.run(ExecSpec::shell(format!("echo {number}; exit {number}"))).await?;
            sandbox.terminate().await?;
            Result::Ok((number, result))
        }));
    }
    for task in tasks {
        let (number, result) = task.await.expect("the task panicked")?;
        assert_eq!(result.stdout.data, format!("{number}\n").into_bytes());
        assert!(matches!(result.verdict, Verdict::Exited(code) if code == number), "{:?}", result.verdict);
    }
    Ok(())
}

/// Returns the peak resident memory of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("cannot read /proc/self/status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the line VmHWM is missing");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("not a number")
}

#[test]
fn reading_200_mib_of_output_needs_less_than_64_mib_of_memory() -> Result<()> {
    // The test measures the memory of its process.
    in_own_process_async(much_output()).unwrap_or(Ok(()))
}

async fn much_output() -> Result<()> {
    const SIZE: u64 = 200 * 1024 * 1024;
    let emulator = Emulator::start();
    let provider = provider(&emulator).await?;
    let sandbox = provider.create(SandboxSpec::new(ImageSpec::default())).await?;
    // Warm up with known content and with a short run of the same pipeline, so that the measurement covers only the
    // growth.
    sandbox.run(ExecSpec::shell("head -c 1048576 /dev/zero")).await?;
    let before = peak_kib();
    let line = "0123456789abcdef\n";
    let mut process = sandbox.spawn(ExecSpec::shell(format!("yes 0123456789abcdef | head -c {SIZE}"))).await?;
    let mut stdout = process.stdout.take().expect("the stream was taken");
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut wrong) = (0_u64, 0_u64);
    loop {
        let count = stdout.read(&mut buffer).await.expect("cannot read the output");
        if count == 0 {
            break;
        }
        let at = usize::try_from(total % line.len() as u64).expect("the offset fits into usize");
        let expected = line.as_bytes().iter().cycle().skip(at);
        wrong += buffer[..count].iter().zip(expected).filter(|(have, want)| have != want).count() as u64;
        total += count as u64;
    }
    assert_eq!((total, wrong), (SIZE, 0));
    assert!(matches!(process.wait().await?, Verdict::Exited(0)));
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "memory grew by {grown} KiB");
    sandbox.terminate().await
}

/// An emulator removes its files when it ends. After `kill -9` the next emulator removes them.
#[test]
fn the_emulator_leaves_no_files_behind() {
    let parent = std::env::temp_dir().join(format!("sandbox-state-{}", std::process::id()));
    std::fs::create_dir_all(&parent).expect("cannot create the directory");
    let state = parent.to_str().expect("not UTF-8");
    let entries = || std::fs::read_dir(&parent).expect("cannot read the directory").count();

    let emulator = Emulator::with(&["--state-dir", state]);
    let created =
        emulator.sandbox().args(["create", "-q"]).stderr(Stdio::inherit()).output().expect("cannot start the program");
    assert!(created.status.success());
    assert!(entries() > 0);
    drop(emulator);
    assert_eq!(entries(), 0, "files are left after a normal end");

    let mut emulator = Emulator::with(&["--state-dir", state]);
    let created = emulator.sandbox().args(["create", "-q"]).output().expect("cannot start the program");
    assert!(created.status.success());
    emulator.kill();
    assert!(entries() > 0, "a killed emulator should have left files");
    drop(Emulator::with(&["--state-dir", state]));
    assert_eq!(entries(), 0, "files are left after the next start");
    std::fs::remove_dir_all(&parent).expect("cannot remove the directory");
}

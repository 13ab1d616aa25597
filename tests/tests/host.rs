//! The library in one process: many commands at once, and output larger than memory should be.

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
async fn twenty_runs_at_once() -> Result<()> {
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
        let (number, result) = task.await.expect("no panic")?;
        assert_eq!(result.stdout.data, format!("{number}\n").into_bytes());
        assert!(matches!(result.verdict, Verdict::Exited(code) if code == number), "{:?}", result.verdict);
    }
    Ok(())
}

/// Peak resident memory of this process so far, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn two_hundred_mebibytes_of_output() -> Result<()> {
    // It measures the memory of its process.
    in_own_process_async(much_output()).unwrap_or(Ok(()))
}

async fn much_output() -> Result<()> {
    const SIZE: u64 = 200 * 1024 * 1024;
    let emulator = Emulator::start();
    let provider = provider(&emulator).await?;
    let sandbox = provider.create(SandboxSpec::new(ImageSpec::default())).await?;
    // Something of known content and then the same pipeline at full size, so that everything is warm when we measure.
    sandbox.run(ExecSpec::shell("head -c 1048576 /dev/zero")).await?;
    let before = peak_kib();
    let line = "0123456789abcdef\n";
    let mut process = sandbox.spawn(ExecSpec::shell(format!("yes 0123456789abcdef | head -c {SIZE}"))).await?;
    let mut stdout = process.stdout.take().expect("a stream");
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut wrong) = (0_u64, 0_u64);
    loop {
        let count = stdout.read(&mut buffer).await.expect("it can be read");
        if count == 0 {
            break;
        }
        let at = usize::try_from(total % line.len() as u64).expect("small");
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

/// Nothing of an emulator is left when it has ended, also after `kill -9` once another has started.
#[test]
fn nothing_is_left_behind() {
    let parent = std::env::temp_dir().join(format!("sandbox-state-{}", std::process::id()));
    std::fs::create_dir_all(&parent).expect("a directory");
    let state = parent.to_str().expect("text");
    let entries = || std::fs::read_dir(&parent).expect("the directory").count();

    let emulator = Emulator::with(&["--state-dir", state]);
    let created = emulator.sandbox().args(["create", "-q"]).stderr(Stdio::inherit()).output().expect("it runs");
    assert!(created.status.success());
    assert!(entries() > 0);
    drop(emulator);
    assert_eq!(entries(), 0, "after a normal end");

    let mut emulator = Emulator::with(&["--state-dir", state]);
    let created = emulator.sandbox().args(["create", "-q"]).output().expect("it runs");
    assert!(created.status.success());
    emulator.kill();
    assert!(entries() > 0, "a killed emulator cannot clean up");
    drop(Emulator::with(&["--state-dir", state]));
    assert_eq!(entries(), 0, "after the next start");
    std::fs::remove_dir_all(&parent).expect("removed");
}

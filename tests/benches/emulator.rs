//! Measures the emulator through a native client. The emulator runs in a new process, and all figures come from one
//! run.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use system_tests::Emulator;

use crate::native::{Native, Sandbox};
use crate::report::{Report, Target};

/// Time limit of a run. It takes less than a minute on a machine with two cores, so a longer run hangs.
const RUN_TIMEOUT: Duration = Duration::from_secs(180);

/// Number of connections of the client. With 100 streams per connection, 1,000 commands with an open read each need
/// more than ten.
const CONNECTIONS: usize = 24;

/// Size of a large transfer, in bytes.
pub const BIG: u64 = 1 << 30;

pub const MIB: f64 = (1 << 20) as f64;

/// The program in the sandbox that reads and writes files (docs/modal-protocol.md, section 8.1).
pub const FILE_TOOL: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// Measures all figures.
pub fn run() -> Result<()> {
    let emulator = Emulator::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(async { tokio::time::timeout(RUN_TIMEOUT, measure(&emulator)).await });
    measured.with_context(|| format!("not finished after {} s", RUN_TIMEOUT.as_secs()))?
}

async fn measure(emulator: &Emulator) -> Result<()> {
    let client = Native::connect(emulator.url(), CONNECTIONS).await?;
    let mut report = Report::new("Emulator, native client on the same machine");
    first_execs(&client, &mut report).await?;
    let sandbox = client.create().await?;
    small_execs(&client, &sandbox, &mut report).await?;
    thousand(&client, &sandbox, &mut report).await?;
    let before = memory(emulator, "VmRSS")?;
    big_output(&client, &sandbox, &mut report).await?;
    big_file(&client, &sandbox, &mut report).await?;
    let grown = (memory(emulator, "VmHWM")? - before).max(0.0);
    client.terminate(&sandbox).await?;
    three_hundred(&client, &mut report).await?;
    report.row("memory: more for the big transfers", Target::AtMost(64.0), grown, "MiB");
    report.row("memory: most of all", Target::None, memory(emulator, "VmHWM")?, "MiB");
    report.end();
    Ok(())
}

/// Measures the time from the request for a sandbox to a running command in it.
async fn first_execs(client: &Native, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..50 {
        let begun = Instant::now();
        let sandbox = client.create().await?;
        let exec = client.start(&sandbox, &["true"]).await?;
        times.push(begun.elapsed());
        ensure!(client.wait(&sandbox, &exec).await? == 0, "`true` failed");
        client.terminate(&sandbox).await?;
    }
    report.times("create to first exec", Target::AtMost(60.0), &mut times);
    Ok(())
}

/// Measures the time from the request for a command to its exit code.
async fn small_execs(client: &Native, sandbox: &Sandbox, report: &mut Report) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        let exec = client.start(sandbox, &["true"]).await?;
        ensure!(client.wait(sandbox, &exec).await? == 0, "`true` failed");
        times.push(begun.elapsed());
    }
    report.times("exec of `true`, start to exit code", Target::AtMost(10.0), &mut times);
    Ok(())
}

/// Runs 1,000 commands of one second each at the same time.
async fn thousand(client: &Native, sandbox: &Sandbox, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let one = |number: i32| async move {
        let script = format!("sleep 1; echo {number}; exit {}", number % 256);
        let ended = client.run(sandbox, &["sh", "-c", &script]).await?;
        let fits = ended.code == number % 256 && ended.stdout == format!("{number}\n").as_bytes();
        ensure!(fits, "command {number} ended as {ended:?}");
        Ok(())
    };
    stream::iter(0..1000).map(one).buffer_unordered(1000).try_collect::<()>().await?;
    report.row("1,000 execs of 1 s at once, until the last", Target::None, begun.elapsed().as_secs_f64(), "s");
    Ok(())
}

async fn big_output(client: &Native, sandbox: &Sandbox, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let exec = client.start(sandbox, &["head", "-c", &BIG.to_string(), "/dev/zero"]).await?;
    let mut received = 0;
    client.read(sandbox, &exec, |piece| received += piece.len() as u64).await?;
    ensure!(received == BIG, "{received} bytes instead of {BIG}");
    report.row("stdout of 1 GiB", Target::None, BIG as f64 / MIB / begun.elapsed().as_secs_f64(), "MiB/s");
    Ok(())
}

async fn big_file(client: &Native, sandbox: &Sandbox, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let code = client.feed(sandbox, &[FILE_TOOL, r#"{"WriteFile": {"path": "/tmp/big"}}"#], BIG).await?;
    ensure!(code == 0, "the file tool exited with {code}");
    report.row("file of 1 GiB, written", Target::None, BIG as f64 / MIB / begun.elapsed().as_secs_f64(), "MiB/s");
    let begun = Instant::now();
    let exec = client.start(sandbox, &[FILE_TOOL, r#"{"ReadFile": {"path": "/tmp/big"}}"#]).await?;
    let mut received = 0;
    client.read(sandbox, &exec, |piece| received += piece.len() as u64).await?;
    ensure!(received == BIG, "{received} bytes instead of {BIG}");
    report.row("file of 1 GiB, read", Target::None, BIG as f64 / MIB / begun.elapsed().as_secs_f64(), "MiB/s");
    let removed = client.run(sandbox, &["rm", "/tmp/big"]).await?;
    ensure!(removed.code == 0, "the big file cannot be removed");
    Ok(())
}

/// Creates 300 sandboxes that run at the same time, with a command in each.
async fn three_hundred(client: &Native, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let one = |number: usize| async move {
        let sandbox = client.create().await?;
        let ended = client.run(&sandbox, &["sh", "-c", &format!("echo {number} > /tmp/me")]).await?;
        ensure!(ended.code == 0, "sandbox {number}: {ended:?}");
        Ok((number, sandbox))
    };
    let live: Vec<_> = stream::iter(0..300).map(one).buffer_unordered(8).try_collect().await?;
    report.row("300 sandboxes, a command in each", Target::None, begun.elapsed().as_secs_f64(), "s");
    let begun = Instant::now();
    let again = |(number, sandbox): (usize, Sandbox)| async move {
        let ended = client.run(&sandbox, &["cat", "/tmp/me"]).await?;
        ensure!(ended.stdout == format!("{number}\n").as_bytes(), "sandbox {number}: {ended:?}");
        client.terminate(&sandbox).await
    };
    stream::iter(live).map(again).buffer_unordered(8).try_collect::<()>().await?;
    report.row("another command in each, and their end", Target::None, begun.elapsed().as_secs_f64(), "s");
    Ok(())
}

/// Returns a value from the emulator's `/proc/PID/status`, in MiB.
fn memory(emulator: &Emulator, what: &str) -> Result<f64> {
    memory_of(&emulator.pid().to_string(), what)
}

/// Returns a value from `/proc/PROCESS/status`, in MiB. Fails if there is no such line.
pub fn memory_of(process: &str, what: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    let kib: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("the line is missing in /proc/PROCESS/status")?
        .parse()?;
    Ok(kib / 1024.0)
}

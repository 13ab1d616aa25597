//! Measures the host library and the component against a native client that makes the same calls, and against the
//! official Python SDK. All use one emulator in one run, and the figures are ratios.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sandbox_host::types::{ExecSpec, ImageSpec, SandboxSpec, Verdict, WriteOptions};
use sandbox_host::{Plugin, Provider, Sandbox, Secret};
use system_tests::{Emulator, component, sandbox as program};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::emulator::{BIG, FILE_TOOL, MIB};
use crate::native::{self, Native};
use crate::report::{Report, Target, median};

/// Time limit of a run. It takes about two minutes on a machine with two cores.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// Number of short commands per client.
const SMALL: usize = 200;

/// Number of commands that run at the same time in the throughput comparison.
const IN_FLIGHT: usize = 64;

/// Total number of commands in the throughput comparison.
const MANY: usize = 1000;

/// Number of rounds of the large transfers, per client.
const BIG_ROUNDS: usize = 3;

/// Measures all figures.
pub fn run() -> Result<()> {
    let emulator = Emulator::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // The measurement runs in a task, as in a real program. The future of `block_on` itself runs on the main thread,
    // where every answer would need a thread switch.
    let measured = runtime.spawn(async move { tokio::time::timeout(RUN_TIMEOUT, measure(&emulator)).await });
    let measured = runtime.block_on(measured)?;
    measured.with_context(|| format!("not finished after {} s", RUN_TIMEOUT.as_secs()))?
}

async fn measure(emulator: &Emulator) -> Result<()> {
    let mut report = Report::new("Host and component");
    starts(emulator, &mut report).await?;
    let provider = provider(emulator).await?;
    let ours = provider.create(SandboxSpec::new(ImageSpec::default())).await?;
    let client = Native::connect(emulator.url(), 24).await?;
    let theirs = client.create().await?;
    let idle = memory("VmRSS")?;
    small(&ours, (&client, &theirs), &mut report).await?;
    python(&ours, (&client, &theirs), emulator, &mut report).await?;
    big(&provider, &client, &mut report).await?;
    thousand(&ours, idle, &mut report).await?;
    ours.terminate().await?;
    client.terminate(&theirs).await?;
    provider.shutdown(Duration::from_secs(1)).await;
    report.end();
    Ok(())
}

async fn provider(emulator: &Emulator) -> Result<Provider> {
    let plugin = Plugin::load(component()).await?;
    Ok(Provider::builder(&plugin)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", emulator.url())
        .credential("token-id", Secret::new("ak-bench"))
        .credential("token-secret", Secret::new("as-bench"))
        .build()
        .await?)
}

/// Measures the loading of the component, the creation of a provider and an instance, and the start of the program.
async fn starts(emulator: &Emulator, report: &mut Report) -> Result<()> {
    let wasm = std::fs::read(component())?;
    report.row("component", Target::AtMost(700.0), wasm.len() as f64 / 1000.0, "KB");
    // A custom section with the current time changes the digest of the component, so that the cache does not contain
    // it.
    let mut fresh = wasm;
    let stamp = format!("{:?}", std::time::SystemTime::now());
    fresh.extend_from_slice(&[0, stamp.len() as u8 + 2, 1, b'x']);
    fresh.extend_from_slice(stamp.as_bytes());
    let begun = Instant::now();
    let compiled = Plugin::from_bytes(fresh.clone()).await?;
    ensure!(!compiled.from_cache(), "the new component should not be in the cache");
    report.row("compile", Target::None, begun.elapsed().as_secs_f64() * 1000.0, "ms");
    let begun = Instant::now();
    let plugin = Plugin::from_bytes(fresh).await?;
    ensure!(plugin.from_cache(), "the component should be in the cache");
    report.row("load from the cache", Target::None, begun.elapsed().as_secs_f64() * 1000.0, "ms");

    let (mut times, mut made) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        // A new provider has no instance yet.
        let provider = Provider::builder(&plugin)
            .inherit_env(false)
            .env("MODAL_SERVER_URL", emulator.url())
            .anonymous(true)
            .build()
            .await?;
        let begun = Instant::now();
        provider.describe().await?;
        times.push(begun.elapsed());
        made.push(Duration::from_micros(provider.metrics().instances_micros));
    }
    report.row("instantiate", Target::AtMost(25.0), median(&mut made) * 1e6, "µs");
    let first = median(&mut times);
    let provider = Provider::builder(&plugin).inherit_env(false).anonymous(true).build().await?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let begun = Instant::now();
        provider.describe().await?;
        times.push(begun.elapsed());
    }
    let later = median(&mut times);
    // The first call of an instance also runs its initialisers and exports its cache.
    report.row("first call, more than a later one", Target::None, (first - later) * 1e6, "µs");

    let mut times = Vec::new();
    for _ in 0..20 {
        times.push(first_request().await?);
    }
    report.times("program start to first request", Target::AtMost(25.0), &mut times);
    Ok(())
}

/// Measures the time from the start of `sandbox-host exec` to the first bytes that a server receives.
async fn first_request() -> Result<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let begun = Instant::now();
    let mut child = program()
        .args(["--emulator-url", &url, "exec", "sb-01JABCDEFGHJKMNPQRSTVWXYZ0", "--", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let (mut stream, _) = tokio::time::timeout(Duration::from_secs(30), listener.accept()).await??;
    // The HTTP/2 preface and one more byte.
    let mut bytes = [0; 25];
    stream.read_exact(&mut bytes).await?;
    let time = begun.elapsed();
    child.kill()?;
    child.wait()?;
    Ok(time)
}

/// Runs short commands, alternating with the native client so that both see the same load of the machine.
async fn small(ours: &Sandbox, theirs: (&Native, &native::Sandbox), report: &mut Report) -> Result<()> {
    let (mut host, mut native) = (Vec::new(), Vec::new());
    for round in 0..SMALL + 10 {
        let begun = Instant::now();
        let result = ours.run(ExecSpec::new(["true"])).await?;
        let time = begun.elapsed();
        ensure!(matches!(result.verdict, Verdict::Exited(0)), "`true` ended as {:?}", result.verdict);
        let begun = Instant::now();
        let ended = theirs.0.run(theirs.1, &["true"]).await?;
        let native_time = begun.elapsed();
        ensure!(ended.code == 0, "`true` failed");
        // The first rounds warm the caches.
        if round >= 10 {
            host.push(time);
            native.push(native_time);
        }
    }
    let (host, native) = (median(&mut host), median(&mut native));
    report.row("exec of `true`, collected: native client", Target::None, native * 1000.0, "ms");
    report.row("exec of `true`, collected: host", Target::None, host * 1000.0, "ms");
    report.row("ratio", Target::AtMost(1.25), host / native, "×");
    Ok(())
}

/// Runs the same work with the official Python SDK. Measures CPU time of the client, and commands per second.
async fn python(
    ours: &Sandbox,
    (client, theirs): (&Native, &native::Sandbox),
    emulator: &Emulator,
    report: &mut Report,
) -> Result<()> {
    // The native client gives the lower bound of the CPU time and the highest rate of this emulator.
    let before = cpu()?;
    for _ in 0..SMALL {
        client.run(theirs, &["true"]).await?;
    }
    let native_cost = (cpu()? - before) / SMALL as f64;
    let begun = Instant::now();
    let one = |_| async move { client.run(theirs, &["true"]).await.map(drop) };
    stream::iter(0..MANY).map(one).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    let native_rate = MANY as f64 / begun.elapsed().as_secs_f64();

    let before = cpu()?;
    for _ in 0..SMALL {
        ours.run(ExecSpec::new(["true"])).await?;
    }
    let cost = (cpu()? - before) / SMALL as f64;
    let begun = Instant::now();
    let one = |_| async move { ours.run(ExecSpec::new(["true"])).await.map(drop) };
    stream::iter(0..MANY).map(one).buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
    let rate = MANY as f64 / begun.elapsed().as_secs_f64();

    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = tests.parent().context("the folder of the tests has no parent")?.join("target/venv/bin/python");
    let output = Command::new(python)
        .arg(tests.join("benches/sdk.py"))
        .args([SMALL, MANY, IN_FLIGHT].map(|number| number.to_string()))
        .env("MODAL_SERVER_URL", emulator.url())
        .envs([("MODAL_TOKEN_ID", "ak-bench"), ("MODAL_TOKEN_SECRET", "as-bench")])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(sdk_cost)), Some(Ok(sdk_rate))) = (figures.next(), figures.next()) else {
        bail!("the Python SDK's part failed:\n{}", String::from_utf8_lossy(&output.stderr));
    };
    report.row("CPU of the client per exec: Python SDK", Target::None, sdk_cost * 1000.0, "ms");
    report.row("CPU of the client per exec: native client", Target::None, native_cost * 1000.0, "ms");
    report.row("CPU of the client per exec: host", Target::None, cost * 1000.0, "ms");
    report.row("ratio", Target::AtMost(0.1), cost / sdk_cost, "×");
    report.row(&format!("execs, {IN_FLIGHT} in flight: Python SDK"), Target::None, sdk_rate, "/s");
    report.row(&format!("execs, {IN_FLIGHT} in flight: native client"), Target::None, native_rate, "/s");
    report.row(&format!("execs, {IN_FLIGHT} in flight: host"), Target::None, rate, "/s");
    report.row("ratio", Target::AtLeast(5.0), rate / sdk_rate, "×");
    Ok(())
}

/// Measures 1 GiB of output, upload and download. Each client gets a new sandbox for each round, so that its files are
/// deleted before the next one. Otherwise the speed of the disk would slow down the last client.
async fn big(provider: &Provider, client: &Native, report: &mut Report) -> Result<()> {
    let before = memory("VmHWM")?;
    let mut times = [(); 3].map(|()| (Vec::new(), Vec::new()));
    for round in 0..BIG_ROUNDS {
        for turn in 0..2 {
            let native = (round + turn) % 2 == 0;
            let taken = if native { big_native(client).await? } else { big_ours(provider).await? };
            for ((theirs, ours), time) in times.iter_mut().zip(taken) {
                if native { theirs.push(time) } else { ours.push(time) }
            }
        }
    }
    for (what, (theirs, ours)) in ["stdout of 1 GiB", "file of 1 GiB, up", "file of 1 GiB, down"].iter().zip(&mut times)
    {
        let rate = |times: &mut Vec<Duration>| BIG as f64 / MIB / median(times);
        let (theirs, ours) = (rate(theirs), rate(ours));
        report.row(&format!("{what}: native client"), Target::None, theirs, "MiB/s");
        report.row(&format!("{what}: host"), Target::None, ours, "MiB/s");
        report.row("ratio", Target::AtLeast(0.7), ours / theirs, "×");
    }
    report.row("memory: more for the big transfers", Target::AtMost(64.0), memory("VmHWM")? - before, "MiB");
    Ok(())
}

/// Transfers output, upload and download through the host library.
async fn big_ours(provider: &Provider) -> Result<[Duration; 3]> {
    let sandbox = provider.create(SandboxSpec::new(ImageSpec::default())).await?;
    sandbox.run(ExecSpec::new(["true"])).await?;
    let begun = Instant::now();
    let mut process = sandbox.spawn(ExecSpec::new(["head", "-c", &BIG.to_string(), "/dev/zero"])).await?;
    let mut stdout = process.stdout.take().context("the process has no standard output")?;
    let (mut buffer, mut received) = (vec![0; 256 << 10], 0);
    loop {
        match stdout.read(&mut buffer).await? {
            0 => break,
            count => received += count as u64,
        }
    }
    ensure!(matches!(process.wait().await?, Verdict::Exited(0)) && received == BIG, "{received} bytes");
    let output = begun.elapsed();
    sandbox.terminate().await?;

    let sandbox = provider.create(SandboxSpec::new(ImageSpec::default())).await?;
    sandbox.run(ExecSpec::new(["true"])).await?;
    let begun = Instant::now();
    let sent = sandbox.upload("/tmp/big", tokio::io::repeat(0).take(BIG), WriteOptions::default()).await?;
    ensure!(sent == BIG, "{sent} bytes");
    let up = begun.elapsed();
    let begun = Instant::now();
    let received = sandbox.download("/tmp/big", tokio::io::sink()).await?;
    ensure!(received == BIG, "{received} bytes");
    let down = begun.elapsed();
    sandbox.terminate().await?;
    Ok([output, up, down])
}

/// Makes the same calls with the native client.
async fn big_native(client: &Native) -> Result<[Duration; 3]> {
    let receive = async |sandbox: &native::Sandbox, command: &[&str]| {
        let begun = Instant::now();
        let exec = client.start(sandbox, command).await?;
        let mut received = 0;
        client.read(sandbox, &exec, |piece| received += piece.len() as u64).await?;
        ensure!(received == BIG, "{received} bytes instead of {BIG}");
        Ok(begun.elapsed())
    };
    let sandbox = client.create().await?;
    client.run(&sandbox, &["true"]).await?;
    let output = receive(&sandbox, &["head", "-c", &BIG.to_string(), "/dev/zero"]).await?;
    client.terminate(&sandbox).await?;

    let sandbox = client.create().await?;
    client.run(&sandbox, &["true"]).await?;
    let begun = Instant::now();
    let code = client.feed(&sandbox, &[FILE_TOOL, r#"{"WriteFile": {"path": "/tmp/big"}}"#], BIG).await?;
    ensure!(code == 0, "the file tool exited with {code}");
    let up = begun.elapsed();
    let down = receive(&sandbox, &[FILE_TOOL, r#"{"ReadFile": {"path": "/tmp/big"}}"#]).await?;
    client.terminate(&sandbox).await?;
    Ok([output, up, down])
}

/// Runs 1,000 commands of one second each at the same time, over connections with 100 streams each.
async fn thousand(ours: &Sandbox, idle: f64, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let one = |number: i32| async move {
        let result = ours.run(ExecSpec::shell(format!("sleep 1; echo {number}; exit {}", number % 256))).await?;
        let exited = matches!(result.verdict, Verdict::Exited(code) if code == number % 256);
        ensure!(exited && result.stdout.data == format!("{number}\n").as_bytes(), "command {number}: {result:?}");
        Ok(())
    };
    stream::iter(0..1000).map(one).buffer_unordered(1000).try_collect::<()>().await?;
    report.row("1,000 execs of 1 s at once, until the last", Target::AtMost(3.0), begun.elapsed().as_secs_f64(), "s");
    report.row("memory of the host then", Target::AtMost(400.0), memory("VmHWM")?, "MiB");
    report.row("memory of the host, idle", Target::None, idle, "MiB");
    Ok(())
}

/// Returns the CPU time of this process so far, in seconds.
fn cpu() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Returns a value from this process's `/proc/self/status`, in MiB.
fn memory(what: &str) -> Result<f64> {
    crate::emulator::memory_of("self", what)
}

//! `sandbox-host doctor --live`: checks that only a run against the service can confirm, as far as they can be scripted. The
//! numbers are those in `docs/live-checks.md`.
//!
//! The checks create a few sandboxes and images, each for a few minutes at most, and always remove them: all sandboxes
//! carry a tag, by which the remaining ones are found at the end.

use std::time::{Duration, Instant};

use anyhow::Result;
use sandbox_host::types::{
    ExecSpec, ImageSpec, Keep, ListFilter, LogQuery, NetworkPolicy, Outbound, OutputLimits, SandboxSpec, SandboxState,
    Verdict, WriteOptions,
};
use sandbox_host::{Error, LocalDockerfile, Provider, Sandbox, Signal, fresh_id};
use tokio::io::AsyncReadExt as _;

use crate::output::results;
use crate::output::{self, FAILED};
use crate::session::Session;

/// The tag of all sandboxes of this program. Its value is the id of the run.
const TAG: &str = "sandbox-doctor";

/// The lifetime of the sandboxes, in case this program cannot terminate them.
const LIFETIME: Duration = Duration::from_secs(900);

/// Timeout of one check. None takes that long.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long to wait for the cost of a sandbox after its end.
const COST_PATIENCE: Duration = Duration::from_secs(120);

/// The result of a check: the service behaves as expected, it behaves differently, or the check was not run.
enum Found {
    Well(String),
    Other(String),
    Skipped(String),
}

/// The outcome of a check; an error is a failure as well.
type Check = Result<Found, Error>;

fn well(text: impl Into<String>) -> Check {
    Ok(Found::Well(text.into()))
}

fn expect(good: bool, text: impl Into<String>) -> Check {
    Ok(if good { Found::Well(text.into()) } else { Found::Other(text.into()) })
}

/// Runs `sandbox-host doctor --live`. Returns the exit code.
pub async fn live(session: &Session) -> Result<i32> {
    let provider = session.provider().await?;
    let run = fresh_id();
    let cleanup = session.register_creation(&provider, (TAG.to_owned(), run.clone()));
    let mut rows = Rows { json: session.voice.json, rows: Vec::new(), failed: 0 };
    let mut images = Vec::new();
    let checked = checks(session, &provider, &run, &mut images, &mut rows).await;
    let cleaned = clean(&provider, &run, &images).await;
    rows.note(0, "all sandboxes and images are removed", cleaned)?;
    if rows.failed == 0 {
        cleanup.done();
    }
    checked?;
    if rows.json {
        output::print_json(&results::Checks { ok: rows.failed == 0, checks: rows.rows })?;
    }
    Ok(if rows.failed == 0 { 0 } else { FAILED })
}

struct Rows {
    json: bool,
    rows: Vec<results::Check>,
    failed: usize,
}

impl Rows {
    fn note(&mut self, number: u32, check: &str, found: Check) -> Result<()> {
        let (state, text) = match found {
            Ok(Found::Well(text)) => ("ok", text),
            Ok(Found::Skipped(text)) => ("skipped", text),
            Ok(Found::Other(text)) => ("failed", text),
            Err(error) => ("failed", error.to_string()),
        };
        self.failed += usize::from(state == "failed");
        if self.json {
            self.rows.push(results::Check { number: Some(number), check: check.to_owned(), state, text });
            return Ok(());
        }
        let number = if number == 0 { "-".to_owned() } else { number.to_string() };
        output::print_text(format_args!("{state:7}  {number:>2}  {check}: "), &text)
    }

    /// Runs a check and records its result.
    async fn run(
        &mut self,
        session: &Session,
        number: u32,
        check: &str,
        work: impl Future<Output = Check>,
    ) -> Result<()> {
        let _step = session.voice.step(check.to_owned());
        let found = tokio::time::timeout(PATIENCE, work).await;
        self.note(number, check, found.unwrap_or_else(|_| Ok(Found::Other(format!("no result after {PATIENCE:?}")))))
    }
}

async fn checks(
    session: &Session,
    provider: &Provider,
    run: &str,
    images: &mut Vec<String>,
    rows: &mut Rows,
) -> Result<()> {
    rows.run(session, 1, "the service accepts this client", async {
        provider.check().await?;
        well("signed in")
    })
    .await?;
    let told = provider.service_time();
    let text = told.map_or("no response has a date", |_| "responses have a date");
    rows.note(16, "responses of the service have a date", expect(told.is_some(), text))?;

    let begun = Instant::now();
    let spec = |image| SandboxSpec::new(image).tag(TAG, run).lifetime(LIFETIME);
    let mut wanted = spec(ImageSpec::default()).command(["sh", "-c", "echo from the beginning; exec sleep 900"]);
    wanted.key = Some(fresh_id());
    let made = tokio::time::timeout(PATIENCE, provider.create(wanted.clone().port(8000))).await;
    let sandbox = match made {
        Ok(Ok(sandbox)) => sandbox,
        Ok(Err(error)) => return rows.note(2, "a sandbox of the default image", Err(error)),
        Err(_) => {
            let found = Found::Other(format!("no result after {PATIENCE:?}"));
            return rows.note(2, "a sandbox of the default image", Ok(found));
        }
    };
    let text = format!("{} after {:.1} s", sandbox.id(), begun.elapsed().as_secs_f64());
    rows.note(2, "a sandbox of the default image", well(text))?;

    rows.run(session, 3, "a repeated create request creates one sandbox", async {
        let again = provider.create(wanted.port(8000)).await?;
        expect(again.id() == sandbox.id(), format!("the second call returned {}", again.id()))
    })
    .await?;
    commands(session, &sandbox, rows).await?;
    rows.run(session, 0, "files", files(&sandbox)).await?;
    rows.run(session, 0, "tags", tags(provider, &sandbox, run)).await?;
    rows.run(session, 0, "tunnels", async {
        let tunnels = sandbox.tunnels(Duration::from_secs(50)).await?;
        let told: Vec<_> = tunnels.iter().map(|tunnel| format!("{} at {}", tunnel.port, tunnel.public_host)).collect();
        expect(tunnels.iter().any(|tunnel| tunnel.port == 8000), told.join(", "))
    })
    .await?;
    rows.run(session, 0, "a snapshot contains the files", async {
        let image = sandbox.snapshot_filesystem(Some(Duration::from_secs(3600))).await?;
        images.push(image.clone());
        let copy = provider.create(spec(ImageSpec::id(&image))).await?;
        let found = copy.read_file("/tmp/doctor/kept", 100).await;
        copy.terminate().await?;
        let found = found?;
        expect(found == b"kept", format!("{image} has {} bytes where 4 are expected", found.len()))
    })
    .await?;
    image_checks(session, provider, run, images, rows).await?;
    rows.run(session, 13, "the log of the entry point", async {
        for _ in 0..30 {
            let page = sandbox.logs(LogQuery::default(), None, 1 << 20).await?;
            if page.items.iter().any(|chunk| chunk.text.contains("from the beginning")) {
                return well("the log contains the program's output");
            }
            // The service collects logs with a delay.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(Found::Other("the log does not contain the program's output after 30 s".to_owned()))
    })
    .await?;
    rows.run(session, 11, "an empty allow-list blocks the network of a running sandbox", cut_off(&sandbox)).await?;
    by_hand(rows)?;
    rows.run(session, 0, "a terminated sandbox has ended", async {
        sandbox.terminate().await?;
        let end = sandbox.wait_for(Duration::from_secs(60)).await?;
        expect(end.is_some(), format!("{end:?}"))
    })
    .await?;
    rows.run(session, 24, "the cost of a terminated sandbox", cost(&sandbox)).await
}

/// Waits until the service reports the cost of a sandbox, which must be the sum of the costs of its resources.
async fn cost(sandbox: &Sandbox) -> Check {
    let begun = Instant::now();
    while begun.elapsed() < COST_PATIENCE {
        let report = sandbox.usage_report().await?;
        if let Some(cost) = report.cost {
            let parts: f64 = report.cost_by_resource.iter().map(|(_, cost)| cost).sum();
            // Allows for the rounding of sums of decimal numbers.
            let adds_up = cost > 0.0 && (cost - parts).abs() <= cost * 1e-3;
            let seconds = begun.elapsed().as_secs();
            return expect(
                adds_up,
                format!("{cost} USD in total, {parts} USD as the sum over resources, {seconds} s after the end"),
            );
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(Found::Other(format!("the service reports no cost {COST_PATIENCE:?} after the end")))
}

/// Lists the checks that must be made by hand.
fn by_hand(rows: &mut Rows) -> Result<()> {
    for (number, check) in [
        (9, "sidecars of a sandbox share a network"),
        (14, "memory snapshots can be created and restored"),
        (18, "the file helper is linked statically"),
        (19, "names of environment variables may contain dots"),
        (20, "a build context may contain links and empty directories"),
        (21, "the log states the container of each line"),
        (22, "sandboxes of all apps can be listed"),
        (23, "a volume can be deleted right after its sandbox was terminated"),
        (25, "a cost that is read right after the end is the whole cost"),
        (26, "the billed amounts times the list prices are the cost"),
    ] {
        rows.note(
            number,
            check,
            Ok(Found::Skipped(
                "not automated, because it costs more than a sandbox for one minute: check it by hand".to_owned(),
            )),
        )?;
    }
    Ok(())
}

async fn image_checks(
    session: &Session,
    provider: &Provider,
    run: &str,
    images: &mut Vec<String>,
    rows: &mut Rows,
) -> Result<()> {
    let spec = |image| SandboxSpec::new(image).tag(TAG, run).lifetime(LIFETIME);
    let mut built = None;
    rows.run(session, 12, "the log of a build contains a line per step", async {
        let lines = format!("FROM debian:bookworm-slim\nWORKDIR /opt/doctor\nRUN echo {run}\n");
        let (image, _) = provider.dockerfile(LocalDockerfile::new(lines), |_, _| ()).await?;
        let mut log = String::new();
        let image = provider.build(image).await?.finish(|chunk| log.push_str(&chunk.text)).await?;
        images.push(image.id.clone());
        let named = log.lines().any(|line| line.starts_with("=> "));
        let first = log.lines().next().unwrap_or_default().to_owned();
        built = Some(image.id);
        expect(named, format!("the log begins with `{first}`"))
    })
    .await?;
    rows.run(session, 10, "commands run in the directory of a WORKDIR line", async {
        let Some(image) = built else { return Ok(Found::Skipped("the image was not built".to_owned())) };
        let other = provider.create(spec(ImageSpec::id(image))).await?;
        let place = said(&other, "pwd").await;
        other.terminate().await?;
        let place = place?;
        expect(place == "/opt/doctor", place)
    })
    .await?;
    rows.run(session, 17, "a command follows the image's ENTRYPOINT", async {
        let lines = "FROM debian:bookworm-slim\nENTRYPOINT [\"/usr/bin/env\", \"DOCTOR=entered\"]\nCMD [\"false\"]\n";
        let (image, _) = provider.dockerfile(LocalDockerfile::new(lines.to_owned()), |_, _| ()).await?;
        let image = provider.build(image).await?.finish(|_| ()).await?;
        images.push(image.id.clone());
        let script = "echo \"says $DOCTOR\" > /tmp/doctor-part && mv /tmp/doctor-part /tmp/doctor-entry; exec sleep 900";
        let other = provider.create(spec(ImageSpec::id(image.id)).command(["sh", "-c", script])).await?;
        let wait = "n=0; until [ -e /tmp/doctor-entry ] || [ $n = 300 ]; do n=$((n+1)); sleep 0.1; done; cat /tmp/doctor-entry";
        let seen = said(&other, wait).await;
        other.terminate().await?;
        let seen = seen?;
        expect(seen == "says entered", seen)
    })
    .await
}

async fn commands(session: &Session, sandbox: &Sandbox, rows: &mut Rows) -> Result<()> {
    rows.run(session, 8, "a command reaches the worker over TLS", async {
        let said = said(sandbox, "echo hello").await?;
        expect(said == "hello", said)
    })
    .await?;
    rows.run(session, 0, "exit codes", async {
        for (line, code) in [("exit 0", 0), ("exit 7", 7), ("exit 137", 137), ("exec no-such-program", 127)] {
            let verdict = sandbox.run(ExecSpec::shell(line)).await?.verdict;
            if !matches!(verdict, Verdict::Exited(found) if found == code) {
                return Ok(Found::Other(format!("`{line}` returned {verdict:?}")));
            }
        }
        well("0, 7, 137 and 127")
    })
    .await?;
    rows.run(session, 4, "a command that exceeds its time limit ends with the verdict deadline", async {
        let verdict = sandbox.run(ExecSpec::new(["sleep", "60"]).timeout(Duration::from_secs(2))).await?.verdict;
        expect(matches!(verdict, Verdict::Deadline), format!("{verdict:?}"))
    })
    .await?;
    rows.run(session, 5, "a signal reaches all processes of a command", async {
        let mut process = sandbox.spawn(ExecSpec::shell("sleep 600 & sleep 600; wait")).await?;
        process.signal(Signal::TERM).await?;
        let verdict = tokio::time::timeout(Duration::from_secs(30), process.wait()).await;
        let Ok(verdict) = verdict else { return Ok(Found::Other("the command still runs after 30 s".to_owned())) };
        let verdict = verdict?;
        expect(matches!(verdict, Verdict::Signaled(15) | Verdict::Exited(143)), format!("{verdict:?}"))
    })
    .await?;
    rows.run(session, 6, "output ends when its command ends", async {
        let begun = Instant::now();
        let result = sandbox.run(ExecSpec::shell("sleep 20 & echo done")).await?;
        let text = format!("after {:.1} s, while a child process runs for 20 s", begun.elapsed().as_secs_f64());
        expect(result.stdout.data == b"done\n" && begun.elapsed() < Duration::from_secs(15), text)
    })
    .await?;
    rows.run(session, 7, "standard input of several messages", async {
        let data = vec![b'x'; 9 << 20];
        let limits = OutputLimits { stdout_max: 100, stderr_max: 100, keep: Keep::Head };
        let result = sandbox.run_with(ExecSpec::shell("wc -c"), data, limits).await?;
        let text = String::from_utf8_lossy(&result.stdout.data).trim().to_owned();
        expect(text == "9437184", format!("{text} bytes arrived"))
    })
    .await?;
    rows.run(session, 15, "a file that is sent in several streams of standard input", async {
        let size = 20 << 20;
        sandbox.upload("/tmp/doctor-large", tokio::io::repeat(b'x').take(size), WriteOptions::default()).await?;
        let there = sandbox.stat("/tmp/doctor-large", true).await?.size;
        expect(there == size, format!("{there} bytes arrived"))
    })
    .await
}

async fn files(sandbox: &Sandbox) -> Check {
    let path = "/tmp/doctor/kept";
    sandbox.write_file(path, b"kept", WriteOptions::default()).await?;
    let (data, info) = (sandbox.read_file(path, 100).await?, sandbox.stat(path, true).await?);
    let names: Vec<_> = sandbox.list_directory("/tmp/doctor").await?.into_iter().map(|entry| entry.name).collect();
    sandbox.rename(path, "/tmp/doctor/moved", false).await?;
    sandbox.rename("/tmp/doctor/moved", path, false).await?;
    let missing = sandbox.read_file("/tmp/doctor/missing", 100).await;
    let typed = missing.as_ref().is_err_and(Error::is_not_found);
    let good = data == b"kept" && info.size == 4 && names == ["kept"] && typed;
    expect(
        good,
        format!(
            "written, read, listed ({}), renamed; a missing file is reported as not found: {typed}",
            names.join(", ")
        ),
    )
}

async fn tags(provider: &Provider, sandbox: &Sandbox, run: &str) -> Check {
    sandbox.set_tags(vec![(TAG.to_owned(), run.to_owned()), ("more".to_owned(), "1".to_owned())]).await?;
    let all = sandbox.tags().await?;
    let listed = provider.list(&ListFilter::default().tag(TAG, run).tag("more", "1"), 10).await?;
    let found = listed.iter().any(|info| info.id == sandbox.id());
    expect(all.len() == 2 && found, format!("{} tags are set, and {} sandboxes have them", all.len(), listed.len()))
}

async fn cut_off(sandbox: &Sandbox) -> Check {
    // Python is in the default image. An IP address needs no name server.
    let line = "import socket; socket.create_connection(('1.1.1.1', 443), 5)";
    let reaches = async || {
        let verdict = sandbox.run(ExecSpec::new(["python3", "-c", line])).await?.verdict;
        Ok::<_, Error>(matches!(verdict, Verdict::Exited(0)))
    };
    if !reaches().await? {
        return Ok(Found::Skipped("the sandbox cannot connect to 1.1.1.1, even without the allow-list".to_owned()));
    }
    sandbox.set_network(NetworkPolicy { outbound: Outbound::Blocked, inbound_cidrs: vec![] }).await?;
    let still = reaches().await?;
    expect(!still, format!("the sandbox could connect to 1.1.1.1 before; afterwards: {still}"))
}

/// Returns the output of a shell command.
async fn said(sandbox: &Sandbox, line: &str) -> Result<String, Error> {
    let result = sandbox.run(ExecSpec::shell(line)).await?;
    Ok(String::from_utf8_lossy(&result.stdout.data).trim().to_owned())
}

/// Terminates all sandboxes and deletes all images of this run.
async fn clean(provider: &Provider, run: &str, images: &[String]) -> Check {
    let filter = ListFilter::default().tag(TAG, run);
    let mut ended = 0;
    for info in provider.list(&filter, 100).await? {
        if !matches!(info.state, SandboxState::Ended(_)) {
            provider.sandbox(info.id).terminate().await?;
            ended += 1;
        }
    }
    for image in images {
        match provider.delete_image(image).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    well(format!("{ended} sandboxes terminated, {} images removed", images.len()))
}

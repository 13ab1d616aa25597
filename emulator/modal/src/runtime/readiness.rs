//! Readiness: runs a sandbox's probe until it passes, and connects to servers that are still starting.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use container_isolation::{Container, Exit, ProcessSpec};
use modal_proto::client::probe::ProbeOneof;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::model::error::Error;
use crate::model::sandbox::{Phase, Sandbox};
use crate::model::unit::Unit;
use crate::model::values::now;

/// Time between two probes in milliseconds, unless the definition sets another.
const INTERVAL_MS: u32 = 100;

/// Path of the file helper inside every container.
pub const FS_TOOLS: &str = "/__modal/.bin/modal-sandbox-fs-tools";

/// How long a connection from outside waits until a program listens inside. Examples of the service start a server and connect
/// immediately; a Python server takes some tenths of a second to start, and seconds on a busy machine.
const LISTENING: Duration = Duration::from_secs(10);

/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Connects to a port of a container. Retries for up to 10 seconds while no program listens there.
///
/// # Errors
///
/// Fails with the error of the last attempt.
pub async fn connect(container: &Container, port: u16) -> io::Result<TcpStream> {
    let deadline = Instant::now() + LISTENING;
    let mut pause = Duration::from_millis(5);
    loop {
        match container.connect(port).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}

/// Runs the sandbox's probe until it passes. Returns at once if the sandbox has no probe.
pub async fn probe(sandbox: Arc<Sandbox>, unit: Arc<Unit>) {
    let Some(probe) = &sandbox.definition.readiness_probe else { return };
    let interval = Duration::from_millis(u64::from(probe.interval_ms.filter(|ms| *ms > 0).unwrap_or(INTERVAL_MS)));
    loop {
        let passed = match &probe.probe_oneof {
            Some(ProbeOneof::TcpPort(port)) => listens(&unit, *port).await,
            Some(ProbeOneof::ExecCommand(command)) => {
                run(&unit, unit.process(command.argv.clone())).await.is_some_and(|(exit, _)| exit == Exit::Code(0))
            }
            None => return,
        };
        if passed {
            sandbox.ready.send_replace(Some(now()));
            return;
        }
        tokio::time::sleep(interval).await;
    }
}

/// Waits until the probe has passed, at most for `most`. Returns the time at which it passed, in Unix seconds.
///
/// # Errors
///
/// Fails with `Kind::FailedPrecondition` if the sandbox has no probe, with `Kind::NotFound` if it ends first, and with
/// `Kind::DeadlineExceeded` if the time is over.
pub async fn wait(sandbox: &Sandbox, most: Duration) -> Result<f64, Error> {
    if sandbox.definition.readiness_probe.is_none() {
        return Err(Error::failed_precondition("The sandbox has no readiness probe configured"));
    }
    let mut ready = sandbox.ready.subscribe();
    let mut phase = sandbox.phase.subscribe();
    let passed = async { ready.wait_for(Option::is_some).await.ok().and_then(|at| *at) };
    let ended = async { phase.wait_for(|phase| matches!(phase, Phase::Ending | Phase::Ended(_))).await.map(drop) };
    tokio::select! {
        biased;
        at = passed => at.ok_or_else(|| sandbox.gone()),
        _ = ended => Err(sandbox.gone()),
        () = tokio::time::sleep(most) => Err(Error::deadline_exceeded("The sandbox did not become ready in time")),
    }
}

/// Returns whether a program inside listens on a port. Reads the kernel's tables of the container instead of connecting,
/// because servers that count connections would notice a connection.
async fn listens(unit: &Unit, port: u32) -> bool {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let argument = serde_json::json!({ "ReadFile": { "path": table } }).to_string();
        let mut spec = unit.process(vec![FS_TOOLS.to_owned(), argument]);
        spec.user = None;
        spec.cwd = "/".into();
        if let Some((Exit::Code(0), text)) = run(unit, spec).await
            && has_listener(&String::from_utf8_lossy(&text), port)
        {
            return true;
        }
    }
    false
}

/// Returns whether a kernel table lists a socket in state LISTEN (0A) with this local port.
fn has_listener(table: &str, port: u32) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next().unwrap_or_default(), fields.nth(1).unwrap_or_default());
        let local = local.rsplit_once(':').and_then(|(_, port)| u32::from_str_radix(port, 16).ok());
        state == "0A" && local == Some(port)
    })
}

/// Runs a short command to its end, and returns its exit status and up to 1 MiB of its standard output.
async fn run(unit: &Unit, spec: ProcessSpec) -> Option<(Exit, Vec<u8>)> {
    use tokio::io::AsyncReadExt as _;
    let process = unit.container.spawn(spec).await.ok()?;
    drop(process.stdin);
    let errors = process.stderr.map(tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked);
    let output = tokio::net::unix::pipe::Receiver::from_owned_fd_unchecked(process.stdout).ok()?;
    let mut kept = Vec::new();
    let drained = async {
        if let Some(Ok(mut errors)) = errors {
            let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
        }
    };
    let mut output = output.take(1 << 20);
    let _ = tokio::join!(output.read_to_end(&mut kept), drained);
    process.exit.await.ok().map(|exit| (exit, kept))
}

#[cfg(test)]
mod tests {
    #[test]
    fn listening_sockets_are_found_by_port() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
                     0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n   \
                     1: 0100007F:1F91 0100007F:1234 01 00000000:00000000\n";
        assert!(super::has_listener(table, 8080));
        assert!(!super::has_listener(table, 8081));
    }
}

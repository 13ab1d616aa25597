//! Group `lifecycle`: pausing, stopping and continuing sandboxes, and changing their lifetime.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{EndReason, ExecSpec, SandboxState};
use sandbox_host::{Error, Happened, Kind, Sandbox};

use crate::check::{Outcome, ensure, failed, printed, refused, same};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "lifecycle.wait-running" ["wait-running"] "wait-running: returns true when the sandbox runs commands" => wait_running;
    "lifecycle.wait-running-then-run" ["wait-running", "exec", "program:echo"] "wait-running: a command runs at once afterwards" => wait_then_run;
    "lifecycle.wait-running-ended" ["wait-running"] "wait-running: fails with `sandbox-ended` if the sandbox has ended" => wait_ended;
    "lifecycle.wait-running-unknown" ["wait-running"] "wait-running: fails with `not-found` if the provider does not know the sandbox" => wait_unknown;
    "lifecycle.pause" ["pause", "exec", "program:echo"] "pause: freezes the sandbox; `resume` continues it; both are idempotent" => pause;
    "lifecycle.pause-freezes" ["pause", "exec", "program:sh", "program:cat", "program:sleep", "program:date"] "pause: no process of a paused sandbox runs, and each goes on after `resume`" => pause_freezes;
    "lifecycle.pause-keeps-files" ["pause", "files"] "pause: files are kept" => pause_keeps;
    "lifecycle.pause-and-terminate" ["pause"] "terminate: ends a paused sandbox" => pause_and_terminate;
    "lifecycle.pause-ended" ["pause"] "pause: fails with `sandbox-ended` if the sandbox has ended, and so does `resume`" => pause_ended;
    "lifecycle.pause-unknown" ["pause"] "pause: fails with `not-found` if the provider does not know the sandbox, and so does `resume`" => pause_unknown;
    "lifecycle.stop" ["stop", "files"] "stop: ends the processes and keeps the files; `resume` starts the sandbox again; both are idempotent" => stop;
    "lifecycle.stop-ends-processes" ["stop", "exec", "program:sh", "program:cat", "program:sleep"] "stop: no process is left, also after `resume`" => stop_ends;
    "lifecycle.stop-then-run" ["stop", "exec", "program:echo"] "resume: a sandbox that was stopped runs commands again" => stop_then_run;
    "lifecycle.stop-restarts-entry-point" ["stop", "create.command", "files", "program:sh", "program:sleep"] "resume: starts a stopped sandbox with its entry point" => stop_restarts;
    "lifecycle.stop-is-no-end" ["stop"] "stop: a stopped sandbox has not ended, and is listed" => stop_is_no_end;
    "lifecycle.stop-and-terminate" ["stop"] "terminate: ends a stopped sandbox" => stop_and_terminate;
    "lifecycle.stop-ended" ["stop"] "stop: fails with `sandbox-ended` if the sandbox has ended, and so does `resume`" => stop_ended;
    "lifecycle.stop-unknown" ["stop"] "stop: fails with `not-found` if the provider does not know the sandbox, and so does `resume`" => stop_unknown;
    "lifecycle.extend" ["lifetime.extend"] "extend: sets how long the sandbox may live from now on" => extend;
    "lifecycle.extend-longer" ["lifetime.extend", "create.lifetime"] "extend: a longer lifetime replaces that of `create`" => extend_longer;
    "lifecycle.extend-time" ["lifetime.extend"] "extend: returns the time at which the sandbox will be ended" => extend_time;
    "lifecycle.extend-ended" ["lifetime.extend"] "extend: fails with `sandbox-ended` if the sandbox has ended" => extend_ended;
    "lifecycle.extend-unknown" ["lifetime.extend"] "extend: fails with `not-found` if the provider does not know the sandbox" => extend_unknown;
}

/// How long the start or the end of a sandbox may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a handle to a sandbox that does not exist.
async fn unknown(case: &Case) -> Outcome<Sandbox> {
    Ok(case.provider.sandbox(altered(case.shared().await?.id())))
}

/// Checks that a call failed with this kind and has not happened.
fn not_done<T>(what: &str, result: Result<T, Error>, kind: &Kind) -> Outcome {
    let error = refused(what, result, kind)?;
    ensure!(error.happened() == Happened::No, "{what}: the error says happened: {:?}", error.happened());
    Ok(())
}

/// Checks the state of a sandbox that must be paused.
async fn is_paused(sandbox: &Sandbox) -> Outcome {
    let state = sandbox.info().await?.state;
    ensure!(matches!(state, SandboxState::Paused), "a paused sandbox has the state {state:?}");
    Ok(())
}

/// Checks the state of a sandbox that must be stopped.
async fn is_stopped(sandbox: &Sandbox) -> Outcome {
    let state = sandbox.info().await?.state;
    ensure!(matches!(state, SandboxState::Stopped), "a stopped sandbox has the state {state:?}");
    Ok(())
}

/// Checks the state of a sandbox that must run.
async fn is_running(sandbox: &Sandbox) -> Outcome {
    let state = sandbox.info().await?.state;
    ensure!(matches!(state, SandboxState::Running), "a resumed sandbox has the state {state:?}");
    Ok(())
}

/// Checks that a sandbox ends when it is terminated.
async fn ends(what: &str, sandbox: &Sandbox) -> Outcome {
    sandbox.terminate().await?;
    let ended = sandbox.wait_for(PATIENCE).await?;
    ensure!(matches!(ended, Some(EndReason::Terminated)), "{what} that was terminated ended with {ended:?}");
    Ok(())
}

async fn wait_running(case: Arc<Case>) -> Outcome {
    let runs = case.sandbox().await?.wait_running(PATIENCE).await?;
    ensure!(runs, "a new sandbox did not run after {PATIENCE:?}");
    Ok(())
}

async fn wait_then_run(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let runs = case.other().await?.sandbox(sandbox.id()).wait_running(PATIENCE).await?;
    ensure!(runs, "a new sandbox did not run after {PATIENCE:?}");
    printed("a command in a sandbox that runs", &sandbox.run(ExecSpec::new(["echo", "x"])).await?, "x\n")
}

async fn wait_ended(case: Arc<Case>) -> Outcome {
    not_done(
        "`wait-running` of an ended sandbox",
        case.ended().await?.wait_running(PATIENCE).await,
        &Kind::SandboxEnded,
    )
}

async fn wait_unknown(case: Arc<Case>) -> Outcome {
    not_done(
        "`wait-running` of an unknown sandbox",
        unknown(&case).await?.wait_running(PATIENCE).await,
        &Kind::NotFound,
    )
}

async fn pause(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    for _ in 0..2 {
        sandbox.pause().await?;
        is_paused(&sandbox).await?;
    }
    for _ in 0..2 {
        case.other().await?.sandbox(sandbox.id()).resume().await?;
        is_running(&sandbox).await?;
    }
    printed("a command after a pause", &sandbox.run(ExecSpec::new(["echo", "x"])).await?, "x\n")
}

/// Starts a process that outlives its command and writes the output of `line` to a file five times a second.
async fn write_often(case: &Case, sandbox: &Sandbox, line: &str) -> Outcome<String> {
    let path = case.file().await?;
    let loops = format!("(while :; do {line}; sleep 0.2; done) >{path} 2>/dev/null </dev/null & :");
    case.sh(sandbox, &loops).await?;
    Ok(path)
}

/// Waits until a file has more than `lines` lines, and returns them.
async fn more_lines(case: &Case, sandbox: &Sandbox, path: &str, lines: usize) -> Outcome<Vec<String>> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        let text = case.sh(sandbox, &format!("cat {path}")).await?;
        let found: Vec<_> = text.lines().map(str::to_owned).collect();
        if found.len() > lines {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    failed(format!("a process had not written line {} after {PATIENCE:?}", lines + 1))
}

async fn pause_freezes(case: Arc<Case>) -> Outcome {
    const PAUSE: u64 = 6;
    let sandbox = case.sandbox().await?;
    // The process writes the time, so a pause is a gap between two lines.
    let path = write_often(&case, &sandbox, "date +%s").await?;
    let before = more_lines(&case, &sandbox, &path, 3).await?.len();
    sandbox.pause().await?;
    tokio::time::sleep(Duration::from_secs(PAUSE)).await;
    sandbox.resume().await?;
    // The process that ran before goes on.
    let lines = more_lines(&case, &sandbox, &path, before + 3).await?;
    let times: Vec<u64> = lines.iter().filter_map(|line| line.parse().ok()).collect();
    let gap = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0);
    ensure!(gap + 2 >= PAUSE, "during a pause of {PAUSE} s, a process was silent for {gap} s at most");
    Ok(())
}

async fn pause_keeps(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.sandbox().await?, case.path("file"));
    sandbox.write_file(&path, "kept", Default::default()).await?;
    sandbox.pause().await?;
    sandbox.resume().await?;
    same("a file of a sandbox that was paused", &sandbox.read_file(&path, 100).await?, b"kept")
}

async fn pause_and_terminate(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.pause().await?;
    ends("a paused sandbox", &sandbox).await
}

async fn pause_ended(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    not_done("`pause` of an ended sandbox", ended.pause().await, &Kind::SandboxEnded)?;
    not_done("`resume` of an ended sandbox", ended.resume().await, &Kind::SandboxEnded)
}

async fn pause_unknown(case: Arc<Case>) -> Outcome {
    let unknown = unknown(&case).await?;
    not_done("`pause` of an unknown sandbox", unknown.pause().await, &Kind::NotFound)?;
    not_done("`resume` of an unknown sandbox", unknown.resume().await, &Kind::NotFound)
}

async fn stop(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.sandbox().await?, "/conformance-kept");
    sandbox.write_file(path, "kept", Default::default()).await?;
    for _ in 0..2 {
        sandbox.stop().await?;
        is_stopped(&sandbox).await?;
    }
    for _ in 0..2 {
        case.other().await?.sandbox(sandbox.id()).resume().await?;
        is_running(&sandbox).await?;
    }
    same("a file of a sandbox that was stopped", &sandbox.read_file(path, 100).await?, b"kept")
}

async fn stop_ends(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    // Not in /tmp, which a service may empty when a sandbox is stopped.
    let path = "/conformance-alive";
    let line = format!("(while :; do echo x; sleep 0.2; done) >{path} 2>/dev/null </dev/null & :");
    case.sh(&sandbox, &line).await?;
    more_lines(&case, &sandbox, path, 1).await?;
    sandbox.stop().await?;
    sandbox.resume().await?;
    let before = case.lines(&sandbox, path).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = case.lines(&sandbox, path).await?;
    ensure!(before == after, "a process that was stopped wrote {} lines after `resume`", after.saturating_sub(before));
    Ok(())
}

async fn stop_then_run(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    printed("a command before a stop", &sandbox.run(ExecSpec::new(["echo", "x"])).await?, "x\n")?;
    sandbox.stop().await?;
    sandbox.resume().await?;
    for provider in [case.provider.clone(), case.other().await?] {
        let result = provider.sandbox(sandbox.id()).run(ExecSpec::new(["echo", "y"])).await?;
        printed("a command after a stop", &result, "y\n")?;
    }
    Ok(())
}

async fn stop_restarts(case: Arc<Case>) -> Outcome {
    let path = "/conformance-starts";
    let spec = case.spec().command(["/bin/sh", "-c", &format!("echo x >>{path}; exec sleep 3600")]);
    let sandbox = case.create(spec).await?;
    for starts in 1..=2 {
        let expected = "x\n".repeat(starts);
        let begun = std::time::Instant::now();
        // The entry point needs a moment until it has written.
        loop {
            let found = sandbox.read_file(path, 100).await;
            if found.as_ref().is_ok_and(|found| found.len() >= expected.len()) || begun.elapsed() > PATIENCE {
                same(&format!("the file of an entry point that began {starts} times"), &found?, expected.as_bytes())?;
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if starts == 1 {
            sandbox.stop().await?;
            sandbox.resume().await?;
        }
    }
    Ok(())
}

async fn stop_is_no_end(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.stop().await?;
    let ended = sandbox.wait_for(Duration::from_secs(1)).await?;
    ensure!(ended.is_none(), "`wait` for a stopped sandbox returned {ended:?}");
    let listed = case.provider.list(&case.filter(), 5000).await?;
    let state = listed.into_iter().find(|info| info.id == sandbox.id()).map(|info| info.state);
    ensure!(matches!(state, Some(SandboxState::Stopped)), "a stopped sandbox is listed with the state {state:?}");
    Ok(())
}

async fn stop_and_terminate(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.stop().await?;
    ends("a stopped sandbox", &sandbox).await
}

async fn stop_ended(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    not_done("`stop` of an ended sandbox", ended.stop().await, &Kind::SandboxEnded)?;
    not_done("`resume` of an ended sandbox", ended.resume().await, &Kind::SandboxEnded)
}

async fn stop_unknown(case: Arc<Case>) -> Outcome {
    let unknown = unknown(&case).await?;
    not_done("`stop` of an unknown sandbox", unknown.stop().await, &Kind::NotFound)?;
    not_done("`resume` of an unknown sandbox", unknown.resume().await, &Kind::NotFound)
}

async fn extend(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.extend(Duration::from_secs(2)).await?;
    let ended = sandbox.wait_for(PATIENCE).await?;
    ensure!(matches!(ended, Some(EndReason::Lifetime)), "a lifetime of 2 s from now on led to {ended:?}");
    Ok(())
}

async fn extend_longer(case: Arc<Case>) -> Outcome {
    const SHORT: Duration = Duration::from_secs(20);
    let sandbox = case.create(case.spec().lifetime(SHORT)).await?;
    case.other().await?.sandbox(sandbox.id()).extend(Duration::from_secs(3600)).await?;
    let ended = sandbox.wait_for(SHORT + Duration::from_secs(5)).await?;
    ensure!(ended.is_none(), "a sandbox whose lifetime was prolonged ended with {ended:?}");
    Ok(())
}

async fn extend_time(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let early = sandbox.extend(Duration::from_secs(600)).await?;
    let late = sandbox.extend(Duration::from_secs(1200)).await?;
    // Both are times of one clock, and little time has passed between the calls.
    let apart = late.saturating_sub(early);
    ensure!((540_000..=1_200_000).contains(&apart), "lifetimes of 600 s and 1200 s end at {early} and {late}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
    let apart = now.abs_diff(u128::from(early));
    ensure!(apart < 24 * 3600 * 1000, "a lifetime of 600 s ends at {early}, and it is {now}");
    Ok(())
}

async fn extend_ended(case: Arc<Case>) -> Outcome {
    let extended = case.ended().await?.extend(Duration::from_secs(600)).await;
    not_done("`extend` of an ended sandbox", extended, &Kind::SandboxEnded)
}

async fn extend_unknown(case: Arc<Case>) -> Outcome {
    let extended = unknown(&case).await?.extend(Duration::from_secs(600)).await;
    not_done("`extend` of an unknown sandbox", extended, &Kind::NotFound)
}

//! Group `lifecycle`: pausing, stopping and continuing sandboxes, and changing their lifetime.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::Kind;
use sandbox_host::types::{EndReason, ExecSpec, SandboxState};

use crate::check::{Outcome, ensure, printed, refused, same};
use crate::table::checks;
use crate::world::Case;

checks! {
    "lifecycle.wait-running" ["wait-running"] "wait-running: returns true when the sandbox runs commands" => wait_running;
    "lifecycle.wait-running-ended" ["wait-running"] "wait-running: fails with `sandbox-ended` if the sandbox has ended" => wait_ended;
    "lifecycle.pause" ["pause", "exec", "program:echo"] "pause: freezes the sandbox; `resume` continues it; both are idempotent" => pause;
    "lifecycle.stop" ["stop", "files"] "stop: ends the processes and keeps the files; `resume` starts the sandbox again" => stop;
    "lifecycle.extend" ["lifetime.extend"] "extend: sets how long the sandbox may live from now on" => extend;
}

/// How long the start or the end of a sandbox may take.
const PATIENCE: Duration = Duration::from_secs(60);

async fn wait_running(case: Arc<Case>) -> Outcome {
    let runs = case.sandbox().await?.wait_running(PATIENCE).await?;
    ensure!(runs, "a new sandbox did not run after {PATIENCE:?}");
    Ok(())
}

async fn wait_ended(case: Arc<Case>) -> Outcome {
    let waited = case.ended().await?.wait_running(PATIENCE).await;
    refused("`wait-running` of an ended sandbox", waited, &Kind::SandboxEnded)?;
    Ok(())
}

async fn pause(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    for _ in 0..2 {
        sandbox.pause().await?;
        let state = sandbox.info().await?.state;
        ensure!(matches!(state, SandboxState::Paused), "a paused sandbox has the state {state:?}");
    }
    for _ in 0..2 {
        case.other().await?.sandbox(sandbox.id()).resume().await?;
        let state = sandbox.info().await?.state;
        ensure!(matches!(state, SandboxState::Running), "a resumed sandbox has the state {state:?}");
    }
    printed("a command after a pause", &sandbox.run(ExecSpec::new(["echo", "x"])).await?, "x\n")
}

async fn stop(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.sandbox().await?, "/conformance-kept");
    sandbox.write_file(path, "kept", Default::default()).await?;
    for _ in 0..2 {
        sandbox.stop().await?;
        let state = sandbox.info().await?.state;
        ensure!(matches!(state, SandboxState::Stopped), "a stopped sandbox has the state {state:?}");
    }
    sandbox.resume().await?;
    same("a file of a sandbox that was stopped", &sandbox.read_file(path, 100).await?, b"kept")
}

async fn extend(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    sandbox.extend(Duration::from_secs(2)).await?;
    let ended = sandbox.wait_for(PATIENCE).await?;
    ensure!(matches!(ended, Some(EndReason::Lifetime)), "a lifetime of 2 s from now on led to {ended:?}");
    Ok(())
}

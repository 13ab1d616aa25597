//! Group `faults`: connections between provider and service that are cut, delayed, stalled and refused. A call returns the
//! exact result, or an error that says whether it has happened. A repetition with the same ids then gives the exact
//! result, a command runs once, bytes arrive once, and no call hangs.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{ExecSpec, Keep, ListFilter, WriteMode, WriteOptions};
use sandbox_host::{Error, Happened, Kind, Provider, fresh_id};
use tokio::io::AsyncWriteExt as _;

use super::exec::limits;
use super::processes::all;
use crate::check::{Outcome, Stop, ensure, exited, failed, pattern, printed, refused, same, told};
use crate::gate::{Damage, Gate, Plan};
use crate::table::checks;
use crate::world::Case;

checks! {
    "faults.no-connection" [] "error-kind: `unavailable` if the service cannot be reached" => no_connection;
    "faults.no-connection-for-create" [] "happened: `no` if the request was certainly not sent" => no_create;
    "faults.slow-connection" ["exec", "program:cat"] "run: small delays of a connection change nothing" => slow;
    "faults.run" ["exec", "exec.idempotent", "program:cat"] "run: idempotent by `spec.id` after any error" => run;
    "faults.lost-answer" ["exec", "exec.idempotent", "program:echo"] "run: a repetition after a lost answer returns the output of the first run" => lost_answer;
    "faults.run-runs-once" ["exec", "exec.idempotent", "program:sh", "program:cat"] "run: a repetition after any error never runs the command again" => runs_once;
    "faults.output" ["processes", "program:cat"] "read-output: bytes arrive once and in order" => output;
    "faults.input" ["processes", "program:cat"] "write-input: idempotent; bytes arrive once and in order" => input;
    "faults.write-file" ["files"] "write-file: idempotent; the file has the old or the new content" => write_file;
    "faults.append-file" ["files", "files.append"] "write-file: data is appended once" => append_file;
    "faults.read-file" ["files"] "read-file: returns exact content or an error" => read_file;
    "faults.create" ["create.idempotent", "create.tags"] "create: idempotent if `key` is set, after any error" => create;
    "faults.terminate" [] "terminate: idempotent after any error" => terminate;
    "faults.silent-connection" ["exec", "exec.idempotent", "program:echo"] "error-kind: a connection that carries nothing any more does not block a call for ever" => silent;
}

/// Time limit of one call with damaged connections. A provider may use all its retries, some ten seconds for each request
/// of the call.
const BOUND: Duration = Duration::from_secs(180);

/// Number of seeds for each operation.
const SEEDS: u64 = 4;

/// A provider behind a proxy.
struct Line {
    gate: Gate,
    provider: Provider,
}

/// Opens a proxy and makes a provider behind it. Skips the check if the provider sends no requests.
async fn line(case: &Case) -> Outcome<Line> {
    // The shared sandbox exists, so a provider with a service has sent requests.
    case.shared().await?;
    if case.provider.metrics().requests == 0 {
        return Err(Stop::Skipped("the provider sends no requests".to_owned()));
    }
    let gate = Gate::open(case.sockets()).await?;
    let provider = case.through(&gate).await?;
    Ok(Line { gate, provider })
}

/// Awaits a call, which must end within [`BOUND`].
async fn bounded<T>(what: &str, call: impl Future<Output = T>) -> Outcome<T> {
    match tokio::time::timeout(BOUND, call).await {
        Ok(ended) => Ok(ended),
        Err(_) => failed(format!("{what}: no answer after {BOUND:?}")),
    }
}

/// Checks that an error of a damaged connection has a kind that fits.
fn fits(what: &str, error: &Error) -> Outcome {
    let kind = error.kind();
    let fits =
        matches!(kind, Kind::Unavailable | Kind::TimedOut | Kind::Internal | Kind::ResourceExhausted | Kind::Conflict);
    ensure!(fits, "{what}: a damaged connection led to {}", told(error));
    Ok(())
}

/// Runs an operation with a few seeds, each with a new provider behind damaged connections.
async fn with_seeds<F: Future<Output = Outcome>>(
    case: &Case,
    size: usize,
    operation: impl Fn(Provider, String) -> F,
) -> Outcome {
    for number in 0..SEEDS {
        let line = line(case).await?;
        let seed = case.seed.wrapping_mul(1000) + number;
        line.gate.damage(seed, size);
        let ended = operation(line.provider.clone(), format!("with the seed {seed}")).await;
        line.gate.calm();
        ended?;
    }
    Ok(())
}

async fn no_connection(case: Arc<Case>) -> Outcome {
    let line = line(&case).await?;
    line.gate.refuse();
    let checked = bounded("`check` without a connection", line.provider.check()).await?;
    refused("`check` without a connection", checked, &Kind::Unavailable)?;
    line.gate.calm();
    bounded("`check` with a connection again", line.provider.check()).await??;
    Ok(())
}

async fn no_create(case: Arc<Case>) -> Outcome {
    let line = line(&case).await?;
    line.gate.refuse();
    let made = bounded("`create` without a connection", case.try_create_by(&line.provider, case.spec())).await?;
    let error = refused("`create` without a connection", made.map(drop), &Kind::Unavailable)?;
    ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    Ok(())
}

async fn slow(case: Arc<Case>) -> Outcome {
    let line = line(&case).await?;
    line.gate.damage_all(Plan { damage: Damage::Delay(Duration::from_millis(20)), at: 0, of_answers: true });
    let (sandbox, data) = (line.provider.sandbox(case.shared().await?.id()), pattern(1, 50_000));
    let call = sandbox.run_with(ExecSpec::new(["cat"]), data.clone(), limits(1 << 20, Keep::Head));
    printed("`cat` over a slow connection", &bounded("`run` over a slow connection", call).await??, data)
}

async fn run(case: Arc<Case>) -> Outcome {
    let data = pattern(2, 300_000);
    let sandbox = case.shared().await?;
    with_seeds(&case, data.len(), |provider, seed| {
        let (sandbox, data) = (sandbox.clone(), data.clone());
        async move {
            let (what, command) = (format!("`cat` {seed}"), ExecSpec::new(["cat"]));
            let damaged = provider.sandbox(sandbox.id());
            let call = damaged.run_with(command.clone(), data.clone(), limits(1 << 20, Keep::Head));
            match bounded(&what, call).await? {
                Ok(result) => printed(&what, &result, &data)?,
                Err(error) => fits(&what, &error)?,
            }
            let again = sandbox.run_with(command, data.clone(), limits(1 << 20, Keep::Head)).await?;
            printed(&format!("{what}, repeated"), &again, &data)
        }
    })
    .await
}

async fn lost_answer(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    // The connection ends in the middle of some answer of the call, at different places.
    for at in [1, 60, 150, 400, 900] {
        let line = line(&case).await?;
        line.gate.damage_all(Plan { damage: Damage::Cut, at, of_answers: true });
        let (what, first) = (format!("`echo` with answers cut after {at} bytes"), ExecSpec::new(["echo", "first"]));
        let damaged = line.provider.sandbox(sandbox.id());
        match tokio::time::timeout(BOUND, damaged.run(first.clone())).await {
            Ok(Ok(result)) => printed(&what, &result, "first\n")?,
            Ok(Err(error)) if error.happened() == Happened::No => {
                fits(&what, &error)?;
                // A command that has not run is run now, with the new arguments.
                let second = ExecSpec { id: first.id, ..ExecSpec::new(["echo", "second"]) };
                printed(&format!("{what}, which has not happened"), &sandbox.run(second).await?, "second\n")?;
                continue;
            }
            Ok(Err(error)) => fits(&what, &error)?,
            Err(_) => return failed(format!("{what}: no answer after {BOUND:?}")),
        }
        let result = sandbox.run(first).await?;
        printed(&format!("{what}, repeated"), &result, "first\n")?;
    }
    Ok(())
}

async fn runs_once(case: Arc<Case>) -> Outcome {
    let (case, sandbox) = (&case, case.shared().await?);
    case.needs_tmp().await?;
    with_seeds(case, 3000, |provider, seed| {
        let sandbox = sandbox.clone();
        async move {
            let path = case.file().await?;
            let (what, command) = (format!("a command {seed}"), ExecSpec::shell(format!("echo x >>{path}; echo done")));
            match bounded(&what, provider.sandbox(sandbox.id()).run(command.clone())).await? {
                Ok(result) => printed(&what, &result, "done\n")?,
                Err(error) => fits(&what, &error)?,
            }
            printed(&format!("{what}, repeated"), &sandbox.run(command).await?, "done\n")?;
            let count = case.lines(&sandbox, &path).await?;
            ensure!(count == 1, "{what} and its repetition ran {count} times");
            Ok(())
        }
    })
    .await
}

async fn output(case: Arc<Case>) -> Outcome {
    let data = pattern(3, 2_000_003);
    let sandbox = case.shared().await?;
    let mut process = sandbox.spawn(ExecSpec::new(["cat"])).await?;
    if let Some(mut stdin) = process.stdin.take() {
        stdin.write_all(&data).await?;
        stdin.shutdown().await?;
    }
    let id = process.detach();
    let (sandbox, data, id) = (&sandbox, &data, &id);
    with_seeds(&case, data.len(), |provider, seed| async move {
        let what = format!("output {seed}");
        let attached = provider.sandbox(sandbox.id()).attach(id);
        match bounded(&what, attached.wait_with_output()).await? {
            Ok(output) => {
                same(&what, &output.stdout, data)?;
                exited(&what, &output.verdict, 0)
            }
            Err(error) => fits(&what, &error),
        }
    })
    .await?;
    let whole = all(sandbox.attach(id)).await?;
    same("output that was read with damaged connections before", &whole.stdout, data)
}

async fn input(case: Arc<Case>) -> Outcome {
    let data = pattern(4, 1_000_003);
    let sandbox = case.shared().await?;
    let (sandbox, data) = (&sandbox, &data);
    with_seeds(&case, data.len(), |provider, seed| async move {
        let what = format!("input {seed}");
        let id = sandbox.spawn(ExecSpec::new(["cat"])).await?.detach();
        let mut attached = provider.sandbox(sandbox.id()).attach(&id);
        let Some(mut stdin) = attached.stdin.take() else { return failed("the process has no standard input") };
        let written = async {
            stdin.write_all(data).await?;
            stdin.shutdown().await
        };
        match bounded(&what, written).await? {
            Ok(()) => {
                let output = all(sandbox.attach(&id)).await?;
                same(&what, &output.stdout, data)?;
                exited(&what, &output.verdict, 0)
            }
            Err(error) => {
                // What has arrived is the beginning of the data.
                drop(attached);
                let output = all(sandbox.attach(&id)).await?;
                let arrived = output.stdout.len().min(data.len());
                same(&format!("{what}, which failed with {error}"), &output.stdout, &data[..arrived])
            }
        }
    })
    .await
}

async fn write_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let (old, new) = (pattern(5, 1000), pattern(6, 1_500_001));
    let (sandbox, path, old, new) = (&sandbox, &path, &old, &new);
    with_seeds(&case, new.len(), |provider, seed| async move {
        let what = format!("a write {seed}");
        sandbox.write_file(path, old, WriteOptions::default()).await?;
        let damaged = provider.sandbox(sandbox.id());
        let happened = match bounded(&what, damaged.write_file(path, new, WriteOptions::default())).await? {
            Ok(()) => Happened::Yes,
            Err(error) => {
                fits(&what, &error)?;
                error.happened()
            }
        };
        let found = sandbox.read_file(path, 8 << 20).await?;
        ensure!(
            &found == new || &found == old,
            "{what}: {} bytes that are neither the old nor the new content",
            found.len()
        );
        ensure!(happened != Happened::Yes || &found == new, "{what} has happened, but the file has the old content");
        ensure!(happened != Happened::No || &found == old, "{what} has not happened, but the file has the new content");
        Ok(())
    })
    .await
}

async fn append_file(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let data = pattern(7, 200_003);
    let (sandbox, data, path) = (&sandbox, &data, &case.path("folder"));
    with_seeds(&case, data.len(), |provider, seed| async move {
        let (what, path) = (format!("an append {seed}"), format!("{path}/{}", fresh_id()));
        sandbox.write_file(&path, "begin", WriteOptions::default()).await?;
        let append = WriteOptions { mode: WriteMode::Append, ..WriteOptions::default() };
        let written = bounded(&what, provider.sandbox(sandbox.id()).write_file(&path, data, append)).await?;
        let found = sandbox.read_file(&path, 8 << 20).await?;
        let longer = [b"begin", &data[..]].concat();
        match written {
            Ok(()) => same(&what, &found, &longer),
            Err(error) => {
                fits(&what, &error)?;
                ensure!(
                    found == b"begin" || found == longer,
                    "{what}: {} bytes are neither none nor one append",
                    found.len()
                );
                Ok(())
            }
        }
    })
    .await
}

async fn read_file(case: Arc<Case>) -> Outcome {
    let (sandbox, path, data) = (case.shared().await?, case.path("file"), pattern(8, 2_000_003));
    sandbox.write_file(&path, &data, WriteOptions::default()).await?;
    let (sandbox, path, data) = (&sandbox, &path, &data);
    with_seeds(&case, data.len(), |provider, seed| async move {
        let what = format!("a read {seed}");
        match bounded(&what, provider.sandbox(sandbox.id()).read_file(path, 8 << 20)).await? {
            Ok(found) => same(&what, &found, data),
            Err(error) => fits(&what, &error),
        }
    })
    .await
}

async fn create(case: Arc<Case>) -> Outcome {
    let case = &case;
    with_seeds(case, 2000, |provider, seed| async move {
        let (what, mark) = (format!("a create {seed}"), fresh_id());
        let spec = case.spec().tag("conformance", &mark).key(fresh_id());
        let first = bounded(&what, case.try_create_by(&provider, spec.clone())).await?;
        let again = case.create(spec).await?;
        match first {
            Ok(made) => ensure!(
                made.sandbox.id() == again.id(),
                "{what} made {}, and its repetition {}",
                made.sandbox.id(),
                again.id()
            ),
            Err(error) => fits(&what, &error)?,
        }
        let found = case.provider.list(&ListFilter::default().tag("conformance", &mark), 10).await?;
        ensure!(found.len() == 1, "{what} and its repetition made {} sandboxes", found.len());
        Ok(())
    })
    .await
}

async fn terminate(case: Arc<Case>) -> Outcome {
    let case = &case;
    with_seeds(case, 500, |provider, seed| async move {
        let (what, sandbox) = (format!("a terminate {seed}"), case.sandbox().await?);
        let ended = bounded(&what, provider.sandbox(sandbox.id()).terminate()).await?;
        if let Err(error) = &ended {
            fits(&what, error)?;
            sandbox.terminate().await?;
        }
        let ended = sandbox.wait_for(Duration::from_secs(60)).await?;
        ensure!(ended.is_some(), "{what}: the sandbox had not ended after 60 s");
        Ok(())
    })
    .await
}

async fn silent(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let line = line(&case).await?;
    let first = ExecSpec::new(["echo", "first"]);
    line.gate.damage_once(Plan { damage: Damage::Swallow, at: 200, of_answers: true });
    let what = "`echo` over a connection that became silent";
    match bounded(what, line.provider.sandbox(sandbox.id()).run(first.clone())).await? {
        Ok(result) => printed(what, &result, "first\n")?,
        Err(error) => fits(what, &error)?,
    }
    printed(&format!("{what}, repeated"), &sandbox.run(first).await?, "first\n")
}

//! Group `callers`: several callers of one sandbox, callers that know only ids, lost answers, and cancelled calls.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{ExecSpec, OutputLimits, SandboxState, Verdict, WriteOptions};
use sandbox_host::{Provider, Sandbox};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::processes::{all, end, read_until, stdout, write};
use crate::check::{Outcome, ensure, exited, failed, pattern, printed, same};
use crate::table::checks;
use crate::world::Case;

checks! {
    "callers.sandbox-by-id" [] "sandbox-id: another instance uses a sandbox by its id" => sandbox_by_id;
    "callers.run-by-id" ["exec", "program:echo"] "sandbox-id: another instance runs commands in a sandbox by its id" => run_by_id;
    "callers.terminate-by-id" [] "terminate: another instance ends a sandbox by its id, and the first one sees that" => terminate_by_id;
    "callers.two-readers" ["processes", "program:cat"] "read-output: several callers read the same exec, each with its own offsets, while it runs" => two_readers;
    "callers.a-reader-that-stops" ["processes", "program:cat"] "read-output: a caller that stops reading does not affect another one" => reader_stops;
    "callers.output-by-ids" ["processes", "program:cat"] "exec-ref: sandbox and exec id are enough to read all output from offset 0" => output_by_ids;
    "callers.input-by-ids" ["processes", "program:cat"] "write-input: another instance continues the input at the accepted offset" => input_by_ids;
    "callers.repeated-input" ["processes", "program:cat"] "write-input: bytes below the accepted offset are skipped as repetitions" => repeated_input;
    "callers.wait-by-ids" ["processes"] "wait-exec: several callers wait for one exec and get the same verdict" => wait_by_ids;
    "callers.signal-by-ids" ["processes", "exec.signal", "program:sleep"] "signal: another instance signals a command by its ids" => signal_by_ids;
    "callers.many-instances" ["exec", "program:cat"] "run: instances that share nothing do not disturb each other" => many_instances;
    "callers.cancelled-run" ["exec", "program:sleep", "program:echo"] "run: after a cancelled call the sandbox works as before" => cancelled_run;
    "callers.cancelled-run-is-killed" ["exec", "processes", "exec.signal", "program:sleep"] "run: a command whose call was cancelled can be ended by `signal`" => cancelled_run_is_killed;
    "callers.dropped-process-is-killed" ["processes", "exec.signal", "program:sleep"] "signal: ends a command whose caller is gone" => dropped_process;
    "callers.detached-process-goes-on" ["processes", "program:cat"] "start: a command goes on when its caller is gone" => detached_process;
    "callers.cancelled-write" ["files"] "write-file: after a cancelled write the file can be written again" => cancelled_write;
}

/// Returns two handles to the shared sandbox, of two providers that share nothing.
async fn two(case: &Case) -> Outcome<(Sandbox, Sandbox)> {
    let sandbox = case.shared().await?;
    let other = case.other().await?.sandbox(sandbox.id());
    Ok((sandbox, other))
}

async fn sandbox_by_id(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let info = other.info().await?;
    ensure!(info.id == sandbox.id(), "`get` of {} returned {}", sandbox.id(), info.id);
    ensure!(!matches!(info.state, SandboxState::Ended(_)), "another instance says {:?}", info.state);
    Ok(())
}

async fn run_by_id(case: Arc<Case>) -> Outcome {
    let (_, other) = two(&case).await?;
    printed("a command by another instance", &other.run(ExecSpec::new(["echo", "hello"])).await?, "hello\n")
}

async fn terminate_by_id(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    case.other().await?.sandbox(sandbox.id()).terminate().await?;
    let ended = sandbox.wait_for(Duration::from_secs(60)).await?;
    ensure!(ended.is_some(), "the first instance had not seen the end after 60 s");
    Ok(())
}

async fn two_readers(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let mut process = sandbox.spawn(ExecSpec::new(["cat"])).await?;
    let mut second = other.attach(process.id());
    let (mut one, mut two) = (stdout(&mut process)?, stdout(&mut second)?);
    for word in ["first\n", "second\n"] {
        write(&mut process, word.as_bytes()).await?;
        for (reader, which) in [(&mut one, "first"), (&mut two, "second")] {
            let seen = read_until(reader, "\n").await?;
            ensure!(seen == word, "the {which} reader got {seen:?} instead of {word:?}");
        }
    }
    drop(process.stdin.take());
    exited("the command, for the first caller", &end(&mut process).await?, 0)?;
    exited("the command, for the second caller", &end(&mut second).await?, 0)
}

async fn reader_stops(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let data = pattern(8, 300_000);
    let mut process = sandbox.spawn(ExecSpec::new(["cat"])).await?;
    write(&mut process, &data).await?;
    let mut second = other.attach(process.id());
    let mut reader = stdout(&mut second)?;
    let read = tokio::time::timeout(Duration::from_secs(60), reader.read(&mut [0; 10])).await;
    ensure!(matches!(read, Ok(Ok(1..))), "the second reader got {read:?}");
    drop((reader, second));
    let output = all(process).await?;
    same("the output for the first caller", &output.stdout, &data)?;
    exited("the command", &output.verdict, 0)
}

async fn output_by_ids(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let data = pattern(9, 200_000);
    let mut process = sandbox.spawn(ExecSpec::new(["cat"])).await?;
    write(&mut process, &data).await?;
    drop(process.stdin.take());
    let mut read = vec![0; 1000];
    stdout(&mut process)?.read_exact(&mut read).await?;
    let id = process.detach();
    let output = all(other.attach(&id)).await?;
    same("the output for a caller with only ids", &output.stdout, &data)?;
    exited("the command", &output.verdict, 0)
}

async fn input_by_ids(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let mut process = sandbox.spawn(ExecSpec::new(["cat"])).await?;
    write(&mut process, b"one ").await?;
    let id = process.detach();
    let mut second = other.attach(&id);
    write(&mut second, b"two ").await?;
    let mut third = case.other().await?.sandbox(sandbox.id()).attach(&id);
    write(&mut third, b"three").await?;
    let output = all(third).await?;
    same("input by three callers", &output.stdout, b"one two three")?;
    exited("the command", &output.verdict, 0)
}

async fn repeated_input(case: Arc<Case>) -> Outcome {
    let ((sandbox, other), command) = (two(&case).await?, ExecSpec::new(["cat"]));
    let mut first = sandbox.spawn(command.clone()).await?;
    write(&mut first, b"abcdef").await?;
    // A caller that lost the answer starts the command again and writes its input from the beginning.
    let mut second = other.spawn(command).await?;
    write(&mut second, b"abc").await?;
    write(&mut second, b"defghi").await?;
    let output = all(second).await?;
    same("input that was written twice", &output.stdout, b"abcdefghi")?;
    exited("the command", &output.verdict, 0)
}

async fn wait_by_ids(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let mut process = sandbox.spawn(case.exit(9).await?).await?;
    let (mut second, mut third) = (other.attach(process.id()), other.attach(process.id()));
    let verdicts = tokio::join!(end(&mut process), end(&mut second), end(&mut third));
    for verdict in [verdicts.0?, verdicts.1?, verdicts.2?] {
        exited("the command, for one of three callers", &verdict, 9)?;
    }
    Ok(())
}

async fn signal_by_ids(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let mut process = sandbox.spawn(ExecSpec::new(["sleep", "600"])).await?;
    other.attach(process.id()).kill().await?;
    let verdict = end(&mut process).await?;
    ensure!(matches!(verdict, Verdict::Signaled(9)), "the verdict is {verdict:?}");
    Ok(())
}

async fn many_instances(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let mut providers: Vec<Provider> = Vec::new();
    for _ in 0..4 {
        providers.push(case.other().await?);
    }
    let runs = (0..16).map(|number| {
        let sandbox = providers[number % 4].sandbox(sandbox.id());
        async move {
            let data = pattern(number as u64, 10_000);
            let result = sandbox.run_with(ExecSpec::new(["cat"]), data.clone(), OutputLimits::default()).await?;
            printed("a command of one of 4 providers", &result, data)
        }
    });
    futures_util::future::try_join_all(runs).await.map(drop)
}

/// Cancels a run soon after it has begun.
async fn cancel(sandbox: &Sandbox, command: ExecSpec) -> Outcome {
    let cancelled = tokio::time::timeout(Duration::from_secs(1), sandbox.run(command)).await;
    ensure!(cancelled.is_err(), "`sleep 600` ended within a second: {cancelled:?}");
    Ok(())
}

async fn cancelled_run(case: Arc<Case>) -> Outcome {
    case.needs_calls_beside_run()?;
    let sandbox = case.sandbox().await?;
    for _ in 0..3 {
        cancel(&sandbox, ExecSpec::new(["sleep", "600"])).await?;
        printed("a command after a cancelled one", &sandbox.run(ExecSpec::new(["echo", "x"])).await?, "x\n")?;
    }
    Ok(())
}

async fn cancelled_run_is_killed(case: Arc<Case>) -> Outcome {
    let (sandbox, command) = (case.shared().await?, ExecSpec::new(["sleep", "600"]));
    let id = command.id.clone();
    cancel(&sandbox, command).await?;
    // The host sends the signal when the call is dropped.
    is_killed(&sandbox, &id).await
}

/// Waits until a command whose caller is gone was killed. A command that has not started yet is unknown.
async fn is_killed(sandbox: &Sandbox, id: &str) -> Outcome {
    let begun = std::time::Instant::now();
    let mut unknown = true;
    while begun.elapsed() < Duration::from_secs(60) {
        match tokio::time::timeout(Duration::from_secs(60), sandbox.attach(id).wait()).await {
            Ok(Err(error)) if error.is_not_found() => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(verdict) => {
                let verdict = verdict?;
                ensure!(matches!(verdict, Verdict::Signaled(9)), "the verdict is {verdict:?}");
                return Ok(());
            }
            Err(_) => {
                unknown = false;
                break;
            }
        }
    }
    // The call was cancelled before it had started the command.
    if unknown {
        return Ok(());
    }
    failed("the command had not been killed after 60 s")
}

async fn dropped_process(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let process = sandbox.spawn(ExecSpec::new(["sleep", "600"])).await?;
    let id = process.id().to_owned();
    drop(process);
    is_killed(&sandbox, &id).await
}

async fn detached_process(case: Arc<Case>) -> Outcome {
    let (sandbox, other) = two(&case).await?;
    let id = sandbox.spawn(ExecSpec::new(["cat"])).await?.detach();
    let mut process = other.attach(&id);
    write(&mut process, b"still there").await?;
    let output = all(process).await?;
    same("the output of a detached command", &output.stdout, b"still there")?;
    exited("a detached command", &output.verdict, 0)
}

async fn cancelled_write(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.path("file"));
    let (mut writer, reader) = tokio::io::duplex(1024);
    let upload = tokio::spawn({
        let (sandbox, path) = (sandbox.clone(), path.clone());
        async move { sandbox.upload(&path, reader, WriteOptions::default()).await }
    });
    // The host reads at most two pieces of 8 MiB ahead, so some data has been sent when it has taken more.
    let sent = tokio::time::timeout(Duration::from_secs(120), writer.write_all(&vec![b'n'; 20 << 20])).await;
    ensure!(sent.is_ok(), "20 MiB were not accepted within 120 s");
    upload.abort();
    let _ = upload.await;
    sandbox.write_file(&path, "complete", WriteOptions::default()).await?;
    same("a file that is written after a cancelled write", &sandbox.read_file(&path, 8 << 20).await?, b"complete")
}

//! Group `processes`: commands that are started, read, fed, waited for and signalled by several calls, and the entry point.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join;
use sandbox_host::types::{EndReason, ExecInfo, ExecSpec, OutputMode, Pty, SandboxSpec, Verdict};
use sandbox_host::{Happened, Kind, OutputStream, Process, ProcessOutput, Sandbox, Signal, fresh_id};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::exec::{PRINTS_A_LOT, TREE, TREE_FILES, is_silent};
use crate::check::{Outcome, ensure, exited, failed, pattern, refused, same, told};
use crate::table::checks;
use crate::world::{Case, altered};

checks! {
    "processes.start-and-read" ["processes", "program:echo"] "read-output: returns the output of a started command from offset 0, and the verdict" => start_and_read;
    "processes.input-in-pieces" ["processes", "program:cat"] "write-input: pieces arrive in order, and `eof` ends the input" => input_in_pieces;
    "processes.dialogue" ["processes", "program:cat"] "read-output: returns output while the command runs and waits for input" => dialogue;
    "processes.exit-codes" ["processes"] "wait-exec: returns the verdict" => exit_codes;
    "processes.missing-program" ["processes"] "start: a missing program is the verdict `exited(127)`, no error" => missing_program;
    "processes.streams-are-apart" ["processes", "program:sh"] "output: standard output and standard error are apart" => streams;
    "processes.start-again-runs-once" ["processes", "program:cat"] "start: idempotent by `spec.id`; a repeated start never runs the command again" => start_again;
    "processes.start-again-after-end" ["processes", "program:echo"] "start: a repeated start after the end returns the first output" => start_after_end;
    "processes.start-counts-once" ["processes", "exec", "program:sh", "program:cat"] "start: a repeated start never runs the command again, also by another instance" => counts_once;
    "processes.read-after-end" ["processes", "program:echo"] "output-mode: the provider keeps all output as long as the sandbox runs" => read_after_end;
    "processes.large-output" ["processes", "program:cat"] "read-output: output of several megabytes arrives once and in order" => large_output;
    "processes.slow-reader" ["processes", "program:cat"] "read-output: a reader that pauses misses nothing" => slow_reader;
    "processes.wait-running" ["processes", "program:sleep"] "wait-exec: returns none while the command runs" => wait_running;
    "processes.wait-unknown" ["processes"] "wait-exec: fails with `not-found` for an unknown exec" => wait_unknown;
    "processes.unknown-sandbox" ["processes"] "start: fails with `not-found` if the provider does not know the sandbox" => unknown_sandbox;
    "processes.ended-sandbox" ["processes"] "start: fails with `sandbox-ended` if the sandbox has ended" => ended_sandbox;
    "processes.sandbox-ends-meanwhile" ["processes", "program:sleep"] "wait-exec: returns the verdict `sandbox-ended` if the sandbox ended first" => ends_meanwhile;
    "processes.kill" ["processes", "exec.signal", "program:sleep"] "signal: SIGKILL ends a command with the verdict `signaled(9)`" => kill;
    "processes.terminate" ["processes", "exec.signal", "program:sleep"] "signal: SIGTERM ends a command without a handler with the verdict `signaled(15)`" => terminate;
    "processes.signal-handler" ["processes", "exec.signal", "program:sh", "program:sleep"] "signal: the command can handle the signal" => handler;
    "processes.signal-reaches-children" ["processes", "exec", "exec.signal", "program:sh", "program:cat", "program:sleep"] "signal: goes to the whole process tree" => reaches_children;
    "processes.signal-spares-others" ["processes", "exec.signal", "program:sleep"] "signal: other commands of the sandbox go on" => spares_others;
    "processes.signal-ended" ["processes", "exec.signal", "program:echo"] "signal: succeeds if the exec has ended" => signal_ended;
    "processes.signal-unknown" ["processes", "exec.signal"] "signal: fails with `not-found` for an unknown exec" => signal_unknown;
    "processes.signal-main" ["processes", "exec.signal"] "exec-id: `main` cannot be signalled" => signal_main;
    "processes.time-limit" ["processes", "exec.deadline", "program:sleep"] "verdict: `deadline` after the time limit" => time_limit;
    "processes.time-limit-not-reached" ["processes", "exec.deadline"] "verdict: a command that ended in time has its exit code, also later" => in_time;
    "processes.time-limit-output" ["processes", "exec.deadline", "program:sh"] "verdict: output that was printed before the time limit can be read" => time_limit_output;
    "processes.discarded-output" ["processes", "program:sh"] "output-mode: `discard` drops the output, and the stream ends" => discarded;
    "processes.merge-stderr" ["processes", "exec.merge-stderr", "program:sh"] "exec-spec: `merge-stderr` sends standard error to standard output" => merged;
    "processes.terminal" ["processes", "exec.pty", "program:sh", "program:stty"] "pty: the command has a terminal of this size" => terminal;
    "processes.resize" ["processes", "exec.pty", "exec.resize", "program:sh", "program:stty"] "resize: changes the size of the terminal" => resize;
    "processes.resize-without-terminal" ["processes", "exec.resize", "program:sleep"] "resize: fails with `conflict` if the command has no terminal" => resize_plain;
    "processes.closed-input" ["processes", "program:sh", "program:head"] "input-state: a program that ended early closes its input, which is no error" => closed_input;
    "processes.at-the-same-time" ["processes", "program:cat"] "start: several commands run at the same time, each with its own streams" => at_the_same_time;
    "processes.list" ["processes", "exec.list", "program:echo"] "list-execs: lists the execs, newest first, without `main`" => list;
    "processes.list-verdicts" ["processes", "exec.list", "program:sleep"] "exec-info: the verdict of an exec that has ended, and none for one that runs" => list_verdicts;
    "processes.list-arguments" ["processes", "exec.list", "program:echo"] "exec-info: the arguments and the time of the start, if the provider reports them" => list_arguments;
    "processes.list-of-runs" ["exec", "exec.list", "program:echo"] "list-execs: lists what `run` has started" => list_runs;
    "processes.list-max" ["exec.list"] "list-execs: `max` is between 1 and 1000" => list_max;
    "processes.list-ended-sandbox" ["exec.list"] "list-execs: fails with `sandbox-ended` if the sandbox has ended" => list_ended;
    "processes.list-unknown-sandbox" ["exec.list"] "list-execs: fails with `not-found` if the provider does not know the sandbox" => list_unknown;
    "processes.main-output" ["processes", "main.output", "create.command", "program:sh"] "exec-id: `main` is the entry point; its output can be read" => main_output;
    "processes.main-input" ["processes", "main.output", "main.input", "create.command", "program:sh"] "exec-id: `main` is the entry point; it can be fed and waited for" => main_input;
    "processes.main-terminal" ["processes", "create.pty", "main.output", "create.command", "program:sh", "program:stty"] "sandbox-spec: `pty` is the terminal of the entry point" => main_terminal;
    "processes.main-cannot-be-started" ["processes"] "exec-id: `main` cannot be started" => main_start;
}

/// How long the end of a command may take after it was caused.
const END: Duration = Duration::from_secs(60);

/// Waits for the end of a command.
pub(super) async fn end(process: &mut Process) -> Outcome<Verdict> {
    match tokio::time::timeout(END, process.wait()).await {
        Ok(verdict) => Ok(verdict?),
        Err(_) => failed(format!("a command had not ended after {END:?}")),
    }
}

/// Most bytes of a stream that are read: more than any command of the kit prints. A provider that returns the same output
/// again and again would otherwise use up the memory.
const MOST: u64 = 64 << 20;

/// Reads everything of a command and waits for its end.
pub(super) async fn all(mut process: Process) -> Outcome<ProcessOutput> {
    drop(process.stdin.take());
    let streams = try_join(whole(process.stdout.take()), whole(process.stderr.take()));
    match tokio::time::timeout(END, streams).await {
        Ok(streams) => {
            let (stdout, stderr) = streams?;
            Ok(ProcessOutput { verdict: end(&mut process).await?, stdout, stderr })
        }
        Err(_) => failed(format!("the output of a command had not ended after {END:?}")),
    }
}

async fn whole(stream: Option<OutputStream>) -> Outcome<Vec<u8>> {
    let mut data = Vec::new();
    if let Some(stream) = stream {
        stream.take(MOST).read_to_end(&mut data).await?;
    }
    ensure!((data.len() as u64) < MOST, "a command printed more than {MOST} bytes, or its output has no end");
    Ok(data)
}

/// Reads from a stream until it has this text.
pub(super) async fn read_until(stream: &mut OutputStream, text: &str) -> Outcome<String> {
    let (mut seen, mut piece) = (String::new(), [0; 1024]);
    let reading = async {
        while !seen.contains(text) {
            let size = stream.read(&mut piece).await?;
            ensure!(size > 0, "the output ended before {text:?}, with {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&piece[..size]));
        }
        Ok(())
    };
    match tokio::time::timeout(END, reading).await {
        Ok(read) => read?,
        Err(_) => return failed(format!("{text:?} was not printed after {END:?}")),
    }
    Ok(seen)
}

/// Takes the standard output of a process.
pub(super) fn stdout(process: &mut Process) -> Outcome<OutputStream> {
    process.stdout.take().map_or_else(|| failed("the process has no standard output"), Ok)
}

async fn start(case: &Case, argv: &[&str]) -> Outcome<Process> {
    Ok(case.shared().await?.spawn(ExecSpec::new(argv.iter().copied())).await?)
}

/// Writes a piece of input and sends it.
pub(super) async fn write(process: &mut Process, data: &[u8]) -> Outcome {
    let Some(stdin) = &mut process.stdin else { return failed("the process has no standard input") };
    stdin.write_all(data).await?;
    stdin.flush().await?;
    Ok(())
}

async fn start_and_read(case: Arc<Case>) -> Outcome {
    let output = all(start(&case, &["echo", "hello"]).await?).await?;
    exited("`echo hello`", &output.verdict, 0)?;
    same("standard output", &output.stdout, b"hello\n")?;
    same("standard error", &output.stderr, b"")
}

async fn input_in_pieces(case: Arc<Case>) -> Outcome {
    let mut process = start(&case, &["cat"]).await?;
    let mut expected = Vec::new();
    for size in [1, 3, 1000, 1, 50_000] {
        let piece = pattern(size, size as usize);
        write(&mut process, &piece).await?;
        expected.extend(piece);
    }
    let output = all(process).await?;
    exited("`cat`", &output.verdict, 0)?;
    same("input in pieces", &output.stdout, &expected)
}

async fn dialogue(case: Arc<Case>) -> Outcome {
    let mut process = start(&case, &["cat"]).await?;
    let mut stdout = stdout(&mut process)?;
    for word in ["one", "two", "three"] {
        write(&mut process, format!("{word}\n").as_bytes()).await?;
        let seen = read_until(&mut stdout, "\n").await?;
        ensure!(seen == format!("{word}\n"), "after {word:?} was written, `cat` printed {seen:?}");
    }
    exited("`cat`", &end(&mut process).await?, 0)
}

async fn exit_codes(case: Arc<Case>) -> Outcome {
    for code in [0, 3, 255] {
        let mut process = case.shared().await?.spawn(case.exit(code).await?).await?;
        exited(&format!("a command that exits with {code}"), &end(&mut process).await?, code)?;
    }
    Ok(())
}

async fn missing_program(case: Arc<Case>) -> Outcome {
    let mut process = start(&case, &["conformance-no-such-program"]).await?;
    exited("a missing program", &end(&mut process).await?, 127)
}

async fn streams(case: Arc<Case>) -> Outcome {
    let process = case.shared().await?.spawn(ExecSpec::shell("printf out; printf error >&2; exit 2")).await?;
    let output = all(process).await?;
    exited("the command", &output.verdict, 2)?;
    same("standard output", &output.stdout, b"out")?;
    same("standard error", &output.stderr, b"error")
}

async fn start_again(case: Arc<Case>) -> Outcome {
    let (sandbox, command) = (case.shared().await?, ExecSpec::new(["cat"]));
    let mut first = sandbox.spawn(command.clone()).await?;
    write(&mut first, b"one ").await?;
    let other = case.other().await?.sandbox(sandbox.id());
    let second = other.spawn(command).await?;
    // A second `cat` would not print what the first one read.
    write(&mut first, b"two").await?;
    drop(first.stdin.take());
    for (what, process) in [("the first handle", first), ("the second handle", second)] {
        let output = all(process).await?;
        same(&format!("the output by {what}"), &output.stdout, b"one two")?;
        exited(what, &output.verdict, 0)?;
    }
    Ok(())
}

async fn start_after_end(case: Arc<Case>) -> Outcome {
    let (sandbox, command) = (case.shared().await?, ExecSpec::new(["echo", "first"]));
    let id = command.id.clone();
    all(sandbox.spawn(command).await?).await?;
    let again = ExecSpec { id, ..ExecSpec::new(["echo", "again"]) };
    let output = all(sandbox.spawn(again).await?).await?;
    same("the output of a start that was repeated after the end", &output.stdout, b"first\n")
}

async fn counts_once(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.file().await?);
    let command = ExecSpec::shell(format!("echo x >>{path}"));
    let other = case.other().await?.sandbox(sandbox.id());
    let starts = [sandbox.spawn(command.clone()), other.spawn(command.clone()), sandbox.spawn(command.clone())];
    for process in futures_util::future::join_all(starts).await {
        exited("a start", &end(&mut process?).await?, 0)?;
    }
    exited("a later start", &end(&mut other.spawn(command).await?).await?, 0)?;
    let count = case.lines(&sandbox, &path).await?;
    ensure!(count == 1, "four starts with one id ran the command {count} times");
    Ok(())
}

async fn read_after_end(case: Arc<Case>) -> Outcome {
    let (sandbox, command) = (case.shared().await?, ExecSpec::new(["echo", "kept"]));
    let id = command.id.clone();
    let mut process = sandbox.spawn(command).await?;
    exited("`echo`", &end(&mut process).await?, 0)?;
    for provider in [case.provider.clone(), case.other().await?] {
        let output = all(provider.sandbox(sandbox.id()).attach(&id)).await?;
        same("output that is read after the end", &output.stdout, b"kept\n")?;
        exited("a command that is attached to after its end", &output.verdict, 0)?;
    }
    Ok(())
}

/// Feeds `cat` with this data in the background, and returns the process with its output not read.
async fn feed(sandbox: &Sandbox, data: Vec<u8>) -> Outcome<Process> {
    let mut process = sandbox.spawn(ExecSpec::new(["cat"])).await?;
    if let Some(mut stdin) = process.stdin.take() {
        tokio::spawn(async move {
            let _ = stdin.write_all(&data).await;
            let _ = stdin.shutdown().await;
        });
    }
    Ok(process)
}

async fn large_output(case: Arc<Case>) -> Outcome {
    let data = pattern(3, 5_000_001);
    let output = all(feed(&case.shared().await?, data.clone()).await?).await?;
    exited("`cat`", &output.verdict, 0)?;
    same("output of 5 MB", &output.stdout, &data)
}

async fn slow_reader(case: Arc<Case>) -> Outcome {
    let data = pattern(4, 4_000_003);
    let mut process = feed(&case.shared().await?, data.clone()).await?;
    let (mut stdout, mut seen, mut piece) = (stdout(&mut process)?, Vec::new(), vec![0; 100_000]);
    let reading = async {
        loop {
            match stdout.read(&mut piece).await? {
                0 => return Outcome::Ok(()),
                size => seen.extend_from_slice(&piece[..size]),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(END, reading).await {
        Ok(read) => read?,
        Err(_) => return failed(format!("4 MB had not been read after {END:?}")),
    }
    same("output that is read with pauses", &seen, &data)?;
    exited("`cat`", &end(&mut process).await?, 0)
}

async fn wait_running(case: Arc<Case>) -> Outcome {
    let mut process = start(&case, &["sleep", "600"]).await?;
    let waited = tokio::time::timeout(Duration::from_secs(2), process.wait()).await;
    ensure!(waited.is_err(), "`wait-exec` of a running command returned {waited:?}");
    Ok(())
}

async fn wait_unknown(case: Arc<Case>) -> Outcome {
    let waited = case.shared().await?.attach(fresh_id()).wait().await;
    refused("`wait-exec` of an exec that was never started", waited, &Kind::NotFound)?;
    Ok(())
}

async fn unknown_sandbox(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`start` in an unknown sandbox", unknown.spawn(ExecSpec::new(["echo"])).await, &Kind::NotFound)?;
    refused("`wait-exec` in an unknown sandbox", unknown.attach(fresh_id()).wait().await, &Kind::NotFound)?;
    if case.declares("exec.signal") {
        let sent = unknown.signal(&fresh_id(), Signal::TERM).await;
        let error = refused("`signal` in an unknown sandbox", sent, &Kind::NotFound)?;
        ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    }
    Ok(())
}

async fn ended_sandbox(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    refused("`start` in an ended sandbox", ended.spawn(ExecSpec::new(["echo"])).await, &Kind::SandboxEnded)?;
    Ok(())
}

async fn ends_meanwhile(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let mut process = sandbox.spawn(ExecSpec::new(["sleep", "600"])).await?;
    sandbox.terminate().await?;
    let verdict = end(&mut process).await?;
    let right = matches!(verdict, Verdict::SandboxEnded(EndReason::Terminated));
    ensure!(right, "the verdict is {verdict:?} instead of `sandbox-ended` with the reason `terminated`");
    Ok(())
}

async fn signalled(case: &Case, signal: Signal, number: u32) -> Outcome {
    let mut process = start(case, &["sleep", "600"]).await?;
    process.signal(signal).await?;
    let verdict = end(&mut process).await?;
    let right = matches!(verdict, Verdict::Signaled(found) if found == number);
    ensure!(right, "the verdict after signal {number} is {verdict:?}");
    Ok(())
}

async fn kill(case: Arc<Case>) -> Outcome {
    signalled(&case, Signal::KILL, 9).await
}

async fn terminate(case: Arc<Case>) -> Outcome {
    signalled(&case, Signal::TERM, 15).await
}

async fn handler(case: Arc<Case>) -> Outcome {
    let line = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done";
    let mut process = case.shared().await?.spawn(ExecSpec::shell(line)).await?;
    let mut stdout = stdout(&mut process)?;
    read_until(&mut stdout, "ready\n").await?;
    process.signal(Signal::USR1).await?;
    read_until(&mut stdout, "got\n").await?;
    exited("a command that handles a signal", &end(&mut process).await?, 5)
}

async fn reaches_children(case: Arc<Case>) -> Outcome {
    case.needs_tmp().await?;
    let sandbox = case.sandbox().await?;
    let mut process = sandbox.spawn(ExecSpec::shell(TREE)).await?;
    read_until(&mut stdout(&mut process)?, "ready\n").await?;
    process.kill().await?;
    let verdict = end(&mut process).await?;
    ensure!(matches!(verdict, Verdict::Signaled(9)), "the verdict is {verdict:?}");
    is_silent(&sandbox, TREE_FILES).await
}

async fn spares_others(case: Arc<Case>) -> Outcome {
    let (mut one, mut other) = (start(&case, &["sleep", "600"]).await?, start(&case, &["sleep", "600"]).await?);
    one.kill().await?;
    end(&mut one).await?;
    let waited = tokio::time::timeout(Duration::from_secs(1), other.wait()).await;
    ensure!(waited.is_err(), "a signal to one command ended another one: {waited:?}");
    Ok(())
}

async fn signal_ended(case: Arc<Case>) -> Outcome {
    let mut process = start(&case, &["echo"]).await?;
    end(&mut process).await?;
    process.signal(Signal::TERM).await?;
    process.signal(Signal::TERM).await?;
    Ok(())
}

async fn signal_unknown(case: Arc<Case>) -> Outcome {
    let sent = case.shared().await?.signal(&fresh_id(), Signal::TERM).await;
    refused("a signal to an exec that was never started", sent, &Kind::NotFound)?;
    Ok(())
}

async fn signal_main(case: Arc<Case>) -> Outcome {
    let mut sandboxes = vec![(case.shared().await?, "a sandbox that is kept alive")];
    if case.declares("create.command") && case.bench().await?.has("sleep") {
        let sandbox = case.create(case.spec().command(["sleep", "600"])).await?;
        sandboxes.push((sandbox, "a sandbox with an entry point"));
    }
    for (sandbox, what) in sandboxes {
        let sent = sandbox.signal("main", Signal::TERM).await;
        let Err(error) = sent else { return failed(format!("a signal to `main` of {what} was accepted")) };
        // A sandbox that is kept alive may have no entry point.
        let fits = matches!(error.kind(), Kind::InvalidArgument | Kind::Unsupported | Kind::NotFound);
        ensure!(fits, "a signal to `main` of {what} should be refused, but failed with {}", told(&error));
        let ended = sandbox.wait_for(Duration::from_millis(500)).await?;
        ensure!(ended.is_none(), "a refused signal to `main` of {what} ended it: {ended:?}");
    }
    Ok(())
}

async fn time_limit(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::new(["sleep", "600"]).timeout(Duration::from_secs(2));
    let mut process = case.shared().await?.spawn(command).await?;
    let verdict = end(&mut process).await?;
    ensure!(matches!(verdict, Verdict::Deadline), "the verdict is {verdict:?}");
    Ok(())
}

async fn in_time(case: Arc<Case>) -> Outcome {
    let limit = Duration::from_secs(2) * case.slowness();
    let command = case.exit(4).await?.timeout(limit);
    let (sandbox, id) = (case.shared().await?, command.id.clone());
    let mut process = sandbox.spawn(command).await?;
    exited("a command that ends before its time limit", &end(&mut process).await?, 4)?;
    tokio::time::sleep(limit).await;
    for provider in [case.provider.clone(), case.other().await?] {
        let mut later = provider.sandbox(sandbox.id()).attach(&id);
        exited("a command that ended in time, after its time limit", &end(&mut later).await?, 4)?;
    }
    exited("the same, for the caller that started it", &end(&mut process).await?, 4)
}

async fn time_limit_output(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::shell("echo before; exec sleep 600").timeout(Duration::from_secs(2));
    let output = all(case.shared().await?.spawn(command).await?).await?;
    ensure!(matches!(output.verdict, Verdict::Deadline), "the verdict is {:?}", output.verdict);
    same("output before the time limit", &output.stdout, b"before\n")
}

async fn discarded(case: Arc<Case>) -> Outcome {
    let command = ExecSpec { stdout: OutputMode::Discard, ..ExecSpec::shell(PRINTS_A_LOT) };
    let output = all(case.shared().await?.spawn(command).await?).await?;
    exited("a command whose output is discarded", &output.verdict, 3)?;
    same("the discarded output", &output.stdout, b"")?;
    same("standard error beside discarded output", &output.stderr, b"kept")
}

async fn merged(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::shell("echo one; echo two >&2; echo three").merge_stderr();
    let output = all(case.shared().await?.spawn(command).await?).await?;
    same("merged output", &output.stdout, b"one\ntwo\nthree\n")?;
    same("standard error of merged output", &output.stderr, b"")
}

async fn terminal(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::shell("stty size; echo $TERM; echo error >&2").pty(33, 101, "vt100");
    let output = all(case.shared().await?.spawn(command).await?).await?;
    same("the output of a terminal", &output.stdout, b"33 101\r\nvt100\r\nerror\r\n")
}

async fn resize(case: Arc<Case>) -> Outcome {
    let line = "stty size; while read -r line; do stty size; echo \"<$line>\"; done";
    let mut process = case.shared().await?.spawn(ExecSpec::shell(line).pty(24, 80, "vt100")).await?;
    let mut stdout = stdout(&mut process)?;
    read_until(&mut stdout, "24 80").await?;
    process.resize(50, 132).await?;
    write(&mut process, b"word\n").await?;
    let seen = read_until(&mut stdout, "<word>").await?;
    ensure!(seen.contains("50 132"), "after the terminal was resized to 50 lines and 132 columns, it printed {seen:?}");
    if case.declares("exec.signal") {
        process.kill().await?;
        let verdict = end(&mut process).await?;
        ensure!(
            matches!(verdict, Verdict::Signaled(9)),
            "the verdict of a killed command with a terminal is {verdict:?}"
        );
    }
    Ok(())
}

async fn resize_plain(case: Arc<Case>) -> Outcome {
    let process = start(&case, &["sleep", "600"]).await?;
    refused("`resize` of a command without a terminal", process.resize(24, 80).await, &Kind::Conflict)?;
    Ok(())
}

async fn closed_input(case: Arc<Case>) -> Outcome {
    let mut process = case.shared().await?.spawn(ExecSpec::shell("exec head -c 3")).await?;
    let Some(mut stdin) = process.stdin.take() else { return failed("the process has no standard input") };
    let written = async {
        stdin.write_all(&vec![b'x'; 2_000_000]).await?;
        stdin.shutdown().await
    };
    match tokio::time::timeout(END, written).await {
        // The host reports a closed input as a broken pipe.
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe && error.get_ref().is_none() => {}
        Ok(written) => written?,
        Err(_) => return failed(format!("input that is not read was not refused after {END:?}")),
    }
    let output = all(process).await?;
    same("the output of `head -c 3`", &output.stdout, b"xxx")?;
    exited("`head -c 3`", &output.verdict, 0)
}

async fn at_the_same_time(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let commands = (0..8).map(|number| {
        let sandbox = sandbox.clone();
        async move {
            let data = pattern(number, 100_000);
            let output = all(feed(&sandbox, data.clone()).await?).await?;
            same("the output of one of 8 commands", &output.stdout, &data)
        }
    });
    futures_util::future::try_join_all(commands).await.map(drop)
}

async fn main_output(case: Arc<Case>) -> Outcome {
    let spec = case.spec().command(["/bin/sh", "-c", "echo hello; exec sleep 600"]);
    let sandbox = case.create(spec).await?;
    read_until(&mut stdout(&mut sandbox.attach("main"))?, "hello\n").await?;
    // Another caller reads from the beginning.
    read_until(&mut stdout(&mut case.other().await?.sandbox(sandbox.id()).attach("main"))?, "hello\n").await?;
    Ok(())
}

async fn main_input(case: Arc<Case>) -> Outcome {
    let spec = case.spec().command(["/bin/sh", "-c", "read -r word; echo \"<$word>\"; exit 3"]);
    let sandbox = case.create(spec).await?;
    let mut main = sandbox.attach("main");
    write(&mut main, b"word\n").await?;
    read_until(&mut stdout(&mut main)?, "<word>\n").await?;
    exited("the entry point", &end(&mut main).await?, 3)
}

async fn main_terminal(case: Arc<Case>) -> Outcome {
    let spec = case.spec().command(["/bin/sh", "-c", "stty size; exec sleep 600"]);
    let pty = Some(Pty { rows: 33, columns: 101, term: "vt100".into() });
    let sandbox = case.create(SandboxSpec { pty, ..spec }).await?;
    read_until(&mut stdout(&mut sandbox.attach("main"))?, "33 101\r\n").await?;
    Ok(())
}

async fn main_start(case: Arc<Case>) -> Outcome {
    let command = ExecSpec { id: "main".to_owned(), ..ExecSpec::new(["echo"]) };
    refused("`start` with the id `main`", case.shared().await?.spawn(command).await, &Kind::InvalidArgument)?;
    Ok(())
}

async fn list(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let process = sandbox.spawn(ExecSpec::new(["echo"])).await?;
        ids.insert(0, process.id().to_owned());
        all(process).await?;
    }
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..10 {
        let page = sandbox.execs(cursor, 2).await?;
        ensure!(page.items.len() <= 2, "a page with `max` 2 has {} execs", page.items.len());
        found.extend(page.items.into_iter().map(|exec| exec.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    ensure!(found == ids, "the list has {found:?} instead of {ids:?}");
    let other = case.other().await?.sandbox(sandbox.id());
    let all: Vec<_> = other.execs(None, 1000).await?.items.into_iter().map(|exec| exec.id).collect();
    ensure!(all == ids, "the list of another instance has {all:?} instead of {ids:?}");
    Ok(())
}

/// Returns what the list of a sandbox says about one exec.
async fn listed(sandbox: &Sandbox, id: &str) -> Outcome<ExecInfo> {
    let page = sandbox.execs(None, 1000).await?;
    let mut found = page.items.into_iter().filter(|exec| exec.id == id);
    let Some(exec) = found.next() else { return failed(format!("the exec {id} is not listed")) };
    ensure!(found.next().is_none(), "the exec {id} is listed twice");
    Ok(exec)
}

async fn list_verdicts(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let mut running = sandbox.spawn(ExecSpec::new(["sleep", "600"])).await?;
    let exec = listed(&sandbox, running.id()).await?;
    ensure!(exec.verdict.is_none(), "a running exec is listed with the verdict {:?}", exec.verdict);
    for code in [0, 5] {
        let mut process = sandbox.spawn(case.exit(code).await?).await?;
        exited("a command", &end(&mut process).await?, code)?;
        match listed(&case.other().await?.sandbox(sandbox.id()), process.id()).await?.verdict {
            Some(verdict) => exited("a command, in the list", &verdict, code)?,
            None => return failed("an exec that has ended is listed without a verdict"),
        }
    }
    if case.declares("exec.signal") {
        running.kill().await?;
        end(&mut running).await?;
        let verdict = listed(&sandbox, running.id()).await?.verdict;
        ensure!(matches!(verdict, Some(Verdict::Signaled(9))), "a killed exec is listed with the verdict {verdict:?}");
    }
    Ok(())
}

async fn list_arguments(case: Arc<Case>) -> Outcome {
    let sandbox = case.sandbox().await?;
    let process = sandbox.spawn(ExecSpec::new(["echo", "two words", ""])).await?;
    let id = process.id().to_owned();
    all(process).await?;
    let exec = listed(&sandbox, &id).await?;
    let right = exec.argv.is_empty() || exec.argv == ["echo", "two words", ""];
    ensure!(right, "the listed arguments are {:?}", exec.argv);
    ensure!(exec.container.is_none(), "a command of the main container is listed for {:?}", exec.container);
    if let Some(started) = exec.started {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let apart = now.abs_diff(u128::from(started));
        ensure!(apart < 24 * 3600 * 1000, "`started` of a new exec is {started}, and it is {now}");
    }
    Ok(())
}

async fn list_runs(case: Arc<Case>) -> Outcome {
    let (sandbox, command) = (case.sandbox().await?, ExecSpec::new(["echo", "x"]));
    sandbox.run(command.clone()).await?;
    match listed(&sandbox, &command.id).await?.verdict {
        Some(verdict) => exited("a command that `run` has started, in the list", &verdict, 0),
        None => failed("a command that `run` has started is listed without a verdict"),
    }
}

async fn list_max(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    refused("`list-execs` with `max` 0", sandbox.execs(None, 0).await, &Kind::InvalidArgument)?;
    sandbox.execs(None, 1).await?;
    sandbox.execs(None, 1000).await?;
    Ok(())
}

async fn list_ended(case: Arc<Case>) -> Outcome {
    refused("`list-execs` of an ended sandbox", case.ended().await?.execs(None, 10).await, &Kind::SandboxEnded)?;
    Ok(())
}

async fn list_unknown(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    refused("`list-execs` of an unknown sandbox", unknown.execs(None, 10).await, &Kind::NotFound)?;
    Ok(())
}

//! Group `exec`: commands that run in one call.

use std::sync::Arc;
use std::time::Duration;

use sandbox_host::types::{ExecSpec, Keep, OutputLimits, OutputMode, Verdict};
use sandbox_host::{Happened, Kind, fresh_id};

use crate::check::{Outcome, ensure, exited, failed, pattern, printed, refused, same};
use crate::table::checks;
use crate::world::{Case, OTHER_USER, altered};

checks! {
    "exec.output" ["exec", "program:echo"] "run: returns exactly what the command printed" => output;
    "exec.streams-are-apart" ["exec", "program:sh"] "run-result: standard output and standard error are apart" => streams;
    "exec.exit-codes" ["exec"] "verdict: `exited` with the exit code, 0 to 255" => exit_codes;
    "exec.codes-above-128" ["exec"] "verdict: an exit code above 128 is not a signal" => codes_above_128;
    "exec.killed-by-signal" ["exec", "program:sh"] "verdict: `signaled` with the number of the signal" => killed;
    "exec.missing-program" ["exec"] "start: a missing program is the verdict `exited(127)`, no error" => missing_program;
    "exec.not-executable" ["exec", "program:sh"] "start: a program that is not executable is the verdict `exited(126)`" => not_executable;
    "exec.arguments" ["exec", "program:echo"] "exec-spec: `argv` is passed without a shell" => arguments;
    "exec.no-input-ends" ["exec", "program:cat"] "run: a command without input reads end of file" => no_input;
    "exec.input" ["exec", "program:cat"] "run: writes all input" => input;
    "exec.unread-input" ["exec", "program:echo"] "run: a program need not read its input" => unread_input;
    "exec.input-in-part" ["exec", "program:sh", "program:head"] "run: a program may read a part of its input, or close it" => input_in_part;
    "exec.limit-keeps-head" ["exec", "program:cat"] "output-limits: `head` keeps the first bytes, and `total` counts all" => keeps_head;
    "exec.limit-keeps-tail" ["exec", "program:cat"] "output-limits: `tail` keeps the last bytes, and `total` counts all" => keeps_tail;
    "exec.limit-of-each-stream" ["exec", "program:sh"] "output-limits: each stream has its own limit" => own_limits;
    "exec.repeated-run" ["exec", "exec.idempotent", "program:echo"] "run: idempotent by `spec.id`; a repetition returns the same output again" => repeated_run;
    "exec.repeated-verdict" ["exec", "exec.idempotent"] "run: a repetition returns the same verdict again" => repeated_verdict;
    "exec.repeated-run-runs-once" ["exec", "exec.idempotent", "program:sh", "program:cat"] "run: a repetition never runs the command again" => runs_once;
    "exec.run-of-a-started-command" ["exec", "processes", "exec.idempotent", "program:cat"] "run: with the id of a started command, returns its output" => run_of_started;
    "exec.new-id-runs-again" ["exec", "program:cat"] "exec-id: another id is another command" => new_id;
    "exec.id-per-sandbox" ["exec", "program:echo"] "exec-id: unique within the sandbox; the same id in another sandbox is another command" => id_per_sandbox;
    "exec.environment" ["exec", "program:sh", "program:env"] "exec-spec: `env` sets variables, also with odd names and values" => environment;
    "exec.directory" ["exec", "create.workdir", "program:sh", "program:mkdir"] "exec-spec: `cwd` is absolute, or relative to that of the sandbox" => directory;
    "exec.merge-stderr" ["exec", "exec.merge-stderr", "program:sh"] "exec-spec: `merge-stderr` sends standard error to standard output in the order of printing" => merged;
    "exec.discarded-output" ["exec", "program:sh"] "output-mode: `discard` drops the output, and the program goes on" => discarded;
    "exec.time-limit" ["exec", "exec.deadline", "program:sleep"] "exec-spec: after `timeout` the command is killed, with the verdict `deadline`" => time_limit;
    "exec.time-limit-not-reached" ["exec", "exec.deadline"] "exec-spec: a command that ends in time has its exit code" => in_time;
    "exec.time-limit-and-signal" ["exec", "exec.deadline", "program:sh"] "verdict: a command that a signal killed before its time limit is `signaled`" => signal_in_time;
    "exec.time-limit-kills-children" ["exec", "exec.deadline", "program:sh", "program:cat", "program:sleep"] "exec-spec: after `timeout` all processes of the command are killed" => kills_children;
    "exec.user" ["exec", "exec.user", "program:sh", "program:id"] "exec-spec: `user` is the user of the command, by name or number" => user;
    "exec.unknown-user" ["exec", "exec.user"] "error: for a user that the image does not have, the subject is `user`" => unknown_user;
    "exec.long-arguments" ["exec", "exec.long-argv", "program:echo"] "exec-spec: the length of `argv` is not limited" => long_arguments;
    "exec.unknown-secret" ["exec", "exec.secrets"] "exec-spec: a secret that does not exist is `not-found`" => unknown_secret;
    "exec.at-the-same-time" ["exec", "program:cat"] "run: commands of one sandbox run at the same time, each with its own output" => at_the_same_time;
    "exec.duration" ["exec", "program:sleep"] "run-result: `duration` is the time from start to end" => duration;
    "exec.ended-sandbox" ["exec"] "run: fails with `sandbox-ended` and has not happened if the sandbox has ended" => ended_sandbox;
    "exec.unknown-sandbox" ["exec"] "run: fails with `not-found` if the provider does not know the sandbox" => unknown_sandbox;
    "exec.sandbox-ends-meanwhile" ["exec", "program:sleep"] "verdict: `sandbox-ended` if the sandbox ended first" => ends_meanwhile;
}

pub(super) fn limits(max: u64, keep: Keep) -> OutputLimits {
    OutputLimits { stdout_max: max, stderr_max: max, keep }
}

async fn output(case: Arc<Case>) -> Outcome {
    let result = case.shared().await?.run(ExecSpec::new(["echo", "hello"])).await?;
    printed("`echo hello`", &result, "hello\n")?;
    ensure!(result.stderr.data.is_empty() && result.stderr.total == 0, "standard error is {:?}", result.stderr);
    Ok(())
}

async fn streams(case: Arc<Case>) -> Outcome {
    let result = case.shared().await?.run(ExecSpec::shell("printf out; printf error >&2; exit 7")).await?;
    exited("the command", &result.verdict, 7)?;
    same("standard output", &result.stdout.data, b"out")?;
    same("standard error", &result.stderr.data, b"error")?;
    ensure!((result.stdout.total, result.stderr.total) == (3, 5), "wrong totals: {result:?}");
    Ok(())
}

async fn codes(case: &Case, codes: &[i32]) -> Outcome {
    let sandbox = case.shared().await?;
    for code in codes {
        let result = sandbox.run(case.exit(*code).await?).await?;
        exited(&format!("a command that exits with {code}"), &result.verdict, *code)?;
    }
    Ok(())
}

async fn exit_codes(case: Arc<Case>) -> Outcome {
    codes(&case, &[0, 1, 2, 42, 126, 127]).await
}

async fn codes_above_128(case: Arc<Case>) -> Outcome {
    codes(&case, &[128, 130, 137, 143, 255]).await
}

async fn killed(case: Arc<Case>) -> Outcome {
    for signal in [9, 15] {
        let result = case.shared().await?.run(ExecSpec::shell(format!("kill -{signal} $$"))).await?;
        let right = matches!(result.verdict, Verdict::Signaled(found) if found == signal);
        ensure!(right, "a command killed by signal {signal} has the verdict {:?}", result.verdict);
    }
    Ok(())
}

async fn missing_program(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for program in ["conformance-no-such-program", "/conformance/no/such/program"] {
        let result = sandbox.run(ExecSpec::new([program])).await?;
        exited(&format!("the missing program `{program}`"), &result.verdict, 127)?;
    }
    Ok(())
}

async fn not_executable(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.file().await?);
    case.sh(&sandbox, &format!(": >{path}")).await?;
    for program in [path.as_str(), "/tmp"] {
        let result = sandbox.run(ExecSpec::new([program])).await?;
        exited(&format!("`{program}`, which is not executable"), &result.verdict, 126)?;
    }
    Ok(())
}

async fn arguments(case: Arc<Case>) -> Outcome {
    let words = [
        "two  words",
        "$HOME",
        "*",
        "`id`",
        "it's",
        "\"",
        "\\n",
        "ü\u{141}\u{1F600}",
        "",
        "a=b",
        "&&",
        "new\nline",
        "-",
    ];
    let result = case.shared().await?.run(ExecSpec::new(["echo"].into_iter().chain(words))).await?;
    printed("`echo` of odd arguments", &result, format!("{}\n", words.join(" ")))
}

async fn no_input(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    match tokio::time::timeout(Duration::from_secs(30), sandbox.run(ExecSpec::new(["cat"]))).await {
        Ok(result) => printed("`cat` without input", &result?, ""),
        Err(_) => failed("`cat` without input had not ended after 30 s"),
    }
}

async fn input(case: Arc<Case>) -> Outcome {
    for (data, what) in [(&b"x"[..], "one byte"), (b"line\n", "a line"), (&pattern(1, 100_000), "100000 bytes")] {
        let all = limits(1 << 20, Keep::Head);
        let result = case.shared().await?.run_with(ExecSpec::new(["cat"]), data, all).await?;
        printed(&format!("`cat` with {what}"), &result, data)?;
    }
    Ok(())
}

/// Sizes of inputs in bytes. The larger one takes several calls, which a provider without `processes` does not have.
fn input_sizes(case: &Case) -> &'static [usize] {
    if case.declares("processes") { &[1_000_000, 20_000_000] } else { &[1_000_000] }
}

async fn unread_input(case: Arc<Case>) -> Outcome {
    for &size in input_sizes(&case) {
        let (command, input) = (ExecSpec::new(["echo", "x"]), vec![b'x'; size]);
        let result = case.shared().await?.run_with(command, input, OutputLimits::default()).await?;
        printed(&format!("`echo` with {size} bytes of input, which it does not read"), &result, "x\n")?;
    }
    Ok(())
}

async fn input_in_part(case: Arc<Case>) -> Outcome {
    for (line, expected) in [("head -c 3", "xxx"), ("exec 0<&-; echo closed", "closed\n")] {
        for &size in input_sizes(&case) {
            let (command, input) = (ExecSpec::shell(line), vec![b'x'; size]);
            let result = case.shared().await?.run_with(command, input, OutputLimits::default()).await?;
            printed(&format!("`{line}` with {size} bytes of input"), &result, expected)?;
        }
    }
    Ok(())
}

async fn kept(case: &Case, keep: Keep) -> Outcome {
    const SIZE: usize = 70_000;
    let data = pattern(2, SIZE);
    for max in [0, 1, 1000, SIZE - 1, SIZE, SIZE + 1] {
        let command = ExecSpec::new(["cat"]);
        let result = case.shared().await?.run_with(command, data.clone(), limits(max as u64, keep)).await?;
        let kept = max.min(SIZE);
        let expected = if keep == Keep::Head { &data[..kept] } else { &data[SIZE - kept..] };
        same(&format!("output of {SIZE} bytes with a limit of {max}"), &result.stdout.data, expected)?;
        let total = result.stdout.total;
        ensure!(total == SIZE as u64, "with a limit of {max}, `total` is {total} instead of {SIZE}");
        exited("`cat`", &result.verdict, 0)?;
    }
    Ok(())
}

async fn keeps_head(case: Arc<Case>) -> Outcome {
    kept(&case, Keep::Head).await
}

async fn keeps_tail(case: Arc<Case>) -> Outcome {
    kept(&case, Keep::Tail).await
}

async fn own_limits(case: Arc<Case>) -> Outcome {
    let limits = OutputLimits { stdout_max: 4, stderr_max: 2, keep: Keep::Head };
    let command = ExecSpec::shell("printf 123456; printf abcdef >&2");
    let result = case.shared().await?.run_with(command, [], limits).await?;
    same("standard output with a limit of 4", &result.stdout.data, b"1234")?;
    same("standard error with a limit of 2", &result.stderr.data, b"ab")?;
    let totals = (result.stdout.total, result.stderr.total);
    ensure!(totals == (6, 6), "the totals of two streams of 6 bytes are {totals:?}");
    Ok(())
}

async fn repeated_run(case: Arc<Case>) -> Outcome {
    let first = ExecSpec::new(["echo", "first"]);
    // A repetition ignores the other fields.
    let other = ExecSpec { id: first.id.clone(), ..ExecSpec::new(["echo", "other"]) };
    let sandbox = case.shared().await?;
    for (what, command) in [("a run", first.clone()), ("the same run again", first), ("a run with its id", other)] {
        printed(what, &sandbox.run(command.clone()).await?, "first\n")?;
        let elsewhere = case.other().await?.sandbox(sandbox.id());
        printed(&format!("{what} by another instance"), &elsewhere.run(command).await?, "first\n")?;
    }
    Ok(())
}

async fn repeated_verdict(case: Arc<Case>) -> Outcome {
    let (command, sandbox) = (case.exit(5).await?, case.shared().await?);
    for what in ["a run", "the same run again"] {
        exited(what, &sandbox.run(command.clone()).await?.verdict, 5)?;
    }
    exited(
        "the same run by another instance",
        &case.other().await?.sandbox(sandbox.id()).run(command).await?.verdict,
        5,
    )
}

async fn runs_once(case: Arc<Case>) -> Outcome {
    let (sandbox, path) = (case.shared().await?, case.file().await?);
    let command = ExecSpec::shell(format!("echo x >>{path}"));
    let other = case.other().await?.sandbox(sandbox.id());
    let runs = [sandbox.run(command.clone()), other.run(command.clone()), sandbox.run(command.clone())];
    for result in futures_util::future::join_all(runs).await {
        exited("a run", &result?.verdict, 0)?;
    }
    exited("a later run", &other.run(command).await?.verdict, 0)?;
    let count = case.lines(&sandbox, &path).await?;
    ensure!(count == 1, "four runs with one id ran the command {count} times");
    Ok(())
}

async fn run_of_started(case: Arc<Case>) -> Outcome {
    let (sandbox, command) = (case.shared().await?, ExecSpec::new(["cat"]));
    let mut process = sandbox.spawn(command.clone()).await?;
    super::processes::write(&mut process, b"of the start").await?;
    super::processes::all(process).await?;
    // It would print nothing if it ran again, because this run has no input.
    printed("a run with the id of a started command", &sandbox.run(command).await?, "of the start")
}

async fn new_id(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    for data in ["first", "second"] {
        let result = sandbox.run_with(ExecSpec::new(["cat"]), data, OutputLimits::default()).await?;
        printed("a command with a new id", &result, data)?;
    }
    Ok(())
}

async fn id_per_sandbox(case: Arc<Case>) -> Outcome {
    let (one, other, id) = (case.shared().await?, case.sandbox().await?, fresh_id());
    let command = |word: &str| ExecSpec { id: id.clone(), ..ExecSpec::new(["echo", word]) };
    printed("a command", &one.run(command("one")).await?, "one\n")?;
    printed("a command with its id in another sandbox", &other.run(command("other")).await?, "other\n")
}

async fn environment(case: Arc<Case>) -> Outcome {
    let value = "a=b\n'\"$x `id` ü \\";
    let command = ExecSpec::shell(r#"printf '%s|%s' "$ONE" "$TWO""#).env("ONE", value).env("TWO", "x").env("TWO", "");
    printed("two variables", &case.shared().await?.run(command).await?, format!("{value}|"))?;
    let command = ExecSpec::new(["env"]).env("dotted.name", "value of it").env("1A", "x");
    // A provider may start the program in another way if it has a directory or a user of its own.
    let mut commands = vec![("", command.clone()), (" with a directory of its own", command.clone().cwd("/"))];
    if case.declares("exec.user") && case.other_user().await.is_ok() {
        commands.push((" of another user", command.user(OTHER_USER)));
    }
    for (what, command) in commands {
        let command = ExecSpec { id: fresh_id(), ..command };
        let result = case.shared().await?.run(command).await?;
        let text = String::from_utf8_lossy(&result.stdout.data).into_owned();
        for line in ["dotted.name=value of it", "1A=x"] {
            ensure!(text.lines().any(|found| found == line), "the environment of a command{what} lacks `{line}`");
        }
    }
    Ok(())
}

async fn directory(case: Arc<Case>) -> Outcome {
    case.needs_tmp().await?;
    let sandbox = case.create(case.spec().workdir("/tmp")).await?;
    case.sh(&sandbox, "mkdir -p '/tmp/deep/ -x $y'").await?;
    let odd = "/tmp/deep/ -x $y";
    let directories = [("/", "/"), ("deep", "/tmp/deep"), ("..", "/"), (odd, odd), ("deep/ -x $y", odd)];
    for (cwd, expected) in directories {
        let result = sandbox.run(ExecSpec::shell("pwd").cwd(cwd)).await?;
        printed(&format!("`pwd` in {cwd:?}"), &result, format!("{expected}\n"))?;
    }
    for missing in ["/no/such", "no/such"] {
        let result = sandbox.run(ExecSpec::shell("pwd").cwd(missing)).await?;
        let fails = matches!(result.verdict, Verdict::Exited(code) if code != 0);
        ensure!(fails, "a command in the missing directory {missing:?} has the verdict {:?}", result.verdict);
    }
    Ok(())
}

async fn merged(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::shell("echo one; echo two >&2; echo three").merge_stderr();
    let result = case.shared().await?.run(command).await?;
    printed("merged output", &result, "one\ntwo\nthree\n")?;
    same("standard error of merged output", &result.stderr.data, b"")
}

/// Prints about a megabyte on standard output, and a word on standard error. Exits with 3.
pub(super) const PRINTS_A_LOT: &str = "w=0123456789; w=$w$w$w$w$w; w=$w$w; n=0; \
     while [ $n -lt 10000 ]; do echo $w; n=$((n+1)); done; printf kept >&2; exit 3";

async fn discarded(case: Arc<Case>) -> Outcome {
    let command = ExecSpec { stdout: OutputMode::Discard, ..ExecSpec::shell(PRINTS_A_LOT) };
    let result = case.shared().await?.run(command).await?;
    exited("a command whose output is discarded", &result.verdict, 3)?;
    same("the discarded output", &result.stdout.data, b"")?;
    same("standard error beside discarded output", &result.stderr.data, b"kept")
}

async fn time_limit(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::new(["sleep", "100"]).timeout(Duration::from_secs(2));
    let result = case.shared().await?.run(command).await?;
    ensure!(matches!(result.verdict, Verdict::Deadline), "the verdict is {:?}", result.verdict);
    ensure!(result.duration < 60_000, "a time limit of 2 s took effect after {} ms", result.duration);
    Ok(())
}

async fn in_time(case: Arc<Case>) -> Outcome {
    for code in [0, 137] {
        let command = case.exit(code).await?.timeout(Duration::from_secs(60));
        let result = case.shared().await?.run(command).await?;
        exited("a command that ends before its time limit", &result.verdict, code)?;
    }
    Ok(())
}

async fn signal_in_time(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::shell("kill -9 $$").timeout(Duration::from_secs(60));
    let result = case.shared().await?.run(command).await?;
    let right = matches!(result.verdict, Verdict::Signaled(9));
    ensure!(right, "a command that ended by signal 9 before its time limit has the verdict {:?}", result.verdict);
    Ok(())
}

/// Starts processes that ignore SIGTERM: a child, one whose parent has ended, one without environment, and, if the sandbox
/// has the program, one in a session of its own. Prints `ready` when all of them run, and waits. Each appends to a file
/// `/tmp/alive-…` for as long as it lives.
pub(super) const TREE: &str = r#"
lives() { echo "trap '' TERM; while :; do echo x >>/tmp/alive-$1; sleep 0.2; done"; }
/bin/sh -c "$(lives child)" &
(/bin/sh -c "$(lives orphan)" &)
env -i /bin/sh -c "PATH=/bin:/usr/bin; $(lives bare)" &
all='child orphan bare'
if command -v setsid >/dev/null; then setsid /bin/sh -c "$(lives session)" & all="$all session"; fi
for one in $all; do until [ -e /tmp/alive-$one ]; do sleep 0.1; done; done
echo ready
wait; sleep 600
"#;

/// The files of [`TREE`].
pub(super) const TREE_FILES: &str = "/tmp/alive-*";

async fn kills_children(case: Arc<Case>) -> Outcome {
    case.needs_tmp().await?;
    let sandbox = case.sandbox().await?;
    let command = ExecSpec::shell(TREE).timeout(Duration::from_secs(5) * case.slowness());
    let result = sandbox.run(command).await?;
    ensure!(matches!(result.verdict, Verdict::Deadline), "the verdict is {:?}", result.verdict);
    same("standard output before the time limit", &result.stdout.data, b"ready\n")?;
    is_silent(&sandbox, TREE_FILES).await
}

/// Checks that a file does not grow any more, at the latest after 30 s.
pub(super) async fn is_silent(sandbox: &sandbox_host::Sandbox, path: &str) -> Outcome {
    let script = format!(
        "n=0; while [ $n -lt 30 ]; do a=$(cat {path}); sleep 1; b=$(cat {path}); [ \"$a\" = \"$b\" ] && exit 0; n=$((n+1)); done; exit 1"
    );
    let result = sandbox.run(ExecSpec::shell(script)).await?;
    ensure!(matches!(result.verdict, Verdict::Exited(0)), "a child process was still running after 30 s");
    Ok(())
}

async fn user(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let other = case.other_user().await?;
    for (user, id) in [(OTHER_USER, other.as_str()), ("root", "0")] {
        for name in [user, id] {
            let result = sandbox.run(ExecSpec::shell("id -u").user(name)).await?;
            printed(&format!("`id -u` as the user {name}"), &result, format!("{id}\n"))?;
        }
    }
    Ok(())
}

async fn unknown_user(case: Arc<Case>) -> Outcome {
    let command = ExecSpec::new(["echo"]).user("conformance-none");
    let Err(error) = case.shared().await?.run(command).await else {
        return failed("a command ran as a user that does not exist");
    };
    ensure!(error.subject() == Some("user"), "the subject of the error is {:?}", error.subject());
    Ok(())
}

async fn long_arguments(case: Arc<Case>) -> Outcome {
    for total in [65_000, 70_000, 500_000] {
        let words: Vec<_> = (0..total / 10_000).map(|n| format!("{}{n}", "x".repeat(9_990))).collect();
        let argv = ["echo".to_owned()].into_iter().chain(words.iter().cloned());
        let all = limits(1 << 20, Keep::Head);
        let result = case.shared().await?.run_with(ExecSpec::new(argv), [], all).await?;
        printed(&format!("`echo` with {total} bytes of arguments"), &result, format!("{}\n", words.join(" ")))?;
    }
    Ok(())
}

async fn unknown_secret(case: Arc<Case>) -> Outcome {
    let command = ExecSpec { secrets: vec!["conformance-none".to_owned()], ..ExecSpec::new(["echo"]) };
    let result = case.shared().await?.run(command).await;
    let error = refused("a command with an unknown secret", result, &Kind::NotFound)?;
    ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    Ok(())
}

async fn at_the_same_time(case: Arc<Case>) -> Outcome {
    let sandbox = case.shared().await?;
    let runs = (0..12).map(|number| {
        let (sandbox, data) = (sandbox.clone(), format!("command {number}"));
        async move {
            let result = sandbox.run_with(ExecSpec::new(["cat"]), data.clone(), OutputLimits::default()).await?;
            printed("one of 12 commands", &result, data)
        }
    });
    futures_util::future::try_join_all(runs).await.map(drop)
}

async fn duration(case: Arc<Case>) -> Outcome {
    let result = case.shared().await?.run(ExecSpec::new(["sleep", "1"])).await?;
    exited("`sleep 1`", &result.verdict, 0)?;
    let duration = result.duration;
    ensure!((900..110_000).contains(&duration), "`sleep 1` took {duration} ms, as `duration` says");
    Ok(())
}

async fn ended_sandbox(case: Arc<Case>) -> Outcome {
    let ended = case.ended().await?;
    for sandbox in [ended.clone(), case.other().await?.sandbox(ended.id())] {
        let result = sandbox.run(ExecSpec::new(["echo"])).await;
        let error = refused("a command in an ended sandbox", result, &Kind::SandboxEnded)?;
        ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    }
    Ok(())
}

async fn unknown_sandbox(case: Arc<Case>) -> Outcome {
    let unknown = case.provider.sandbox(altered(case.shared().await?.id()));
    let error =
        refused("a command in an unknown sandbox", unknown.run(ExecSpec::new(["echo"])).await, &Kind::NotFound)?;
    ensure!(error.happened() == Happened::No, "the error says happened: {:?}", error.happened());
    Ok(())
}

async fn ends_meanwhile(case: Arc<Case>) -> Outcome {
    case.needs_calls_beside_run()?;
    let sandbox = case.sandbox().await?;
    let running = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.run(ExecSpec::new(["sleep", "600"])).await }
    });
    // A command that begins later has begun, so the first one has too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    sandbox.run(ExecSpec::new(["sleep", "0"])).await?;
    sandbox.terminate().await?;
    match tokio::time::timeout(Duration::from_secs(60), running).await {
        Ok(Ok(Ok(result))) => {
            let right = matches!(result.verdict, Verdict::SandboxEnded(_));
            ensure!(right, "the verdict is {:?} instead of `sandbox-ended`", result.verdict);
            Ok(())
        }
        // The command may not have begun.
        Ok(Ok(Err(error))) if error.is_sandbox_ended() => Ok(()),
        Ok(Ok(Err(error))) => Err(error.into()),
        Ok(Err(_)) => failed("the run ended with a panic"),
        Err(_) => failed("the run had not ended 60 s after its sandbox was terminated"),
    }
}

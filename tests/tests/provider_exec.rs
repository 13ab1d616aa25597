//! The exec functions of the interface, through the host library, with the emulator. Each is tested for its effect and
//! its failures.

use std::time::Duration;

use sandbox_host::{
    Happened, Kind, ProcessOutput, Result, Sandbox, Signal,
    types::{ExecSpec, ImageSpec, Keep, OutputLimits, OutputMode, SandboxSpec, Verdict},
};
use system_tests::{World, refused, sh, told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn limits(max: u64, keep: Keep) -> OutputLimits {
    OutputLimits { stdout_max: max, stderr_max: max, keep }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_returns_both_streams_and_the_exit_code() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let result = sandbox.run(ExecSpec::shell("printf out; printf err >&2; exit 7")).await?;
    assert!(matches!(result.verdict, Verdict::Exited(7)), "{}", told(&result));
    assert_eq!((&result.stdout.data[..], &result.stderr.data[..]), (&b"out"[..], &b"err"[..]));
    assert_eq!((result.stdout.total, result.stderr.total), (3, 3));

    for (line, code) in [("exit 0", 0), ("exit 255", 255), ("exit 137", 137), ("exec no-such-program", 127)] {
        let result = sandbox.run(ExecSpec::shell(line)).await?;
        assert!(matches!(result.verdict, Verdict::Exited(found) if found == code), "{line}: {}", told(&result));
    }
    // A program that does not exist or is not executable is a result of the command, not a failure of the call.
    for (argv, code) in [("no-such-program", 127), ("/no/such/program", 127), ("/etc/passwd", 126), ("/etc", 126)] {
        let result = sandbox.run(ExecSpec::new([argv])).await?;
        assert!(matches!(result.verdict, Verdict::Exited(found) if found == code), "{argv}: {}", told(&result));
    }
    let result = sandbox.run(ExecSpec::shell("kill -TERM $$")).await?;
    assert!(matches!(result.verdict, Verdict::Signaled(15)), "{}", told(&result));

    let mut merged = ExecSpec::shell("echo one; echo two >&2; echo three").merge_stderr();
    let result = sandbox.run(merged.clone()).await?;
    assert_eq!((&result.stdout.data[..], &result.stderr.data[..]), (&b"one\ntwo\nthree\n"[..], &b""[..]));
    (merged.id, merged.merge_stderr, merged.stdout) = (sandbox_host::fresh_id(), false, OutputMode::Discard);
    let result = sandbox.run(merged).await?;
    assert_eq!((result.stdout.total, &result.stderr.data[..]), (0, &b"two\n"[..]));

    // Output need not be UTF-8.
    let result = sandbox.run(ExecSpec::shell(r"printf '\377\000\376'")).await?;
    assert_eq!(result.stdout.data, [255, 0, 254]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_beyond_the_limit_is_dropped_and_counted() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let command = || ExecSpec::shell("seq 100000; seq 7 >&2");
    let whole: String = (1..=100_000).map(|number| format!("{number}\n")).collect();
    for max in [0, 1, 1000, whole.len() - 1, whole.len(), whole.len() + 1] {
        for keep in [Keep::Head, Keep::Tail] {
            let result = sandbox.run_with(command(), Vec::new(), limits(max as u64, keep)).await?;
            let kept = max.min(whole.len());
            let expected = match keep {
                Keep::Head => &whole[..kept],
                Keep::Tail => &whole[whole.len() - kept..],
            };
            assert_eq!(result.stdout.total, whole.len() as u64, "{max} {keep:?}");
            assert!(result.stdout.data == expected.as_bytes(), "{max} {keep:?}");
            assert_eq!(result.stderr.total, 14);
            assert_eq!(result.stderr.data.len(), max.min(14));
        }
    }
    // Each stream has its own limit.
    let own = OutputLimits { stdout_max: 4, stderr_max: 2, keep: Keep::Head };
    let result = sandbox.run_with(command(), Vec::new(), own).await?;
    assert_eq!((&result.stdout.data[..], &result.stderr.data[..]), (&b"1\n2\n"[..], &b"1\n"[..]));
    // Output beyond the limit of one interface call is collected by several calls.
    let huge = ExecSpec::shell("head -c 40000000 /dev/zero");
    let result = sandbox.run_with(huge, Vec::new(), limits(u64::MAX, Keep::Tail)).await?;
    assert_eq!((result.stdout.data.len(), result.stdout.total), (40_000_000, 40_000_000));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn input_of_any_size_arrives() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for size in [0, 1, 65_536, 5_000_000, 20_000_000] {
        let data: Vec<u8> = (0..size).map(|index: usize| (index * 7 + index / 251) as u8).collect();
        let result = sandbox.run_with(ExecSpec::new(["cat"]), data.clone(), limits(32 << 20, Keep::Head)).await?;
        assert!(matches!(result.verdict, Verdict::Exited(0)), "{size}: {:?}", result.verdict);
        assert!(result.stdout.data == data, "{size}: {} bytes came back", result.stdout.data.len());
    }
    // A program that does not read all of its input.
    for size in [1_000_000, 20_000_000] {
        let result = sandbox.run_with(ExecSpec::shell("head -c 3"), vec![b'x'; size], OutputLimits::default()).await?;
        assert_eq!(result.stdout.data, b"xxx", "{}", told(&result));
        let result = sandbox.run_with(ExecSpec::new(["true"]), vec![b'x'; size], OutputLimits::default()).await?;
        assert!(matches!(result.verdict, Verdict::Exited(0)), "{}", told(&result));
    }
    // A program that closes its input and continues.
    let command = ExecSpec::shell("exec 0<&-; echo closed");
    let result = sandbox.run_with(command, vec![b'x'; 1_000_000], OutputLimits::default()).await?;
    assert_eq!(result.stdout.data, b"closed\n", "{}", told(&result));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_gets_its_environment_and_directory() -> Result<()> {
    let world = World::start().await;
    let spec = SandboxSpec::new(ImageSpec::default()).env("A", "sandbox").env("B", "sandbox").workdir("/tmp");
    let sandbox = world.provider.create(spec).await?;
    sh(&sandbox, "mkdir -p /tmp/deep/er '/tmp/ -x $y'").await;
    let line = r#"printf '%s|' "$A" "$B" "$C" "$PWD""#;
    let out = |result: sandbox_host::types::RunResult| String::from_utf8(result.stdout.data).expect("not UTF-8");
    let command = ExecSpec::shell(line).env("B", "exec").env("C", "a=b\n'\"$x ü");
    assert_eq!(out(sandbox.run(command).await?), "sandbox|exec|a=b\n'\"$x ü|/tmp|");
    for (cwd, expected) in [("/", "/"), ("deep/er", "/tmp/deep/er"), ("..", "/"), (" -x $y", "/tmp/ -x $y")] {
        let result = sandbox.run(ExecSpec::new(["pwd"]).cwd(cwd)).await?;
        assert_eq!(out(result), format!("{expected}\n"), "{cwd}");
    }
    let result = sandbox.run(ExecSpec::new(["pwd"]).cwd("no/such")).await?;
    assert!(matches!(result.verdict, Verdict::Exited(code) if code != 0), "{}", told(&result));
    refused(sandbox.run(ExecSpec::new(["pwd"]).cwd("")).await, &["working directory"]);
    refused(sandbox.run(ExecSpec::new(["pwd"]).env("A=B", "x")).await, &["A=B"]);
    refused(sandbox.run(ExecSpec::new(["pwd"]).env("", "x")).await, &["name"]);
    // Variable names that are not valid in a shell, also where a shell starts the program.
    for (user, cwd) in [(None, None), (Some("nobody"), None), (None, Some("."))] {
        let mut command = ExecSpec::new(["env"]).env("discovery.type", "single node").env("1A", "x");
        (command.user, command.cwd) = (user.map(str::to_string), cwd.map(str::to_string));
        let said = out(sandbox.run(command).await?);
        assert!(said.contains("\ndiscovery.type=single node\n") || said.starts_with("discovery.type="), "{said}");
        assert!(said.lines().any(|line| line == "1A=x"), "{said}");
    }
    // The environment does not reveal which program runs the command.
    let said = out(sandbox.run(ExecSpec::new(["env"])).await?);
    let names: Vec<_> = said.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.contains(&"PROCESS_TAG") && !names.iter().any(|name| name.starts_with("SANDBOX")), "{names:?}");
    refused(sandbox.run(ExecSpec::new(["pwd"]).env("A", "x\0y")).await, &["NUL"]);
    let mut command = ExecSpec::new(["true"]);
    command.secrets.push("no-such-secret".into());
    let error = refused(sandbox.run(command).await, &["no-such-secret"]);
    assert!(error.is_not_found() && error.happened() == Happened::No, "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_commands_are_refused_without_a_request() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let before = world.provider.metrics();
    type Change = fn(&mut ExecSpec);
    let bad = |change: Change| {
        let mut spec = ExecSpec::new(["true"]);
        change(&mut spec);
        spec
    };
    let cases: [(Change, &str); 9] = [
        (|spec| spec.argv.clear(), "empty"),
        (|spec| spec.argv[0].clear(), "empty"),
        (|spec| spec.argv.push("a\0b".into()), "NUL"),
        (|spec| spec.argv.push("x".repeat(200_000)), "200000 bytes"),
        (|spec| spec.id = "main".into(), "main"),
        (|spec| spec.id = "two words".into(), "two words"),
        (|spec| spec.timeout = Some(0), "time limit"),
        (|spec| spec.extra.push(("nice".into(), "1".into())), "nice"),
        (|spec| spec.user = Some("a;b".into()), "is not a valid user"),
    ];
    for (change, word) in cases {
        for error in
            [refused(sandbox.run(bad(change)).await, &[word]), refused(sandbox.spawn(bad(change)).await, &[word])]
        {
            assert_eq!((error.kind(), error.happened()), (&Kind::InvalidArgument, Happened::No), "{error}");
        }
    }
    refused(sandbox.signal("main", Signal::TERM).await, &["entry-point"]);
    assert_eq!(world.provider.metrics().requests, before.requests, "no request should have been sent");
    // No call was made later either, to kill a command that never started: it would have been made by now. An empty
    // command is refused before the plugin is called; the other commands, the signal and this run are one call each.
    sandbox.run(ExecSpec::new(["true"])).await?;
    assert_eq!(world.provider.metrics().calls - before.calls, 14 + 1 + 1);
    Ok(())
}

/// A long command line reaches the program unchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn command_lines_longer_than_64_kib_run_unchanged() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let awkward = ["", "it's", "two\nlines", "$HOME `id` \\ \"", "ü\u{141}\u{81}", "-n", "*"];
    for total in [65_000, 66_000, 500_000] {
        let mut argv: Vec<String> = ["sh", "-c", "printf '%s\\0' \"$@\"; cat", "sh"].map(str::to_string).into();
        argv.extend(awkward.map(str::to_string));
        while argv.iter().map(String::len).sum::<usize>() < total {
            argv.push(format!("{}-{}", "x".repeat(40_000.min(total / 3)), argv.len()));
        }
        let mut expected: Vec<u8> = argv[4..].iter().flat_map(|arg| [arg.as_bytes(), b"\0"].concat()).collect();
        expected.extend(b"input");
        let mut command = ExecSpec::new(argv.clone()).cwd("tmp").env("A", "1");
        let first = command.id.clone();
        let result = sandbox.run_with(command.clone(), *b"input", limits(1 << 20, Keep::Head)).await?;
        assert!(matches!(result.verdict, Verdict::Exited(0)), "{}", told(&result));
        assert!(result.stdout.data == expected, "{total}: {} bytes instead of {}", result.stdout.total, expected.len());
        // Another instance that repeats the run gets the same result.
        let other = World::provider(&world.emulator.url()).await?.sandbox(sandbox.id());
        let again = other.run_with(command.clone(), *b"input", limits(1 << 20, Keep::Head)).await?;
        assert!(again.stdout.data == expected, "{first}");
        command.id = sandbox_host::fresh_id();
        command.user = Some("root".into());
        let result = sandbox.run_with(command, *b"input", limits(1 << 20, Keep::Head)).await?;
        assert!(result.stdout.data == expected, "wrong output as another user");
    }
    assert_eq!(sh(&sandbox, "ls -A /tmp").await, "", "files are left in /tmp");
    // The process of the command is the program itself, not a wrapper.
    let mut argv = vec!["cat".to_string(), "/proc/self/cmdline".to_string()];
    argv.extend(std::iter::repeat_n(format!("/{}dev/null", "./".repeat(2000)), 17));
    let expected: Vec<u8> = argv.iter().flat_map(|arg| [arg.as_bytes(), b"\0"].concat()).collect();
    let result = sandbox.run_with(ExecSpec::new(argv), Vec::new(), limits(1 << 20, Keep::Head)).await?;
    assert!(result.stdout.data == expected, "{}", told(&result));
    // A command line beyond the limits of Linux is a failure of the command, not of the call.
    let too_many: Vec<String> =
        std::iter::once("true".to_string()).chain((0..60).map(|_| "x".repeat(100_000))).collect();
    let result = sandbox.run(ExecSpec::new(too_many)).await?;
    assert!(matches!(result.verdict, Verdict::Exited(126)), "{}", told(&result));
    assert!(String::from_utf8_lossy(&result.stderr.data).contains("too long"), "{}", told(&result));
    Ok(())
}

/// Each helper program that can change the user is tested by removing the preferred ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_as_another_user() -> Result<()> {
    let world = World::start().await;
    let remove = "rm -f /usr/bin/setpriv /bin/setpriv";
    let account = "RUN useradd -m -u 4321 worker && groupadd -g 4322 crew && usermod -aG crew worker";
    let image = |lines: &[String]| {
        let lines: String = lines.iter().map(|line| format!("\n{line}")).collect();
        ImageSpec::dockerfile(format!("FROM debian\n{account}{lines}"))
    };
    let helpers = [
        ("setpriv", vec![]),
        ("runuser", vec![format!("RUN {remove}")]),
        ("su", vec![format!("RUN {remove} /usr/sbin/runuser /sbin/runuser /usr/bin/runuser")]),
    ];
    for (helper, lines) in helpers {
        let sandbox = world.sandbox_of(image(&lines)).await;
        let run = async |user: &str, argv: &[&str]| {
            let result = sandbox.run(ExecSpec::new(argv.iter().copied()).user(user)).await?;
            assert!(matches!(result.verdict, Verdict::Exited(0)), "{helper} {user}: {}", told(&result));
            Result::Ok(String::from_utf8(result.stdout.data).expect("not UTF-8"))
        };
        let who = ["sh", "-c", "id -un; id -gn; id -Gn; echo $HOME $USER"];
        for user in ["worker", "4321"] {
            assert_eq!(run(user, &who).await?, "worker\nworker\nworker crew\n/home/worker worker\n", "{helper} {user}");
        }
        let words = ["printf", "%s|", "", "it's", "$x", "a b", "--", "-c"];
        assert_eq!(run("worker", &words).await?, "|it's|$x|a b|--|-c|", "{helper}");
        assert_eq!(run("root", &["id", "-u"]).await?, "0\n", "{helper}");
        let exited = sandbox.run(ExecSpec::shell("exit 9").user("worker")).await?;
        assert!(matches!(exited.verdict, Verdict::Exited(9)), "{helper}: {}", told(&exited));
        // Only `setpriv` accepts numeric ids and a group.
        let number = sandbox.run(ExecSpec::shell("id -u; id -g").user("5555:5556")).await;
        let group = sandbox.run(ExecSpec::shell("id -gn").user("worker:crew")).await;
        if helper == "setpriv" {
            assert_eq!(number?.stdout.data, b"5555\n5556\n");
            assert_eq!(group?.stdout.data, b"crew\n");
        } else {
            assert_eq!(refused(number, &["5555", "setpriv"]).kind(), &Kind::Unsupported);
            assert_eq!(refused(group, &["setpriv"]).kind(), &Kind::Unsupported);
        }
        for ghost in ["ghost", "worker:ghost"] {
            let error = refused(sandbox.run(ExecSpec::new(["true"]).user(ghost)).await, &["ghost"]);
            assert!(
                error.is_not_found() && error.subject() == Some("user") && error.happened() == Happened::No,
                "{error:?}"
            );
        }
    }
    let none = image(&[format!("RUN {remove} /usr/sbin/runuser /sbin/runuser /usr/bin/runuser /bin/su /usr/bin/su")]);
    let sandbox = world.sandbox_of(none).await;
    let error = refused(sandbox.run(ExecSpec::new(["true"]).user("worker")).await, &["worker", "setpriv"]);
    assert_eq!(
        (error.kind(), error.subject(), error.happened()),
        (&Kind::Unsupported, Some("exec.user"), Happened::No)
    );
    // The user of the sandbox itself needs no helper.
    let result = sandbox.run(ExecSpec::new(["id", "-u"]).user("root")).await?;
    assert_eq!(result.stdout.data, b"0\n");
    // A user other than root cannot change to another user.
    let sandbox = world.sandbox_of(image(&["USER worker".to_string()])).await;
    let error = refused(sandbox.run(ExecSpec::new(["true"]).user("root")).await, &["4321"]);
    assert_eq!(error.kind(), &Kind::Unsupported);
    Ok(())
}

/// Counts the processes of [`TREE`]. The entry point of the sandbox sleeps too, with another command line.
const SLEEPERS: &str = "pgrep -fxc '(/bin/)?sleep 1000' || true";

/// Waits until no process of [`TREE`] is left. A killed process is still there for a moment.
async fn tree_is_gone(sandbox: &Sandbox) {
    let begun = std::time::Instant::now();
    while sh(sandbox, SLEEPERS).await != "0\n" {
        assert!(begun.elapsed() < Duration::from_secs(60), "the processes are still there");
    }
}

/// Starts processes that ignore SIGTERM, create new sessions and clear their environment, and then prints `ready`.
const TREE: &str = r#"
trap '' TERM
sleep 1000 &
setsid sleep 1000 &
env -i /bin/sleep 1000 &
setsid sh -c 'env -i /bin/sleep 1000 & wait' &
sh -c 'sh -c "sleep 1000 & wait" & wait' &
until [ "$(pgrep -fxc '(/bin/)?sleep 1000')" = 5 ]; do :; done
echo ready
wait
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_the_whole_process_tree() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut bystander = sandbox.spawn(ExecSpec::shell("echo ready; exec tail -f /dev/null")).await?;
    first_line(&mut bystander).await;

    let mut process = sandbox.spawn(ExecSpec::shell(TREE)).await?;
    assert_eq!(first_line(&mut process).await, "ready\n");
    process.signal(Signal::TERM).await?;
    assert_eq!(sh(&sandbox, SLEEPERS).await, "5\n", "the processes should have inherited the trap");
    process.kill().await?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));
    tree_is_gone(&sandbox).await;
    // A repeated signal, and a signal to a command that has ended, succeed. Other processes are not affected.
    process.signal(Signal::KILL).await?;
    assert!(refused(sandbox.signal("never-started", Signal::KILL).await, &["signal"]).is_not_found());
    assert_eq!(sh(&sandbox, "pgrep -xc tail").await, "1\n");

    // A signal with a handler.
    let mut process =
        sandbox.spawn(ExecSpec::shell("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done")).await?;
    let mut stdout = process.stdout.take().expect("the stream was taken");
    let mut line = [0; 6];
    stdout.read_exact(&mut line).await.expect("cannot read a line");
    process.signal(Signal::USR1).await?;
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.expect("not UTF-8");
    assert_eq!(rest, "got\n");
    assert!(matches!(process.wait().await?, Verdict::Exited(5)));

    // Dropping a process handle kills the command; detaching it does not.
    let mut process = sandbox.spawn(ExecSpec::shell("echo ready; exec sleep 1000")).await?;
    first_line(&mut process).await;
    let id = process.id().to_string();
    drop(process);
    assert!(matches!(sandbox.attach(&id).wait().await?, Verdict::Signaled(9)));
    Ok(())
}

/// Between its start and the first instruction of its program, an exec has no process that can be found. The test
/// prolongs this state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_waits_for_a_process_that_is_starting() -> Result<()> {
    use modal_emulator::model::faults::{Fault, Rule};
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let id = "0c9be1c8-6d0c-4d5c-9c39-6d8de3a2f3a1";
    let script = "read id; echo ready; PROCESS_TAG=$id exec sleep 1000";
    let mut spec = ExecSpec::new(["env", "-i", "/bin/sh", "-c", script]);
    spec.id = id.into();
    let mut process = sandbox.spawn(spec).await?;

    // The provider makes this call only after a search that found no process. The emulator delays it until there is
    // one.
    let (method, fault) = ("TaskExecPoll".to_string(), Fault::Delay { millis: 600_000, jitter_millis: 0 });
    world.emulator.chaos().add(Rule { method, times: Some(1), skip: 0, probability: 1.0, fault });
    let signal = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.signal(id, Signal::KILL).await }
    });
    while world.emulator.chaos().rules()[0].1 == 0 {
        assert!(!signal.is_finished(), "the provider should ask whether the exec has ended");
        tokio::task::yield_now().await;
    }
    let mut stdin = process.stdin.take().expect("the stream was taken");
    stdin.write_all(format!("{id}\n").as_bytes()).await.expect("cannot write to standard input");
    stdin.shutdown().await.expect("cannot write to standard input");
    assert_eq!(first_line(&mut process).await, "ready\n");
    while sh(&sandbox, "pgrep -fxc 'sleep 1000' || true").await != "1\n" {}
    world.emulator.chaos().release();
    signal.await.expect("the task panicked")?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));

    // The process can never be found, which the caller has to be told.
    let script = "echo ready; exec /bin/sleep 1000";
    let mut process = sandbox.spawn(ExecSpec::new(["env", "-i", "/bin/sh", "-c", script])).await?;
    assert_eq!(first_line(&mut process).await, "ready\n", "the environment should be cleared by now");
    let error = refused(process.signal(Signal::KILL).await, &["cleared its environment", "Terminate the sandbox"]);
    assert_eq!(error.kind(), &Kind::Conflict);
    Ok(())
}

async fn first_line(process: &mut sandbox_host::Process) -> String {
    let stdout = process.stdout.as_mut().expect("the stream was taken");
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stdout.read_u8().await.expect("cannot read a byte"));
    }
    String::from_utf8(line).expect("not UTF-8")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_whole_process_tree() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let limit = Duration::from_secs(1);
    let result = sandbox.run(ExecSpec::shell(TREE).timeout(limit)).await?;
    assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
    assert_eq!(result.stdout.data, b"ready\n");
    tree_is_gone(&sandbox).await;

    // The same with a process handle.
    let mut process = sandbox.spawn(ExecSpec::shell(TREE).timeout(limit)).await?;
    first_line(&mut process).await;
    assert!(matches!(process.wait().await?, Verdict::Deadline));
    let verdict = process.wait_with_output().await?.verdict;
    assert!(matches!(verdict, Verdict::Deadline));

    // A program that handles SIGTERM, and its last output.
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000 & wait";
    let result = sandbox.run(ExecSpec::shell(polite).timeout(limit)).await?;
    assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
    assert_eq!(result.stdout.data, b"ready\nbye\n");
    let mut process = sandbox.spawn(ExecSpec::shell(polite).timeout(limit)).await?;
    first_line(&mut process).await;
    let ProcessOutput { verdict, stdout, .. } = process.wait_with_output().await?;
    assert!(matches!(verdict, Verdict::Deadline) && stdout == b"bye\n", "{verdict:?}");
    // A command that ended in time has its exit code, also if it is asked for after the deadline.
    let mut spec = ExecSpec::shell("echo done; exit 4").timeout(limit);
    spec.id = sandbox_host::fresh_id();
    let mut process = sandbox.spawn(spec).await?;
    sh(&sandbox, "sleep 2").await;
    assert!(matches!(process.wait().await?, Verdict::Exited(4)));

    // Programs that end by themselves in the same way as a killed one.
    for line in ["exit 137", "kill -9 $$"] {
        let result = sandbox.run(ExecSpec::shell(line).timeout(Duration::from_secs(60))).await?;
        assert!(!matches!(result.verdict, Verdict::Deadline), "{line}: {}", told(&result));
    }
    let result = sandbox.run(ExecSpec::shell("exit 137").timeout(Duration::from_secs(60))).await?;
    assert!(matches!(result.verdict, Verdict::Exited(137)), "{}", told(&result));
    Ok(())
}

/// Some servers of the protocol (those of Modal's own test suites) do not enforce time limits, so the provider has to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_holds_where_the_service_has_none() -> Result<()> {
    use modal_emulator::model::faults::{Fault, Rule};
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let method = "TaskExecStart".to_owned();
    let fault = Fault::IgnoreTimeLimit;
    world.emulator.chaos().add(Rule { method, times: None, skip: 0, probability: 1.0, fault });
    let limit = Duration::from_secs(2);
    // The host's guard acts 90 seconds after the limit. All this takes less, so it is the provider that ends the commands.
    let begun = std::time::Instant::now();
    let result = sandbox.run(ExecSpec::shell(TREE).timeout(limit)).await?;
    assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
    tree_is_gone(&sandbox).await;
    let mut process = sandbox.spawn(ExecSpec::shell(TREE).timeout(limit)).await?;
    assert!(matches!(process.wait().await?, Verdict::Deadline));
    tree_is_gone(&sandbox).await;
    let process = sandbox.spawn(ExecSpec::shell(TREE).timeout(limit)).await?;
    let ProcessOutput { verdict, stdout, .. } = process.wait_with_output().await?;
    assert!(matches!(verdict, Verdict::Deadline) && stdout == b"ready\n", "{verdict:?}");
    tree_is_gone(&sandbox).await;
    assert!(begun.elapsed() < Duration::from_secs(85), "{:?}", begun.elapsed());
    let applied = world.emulator.chaos().rules()[0].1;
    assert!(applied >= 3, "{applied}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pty_has_a_size_that_can_be_changed() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let line = "trap 'stty size' WINCH; stty size; echo $TERM; while :; do read -r line && echo \"<$line>\"; done";
    let mut process = sandbox.spawn(ExecSpec::shell(line).pty(24, 80, "vt100")).await?;
    assert!(process.has_pty());
    let mut stdout = process.stdout.take().expect("the stream was taken");
    let mut seen = String::new();
    read_until(&mut stdout, &mut seen, "vt100").await;
    assert!(seen.starts_with("24 80\r\n"), "{seen:?}");
    process.resize(50, 132).await?;
    // The shell prints the size after it has read a line.
    let mut stdin = process.stdin.take().expect("the stream was taken");
    stdin.write_all(b"go\n").await.expect("cannot write to standard input");
    stdin.flush().await.expect("cannot write to standard input");
    read_until(&mut stdout, &mut seen, "50 132").await;
    read_until(&mut stdout, &mut seen, "<go>").await;
    refused(process.resize(0, 80).await, &["at least one row"]);
    process.kill().await?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));
    process.resize(10, 10).await?;

    let mut plain = sandbox.spawn(ExecSpec::shell("echo ready; exec sleep 1000")).await?;
    first_line(&mut plain).await;
    assert_eq!(refused(plain.resize(10, 10).await, &["no terminal"]).kind(), &Kind::Conflict);
    Ok(())
}

async fn read_until(stream: &mut sandbox_host::OutputStream, seen: &mut String, what: &str) {
    let mut piece = [0; 1024];
    while !seen.contains(what) {
        let size = stream.read(&mut piece).await.expect("cannot read the output");
        assert!(size > 0, "the output ended before `{what}`: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&piece[..size]));
    }
}

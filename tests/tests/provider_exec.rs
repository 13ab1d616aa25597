//! Each exec function of the interface, through the host against the emulator: what it does, and what it refuses.

use std::time::Duration;

use sandbox_host::{
    Happened, Kind, Result,
    types::{EndReason, ExecSpec, ImageSpec, Keep, OutputLimits, OutputMode, SandboxSpec, Verdict},
};
use system_tests::{World, refused, sh, told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn limits(max: u64, keep: Keep) -> OutputLimits {
    OutputLimits { stdout_max: max, stderr_max: max, keep }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_gives_both_streams_and_the_end() -> Result<()> {
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
    // Not found and not executable are the command's end, not the call's.
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

    // Bytes are bytes.
    let result = sandbox.run(ExecSpec::shell(r"printf '\377\000\376'")).await?;
    assert_eq!(result.stdout.data, [255, 0, 254]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_beyond_the_limit_is_counted() -> Result<()> {
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
    // A limit for each stream.
    let own = OutputLimits { stdout_max: 4, stderr_max: 2, keep: Keep::Head };
    let result = sandbox.run_with(command(), Vec::new(), own).await?;
    assert_eq!((&result.stdout.data[..], &result.stderr.data[..]), (&b"1\n2\n"[..], &b"1\n"[..]));
    // More than one call of the interface keeps is collected piece by piece.
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
    // A program that wants less than there is.
    for size in [1_000_000, 20_000_000] {
        let result = sandbox.run_with(ExecSpec::shell("head -c 3"), vec![b'x'; size], OutputLimits::default()).await?;
        assert_eq!(result.stdout.data, b"xxx", "{}", told(&result));
        let result = sandbox.run_with(ExecSpec::new(["true"]), vec![b'x'; size], OutputLimits::default()).await?;
        assert!(matches!(result.verdict, Verdict::Exited(0)), "{}", told(&result));
    }
    // One that closes its input and goes on.
    let command = ExecSpec::shell("exec 0<&-; echo closed");
    let result = sandbox.run_with(command, vec![b'x'; 1_000_000], OutputLimits::default()).await?;
    assert_eq!(result.stdout.data, b"closed\n", "{}", told(&result));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_and_the_directory() -> Result<()> {
    let world = World::start().await;
    let spec = SandboxSpec::new(ImageSpec::default()).env("A", "sandbox").env("B", "sandbox").workdir("/tmp");
    let sandbox = world.provider.create(spec).await?;
    sh(&sandbox, "mkdir -p /tmp/deep/er '/tmp/ -x $y'").await;
    let line = r#"printf '%s|' "$A" "$B" "$C" "$PWD""#;
    let out = |result: sandbox_host::types::RunResult| String::from_utf8(result.stdout.data).expect("text");
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
    // Names that no shell could use, also where a shell is on the way.
    for (user, cwd) in [(None, None), (Some("nobody"), None), (None, Some("."))] {
        let mut command = ExecSpec::new(["env"]).env("discovery.type", "single node").env("1A", "x");
        (command.user, command.cwd) = (user.map(str::to_string), cwd.map(str::to_string));
        let said = out(sandbox.run(command).await?);
        assert!(said.contains("\ndiscovery.type=single node\n") || said.starts_with("discovery.type="), "{said}");
        assert!(said.lines().any(|line| line == "1A=x"), "{said}");
    }
    // Nothing in it says who runs the command.
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
async fn bad_commands_are_refused_before_anything_is_sent() -> Result<()> {
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
        (|spec| spec.user = Some("a;b".into()), "names no user"),
    ];
    for (change, word) in cases {
        for error in
            [refused(sandbox.run(bad(change)).await, &[word]), refused(sandbox.spawn(bad(change)).await, &[word])]
        {
            assert_eq!((error.kind(), error.happened()), (&Kind::InvalidArgument, Happened::No), "{error}");
        }
    }
    for signal in [0, 65, u32::MAX] {
        refused(sandbox.signal("x", signal).await, &["not a signal"]);
    }
    refused(sandbox.signal("main", 15).await, &["entry-point"]);
    assert_eq!(world.provider.metrics().requests, before.requests, "nothing was sent");
    // Nor later, to kill what was never started: such a call would have been made by now. An empty command does not get as
    // far as the plugin; the others, the four signals and this run are one call each.
    sandbox.run(ExecSpec::new(["true"])).await?;
    assert_eq!(world.provider.metrics().calls - before.calls, 14 + 4 + 1);
    Ok(())
}

/// What the program sees of a long command line is that command line and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arguments_beyond_64_kib() -> Result<()> {
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
        // The same again is the same run, of another instance too.
        let other = World::provider(&world.emulator.url()).await?.sandbox(sandbox.id());
        let again = other.run_with(command.clone(), *b"input", limits(1 << 20, Keep::Head)).await?;
        assert!(again.stdout.data == expected, "{first}");
        command.id = sandbox_host::fresh_id();
        command.user = Some("root".into());
        let result = sandbox.run_with(command, *b"input", limits(1 << 20, Keep::Head)).await?;
        assert!(result.stdout.data == expected, "as a user");
    }
    assert_eq!(sh(&sandbox, "ls -A /tmp").await, "", "nothing is left behind");
    // The process is the program itself.
    let mut argv = vec!["cat".to_string(), "/proc/self/cmdline".to_string()];
    argv.extend(std::iter::repeat_n(format!("/{}dev/null", "./".repeat(2000)), 17));
    let expected: Vec<u8> = argv.iter().flat_map(|arg| [arg.as_bytes(), b"\0"].concat()).collect();
    let result = sandbox.run_with(ExecSpec::new(argv), Vec::new(), limits(1 << 20, Keep::Head)).await?;
    assert!(result.stdout.data == expected, "{}", told(&result));
    // What Linux itself cannot do is the command's end.
    let too_many: Vec<String> =
        std::iter::once("true".to_string()).chain((0..60).map(|_| "x".repeat(100_000))).collect();
    let result = sandbox.run(ExecSpec::new(too_many)).await?;
    assert!(matches!(result.verdict, Verdict::Exited(126)), "{}", told(&result));
    assert!(String::from_utf8_lossy(&result.stderr.data).contains("too long"), "{}", told(&result));
    Ok(())
}

/// Each program that can change the user, by taking the better ones away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_as_another_user() -> Result<()> {
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
            Result::Ok(String::from_utf8(result.stdout.data).expect("text"))
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
        // What only one of them can.
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
    // Who commands run as anyway needs no helper.
    let result = sandbox.run(ExecSpec::new(["id", "-u"]).user("root")).await?;
    assert_eq!(result.stdout.data, b"0\n");
    // And who is not root cannot become anybody.
    let sandbox = world.sandbox_of(image(&["USER worker".to_string()])).await;
    let error = refused(sandbox.run(ExecSpec::new(["true"]).user("root")).await, &["4321"]);
    assert_eq!(error.kind(), &Kind::Unsupported);
    Ok(())
}

/// Counts those that a tree is made of; the sandbox's own entry point sleeps too.
const SLEEPERS: &str = "pgrep -fxc '(/bin/)?sleep 1000' || true";

/// A tree of processes that ignores SIGTERM, changes its sessions and clears its environment; `ready` when it stands.
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
async fn a_signal_reaches_the_whole_tree() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut bystander = sandbox.spawn(ExecSpec::shell("echo ready; exec tail -f /dev/null")).await?;
    first_line(&mut bystander).await;

    let mut process = sandbox.spawn(ExecSpec::shell(TREE)).await?;
    assert_eq!(first_line(&mut process).await, "ready\n");
    process.signal(15).await?;
    assert_eq!(sh(&sandbox, SLEEPERS).await, "5\n", "the trap is inherited");
    process.kill().await?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));
    assert_eq!(sh(&sandbox, SLEEPERS).await, "0\n");
    // Again, and to one that is over: no error. And nobody else was hit.
    process.signal(9).await?;
    assert!(refused(sandbox.signal("never-started", 9).await, &["signal"]).is_not_found());
    assert_eq!(sh(&sandbox, "pgrep -xc tail").await, "1\n");

    // A signal that is handled.
    let mut process =
        sandbox.spawn(ExecSpec::shell("trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.1; done")).await?;
    let mut stdout = process.stdout.take().expect("a stream");
    let mut line = [0; 6];
    stdout.read_exact(&mut line).await.expect("a line");
    process.signal(10).await?;
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.expect("text");
    assert_eq!(rest, "got\n");
    assert!(matches!(process.wait().await?, Verdict::Exited(5)));

    // Dropping a handle kills, detaching does not.
    let mut process = sandbox.spawn(ExecSpec::shell("echo ready; exec sleep 1000")).await?;
    first_line(&mut process).await;
    let id = process.id().to_string();
    drop(process);
    assert!(matches!(sandbox.attach(&id).wait().await?, Verdict::Signaled(9)));
    Ok(())
}

/// Between its start and its program's first instruction, an exec is nobody. Here it is for as long as the test wants.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_looks_again_for_whom_it_did_not_find() -> Result<()> {
    use modal_emulator::model::faults::{Fault, Rule};
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let id = "0c9be1c8-6d0c-4d5c-9c39-6d8de3a2f3a1";
    let script = "read id; echo ready; PROCESS_TAG=$id exec sleep 1000";
    let mut spec = ExecSpec::new(["env", "-i", "/bin/sh", "-c", script]);
    spec.id = id.into();
    let mut process = sandbox.spawn(spec).await?;

    // The call is made only after a look that found no process. It is held back until the process can be found.
    let (method, fault) = ("TaskExecPoll".to_string(), Fault::Delay { millis: 600_000, jitter_millis: 0 });
    world.emulator.chaos().add(Rule { method, times: Some(1), skip: 0, probability: 1.0, fault });
    let signal = tokio::spawn({
        let sandbox = sandbox.clone();
        async move { sandbox.signal(id, 9).await }
    });
    while world.emulator.chaos().rules()[0].1 == 0 {
        assert!(!signal.is_finished(), "it did not look whether the exec has ended");
        tokio::task::yield_now().await;
    }
    let mut stdin = process.stdin.take().expect("a stream");
    stdin.write_all(format!("{id}\n").as_bytes()).await.expect("it is read");
    stdin.shutdown().await.expect("it is read");
    assert_eq!(first_line(&mut process).await, "ready\n");
    while sh(&sandbox, "pgrep -fxc 'sleep 1000' || true").await != "1\n" {}
    world.emulator.chaos().release();
    signal.await.expect("no panic")?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));

    // Nobody for good: the caller has to know.
    let script = "echo ready; exec /bin/sleep 1000";
    let mut process = sandbox.spawn(ExecSpec::new(["env", "-i", "/bin/sh", "-c", script])).await?;
    assert_eq!(first_line(&mut process).await, "ready\n", "before that it may not have cleared anything");
    let error = refused(process.signal(9).await, &["cleared its environment", "Terminating the sandbox"]);
    assert_eq!(error.kind(), &Kind::Conflict);
    Ok(())
}

async fn first_line(process: &mut sandbox_host::Process) -> String {
    let stdout = process.stdout.as_mut().expect("a stream");
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(stdout.read_u8().await.expect("a byte"));
    }
    String::from_utf8(line).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_whole_tree() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let limit = Duration::from_secs(1);
    let result = sandbox.run(ExecSpec::shell(TREE).timeout(limit)).await?;
    assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
    assert_eq!(result.stdout.data, b"ready\n");
    assert_eq!(sh(&sandbox, SLEEPERS).await, "0\n");

    // The same with a handle.
    let mut process = sandbox.spawn(ExecSpec::shell(TREE).timeout(limit)).await?;
    first_line(&mut process).await;
    assert!(matches!(process.wait().await?, Verdict::Deadline));
    let (verdict, _, _) = process.output().await?;
    assert!(matches!(verdict, Verdict::Deadline));

    // A program that ends in its own way when it is asked to, and what it then says.
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; sleep 1000 & wait";
    let result = sandbox.run(ExecSpec::shell(polite).timeout(limit)).await?;
    assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
    assert_eq!(result.stdout.data, b"ready\nbye\n");
    let mut process = sandbox.spawn(ExecSpec::shell(polite).timeout(limit)).await?;
    first_line(&mut process).await;
    let (verdict, stdout, _) = process.output().await?;
    assert!(matches!(verdict, Verdict::Deadline) && stdout == b"bye\n", "{verdict:?}");
    // A command that ended in time has its exit code, also for a late question.
    let mut spec = ExecSpec::shell("echo done; exit 4").timeout(limit);
    spec.id = sandbox_host::fresh_id();
    let mut process = sandbox.spawn(spec).await?;
    sh(&sandbox, "sleep 2").await;
    assert!(matches!(process.wait().await?, Verdict::Exited(4)));

    // A program that says of itself what a kill looks like.
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
    use modal_emulator::control::chaos::{Fault, Rule};
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
    assert_eq!(sh(&sandbox, SLEEPERS).await, "0\n");
    let mut process = sandbox.spawn(ExecSpec::shell(TREE).timeout(limit)).await?;
    assert!(matches!(process.wait().await?, Verdict::Deadline));
    assert_eq!(sh(&sandbox, SLEEPERS).await, "0\n");
    let (verdict, stdout, _) = sandbox.spawn(ExecSpec::shell(TREE).timeout(limit)).await?.output().await?;
    assert!(matches!(verdict, Verdict::Deadline) && stdout == b"ready\n", "{verdict:?}");
    assert_eq!(sh(&sandbox, SLEEPERS).await, "0\n");
    assert!(begun.elapsed() < Duration::from_secs(85), "{:?}", begun.elapsed());
    let applied = world.emulator.chaos().rules()[0].1;
    assert!(applied >= 3, "{applied}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_is_one_start() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let command = ExecSpec::shell("echo x >>/tmp/count; cat; echo done");
    let mut first = sandbox.spawn(command.clone()).await?;
    let other = World::provider(&world.emulator.url()).await?.sandbox(sandbox.id());
    let second = other.spawn(command.clone()).await?;
    // Input goes on where it stands, whoever writes it.
    let mut stdin = first.stdin.take().expect("a stream");
    stdin.write_all(b"one ").await.expect("it is taken");
    stdin.flush().await.expect("it is taken");
    let mut attached = other.attach(command.id.clone());
    let mut more = attached.stdin.take().expect("a stream");
    more.write_all(b"two\n").await.expect("it is taken");
    more.shutdown().await.expect("it is taken");
    for process in [first, attached] {
        let (verdict, stdout, _) = process.output().await?;
        assert!(matches!(verdict, Verdict::Exited(0)));
        assert_eq!(String::from_utf8_lossy(&stdout), "one two\ndone\n");
    }
    // A run of the same id collects the same again.
    let again = sandbox.run(command).await?;
    assert_eq!(again.stdout.data, b"one two\ndone\n", "{}", told(&again));
    assert_eq!(sh(&sandbox, "wc -l </tmp/count").await.trim(), "1");
    second.detach();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_has_a_size() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let line = "trap 'stty size' WINCH; stty size; echo $TERM; while :; do read -r line && echo \"<$line>\"; done";
    let mut process = sandbox.spawn(ExecSpec::shell(line).pty(24, 80, "vt100")).await?;
    assert!(process.has_pty());
    let mut stdout = process.stdout.take().expect("a stream");
    let mut seen = String::new();
    read_until(&mut stdout, &mut seen, "vt100").await;
    assert!(seen.starts_with("24 80\r\n"), "{seen:?}");
    process.resize(50, 132).await?;
    // The shell looks at it when it has read a line.
    let mut stdin = process.stdin.take().expect("a stream");
    stdin.write_all(b"go\n").await.expect("it is taken");
    stdin.flush().await.expect("it is taken");
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

async fn read_until(stream: &mut sandbox_host::Output, seen: &mut String, what: &str) {
    let mut piece = [0; 1024];
    while !seen.contains(what) {
        let size = stream.read(&mut piece).await.expect("it can be read");
        assert!(size > 0, "it ended before `{what}`: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&piece[..size]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_that_ends_is_the_verdict() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut process = sandbox.spawn(ExecSpec::shell("echo ready; exec sleep 1000")).await?;
    first_line(&mut process).await;
    let running = {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { sandbox.run(ExecSpec::shell("touch /tmp/here; exec sleep 1000")).await })
    };
    sh(&sandbox, "until [ -e /tmp/here ]; do :; done").await;
    sandbox.terminate().await?;
    let verdict = process.wait().await?;
    assert!(matches!(verdict, Verdict::SandboxEnded(EndReason::Terminated)), "{verdict:?}");
    let result = running.await.expect("no panic")?;
    assert!(matches!(result.verdict, Verdict::SandboxEnded(EndReason::Terminated)), "{}", told(&result));

    let error = refused(sandbox.run(ExecSpec::new(["true"])).await, &["terminated"]);
    assert_eq!((error.kind(), error.happened()), (&Kind::SandboxEnded, Happened::No));
    let error = refused(sandbox.spawn(ExecSpec::new(["true"])).await, &["terminated"]);
    assert!(error.is_sandbox_ended());

    let unknown = world.provider.sandbox("sb-01JABCDEFGHJKMNPQRSTVWXYZ0");
    for error in [
        refused(unknown.run(ExecSpec::new(["true"])).await, &["sb-01JABC"]),
        refused(unknown.attach("x").wait().await, &["sb-01JABC"]),
        refused(unknown.signal("x", 9).await, &["sb-01JABC"]),
    ] {
        assert!(error.is_not_found() && error.happened() == Happened::No, "{error:?}");
    }
    let sandbox = world.sandbox().await;
    assert!(refused(sandbox.attach("never-started").wait().await, &[]).is_not_found());
    Ok(())
}

/// The entry-point command is read, fed and waited for like any exec.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_entry_point_is_the_exec_main() -> Result<()> {
    let world = World::start().await;
    let spec = SandboxSpec::new(ImageSpec::default()).command([
        "sh",
        "-c",
        "echo hello; read -r word; echo \"<$word>\"; exit 3",
    ]);
    let sandbox = world.provider.create(spec).await?;
    let mut main = sandbox.attach("main");
    let mut stdout = main.stdout.take().expect("a stream");
    let mut seen = String::new();
    read_until(&mut stdout, &mut seen, "hello\n").await;
    let mut stdin = main.stdin.take().expect("a stream");
    stdin.write_all(b"word\n").await.expect("it is taken");
    stdin.flush().await.expect("it is taken");
    read_until(&mut stdout, &mut seen, "<word>\n").await;
    let verdict = main.wait().await?;
    assert!(matches!(verdict, Verdict::Exited(3)), "{verdict:?}");
    refused(main.signal(9).await, &["entry-point"]);
    Ok(())
}

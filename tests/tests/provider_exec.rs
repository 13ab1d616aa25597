//! The exec functions of the provider for Modal, through the host library, with the emulator: what the checks of
//! `sandbox-host conformance` do not say, because it is not the same for other providers.

use std::time::Duration;

use sandbox_host::{
    Happened, Kind, ProcessOutput, Result, Sandbox, Signal,
    types::{ExecSpec, ImageSpec, Keep, OutputLimits, Verdict},
};
use system_tests::{World, refused, sh, told};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

fn limits(max: u64, keep: Keep) -> OutputLimits {
    OutputLimits { stdout_max: max, stderr_max: max, keep }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_does_not_show_how_a_command_was_started() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let result = sandbox.run(ExecSpec::new(["env"])).await?;
    let said = String::from_utf8(result.stdout.data).expect("not UTF-8");
    let names: Vec<_> = said.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.contains(&"PROCESS_TAG") && !names.iter().any(|name| name.starts_with("SANDBOX")), "{names:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_invalid_part_of_a_command() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let command = || ExecSpec::new(["pwd"]);
    refused(sandbox.run(command().cwd("")).await, &["working directory"]);
    refused(sandbox.run(command().env("A=B", "x")).await, &["A=B"]);
    refused(sandbox.run(command().env("", "x")).await, &["name"]);
    refused(sandbox.run(command().env("A", "x\0y")).await, &["NUL"]);
    let secret = ExecSpec { secrets: vec!["no-such-secret".into()], ..command() };
    refused(sandbox.run(secret).await, &["no-such-secret"]);
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

/// Makes the emulator ignore the time limits of commands.
fn ignore_time_limits(world: &World) {
    use modal_emulator::model::faults::{Fault, Rule};
    let (method, fault) = ("TaskExecStart".to_owned(), Fault::IgnoreTimeLimit);
    world.emulator.chaos().add(Rule { method, times: None, skip: 0, probability: 1.0, fault });
}

/// The provider sends SIGTERM before SIGKILL. The service has no time limit here: on a loaded machine it could kill the
/// program before SIGTERM arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_can_print_its_last_words_after_its_time_limit() -> Result<()> {
    let world = World::start().await;
    ignore_time_limits(&world);
    let sandbox = world.sandbox().await;
    let polite = || ExecSpec::shell("trap 'echo bye; exit 0' TERM; echo ready; sleep 1000 & wait");
    // On a loaded machine, a limit may pass before the program has done anything.
    for limit in [1, 8, 40].map(Duration::from_secs) {
        let result = sandbox.run(polite().timeout(limit)).await?;
        assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
        let process = sandbox.spawn(polite().timeout(limit)).await?;
        let ProcessOutput { verdict, stdout, .. } = process.wait_with_output().await?;
        assert!(matches!(verdict, Verdict::Deadline), "{verdict:?}");
        if !result.stdout.data.is_empty() && !stdout.is_empty() {
            assert_eq!((&result.stdout.data[..], &stdout[..]), (&b"ready\nbye\n"[..], &b"ready\nbye\n"[..]));
            return Ok(());
        }
    }
    panic!("the program should print something within 40 s");
}

/// Some servers of the protocol (those of Modal's own test suites) do not enforce time limits, so the provider has to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_holds_where_the_service_has_none() -> Result<()> {
    let world = World::start().await;
    ignore_time_limits(&world);
    let sandbox = world.sandbox().await;
    let limited = || ExecSpec::shell(TREE).timeout(Duration::from_secs(2));
    // The host's guard acts 90 seconds after the limit. Each command takes less, so it is the provider that ends it.
    let guard = Duration::from_secs(85);
    let too_late = "the provider should end the command";
    let result = timeout(guard, sandbox.run(limited())).await.expect(too_late)?;
    assert!(matches!(result.verdict, Verdict::Deadline), "{}", told(&result));
    tree_is_gone(&sandbox).await;
    let mut process = sandbox.spawn(limited()).await?;
    assert!(matches!(timeout(guard, process.wait()).await.expect(too_late)?, Verdict::Deadline));
    tree_is_gone(&sandbox).await;
    let process = sandbox.spawn(limited()).await?;
    let ProcessOutput { verdict, stdout, .. } = timeout(guard, process.wait_with_output()).await.expect(too_late)?;
    // On a loaded machine, the limit may pass before the command has printed anything.
    assert!(matches!(verdict, Verdict::Deadline) && (stdout.is_empty() || stdout == b"ready\n"), "{verdict:?}");
    tree_is_gone(&sandbox).await;
    let applied = world.emulator.chaos().rules()[0].1;
    assert!(applied >= 3, "{applied}");
    Ok(())
}

/// When a command was just started, it has no process with the marker for a moment. This one has none for a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_can_be_resized_before_its_command_is_found() -> Result<()> {
    const HIDDEN: &str =
        r#"exec env -i PATH="$PATH" sh -c 'echo ready; sleep 1; PROCESS_TAG=$0 exec sh -c "$1"' "$PROCESS_TAG" "$0""#;
    const RESIZED: &str = r#"until [ "$(stty size)" = "50 132" ]; do sleep 0.05; done"#;
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let spec = ExecSpec::new(["sh", "-c", HIDDEN, RESIZED]).pty(24, 80, "vt100").timeout(Duration::from_secs(120));
    let mut process = sandbox.spawn(spec).await?;
    first_line(&mut process).await;
    process.resize(50, 132).await?;
    let verdict = process.wait().await?;
    assert!(matches!(verdict, Verdict::Exited(0)), "{verdict:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_of_an_ended_command_can_be_resized() -> Result<()> {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut process = sandbox.spawn(ExecSpec::shell("echo ready; exec sleep 1000").pty(24, 80, "vt100")).await?;
    assert!(process.has_pty());
    first_line(&mut process).await;
    refused(process.resize(0, 80).await, &["at least one row"]);
    process.kill().await?;
    assert!(matches!(process.wait().await?, Verdict::Signaled(9)));
    process.resize(10, 10).await
}

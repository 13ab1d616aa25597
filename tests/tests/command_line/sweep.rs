//! A harness that is killed with `kill -9`: what it leaves, and nothing else, is removed by a sweep after the lease.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use system_tests::{Emulator, component};

use super::{alive, printed};

/// A harness of `tests/src/bin`, with its sandboxes made.
fn harness(emulator: &Emulator, owner: &str, count: usize) -> (Child, BTreeSet<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.arg(emulator.url()).arg(component()).args([owner, &count.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let ids: BTreeSet<_> = lines.take(count).map(|line| line.expect("an id")).collect();
    assert_eq!(ids.len(), count);
    (child, ids)
}

fn sweep(emulator: &Emulator, arguments: &[&str]) -> (BTreeSet<String>, Value) {
    let mut all = vec!["--json", "sweep"];
    all.extend(arguments);
    let answer: Value = serde_json::from_str(&printed(emulator, &all)).expect("JSON");
    let found = answer["found"].as_array().expect("a list");
    (found.iter().map(|one| one["sandbox"].as_str().expect("an id").to_owned()).collect(), answer)
}

/// How far two looks at the service's time may be apart: its answers say it in whole seconds.
const CLOCK: Duration = Duration::from_secs(5);

/// As if a little more than this much time had passed for the sandbox: only its keeper writes its lease, and that one is dead.
fn age(emulator: &Emulator, id: &str, time: Duration) {
    let tags: Value = serde_json::from_str(&printed(emulator, &["--json", "tags", id])).expect("JSON");
    let lease: u64 = tags["sandbox-lease"].as_str().expect("text").parse().expect("a number");
    let earlier = lease - u64::try_from((time + CLOCK).as_millis()).expect("small");
    printed(emulator, &["tags", id, &format!("sandbox-lease={earlier}")]);
}

#[test]
fn after_kill_9_exactly_what_was_left_is_removed() {
    let emulator = Emulator::start();
    let (mut killed, left) = harness(&emulator, "me", 50);
    let (mut living, kept) = harness(&emulator, "me", 2);
    let (mut stranger, strange) = harness(&emulator, "you", 2);
    let unowned = printed(&emulator, &["create", "-q"]);
    let everything = alive(&emulator).len();
    assert_eq!(everything, 55);

    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    stranger.kill().expect("it runs");
    stranger.wait().expect("it ends");
    // The lease is not over: whoever was killed may have been started again, and take them up.
    assert_eq!(sweep(&emulator, &["--owner", "me", "--yes"]).0, BTreeSet::new());

    // A lease of thirty seconds, and the grace for clocks that differ.
    for id in left.iter().chain(&strange) {
        age(&emulator, id, Duration::from_secs(30) + sandbox_host::GRACE);
    }
    let (found, answer) = sweep(&emulator, &["--owner", "me", "--dry-run"]);
    assert_eq!(found, left);
    assert!(answer["found"].as_array().expect("a list").iter().all(|one| one["terminated"] == false), "{answer}");
    assert_eq!(alive(&emulator).len(), everything, "a dry run removes nothing");

    let (found, answer) = sweep(&emulator, &["--owner", "me"]);
    assert_eq!(found, left);
    assert!(answer["found"].as_array().expect("a list").iter().all(|one| one["terminated"] == true), "{answer}");
    let mut expected: BTreeSet<_> = kept.union(&strange).cloned().collect();
    expected.insert(unowned);
    assert_eq!(alive(&emulator).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(sweep(&emulator, &["--owner", "me"]).0, BTreeSet::new());

    drop(living.stdin.take());
    assert!(living.wait().expect("it ends").success());
    assert_eq!(sweep(&emulator, &["--owner", "you"]).0, strange);
}

/// The same of `sandbox run`: killed, it leaves a sandbox with a lease; kept, one without, which is nobody's to sweep.
#[test]
fn a_killed_run_is_swept_and_a_kept_sandbox_is_not() {
    let emulator = Emulator::start();
    let owner = |command: &mut Command| {
        command.env("USER", "sweeper").env_remove("LOGNAME");
    };
    let mut kept = emulator.sandbox();
    owner(kept.args(["run", "-q", "--json", "--keep", "--", "true"]));
    let kept: Value = serde_json::from_slice(&kept.output().expect("it runs").stdout).expect("JSON");
    let kept = kept["sandbox"].as_str().expect("an id").to_owned();

    let mut command = emulator.sandbox();
    owner(command.args(["run", "-q", "--", "sh", "-c", "echo begun; sleep 4321"]));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let left: Vec<_> = alive(&emulator).into_iter().filter(|id| *id != kept).collect();
    assert_eq!(left.len(), 1);
    let tags: Value = serde_json::from_str(&printed(&emulator, &["--json", "tags", &left[0]])).expect("JSON");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after it").as_millis();
    let lease: u128 = tags["sandbox-lease"].as_str().expect("a lease").parse().expect("a number");
    assert!(lease <= now + 600_000, "ten minutes at most");
    let owner = tags["sandbox-owner"].as_str().expect("an owner");
    assert!(owner.starts_with("sweeper."), "{owner}");

    age(&emulator, &left[0], Duration::from_secs(600) + sandbox_host::GRACE);
    assert_eq!(sweep(&emulator, &["--owner", owner]).0, left.iter().cloned().collect());
    assert_eq!(alive(&emulator), [kept]);
}

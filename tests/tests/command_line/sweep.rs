//! A program is killed with `kill -9`. After its lease has expired, a sweep removes exactly its sandboxes.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use system_tests::{Emulator, component};

use super::{alive, printed};

/// Starts the program `harness` of `tests/src/bin` and returns it with the ids of the sandboxes that it created.
fn harness(emulator: &Emulator, owner: &str, count: usize) -> (Child, BTreeSet<String>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_harness"));
    command.arg(emulator.url()).arg(component()).args([owner, &count.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot start the program");
    let lines = BufReader::new(child.stdout.take().expect("the stream is not piped")).lines();
    let ids: BTreeSet<_> = lines.take(count).map(|line| line.expect("cannot read a line")).collect();
    assert_eq!(ids.len(), count);
    (child, ids)
}

fn sweep(emulator: &Emulator, arguments: &[&str]) -> (BTreeSet<String>, Value) {
    let mut all = vec!["--json", "sweep"];
    all.extend(arguments);
    let answer: Value = serde_json::from_str(&printed(emulator, &all)).expect("invalid JSON");
    let found = answer["found"].as_array().expect("not a list");
    (found.iter().map(|one| one["sandbox"].as_str().expect("no id").to_owned()).collect(), answer)
}

/// Largest difference between two readings of the service's time, which it reports in whole seconds, with a margin.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(5);

/// Moves the lease of a sandbox back by a little more than `time`. Only its keeper would renew the lease, and that is
/// dead.
fn age(emulator: &Emulator, id: &str, time: Duration) {
    let tags: Value = serde_json::from_str(&printed(emulator, &["--json", "tags", id])).expect("invalid JSON");
    let lease: u64 = tags["sandbox-lease"].as_str().expect("not a string").parse().expect("not a number");
    let earlier = lease - u64::try_from((time + MAX_CLOCK_DIFFERENCE).as_millis()).expect("the number is too large");
    printed(emulator, &["tags", id, &format!("sandbox-lease={earlier}")]);
}

#[test]
fn a_sweep_removes_exactly_what_a_killed_program_left() {
    let emulator = Emulator::start();
    let (mut killed, left) = harness(&emulator, "me", 50);
    let (mut living, kept) = harness(&emulator, "me", 2);
    let (mut other, others) = harness(&emulator, "you", 2);
    let unowned = printed(&emulator, &["create", "-q"]);
    let everything = alive(&emulator).len();
    assert_eq!(everything, 55);

    killed.kill().expect("cannot signal the program");
    killed.wait().expect("cannot wait for the program");
    other.kill().expect("cannot signal the program");
    other.wait().expect("cannot wait for the program");
    // The lease has not expired: the killed program may have been started again and use the sandboxes.
    assert_eq!(sweep(&emulator, &["--owner", "me", "--yes"]).0, BTreeSet::new());

    // The lease of 30 s, and the grace period for clocks that differ.
    for id in left.iter().chain(&others) {
        age(&emulator, id, Duration::from_secs(30) + sandbox_host::GRACE);
    }
    let (found, answer) = sweep(&emulator, &["--owner", "me", "--dry-run"]);
    assert_eq!(found, left);
    assert!(answer["found"].as_array().expect("not a list").iter().all(|one| one["terminated"] == false), "{answer}");
    assert_eq!(alive(&emulator).len(), everything, "a dry run must not remove sandboxes");

    let (found, answer) = sweep(&emulator, &["--owner", "me"]);
    assert_eq!(found, left);
    assert!(answer["found"].as_array().expect("not a list").iter().all(|one| one["terminated"] == true), "{answer}");
    let mut expected: BTreeSet<_> = kept.union(&others).cloned().collect();
    expected.insert(unowned);
    assert_eq!(alive(&emulator).into_iter().collect::<BTreeSet<_>>(), expected);
    assert_eq!(sweep(&emulator, &["--owner", "me"]).0, BTreeSet::new());

    drop(living.stdin.take());
    assert!(living.wait().expect("cannot wait for the program").success());
    assert_eq!(sweep(&emulator, &["--owner", "you"]).0, others);
}

/// A killed `sandbox-host run` leaves a sandbox with a lease, which a sweep removes. A kept sandbox has no lease and stays.
#[test]
fn a_killed_run_is_swept_and_a_kept_sandbox_is_not() {
    let emulator = Emulator::start();
    let owner = |command: &mut Command| {
        command.env("USER", "sweeper").env_remove("LOGNAME");
    };
    let mut kept = emulator.sandbox();
    owner(kept.args(["run", "-q", "--json", "--keep", "--", "true"]));
    let kept: Value =
        serde_json::from_slice(&kept.output().expect("cannot start the program").stdout).expect("invalid JSON");
    let kept = kept["sandbox"].as_str().expect("no id").to_owned();

    let mut command = emulator.sandbox();
    owner(command.args(["run", "-q", "--", "sh", "-c", "echo begun; sleep 4321"]));
    let mut child = command.stdout(Stdio::piped()).spawn().expect("cannot start the program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("the stream is not piped"))
        .read_line(&mut line)
        .expect("cannot read a line");
    child.kill().expect("cannot signal the program");
    child.wait().expect("cannot wait for the program");
    let left: Vec<_> = alive(&emulator).into_iter().filter(|id| *id != kept).collect();
    assert_eq!(left.len(), 1);
    let tags: Value = serde_json::from_str(&printed(&emulator, &["--json", "tags", &left[0]])).expect("invalid JSON");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is before 1970").as_millis();
    let lease: u128 = tags["sandbox-lease"].as_str().expect("no lease tag").parse().expect("not a number");
    assert!(lease <= now + 600_000, "the lease is longer than ten minutes");
    let owner = tags["sandbox-owner"].as_str().expect("no owner tag");
    assert!(owner.starts_with("sweeper."), "{owner}");

    age(&emulator, &left[0], Duration::from_secs(600) + sandbox_host::GRACE);
    assert_eq!(sweep(&emulator, &["--owner", owner]).0, left.iter().cloned().collect());
    assert_eq!(alive(&emulator), [kept]);
}

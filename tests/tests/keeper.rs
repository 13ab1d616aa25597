//! A `Keeper` with a whole provider, and the leases that other processes see. The schedule of its renewals is tested in
//! the host library without a clock; here a round takes its real ten seconds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use modal_emulator::{
    Options,
    model::faults::{Fault, Rule},
};
use sandbox_host::{
    Keeper, LEASE_TAG, OWNER_TAG, Plugin, Provider, RUN_TAG, Result, Sandbox, Secret,
    types::{ListFilter, SandboxSpec},
};
use system_tests::World;

/// The shortest lease that `Keeper` accepts. It is renewed every ten seconds.
const LEASE: Duration = Duration::from_secs(30);

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock is before 1970")
        .as_millis()
        .try_into()
        .expect("the clock is too far in the future")
}

fn lease(tags: &[(String, String)]) -> u64 {
    let tag = tags.iter().find(|(name, _)| name == LEASE_TAG).expect("no lease tag");
    tag.1.parse().expect("not a number")
}

/// Returns the tags of a sandbox from the list, because a test may make the calls fail with which the keeper reads
/// tags.
async fn listed(sandbox: &Sandbox) -> Result<Vec<(String, String)>> {
    let all = sandbox.provider().list(&ListFilter::default(), 100).await?;
    Ok(all.into_iter().find(|info| info.id == sandbox.id()).expect("the sandbox is not in the list").tags)
}

/// Waits until the keeper has renewed the lease this many times.
async fn moved(sandbox: &Sandbox, times: usize) -> Result<()> {
    let watch = async {
        let mut last = lease(&listed(sandbox).await?);
        for _ in 0..times {
            let before = last;
            while last == before {
                tokio::time::sleep(Duration::from_millis(100)).await;
                last = lease(&listed(sandbox).await?);
            }
        }
        Ok(())
    };
    // Several times the expected duration. Only a failing test waits this long.
    tokio::time::timeout(Duration::from_secs(90), watch).await.expect("the lease was not renewed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_of_unlimited_duration_never_expires() -> Result<()> {
    let world = World::start().await;
    let keeper = Keeper::new(&world.provider, "me", Duration::MAX)?;
    assert_eq!(lease(&keeper.tag(SandboxSpec::default()).tags), u64::MAX);
    let sandbox = keeper.create(SandboxSpec::default()).await?;
    assert_eq!(lease(&sandbox.tags().await?), u64::MAX);
    assert_eq!(world.provider.sweep("me", true).await?, []);
    world.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_starts_when_the_sandbox_exists() -> Result<()> {
    let emulator =
        modal_emulator::Emulator::start(Options { program: Some(system_tests::program()), ..Options::default() });
    let emulator = emulator.await.expect("the emulator does not start");
    let waits = Arc::new(AtomicU64::new(0));
    let told = waits.clone();
    let provider = Provider::builder(&Plugin::load(system_tests::component()).await?)
        .inherit_env(false)
        .env("MODAL_SERVER_URL", emulator.url())
        .credential("token-id", Secret::new("ak-test"))
        .credential("token-secret", Secret::new("as-test"))
        .on_wait(move |waiting| told.store(now() + waiting.pause.as_millis() as u64, Ordering::SeqCst))
        .build()
        .await?;
    let keeper = Keeper::new(&provider, "me", LEASE)?;
    let full = Fault::Status { code: 8, message: "full".into(), retry_after_secs: Some(6.0) };
    let rule = Rule { method: "SandboxCreateV2".into(), times: Some(1), skip: 0, probability: 1.0, fault: full };
    emulator.chaos().add(rule);
    let sandbox = keeper.create(SandboxSpec::default()).await?;
    let waited_until = waits.load(Ordering::SeqCst);
    assert!(waited_until > 0, "the create should have been delayed");
    let lease = lease(&sandbox.tags().await?);
    // The service reports its time in whole seconds and an answer takes time to arrive. The tolerance for both must be
    // less than the six seconds of the delay.
    assert!(lease + 4_000 >= waited_until + 30_000, "the lease {lease} does not start after {waited_until}");
    emulator.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keeper_changes_only_the_lease_and_only_of_kept_sandboxes() -> Result<()> {
    let world = World::start().await;
    let keeper = Keeper::new(&world.provider, "me", LEASE)?;
    let ours = keeper.create(SandboxSpec::default()).await?;
    let theirs = keeper.create(SandboxSpec::default()).await?;

    let mut tags = ours.tags().await?;
    tags.push(("colour".into(), "blue".into()));
    ours.set_tags(tags.clone()).await?;
    let taken = [(OWNER_TAG, "you"), (RUN_TAG, "another"), (LEASE_TAG, "12345")];
    let mut taken: Vec<_> = taken.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    theirs.set_tags(taken.clone()).await?;

    // When the second round reaches one sandbox, the first round is complete for both.
    moved(&ours, 2).await?;
    let sorted = |mut tags: Vec<(String, String)>| {
        tags.retain(|(name, _)| name != LEASE_TAG);
        tags.sort();
        tags
    };
    assert_eq!(sorted(ours.tags().await?), sorted(tags));
    let mut found = theirs.tags().await?;
    found.sort();
    taken.sort();
    assert_eq!(found, taken);
    world.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_renewal_does_not_delay_the_others() -> Result<()> {
    let world = World::start().await;
    let keeper = Keeper::new(&world.provider, "me", LEASE)?;
    let (one, other) = (keeper.create(SandboxSpec::default()).await?, keeper.create(SandboxSpec::default()).await?);
    // The fault applies to the renewal that comes first, of either sandbox.
    let fault = Fault::Delay { millis: 3_600_000, jitter_millis: 0 };
    let rule = Rule { method: "SandboxTagsSet*".into(), times: Some(1), skip: 0, probability: 1.0, fault };
    world.emulator.chaos().add(rule);
    let (one, other) = futures_util::join!(moved(&one, 1), moved(&other, 1));
    one?;
    other?;
    assert_eq!(world.emulator.chaos().rules()[0].1, 1, "one renewal should have hung");
    world.end().await;
    Ok(())
}

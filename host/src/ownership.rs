//! Whose sandbox it is, and until when: so that a harness that was killed leaves nothing for longer than its lease.
//!
//! A [`Keeper`] tags each sandbox in the create request itself with owner, run and the end of its lease, and moves that
//! end on while it lives. [`Provider::sweep`] terminates what carries all three tags, belongs to the given owner, and
//! whose lease is over; it looks at the tags once more just before, and never touches anything else: not sandboxes
//! without tags, with other owners', with leases that do not parse, or that somebody moved on in the meantime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::provider::Provider;
use crate::sandbox::Sandbox;
use crate::spec::{fresh_id, millis};
use crate::types::{ListFilter, SandboxSpec};

/// Who made it.
pub const OWNER_TAG: &str = "sandbox-owner";
/// In which run of the owner.
pub const RUN_TAG: &str = "sandbox-run";
/// Until when it is looked after: milliseconds since the Unix epoch.
pub const LEASE_TAG: &str = "sandbox-lease";

/// Clocks of two machines differ, and a renewal takes its time: a lease counts as over only this long after its end.
pub const GRACE: Duration = Duration::from_secs(60);

/// The shortest lease: below it, renewing would be most of what is done.
const SHORTEST: Duration = Duration::from_secs(30);

/// Sandboxes that one sweep looks at.
const SWEEP: usize = 10_000;

/// Looks after the sandboxes of one run. Dropping it ends the renewing: what is then not terminated falls to a sweep.
pub struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Provider,
    owner: String,
    run: String,
    lease: Duration,
    kept: Mutex<HashMap<String, Vec<(String, String)>>>,
}

/// What a sweep found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The sandbox.
    pub id: String,
    /// The run that made it.
    pub run: String,
    /// How long its lease has been over.
    pub overdue: Duration,
    /// Whether it was terminated: false in a dry run, and when it was not possible (see the log).
    pub terminated: bool,
}

impl Keeper {
    /// Begins a run of this owner. `lease`: how long a sandbox outlives a killed harness, at least 30 seconds.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) for an empty owner or a short lease.
    pub fn new(provider: &Provider, owner: impl Into<String>, lease: Duration) -> Result<Keeper> {
        let owner = owner.into();
        if owner.is_empty() {
            return Err(Error::invalid("keep sandboxes", "the owner's name is empty"));
        }
        if lease < SHORTEST {
            return Err(Error::invalid("keep sandboxes", format!("a lease lasts at least {SHORTEST:?}")));
        }
        let inner =
            Arc::new(Inner { provider: provider.clone(), owner, run: fresh_id(), lease, kept: Mutex::default() });
        provider.inner.tasks.spawn(renew(Arc::downgrade(&inner), lease / 3));
        Ok(Keeper { inner })
    }

    /// The run's id, the value of [`RUN_TAG`].
    pub fn run(&self) -> &str {
        &self.inner.run
    }

    /// Adds the tags to a specification, for a sandbox that is created by other means.
    pub fn tag(&self, mut spec: SandboxSpec) -> SandboxSpec {
        spec.tags.retain(|(name, _)| ![OWNER_TAG, RUN_TAG, LEASE_TAG].contains(&name.as_str()));
        spec.tags.extend(self.inner.tags());
        spec
    }

    /// Creates a sandbox and looks after it until it is [released](Self::release) or the keeper is dropped.
    ///
    /// # Errors
    ///
    /// As [`Provider::create`].
    pub async fn create(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let spec = self.tag(spec);
        let own: Vec<_> = spec.tags.iter().filter(|(name, _)| name != LEASE_TAG).cloned().collect();
        let sandbox = self.inner.provider.create(spec).await?;
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(sandbox.id().to_owned(), own);
        Ok(sandbox)
    }

    /// Looks after it no longer: it is over, or somebody else does.
    pub fn release(&self, sandbox: &Sandbox) {
        self.inner.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox.id());
    }
}

impl Inner {
    fn tags(&self) -> [(String, String); 3] {
        let until = now_millis() + millis(self.lease);
        [
            (OWNER_TAG.to_owned(), self.owner.clone()),
            (RUN_TAG.to_owned(), self.run.clone()),
            (LEASE_TAG.to_owned(), until.to_string()),
        ]
    }
}

/// Moves the leases on for as long as the keeper lives.
async fn renew(keeper: Weak<Inner>, pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        let Some(inner) = keeper.upgrade() else { return };
        let kept: Vec<_> = {
            let kept = inner.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().map(|(id, tags)| (id.clone(), tags.clone())).collect()
        };
        // A few at a time: a thousand sandboxes are no reason for a thousand requests at once.
        for part in kept.chunks(16) {
            let renewed = part.iter().map(|(id, tags)| {
                let (sandbox, mut tags) = (inner.provider.sandbox(id), tags.clone());
                tags.push((LEASE_TAG.to_owned(), (now_millis() + millis(inner.lease)).to_string()));
                async move { (sandbox.id().to_owned(), sandbox.set_tags(tags).await) }
            });
            for (id, result) in futures_util::future::join_all(renewed).await {
                match result {
                    Err(error) if error.is_sandbox_ended() || error.is_not_found() => {
                        inner.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                    }
                    Err(error) => tracing::warn!(sandbox = id, %error, "lease not renewed"),
                    Ok(()) => {}
                }
            }
        }
    }
}

impl Provider {
    /// Terminates this owner's sandboxes whose lease is over, or only finds them. Gives what was found.
    ///
    /// # Errors
    ///
    /// When the sandboxes cannot be listed.
    pub async fn sweep(&self, owner: &str, dry_run: bool) -> Result<Vec<Swept>> {
        let filter = ListFilter::default().tag(OWNER_TAG, owner);
        let mut found = Vec::new();
        for info in self.list(&filter, SWEEP).await? {
            let Some((run, overdue)) = expired(&info.tags, owner, now_millis()) else { continue };
            let mut swept = Swept { id: info.id, run, overdue, terminated: false };
            if !dry_run {
                let sandbox = self.sandbox(swept.id.clone());
                // The list may be old: its owner may have moved the lease on since.
                match sandbox.tags().await {
                    Ok(tags) if expired(&tags, owner, now_millis()).is_some() => match sandbox.terminate().await {
                        Ok(()) => swept.terminated = true,
                        Err(error) => tracing::warn!(sandbox = swept.id, %error, "not swept"),
                    },
                    Ok(_) => continue,
                    Err(error) if error.is_sandbox_ended() || error.is_not_found() => continue,
                    Err(error) => tracing::warn!(sandbox = swept.id, %error, "not swept"),
                }
            }
            found.push(swept);
        }
        Ok(found)
    }
}

/// The run, and how long the lease has been over; none unless it provably is this owner's and over.
fn expired(tags: &[(String, String)], owner: &str, now: u64) -> Option<(String, Duration)> {
    let tag = |wanted: &str| tags.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    if owner.is_empty() || tag(OWNER_TAG)? != owner {
        return None;
    }
    let run = tag(RUN_TAG).filter(|run| !run.is_empty())?.to_owned();
    let until: u64 = tag(LEASE_TAG)?.parse().ok()?;
    let overdue = now.checked_sub(until.checked_add(millis(GRACE))?)?;
    Some((run, Duration::from_millis(overdue)))
}

fn now_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(owner: Option<&str>, run: Option<&str>, lease: Option<&str>) -> Vec<(String, String)> {
        let pair = |name: &str, value: Option<&str>| value.map(|value| (name.to_owned(), value.to_owned()));
        [pair(OWNER_TAG, owner), pair(RUN_TAG, run), pair(LEASE_TAG, lease)].into_iter().flatten().collect()
    }

    #[test]
    fn only_what_is_provably_ours_and_over_is_swept() {
        let grace = millis(GRACE);
        let over = |tags: &[_], now| expired(tags, "me", now).map(|(run, overdue)| (run, overdue.as_millis()));
        let ours = tags(Some("me"), Some("r"), Some("1000"));
        assert_eq!(over(&ours, 1000 + grace + 5), Some(("r".into(), 5)));
        assert_eq!(over(&ours, 1000 + grace - 1), None);
        assert_eq!(over(&ours, 0), None);
        let late = 1_000_000_000;
        for not_ours in [
            tags(Some("you"), Some("r"), Some("1000")),
            tags(None, Some("r"), Some("1000")),
            tags(Some("me"), None, Some("1000")),
            tags(Some("me"), Some(""), Some("1000")),
            tags(Some("me"), Some("r"), None),
            tags(Some("me"), Some("r"), Some("soon")),
            tags(Some("me"), Some("r"), Some("-5")),
            tags(Some("me"), Some("r"), Some("18446744073709551615")),
        ] {
            assert_eq!(over(&not_ours, late), None, "{not_ours:?}");
        }
        assert_eq!(expired(&tags(Some(""), Some("r"), Some("1")), "", late), None);
    }
}

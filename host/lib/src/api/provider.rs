//! A provider in use: a plugin with its settings, credentials and policy, and the instances that serve its calls.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::access::policy::Grant;
use crate::api::plugin::Plugin;
use crate::api::sandbox::Sandbox;
use crate::api::spec::fresh_id;
use crate::error::{Error, Kind, Result, Retry};
use crate::runtime::call::Call;
use crate::runtime::metrics::Snapshot;
use crate::runtime::runner::{Runner, ask};
use crate::types;

/// The further field of a list filter that asks for the sandboxes of all apps.
const ALL_APPS: &str = "all-apps";

/// Shortest pause between two attempts at a create: a plugin that asks for none must not make a loop of it.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Longest single pause between two attempts at a create, whatever the service asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Is told that a create waits.
pub(super) type WaitObserver = dyn Fn(&Waiting) + Send + Sync;

/// A create that waits because the service asked it to: a rate limit, or no capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Until the next attempt.
    pub pause: Duration,
    /// Since the first attempt.
    pub elapsed: Duration,
    /// What the service said.
    pub reason: String,
}

/// A provider of sandboxes. Cheap to clone; all handles of one provider share its instances and connections.
#[derive(Clone)]
pub struct Provider {
    pub(crate) inner: Arc<Runner>,
    plugin: Plugin,
    waits: Arc<CreateWaits>,
}

/// What happens when the service asks a create to wait.
pub(super) struct CreateWaits {
    /// How long a create is repeated.
    pub(super) patience: Duration,
    pub(super) observer: Option<Box<WaitObserver>>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

impl Provider {
    pub(super) fn new(inner: Arc<Runner>, plugin: Plugin, waits: CreateWaits) -> Provider {
        Provider { inner, plugin, waits: Arc::new(waits) }
    }

    /// The plugin.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// What the plugin may reach now: the manifest's origins, and those learned since.
    pub fn grants(&self) -> Vec<Grant> {
        self.inner.net.policy.grants()
    }

    /// The environment variables that the component sees.
    pub fn environment(&self) -> &[(String, String)] {
        &self.inner.env
    }

    /// What was done so far, and what is open now.
    pub fn metrics(&self) -> Snapshot {
        self.inner.snapshot()
    }

    /// What the provider says of itself. Sends nothing.
    ///
    /// # Errors
    ///
    /// Only if the component fails.
    pub async fn describe(&self) -> Result<types::Description> {
        ask!(self.inner, None, Call::reading("describe the provider"), |guest, store| guest.call_describe(store))
    }

    /// One cheap request that proves address and credentials.
    ///
    /// # Errors
    ///
    /// Whatever stands in the way: [`Kind::Unauthenticated`], [`Kind::Unavailable`], …
    pub async fn check(&self) -> Result<()> {
        ask!(self.inner, None, Call::reading("reach the provider").prompt(), |guest, store| guest.call_check(store))
    }

    /// Gets ready for calls: opens a connection and makes `instances` instances (at most 64) that know the session's
    /// tokens, so that the first calls take no longer than the later ones.
    ///
    /// # Errors
    ///
    /// As [`check`](Provider::check).
    pub async fn warm_up(&self, instances: usize) -> Result<()> {
        self.check().await?;
        let one = || async {
            let mut held = self.inner.hold(None);
            held.call(Call::reading("warm up"), |bound, store| {
                Box::pin(async move { bound.guest().call_describe(store).await })
            })
            .await?;
            Ok::<_, Error>(held)
        };
        // Held together, so that each is another one.
        futures_util::future::try_join_all((0..instances.min(64)).map(|_| one())).await?;
        Ok(())
    }

    /// Ends the use of this provider, in whatever handles of it there are: no further call begins, those under way have
    /// `grace` to end and are cancelled then, the commands of those and of handles that were dropped are killed (at most ten
    /// more seconds are spent on that; [`signals_sent`](Provider::signals_sent) tells what could not be), instances are let
    /// go. Returns how many were cancelled. Sandboxes go on.
    ///
    /// A runtime that is dropped while calls are under way ends their tasks in any order, and some may complain that
    /// another one is gone; this comes before.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.inner.shut_down(grace).await
    }

    /// Waits until the signals have been sent that dropped handles left to be sent, to commands and copies that were given
    /// up; at most for `grace`. For those who end the process right after they cancelled something: a signal is sent in the
    /// background, and would end with it.
    ///
    /// # Errors
    ///
    /// [`Kind::TimedOut`], with some of the commands, when `grace` has passed before; why a signal could not be sent since
    /// this was last asked.
    pub async fn signals_sent(&self, grace: Duration) -> Result<()> {
        self.inner.signals.sent(grace).await
    }

    /// Whether [`create`](Provider::create) would take these settings, as far as that can be told without asking the
    /// service. Sends nothing: for finding out before a build or a thousand samples.
    ///
    /// # Errors
    ///
    /// As `create` would fail: [`Kind::InvalidArgument`], [`Kind::Unsupported`] and the like, naming the setting.
    /// [`Kind::Unsupported`] about `check-spec` when the plugin speaks a version before 0.1.1.
    pub async fn check_spec(&self, spec: &types::SandboxSpec) -> Result<()> {
        let spec = spec.clone();
        ask!(self.inner, None, Call::reading("create the sandbox"), |guest, store| guest.call_check_spec(store, &spec))
    }

    /// Makes a sandbox. The image is built first where it has to be, without its log: see [`Provider::build`]. While the
    /// service asks to wait, it waits, and tells [`ProviderBuilder::on_wait`](crate::ProviderBuilder::on_wait); a key is made if the specification has none,
    /// so that no attempt makes a second sandbox.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`] for a name that is taken, [`Kind::ResourceExhausted`] without capacity,
    /// [`Kind::BuildFailed`], [`Kind::InvalidArgument`].
    pub async fn create(&self, spec: types::SandboxSpec) -> Result<Sandbox> {
        Ok(self.create_with_info(spec).await?.0)
    }

    /// Like [`create`](Provider::create), with what the provider said of the new sandbox.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn create_with_info(&self, mut spec: types::SandboxSpec) -> Result<(Sandbox, types::SandboxInfo)> {
        spec.key.get_or_insert_with(fresh_id);
        let begun = Instant::now();
        loop {
            let (call, wanted) = (Call::acting("create the sandbox").told(), spec.clone());
            let error = match ask!(self.inner, None, call, |guest, store| guest.call_create(store, &wanted)) {
                Ok(info) => return Ok((self.sandbox(info.id.clone()), info)),
                Err(error) => error,
            };
            let Retry::After(pause) = error.retry() else { return Err(error) };
            let (pause, elapsed) = (pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE), begun.elapsed());
            if elapsed + pause > self.waits.patience {
                return Err(error);
            }
            let reason = error.provider_message().unwrap_or(error.parts().1).to_owned();
            tracing::info!(?pause, %reason, "a create waits");
            if let Some(observer) = &self.waits.observer {
                observer(&Waiting { pause, elapsed, reason });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The service's time, by what its latest answer said; none before the first answer, or if it does not say it. Leases
    /// are kept by it, since the clocks of several machines differ.
    pub fn service_time(&self) -> Option<SystemTime> {
        self.inner.net.service_now().map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// A handle to a sandbox by its id. Sends nothing: whether it exists shows at the first call.
    pub fn sandbox(&self, id: impl Into<String>) -> Sandbox {
        Sandbox::new(self.clone(), id.into())
    }

    /// The live sandbox of that name.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] when there is none.
    pub async fn find(&self, name: &str) -> Result<(Sandbox, types::SandboxInfo)> {
        let (call, name) = (Call::reading(format!("find the sandbox {name:?}")).prompt(), name.to_owned());
        let info = ask!(self.inner, None, call, |guest, store| guest.call_find(store, &name))?;
        Ok((self.sandbox(info.id.clone()), info))
    }

    /// A part of the list of sandboxes: at most `max` (1 to 1000), going on at `cursor`.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn list_page(
        &self,
        filter: &types::ListFilter,
        cursor: Option<String>,
        max: u32,
    ) -> Result<types::SandboxPage> {
        let filter = filter.clone();
        ask!(self.inner, None, Call::reading("list the sandboxes").prompt(), |guest, store| guest.call_list(
            store,
            &filter,
            cursor.as_deref(),
            max
        ))
    }

    /// Sandboxes, newest first, at most `max` of them.
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn list(&self, filter: &types::ListFilter, max: usize) -> Result<Vec<types::SandboxInfo>> {
        let mut found = Vec::new();
        let mut cursor = None;
        while found.len() < max {
            let want = (max - found.len()).min(200) as u32;
            let page = self.list_page(filter, cursor, want).await?;
            found.extend(page.items);
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        found.truncate(max);
        Ok(found)
    }

    /// Sandboxes of all apps (or projects, or whatever the provider divides its sandboxes by), newest first, at most `max` of
    /// them. With a provider that does not divide them it is [`list`](Provider::list).
    ///
    /// # Errors
    ///
    /// As any call.
    pub async fn list_all_apps(&self, filter: &types::ListFilter, max: usize) -> Result<Vec<types::SandboxInfo>> {
        let mut wide = filter.clone();
        wide.extra.push((ALL_APPS.to_owned(), "true".to_owned()));
        match self.list(&wide, max).await {
            Err(error) if *error.kind() == Kind::InvalidArgument && error.subject() == Some(ALL_APPS) => {
                self.list(filter, max).await
            }
            found => found,
        }
    }

    /// Deletes a named volume with all that is in it. One that is not there is no error.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] about `delete-volume` when the plugin speaks a version before 0.1.1.
    pub async fn delete_volume(&self, name: &str) -> Result<()> {
        let (call, name) = (Call::acting(format!("delete the volume {name:?}")), name.to_owned());
        ask!(self.inner, None, call, |guest, store| guest.call_delete_volume(store, &name))
    }

    /// A new sandbox from a memory snapshot.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`], [`Kind::Unsupported`].
    pub async fn restore(&self, snapshot: &str, name: Option<&str>) -> Result<Sandbox> {
        let call = Call::acting(format!("restore the snapshot {snapshot}")).told();
        let (snapshot, key, name) = (snapshot.to_owned(), fresh_id(), name.map(str::to_owned));
        let info =
            ask!(self.inner, None, call, |guest, store| guest.call_restore(store, &snapshot, &key, name.as_deref()))?;
        Ok(self.sandbox(info.id))
    }
}

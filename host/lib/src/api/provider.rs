//! A provider: a plugin with its settings, credentials and policy, and the instances that serve its calls.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::access::policy::Grant;
use crate::api::plugin::Plugin;
use crate::api::sandbox::Sandbox;
use crate::api::spec::fresh_id;
use crate::error::{Error, Kind, Result, Retry};
use crate::runtime::call::Call;
use crate::runtime::functions::Functions;
use crate::runtime::metrics::Snapshot;
use crate::runtime::runner::{Runner, ask};
use crate::types;

/// The extra field of a list filter that selects the sandboxes of all apps.
const ALL_APPS: &str = "all-apps";

/// Shortest pause between two attempts at a create. It prevents a busy loop if a plugin asks for a pause of zero.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between two attempts at a create, even if the service asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A function that is called when a create request waits.
pub(super) type WaitObserver = dyn Fn(&Waiting) + Send + Sync;

/// A create that waits because the service asked it to wait, for a rate limit or for lack of capacity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Time until the next attempt.
    pub pause: Duration,
    /// Time since the first attempt.
    pub elapsed: Duration,
    /// The reason that the service gave.
    pub reason: String,
}

/// A provider of sandboxes. Cheap to clone; all handles of one provider share its instances and connections.
///
/// ```no_run
/// use std::time::Duration;
///
/// use sandbox_host::{Plugin, Provider, types::ListFilter};
///
/// # async fn example() -> sandbox_host::Result<()> {
/// let plugin = Plugin::load("modal-provider.wasm").await?;
/// let provider = Provider::builder(&plugin).env("MODAL_ENVIRONMENT", "tests").build().await?;
/// provider.check().await?;
/// for info in provider.list(&ListFilter::default().tag("team", "evals"), 100).await? {
///     println!("{} {:?}", info.id, info.state);
/// }
/// let cancelled = provider.shutdown(Duration::from_secs(10)).await;
/// println!("{cancelled} calls were cancelled");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Provider {
    pub(crate) inner: Arc<Runner>,
    plugin: Plugin,
    waits: Arc<CreateWaits>,
}

/// How a create behaves when the service asks it to wait.
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

/// A handle to a sandbox, and what the provider reported about it.
#[derive(Debug, Clone)]
pub struct SandboxWithInfo {
    /// The handle.
    pub sandbox: Sandbox,
    /// Its state when the provider answered.
    pub info: types::SandboxInfo,
}

impl Provider {
    pub(super) fn new(inner: Arc<Runner>, plugin: Plugin, waits: CreateWaits) -> Provider {
        Provider { inner, plugin, waits: Arc::new(waits) }
    }

    /// Returns the plugin.
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// Returns the origins that the plugin may connect to now: the granted ones of the manifest, and those learned since.
    pub fn grants(&self) -> Vec<Grant> {
        self.inner.net.policy.grants()
    }

    /// Returns the environment variables that the component sees.
    pub fn environment(&self) -> &[(String, String)] {
        &self.inner.env
    }

    /// Returns counters of past work and gauges of what is open now.
    pub fn metrics(&self) -> Snapshot {
        self.inner.snapshot()
    }

    /// Returns the name, the capabilities and the settings of the provider. Sends no request and needs no credentials.
    ///
    /// # Errors
    ///
    /// [`Kind::Trap`], [`Kind::Internal`] if the component fails, [`Kind::ResourceExhausted`] if no instance is free,
    /// [`Kind::Conflict`] after a shutdown.
    pub async fn describe(&self) -> Result<types::Description> {
        ask!(self.inner, None, Call::reading("describe the provider"), |guest, store| guest.call_describe(store))
    }

    /// Checks the address and the credentials with one cheap request.
    ///
    /// # Errors
    ///
    /// [`Kind::Unauthenticated`] for wrong credentials, [`Kind::Unavailable`] if the service cannot be reached, and the
    /// other kinds of every call: see [`Kind`].
    pub async fn check(&self) -> Result<()> {
        ask!(self.inner, None, Call::reading("reach the provider").prompt(), |guest, store| guest.call_check(store))
    }

    /// Prepares for calls: opens a connection and creates `instances` instances (at most 64) that hold the tokens of
    /// the session, so that the first calls are as fast as later ones.
    ///
    /// # Errors
    ///
    /// Those of [`check`](Provider::check).
    pub async fn warm_up(&self, instances: usize) -> Result<()> {
        self.check().await?;
        let one = || async {
            let mut held = self.inner.hold(None);
            held.call(Call::reading("warm up"), |bound, store| {
                Box::pin(async move { Functions::of(bound).call_describe(store).await })
            })
            .await?;
            Ok::<_, Error>(held)
        };
        // All instances are held until the last one exists, so that each call gets a different one.
        futures_util::future::try_join_all((0..instances.min(64)).map(|_| one())).await?;
        Ok(())
    }

    /// Ends the use of this provider by all its handles. New calls fail with [`Kind::Conflict`]. Running calls have
    /// `grace` to end and are cancelled afterwards. The commands of cancelled calls and of dropped handles are killed,
    /// which takes at most ten more seconds; [`signals_sent`](Provider::signals_sent) reports the signals that could
    /// not be sent. All warm instances are dropped. Returns the number of cancelled calls. Sandboxes keep running.
    ///
    /// Call this before the tokio runtime is dropped: a runtime that is dropped during calls ends their tasks in any
    /// order, and some tasks may log that another one is gone.
    pub async fn shutdown(&self, grace: Duration) -> usize {
        self.inner.shut_down(grace).await
    }

    /// Ends the calls of this provider, as the first part of [`shutdown`](Provider::shutdown): new calls fail with
    /// [`Kind::Conflict`], running calls have `grace` to end and are cancelled afterwards. Signals to commands can still
    /// be sent, so a program that keeps handles drops them between the two functions, and `shutdown` waits until their
    /// commands were killed. Returns the number of cancelled calls.
    pub async fn drain(&self, grace: Duration) -> usize {
        self.inner.gate.close(grace).await
    }

    /// Waits until the signals of dropped handles have been sent, at most for `grace`. The signals stop commands and
    /// transfers that were given up. They are sent in the background, so a program that exits soon after it cancelled a
    /// call must wait here first.
    ///
    /// # Errors
    ///
    /// The first error of a signal that could not be sent since the last call of this function. Otherwise
    /// [`Kind::TimedOut`], with the names of some of the commands, if signals are left to be sent after `grace`.
    pub async fn signals_sent(&self, grace: Duration) -> Result<()> {
        self.inner.signals.sent(grace).await
    }

    /// Checks whether [`create`](Provider::create) would accept this specification, as far as that is possible without
    /// a request to the service. Use it before a build, or before many creates.
    ///
    /// # Errors
    ///
    /// The kinds with which `create` would fail, such as [`Kind::InvalidArgument`] and [`Kind::Unsupported`], with the
    /// setting as the subject. [`Kind::Unsupported`] with the subject `check-spec` if the plugin has an interface
    /// version before 0.1.1.
    pub async fn check_spec(&self, spec: &types::SandboxSpec) -> Result<()> {
        let spec = spec.clone();
        ask!(self.inner, None, Call::reading("create the sandbox"), |guest, store| guest.call_check_spec(store, &spec))
    }

    /// Creates a sandbox. If necessary, builds the image first, without its log: see [`Provider::build`]. While the
    /// service asks to wait, repeats the request and calls the function of
    /// [`ProviderBuilder::on_wait`](crate::ProviderBuilder::on_wait). If the specification has no key, a key is
    /// generated, so that a repeated request does not create a second sandbox.
    ///
    /// # Errors
    ///
    /// [`Kind::AlreadyExists`] for a name that is taken, [`Kind::ResourceExhausted`] without capacity,
    /// [`Kind::BuildFailed`], [`Kind::InvalidArgument`], and the kinds of every call: see [`Kind`].
    pub async fn create(&self, spec: types::SandboxSpec) -> Result<Sandbox> {
        Ok(self.create_with_info(spec).await?.sandbox)
    }

    /// Creates a sandbox like [`create`](Provider::create), and also returns what the provider reported about it.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Provider::create).
    pub async fn create_with_info(&self, mut spec: types::SandboxSpec) -> Result<SandboxWithInfo> {
        spec.key.get_or_insert_with(fresh_id);
        let begun = Instant::now();
        loop {
            let (call, wanted) = (Call::acting("create the sandbox").told(), spec.clone());
            let error = match ask!(self.inner, None, call, |guest, store| guest.call_create(store, &wanted)) {
                Ok(info) => return Ok(SandboxWithInfo { sandbox: self.sandbox(info.id.clone()), info }),
                Err(error) => error,
            };
            let Retry::After(pause) = error.retry() else { return Err(error) };
            let (pause, elapsed) = (pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE), begun.elapsed());
            if elapsed + pause > self.waits.patience {
                return Err(error);
            }
            let reason = error.provider_message().unwrap_or(error.parts().1).to_owned();
            tracing::info!(?pause, %reason, "waiting before creating a sandbox");
            if let Some(observer) = &self.waits.observer {
                observer(&Waiting { pause, elapsed, reason });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns the current time of the service, calculated from its latest response. Returns `None` before the first
    /// response, and if responses contain no date. Leases use this time because the clocks of several machines differ.
    pub fn service_time(&self) -> Option<SystemTime> {
        self.inner.net.service_now().map(|millis| UNIX_EPOCH + Duration::from_millis(millis))
    }

    /// Returns a handle to a sandbox by its id. Sends no request: the first call shows whether the sandbox exists.
    pub fn sandbox(&self, id: impl Into<String>) -> Sandbox {
        Sandbox::new(self.clone(), id.into())
    }

    /// Finds the running sandbox with this name.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] if there is none, and the kinds of every call: see [`Kind`].
    pub async fn find(&self, name: &str) -> Result<SandboxWithInfo> {
        let (call, name) = (Call::reading(format!("find the sandbox {name:?}")).prompt(), name.to_owned());
        let info = ask!(self.inner, None, call, |guest, store| guest.call_find(store, &name))?;
        Ok(SandboxWithInfo { sandbox: self.sandbox(info.id.clone()), info })
    }

    /// Returns a page of the list of sandboxes: at most `max` (1 to 1000), starting at `cursor`, or at the beginning
    /// for `None`.
    ///
    /// # Errors
    ///
    /// [`Kind::InvalidArgument`] for an unusable filter, and the kinds of every call: see [`Kind`].
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

    /// Returns at most `max` sandboxes, newest first.
    ///
    /// # Errors
    ///
    /// Those of [`list_page`](Provider::list_page).
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

    /// Returns at most `max` sandboxes of all apps, newest first. An app is the unit by which the provider groups
    /// sandboxes, such as a project. If the provider does not group them, this is the same as [`list`](Provider::list).
    ///
    /// # Errors
    ///
    /// Those of [`list_page`](Provider::list_page).
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

    /// Deletes a named volume with its content. Succeeds if the volume does not exist.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] with the subject `delete-volume` if the plugin has an interface version before 0.1.1, and
    /// the kinds of every call: see [`Kind`].
    pub async fn delete_volume(&self, name: &str) -> Result<()> {
        let (call, name) = (Call::acting(format!("delete the volume {name:?}")), name.to_owned());
        ask!(self.inner, None, call, |guest, store| guest.call_delete_volume(store, &name))
    }

    /// Returns one page of the images that the provider has stored for this account, newest first. `max` is between 1 and
    /// 1000. `cursor` is the field `next` of the page before.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider does not list images, and the kinds of every call: see [`Kind`].
    pub async fn images(&self, cursor: Option<String>, max: u32) -> Result<types::ImagePage> {
        ask!(self.inner, None, Call::reading("list the images").prompt(), |guest, store| guest.call_list_images(
            store,
            cursor.as_deref(),
            max
        ))
    }

    /// Deletes a memory snapshot. Succeeds if it does not exist.
    ///
    /// # Errors
    ///
    /// [`Kind::Unsupported`] if the provider cannot delete snapshots, and the kinds of every call: see [`Kind`].
    pub async fn delete_memory_snapshot(&self, snapshot: &str) -> Result<()> {
        let call = Call::acting(format!("delete the snapshot {snapshot}"));
        let snapshot = snapshot.to_owned();
        ask!(self.inner, None, call, |guest, store| guest.call_delete_memory_snapshot(store, &snapshot))
    }

    /// Creates a new sandbox from a memory snapshot, with the name `name`.
    ///
    /// # Errors
    ///
    /// [`Kind::NotFound`] if the snapshot does not exist, [`Kind::Unsupported`] if the provider has no memory
    /// snapshots, and the kinds of every call: see [`Kind`].
    pub async fn restore(&self, snapshot: &str, name: Option<&str>) -> Result<Sandbox> {
        let call = Call::acting(format!("restore the snapshot {snapshot}")).told();
        let (snapshot, key, name) = (snapshot.to_owned(), fresh_id(), name.map(str::to_owned));
        let info =
            ask!(self.inner, None, call, |guest, store| guest.call_restore(store, &snapshot, &key, name.as_deref()))?;
        Ok(self.sandbox(info.id))
    }
}
